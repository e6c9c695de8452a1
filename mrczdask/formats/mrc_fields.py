"""The MRC2014 header as data: fields, modes and the constants of the writers in use."""

from __future__ import annotations

from typing import Final

import numpy as np

SUFFIXES: Final = (".mrc", ".mrcs", ".mrcz", ".map", ".st", ".rec", ".ali")
HEADER_BYTES: Final = 1024
MAX_EXTENDED_HEADER: Final = 1 << 30
"""An extended header beyond 1 GiB is taken for a corrupt NSYMBT."""

_FIELDS: Final = (
    # name, type, offset
    ("n", "(3,)i4", 0),
    ("mode", "i4", 12),
    ("start", "(3,)i4", 16),
    ("m", "(3,)i4", 28),
    ("cella", "(3,)f4", 40),
    ("cellb", "(3,)f4", 52),
    ("map_axes", "(3,)i4", 64),
    ("dmin", "f4", 76),
    ("dmax", "f4", 80),
    ("dmean", "f4", 84),
    ("ispg", "i4", 88),
    ("nsymbt", "i4", 92),
    ("exttyp", "S4", 104),
    ("nversion", "i4", 108),
    ("nint", "i2", 128),
    ("nreal", "i2", 130),
    ("voltage", "f4", 132),
    ("cs", "f4", 136),
    ("gain", "f4", 140),
    ("packed_bytes", "i8", 144),
    ("imod_stamp", "i4", 152),
    ("imod_flags", "i4", 156),
    ("origin", "(3,)f4", 196),
    ("map", "S4", 208),
    ("machine_stamp", "V4", 212),
    ("rms", "f4", 216),
    ("nlabl", "i4", 220),
    ("labels", "(10,)S80", 224),
)
HEADER: Final = np.dtype(
    {
        "names": [name for name, _, _ in _FIELDS],
        "formats": [kind for _, kind, _ in _FIELDS],
        "offsets": [offset for _, _, offset in _FIELDS],
        "itemsize": HEADER_BYTES,
    }
)

IMOD_STAMP: Final = 1146047817
IMOD_SIGNED: Final = 1
IMOD_PACKED4: Final = 16

VOLUME_STACKS: Final = range(401, 631)
"""ISPG of a stack of volumes; 0 is a stack of images, 1 a volume."""

COMPLEX_INT16: Final = 3
RGB: Final = 16
PACKED4: Final = 101

MODE_DTYPES: Final[dict[int, np.dtype[np.generic]]] = {
    0: np.dtype("i1"),
    1: np.dtype("i2"),
    2: np.dtype("f4"),
    COMPLEX_INT16: np.dtype(("i2", (2,))),
    4: np.dtype("c8"),
    6: np.dtype("u2"),
    7: np.dtype("i4"),
    8: np.dtype("u4"),
    12: np.dtype("f2"),
    RGB: np.dtype(("u1", (3,))),
    PACKED4: np.dtype("u1"),
}
"""Dtype of one stored pixel by mode; 7 and 8 are private to python-mrcz. Mode 101 holds two pixels a byte."""

BLOSC_CODECS: Final = {"none": 0, "blosclz": 1, "lz4": 2, "lz4hc": 3, "snappy": 4, "zlib": 5, "zstd": 6}
"""MRCZ compressor ids (MODE // 1000) of the Blosc codecs."""

COMPRESSORS: Final = {
    **{number: name for name, number in BLOSC_CODECS.items()},
    7: "ndlz",
    8: "zfp_acc",
    9: "zfp_prec",
    10: "zfp_rate",
    11: "openhtj2k",
    12: "grok",
    13: "openzl",
    14: "j2k",
    15: "htj2k",
}

SUPER_RESOLUTION_HALVED: Final = (
    (3838, 7420),
    (3710, 7676),
    (3840, 7424),
    (3712, 7680),
    (11520, 4092),
    (4092, 11520),
    (5760, 8184),
)
"""(NX, NY) of 4-bit K2 and K3 super-resolution frames stored as bytes, two pixels a byte (IMOD's table)."""
SUPER_RESOLUTION_SLACK: Final = 2
