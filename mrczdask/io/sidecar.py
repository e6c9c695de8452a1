"""The `.mdoc` file beside a movie."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final

from mrczdask.errors import MissingExtraError
from mrczdask.formats.facts import Facts
from mrczdask.formats.mdoc import SUFFIX, mdoc_names, parse_mdoc
from mrczdask.io.source import is_remote, local_path, open_source

MAX_BYTES: Final = 64 << 20
"""A larger sidecar is none: SerialEM writes about 1 kB a section."""


def find_mdoc(url: str, storage_options: Mapping[str, Any] | None = None) -> str | None:
    """The sidecar of a file, `movie.tif.mdoc` or `movie.mdoc`, if there is one.

    A remote folder is listed once, and remembered by fsspec: asking for every name would cost two requests a movie.
    """
    names = mdoc_names(url)
    if not is_remote(url):
        return next((name for name in names if os.path.isfile(local_path(name))), None)
    from fsspec.core import url_to_fs

    try:
        fs, path = url_to_fs(url, **dict(storage_options or {}))
        there = {os.path.basename(str(entry)) for entry in fs.ls(fs._parent(path), detail=False)}
    except (OSError, NotImplementedError):  # no listing: the store has only files with known names
        return None
    return next((name for name in names if name.rpartition("/")[2] in there), None)


def read_sidecar(url: str, n_frames: int, storage_options: Mapping[str, Any] | None = None) -> Facts:
    """What the sidecar of `url` says; empty without one, and a note where it cannot be read."""
    name = find_mdoc(url, storage_options)
    if name is None:
        return Facts()
    with open_source(name, storage_options) as source:
        if source.size > MAX_BYTES:
            return Facts(notes=(f"{name}: {source.size} bytes are no {SUFFIX} file",))
        text = source.read_at(0, source.size)
    try:
        return parse_mdoc(text, n_frames)
    except MissingExtraError as error:
        return Facts(notes=(f"{name}: {error}",))
