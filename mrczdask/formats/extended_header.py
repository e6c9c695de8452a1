"""Extended headers of MRC files: JSON (MRCZ), FEI1 and FEI2, SERI, AGAR, and symmetry records.

What a record says goes to the names of the data model. Nothing here can make the pixels unreadable: a corrupt extended
header gives fewer facts, and a note that says why.
"""

from __future__ import annotations

import json
from typing import Final

from mrczdask.formats.facts import Facts, parse_time
from mrczdask.formats.fei_header import FEI_BYTES, parse_fei
from mrczdask.formats.section_header import AGAR_BYTES, is_agar, is_seri, parse_agar, parse_seri

SYMMETRY: Final = "symmetry"
SYMMETRY_RECORD: Final = 80
"""Bytes of one line of a CCP4 symmetry record."""
MAX_SYMMETRY_LINES: Final = 192
"""The space groups with most operators, F-centred cubic ones, have 192."""
TIME_KEYS: Final = ("acquired", "datetime", "acquisitiontime", "acquisitiondate", "timestamp")
"""Keys of a JSON document that hold the time of acquisition, lower case and without underscores."""


def parse_extended_header(
    exttyp: str | bytes, raw: bytes, byte_order: str, n_frames: int, *, nint: int = 0, nreal: int = 0
) -> Facts:
    """Read an extended header.

    Parameters
    ----------
    exttyp : str or bytes
        EXTTYP of the header: `json`, `FEI1`, `FEI2`, `SERI`, `AGAR`, `CCP4`, `MRCO` or empty. Without one, records of
        SerialEM are known by `nint` and `nreal`, those of FEI by their numbers.
    raw : bytes
        The NSYMBT bytes behind the first 1024, or as many of them as the file has.
    byte_order : {"<", ">"}
        Byte order of the file.
    n_frames : int
        Frames in the file. Facts along `frame` have this length.
    nint, nreal : int
        Two int16 at bytes 128 and 130 of the header: the layout of SERI and AGAR records.

    Returns
    -------
    Facts
        Empty, with a note, where nothing can be read.
    """
    kind = exttyp.decode("latin-1") if isinstance(exttyp, bytes) else exttyp
    kind = kind.strip("\x00 ").upper()
    if n_frames <= 0 or not raw.strip(b"\x00 "):
        return Facts()
    if kind == "JSON":
        return _json(raw)
    if kind in FEI_BYTES:
        return parse_fei(raw, byte_order, n_frames, FEI_BYTES[kind])
    if kind == "SERI":
        return parse_seri(raw, byte_order, n_frames, nint, nreal)
    if kind == "AGAR":
        return parse_agar(raw, byte_order, n_frames, nint, nreal)
    if not kind and is_seri(nint, nreal, len(raw), n_frames):
        return parse_seri(raw, byte_order, n_frames, nint, nreal)
    if not kind and is_agar(raw, byte_order, nint, nreal):
        return parse_agar(raw, byte_order, n_frames, 0, AGAR_BYTES // 4)
    if kind in ("CCP4", "MRCO", ""):
        return _symmetry(raw, kind)
    return Facts(notes=(f"the extended header is of the type {kind!r}, which is not read",))


def _json(raw: bytes) -> Facts:
    body = raw.strip(b"\x00 \t\r\n")
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        text = body.decode("latin-1")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        return Facts(notes=(f"the JSON of the extended header does not parse ({type(error).__name__}: {error})",))
    if not isinstance(document, dict):
        document = {"json": document}
    named = {str(key).replace("_", "").lower(): value for key, value in document.items()}
    times = (parse_time(named[key]) for key in TIME_KEYS if key in named)
    return Facts(metadata=document, acquired=next((moment for moment in times if moment is not None), None))


def _symmetry(raw: bytes, kind: str) -> Facts:
    """Lines of 80 characters; without EXTTYP only what is text throughout."""
    printable = all(byte in b"\t\r\n\x00" or 32 <= byte < 127 for byte in raw[: SYMMETRY_RECORD * MAX_SYMMETRY_LINES])
    if not printable:
        what = f"{kind} symmetry records" if kind else "an extended header without EXTTYP"
        return Facts(notes=(f"{what} that are no text: not read",))
    text = raw[: SYMMETRY_RECORD * MAX_SYMMETRY_LINES].decode("ascii").replace("\x00", " ")
    lines = [text[start : start + SYMMETRY_RECORD].strip() for start in range(0, len(text), SYMMETRY_RECORD)]
    return Facts(attrs={SYMMETRY: [line for line in lines if line]})
