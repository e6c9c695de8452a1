"""Sums and virtual images of sparse frames, from the stored pixels alone: no frame is made dense."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from mrczdask import schema
from mrczdask.diffraction.beams import MovingBeam, center_rows, moving_beam
from mrczdask.diffraction.checks import span
from mrczdask.diffraction.shots import on_workers
from mrczdask.errors import MrczdaskError
from mrczdask.execution.blocks import whole_blocks
from mrczdask.io.frame_set import SCAN_DIMS
from mrczdask.io.ragged import Block, Ragged
from mrczdask.io.sparse_input import as_sparse
from mrczdask.io.validity import Validity, counts_in, dtype_rule, validity_of
from mrczdask.provenance import record

SHOTS: Final = 512
"""Shots of a block of a table in memory."""


def sparse_sum(sparse: Ragged | xr.Dataset) -> xr.DataArray:
    """Sum the stored pixels of all shots.

    Parameters
    ----------
    sparse : Ragged or Dataset
        What `sparsify` or `open_sparse` gave, or its `.compute()`.

    Returns
    -------
    DataArray
        Lazy, (y, x), int64, or float64 for stored floats. The background is not in it.

    Examples
    --------
    >>> import numpy as np
    >>> import mrczdask as md
    >>> frames = np.full((2, 64, 64), 3, np.uint16)
    >>> frames[:, 10, 12] = 900
    >>> sparse = md.sparsify(frames, md.Geometry.flat((64, 64)), bins=16, unit="pixel")
    >>> int(md.sparse_sum(sparse)[10, 12])
    1800
    """
    sparse = as_sparse(sparse, SHOTS)
    table = sparse.wide
    ny, nx = _shape(table)
    stored = table.layout.columns["intensity"]
    dtype = np.dtype(np.float64 if stored.kind == "f" else np.int64)
    parts = da.map_blocks(
        _sum_block,
        table.block_layer,
        (ny, nx),
        dtype,
        _rule_of(sparse),
        dtype=dtype,
        meta=np.empty((0, 0, 0), dtype),
        new_axis=[1, 2],
        chunks=((1,) * len(table.chunks), (ny,), (nx,)),
    )
    attrs = record(sparse.attrs, "sparse_sum")
    return xr.DataArray(parts.sum(axis=0), dims=(schema.Y, schema.X), name=schema.IMAGES, attrs=attrs)


def virtual_image(
    sparse: Ragged | xr.Dataset,
    detector: ArrayLike | None = None,
    *,
    radial_range: tuple[float, float] | None = None,
    scan_shape: tuple[int, int] | None = None,
) -> xr.DataArray:
    """Sum the stored pixels of each shot that fall on a virtual detector.

    Parameters
    ----------
    sparse : Ragged or Dataset
        What `sparsify` or `open_sparse` gave, or its `.compute()`.
    detector : array, optional
        (y, x) bool or weights of the pixels as they were recorded, wherever the beam is. The whole frame by default.
    radial_range : (float, float), optional
        Only pixels of rmin <= `pixel_radius` < rmax: an annular detector, about the beam of each shot where the table
        has one.
    scan_shape : (int, int), optional
        (scan_y, scan_x): the image of the scan.

    Returns
    -------
    DataArray
        Lazy, (shot) or (scan_y, scan_x), float64. The background is not in it.

    Raises
    ------
    MrczdaskError
        The detector has another shape than the frames, or the table no radius.
    ValueError
        The shots are no scan of this shape.

    Examples
    --------
    >>> import numpy as np
    >>> import mrczdask as md
    >>> frames = np.full((4, 64, 64), 3, np.uint16)
    >>> frames[2, 10, 12] = 900
    >>> sparse = md.sparsify(frames, md.Geometry.flat((64, 64)), bins=16, unit="pixel")
    >>> md.virtual_image(sparse, radial_range=(20, 40), scan_shape=(2, 2)).values.tolist()
    [[0.0, 0.0], [900.0, 0.0]]
    """
    sparse = as_sparse(sparse, SHOTS)
    table = sparse.wide
    shape = _shape(table)
    weights = np.ones(shape, np.float32) if detector is None else np.asarray(detector, np.float32)
    if weights.shape != shape:
        raise MrczdaskError(f"the virtual detector has the shape {weights.shape}, the frames {shape}")
    beam, within = None, (-np.inf, np.inf)
    if radial_range is not None:
        if "pixel_radius" not in table.header.coords:
            raise MrczdaskError("the sparse frames have no pixel_radius: give detector= instead of radial_range=")
        within = span("radial_range", radial_range)
        beam = moving_beam(table.header)
        if beam is None:
            weights = np.where(_ring(table.header["pixel_radius"].values, within), weights, np.float32(0))
    sums = da.blockwise(
        _weigh_block,
        "s",
        table.block_layer,
        "s",
        *(center_rows(table.header, table.chunks) if beam is not None else (None, None)),
        weights=on_workers(weights.reshape(-1)),
        beam=on_workers(beam),
        within=within,
        rule=_rule_of(sparse),
        dtype=np.float64,
        meta=np.empty(0, np.float64),
    )
    attrs = record(sparse.attrs, "virtual_image", {"detector": detector, "radial_range": radial_range})
    if scan_shape is None:
        coords = {schema.SHOT: sparse.header[schema.SHOT]}
        return xr.DataArray(sums, coords, (schema.SHOT,), "virtual_image", attrs)
    if scan_shape[0] * scan_shape[1] != len(sparse):
        raise ValueError(f"{len(sparse)} shots are no scan of {tuple(scan_shape)}")
    return xr.DataArray(sums.reshape(scan_shape), dims=SCAN_DIMS[:2], name="virtual_image", attrs=attrs)


def _shape(table: Ragged) -> tuple[int, int]:
    ny, nx = table.attrs["shape"]
    return int(ny), int(nx)


def _rule_of(sparse: Ragged) -> Validity | None:
    """Which of the stored pixels are counts; those less a dark were judged when they were picked."""
    if "dark" in sparse.header.coords:
        return None
    rule = validity_of(sparse.attrs).merged(dtype_rule(sparse.layout.columns["intensity"]))
    return replace(rule, panels=())  # those of places are not stored


def _counted(block: Block, rule: Validity | None) -> NDArray[Any]:
    """The stored intensities, 0 for what is no count: files of others may hold such."""
    stored = block.columns["intensity"]
    return stored if rule is None else np.where(counts_in(rule, stored), stored, stored.dtype.type(0))


def _sum_block(block: Block, shape: tuple[int, int], dtype: np.dtype[Any], rule: Validity | None) -> NDArray[Any]:
    out = np.zeros(shape[0] * shape[1], dtype)
    np.add.at(out, block.columns["index"], _counted(block, rule).astype(dtype))
    return out.reshape(1, *shape)


def _ring(radius: NDArray[np.float32], within: tuple[float, float]) -> NDArray[np.bool_]:
    return np.asarray((radius >= within[0]) & (radius < within[1]))


@whole_blocks
def _weigh_block(
    block: Block,
    centers: NDArray[np.float64] | None,
    weights: NDArray[np.float32],
    beam: MovingBeam | None,
    within: tuple[float, float],
    rule: Validity | None,
) -> NDArray[np.float64]:
    index = block.columns["index"]
    values = _counted(block, rule) * weights[index].astype(np.float64)
    if beam is not None and centers is not None:
        edges = block.pointer.astype(np.int64)
        for k, center in enumerate(centers):
            rows = slice(edges[k], edges[k + 1])
            values[rows] *= _ring(beam.pixel_radius(center), within).reshape(-1)[index[rows]]
    shot = np.repeat(np.arange(block.counts.size), block.counts)
    return np.bincount(shot, weights=values, minlength=block.counts.size).astype(np.float64, copy=False)
