"""Hot pixels that last, come and go; clusters; dead pixels and lines."""

from __future__ import annotations

import math

import numpy as np
import pytest
import xarray as xr
from scipy import ndimage, stats

import mrczdask as md
from mrczdask.simulate import Defects

SIDE = 512
PIXELS = SIDE * SIDE


def truth_of(defects: Defects, movies: int = 3, seed: int = 2) -> xr.Dataset:
    truth = md.simulate.session(movies, (2, SIDE, SIDE), defects=defects, seed=seed).truth
    return truth[["hot_excess", "mask", "defect_kind"]].compute()


def test_lasting_hot_pixels_stay_with_their_strength() -> None:
    excess = truth_of(Defects(hot_fraction=0.005, hot_excess=(2.0, 20.0))).hot_excess
    assert np.array_equal(excess[0], excess[2])
    strengths = excess.values[0][excess.values[0] > 0]
    assert abs(len(strengths) / PIXELS - 0.005) < 1e-4
    assert stats.kstest(np.log(strengths / 2) / math.log(10), "uniform").pvalue > 1e-3


def test_passing_hot_pixels_are_stationary_with_the_asked_lifetime() -> None:
    defects = Defects(hot_births=0.001, hot_lifetime=5)
    hot = truth_of(defects, movies=30).hot_excess > 0
    shares = hot.mean(("y", "x"))
    assert abs(shares - 0.005).max() < 0.0005
    kept = (hot[1:].values & hot[:-1].values).sum((1, 2)) / hot[:-1].values.sum((1, 2))
    assert abs(kept.mean() - 0.8) < 0.01
    born = (hot[1:].values & ~hot[:-1].values).sum((1, 2))
    assert abs(born.mean() / PIXELS - 0.001) < 5e-5


def test_without_deaths_the_number_grows_from_the_first_movie() -> None:
    hot = truth_of(Defects(hot_births=0.001, hot_lifetime=math.inf), movies=20).hot_excess > 0
    share = hot.mean(("y", "x")).values
    assert np.allclose(share, 0.001 * np.arange(1, 21), rtol=0.03)
    assert not (hot[:-1].values & ~hot[1:].values).any()


def test_the_kept_history_misses_almost_none() -> None:
    """A lifetime of 50 movies: the stationary number is reached in the first movie already."""
    hot = truth_of(Defects(hot_births=0.0001, hot_lifetime=50), movies=2).hot_excess > 0
    assert abs(hot.mean() - 0.005) < 5 * (0.005 / PIXELS) ** 0.5


def test_clusters() -> None:
    single, clustered = (
        truth_of(Defects(hot_fraction=0.005, hot_clusters=share)).hot_excess[0].values > 0 for share in (0.0, 1.0)
    )
    assert abs(clustered.mean() - 0.005) < 0.0005
    sizes = []
    for hot in (single, clustered):
        labels, count = ndimage.label(hot, np.ones((3, 3)))
        sizes.append(np.bincount(labels.ravel())[1:].mean())
        assert count
    assert sizes[0] < 1.1
    assert 4.5 < sizes[1] < 6.5


def test_dead_pixels_and_lines_never_count() -> None:
    defects = Defects(hot_fraction=0.01, dead_fraction=0.002, dead_columns=3, dead_rows=2)
    session, truth = md.simulate.session(2, (4, SIDE, SIDE), dose=3.0, defects=defects)
    dead = (truth.defect_kind == 2).isel(movie=0).values
    columns, rows = dead.all(0), dead.all(1)
    assert (columns.sum(), rows.sum()) == (3, 2)
    assert abs(dead[~rows][:, ~columns].mean() - 0.002) < 0.0003
    assert not session.images.values[:, :, dead].any()
    assert (session.images.sum(("movie", "frame")).values[~dead] > 0).mean() > 0.999
    assert not truth.hot_excess.values[:, dead].any()


def test_hot_counts_have_the_strength_of_the_truth() -> None:
    defects = Defects(hot_fraction=0.05, hot_excess=(0.5, 90.0))
    movie, truth = md.simulate.movie((100, 128, 128), dose=2.0, defects=defects)
    hot, excess = dask_pair(movie.astype("f8").mean("frame") - 2.0, truth.hot_excess)
    z = (hot - excess) / np.sqrt((2.0 + excess) / 100)
    assert abs((z**2).mean() - 1) < 5 * (2 / z.size) ** 0.5
    assert abs(z[excess > 0].mean()) < 5 / (excess > 0).sum() ** 0.5


def dask_pair(*arrays: xr.DataArray) -> tuple[np.ndarray, ...]:
    return tuple(array.values for array in arrays)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hot_fraction": 0.6}, "Defects: hot_fraction=0.6: give a number from 0 to 0.5"),
        ({"hot_births": -0.1}, "Defects: hot_births=-0.1"),
        ({"hot_lifetime": 0.5}, "Defects: hot_lifetime=0.5: give a number from 1"),
        ({"hot_births": 0.1, "hot_lifetime": 10.0}, r"hot_births \* hot_lifetime=1.0"),
        ({"hot_excess": (3.0, 2.0)}, "give the smaller limit first"),
        ({"hot_excess": (0.0, 2.0)}, r"hot_excess\[0\]=0.0"),
        ({"hot_clusters": 2.0}, "hot_clusters=2.0"),
        ({"dead_columns": 1.5}, "dead_columns=1.5: give a whole number"),
        ({"dead_rows": -1}, "dead_rows=-1"),
    ],
)
def test_ranges(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Defects(**options)  # type: ignore[arg-type]
