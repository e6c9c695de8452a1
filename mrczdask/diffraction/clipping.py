"""Frames averaged over the bins of a geometry, with and without clipping: a task a chunk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from mrczdask import schema
from mrczdask.diffraction.beams import beam_record, shot_centers
from mrczdask.diffraction.bins import RadialBins, radial_bins
from mrczdask.diffraction.maps import BINS, RADIUS
from mrczdask.diffraction.shots import as_shots, dummy_of, on_workers, shot_map, with_frames_mask
from mrczdask.errors import MrczdaskError
from mrczdask.execution.blocks import fields_of, whole_blocks
from mrczdask.io.geometry import Geometry
from mrczdask.io.sparse_table import AZIMUTH, CENTER, SECTOR
from mrczdask.kernels import azimuthal

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
    dummy: float
    delta: float
    model: int
    cutoff: float
    cycles: int


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
) -> tuple[xr.DataArray, Clipping]:
    """The frames as shots, and how they are averaged."""
    if error_model not in MODELS:
        raise ValueError(f"error_model={error_model!r}: give one of {', '.join(get_args(ErrorModel))}")
    if cycle < 0 or cutoff < 0:
        raise ValueError(f"cycle={cycle}, cutoff_clip={cutoff}: neither may be negative")
    images = as_shots(frames)
    if images.shape[1:] != geometry.shape:
        raise MrczdaskError(f"the frames are {images.shape[1:]} (y, x), the detector of the geometry {geometry.shape}")
    binning["mask"] = with_frames_mask(images, binning["mask"])
    centers = None if beam_centers is None else shot_centers(beam_centers, len(images))
    value, around = dummy_of(images, dummy, delta)
    return images, Clipping(
        radial=radial_bins(geometry, centers=centers, **binning),
        dummy=value,
        delta=around,
        model=MODELS[error_model],
        cutoff=float(cutoff),
        cycles=int(cycle),
    )


def binned(
    images: xr.DataArray, clipping: Clipping, beam_centers: ArrayLike | None
) -> tuple[dict[str, tuple[tuple[str, ...], da.Array]], dict[str, Any], dict[str, Any]]:
    """By name "average", "deviation" and "count" (shot, radius) or (shot, sector, radius); their coordinates and
    attributes."""
    radial = clipping.radial
    arrays, coords = [images.data], _coords(images, radial)
    attrs: dict[str, Any] = {}
    if radial.beam is not None and beam_centers is not None:
        centers = shot_centers(beam_centers, len(images))
        arrays.append(da.from_array(centers, chunks=(images.data.chunks[0], 2)))
        moving, attrs = beam_record(radial.beam, centers)
        coords |= moving
    table = shot_map(_clip_chunk, *arrays, shape=radial.shape, dtype=BINS, clipping=on_workers(clipping))
    dims = (schema.SHOT, *((SECTOR,) if radial.sectors > 1 else ()), RADIUS)
    return {name: (dims, values) for name, values in fields_of(table).items()}, coords, attrs


@whole_blocks
def _clip_chunk(block: NDArray[Any], centers: NDArray[np.float64] | None = None, *, clipping: Clipping) -> NDArray[Any]:
    """Background of each frame of a chunk (shot, y, x), about its beam where `centers` (shot, 2) say it."""
    shape = clipping.radial.shape
    n = clipping.radial.n * clipping.radial.sectors
    table = np.empty((len(block), *shape), BINS)
    average: NDArray[Any] = np.empty(n, np.float32)
    deviation: NDArray[Any] = np.empty(n, np.float32)
    count: NDArray[Any] = np.empty(n, np.int32)
    raw = np.empty(clipping.radial.norm.size + 1, np.float32)
    for k, frame in enumerate(block):
        order = clipping.radial.order_at(None if centers is None else centers[k])
        azimuthal.to_bins(np.ascontiguousarray(frame).reshape(-1), order.slots, raw)
        azimuthal.clip_background(
            raw,
            order.edges,
            order.norm,
            order.dark,
            clipping.dummy,
            clipping.delta,
            clipping.model,
            clipping.cutoff,
            clipping.cycles,
            average,
            deviation,
            count,
        )
        for name, values in zip(BINS.names or (), (average, deviation, count), strict=True):
            table[k][name] = values.reshape(shape)
    return table


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
