"""PixelHistogram: lossless compression of stacks of patterns from counting detectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from numpy.typing import NDArray

from mrczdask.codecs import pixel_histogram_stream as stream
from mrczdask.codecs.class_map import NAME
from mrczdask.codecs.container import Header
from mrczdask.codecs.shells import Numcodec, Serializer, as_shape, pixels_in


class PixelHistogramNumcodec(Numcodec):
    """`PixelHistogram` for numcodecs and Zarr v2.

    Parameters
    ----------
    **settings
        Those of `PixelHistogram`.

    Examples
    --------
    >>> import mrczdask as md
    >>> codec = md.codecs.PixelHistogramNumcodec()
    >>> frames = md.simulate.poisson((8, 16, 16), mean=1.0).values
    >>> bool((codec.decode(codec.encode(frames)) == frames).all())
    True
    """

    codec_id = NAME


@dataclass(frozen=True)
class PixelHistogram(Serializer):
    """Code the pixels of a stack of patterns by the histograms of pixels with similar means. Lossless.

    A chunk is seen as a stack of patterns. Pixels are put into up to 64 classes by their mean over the stack; each
    class has one histogram, by which its pixels are entropy coded. Patterns of a 4D-STEM scan compress to within a few
    per cent of the entropy of independent counts around the true means. Counting movies work as well: they need
    one class. Chunks should hold many patterns: 64 or more.

    Parameters
    ----------
    pattern_shape : sequence of int, optional
        Lengths of the axes of one pattern *in the chunk*, such as (128, 128): the last axes of the chunk. Needed where
        the codec is given flat chunks (after a Zarr v2 filter). By default the last two axes.

    Raises
    ------
    CodecError
        For a type other than uint8, uint16, int8, int16, uint32, int32, and chunks over 2 GiB.

    Notes
    -----
    With n_k pixels in class k and H_k the entropy of its histogram, a stack of N patterns of P pixels takes
    N sum_k n_k H_k bits, plus sum_k n_k log2(P / n_k) for the map of classes, plus the histograms; the classes
    minimise this sum. docs/codecs.md describes every byte.

    References
    ----------
    J. Hinkle et al., "Lossless image compression for 4D-STEM datasets": histograms of single pixels with arithmetic
    coding. Sharing them between pixels is ours: single histograms take more room than they save in a chunk.

    Examples
    --------
    >>> import numpy as np, zarr
    >>> from mrczdask.codecs import PixelHistogram
    >>> counts = np.random.default_rng(0).poisson(0.1, (8, 8, 64, 64)).astype(np.uint16)
    >>> scan = zarr.create_array({}, data=counts, chunks=(8, 8, 64, 64), serializer=PixelHistogram(), compressors=None)
    >>> bool(np.array_equal(scan[:], counts)), scan.nbytes // scan.nbytes_stored() > 20
    (True, True)
    """

    codec_name: ClassVar[str] = NAME
    numcodec_class: ClassVar[type[Numcodec]] = PixelHistogramNumcodec

    pattern_shape: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "pattern_shape", as_shape(self.pattern_shape))
        pixels_in(self.pattern_shape, self.codec_name)

    def encode_array(self, array: Any) -> bytes:
        """Encode an array of any shape and memory order."""
        return stream.encode(array, pixels_in(self.pattern_shape, self.codec_name))

    def open(self, stream_: Any) -> tuple[Header, Any]:
        """Check a stream; return its header and body."""
        return stream.open_body(stream_)

    def finish(self, header: Header, body: Any) -> NDArray[Any]:
        """Decode an opened stream."""
        return stream.decode_body(header, body)


PixelHistogramNumcodec.serializer_class = PixelHistogram
