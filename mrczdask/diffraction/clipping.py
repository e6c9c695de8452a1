"""Frames averaged over the bins of a geometry, with and without clipping: a task a chunk."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from mrczdask import schema
from mrczdask.diffraction.beams import beam_record, center_rows, lazy_centers, shot_centers
from mrczdask.diffraction.bins import BinOrder, RadialBins, radial_bins
from mrczdask.diffraction.checks import number, whole_number
from mrczdask.diffraction.counts import Counts, counts_of, gain_of
from mrczdask.diffraction.maps import BINS, NEEDED, RADIUS, bin_rows
from mrczdask.diffraction.shots import MASKED, as_shots, on_workers, shot_map, with_frames_mask
from mrczdask.errors import AmbiguousFileWarning, MrczdaskError
from mrczdask.execution.blocks import fields_of, structures_of, whole_blocks
from mrczdask.io.frame_set import MASK
from mrczdask.io.geometry import Geometry
from mrczdask.io.sparse_table import AZIMUTH, CENTER, SECTOR
from mrczdask.io.validity import Judge
from mrczdask.kernels import azimuthal
from mrczdask.kernels.valid import FINITE, holds

_MADE_OF: Final = "made_of"
ErrorModel = Literal["poisson", "azimuthal", "hybrid", "count"]
MODELS: Final = {
    "poisson": azimuthal.POISSON,
    "azimuthal": azimuthal.AZIMUTHAL,
    "hybrid": azimuthal.HYBRID,
    "count": azimuthal.COUNT,
}


@dataclass(frozen=True)
class Clipping:
    """How the frames of a graph are averaged."""

    radial: RadialBins
    counts: Counts
    judge: Judge
    gain: float
    model: int
    cutoff: float
    cycles: int


@dataclass(frozen=True)
class _Frames:
    """What a table of bins is made of."""

    images: da.Array
    clipping: Clipping
    centers: NDArray[np.float64] | None

    @property
    def arrays(self) -> list[da.Array]:
        """(shot, y, x), and (shot) of the beams where they move."""
        if self.centers is None:
            return [self.images]
        return [self.images, lazy_centers(self.centers, self.images.chunks[0])]


def prepare(
    frames: Any,
    geometry: Geometry,
    error_model: str,
    cutoff: float,
    cycle: int,
    dummy: float | None,
    delta: float | None,
    beam_centers: ArrayLike | None,
    **binning: Any,
) -> tuple[xr.DataArray, Clipping, NDArray[np.float64] | None]:
    """The frames as shots, how they are averaged, and the beam of each where it moves."""
    if error_model not in MODELS:
        raise ValueError(f"error_model={error_model!r}: give one of {', '.join(get_args(ErrorModel))}")
    cycle, cutoff = whole_number("cycle", cycle, 0), number("cutoff_clip", cutoff)
    images = as_shots(frames)
    geometry = geometry.framed(images.shape[1:])
    if images.shape[1:] != geometry.shape:
        raise MrczdaskError(f"the frames are {images.shape[1:]} (y, x), the detector of the geometry {geometry.shape}")
    is_masked = binning["mask"] is not None or MASK in images.coords or MASKED in images.attrs
    if geometry.unread_masks and not is_masked:
        raise MrczdaskError(
            f"the .geom file takes its mask from {', '.join(geometry.unread_masks)} of the data files: give them as "
            "Geometry.from_geom(..., frames=), or mask="
        )
    binning["mask"] = with_frames_mask(images, binning["mask"])
    centers = None if beam_centers is None else shot_centers(beam_centers, len(images))
    counts = counts_of(images, geometry, dummy, delta)
    clipping = Clipping(
        radial=radial_bins(geometry, centers=centers, **binning),
        counts=counts,
        judge=counts.judge(images),
        gain=gain_of(images.attrs, geometry),
        model=MODELS[error_model],
        cutoff=cutoff,
        cycles=cycle,
    )
    return images, clipping, centers


def binned(
    images: xr.DataArray, clipping: Clipping, centers: NDArray[np.float64] | None
) -> tuple[dict[str, tuple[tuple[str, ...], da.Array]], dict[str, Any], dict[str, Any]]:
    """By name "average", "deviation" and "count" (shot, radius) or (shot, sector, radius); their coordinates and
    attributes."""
    radial = clipping.radial
    coords = _coords(images, radial)
    attrs: dict[str, Any] = {}
    if radial.beam is not None and centers is not None:
        moving, attrs = beam_record(radial.beam, centers)
        coords |= moving
    frames = _Frames(images.data, clipping, centers)
    table = shot_map(_clip_chunk, *frames.arrays, shape=radial.shape, dtype=BINS, clipping=on_workers(clipping))
    setattr(table, _MADE_OF, frames)
    return _with_dims(table), coords, attrs


def go_on(
    images: xr.DataArray, background: xr.Dataset, *, is_shared: bool, function: Callable[..., Any], **constants: Any
) -> tuple[xr.Dataset, da.Array]:
    """Let tasks go on with the frames of a chunk and their background; the background, and an array (shot) whose blocks
    are what function(frames, average, deviation, centers, **constants) gives.

    A background that is not shared was just made, and nothing else of it is used: then it is the task that separates
    it which goes on, and frames are read, used and forgotten there.
    """
    if not is_shared:
        return _clip_then(background, function, constants)
    blocks = da.blockwise(
        function,
        "s",
        images.data,
        "syx",
        *bin_rows(background, images),
        *center_rows(background, images.data.chunks[0]),
        **constants,
        dtype=object,
        meta=np.empty(0, object),
    )
    return background, blocks


def _clip_then(
    background: xr.Dataset, function: Callable[..., Any], constants: dict[str, Any]
) -> tuple[xr.Dataset, da.Array]:
    """The background, and blocks of what the function gives, both of one task a chunk."""
    known = structures_of([background[name].data for name in NEEDED[:2]])
    if known is None:
        raise TypeError("the background is not as separate_background gave it")
    frames: _Frames = getattr(known[0], _MADE_OF)
    indices = ["syx", "s"][: len(frames.arrays)]
    made = da.blockwise(
        _clip_and_go_on,
        "syx",  # all dims of the frames: Dask fuses their reading only into what contracts none
        *(part for pair in zip(frames.arrays, indices, strict=True) for part in pair),
        clipping=on_workers(frames.clipping),
        function=function,
        **constants,
        dtype=object,
        meta=np.empty((0, 0, 0), object),
    )
    blocks = da.blockwise(_part, "s", made, "syx", number=1, dtype=object, meta=np.empty(0, object))
    shape = frames.clipping.radial.shape
    table = shot_map(_part, made, shape=shape, dtype=BINS, number=0)
    fields = _with_dims(table)
    found = {"background_avg": fields["average"], "background_std": fields["deviation"], "n_used": fields["count"]}
    return background.assign(found), blocks


def _with_dims(table: da.Array) -> dict[str, tuple[tuple[str, ...], da.Array]]:
    dims = (schema.SHOT, *((SECTOR,) if table.ndim > 2 else ()), RADIUS)
    return {name: (dims, values) for name, values in fields_of(table).items()}


@whole_blocks
def _clip_and_go_on(
    frames: NDArray[Any],
    centers: NDArray[np.float64] | None = None,
    *,
    clipping: Clipping,
    function: Callable[..., Any],
    **constants: Any,
) -> tuple[NDArray[Any], Any]:
    table = _clip_chunk(frames, centers, clipping=clipping)
    return table, function(frames, table["average"], table["deviation"], centers, **constants)


@whole_blocks
def _part(made: tuple[Any, Any], number: int) -> Any:
    return made[number]


@whole_blocks
def _clip_chunk(block: NDArray[Any], centers: NDArray[np.float64] | None = None, *, clipping: Clipping) -> NDArray[Any]:
    """Background of each frame of a chunk (shot, y, x), about its beam where `centers` (shot) say it."""
    shape = clipping.radial.shape
    n = clipping.radial.n * clipping.radial.sectors
    table = np.empty((len(block), *shape), BINS)
    average: NDArray[Any] = np.empty(n, np.float32)
    deviation: NDArray[Any] = np.empty(n, np.float32)
    count: NDArray[Any] = np.empty(n, np.int32)
    raw = np.empty(clipping.radial.norm.size + 1, np.float32)
    seen = False
    for k, image in enumerate(block):
        order = clipping.radial.order_at(None if centers is None else centers[k])
        frame = np.ascontiguousarray(clipping.judge.plain(image)).reshape(-1)
        azimuthal.to_bins(frame, order.slots, raw)
        seen = seen or (clipping.judge.unsure > 0 and holds(raw[: order.edges[-1]], clipping.judge.unsure))
        _clip_frame(raw, order, clipping, average, deviation, count)
        for name, values in zip(BINS.names or (), (average, deviation, count), strict=True):
            table[k][name] = values.reshape(shape)
    if seen:
        _warn_of(block.dtype, clipping.judge.unsure)
    return table


def _clip_frame(
    raw: NDArray[np.float32],
    order: BinOrder,
    clipping: Clipping,
    average: NDArray[np.float32],
    deviation: NDArray[np.float32],
    count: NDArray[np.int32],
) -> None:
    """The background of a frame in the order of its bins; counting noise is that of photons, not of their counts."""
    bounds, gain, dark = clipping.judge.bounds, np.float32(clipping.gain), order.dark
    if gain != 1:
        raw[~clipping.judge.counts(raw)] = np.nan
        raw /= gain
        bounds, dark = FINITE, dark / gain
    azimuthal.clip_background(
        raw,
        order.edges,
        order.norm,
        dark,
        bounds,
        clipping.model,
        clipping.cutoff,
        clipping.cycles,
        average,
        deviation,
        count,
    )
    if gain != 1:
        average *= gain
        deviation *= gain


def _warn_of(dtype: np.dtype[Any], top: float) -> None:
    warnings.warn(
        f"pixels of {dtype} frames hold {top:.0f}, the largest number of the dtype, and nothing says whether it is a "
        f"count: they are taken for counts. Give dummy={top:.0f} if they are bad pixels, dummy=nan if they are counts",
        AmbiguousFileWarning,
        stacklevel=2,
    )


def _coords(images: xr.DataArray, radial: RadialBins) -> dict[str, Any]:
    """Coordinates of the shots, the bins, and of what `sparsify` needs to know of each pixel."""
    plane = (schema.Y, schema.X)
    found: dict[str, Any] = {
        str(name): coord.variable  # a coordinate of frames brings the others along
        for name, coord in images.coords.items()
        if set(coord.dims) <= {schema.SHOT} and name not in CENTER
    }
    found.setdefault(schema.SHOT, np.arange(images.sizes[schema.SHOT]))
    found[RADIUS] = (RADIUS, radial.centres, {"units": radial.unit})
    found["pixel_radius"] = (plane, radial.pixel_radius, {"units": radial.unit})
    if radial.pixel_azimuth is not None:
        width = 360 / radial.sectors
        middles = np.arange(radial.sectors) * width + width / 2 - 180
        found[SECTOR] = (SECTOR, middles, {"units": "degree"})
        found[AZIMUTH] = (plane, radial.pixel_azimuth, {"units": "degree"})
    if not (radial.norm == 1).all():
        found["normalization"] = (plane, radial.norm)
    if radial.dark is not None:
        found["dark"] = (plane, radial.dark)
    return found
