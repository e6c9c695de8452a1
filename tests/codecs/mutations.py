"""Valid streams of both codecs, and what becomes of them when bytes change: shared by the tests and the fuzzer."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

import mrczdask as md
from mrczdask.codecs.container import checksum
from mrczdask.errors import CodecError

CAMERA = {"quantisation": 1.0, "counts_per_electron": 2.1, "offset": 3.0, "read_noise": 1.6}


def valid_streams(only: Sequence[int] | None = None) -> list[tuple[Any, bytes]]:
    """(codec, stream) of small arrays that use every part of the formats; `only` those of these numbers."""
    rng = np.random.default_rng(0)
    codecs = md.codecs
    falling = np.exp(-((np.arange(400) / 120.0) ** 2)).reshape(20, 20)
    sparse = rng.poisson(0.4 * falling, (30, 20, 20)).astype(np.uint8)
    mixed = rng.poisson(3000 * falling**4, (19, 20, 20)).astype(np.uint16)
    mixed[3, 4, 5] = 65000
    flat = rng.poisson(1.5, (1003,)).astype(np.int16) - np.int16(3)
    image = rng.poisson(30, (3, 17, 13)).astype(np.uint16)
    wide = rng.poisson(5000, (2, 9, 11)).astype(np.int32) * 1000
    blank = (image > 40).astype(np.uint8)
    histogram = codecs.PixelHistogram()
    pairs = [(histogram, array) for array in (sparse, mixed, flat, wide, np.full((9, 9), 3, np.uint8), image[:1, :2])]
    pairs += [(codecs.B3D(), image), (codecs.B3D(), wide), (codecs.B3D(predictor="classic"), flat)]
    pairs += [(codecs.B3D(entropy="huffman"), each) for each in (image, blank)]
    pairs += [(codecs.B3D(**CAMERA), image), (codecs.B3D(entropy="huffman", **CAMERA), blank)]
    stabilised = {"bound": "stabilised", **CAMERA}
    pairs += [(codecs.B3D(**stabilised), image), (codecs.B3D(order="predict-first", **stabilised), image)]
    pairs += [(histogram, moving(rng))]
    pairs += [(codecs.B3D(dither=True, **CAMERA), each) for each in (image, image.astype(np.int16) - np.int16(20))]
    far = {"quantisation": 1.0, "counts_per_electron": 2.0, "offset": 32768.0, "read_noise": 1.6}
    bright = image + np.uint16(32768)
    pairs += [(codecs.B3D(bound="stabilised", order="predict-first", **far), bright)]
    chosen = pairs if only is None else [pairs[number] for number in only]
    return [(codec, codec.encode_array(array)) for codec, array in chosen]


def moving(rng: np.random.Generator, patterns: int = 60) -> np.ndarray:
    """Counts that follow those of the pattern before: a broad beam, every pixel of which swings slowly."""
    beam = 40 * np.exp(-((np.arange(400) / 120.0) ** 2))
    swing = 1.05 + np.sin(np.arange(patterns)[:, None] / 9 + rng.uniform(0, 2 * np.pi, 400))
    counts: np.ndarray = rng.poisson(beam * swing).astype(np.uint16).reshape(-1, 20, 20)
    return counts


def sealed(stream: bytearray) -> bytes:
    """The stream with a checksum that is right: only then do the decoders see the mutation."""
    if len(stream) >= 12:
        struct.pack_into("<I", stream, 8, checksum(stream))
    return bytes(stream)


def mutations(stream: bytes, count: int, rng: np.random.Generator) -> Iterator[bytes]:
    """Streams with changed, cut, doubled or inserted bytes; the magic stays, most of the changes are in the head."""
    for _ in range(count):
        out = bytearray(stream)
        for _ in range(rng.integers(1, 4)):
            reach = len(out) if rng.random() < 0.5 else min(len(out), 80)
            at = int(rng.integers(min(4, len(out) - 1), reach)) if reach > 4 else 0
            what = rng.integers(6)
            if what == 0:
                out[at] ^= 1 << int(rng.integers(8))
            elif what == 1:
                out[at] = int(rng.integers(256))
            elif what == 2:
                out[at] = int(rng.choice([0, 1, 127, 128, 255]))
            elif what == 3:
                del out[at : at + int(rng.integers(1, 9))]
            elif what == 4:
                out[at:at] = rng.bytes(int(rng.integers(1, 9)))
            else:
                del out[at:]
            out = out or bytearray(b"M")
        yield sealed(out)


def decode(codec: Any, stream: bytes, most_bytes: int) -> str:
    """ "refused" or "decoded"; anything else is an error of the decoder.

    As Zarr does, the shape is looked at before the pixels are made: larger arrays than a reader asks for are refused.
    """
    try:
        header, body = codec.open(stream)
        if header.size * header.dtype.itemsize > most_bytes:
            return "refused"
        pixels = codec.finish(header, body)
    except CodecError:
        return "refused"
    assert pixels.shape == header.shape
    assert pixels.dtype.newbyteorder("=") == header.dtype
    return "decoded"
