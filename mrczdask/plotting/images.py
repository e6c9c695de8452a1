"""Images drawn with matplotlib: robust contrast and a scale bar."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from mrczdask.errors import MissingExtraError
from mrczdask.plotting.pixels import (
    BANDS,
    CONTRAST,
    DISPLAY_PIXELS,
    bin_image,
    check_image,
    check_percentiles,
    contrast_limits,
    pixel_sides,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FEWEST_PIXELS: Final = 64
"""Contrast is never judged on a coarser view than this."""
SCALE_BAR_SHARE: Final = 0.25
"""Longest scale bar, as a share of the width of the picture."""
ANGSTROM_A_NM: Final = 10
"""Å in a nm."""
NICE: Final = (1, 2, 5)
"""Scale bars are one of these times a power of ten."""
COLOURS: Final = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb")
"""The bright scheme of P. Tol (SRON/EPS/TN/09-002), told apart with every colour vision."""
STYLE: Final[dict[str, Any]] = {
    "axes.prop_cycle": f"cycler('color', {list(COLOURS)})",
    "axes.linewidth": 0.6,
    "axes.titlesize": 10,
    "axes.titlepad": 5,
    "axes.labelsize": 9,
    "font.size": 9,
    "legend.frameon": False,
    "pdf.fonttype": 42,  # letters stay letters in a figure of a paper
    "savefig.dpi": 200,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
}
"""Settings of matplotlib for `plt.style.use` and `plt.rc_context`: small type, thin lines, `COLOURS`."""
_FIGURE_WIDTH: Final = 5.5


def scale_bar(width: float, pixel_size_angstrom: float) -> tuple[float, str]:
    """Length in pixels and label of the longest round scale bar within a quarter of `width` pixels."""
    longest = SCALE_BAR_SHARE * width * pixel_size_angstrom
    power = 10.0 ** np.floor(np.log10(longest))
    length = max(nice * power for nice in NICE if nice * power <= longest)
    nm = length / ANGSTROM_A_NM
    value, unit = (length, "Å") if nm < 1 else (nm, "nm") if nm < 1000 else (nm / 1000, "µm")
    return length / pixel_size_angstrom, f"{value:g} {unit}"


def axes_or_new(ax: Axes | None, ratio: float = 1.0) -> Axes:
    """The axes given, or those of a new figure for an image `ratio` times as high as wide.

    Raises
    ------
    MissingExtraError
        matplotlib is not installed.
    """
    try:
        from matplotlib import pyplot as plt
    except ImportError:
        raise MissingExtraError("plots need matplotlib: pip install 'mrczdask[plot]'") from None
    if ax is not None:
        return ax
    height = _FIGURE_WIDTH * float(np.clip(ratio, 0.3, 1.6)) + 0.3
    style: Any = STYLE  # the type of matplotlib names every setting
    with plt.rc_context(style):
        return plt.subplots(figsize=(_FIGURE_WIDTH, height), layout="constrained")[1]


def draw_image(
    image: NDArray[Any],
    *,
    ax: Axes | None = None,
    pixel_size_angstrom: float | Sequence[float] | None = None,
    origin: str = "lower",
    percentiles: tuple[float, float] = CONTRAST,
    title: str = "",
    cmap: str = "gray",
    colorbar: str | None = None,
) -> Axes:
    """Draw an image with robust contrast, and a scale bar or, where the pixel size is not known, axes in pixels.

    Parameters
    ----------
    image : (y, x) or (y, x, 3) array
        Of complex pixels the modulus is drawn; a mask is black and white.
    ax : matplotlib axes, optional
        Where to draw; a new figure where None.
    pixel_size_angstrom : float or (float, float), optional
        Side of a pixel, or (x, y) of one that is not square.
    origin : {"lower", "upper"}
        Where the first row is.
    percentiles : (float, float)
        Percentiles of the pixels, as they are seen at the size of the axes, drawn black and white.
    title, cmap : str
        Of the axes; a colour map of matplotlib.
    colorbar : str, optional
        Label of a colour bar; none is drawn where None.

    Returns
    -------
    matplotlib axes

    Raises
    ------
    ValueError
        The array is no image, or an option is none of those above.
    MissingExtraError
        matplotlib is not installed.

    Examples
    --------
    >>> import numpy as np
    >>> from mrczdask.plotting import draw_image
    >>> ax = draw_image(np.eye(200), pixel_size_angstrom=1.06)
    >>> ax.figure.savefig("image.png")
    """
    image = np.asarray(image)
    check_image(image, origin)
    check_percentiles(percentiles)
    x_size, y_size = pixel_sides(pixel_size_angstrom)
    height, width = image.shape[:2]
    ax = axes_or_new(ax, height * y_size / (width * x_size))
    seen = max(FEWEST_PIXELS, int(min(ax.bbox.width, ax.bbox.height)))
    is_mask = image.dtype.kind == "b"
    shown, side = bin_image(image, seen if is_mask else DISPLAY_PIXELS)
    # what is seen of a large image are means of its pixels, which spread less
    low, high = (0.0, 1.0) if is_mask else contrast_limits(bin_image(shown, seen)[0], percentiles)
    top, right = (n * min(side, size) for n, size in zip(shown.shape, image.shape[:2], strict=False))
    if shown.ndim == BANDS:
        shown = np.clip((shown - low) / (high - low), 0, 1)
    drawn = ax.imshow(
        shown,
        cmap=cmap,
        vmin=low,
        vmax=high,
        origin=origin,  # type: ignore[arg-type]
        extent=(0, right, 0, top) if origin == "lower" else (0, right, top, 0),
        aspect=y_size / x_size,
        interpolation="nearest" if is_mask else None,
    )
    ax.set_title(title)
    if pixel_size_angstrom is None:
        ax.set(xlabel="x (pixels)", ylabel="y (pixels)")
    else:
        ax.set(xticks=[], yticks=[])
        _draw_bar(ax, right, top, x_size)
    if colorbar is not None:
        ax.figure.colorbar(drawn, cax=ax.inset_axes((1.02, 0, 0.035, 1)), label=colorbar)
    return ax


def _draw_bar(ax: Axes, width: float, height: float, pixel_size_angstrom: float) -> None:
    """A scale bar in the units of the axes: it stays right when the picture is zoomed."""
    from matplotlib.font_manager import FontProperties
    from mpl_toolkits.axes_grid1.anchored_artists import AnchoredSizeBar  # type: ignore[import-untyped]

    length, label = scale_bar(width, pixel_size_angstrom)
    bar = AnchoredSizeBar(
        ax.transData,
        length,
        label,
        loc="lower left",
        pad=0.5,
        borderpad=0.7,
        sep=3,
        label_top=True,
        color="white",
        size_vertical=0.012 * min(width, height),
        fontproperties=FontProperties(size=9),
    )
    bar.patch.set(facecolor="black", alpha=0.6, linewidth=0)
    ax.add_artist(bar)
