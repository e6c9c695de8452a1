"""Sparse frames: the pixels that stand out of the background, and the background."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mrczdask import schema
from mrczdask.diffraction.background import separate_background
from mrczdask.diffraction.checks import number
from mrczdask.diffraction.clipping import go_on
from mrczdask.diffraction.counts import judge_of
from mrczdask.diffraction.maps import ANYWHERE, NEEDED, PixelMaps, pixel_maps, split_rows
from mrczdask.diffraction.shots import as_shots, on_workers
from mrczdask.errors import MrczdaskError
from mrczdask.execution.blocks import whole_blocks
from mrczdask.io.geometry import Geometry
from mrczdask.io.ragged import Block, Ragged
from mrczdask.io.sparse_blocks import FRAMES_TOKEN
from mrczdask.io.sparse_table import sparse_layout
from mrczdask.io.validity import Judge
from mrczdask.kernels.picking import pick_pixels
from mrczdask.kernels.places import Places, cells_of, filled, levels
from mrczdask.provenance import record


@dataclass(frozen=True)
class Picking:
    """How pixels are picked: `places` and `cells` are those of the `maps`, within a range of the radius; `dark`, flat,
    may be empty."""

    maps: PixelMaps
    places: Places
    cells: NDArray[Any]
    norm: NDArray[np.float32]
    dark: NDArray[np.float32]
    judge: Judge
    noise: float
    cutoff: float
    dtype: np.dtype[Any]
    within: tuple[float, float]

    def at(self, center: NDArray[np.float64] | None) -> Picking:
        """The same of a frame whose beam is at a place (y, x)."""
        maps = self.maps.at(center)
        return self if maps is self.maps else replace(self, maps=maps, **_places(maps, self.within))


def _places(maps: PixelMaps, within: tuple[float, float]) -> dict[str, Any]:
    places = maps.places(within)
    return {"places": places, "cells": cells_of(places.radial, maps.centres.size), "norm": maps.norm.reshape(-1)}


def sparsify(
    frames: Any,
    geometry: Geometry | None = None,
    *,
    background: xr.Dataset | None = None,
    cutoff_pick: float = 3.0,
    **options: Any,
) -> Ragged:
    """Keep the pixels of diffraction frames that stand out of their background, and the background of each frame.

    Parameters
    ----------
    frames : DataArray, dask or numpy array
        (shot, y, x), or (y, x), or with scan dims in front, in counts.
    geometry : Geometry, optional
        Of the detector, where no `background` is given.
    background : Dataset, optional
        What `separate_background` gave for these frames; frames are read once for both.
    cutoff_pick : float
        A pixel is kept that is further than this above the background, in deviations.
    **options : dict, optional
        Of `separate_background`, where no `background` is given.

    Returns
    -------
    Ragged
        Lazy. A shot: `n_pixels`, `background_avg`, `background_std` (shot, radius), NaN where a bin is empty. A stored
        pixel: `index` uint32 (y * width + x, ascending) and `intensity` (raw - dark, in the dtype of the frames).
        `.compute()` gives the Dataset with `frame_ptr` (shot_edge) uint64.

    Raises
    ------
    MrczdaskError
        The background is not of these frames, or neither it nor a geometry is given.
    ValueError
        Both are given, or `cutoff_pick` is negative.

    Notes
    -----
    Kept is b - background > max(noise, cutoff_pick sqrt(std^2 + noise^2)), with b = (raw - dark) / normalization and
    the background interpolated linearly between bin centres, and around the beam between the centres of sectors, so
    that its mean over each is the average. Empty bins are interpolated over.

    References
    ----------
    Kieffer et al., J. Appl. Cryst. 58 (2025): signal separation.

    Examples
    --------
    >>> import numpy as np
    >>> import mrczdask as md
    >>> frames = np.full((2, 64, 64), 3, np.uint16)
    >>> frames[1, 10, 12] = 900
    >>> sparse = md.sparsify(frames, md.Geometry.flat((64, 64)), bins=16, unit="pixel").compute()
    >>> sparse.n_pixels.values.tolist(), sparse["index"].values.tolist(), sparse["intensity"].values.tolist()
    ([0, 1], [652], [900])
    """
    cutoff_pick = number("cutoff_pick", cutoff_pick)
    images = as_shots(frames)
    is_shared = background is not None
    background = background_of(images, geometry, background, options)
    picking = picking_of(background, images, cutoff_pick)
    background, blocks = go_on(
        images, background, is_shared=is_shared, function=_pick_chunk, picking=on_workers(picking)
    )
    attrs = background.attrs | {"cutoff_pick": float(cutoff_pick), "dtype": picking.dtype.str}
    attrs["shape"] = list(images.shape[1:])
    header = background.drop_vars("n_used", errors="ignore")
    header.attrs = record(attrs, "sparsify", {"cutoff_pick": cutoff_pick})
    header.encoding = {FRAMES_TOKEN: images.data.name}
    return Ragged(header, blocks, sparse_layout(picking.dtype))


def background_of(
    images: xr.DataArray,
    geometry: Geometry | None,
    background: xr.Dataset | None,
    options: dict[str, Any],
    verb: str = "sparsify",
) -> xr.Dataset:
    """The background given, checked, or that of the geometry."""
    if background is None:
        if geometry is None:
            raise MrczdaskError(f"{verb} needs a geometry, or background= from separate_background")
        return separate_background(images, geometry, **options)
    if geometry is not None or options:
        given = ", ".join([*(["geometry"] if geometry is not None else []), *options])
        raise ValueError(f"{given} given together with background=, which has its own: leave one out")
    missing = [name for name in NEEDED if name not in background.variables]
    if missing:
        raise MrczdaskError(f"the background lacks {', '.join(missing)}: give what separate_background returns")
    if (
        background.sizes[schema.SHOT] != images.sizes[schema.SHOT]
        or background["pixel_radius"].shape != images.shape[1:]
    ):
        shape = (background.sizes[schema.SHOT], *background["pixel_radius"].shape)
        raise MrczdaskError(f"the background is of frames {shape}, these are {images.shape} (shot, y, x)")
    return background


def picking_of(background: xr.Dataset, images: xr.DataArray, cutoff: float) -> Picking:
    attrs, maps = background.attrs, pixel_maps(background)
    low, high = attrs.get("radial_range", ANYWHERE)
    dark = background["dark"].values.reshape(-1) if "dark" in background.coords else np.empty(0, np.float32)
    return Picking(
        maps=maps,
        **_places(maps, (low, high)),
        dark=dark,
        judge=judge_of(attrs, images),
        noise=float(attrs["noise"]),
        cutoff=float(cutoff),
        # a dark makes integers fractional and negative
        dtype=np.dtype(np.float32) if dark.size else images.dtype.newbyteorder("="),
        within=(low, high),
    )


@whole_blocks
def _pick_chunk(
    frames: NDArray[Any],
    average: NDArray[Any],
    deviation: NDArray[np.float32] | None,
    centers: NDArray[np.float64] | None,
    picking: Picking,
) -> Block:
    average, deviation = split_rows(average, deviation)
    counts = np.zeros(len(frames), np.int64)
    buffer = np.empty(picking.places.radial.size + 1, np.uint32)
    index, intensity = [np.empty(0, np.uint32)], [np.empty(0, picking.dtype)]
    for k, image in enumerate(frames):
        if not np.isfinite(average[k]).any():
            continue
        frame = np.ascontiguousarray(picking.judge.plain(image)).reshape(-1)
        how = picking.at(None if centers is None else centers[k])
        tables = levels(average[k]), filled(deviation[k])
        counts[k] = n = pick_pixels(
            frame,
            how.places,
            how.cells,
            how.norm,
            how.dark,
            how.judge.bounds,
            *tables,
            how.noise,
            how.cutoff,
            buffer,
        )
        index.append(buffer[:n].copy())
        signal = image.reshape(-1)[index[-1]]
        intensity.append((signal - how.dark[index[-1]] if how.dark.size else signal).astype(how.dtype))
    return Block(counts, {"index": np.concatenate(index), "intensity": np.concatenate(intensity)})
