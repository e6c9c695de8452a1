"""What densified frames have in common with the original: moments of the background, shell by shell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import dask
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mrczdask.diffraction.beams import center_rows
from mrczdask.diffraction.checks import whole_number
from mrczdask.diffraction.counts import judge_of
from mrczdask.diffraction.shells import Shells, shells_of
from mrczdask.diffraction.shots import as_shots, on_workers
from mrczdask.errors import MrczdaskError
from mrczdask.execution.progress import Progress, track
from mrczdask.execution.regions import run_regions
from mrczdask.io.ragged import Block, Ragged
from mrczdask.io.sparse_input import as_sparse
from mrczdask.io.validity import Judge

_SUMS: Final = ("n", "original", "original_squares", "densified", "densified_squares")
SHOTS: Final = 16
"""Shots of a block of a table in memory."""


@dataclass(frozen=True)
class _Original:
    """Where the pixels are, which of the recorded ones count, and what they are less of: `dark`, flat."""

    shells: Shells
    dark: NDArray[np.float32] | None
    judge: Judge


def compare_background(
    frames: Any, dense: Any, sparse: Ragged | xr.Dataset, *, shells: int = 10, progress: Progress = None
) -> xr.Dataset:
    """Compare the background of densified frames with that of the original, in shells of the radius.

    Parameters
    ----------
    frames : DataArray, dask or numpy array
        (shot, y, x), what was made sparse; its dark is subtracted.
    dense : DataArray, dask or numpy array
        (shot, y, x), what `densify` gave.
    sparse : Ragged or Dataset
        What `sparsify` or `open_sparse` gave, or its `.compute()`: its stored pixels, equal in both, are left out.
    shells : int
        Shells of equal width in the unit of the radius, about the beam of each shot.
    progress : bool or callable, optional
        Show a bar, or call progress(done, total, label) as chunks are done.

    Returns
    -------
    Dataset
        In memory, along `shell`: `n_pixels` and, for each of "original" and "densified" (along `source`), `mean`,
        `variance` and `maximum` of the pixels that are not stored; NaN in a shell without any. Coordinates
        `radius_low`, `radius_high`.

    Raises
    ------
    MrczdaskError
        The frames differ in shape.
    ValueError
        `shells` is not positive.

    Examples
    --------
    >>> import numpy as np
    >>> import mrczdask as md
    >>> frames = np.random.default_rng(0).poisson(3.0, (4, 128, 128))
    >>> sparse = md.sparsify(frames, md.Geometry.flat((128, 128)), bins=16, unit="pixel")
    >>> report = md.compare_background(frames, md.densify(sparse), sparse, shells=2)
    >>> bool(abs(report["mean"].sel(source="densified") / report["mean"].sel(source="original") - 1).max() < 0.02)
    True
    """
    shells = whole_number("shells", shells, 1)
    sparse = as_sparse(sparse, SHOTS)
    one, other = as_shots(frames), as_shots(dense)
    shape = (len(sparse), *sparse.header["pixel_radius"].shape)
    if one.shape != other.shape or one.shape != shape:
        raise MrczdaskError(
            f"the original is {one.shape}, the densified frames {other.shape}, the sparse ones {shape} (shot, y, x): "
            "they must agree"
        )
    rings = shells_of(sparse.header, shells)
    totals, most = _moments((one, other), sparse, rings, progress)
    n = totals["n"]
    with np.errstate(invalid="ignore", divide="ignore"):
        means = np.stack([totals["original"] / n, totals["densified"] / n])
        squares = np.stack([totals["original_squares"] / n, totals["densified_squares"] / n])
    values = {
        "n_pixels": ("shell", n.astype(np.int64)),
        "mean": (("source", "shell"), means),
        "variance": (("source", "shell"), squares - means**2),
        "maximum": (("source", "shell"), np.where(n > 0, most, np.nan)),
    }
    coords = {
        "source": ["original", "densified"],
        "radius_low": ("shell", rings.edges[:-1]),
        "radius_high": ("shell", rings.edges[1:]),
    }
    return xr.Dataset(values, coords, {"n_shots": len(sparse)})


def _moments(
    both: tuple[xr.DataArray, xr.DataArray], sparse: Ragged, shells: Shells, progress: Progress
) -> tuple[dict[str, NDArray[np.float64]], NDArray[np.float64]]:
    """Sums by name and maxima (source, shell) over all shots, a chunk of them at a time."""
    chunks = {0: sparse.chunks, 1: -1, 2: -1}
    images = [each.data.rechunk(chunks).to_delayed().ravel() for each in both]
    blocks = sparse.block_layer.to_delayed().ravel()
    rows, _ = center_rows(sparse.header, sparse.chunks)
    centers = [None] * len(blocks) if rows is None else rows.to_delayed().ravel()
    dark = sparse.header["dark"].values.reshape(-1) if "dark" in sparse.header.coords else None
    sent = on_workers(_Original(shells, dark, judge_of(sparse.attrs, both[0])))
    judge = dask.delayed(_judge, pure=False)
    parts = zip(*images, blocks, centers, strict=True)
    tasks = [(k, judge(*part, sent)) for k, part in enumerate(parts)]
    totals = dict.fromkeys(_SUMS, np.zeros(len(shells)))
    most = np.full((2, len(shells)), -np.inf)
    with track(progress, len(tasks), "background") as advance:
        for _, (sums, largest) in run_regions(tasks, on_done=advance):
            totals = {name: totals[name] + sums[name] for name in _SUMS}
            most = np.maximum(most, largest)
    return totals, most


def _judge(
    original: NDArray[Any],
    densified: NDArray[Any],
    block: Block,
    centers: NDArray[np.float64] | None,
    how: _Original,
) -> tuple[dict[str, NDArray[np.float64]], NDArray[np.float64]]:
    shells, n = how.shells, len(how.shells)
    sums = dict.fromkeys(_SUMS, np.zeros(n))
    most = np.full((2, n), -np.inf)
    pointer = block.pointer.astype(np.int64)
    for k in range(block.counts.size):
        shell = shells.at(None if centers is None else centers[k]).reshape(-1)
        recorded = original[k].reshape(-1).astype(np.float64)
        free = (shell >= 0) & how.judge.counts_among(original[k]).reshape(-1)
        if how.dark is not None:
            recorded -= how.dark
        free[block.columns["index"][pointer[k] : pointer[k + 1]]] = False
        where = shell[free]
        sums["n"] = sums["n"] + np.bincount(where, minlength=n)
        for place, (name, image) in enumerate((("original", recorded), ("densified", densified[k].reshape(-1)))):
            pixels = image[free].astype(np.float64)
            sums[name] = sums[name] + np.bincount(where, pixels, n)
            sums[f"{name}_squares"] = sums[f"{name}_squares"] + np.bincount(where, pixels**2, n)
            np.maximum.at(most[place], where, pixels)
    return sums, most
