"""Sums as OME-NGFF 0.5 images of several resolutions, for viewers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import xarray as xr
import zarr

from mrczdask import schema
from mrczdask.execution.progress import Progress
from mrczdask.io.archive import open_archive, write_archive
from mrczdask.io.archive_codecs import INNER
from mrczdask.io.stores import Place, open_store

VERSION: Final = "0.5"
TILE: Final = 512
"""Pixels along the sides of a chunk: 1 MB of float32. The coarsest level is no larger."""
_PLANE: Final = (schema.Y, schema.X)


def write_multiscale(
    sums: xr.DataArray,
    url: Place,
    *,
    group: str = "derived/multiscale",
    resume: bool = True,
    progress: Progress = None,
    storage_options: Mapping[str, Any] | None = None,
) -> xr.DataTree:
    """Write sums or other images as OME-NGFF 0.5, each level of half the resolution of the one before.

    Parameters
    ----------
    sums : DataArray
        (movie, y, x), of another leading dim, or (y, x). Stored sums: lazy ones are computed here. The attribute
        `pixel_size_angstrom` gives the scale; without it, scales are in pixels and have no unit.
    url : str, path or Zarr store
        The archive.
    group : str
        Group inside it, whose attributes describe the image: what is given to a viewer is "URL/GROUP".
    resume : bool
        As of `write_archive`.
    progress : None, True or callable
        True shows a bar; a callable gets (done, total, label).
    storage_options : mapping, optional
        For the fsspec file system. They are not written anywhere.

    Returns
    -------
    xarray.DataTree
        The levels "0" (full resolution), "1", ..., each with `images`, float32, lazy.

    Raises
    ------
    ValueError
        The array has other dims.

    Notes
    -----
    A pixel of level k + 1 is the mean of 2 x 2 of level k, or of those of them that are inside the image: the centre
    of the first pixel of level k lies (2**k - 1) / 2 pixels inside that of level 0, which the translations say. All
    levels are float32, which every viewer shows. Chunks are tiles of 512 x 512 pixels in one shard an image.

    References
    ----------
    J. Moore et al., "OME-Zarr: a cloud-optimized bioimaging file format", and the specification of OME-NGFF 0.5,
    section "multiscales".

    Examples
    --------
    >>> import mrczdask as md
    >>> movie = md.simulate.poisson((4, 600, 700), mean=1.0, seed=0)
    >>> levels = md.write_multiscale(md.sum_frames(movie), "run.zarr")
    >>> [levels[name]["images"].shape for name in levels]
    [(600, 700), (300, 350)]
    """
    if sums.dims[-2:] != _PLANE or sums.ndim > 3:
        raise ValueError(f"dims {sums.dims}: images (y, x) or (movie, y, x) have levels of resolution")
    options: dict[str, Any] = {"resume": resume, "progress": progress, "storage_options": storage_options}
    level, count = sums.astype(np.float32).rename(schema.IMAGES), 0
    while True:
        level = level.chunk({dim: -1 if dim in _PLANE else 1 for dim in level.dims})
        level.encoding = {INNER: tuple(min(TILE, level.sizes[dim]) if dim in _PLANE else 1 for dim in level.dims)}
        level = write_archive(level, url, group=f"{group}/{count}", codec="zstd", **options)
        count += 1
        if max(level.sizes[dim] for dim in _PLANE) <= TILE:
            break
        level = level.coarsen(dict.fromkeys(_PLANE, 2), boundary="pad").mean()
    store = open_store(url, storage_options, read_only=False)
    node = zarr.open_group(store, path=group, mode="a", zarr_format=3, use_consolidated=False)
    node.attrs["ome"] = {"version": VERSION, "multiscales": [_multiscale(sums, group, count)]}
    tree = open_archive(url, storage_options=storage_options)
    assert isinstance(tree, xr.DataTree)
    found = tree[group]
    assert isinstance(found, xr.DataTree)
    return found


def _multiscale(images: xr.DataArray, group: str, count: int) -> dict[str, Any]:
    """The entry of `multiscales`."""
    size = images.attrs.get(schema.PIXEL_SIZE)
    step = [float(n) for n in np.broadcast_to(1.0 if size is None else size, 2)]
    unit = {} if size is None else {"unit": "angstrom"}
    lead = [str(dim) for dim in images.dims[:-2]]
    datasets = []
    for k in range(count):
        scale: dict[str, Any] = {"type": "scale", "scale": [1.0] * len(lead) + [2**k * n for n in step]}
        shift = {"type": "translation", "translation": [0.0] * len(lead) + [(2**k - 1) / 2 * n for n in step]}
        datasets.append({"path": f"{k}/{schema.IMAGES}", "coordinateTransformations": [scale, shift][: 1 + (k > 0)]})
    return {
        "name": group.rsplit("/", 1)[-1],
        "axes": [
            *({"name": dim, "type": dim} for dim in lead),
            *({"name": dim, "type": "space", **unit} for dim in _PLANE),
        ],
        "datasets": datasets,
        "type": "mean",
        "metadata": {"description": "means of 2 x 2 pixels", "method": "xarray.DataArray.coarsen"},
    }
