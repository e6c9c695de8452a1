"""What a notebook shows of a movie: header, dose, chunks and the size of every frame, without reading a pixel."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mrczdask import schema
from mrczdask.io.backend import movie_array
from mrczdask.io.mrc_reader import MrcReader

if TYPE_CHECKING:
    from mrczdask.formats.mrc import MrcHeader

BARS: Final = 120
"""Bars of the picture of sizes; more frames share one."""
WIDTH, HEIGHT = 480, 90
_SHOWN: Final = {
    schema.PIXEL_SIZE: ("pixel size", "angstrom"),
    schema.VOLTAGE: ("voltage", "kV"),
    schema.SPHERICAL_ABERRATION: ("spherical aberration", "mm"),
    schema.COUNTS_PER_ELECTRON: ("counts per electron", ""),
}


def name_of(images: xr.DataArray) -> str:
    """The name of the movie, where the array holds one."""
    name = images.coords.get(schema.MOVIE)
    return str(name.item()) if name is not None and name.ndim == 0 else ""


def describe(images: xr.DataArray) -> dict[str, str]:
    """What a person wants to know of a movie, name by name."""
    about = {"shape": ", ".join(f"{dim} {size}" for dim, size in images.sizes.items()), "dtype": str(images.dtype)}
    if images.chunks is not None:
        about["chunks"] = " x ".join(str(max(sizes)) for sizes in images.chunks)
    header: MrcHeader | None = images.encoding.get(schema.MRC_HEADER)
    if header is not None:
        about["file"] = f"MRC mode {header.mode}, {header.layout}, byte order {header.byte_order}"
        if header.labels:
            about["labels"] = "; ".join(header.labels)
    for name, (shown, unit) in _SHOWN.items():
        if name in images.attrs:
            about[shown] = f"{images.attrs[name]} {unit}".rstrip()
    for name in (schema.DOSE, schema.TILT, schema.TIME):
        if name in images.coords and images.coords[name].ndim == 1 and images.coords[name].size:
            values = images.coords[name].values
            about[name] = f"{values[0]:g} to {values[-1]:g} {schema.UNITS[name]}"
    return about


def bits_per_frame(images: xr.DataArray) -> NDArray[np.float64] | None:
    """Compressed bits per pixel of every frame of an MRCZ movie or session, from its index; else None."""
    source = movie_array(images.data) if images.chunks is not None else None
    if source is None:
        return None
    readers = [reader for reader in source.readers if isinstance(reader, MrcReader) and reader.compressed]
    if len(readers) < len(source.readers):
        return None
    lengths = np.concatenate([reader.table.lengths for reader in readers]).astype(float)
    return lengths * 8 / float(np.prod(readers[0].shape[1:]))


def movie_html(images: xr.DataArray) -> str:
    """A table of what is known of a movie and a picture of how well each frame compresses."""
    rows = "".join(
        f"<tr><th style='text-align:left;padding:0 1.5em 0 0'>{escape(name)}</th>"
        f"<td style='text-align:left'>{escape(value)}</td></tr>"
        for name, value in describe(images).items()
    )
    bits = bits_per_frame(images)
    picture = "" if bits is None else _bars(bits)
    return f"<div><strong>{escape(name_of(images))}</strong><table style='margin:0.5em 0'>{rows}</table>{picture}</div>"


def _bars(bits: NDArray[np.float64]) -> str:
    """An inline SVG: a bar a frame, or the mean of a few."""
    groups = np.array_split(bits, min(BARS, bits.size))
    means = np.array([group.mean() for group in groups])
    top = float(means.max()) or 1.0
    step = WIDTH / means.size
    bars = "".join(
        f"<rect x='{k * step:.1f}' y='{HEIGHT * (1 - mean / top):.1f}' width='{max(step - 1, 0.5):.1f}' "
        f"height='{HEIGHT * mean / top:.1f}' fill='#4477aa'><title>{mean:.2f} bits/pixel</title></rect>"
        for k, mean in enumerate(means)
    )
    label = f"{bits.min():.2f} to {bits.max():.2f} bits per pixel, {bits.size} frames"
    return (
        f"<svg width='{WIDTH}' height='{HEIGHT}' role='img' aria-label='{label}'>{bars}</svg>"
        f"<div style='font-size:85%'>{label}</div>"
    )
