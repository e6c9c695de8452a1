"""Pictures of images: one style, robust contrast, scale bars, no more pixels than a screen has."""

from mrczdask.plotting.images import COLOURS, STYLE, axes_or_new, draw_image, scale_bar
from mrczdask.plotting.pixels import bin_image, contrast_limits, only_counts
from mrczdask.plotting.slider import frame_slider, stacked_dims

__all__ = [
    "COLOURS",
    "STYLE",
    "axes_or_new",
    "bin_image",
    "contrast_limits",
    "draw_image",
    "frame_slider",
    "only_counts",
    "scale_bar",
    "stacked_dims",
]
