"""The suffixes of files: each names the format that is written, and is looked at before any work."""

from __future__ import annotations

import os
import re
from typing import Any, Final, Literal

from mrczdask.errors import MrcFormatError
from mrczdask.io.source import is_wrapped

RAW_SUFFIXES: Final = (".mrc", ".mrcs", ".map", ".st", ".rec", ".ali")
COMPRESSED_SUFFIXES: Final = (".mrcz",)
TIFF_SUFFIXES: Final = (".tif", ".tiff", ".gtiff")
ARCHIVE_SUFFIXES: Final = (".zarr",)
FORMATS: Final = {
    "mrc": RAW_SUFFIXES,
    "mrcz": COMPRESSED_SUFFIXES,
    "tiff": TIFF_SUFFIXES,
    "gain": (".gain",),
    "zarr": ARCHIVE_SUFFIXES,
    "hdf5": (".h5", ".hdf5", ".nxs"),
}
"""Formats that are written, and the suffixes that name them; `.gain` is a TIFF."""
WRAPPERS: Final = (".gz", ".bz2", ".xz", ".zst")
_SUFFIX: Final = re.compile(r"\.[A-Za-z][A-Za-z0-9]{0,9}$")
"""What the end of a name has to look like to be taken for a suffix: "run.2026" and "session.v2-b" have none."""
_OTHER: Final = {
    **dict.fromkeys(TIFF_SUFFIXES, "TIFF files are written by write_mrcz"),
    **dict.fromkeys(ARCHIVE_SUFFIXES, "Zarr archives are written by write_archive"),
    **dict.fromkeys((".h5", ".hdf5", ".nxs"), "HDF5 files of frames are written by write_frames"),
    ".cxi": "CXI files of peaks are written by write_peaks",
    ".zip": "zip files are written by write_archive",
    **dict.fromkeys((".json", ".parquet", ".icechunk"), "references are written by virtualize"),
}

Format = Literal["mrc", "mrcz", "tiff", "gain", "zarr", "hdf5"]


def suffix_of(url: str | os.PathLike[str]) -> str:
    """The suffix of a name, in lower case; "" for none."""
    found = _SUFFIX.search(os.fspath(url).rstrip("/").rsplit("/", 1)[-1])
    return "" if found is None else found.group().lower()


def format_of(url: str | os.PathLike[str], allowed: tuple[Format, ...]) -> Format:
    """The format that a suffix names.

    Raises
    ------
    ValueError
        It names none of those allowed; the message lists them.
    """
    name, suffix = os.fspath(url), suffix_of(url)
    for kind in allowed:
        if suffix in FORMATS[kind]:
            return kind
    if is_wrapped(name) or suffix in WRAPPERS:
        raise MrcFormatError("compressed wrappers are read, not written: name the file .mrcz or .mrc", url=name)
    known = ", ".join(part for kind in allowed for part in FORMATS[kind])
    remedy = f"; {_OTHER[suffix]}" if suffix in _OTHER else ""
    raise ValueError(f"{name}: the suffix names no format that is written; choose one of {known}{remedy}")


def check_archive(place: Any) -> None:
    """Refuse the name of a file for the folder of an archive: .zarr or no suffix is one; a store of Zarr has no name.

    Raises
    ------
    MrcFormatError
        The name has another suffix.
    """
    if not isinstance(place, str | os.PathLike):
        return
    name = os.fspath(place)
    suffix = suffix_of(name)
    if suffix and not suffix.startswith(ARCHIVE_SUFFIXES):  # a copy may be named .zarr2
        remedy = _OTHER.get(suffix, "name it .zarr")
        raise MrcFormatError(f"a Zarr archive is a folder named .zarr, and the suffix is {suffix}: {remedy}", url=name)
