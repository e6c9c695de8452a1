"""Pictures of frames: robust contrast, a scale bar, and no more pixels than a screen has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from mrczdask.errors import MissingExtraError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DISPLAY_PIXELS: Final = 1024
"""A larger image is averaged over blocks of pixels before it is drawn."""
CONTRAST: Final = (0.5, 99.5)
"""Percentiles of the pixels between which grey values run: outliers do not blacken a picture."""
SCALE_BAR_SHARE: Final = 0.25
"""Longest scale bar, as a share of the width of the picture."""
NICE: Final = (1, 2, 5)
"""Scale bars are one of these times a power of ten."""


def bin_image(image: NDArray[Any], largest: int = DISPLAY_PIXELS) -> tuple[NDArray[np.float32], int]:
    """Average blocks of pixels until no side is longer than `largest`; return the image and the side of a block.

    Complex pixels are drawn by their modulus; NaN are left out of a mean.
    """
    values = np.abs(image) if np.iscomplexobj(image) else np.asarray(image)
    side = -(-max(values.shape[:2]) // largest)
    if side <= 1:
        return values.astype(np.float32), 1
    y, x = (size // side * side for size in values.shape[:2])
    blocks = values[:y, :x].reshape(y // side, side, x // side, side, *values.shape[2:])
    if values.dtype.kind == "f":
        return np.nanmean(blocks, axis=(1, 3), dtype=np.float32), side
    return blocks.mean(axis=(1, 3), dtype=np.float32), side


def contrast_limits(image: NDArray[Any], percentiles: tuple[float, float] = CONTRAST) -> tuple[float, float]:
    """The values between which grey runs; a constant image gets one grey."""
    finite = image[np.isfinite(image)]
    if not finite.size:
        return 0.0, 1.0
    low, high = np.percentile(finite, percentiles)
    return (float(low), float(high)) if high > low else (float(low) - 0.5, float(low) + 0.5)


def scale_bar(width: float, pixel_size_angstrom: float) -> tuple[float, str]:
    """Length in pixels and label of the longest round scale bar within a quarter of `width` pixels."""
    longest = SCALE_BAR_SHARE * width * pixel_size_angstrom
    power = 10.0 ** np.floor(np.log10(longest))
    length = max(nice * power for nice in NICE if nice * power <= longest)
    value, unit = (length, "Å") if length < 10 else (length / 10, "nm") if length < 1e4 else (length / 1e4, "µm")
    return length / pixel_size_angstrom, f"{value:g} {unit}"


def axes_or_new(ax: Axes | None) -> Axes:
    """The axes given, or those of a new figure.

    Raises
    ------
    MissingExtraError
        matplotlib is not installed.
    """
    try:
        from matplotlib import pyplot as plt
    except ImportError:
        raise MissingExtraError("plots need matplotlib: pip install 'mrczdask[plot]'") from None
    return plt.subplots(figsize=(5.5, 5.5), layout="constrained")[1] if ax is None else ax


def draw_image(
    image: NDArray[Any],
    *,
    ax: Axes | None = None,
    pixel_size_angstrom: float | None = None,
    origin: str = "lower",
    percentiles: tuple[float, float] = CONTRAST,
    title: str = "",
    cmap: str = "gray",
) -> Axes:
    """Draw an image (y, x) with robust contrast and, where the pixel size is known, a scale bar."""
    ax = axes_or_new(ax)
    shown, side = bin_image(image)
    low, high = contrast_limits(shown, percentiles)
    ny, nx = shown.shape[:2]
    extent = (0, nx * side, 0, ny * side) if origin == "lower" else (0, nx * side, ny * side, 0)
    if shown.ndim == 3:  # colour bands
        shown = np.clip((shown - low) / (high - low), 0, 1)
    ax.imshow(shown, cmap=cmap, vmin=low, vmax=high, origin=origin, extent=extent, interpolation="nearest")  # type: ignore[arg-type]
    ax.set(xticks=[], yticks=[], title=title)
    if pixel_size_angstrom:
        _draw_bar(ax, nx * side, pixel_size_angstrom)
    return ax


def _draw_bar(ax: Axes, width: float, pixel_size_angstrom: float) -> None:
    from matplotlib.patches import Rectangle

    length, label = scale_bar(width, pixel_size_angstrom)
    share = length / width
    frame = {"transform": ax.transAxes, "zorder": 3}
    ax.add_patch(Rectangle((0.02, 0.02), share + 0.04, 0.085, color="black", alpha=0.55, linewidth=0, **frame))  # type: ignore[arg-type]
    ax.add_patch(Rectangle((0.04, 0.035), share, 0.012, color="white", linewidth=0, **frame))  # type: ignore[arg-type]
    ax.text(0.04 + share / 2, 0.054, label, color="white", ha="center", va="bottom", fontsize=9, **frame)  # type: ignore[arg-type]
