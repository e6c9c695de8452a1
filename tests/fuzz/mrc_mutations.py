"""Files of every kind, and what can go wrong with their bytes."""

from __future__ import annotations

import bz2
import gzip
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mrczdask.formats.frame_index import pack_footer, pack_sidecar
from mrczdask.formats.mrc_fields import HEADER
from mrczdask.formats.mrcz import FrameTable
from tests.mrc_bytes import blosc1, blosc2_chunks, counts, mrc_bytes

GOLDEN = Path(__file__).parents[1] / "data" / "mrcz_golden"

INTEGERS = (0, 1, 2, -1, -2, 3, 7, 16, 127, 128, 255, 256, 1023, 1024, 4096, 65535, 65536, 2**24, 2**30, 2**31 - 1)
INTEGERS = (*INTEGERS, -(2**31), 401, 630, 1000, 6000, 14000, 1146047817, 20140, 888, 768, 1297)
FLOATS = (0.0, -0.0, 1.0, -1.0, 1e-45, 1e38, -1e38, float("nan"), float("inf"), -float("inf"))
TYPES = (b"json", b"FEI1", b"FEI2", b"SERI", b"AGAR", b"CCP4", b"MRCO", b"\xff\xff\xff\xff", b"\x00\x00\x00\x00")
LABELS = (b"MRCZ0.6.0", b"MRCZ0.4.1", b"MRCZ99999999999999999999.0", b"4 bits packed", b"\xff\xfe", b"")
JSONS = (b"{}", b"[]", b"null", b"NaN", b'"', b"1e999", b'{"mrczdask":5}', b"[" * 200, b"\xff\xff", b'{"dtype":"bool"}')


@dataclass(frozen=True)
class Seed:
    """A sound file: its bytes, its suffix, what wraps it, and a sidecar that may lie beside it."""

    raw: bytes
    suffix: str = ".mrcz"
    wrap: Callable[[bytes], bytes] | None = None
    sidecar: bytes | None = None


@dataclass(frozen=True)
class Mutant:
    """The files of one case: (suffix, bytes)."""

    suffix: str
    raw: bytes
    sidecar: bytes | None


def corpus() -> list[Seed]:
    """Golden files of python-mrcz, and small files of every mode, order, header and chunk."""
    seeds = [Seed(path.read_bytes(), path.suffix) for path in sorted(GOLDEN.glob("*.mrc*"))]
    return seeds + _modes() + _headers() + _indexed() + _wrapped()


def _modes() -> list[Seed]:
    kinds = {0: "i1", 1: "i2", 2: "f4", 3: "c8", 4: "c8", 6: "u2", 7: "i4", 8: "u4", 12: "f2", 16: "u1", 101: "u1"}
    seeds = []
    for mode, dtype in kinds.items():
        frames = counts((3, 8, 9, 3) if mode == 16 else (3, 8, 9), dtype)
        for order in "<>":
            seeds.append(Seed(mrc_bytes(frames, mode, order=order), ".mrc"))
            seeds.append(Seed(mrc_bytes(frames, mode, order=order, chunk=blosc1(block=64), compressor=6)))
    return seeds


def _headers() -> list[Seed]:
    """Extended headers of every type, packed mode 0, stacks of volumes, lists, the JSON of this package."""
    frames = counts((4, 8, 10), "i2")
    fei = struct.pack("<iiIIi", 888, 0, 2**32 - 1, 2**32 - 1, 0).ljust(888, b"\x40") * 4
    own = {
        "dtype": "uint8",
        "attrs": {"voltage_kv": 300.0},
        "coords": {"dose": {"dims": ["frame"], "data": [1.0, 2.0, 3.0, 4.0], "dtype": "<f8", "attrs": {}}},
    }
    text = json.dumps({"grid": 7, "acquired": "2026-01-02T03:04:05", "mrczdask": own}).encode()
    plain = [
        mrc_bytes(frames, 1, extended=fei, exttyp=b"FEI2"),
        mrc_bytes(frames, 1, extended=fei[:768] * 4, exttyp=b"FEI1"),
        mrc_bytes(frames, 1, extended=b"\x07" * 80, exttyp=b"SERI", nint_nreal=(20, 63)),
        mrc_bytes(frames, 1, extended=b"\x07" * 512, exttyp=b"AGAR", nint_nreal=(0, 32)),
        mrc_bytes(frames, 1, extended=b"X,  Y,  Z".ljust(160), exttyp=b"CCP4", ispg=4),
        mrc_bytes(frames, 1, ispg=401, m=(10, 8, 2)),
        mrc_bytes(counts((4, 8, 10), "u1"), 0, imod_flags=16),
        mrc_bytes(counts((4, 8, 10), "i1"), 0, extended=text, exttyp=b"json", labels=(b"MRCZ0.6.0",), m=(0, 0, 2)),
    ]
    chunked = mrc_bytes(
        counts((4, 8, 10), "i1"),
        0,
        extended=text,
        exttyp=b"json",
        labels=(b"MRCZ0.6.0",),
        chunk=blosc1("lz4", block=32),
        compressor=2,
    )
    return [*(Seed(raw, ".mrc") for raw in plain), Seed(chunked)]


def _indexed() -> list[Seed]:
    """Chunks of both versions, stored and special ones, many blocks; with the footer or a sidecar."""
    seeds = []
    noise = np.random.default_rng(1).integers(0, 2**16, (3, 16, 20)).astype("u2")
    for frames in (counts((3, 16, 20), "u2"), noise, np.zeros((3, 16, 20), "u2")):
        for chunk in (blosc1("zlib", block=128), blosc1("blosclz", shuffle="none", block=64), blosc2_chunks("zstd")):
            raw = mrc_bytes(frames, 6, chunk=chunk, compressor=6, labels=(b"MRCZ0.6.0",))
            table = _table(raw, 3)
            seeds.append(Seed(raw + pack_footer(table)))
            seeds.append(Seed(raw, sidecar=pack_sidecar(table, {"size": len(raw)})))
    return seeds


def _wrapped() -> list[Seed]:
    raw = mrc_bytes(counts((3, 8, 10), "i2"), 1, chunk=blosc1(), compressor=6)
    return [Seed(raw, ".mrcz.gz", gzip.compress), Seed(raw, ".mrc.bz2", bz2.compress)]


def _table(raw: bytes, frames: int) -> FrameTable:
    starts = [1024]
    for _ in range(frames):
        starts.append(starts[-1] + int.from_bytes(raw[starts[-1] + 12 : starts[-1] + 16], "little"))
    ends = np.array(starts, np.uint64)
    return FrameTable(ends[:-1], np.diff(ends))


def mutate(seeds: list[Seed], rng: np.random.Generator) -> Mutant:
    """One of the seeds with one to three things wrong."""
    seed = seeds[rng.integers(len(seeds))]
    raw, sidecar = bytearray(seed.raw), seed.sidecar
    wrapped_after = seed.wrap is not None and rng.random() < 0.5
    if seed.wrap is not None and not wrapped_after:
        raw = bytearray(seed.wrap(bytes(raw)))
    if sidecar is not None and rng.random() < 0.5:
        beside = bytearray(sidecar)
        _damage(beside, seeds, rng)
        return Mutant(seed.suffix, bytes(raw), bytes(beside))
    for _ in range(rng.integers(1, 4)):
        raw = _damage(raw, seeds, rng)
    content = seed.wrap(bytes(raw)) if seed.wrap is not None and wrapped_after else bytes(raw)
    return Mutant(seed.suffix, content, sidecar)


def _damage(raw: bytearray, seeds: list[Seed], rng: np.random.Generator) -> bytearray:
    kinds = (_flip, _flip_head, _cut, _grow, _field, _field, _chunk, _chunk, _json, _splice, _repeat, _drop)
    return kinds[rng.integers(len(kinds))](raw, seeds, rng)


def _flip(raw: bytearray, _: list[Seed], rng: np.random.Generator) -> bytearray:
    for _ in range(rng.integers(1, 17) if raw else 0):
        raw[rng.integers(len(raw))] ^= 1 << int(rng.integers(8))
    return raw


def _flip_head(raw: bytearray, seeds: list[Seed], rng: np.random.Generator) -> bytearray:
    head = _flip(raw[:1200], seeds, rng)
    return head + raw[1200:]


def _cut(raw: bytearray, _: list[Seed], rng: np.random.Generator) -> bytearray:
    return raw[: rng.integers(len(raw) + 1)]


def _grow(raw: bytearray, _: list[Seed], rng: np.random.Generator) -> bytearray:
    return raw + rng.bytes(int(rng.integers(1, 200)))


def _field(raw: bytearray, _: list[Seed], rng: np.random.Generator) -> bytearray:
    """A field of the header with a nasty value."""
    names = HEADER.names or ()
    name = names[rng.integers(len(names))]
    kind, offset = HEADER.fields[name][:2]  # type: ignore[index]
    base, n = (kind.subdtype[0], int(np.prod(kind.shape))) if kind.subdtype else (kind, 1)
    place = offset + base.itemsize * int(rng.integers(n))
    if place + base.itemsize > len(raw):
        return raw
    order = "<>"[int(rng.random() < 0.2)]
    if base.kind == "f":
        content = np.array(FLOATS[rng.integers(len(FLOATS))], order + base.str[1:]).tobytes()
    elif base.kind == "i":
        value = INTEGERS[rng.integers(len(INTEGERS))]
        content = (value % 256**base.itemsize).to_bytes(base.itemsize, "little" if order == "<" else "big")
    elif base.itemsize == 4:
        content = TYPES[rng.integers(len(TYPES))]
    else:
        content = LABELS[rng.integers(len(LABELS))].ljust(base.itemsize, b"\x00")
    raw[place : place + len(content)] = content
    return raw


def _chunk(raw: bytearray, _: list[Seed], rng: np.random.Generator) -> bytearray:
    """A field of the header of one chunk, or an entry of its table of blocks, with a nasty value."""
    position = 1024 + (int.from_bytes(raw[92:96], "little") if len(raw) > 96 else 0)
    for _ in range(rng.integers(4)):
        size = int.from_bytes(raw[position + 12 : position + 16], "little")
        if size < 16 or position + size + 16 > len(raw):
            break
        position += size
    if position + 48 > len(raw):
        return raw
    place, size = ((0, 1), (1, 1), (2, 1), (3, 1), (4, 4), (8, 4), (12, 4), (16, 4), (20, 4), (28, 4))[rng.integers(10)]
    if rng.random() < 0.3:
        value = int.from_bytes(raw[position + place : position + place + size], "little") + int(rng.integers(-3, 4))
    else:
        value = INTEGERS[rng.integers(len(INTEGERS))] if size == 4 else int(rng.integers(256))
    raw[position + place : position + place + size] = (value % 256**size).to_bytes(size, "little")
    return raw


def _json(raw: bytearray, _: list[Seed], rng: np.random.Generator) -> bytearray:
    """Nasty text within the first bytes behind the header."""
    text = JSONS[rng.integers(len(JSONS))]
    place = min(1024 + int(rng.integers(300)), len(raw))
    raw[place : place + len(text)] = text
    return raw


def _splice(raw: bytearray, seeds: list[Seed], rng: np.random.Generator) -> bytearray:
    """A piece of another file, in place of one of this."""
    other = seeds[rng.integers(len(seeds))].raw
    start = int(rng.integers(len(other)))
    piece = other[start : start + int(rng.integers(1, 2000))]
    place = int(rng.integers(len(raw) + 1)) if rng.random() < 0.5 else min(start, len(raw))
    raw[place : place + (len(piece) if rng.random() < 0.7 else int(rng.integers(2000)))] = piece
    return raw


def _repeat(raw: bytearray, _: list[Seed], rng: np.random.Generator) -> bytearray:
    start = int(rng.integers(len(raw) + 1))
    piece = raw[start : start + int(rng.integers(1, 3000))]
    return raw[:start] + piece + raw[start:]


def _drop(raw: bytearray, _: list[Seed], rng: np.random.Generator) -> bytearray:
    start = int(rng.integers(len(raw) + 1))
    return raw[:start] + raw[start + int(rng.integers(1, 500)) :]
