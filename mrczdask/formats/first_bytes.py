"""Files that are something else than their name says, known by their first bytes."""

from __future__ import annotations

import re
from typing import Final

LFS: Final = "a pointer of Git LFS, the file itself was not fetched: git lfs pull"
_STARTS: Final[tuple[tuple[bytes, str], ...]] = (
    (b"version https://git-lfs.github.com/", LFS),
    (b"version https://hawser.github.com/", LFS),
    (b"II*\x00", "a TIFF file: name it .tif"),
    (b"MM\x00*", "a TIFF file: name it .tif"),
    (b"II+\x00", "a BigTIFF file: name it .tif, or .eer for electron events"),
    (b"MM\x00+", "a BigTIFF file: name it .tif"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file: open_frames reads it"),
    (b"CDF\x01", "a NetCDF file"),
    (b"CDF\x02", "a NetCDF file"),
    (b"\x1f\x8b", "packed by gzip: add .gz to its name"),
    (b"BZh", "packed by bzip2: add .bz2 to its name"),
    (b"\xfd7zXZ\x00", "packed by xz: add .xz to its name"),
    (b"\x28\xb5\x2f\xfd", "packed by Zstandard: add .zst to its name"),
    (b"PK\x03\x04", "a zip archive: unpack it first"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-zip archive: unpack it first"),
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"GIF8", "a GIF picture"),
    (b"%PDF", "a PDF document"),
    (b"\x93NUMPY", "a .npy file: numpy.load reads it"),
    (b"###CBF:", "a CBF file: open_frames reads it"),
    (b"MQ1,", "a Merlin file: name it .mib"),
    (b"IMGBLO", "a NanoMEGAS block file: name it .blo"),
    (b"SIMPLE  =", "a FITS file"),
    (b"<?xml", "an XML text, as stores send in place of a file that they refuse: download it again"),
    (b"\x00\x00\x00\x03\x00\x00", "a Gatan file: convert it with IMOD, dm2mrc"),
    (b"\x00\x00\x00\x04\x00\x00\x00\x00", "a Gatan file: convert it with IMOD, dm2mrc"),
)
"""First bytes, and what a file is that begins with them."""
_HTML: Final = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:<!--.*?-->\s*)?<(?:!doctype\s+html|html|head)\b", re.I | re.S)
_JSON: Final = re.compile(rb"(?:\xef\xbb\xbf)?\s*[{\[]\s*(?:[\"{\[]|-?\d|[}\]])")
_LOOKED: Final = 1024


def kind_of(head: bytes) -> str | None:
    """Name what a file is by its first bytes, and what to do; None where they tell nothing."""
    if not head:
        return "empty: copy it again"
    if _HTML.match(head[:_LOOKED]):
        return "an HTML page, as servers send in place of a file: download it again, with the login it needs"
    found = next((what for start, what in _STARTS if head.startswith(start)), None)
    if found is not None:
        return found
    if _JSON.match(head[:_LOOKED]) and _is_text(head[:_LOOKED]):
        return "a JSON text"
    if not head.strip(b"\x00"):
        return "zeros from its first byte on: it was not written to its end, copy it again"
    return "a text" if _is_text(head[:_LOOKED]) else None


def sure_kind_of(head: bytes) -> str | None:
    """As `kind_of`, by first bytes alone that no small number in a header can have by chance."""
    found = (what for start, what in _STARTS if len(start) > 3 and start[0] and head.startswith(start))
    return next(found, None)


def _is_text(head: bytes) -> bool:
    return all(byte in b"\t\r\n\x0c" or 32 <= byte < 127 for byte in head)


def is_tiff(head: bytes) -> bool:
    """Whether the first bytes are those of a TIFF or BigTIFF file."""
    return head[:4] in (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
