"""Two lists of peaks against each other: which have a partner, by shell of resolution."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from mrczdask.diffraction.identity import same_shots
from mrczdask.diffraction.peaks import radius_at
from mrczdask.io.geometry import SCALES, Geometry, Unit
from mrczdask.io.ragged import Ragged
from mrczdask.io.sparse_table import CENTER

_TOTAL_SHELLS = 10


def compare_peaks(
    peaks: Ragged | xr.Dataset,
    reference: Ragged | xr.Dataset,
    *,
    distance: float = 2.0,
    shells: int | ArrayLike = _TOTAL_SHELLS,
    geometry: Geometry | None = None,
    unit: Unit = "q_A^-1",
) -> xr.Dataset:
    """Match the peaks of two finders, or of a finder and a reference, shot by shot.

    Parameters
    ----------
    peaks, reference : Ragged or Dataset
        As `find_peaks` or `open_peaks` gives them, of as many shots with the same labels, in any order. The frames of a
        CrystFEL stream are matched by file and event, as in `veto`; shots that it does not list are left out.
    distance : float
        Farthest that partners may be apart, in pixels. Each peak has one partner at most: the nearest pairs first.
    shells : int or array of float
        Number of shells of equal width, or their edges, in the unit of `radius`.
    geometry : Geometry, optional
        Gives the radius of the peaks, where the lists do not have it: about the beam of each shot, where one of them
        has `beam_center_y`, `beam_center_x` (shot).
    unit : str
        Of that radius.

    Returns
    -------
    Dataset
        In memory. By `shell`: `n_peaks`, `n_reference`, `n_matched` int64, `confirmed` (share of the peaks that the
        reference has) and `recalled` (share of the reference that was found); `distance_rms` of the partners, in
        pixels; `shell_edges` (edge). Along `peak` and `reference_peak`, which of them is `matched`.

    Raises
    ------
    MrczdaskError
        The lists are of another number of shots or of other ones, a stream has a frame twice, or the geometry is not
        one whose beam moves, where it must.
    ValueError
        `distance` is not positive, or the edges of the shells do not rise.

    References
    ----------
    Kieffer et al., J. Appl. Cryst. 58 (2025), figure 11.

    Examples
    --------
    >>> import numpy as np
    >>> import mrczdask as md
    >>> frames = np.full((2, 64, 64), 3, np.uint16)
    >>> frames[1, 10:12, 12:14] = 900
    >>> peaks = md.find_peaks(frames, md.Geometry.flat((64, 64)), bins=16, unit="pixel")
    >>> md.compare_peaks(peaks, peaks, shells=1).confirmed.values.tolist()
    [1.0]
    """
    if not distance > 0:
        raise ValueError(f"distance={distance}: give more than 0 pixels")
    ours, other = (table.compute() if isinstance(table, Ragged) else table for table in (peaks, reference))
    shots, others = same_shots(ours, other)
    partner = np.full(ours.sizes["peak"], -1)
    apart = np.full(partner.size, np.nan)
    rows, rows_other = _rows(ours), _rows(other)
    for k, j in zip(shots, others, strict=True):
        a, b = rows[k], rows_other[j]
        pairs = _pairs(_places(ours, a), _places(other, b), distance)
        for d, one, two in pairs:
            partner[a.start + one], apart[a.start + one] = b.start + two, d
    matched, found = partner >= 0, np.zeros(other.sizes["peak"], bool)
    found[partner[matched]] = True
    centers = next((_centers(table) for table in (ours, other) if CENTER[0] in table.coords), None)
    radius, radius_other = (_radius(table, geometry, unit, centers) for table in (ours, other))
    edges = _edges(shells, np.concatenate([radius, radius_other]))
    shell, shell_other = (np.searchsorted(edges, r, side="right") - 1 for r in (radius, radius_other))
    inside = _within(shell, edges) & _in_shots(rows, shots)
    inside_other = _within(shell_other, edges) & _in_shots(rows_other, others)
    count = [
        np.bincount(s, minlength=edges.size - 1)
        for s in (shell[inside], shell_other[inside_other], shell[inside & matched], shell_other[inside_other & found])
    ]
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = count[2] / count[0], count[3] / count[1]
    return xr.Dataset(
        {
            "n_peaks": ("shell", count[0]),
            "n_reference": ("shell", count[1]),
            "n_matched": ("shell", count[2]),
            "confirmed": ("shell", shares[0]),
            "recalled": ("shell", shares[1]),
            "distance_rms": ((), float(np.sqrt(np.nanmean(apart**2))) if matched.any() else np.nan),
            "matched": ("peak", matched),
            "reference_matched": ("reference_peak", found),
        },
        {"shell": (edges[:-1] + edges[1:]) / 2, "shell_edges": ("edge", edges)},
    )


def _rows(table: xr.Dataset) -> list[slice]:
    pointer = table["peak_ptr"].values.astype(np.int64)
    return [slice(int(a), int(b)) for a, b in pairwise(pointer)]


def _in_shots(rows: list[slice], shots: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which peaks are of shots that are compared."""
    return np.repeat(np.isin(np.arange(len(rows)), shots), [one.stop - one.start for one in rows])


def _places(table: xr.Dataset, rows: slice) -> NDArray[np.float64]:
    return np.stack([table["y"].values[rows], table["x"].values[rows]], axis=1).astype(np.float64)


def _pairs(ours: NDArray[np.float64], other: NDArray[np.float64], distance: float) -> list[tuple[float, int, int]]:
    """(distance, ours, other) of partners, one each, the nearest pairs first."""
    if not len(ours) or not len(other):
        return []
    from scipy.spatial import cKDTree

    near = cKDTree(ours).sparse_distance_matrix(cKDTree(other), distance, output_type="ndarray")
    taken: tuple[set[int], set[int]] = set(), set()
    pairs = []
    for i, j, d in near[np.argsort(near["v"], kind="stable")].tolist():
        if i not in taken[0] and j not in taken[1]:
            taken[0].add(i)
            taken[1].add(j)
            pairs.append((d, i, j))
    return pairs


def _centers(table: xr.Dataset) -> NDArray[np.float64]:
    return np.stack([table[name].values for name in CENTER], axis=1)


def _radius(
    table: xr.Dataset, geometry: Geometry | None, unit: Unit, centers: NDArray[np.float64] | None
) -> NDArray[np.float64]:
    if geometry is None:
        return table["radius"].values.astype(np.float64)
    y, x = table["y"].values, table["x"].values
    if centers is not None:
        beam = np.repeat(centers, [rows.stop - rows.start for rows in _rows(table)], axis=0)
        return _moved_radius(geometry, unit, np.stack([y, x], axis=1) + 0.5 - beam)
    pixel_radius = geometry.radius(unit).astype(np.float32)
    nearest = np.rint(y).astype(np.int64) * geometry.shape[1] + np.rint(x).astype(np.int64)
    return radius_at(pixel_radius, y, x, nearest).astype(np.float64)


def _moved_radius(geometry: Geometry, unit: Unit, away: NDArray[np.float64]) -> NDArray[np.float64]:
    """Radii of places so many pixels (n, 2) away from the beam, on a flat detector across it."""
    flat = geometry.moved(geometry.beam_center)
    sizes = (1.0, 1.0) if unit == "pixel" else flat.pixel_size_m
    return SCALES.get(unit, 1.0) * flat.flat_radius(np.hypot(*(away * sizes).T), np.zeros(1), unit)[:, 0]


def _edges(shells: int | ArrayLike, radii: NDArray[np.float64]) -> NDArray[np.float64]:
    if isinstance(shells, int | np.integer):
        known = radii[np.isfinite(radii)]
        low, high = (known.min(), known.max()) if known.size else (0.0, 1.0)
        return np.linspace(low, np.nextafter(max(high, low + 1e-9), np.inf), int(shells) + 1)
    edges = np.asarray(shells, np.float64)
    if edges.ndim != 1 or edges.size < 2 or not (np.diff(edges) > 0).all():
        raise ValueError("shells: give a number of them, or edges that rise")
    return edges


def _within(shell: NDArray[Any], edges: NDArray[np.float64]) -> NDArray[np.bool_]:
    return (shell >= 0) & (shell < edges.size - 1)
