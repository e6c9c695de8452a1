"""The MRC and MRCZ header: 1024 bytes to `MrcHeader` and back."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from mrczdask.errors import MrcFormatError
from mrczdask.formats import mrc_fields as fields
from mrczdask.formats.first_bytes import kind_of, sure_kind_of
from mrczdask.formats.serialem import is_halved_size, says_packed

Layout = Literal["raw", "packed4", "blosc"]
ByteOrder = Literal["<", ">"]

MAX_LABELS = 10
_MRCZ_LABEL = re.compile(r"MRCZ(\d+)\.(\d+)(?:\.(\d+))?")
SURE_FRAME_BYTES = 1024
"""Of smaller frames a whole number fits any file by chance."""
SYMMETRY_RECORD = 80
"""Bytes of a line of symmetry records."""
FEI_RECORD, MAX_FEI_RECORD = 768, 1 << 16
"""Least and largest size that a record of Thermo Fisher says of itself."""
SHIFT = 128
"""What IMOD takes away from unsigned bytes to store them as signed ones."""
SLICES_SINCE = (0, 5, 0)
"""First python-mrcz that writes the number of slices to MZ."""


@dataclass(frozen=True)
class Statistics:
    """Minimum, maximum, mean and standard deviation of the pixels, as the header states them: advisory."""

    minimum: float
    maximum: float
    mean: float
    rms: float


@dataclass(frozen=True)
class MrcHeader:
    """What the 1024 bytes say, after the rules for faulty writers.

    Attributes
    ----------
    shape : tuple of int
        (NZ, NY, NX) in pixels; NX is doubled for packed mode 0.
    mode, compressor : int
        MODE % 1000 and MODE // 1000 (0: none).
    byte_order : {"<", ">"}
    stored : numpy.dtype
        One pixel on disk, in the file's byte order; of shape (2,) for complex int16, (3,) for RGB.
    signed_known : bool
        False for a mode-0 file that could be signed or unsigned.
    shifted : bool
        Bytes hold the pixel less 128, as IMOD writes unsigned bytes; `statistics` are those of the pixels.
    slices : int
        z-slices a frame in a list of 3-D frames (python-mrcz) or a stack of volumes, else 1.
    pixel_size : tuple of float or None
        (x, y, z) in angstrom.
    """

    shape: tuple[int, int, int]
    mode: int
    byte_order: ByteOrder = "<"
    compressor: int = 0
    packed4: bool = False
    stored: np.dtype[Any] = field(default_factory=lambda: np.dtype("i1"))
    signed_known: bool = True
    shifted: bool = False
    slices: int = 1
    pixel_size: tuple[float, float, float] | None = None
    ispg: int = 0
    nsymbt: int = 0
    stale_nsymbt: int | None = None
    """What NSYMBT says where that is of another file, and the pixels follow the 1024 bytes."""
    nsymbt_sure: bool = True
    """False where a file that is too short may have lost pixels, or never had its extended header."""
    exttyp: str = ""
    nversion: int = 0
    nint: int = 0
    nreal: int = 0
    voltage_kv: float | None = None
    spherical_aberration_mm: float | None = None
    counts_per_electron: float | None = None
    packed_bytes: int = 0
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)
    has_map: bool = True
    statistics: Statistics | None = None
    labels: tuple[str, ...] = ()
    mrcz_version: tuple[int, int, int] | None = None
    m: tuple[int, int, int] = (0, 0, 0)

    @property
    def data_offset(self) -> int:
        """Byte at which the pixels or the first chunk begin."""
        return fields.HEADER_BYTES + self.nsymbt

    @property
    def layout(self) -> Layout:
        if self.compressor:
            return "blosc"
        return "packed4" if self.packed4 else "raw"

    @property
    def line_bytes(self) -> int:
        """Bytes of one line of pixels, uncompressed."""
        nx = self.shape[2]
        return (nx + 1) // 2 if self.packed4 else nx * self.stored.itemsize

    @property
    def frame_bytes(self) -> int:
        """Bytes of one frame, uncompressed."""
        return self.shape[1] * self.line_bytes


def parse_header(raw: bytes, *, signed: bool | None = None, size: int | None = None) -> MrcHeader:
    """Read the first 1024 bytes of an MRC or MRCZ file.

    Parameters
    ----------
    raw : bytes
        At least 1024 bytes from the start of the file; with `size` some more, which tell a true extended header from
        one that is not there.
    signed : bool, optional
        Read mode 0 as int8 (True) or uint8 (False), whatever the header says.
    size : int, optional
        Bytes in the file. With it an NSYMBT that is of another file is not believed.

    Raises
    ------
    MrcFormatError
        The bytes are no MRC header, or hold a mode that is not read here.
    """
    if len(raw) < fields.HEADER_BYTES:
        kind = kind_of(raw)
        said = f"this is {kind}" if kind else "the file is truncated or no MRC"
        raise MrcFormatError(f"an MRC header has 1024 bytes, the file has {len(raw)}: {said}")
    kind = None if raw[208:211] == b"MAP" else sure_kind_of(raw)
    if kind is not None:
        raise MrcFormatError(f"no MRC or MRCZ file: this is {kind}", byte=0)
    order = _byte_order(raw)
    rec = np.frombuffer(raw, fields.HEADER.newbyteorder(order), count=1)[0]
    compressor, mode = divmod(int(rec["mode"]), 1000)
    nx, ny, nz = (int(n) for n in rec["n"])
    _check_shape(nx, ny, nz)
    labels = _labels(rec)
    version = _mrcz_version(labels)
    packed0 = mode == 0 and not compressor and _is_packed_mode0(rec, labels, nx, ny)
    header = MrcHeader(
        shape=(nz, ny, 2 * nx if packed0 else nx),
        mode=mode,
        byte_order=order,
        compressor=compressor,
        packed4=packed0 or mode == fields.PACKED4,
        stored=fields.MODE_DTYPES[mode].newbyteorder(order),
        ispg=int(rec["ispg"]),
        nsymbt=int(rec["nsymbt"]),
        exttyp=_text(rec["exttyp"]),
        nversion=int(rec["nversion"]),
        nint=int(rec["nint"]),
        nreal=int(rec["nreal"]),
        packed_bytes=int(rec["packed_bytes"]),
        origin=_triple(rec["origin"]),
        has_map=bytes(rec["map"])[:3] == b"MAP",
        statistics=_statistics(rec),
        labels=labels,
        mrcz_version=version,
        m=(int(rec["m"][0]), int(rec["m"][1]), int(rec["m"][2])),
    )
    header = replace(header, slices=_slices(header), pixel_size=_pixel_size(rec, header), **_optics(rec, version))
    if packed0:
        header = replace(header, stored=fields.MODE_DTYPES[fields.PACKED4])
    elif not mode:
        header = _with_sign(header, rec, signed)
    return _with_extent(header, raw, size)


def _byte_order(raw: bytes) -> ByteOrder:
    """Byte order by the machine stamp, then by the order in which MODE and the shape are plausible."""
    orders: tuple[ByteOrder, ByteOrder] = (">", "<") if raw[212:213] == b"\x11" else ("<", ">")
    for order in orders:
        nx, ny, nz, mode = np.frombuffer(raw, f"{order}i4", count=4).tolist()
        known = mode >= 0 and mode % 1000 in fields.MODE_DTYPES and mode // 1000 in fields.COMPRESSORS
        if known and min(nx, ny) > 0 and nz >= 0:
            return order
    little = int(np.frombuffer(raw, "<i4", count=4)[3])
    kind = kind_of(raw)
    if kind is not None:
        raise MrcFormatError(f"no MRC or MRCZ file: this is {kind}", byte=0)
    raise MrcFormatError(
        f"MODE is {little} and the shape {np.frombuffer(raw, '<i4', count=3).tolist()}: this is no MRC or MRCZ file, "
        "or of a mode that is not read",
        byte=12,
    )


def _check_shape(nx: int, ny: int, nz: int) -> None:
    if min(nx, ny, nz) <= 0:
        raise MrcFormatError(f"NX, NY, NZ are {nx}, {ny}, {nz}: a movie needs at least one pixel and frame", byte=0)


def _with_extent(header: MrcHeader, raw: bytes, size: int | None) -> MrcHeader:
    """The header with an NSYMBT that fits a file of `size` bytes."""
    said, beyond = header.nsymbt, raw[fields.HEADER_BYTES :]
    if size is not None and said and is_stale(header, beyond, size):
        return replace(header, nsymbt=0, stale_nsymbt=said)
    if not 0 <= said <= fields.MAX_EXTENDED_HEADER:
        raise MrcFormatError(f"NSYMBT says {said} bytes of extended header: the header is corrupt", byte=92)
    if size is None or not said or header.compressor or is_of_type(header, beyond):
        return header
    short = size < header.data_offset + header.shape[0] * header.frame_bytes
    return replace(header, nsymbt_sure=not (short and (size - fields.HEADER_BYTES) % header.frame_bytes == 0))


def _text(raw: bytes) -> str:
    """Latin-1 reads every byte: labels in the wild are not always UTF-8."""
    return bytes(raw).decode("latin-1").rstrip("\x00 ").strip()


def _labels(rec: Any) -> tuple[str, ...]:
    count = min(max(int(rec["nlabl"]), 1), MAX_LABELS)  # c-mrcz leaves NLABL at 0 beside a label
    return tuple(text for text in (_text(label) for label in rec["labels"][:count]) if text)


def _mrcz_version(labels: Sequence[str]) -> tuple[int, int, int] | None:
    for label in labels:
        if match := _MRCZ_LABEL.match(label):
            major, minor, patch = (int(part or 0) for part in match.groups())
            return major, minor, patch
    return None


def _triple(values: Any) -> tuple[float, float, float]:
    x, y, z = (float(value) for value in values)
    return x, y, z


def _short(value: float) -> float:
    """The number as it was before it became a float32: 2.7, not 2.700000047683716."""
    return float(f"{value:.7g}")


def _statistics(rec: Any) -> Statistics | None:
    low, high, mean, rms = (float(rec[name]) for name in ("dmin", "dmax", "dmean", "rms"))
    unset = low > high or mean < min(low, high) or not np.isfinite([low, high, mean]).all()
    return None if unset or low == high == mean == 0 else Statistics(low, high, mean, rms)


def _is_packed_mode0(rec: Any, labels: Sequence[str], nx: int, ny: int) -> bool:
    """IMOD's rule for 4-bit SerialEM frames stored as bytes with NX halved."""
    if rec["imod_stamp"] == fields.IMOD_STAMP and rec["imod_flags"] & fields.IMOD_PACKED4:
        return True
    return is_halved_size(nx, ny) and any(map(says_packed, labels))


def _slices(header: MrcHeader) -> int:
    """z-slices a frame: MZ in a list of 3-D frames (python-mrcz) and in a stack of volumes (MRC2014)."""
    nz, mz = header.shape[0], header.m[2]
    is_list = header.mrcz_version is not None and header.mrcz_version >= SLICES_SINCE
    is_stack = header.mrcz_version is None and header.ispg in fields.VOLUME_STACKS
    return mz if (is_list or is_stack) and 1 <= mz <= nz and nz % mz == 0 else 1


def _pixel_size(rec: Any, header: MrcHeader) -> tuple[float, float, float] | None:
    cell, m = _triple(rec["cella"]), list(header.m)
    if header.mrcz_version is not None:
        m = list(header.shape[::-1])
    elif header.packed4 and header.mode == 0 and m[0] * 2 == header.shape[2]:
        m[0] *= 2  # SerialEM halves MX and CELLA with NX
        cell = (2 * cell[0], cell[1], cell[2])
    if not np.isfinite(cell).all() or min(cell[:2]) <= 0 or min(m[:2]) <= 0:
        return None
    z = cell[2] / m[2] if cell[2] > 0 and m[2] > 0 else 0.0
    return _short(cell[0] / m[0]), _short(cell[1] / m[1]), _short(z)


def _optics(rec: Any, version: tuple[int, int, int] | None) -> dict[str, Any]:
    """kV, Cs and gain: only a file labelled MRCZ holds them here, IMOD uses the bytes for other things."""
    names = {"voltage_kv": "voltage", "spherical_aberration_mm": "cs", "counts_per_electron": "gain"}
    if version is None:
        return dict.fromkeys(names)
    values = {name: float(rec[source]) for name, source in names.items()}
    return {name: _short(value) if np.isfinite(value) and value > 0 else None for name, value in values.items()}


def _with_sign(header: MrcHeader, rec: Any, signed: bool | None) -> MrcHeader:
    """Signedness of mode 0: IMOD's rule, then the MRCZ label, then int8 with a note."""
    stats = header.statistics
    known = True
    if signed is None:
        if rec["imod_stamp"] == fields.IMOD_STAMP:
            signed = bool(rec["imod_flags"] & fields.IMOD_SIGNED)
            if signed and _is_shifted(header):
                return replace(header, shifted=True, stored=np.dtype("i1"), statistics=_raised(stats))
            # the numbers of unsigned bytes in the header of signed ones: the pixels tell
            known = not (signed and (stats is None or stats.minimum >= 0))
        elif header.mrcz_version is not None or (stats is not None and stats.minimum < 0 and stats.maximum < 128):
            signed = True
        elif stats is not None and stats.minimum >= 0 and stats.maximum >= 128:
            signed = False
        else:
            signed, known = True, False
    return replace(header, stored=np.dtype("i1" if signed else "u1"), signed_known=known)


def _is_shifted(header: MrcHeader) -> bool:
    """Whether signed bytes of IMOD are unsigned ones less 128.

    So IMOD writes all its bytes. A zero, or a mean in the lowest quarter of the range, shows that the pixels were
    counts: signed images that other programs put under a header of IMOD lie about 0.
    """
    stats = header.statistics
    if stats is None or header.compressor or not -SHIFT <= stats.minimum <= stats.maximum < 2 * SHIFT:
        return False
    return stats.minimum == -SHIFT or stats.mean < -SHIFT / 2 or _is_unsigned(stats)


def _is_unsigned(stats: Statistics) -> bool:
    """Whether signed bytes cannot have these statistics: they are of the pixels before 128 was taken away."""
    return stats.minimum >= 0 and stats.maximum >= SHIFT


def _raised(stats: Statistics | None) -> Statistics | None:
    """The statistics of the pixels from those of the bytes as they are stored."""
    if stats is None or _is_unsigned(stats):
        return stats
    return Statistics(stats.minimum + SHIFT, stats.maximum + SHIFT, stats.mean + SHIFT, stats.rms)


def is_stale(header: MrcHeader, beyond: bytes, size: int) -> bool:
    """Whether NSYMBT is of another file: the size is that of whole frames behind the 1024 bytes.

    `beyond` begins behind the 1024 bytes. Fewer frames than the header says are believed only where the size fits no
    extended header, and none where `beyond` is of the type that EXTTYP names.
    """
    if header.compressor:
        return _is_chunk(header, beyond)
    frames, odd = divmod(size - fields.HEADER_BYTES, header.frame_bytes)
    n = header.shape[0]
    if odd or not 0 < frames <= n or is_of_type(header, beyond):
        return False
    behind = size - fields.HEADER_BYTES - max(header.nsymbt, 0)
    return frames == n or (header.frame_bytes >= SURE_FRAME_BYTES and (behind < 0 or behind % header.frame_bytes != 0))


def _is_chunk(header: MrcHeader, beyond: bytes) -> bool:
    """Whether a Blosc chunk of one frame begins at byte 1024, where an extended header should."""
    return len(beyond) >= 16 and beyond[0] in (2, 5) and beyond[4:8] == header.frame_bytes.to_bytes(8, "little")[:4]


def is_of_type(header: MrcHeader, beyond: bytes) -> bool:
    """Whether the bytes behind the first 1024 are an extended header of the type that EXTTYP names."""
    kind, head = header.exttyp.upper(), beyond[: max(header.nsymbt, 0)]
    if kind == "JSON":
        return head.lstrip(b" \t\r\n\x00")[:1] in (b"{", b"[")
    if kind in ("FEI1", "FEI2") and len(head) >= 4:
        size = int(np.frombuffer(head[:4], header.byte_order + "i4")[0])
        return FEI_RECORD <= size <= min(header.nsymbt, MAX_FEI_RECORD) and header.nsymbt % size == 0
    if kind in ("CCP4", "MRCO"):
        return len(head) >= SYMMETRY_RECORD and all(byte in b"\t\r\n\x00" or 32 <= byte < 127 for byte in head)
    return False


def build_header(header: MrcHeader) -> bytes:
    """The 1024 bytes of a little-endian header that every MRC and MRCZ reader understands.

    `statistics=None` writes the MRC2014 "not computed" values. MX = NX and MY = NY, so that mrcfile and IMOD read
    the pixel size; MZ is `header.m[2]`, and the cell holds as many sections (all frames where MZ is 0).
    """
    rec = np.zeros(1, fields.HEADER)[0]
    nz, ny, nx = header.shape
    pixel = header.pixel_size or (0.0, 0.0, 0.0)
    rec["n"] = nx, ny, nz
    rec["mode"] = header.mode + 1000 * header.compressor
    rec["m"] = nx, ny, header.m[2]
    rec["cella"] = pixel[0] * nx, pixel[1] * ny, pixel[2] * (header.m[2] or nz)
    rec["cellb"] = 90.0
    rec["map_axes"] = 1, 2, 3
    stats = header.statistics or Statistics(0.0, -1.0, -2.0, -1.0)
    rec["dmin"], rec["dmax"], rec["dmean"], rec["rms"] = stats.minimum, stats.maximum, stats.mean, stats.rms
    rec["ispg"], rec["nsymbt"], rec["exttyp"] = header.ispg, header.nsymbt, header.exttyp.encode("ascii")
    rec["nversion"] = 20141
    rec["voltage"] = header.voltage_kv or 0.0
    rec["cs"] = header.spherical_aberration_mm or 0.0
    rec["gain"] = header.counts_per_electron or 0.0
    rec["packed_bytes"] = header.packed_bytes
    rec["origin"] = header.origin
    rec["map"] = b"MAP "
    labels = [label.encode("ascii", "replace")[:80] for label in header.labels[:MAX_LABELS]]
    rec["nlabl"] = len(labels)
    rec["labels"][: len(labels)] = labels
    raw = bytearray(rec.tobytes())
    raw[212:216] = b"\x44\x44\x00\x00"
    return bytes(raw)
