"""Errors of libraries that read damaged files, in one line that names the file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from mrczdask.errors import MrcFormatError, MrczdaskError
from mrczdask.io.source import is_of_client

_OWN: Final = (MrczdaskError, FileNotFoundError, PermissionError, ConnectionError, TimeoutError)
_LONG: Final = 200


@contextmanager
def damaged(url: str, what: str, frame: int | None = None) -> Iterator[None]:
    """Whatever is raised within is an `MrcFormatError`, but for what the network, the store or a missing file is."""
    try:
        yield
    except Exception as error:
        if isinstance(error, _OWN) or is_of_client(error):
            raise
        said = " ".join(f"{type(error).__name__}: {error}".split())[:_LONG]
        raise MrcFormatError(f"{what} ({said}): the file is damaged", url=url, frame=frame) from None
