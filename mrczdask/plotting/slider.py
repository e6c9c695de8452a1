"""A slider over the images of a movie, a session or a scan, with HoloViews."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import xarray as xr

from mrczdask import schema
from mrczdask.errors import MissingExtraError
from mrczdask.plotting.images import ANGSTROM_A_NM
from mrczdask.plotting.pixels import BANDS, CONTRAST, bin_image, check_image, contrast_limits, only_counts, pixel_sides

SLIDER_PIXELS: Final = 640
"""The same for each position of a slider: a browser gets 1.6 MB a frame."""


def stacked_dims(images: xr.DataArray) -> list[str]:
    """The dims before those of an image: before y, or before the last two where they have other names."""
    end = images.dims.index(schema.Y) if schema.Y in images.dims else max(images.ndim - 2, 0)
    return [str(dim) for dim in images.dims[:end]]


def frame_slider(images: xr.DataArray, *, percentiles: tuple[float, float] = CONTRAST, **options: Any) -> Any:
    """A DynamicMap of HoloViews over the dims before y and x; a position reads, bins and draws its frame alone.

    Raises
    ------
    ValueError
        There is nothing to slide over, or the dims are not those of images.
    MissingExtraError
        hvplot is not installed.
    """
    try:
        import holoviews as hv
        import hvplot.xarray  # noqa: F401  loads Bokeh into the notebook
    except ImportError:
        raise MissingExtraError("the slider needs hvplot: pip install 'mrczdask[plot]'") from None
    dims = stacked_dims(images)
    if not dims:
        raise ValueError(f"a slider needs a dim before y and x, the array has {images.dims}: draw it with .em.plot()")
    places = {dim: _places(images, dim) for dim in dims}

    def draw(*values: Any) -> Any:
        chosen = {dim: places[dim][value] for dim, value in zip(dims, values, strict=True)}
        return _element(hv, images.isel(chosen), percentiles, options)

    return hv.DynamicMap(draw, kdims=[hv.Dimension(dim, values=list(places[dim])) for dim in dims])


def _places(images: xr.DataArray, dim: str) -> dict[Any, int]:
    """Position of every label of a dim; where labels repeat or are missing, of every position."""
    values = images[dim].values.tolist()
    labels = values if len(set(values)) == len(values) else range(len(values))
    return {label: k for k, label in enumerate(labels)}


def _element(hv: Any, image: xr.DataArray, percentiles: tuple[float, float], options: dict[str, Any]) -> Any:
    """An image with the contrast of its own pixels, of the size of a screen, in nm where that is known."""
    pixels, origin = only_counts(image), str(image.attrs.get(schema.ORIGIN, "lower"))
    check_image(pixels, origin)
    size = image.attrs.get(schema.PIXEL_SIZE)
    x_size, y_size = pixel_sides(size)
    shown, side = bin_image(pixels, SLIDER_PIXELS)
    low, high = (0.0, 1.0) if pixels.dtype.kind == "b" else contrast_limits(shown, percentiles)
    shown = shown[::-1] if origin == "lower" else shown  # HoloViews has the first row at the top
    step = side if size is None else side / ANGSTROM_A_NM  # Bokeh's scale bar knows metric units only
    bounds = (0.0, 0.0, shown.shape[1] * step * x_size, shown.shape[0] * step * y_size)
    settings: dict[str, Any] = {"data_aspect": 1, "frame_width": 480, "toolbar": "right", "tools": ["hover"]}
    if size is None:
        kdims = ["x (pixels)", "y (pixels)"]
    else:
        kdims = [hv.Dimension(name, unit="nm") for name in (schema.X, schema.Y)]
        settings |= {"xaxis": None, "yaxis": None, "scalebar": True, "scalebar_unit": ("nm", "m")}
    if shown.ndim == BANDS:
        shown = np.clip((shown - low) / (high - low), 0, 1)
        return hv.RGB(shown, bounds=bounds, kdims=kdims).opts(**(settings | options))
    settings |= {"cmap": "gray", "clim": (low, high)}
    return hv.Image(shown, bounds=bounds, kdims=kdims, vdims=["counts"]).opts(**(settings | options))
