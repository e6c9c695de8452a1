"""Two codecs for counting detectors and cameras, as Zarr v3 serializers and as numcodecs codecs."""

from mrczdask.codecs.b3d import B3D, B3DNumcodec
from mrczdask.codecs.pixel_histogram import PixelHistogram, PixelHistogramNumcodec

__all__ = ["B3D", "B3DNumcodec", "PixelHistogram", "PixelHistogramNumcodec"]
