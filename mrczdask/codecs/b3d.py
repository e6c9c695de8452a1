"""B3D: compression of camera images, lossless or within the noise."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from numpy.typing import NDArray

from mrczdask.codecs import b3d_reader, b3d_stream
from mrczdask.codecs.container import Header, open_stream
from mrczdask.codecs.shells import Numcodec, Serializer, as_shape, check_dtype
from mrczdask.errors import CodecError
from mrczdask.kernels.noise_levels import Noise
from mrczdask.kernels.prediction import HUFFMAN, RANS


class B3DNumcodec(Numcodec):
    """`B3D` for numcodecs and Zarr v2.

    Parameters
    ----------
    **settings
        Those of `B3D`.

    Examples
    --------
    >>> import numpy as np
    >>> import mrczdask as md
    >>> codec = md.codecs.B3DNumcodec(entropy="huffman")
    >>> frame = np.arange(64, dtype="uint16").reshape(8, 8)
    >>> bool((codec.decode(codec.encode(frame)) == frame).all())
    True
    """

    codec_id = b3d_reader.NAME


@dataclass(frozen=True)
class B3D(Serializer):
    """Predict pixels from their neighbours and entropy-code the residuals: lossless, or lossy within the noise.

    Parameters
    ----------
    quantisation : float
        Step of the quantisation in standard deviations of the noise, q; 0 is lossless. 1 is what the paper calls
        within noise level.
    counts_per_electron : float
        Digital numbers per electron, g.
    offset : float
        Digital number of no electron, o.
    read_noise : float
        Standard deviation of the read noise, electrons, s.
    bound : {"strict", "stabilised"}
        "strict": |x' - x| <= q sigma(x) / 2 for every pixel. "stabilised": the published transform, with
        |x' - x| <= q sigma(x) / 2 + g q**2 / 16 + 1/2 for x >= o; all x < o become o. Predicted first it is
        0.5005 q sigma(x) + 0.0627 g q**2 + 1/2, for values in units of q / 1024.
    order : {"quantise-first", "predict-first"}
        Of the stabilised form. Quantising residuals of prediction ("predict-first") makes smaller files of smooth
        images; its errors are correlated between neighbours. "strict" implies "quantise-first".
    predictor : {"fitted", "classic"}
        Four weights fitted to each chunk, or the published mean of left and upper pixel.
    entropy : {"rans", "huffman"}
        Coder of the residuals. Huffman codes take 1 to 6 % more.
    frame_shape : sequence of int, optional
        (y, x) of one image *in the chunk*, where chunks are flat (after a Zarr v2 filter). By default the last two
        axes.
    dither : bool
        Of the strict form: levels are chosen so that averages of many frames have less bias, and a level between two
        codes is decoded to one or the other, by a number drawn from the pixels of the chunk and the place of the pixel.
        The bound is the same. Takes 2 to 12 % more bytes; older versions of mrczdask cannot read it.

    Raises
    ------
    CodecError
        A parameter is out of its range; a chunk is over 2 GiB or of another type than uint8, uint16, int8, int16,
        uint32, int32 (with quantisation: of more than 16 bits). Of "predict-first", when encoding: q is below
        0.002 / sqrt(g), or o and g s**2 are not within 2**18 of the codes.

    Notes
    -----
    sigma(x) = g sqrt(max((x - o) / g, 0) + s**2). The strict form covers all codes by as few levels as it can, each
    within q sigma / 2 of its codes, and codes levels. The stabilised forms quantise
    T = 2 sqrt(max(x - o, 0) / g + s**2) - 2 s in steps of q. Rounding adds about q**2 / 12 of the noise variance.

    The average of many decoded frames tends to the mean of what the levels stand for, which is off the mean of the
    pixels: of "strict" by up to 0.09 sigma (q = 1) and 0.4 sigma (q = 2) below 10 electrons, 0.03 and 0.08 sigma
    above; with `dither` 0.03 and 0.2, 0.01 and 0.03. From q = 3 on the noise hides the steps no more, whatever the
    levels. "stabilised" is off by 0.5 sigma below 10 electrons: it cuts what is below the offset.

    Levels and integers of the inverse are in the stream: decoding is exact on any machine. docs/codecs.md describes
    every byte.

    References
    ----------
    B. Balazs et al., "A real-time compression library for microscopy images" (B3D): predictor, within-noise-level mode,
    both orders. The strict bound, fitted predictors, contexts and rANS are ours.

    Examples
    --------
    >>> import mrczdask as md
    >>> cells = md.simulate.fluorescence((2, 256, 256)).images.values
    >>> lossless = md.codecs.B3D()
    >>> bool((lossless.decode_array(lossless.encode_array(cells)) == cells).all())
    True
    >>> lossy = md.codecs.B3D(quantisation=1.0, counts_per_electron=2.1, offset=100, read_noise=1.6)
    >>> len(lossless.encode_array(cells)) > 1.5 * len(lossy.encode_array(cells))
    True
    """

    codec_name: ClassVar[str] = b3d_reader.NAME
    numcodec_class: ClassVar[type[Numcodec]] = B3DNumcodec

    quantisation: float = 0.0
    counts_per_electron: float = 1.0
    offset: float = 0.0
    read_noise: float = 0.0
    bound: Literal["strict", "stabilised"] = "strict"
    order: Literal["quantise-first", "predict-first"] = "quantise-first"
    predictor: Literal["fitted", "classic"] = "fitted"
    entropy: Literal["rans", "huffman"] = "rans"
    frame_shape: tuple[int, int] | None = None
    dither: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "frame_shape", as_shape(self.frame_shape))
        if self.frame_shape is not None and (len(self.frame_shape) != 2 or min(self.frame_shape) < 1):
            raise CodecError(f"B3D: frame_shape={self.frame_shape}: give the height and width of the images in a chunk")
        _check_number("quantisation", self.quantisation, 0, 64)
        _check_number("counts_per_electron", self.counts_per_electron, 1e-6, 1e6)
        _check_number("offset", self.offset, -1e6, 1e6)
        _check_number("read_noise", self.read_noise, 0, 1e6)
        _check_choice("bound", self.bound, ("strict", "stabilised"))
        _check_choice("order", self.order, ("quantise-first", "predict-first"))
        _check_choice("predictor", self.predictor, ("fitted", "classic"))
        _check_choice("entropy", self.entropy, ("rans", "huffman"))
        if self.bound == "strict" and self.order == "predict-first":
            raise CodecError(
                'B3D: the strict bound needs order="quantise-first": choose bound="stabilised" or that order'
            )

    def encode_array(self, array: Any) -> bytes:
        """Encode an array of any shape and memory order."""
        entropy = HUFFMAN if self.entropy == "huffman" else RANS
        strict, first = self.bound == "strict", self.order == "quantise-first"
        choices = b3d_stream.Choices(self.predictor == "fitted", entropy, strict, first, self.dither)
        noise = Noise(self.quantisation, self.counts_per_electron, self.offset, self.read_noise)
        return b3d_stream.encode(array, self.frame_shape, choices, noise if self.quantisation else None)

    def open(self, stream: Any) -> tuple[Header, Any]:
        """Check a stream; return its header and body."""
        return open_stream(b3d_reader.MAGIC, b3d_reader.NAME, stream, b3d_reader.NEWEST)

    def finish(self, header: Header, body: Any) -> NDArray[Any]:
        """Decode an opened stream; the settings play no part in it."""
        return b3d_reader.decode_body(header, body)

    def validate(self, *, shape: tuple[int, ...], dtype: Any, chunk_grid: Any) -> None:
        """Refuse arrays of a type that the codec does not take, when they are created."""
        check_dtype(dtype.to_native_dtype(), self.codec_name, 2 if self.quantisation else 4)


B3DNumcodec.serializer_class = B3D


def _check_number(name: str, value: float, low: float, high: float) -> None:
    if not isinstance(value, int | float) or not math.isfinite(value) or not low <= value <= high:
        raise CodecError(f"B3D: {name}={value!r}: give a number from {low:g} to {high:g}")


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise CodecError(f"B3D: {name}={value!r}: choose one of {', '.join(choices)}")
