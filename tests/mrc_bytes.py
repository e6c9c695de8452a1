"""MRC and MRCZ files made byte by byte from the format's description, not by the package that is tested."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any

import blosc2
import numcodecs.blosc
import numpy as np

STAMP = {"<": b"\x44\x44\x00\x00", ">": b"\x11\x11\x00\x00"}
DTYPES = {0: "i1", 1: "i2", 2: "f4", 3: "i2", 4: "c8", 6: "u2", 7: "i4", 8: "u4", 12: "f2", 16: "u1", 101: "u1"}
SHUFFLES = {"none": 0, "byte": 1, "bit": 2}
BLOSC2_FILTERS = {"none": blosc2.Filter.NOFILTER, "byte": blosc2.Filter.SHUFFLE, "bit": blosc2.Filter.BITSHUFFLE}

Chunker = Callable[[bytes, int], bytes]


def header_bytes(
    nx: int,
    ny: int,
    nz: int,
    mode: int,
    *,
    order: str = "<",
    start: Sequence[int] = (0, 0, 0),
    m: Sequence[int] | None = None,
    cella: Sequence[float] = (0.0, 0.0, 0.0),
    axes: Sequence[int] = (1, 2, 3),
    stats: Sequence[float] = (0.0, -1.0, -2.0, -1.0),
    ispg: int = 0,
    nsymbt: int = 0,
    exttyp: bytes = b"",
    nversion: int = 20141,
    nint_nreal: tuple[int, int] = (0, 0),
    optics: Sequence[float] = (0.0, 0.0, 0.0),
    packed_bytes: int = 0,
    imod_flags: int | None = None,
    map_id: bytes = b"MAP ",
    stamp: bytes | None = None,
    labels: Sequence[bytes] = (),
    nlabl: int | None = None,
) -> bytes:
    """The 1024 bytes of a header."""
    raw = bytearray(1024)

    def put(offset: int, kind: str, *values: Any) -> None:
        struct.pack_into(order + kind, raw, offset, *values)

    put(0, "4i", nx, ny, nz, mode)
    put(16, "3i", *start)
    put(28, "3i", *(m if m is not None else (nx, ny, nz)))
    put(40, "6f", *cella, 90, 90, 90)
    put(64, "3i", *axes)
    put(76, "3f", *stats[:3])
    put(88, "2i", ispg, nsymbt)
    raw[104:108] = exttyp.ljust(4, b"\x00")
    put(108, "i", nversion)
    put(128, "2h", *nint_nreal)
    put(132, "3f", *optics)
    put(144, "q", packed_bytes)
    if imod_flags is not None:
        put(152, "2i", 1146047817, imod_flags)
    raw[208:212] = map_id.ljust(4, b"\x00")
    raw[212:216] = STAMP[order] if stamp is None else stamp
    put(216, "f", stats[3])
    put(220, "i", len(labels) if nlabl is None else nlabl)
    for k, label in enumerate(labels):
        raw[224 + 80 * k : 224 + 80 * k + len(label)] = label
    return bytes(raw)


def frame_bytes(frame: np.ndarray, mode: int, order: str = "<") -> bytes:
    """One frame as it stands in the file."""
    if mode == 3:
        pairs = np.stack([frame.real, frame.imag], axis=-1)
        return pairs.astype(order + "i2").tobytes()
    if mode == 101:
        padded = np.zeros((frame.shape[0], frame.shape[1] + frame.shape[1] % 2), np.uint8)
        padded[:, : frame.shape[1]] = frame
        return (padded[:, 0::2] + 16 * padded[:, 1::2]).astype(np.uint8).tobytes()
    kind = DTYPES[mode]
    return frame.astype(kind if kind[1] == "1" else order + kind).tobytes()


def mrc_bytes(
    frames: np.ndarray,
    mode: int,
    *,
    order: str = "<",
    extended: bytes = b"",
    chunk: Chunker | None = None,
    compressor: int = 0,
    tail: bytes = b"",
    **header: Any,
) -> bytes:
    """A whole file of `frames` (n, y, x[, band]); compressed by `chunk`, which takes (bytes, item size)."""
    nz, ny, nx = frames.shape[:3]
    parts = [frame_bytes(frame, mode, order) for frame in frames]
    if chunk is not None:
        itemsize = {3: 4, 16: 3}.get(mode, np.dtype(DTYPES[mode]).itemsize)
        parts = [chunk(part, itemsize) for part in parts]
        header.setdefault("packed_bytes", sum(map(len, parts)))
    head = header_bytes(nx, ny, nz, mode + 1000 * compressor, order=order, nsymbt=len(extended), **header)
    return b"".join([head, extended, *parts, tail])


def blosc1(codec: str = "zstd", *, level: int = 1, shuffle: str = "bit", block: int = 0) -> Chunker:
    """Chunks of version 2."""

    def chunk(raw: bytes, typesize: int) -> bytes:
        return numcodecs.blosc.compress(raw, codec.encode(), level, SHUFFLES[shuffle], block, typesize)

    return chunk


def blosc2_chunks(codec: str = "zstd", *, level: int = 1, shuffle: str = "bit", block: int = 0) -> Chunker:
    """Chunks of version 5, as python-mrcz 0.6 writes them with backend="blosc2"."""

    def chunk(raw: bytes, typesize: int) -> bytes:
        out: bytes = blosc2.compress2(
            raw,
            codec=getattr(blosc2.Codec, codec.upper()),
            clevel=level,
            filters=[BLOSC2_FILTERS[shuffle]],
            typesize=typesize,
            blocksize=block,
            nthreads=1,
        )
        return out

    return chunk


def counts(shape: Sequence[int], dtype: Any, *, seed: int = 0, mean: float = 3.0) -> np.ndarray:
    """Poisson counts in any dtype a mode holds; complex ones have integer parts, negative ones too."""
    rng = np.random.default_rng(seed)
    dtype = np.dtype(dtype)
    values = rng.poisson(mean, shape).clip(0, 15)
    if dtype.kind == "c":
        return (values + 1j * (rng.poisson(mean, shape) - 3)).astype(dtype)
    if dtype.kind == "i":
        values = values - 2
    if dtype.kind == "f":
        values = values - 1.25
    return values.astype(dtype)
