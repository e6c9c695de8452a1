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
from mrczdask.diffraction.regrowth import CLIPS_COUNTS, FEW_COUNTS, MEASURED, free_moments, is_counted, whole_counts
from mrczdask.diffraction.shots import native, on_workers
from mrczdask.errors import MrczdaskError
from mrczdask.execution.blocks import whole_blocks
from mrczdask.io.ragged import Block, Ragged
from mrczdask.io.sparse_input import as_sparse
from mrczdask.io.sparse_table import CENTER, masked_value
from mrczdask.kernels.noisy import Law, fill_noisy
from mrczdask.kernels.places import Places, cells_of, filled, levels
from mrczdask.kernels.poisson import mean_table
from mrczdask.kernels.regrow import fill_clamped, fill_counts, fill_mean, held_by
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
    dummy: Any
    noise: float
    cutoff: float
    model: str
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
        Numbers drawn with the mean and the variance of the background, Poisson counts where these are one, none above
        the threshold of picking; or the average, rounded for integers; or what FabIO draws: normal numbers cut at 0,
        whose mean is too high below about 2 counts.
    seed : int
        Of the numbers drawn: a pixel is a function of (seed, shot label, y, x), whatever the chunks and the selection.

    Returns
    -------
    DataArray
        Lazy (shot, y, x), in the dtype of the stored pixels. Masked pixels, and frames without any valid one, hold the
        dummy, which is an attribute; without one NaN, the largest value of unsigned integers, or of signed ones -1, the
        least where -1 is a count. Coordinates `beam_center_y`, `beam_center_x` (shot) where bins followed the beam.

    Raises
    ------
    MrczdaskError
        The table has no background, or does not say noise and cutoff where counts are drawn.
    ValueError
        The background is not known, or the seed is no integer of 0 to 2**64 - 1.

    Notes
    -----
    With B and S the background's average and deviation and w the normalization, a pixel has the mean m = w B and the
    variance v = (w S)^2. What would be picked, x > w (B + max(noise, cutoff_pick sqrt(S^2 + noise^2))), is drawn again,
    at most 20 times and then cut; stored pixels overwrite.

    Integers of the error models "poisson", "hybrid" and "count" are Poisson(m). Floats of these have lost a dark d
    where v is more than 5 % above the variance of counts: they are Poisson(m + d) - d with m + d = v, else Poisson(m).
    "azimuthal" has measured its deviation, whatever it is of (gain in ADU, read noise, a pedestal): Poisson(m) in
    integers whose v is m to 3 % and chance in every bin, else normal numbers, in integers rounded so that mean and
    variance stay, with the moments that the ring has without its stored pixels. Where unsigned integers would fall
    below 0 they are Poisson counts of two rates. Levels below 0 are drawn in floats and signed integers, with v as
    S has it.
    At few counts "azimuthal" and "hybrid" have clipped the highest: Poisson counts get the mean they had before.

    References
    ----------
    Kieffer et al., J. Appl. Cryst. 58 (2025); the Gaussian of its programs, clamped at 0, is biased below 2 counts.

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
    held = table.attrs | {"dummy": np.asarray(how.dummy).item()}
    attrs = record(held, "densify", {"background": background, "seed": seed})
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
        dummy=_held_dummy(dtype, masked_value(dtype, attrs)),
        noise=float(attrs.get("noise", 0.0)),
        cutoff=float(attrs.get("cutoff_pick", 0.0)),
        model=str(attrs.get("error_model", "poisson")),
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
        rows = slice(pointer[k], pointer[k + 1])
        stored = block.columns["index"][rows], block.columns["intensity"][rows]
        _fill(level, spread, stored, int(shots[k]), how.at(None if centers is None else centers[k]), out[k])
        out[k].reshape(-1)[stored[0]] = stored[1]
    return out


def _fill(
    level: NDArray[np.float32],
    spread: NDArray[np.float32],
    stored: tuple[NDArray[Any], NDArray[Any]],
    shot: int,
    how: _Regrowth,
    out: NDArray[Any],
) -> None:
    """Fill one frame (y, x) with background; `stored` are its pixels, which may tell more of it."""
    integer = how.dtype.kind in "iu"
    norm = how.maps.norm.reshape(-1)
    if how.background == "mean":
        fill_mean(how.places, how.cells, norm, level, how.dummy, integer, out)
        return
    if how.background == "fabio":
        fill_clamped(how.places, norm, level, spread, np.uint64(how.seed), shot, how.dummy, integer, out)
        return
    limits = how.noise, how.cutoff
    if is_counted(level, spread, how.model, how.dtype, how.places):
        if how.model in CLIPS_COUNTS and integer and (level < FEW_COUNTS).any():
            seen = spread if how.model == MEASURED else np.sqrt(level)
            level = whole_counts(level, seen, how.places)
        fill_counts(how.places, how.cells, norm, level, spread, *limits, how.seed, shot, how.dummy, out)
        return
    mean, std = level, spread
    if how.model == MEASURED:
        mean, std = free_moments(level, spread, stored, how.places, norm, limits)
    lowest, top = map(float, held_by(how.dtype))
    law = Law(lowest, top, integer, how.model != MEASURED and not integer, *limits)
    tables = level, spread, mean, std
    fill_noisy(how.places, norm, *tables, law, np.uint64(how.seed), shot, how.dummy, mean_table(), out)


def _held_dummy(dtype: np.dtype[Any], dummy: float) -> Any:
    """The dummy in the type of the frames; what an integer cannot hold is its largest value."""
    if dtype.kind == "f":
        return dtype.type(dummy)
    info = np.iinfo(dtype)
    return dtype.type(round(dummy) if info.min <= dummy < info.max else info.max)
