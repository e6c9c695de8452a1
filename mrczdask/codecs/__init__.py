"""Two codecs for counting detectors and cameras, and one that reads the chunks of MRCZ, for Zarr v3 and numcodecs."""

from mrczdask.codecs.b3d import B3D, B3DNumcodec
from mrczdask.codecs.b3d_hdf5 import ORIGINAL_B3D_FILTER, original_b3d_error
from mrczdask.codecs.blosc_frame import BloscFrame, BloscFrameNumcodec
from mrczdask.codecs.pixel_histogram import PixelHistogram, PixelHistogramNumcodec

__all__ = [
    "B3D",
    "ORIGINAL_B3D_FILTER",
    "B3DNumcodec",
    "BloscFrame",
    "BloscFrameNumcodec",
    "PixelHistogram",
    "PixelHistogramNumcodec",
    "original_b3d_error",
]
