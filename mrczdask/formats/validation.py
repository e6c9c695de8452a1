"""Rules that find the faults of an MRC or MRCZ file from its parts, without opening it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np

from mrczdask.formats import mrc_fields as fields
from mrczdask.formats.blosc_frame import BLOSC1, BLOSC2, EXTENDED_HEADER_BYTES, HEADER_BYTES, ChunkHeader
from mrczdask.formats.faults import Finding, find
from mrczdask.formats.frame_index import CHECKSUM_BYTES, ENTRY_BYTES, footer_bytes, parse_footer
from mrczdask.formats.mrc import MAX_LABELS, SLICES_SINCE, MrcHeader, Statistics
from mrczdask.formats.mrcz import FrameTable, check_table

STAMPS: Final[Mapping[bytes, str]] = {b"\x44\x44": "<", b"\x44\x41": "<", b"\x11\x11": ">"}
NVERSIONS: Final = (20140, 20141)
EXTENDED_TYPES: Final = ("json", "FEI1", "FEI2", "SERI", "AGAR", "CCP4", "MRCO", "HDF5")
SPACE_GROUPS: Final = range(231)
LZ4HC_FIXED: Final = (0, 6, 0)
"""First python-mrcz that writes lz4hc as 3."""
PLAIN_SUFFIXES: Final = (".mrc", ".mrcs", ".map", ".st", ".rec", ".ali")
MICROMETRE_SIZE: Final = 1_000.0
"""Pixels from here on, in angstrom, are those of light optics, given in micrometres."""
PIXEL_KEYS: Final = ("pixelsize", "pixel_size", "pixelsize_x", "scale")
UNITS: Final = {"\\aa": 1.0, "a": 1.0, "å": 1.0, "angstrom": 1.0, "nm": 10.0, "pm": 0.01, "\\mum": 1e4, "um": 1e4}
UNITS_KEYS: Final = ("pixelunits", "pixel_units", "units", "unit")
GAP_TAIL: Final = 4096
"""Bytes looked at before the end of each frame, and after the beginning of the first."""
MIN_GAP: Final = 8
MIN_REST: Final = 4
MAX_ZERO_PIXEL: Final = 16
"""Zero bytes of the pixels themselves that a gap can end in."""
GAP_FACTOR: Final = 4
"""A run of zeros this much longer than at the end of any other frame was never written."""
_JSON_REST: Final = re.compile(rb'[ -~]{0,4095}["\]\d}el] *\}')


def check_header(raw: bytes, header: MrcHeader, suffix: str) -> Iterator[Finding]:
    """Faults of the 1024 bytes of a file whose name ends with `suffix`."""
    rec = np.frombuffer(raw, fields.HEADER.newbyteorder(header.byte_order), count=1)[0]
    if not header.has_map:
        yield find("no-map", byte=208)
    yield from _stamp(raw[212:216], header)
    yield from _axes(tuple(int(axis) for axis in rec["map_axes"]))
    yield from _space_group(header)
    if header.nversion not in NVERSIONS and header.mrcz_version is None:
        yield find("nversion", byte=108, nversion=header.nversion)
    if header.stale_nsymbt is not None:
        yield find("nsymbt-stale", byte=92, nsymbt=header.stale_nsymbt)
    if header.shifted:
        yield find("imod-signed", byte=156)
    yield from _labels(raw, int(rec["nlabl"]))
    yield from _sampling(header)
    yield from _pixel_size(rec, header)
    yield from _foreign_readers(header, suffix)


def _stamp(stamp: bytes, header: MrcHeader) -> Iterator[Finding]:
    order = STAMPS.get(stamp[:2])
    if order is None:
        yield find("stamp-odd", byte=212, stamp=stamp.hex(" "))
    elif order != header.byte_order:
        yield find("stamp-wrong", byte=212, stamp=stamp.hex(" "))


def _axes(axes: tuple[int, ...]) -> Iterator[Finding]:
    if axes in ((1, 2, 3), (0, 0, 0)):
        return
    code = "axes-permuted" if sorted(axes) == [1, 2, 3] else "axes"
    yield find(code, byte=64, axes=" ".join(map(str, axes)))


def _space_group(header: MrcHeader) -> Iterator[Finding]:
    nz, mz = header.shape[0], header.m[2]
    if header.ispg in fields.VOLUME_STACKS:
        if mz < 1 or nz % mz:
            yield find("volume-stack", byte=36, ispg=header.ispg, mz=mz, nz=nz)
    elif header.ispg not in SPACE_GROUPS:
        yield find("ispg", byte=88, ispg=header.ispg)


def _labels(raw: bytes, nlabl: int) -> Iterator[Finding]:
    labels = [raw[224 + 80 * k : 304 + 80 * k].rstrip(b"\x00 ") for k in range(MAX_LABELS)]
    filled = sum(map(bool, labels))
    if nlabl != filled:
        yield find("label-count", byte=220, nlabl=nlabl, filled=filled)
    for k, label in enumerate(labels):
        text = label.decode("latin-1")
        if not _is_utf8(label) and k == 0:
            yield find("label-not-utf8", byte=224, label=text)
        elif not label.isascii():
            yield find("label-not-ascii", byte=224 + 80 * k, number=k + 1, label=text)


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _sampling(header: MrcHeader) -> Iterator[Finding]:
    """MX, MY, MZ: what python-mrcz and the readers of plain MRC make of them."""
    nz, ny, nx = header.shape
    mz, version = header.m[2], header.mrcz_version
    if version is not None and version < SLICES_SINCE:
        if header.compressor and header.m == (0, nx, ny):
            yield find("shifted-start", byte=28, m=f"0, {nx}, {ny}")
        return  # python-mrcz takes every such file for a list of frames
    if version is not None and header.m[:2] == (0, 0):
        yield find("mx-my-zero", byte=28)
    if mz < 1:
        return
    if nz % mz:
        yield find("mz-loses-frames", byte=36, mz=mz, nz=nz, lost=nz % mz)
    elif version is None:
        yield find("mz-list", byte=36, mz=mz, n=nz // mz)


def _pixel_size(rec: Any, header: MrcHeader) -> Iterator[Finding]:
    if header.pixel_size is None:
        cella = ", ".join(f"{float(value):g}" for value in rec["cella"])
        yield find("pixel-size-missing", byte=40, cella=cella, m=", ".join(map(str, header.m)))
    elif header.mrcz_version is not None and header.pixel_size[0] >= MICROMETRE_SIZE:
        yield find("pixel-size-micrometre", byte=40, size=header.pixel_size[0])


def _foreign_readers(header: MrcHeader, suffix: str) -> Iterator[Finding]:
    if header.compressor and suffix in PLAIN_SUFFIXES:
        yield find("compressed-mrc", byte=12, suffix=suffix)
    if header.byte_order == ">":
        yield find("big-endian")
    if header.compressor and header.exttyp != "json":
        yield find("no-json", byte=104)
    if header.packed4 and header.mode == fields.PACKED4 and header.shape[2] % 2:
        yield find("odd-4bit", byte=0, nx=header.shape[2])


def check_extended(
    header: MrcHeader, raw: bytes, metadata: Mapping[str, Any] | None, notes: Sequence[str]
) -> Iterator[Finding]:
    """Faults of the extended header: its bytes, the JSON in it, and what its parser could not read."""
    if not header.nsymbt:
        return
    if header.compressor and not header.exttyp and not raw.strip(b"\x00"):
        yield find("extended-lost", byte=92, nsymbt=header.nsymbt)
    elif header.exttyp and header.exttyp not in EXTENDED_TYPES:
        yield find("exttyp", byte=104, nsymbt=header.nsymbt, exttyp=header.exttyp)
    else:
        code = "json-corrupt" if header.exttyp == "json" else "extended-unread"
        yield from (find(code, byte=fields.HEADER_BYTES, note=note) for note in notes)
    if header.exttyp == "json" and metadata is None and not notes:
        yield find("json-corrupt", byte=fields.HEADER_BYTES, note="the extended header says JSON and holds none")
    yield from _said_pixel_size(header, metadata or {})


def _said_pixel_size(header: MrcHeader, metadata: Mapping[str, Any]) -> Iterator[Finding]:
    """A pixel size in the JSON that is ten times that of the header."""
    lower = {str(key).lower(): value for key, value in metadata.items()}
    values = [lower[key] for key in PIXEL_KEYS if key in lower]
    unit = next((str(lower[key]) for key in UNITS_KEYS if key in lower), "\\AA")
    factor = UNITS.get(unit.lower())
    if header.pixel_size is None or factor is None or not values:
        return
    said = values[0][-1] if isinstance(values[0], list) and values[0] else values[0]
    if isinstance(said, int | float) and math.isclose(said * factor, 10 * header.pixel_size[0], rel_tol=1e-3):
        yield find("pixel-size-tenfold", byte=40, size=header.pixel_size[0], said=said, unit=unit)


def check_chunks(header: MrcHeader, table: FrameTable, chunks: Sequence[ChunkHeader]) -> Iterator[Finding]:
    """Faults of the chunks that were found: their versions and codecs, and what the header says of them."""
    versions = [chunk.version for chunk in chunks]
    if BLOSC2 in versions:
        first = versions.index(BLOSC2)
        place = {"frame": first, "byte": int(table.offsets[first])}
        yield find("version-5", **place, n=versions.count(BLOSC2), nz=header.shape[0])
    for frame, chunk in enumerate(chunks):
        own = EXTENDED_HEADER_BYTES if chunk.extended else HEADER_BYTES
        if chunk.is_memcpy and chunk.version in (BLOSC1, BLOSC2) and chunk.cbytes != chunk.nbytes + own:
            byte = int(table.offsets[frame])
            yield find("memcpy-length", frame=frame, byte=byte, nbytes=chunk.nbytes, cbytes=chunk.cbytes)
    yield from _codec(header, table, chunks)
    actual = int(table.lengths.sum())
    if len(table) == header.shape[0] and header.packed_bytes != actual:
        yield find("packed-bytes", byte=144, said=header.packed_bytes, actual=actual)


def _codec(header: MrcHeader, table: FrameTable, chunks: Sequence[ChunkHeader]) -> Iterator[Finding]:
    """MODE against the codec of the chunks; a stored chunk has none."""
    said = fields.COMPRESSORS[header.compressor]
    for frame, chunk in enumerate(chunks):
        if chunk.is_memcpy or (chunk.version == BLOSC2 and chunk.flags >> 5 > 4):
            continue
        codec = chunk.codec
        if codec != ("lz4" if said == "lz4hc" else said):
            yield find("codec-mismatch", frame=frame, byte=int(table.offsets[frame]), said=said, codec=codec)
        elif said == "lz4" and header.mrcz_version is not None and header.mrcz_version < LZ4HC_FIXED:
            yield find("lz4hc-as-lz4", byte=12)
        return


def check_trailing(header: MrcHeader, table: FrameTable, tail: bytes, size: int) -> Iterator[Finding]:
    """What stands between the last frame and the end of the file at byte `size`; `tail` is the end of it."""
    trailing = size - table.end
    if trailing <= 0 or len(table) < header.shape[0]:
        return
    if not header.compressor:
        yield find("trailing-bytes", byte=table.end, trailing=trailing)
        return
    own = parse_footer(tail[-footer_bytes(len(table)) :]) if trailing >= footer_bytes(len(table)) else None
    if own is not None:
        why = check_table(own, header, size) or (
            "" if trailing == footer_bytes(len(table)) else "bytes stand before it"
        )
        if why or (own.offsets != table.offsets).any():
            yield find("footer-stale", byte=table.end, listed=len(own), why=why or "its frames are others")
        return
    yield from _foreign_tail(header, table, tail, trailing)


def _foreign_tail(header: MrcHeader, table: FrameTable, tail: bytes, trailing: int) -> Iterator[Finding]:
    """Bytes that are no index of the frames that are there."""
    entries, odd = divmod(len(tail) - CHECKSUM_BYTES, ENTRY_BYTES)
    older = parse_footer(tail) if len(tail) == trailing and not odd and entries > 0 else None
    if older is not None:
        why = f"the header says {header.shape[0]}"
        yield find("footer-stale", byte=table.end, listed=len(older), why=why)
    elif trailing == footer_bytes(len(table)):
        yield find("footer-corrupt", byte=table.end)
    elif tail[:1] in (b"\x02", b"\x05") and tail[4:8] == header.frame_bytes.to_bytes(4, "little"):
        yield find("append-unfinished", byte=table.end, trailing=trailing)
    else:
        yield find("trailing-bytes", byte=table.end, trailing=trailing)


def check_append(header: MrcHeader, table: FrameTable, first: bytes, tails: Sequence[bytes]) -> Iterator[Finding]:
    """Traces of an append to a plain file with JSON: `first` bytes of the pixels, and the `tails` of all frames."""
    if header.compressor or header.mrcz_version is None or header.exttyp != "json":
        return
    rest = json_rest(first)
    if rest:
        yield find("append-json-rest", frame=0, byte=header.data_offset, length=rest)
    zeros = [len(tail) - len(tail.rstrip(b"\x00")) for tail in tails[:-1]]
    if len(tails) < 3 or not zeros:
        return
    longest = int(np.argmax(zeros))
    others = max((run for k, run in enumerate(zeros) if k != longest), default=0)
    others = max(others, len(tails[-1]) - len(tails[-1].rstrip(b"\x00")))
    gap = zeros[longest]
    if MIN_GAP <= gap <= header.nsymbt + MAX_ZERO_PIXEL and gap >= GAP_FACTOR * max(others, 1):
        byte = int(table.offsets[longest + 1])
        yield find("append-json-gap", frame=longest + 1, byte=byte, gap=min(gap, header.nsymbt))


def json_rest(first: bytes) -> int:
    """Length of the end of a JSON text with which the bytes begin; 0 where they do not."""
    match = _JSON_REST.match(first)
    if match is None or len(match.group()) < MIN_REST or b'"' not in match.group():
        return 0
    try:  # the whole of a JSON text would be pixels that look like one
        json.loads(match.group())
    except ValueError:
        return len(match.group())
    return 0


def check_statistics(header: MrcHeader, first: Statistics | None, actual: Statistics | None) -> Iterator[Finding]:
    """The statistics of the header against those of the first frame and of all frames."""
    said = header.statistics
    if said is None:
        yield find("statistics-unset", byte=76)
    elif actual is not None and not _agree(said, actual):
        middle = None if first is None else (first.minimum + first.maximum) / 2
        of_first = first is not None and _range_agrees(said, first)
        if of_first and (_agree(said, first) or math.isclose(said.mean, middle or 0.0, rel_tol=1e-5, abs_tol=1e-6)):
            yield find("statistics-first-frame", byte=76, said=_text(said), actual=_text(actual))
        else:
            yield find("statistics-wrong", byte=76, said=_text(said), actual=_text(actual))


def _agree(said: Statistics, actual: Statistics | None) -> bool:
    """Minimum, maximum and mean within what float32 and the order of summing leave."""
    if actual is None or not _range_agrees(said, actual):
        return False
    return abs(said.mean - actual.mean) <= 1e-3 * actual.rms + 1e-5 * abs(actual.mean)


def _range_agrees(said: Statistics, actual: Statistics) -> bool:
    return math.isclose(said.minimum, actual.minimum, rel_tol=1e-5, abs_tol=1e-6) and math.isclose(
        said.maximum, actual.maximum, rel_tol=1e-5, abs_tol=1e-6
    )


def _text(values: Statistics) -> str:
    return f"minimum {values.minimum:g}, maximum {values.maximum:g}, mean {values.mean:g}"
