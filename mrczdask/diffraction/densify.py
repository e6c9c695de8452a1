"""Dense frames again, from sparse ones."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final, Literal, get_args

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mrczdask import schema
from mrczdask.diffraction.beams import center_rows
from mrczdask.diffraction.checks import whole_number
from mrczdask.diffraction.maps import NEEDED, PixelMaps, pixel_maps
from mrczdask.diffraction.shots import native, on_workers
from mrczdask.errors import MrczdaskError
from mrczdask.execution.blocks import whole_blocks
from mrczdask.io.ragged import Block, Ragged
from mrczdask.io.sparse_input import as_sparse
from mrczdask.io.sparse_table import CENTER, masked_value
from mrczdask.kernels.places import Places, cells_of, filled, levels
from mrczdask.kernels.regrow import fill_clamped, fill_counts, fill_mean
from mrczdask.provenance import record

Background = Literal["poisson", "mean", "fabio"]
_MOST_SEED: Final = 2**64 - 1
SHOTS: Final = 16
"""Shots of a block of a table in memory."""


@dataclass(frozen=True)
class _Regrowth:
    """How frames are filled: `places` and `cells` are those of the `maps`."""

    background: Background
    maps: PixelMaps
    places: Places
    cells: NDArray[Any]
    dummy: float
    noise: float
    cutoff: float
    seed: int
    dtype: np.dtype[Any]

    def at(self, center: NDArray[np.float64] | None) -> _Regrowth:
        """The same of a frame whose beam is at a place (y, x)."""
        maps = self.maps.at(center)
        return self if maps is self.maps else replace(self, maps=maps, **_places(maps))


def _places(maps: PixelMaps) -> dict[str, Any]:
    places = maps.places()
    return {"places": places, "cells": cells_of(places.radial, maps.centres.size)}


def densify(sparse: Ragged | xr.Dataset, *, background: Background = "poisson", seed: int = 0) -> xr.DataArray:
    """Fill sparse frames with their background again.

    Parameters
    ----------
    sparse : Ragged or Dataset
        What `sparsify` or `open_sparse` gave, or its `.compute()`.
    background : {"poisson", "mean", "fabio"}
        Counts drawn around the average, none above the threshold of picking; or the average, rounded for integers; or
        what FabIO draws: normal numbers cut at 0, whose mean is too high below about 2 counts.
    seed : int
        Of the counts: a pixel is a function of (seed, shot label, y, x), whatever the chunks and the selection.

    Returns
    -------
    DataArray
        Lazy (shot, y, x), in the dtype of the stored pixels. Masked pixels, and frames without any valid one, hold the
        dummy; without one NaN, -1, or the largest value of unsigned integers. Coordinates `beam_center_y`,
        `beam_center_x` (shot) where bins followed the beam.

    Raises
    ------
    MrczdaskError
        The table has no background, or does not say noise and cutoff where counts are drawn.
    ValueError
        The background is not known, or the seed is no integer of 0 to 2**64 - 1.

    Notes
    -----
    n ~ Poisson(w B), drawn again while n > w (B + max(noise, cutoff_pick sqrt(std^2 + noise^2))), at most 20 times and
    then cut, with B the background and w the normalization; stored pixels overwrite.

    References
    ----------
    Kieffer et al., J. Appl. Cryst. 58 (2025); the Gaussian of its programs, clamped at 0, is biased below 2
    counts, counts are not.

    Examples
    --------
    >>> import numpy as np
    >>> import mrczdask as md
    >>> frames = np.full((2, 64, 64), 3, np.uint16)
    >>> frames[1, 10, 12] = 900
    >>> sparse = md.sparsify(frames, md.Geometry.flat((64, 64)), bins=16, unit="pixel")
    >>> bool((md.densify(sparse, background="mean") == frames).all())
    True
    """
    if background not in get_args(Background):
        raise ValueError(f"background={background!r}: give one of {', '.join(get_args(Background))}")
    seed = whole_number("seed", seed, 0, _MOST_SEED)
    table = as_sparse(sparse, SHOTS)
    how = _regrowth(table, background, seed)
    chunks = {0: table.chunks, 1: -1}
    rows = [da.asarray(table.header[name].data).rechunk(chunks) for name in NEEDED[:2]]
    dims = "sar" if rows[0].ndim > 2 else "sr"
    labels = da.from_array(table.header[schema.SHOT].values.astype(np.int64), chunks=(table.chunks,))
    images = da.blockwise(
        _fill_chunk,
        "syx",
        table.block_layer,
        "s",
        labels,
        "s",
        rows[0],
        dims,
        rows[1],
        dims,
        *center_rows(table.header, table.chunks),
        how=on_workers(how),
        new_axes=dict(zip("yx", how.maps.radius.shape, strict=True)),
        dtype=how.dtype,
        meta=np.empty((0, 0, 0), how.dtype),
    )
    attrs = record(table.attrs, "densify", {"background": background, "seed": seed})
    coords = {name: table.header[name] for name in (schema.SHOT, *CENTER) if name in table.header.coords}
    return xr.DataArray(images, coords, (schema.SHOT, schema.Y, schema.X), schema.IMAGES, attrs)


def _regrowth(table: Ragged, background: Background, seed: int) -> _Regrowth:
    header, attrs = table.header, table.attrs
    missing = [name for name in NEEDED if name not in header.variables]
    missing += [name for name in ("noise", "cutoff_pick") if background == "poisson" and name not in attrs]
    if missing:
        raise MrczdaskError(f"the sparse frames lack {', '.join(missing)}: they cannot be filled with this background")
    maps, dtype = pixel_maps(header), native(table.layout.columns["intensity"])
    return _Regrowth(
        background=background,
        maps=maps,
        **_places(maps),
        dummy=masked_value(dtype, float(attrs.get("dummy", np.nan))),
        noise=float(attrs.get("noise", 0.0)),
        cutoff=float(attrs.get("cutoff_pick", 0.0)),
        seed=seed,
        dtype=dtype,
    )


@whole_blocks
def _fill_chunk(
    block: Block,
    shots: NDArray[np.int64],
    average: NDArray[np.float32],
    deviation: NDArray[np.float32],
    centers: NDArray[np.float64] | None,
    how: _Regrowth,
) -> NDArray[Any]:
    out = np.empty((block.counts.size, *how.maps.radius.shape), how.dtype)
    pointer = block.pointer.astype(np.int64)
    for k in range(block.counts.size):
        if not np.isfinite(average[k]).any():
            out[k] = how.dummy
            continue
        level, spread = levels(average[k]), filled(deviation[k])
        _fill(level, spread, int(shots[k]), how.at(None if centers is None else centers[k]), out[k])
        rows = slice(pointer[k], pointer[k + 1])
        out[k].reshape(-1)[block.columns["index"][rows]] = block.columns["intensity"][rows]
    return out


def _fill(
    level: NDArray[np.float32], spread: NDArray[np.float32], shot: int, how: _Regrowth, out: NDArray[Any]
) -> None:
    """Fill one frame (y, x) with background."""
    integer = how.dtype.kind in "iu"
    norm = how.maps.norm.reshape(-1)
    if how.background == "mean":
        fill_mean(how.places, how.cells, norm, level, how.dummy, integer, out)
    elif how.background == "fabio":
        fill_clamped(how.places, norm, level, spread, np.uint64(how.seed), shot, how.dummy, integer, out)
    else:
        limits = how.noise, how.cutoff
        fill_counts(how.places, how.cells, norm, level, spread, *limits, how.seed, shot, how.dummy, out)
