"""HDF5 files, local or remote: opened, and what is not one refused in a line."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final

from mrczdask.errors import MissingExtraError, MrcFormatError
from mrczdask.io.source import is_remote, local_path

Options = Mapping[str, Any] | None

_SIGNATURE: Final = b"\x89HDF\r\n\x1a\n"
_BEGINNINGS: Final = (0, 512, 1024, 2048)
"""Where an HDF5 file may begin, behind a block of the user's own."""


def is_hdf5(url: str) -> bool:
    """Whether a local file is HDF5, whatever its name; of files in object stores the name tells."""
    path = local_path(url)
    if is_remote(url) or not os.path.isfile(path):
        return False
    with open(path, "rb") as file:
        head = file.read(_BEGINNINGS[-1] + len(_SIGNATURE))
    return any(head.startswith(_SIGNATURE, at) for at in _BEGINNINGS)


def hdf5(url: str) -> Any:
    """h5py with the filters of hdf5plugin."""
    try:
        import h5py
        import hdf5plugin  # noqa: F401  registers bitshuffle-LZ4
    except ImportError:
        raise MissingExtraError(f"{url}: HDF5 needs h5py: pip install 'mrczdask[hdf5]'") from None
    return h5py


@contextmanager
def open_hdf5(url: str, storage_options: Options = None) -> Iterator[Any]:
    """The root group of an HDF5 file, to read."""
    h5py = hdf5(url)
    if is_remote(url):
        import fsspec

        with fsspec.open(url, "rb", **dict(storage_options or {})) as stream, _file(h5py, stream, url) as file:
            yield file
        return
    path = local_path(url)
    if not os.path.exists(path):
        raise FileNotFoundError(path)
    with _file(h5py, path, url) as file:
        yield file


def _file(h5py: Any, where: Any, url: str) -> Any:
    try:
        return h5py.File(where, "r")
    except OSError as error:
        with suppress(OSError):  # one that is being written by a single writer for many readers
            return h5py.File(where, "r", swmr=True)
        raise MrcFormatError(f"this is no HDF5 file, or a truncated one: {error}", url=url) from None


def beside(url: str, name: str) -> str:
    """The url of a file that a file names: relative names are taken from its folder."""
    if is_remote(name) or os.path.isabs(name):
        return name
    folder, slash, _ = url.rpartition("/")
    return f"{folder}{slash}{name}"
