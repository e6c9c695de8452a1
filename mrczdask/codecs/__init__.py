"""Two codecs for counting detectors, as Zarr v3 serializers and as numcodecs codecs."""

from mrczdask.codecs.pixel_histogram import PixelHistogram, PixelHistogramNumcodec

__all__ = ["PixelHistogram", "PixelHistogramNumcodec"]
