"""Decoders written from docs/codecs.md alone, in plain Python, read what the codecs write."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.codecs.mutations import valid_streams

TYPES = ["<u1", "<u2", "<i1", "<i2", "<u4", "<i4"]


class Reader:
    """Varints and arrays from bytes."""

    def __init__(self, raw: bytes):
        self.raw, self.at = raw, 0

    def varint(self) -> int:
        value = shift = 0
        while True:
            byte = self.raw[self.at]
            self.at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    def signed(self) -> int:
        v = self.varint()
        return -(v + 1) // 2 if v % 2 else v // 2

    def take(self, count: int) -> bytes:
        self.at += count
        assert self.at <= len(self.raw)
        return self.raw[self.at - count : self.at]

    def numbers(self, count: int, kind: str) -> list[int]:
        return np.frombuffer(self.take(count * np.dtype(kind).itemsize), kind).tolist()


class Bits:
    """Bits, low first."""

    def __init__(self, raw: bytes):
        self.string = "".join(format(byte, "08b")[::-1] for byte in raw)
        self.at = 0

    def number(self, count: int) -> int:
        self.at += count
        return int(self.string[self.at - count : self.at][::-1] or "0", 2)

    def unary_signed(self) -> int:
        n = self.string.index("1", self.at) - self.at
        self.at += n + 1
        return -(n + 1) // 2 if n % 2 else n // 2

    def frequencies(self) -> list[int]:
        alone, mode = self.number(1), self.number(8)
        out = [0] * 256
        if not alone:
            top, length = self.number(8), 4
            for s in range(top + 1):
                if s != mode:
                    length += self.unary_signed()
                    k = min(max(length - 1, 0), 4)
                    low = self.number(k)
                    out[s] = (2**k | low) << (length - 1 - k) if length else 0
        out[mode] = 4096 - sum(out)
        return out

    def codebook(self) -> dict[str, int]:
        if self.number(1):
            return {"": self.number(8)}
        top, length, lengths = self.number(8), 4, {}
        for s in range(top + 1):
            length += self.unary_signed()
            if length:
                lengths[s] = length
        book, code, before = {}, 0, 0
        for s in sorted(lengths, key=lambda s: (lengths[s], s)):
            code <<= lengths[s] - before
            before = lengths[s]
            book[format(code, f"0{before}b")] = s
            code += 1
        return book


class Rans:
    """Eight states."""

    def __init__(self, states: list[int], words: list[int]):
        self.x, self.words = states, iter(words)

    def symbol(self, lane: int, f: list[int]) -> int:
        slot = self.x[lane] % 4096
        s = start = 0
        while start + f[s] <= slot:
            start += f[s]
            s += 1
        self.x[lane] = f[s] * (self.x[lane] // 4096) + slot - start
        if self.x[lane] < 2**16:
            self.x[lane] = self.x[lane] * 2**16 + next(self.words)
        return s

    def finish(self) -> None:
        assert self.x == [2**16] * 8
        assert next(self.words, None) is None


def offset_of(token: int, extra: Bits) -> int:
    if token < 32:
        return token
    e = 5 + (token - 32) // 8
    return (8 + (token - 32) % 8) * 2 ** (e - 3) + extra.number(e - 3)


def joint(p: list[int], kind: int) -> list[int]:
    if kind == 0:
        weights = [p[s & 3] * p[s >> 2 & 3] * p[s >> 4 & 3] * p[s >> 6] >> 24 for s in range(256)]
    else:
        weights = [p[s & 15] * p[s >> 4] for s in range(256)]
    out = [max(1, (w + 2048) >> 12) if w >= 768 else 0 for w in weights]
    mode = weights.index(max(weights))
    out[mode] = 0
    out[mode] = 4096 - sum(out)
    return out


def classes(bits: Bits, count: int) -> list[tuple[int, int, list[int]]]:
    out = []
    for _ in range(count):
        kind, n = bits.number(2), bits.number(6)
        base, table = bits.number(n), bits.frequencies()
        out.append((kind, base, joint(table, kind) if kind < 2 else table))
    return out


def pixel_histogram(body: Reader, size: int, dtype: np.dtype[Any]) -> np.ndarray:
    form, pattern, block, low, n_classes, n_side, n_patches, n_patch_bytes, n_bits, n_words = (
        body.varint() for _ in range(10)
    )
    side = Reader(body.take(n_side))
    if form == 0:
        rows, columns = 4, size // 4
        found, class_of = classes(Bits(side.raw), 1), [0] * columns
    else:
        rows, columns = size // pattern, pattern
        n_bytes, n_table, n_levels = side.varint(), side.varint(), side.varint() if form == 2 else 0
        found = classes(Bits(side.take(n_bytes)), n_classes)
        (_, _, table), *_ = classes(Bits(side.take(n_table)), 1)
        levels = Reader(side.take(n_levels))
        states = side.numbers(8, "<u4")
        rans = Rans(states, side.numbers((len(side.raw) - side.at) // 2, "<u2"))
        class_of = [rans.symbol(i % 8, table) for i in range(columns)]
        rans.finish()
    tail = body.numbers(size % 4 if form == 0 else 0, f"<u{dtype.itemsize}")
    patches = Reader(body.take(n_patch_bytes))
    extra = Bits(body.take(-(-n_bits // 64) * 8))
    states = body.numbers(8, "<u4")
    rans = Rans(states, body.numbers(n_words, "<u2"))
    assert body.at == len(body.raw)
    if form == 2:
        tokens, offsets = in_context(rans, extra, levels, class_of, rows, [table for _, _, table in found])
        assert tokens == rows * columns
        rans.finish()
        assert (extra.at, n_patches) == (n_bits, 0)
        return low + np.array(offsets)
    stack = np.zeros((-(-rows // 4) * 4, columns), np.int64)
    i = 0
    for top in range(0, rows, block):
        for number, (kind, base, table) in enumerate(found):
            per = (4, 2, 1, 1)[kind]
            mine = [c for c in range(columns) if class_of[c] == number]
            for first in range(top, min(top + block, rows), per):
                for column in mine:
                    s = rans.symbol(i % 8, table)
                    i += 1
                    if kind == 3:
                        s = offset_of(s, extra)
                    for k in range(per):
                        width = 8 // per
                        stack[first + k, column] = low + base + (s if per == 1 else s >> width * k & (2**width - 1))
    rans.finish()
    assert extra.at == n_bits
    flat, at = stack.reshape(-1), 0
    for _ in range(n_patches):
        at += patches.varint()
        flat[at] = low + found[class_of[at % columns]][1] + patches.varint()
    return np.concatenate([flat, np.array(tail, np.int64)])[:size]


def in_context(
    rans: Rans, extra: Bits, levels: Reader, class_of: list[int], rows: int, tables: list[list[int]]
) -> tuple[int, list[int]]:
    every, begin = [], 0
    for _ in range(levels.varint()):
        n, level = levels.varint(), levels.varint()
        every.append((begin, level, np.cumsum([levels.varint() for _ in range(n)]).tolist()))
        begin += n + 1
    assert begin == len(tables)
    assert levels.at == len(levels.raw)
    before: list[int] = []
    offsets: list[int] = []
    i = 0
    for row in range(rows):
        now = []
        for column, number in enumerate(class_of):
            begin, level, cuts = every[number]
            if row:
                level = sum(cut <= before[column] for cut in cuts)
            now.append(rans.symbol(i % 8, tables[begin + level]))
            offsets.append(offset_of(now[-1], extra))
            i += 1
        before = now
    return i, offsets


def b3d(body: Reader, size: int, dtype: np.dtype[Any]) -> np.ndarray:
    form, huffman, height, width = (body.varint() for _ in range(4))
    turn, levels, transform, parts, seed = 0, [0], [0], [0], 0
    if form == 0:
        turn = body.varint()
    elif form in (1, 3):
        n = body.varint()
        levels = np.cumsum([body.signed(), *(body.varint() for _ in range(n - 1))]).tolist()
        if form == 3:
            parts, seed = list(body.take(n)), body.varint()
    else:
        transform = [body.varint(), body.varint(), body.signed(), body.varint()]
    w0, w1, w2, w3, bias, low, high = (body.signed() for _ in range(7))
    shift, context_shift, k = (body.varint() for _ in range(3))
    starts = np.cumsum([body.varint() for _ in range(k)]).tolist()
    n_side, n_bits, n_words = (body.varint() for _ in range(3))
    side, extra = Bits(body.take(n_side)), Bits(body.take(-(-n_bits // 64) * 8))
    tables = [side.codebook() if huffman else side.frequencies() for _ in range(k + 1)]
    rans = Rans([2**16] * 8 if huffman else body.numbers(8, "<u4"), body.numbers(n_words, "<u2"))
    assert body.at == len(body.raw)
    rows = size // width
    x = np.zeros((rows, width), object)
    kind = dtype if form == 0 else np.dtype("u2")
    pending: list[int] = []
    for r, c, lane, top in walk(rows, height, width):
        west = x[r, c - 1] if c else (low if top else x[r - 1, 0])
        if top:
            p = west
        else:
            north_west = x[r - 1, c - 1] if c else x[r - 1, 0]
            north_east = x[r - 1, c + 1] if c + 1 < width else x[r - 1, c]
            p = (w0 * west + w1 * x[r - 1, c] + w2 * north_west + w3 * north_east + bias) >> shift
        p = min(max(p, low), high)
        context = sum(start <= (p - low) >> context_shift for start in starts)
        if not pending:
            pending = (
                huffman_residuals(extra, tables[context])
                if huffman
                else [offset_of(rans.symbol(lane, tables[context]), extra)]
            )
        v = pending.pop(0)
        residual = -(v + 1) // 2 if v % 2 else v // 2
        x[r, c] = p + 1024 * residual if form == 2 else int(np.array(p + residual).astype(kind))
    rans.finish()
    assert extra.at == n_bits
    if form == 2:
        scale, move, constant, top_value = transform
        info = np.iinfo(dtype)
        value = [(scale * (min(max(u, 0), top_value) + move) ** 2 + constant + 2**43) >> 44 for u in x.reshape(-1)]
        return np.clip(value, info.min, info.max)
    if form == 3:
        return np.array([levels[v] + (number(i, seed) < parts[v]) for i, v in enumerate(x.reshape(-1))], np.int64)
    return np.array([levels[v] for v in x.reshape(-1)] if form == 1 else x.reshape(-1) - turn, np.int64)


def number(i: int, seed: int) -> int:
    h = (i + seed) % 2**32
    h = (h ^ h >> 16) * 0x85EBCA6B % 2**32
    h = (h ^ h >> 13) * 0xC2B2AE35 % 2**32
    return (h ^ h >> 16) >> 24


def walk(rows: int, height: int, width: int) -> Iterator[tuple[int, int, int, bool]]:
    length = -(-rows // 8)
    for t in range(length):
        for c in range(width):
            for lane in range(8):
                r = lane * length + t
                if r < rows and r < (lane + 1) * length:
                    yield r, c, lane, t == 0 or r % height == 0


def huffman_residuals(bits: Bits, book: dict[str, int]) -> list[int]:
    code = ""
    while code not in book:
        code += bits.string[bits.at]
        bits.at += 1
    token = book[code]
    if token < 248:
        return [offset_of(token, bits)]
    e = token - 247
    return [0] * (2**e + bits.number(e))


def decoded(stream: bytes) -> np.ndarray:
    method, code = stream[5], stream[6]
    body = Reader(stream)
    body.at = 12
    shape = tuple(body.varint() for _ in range(body.varint()))
    size, dtype = int(np.prod(shape)), np.dtype(TYPES[code])
    rest = Reader(stream[body.at :])
    if method < 2:
        return np.resize(np.frombuffer(rest.raw, dtype), shape)
    decode = pixel_histogram if stream[:4] == b"MPXH" else b3d
    return decode(rest, size, dtype).astype(dtype).reshape(shape)


def crc32c(data: bytes) -> int:
    """Castagnoli's polynomial, bit by bit."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


STREAMS = valid_streams()


@pytest.mark.parametrize(
    ("codec", "stream"), STREAMS, ids=[f"{type(c).__name__}-{i}" for i, (c, _) in enumerate(STREAMS)]
)
def test_a_decoder_from_the_document_reads_the_stream(codec: Any, stream: bytes) -> None:
    np.testing.assert_array_equal(decoded(stream), codec.decode_array(stream))
    assert struct.unpack_from("<I", stream, 8)[0] == crc32c(stream[:8] + stream[12:])
    assert stream[4] == (2 if getattr(codec, "dither", False) else 1)
