"""Poisson frames without a detector."""

from __future__ import annotations

import pickle

import dask
import numpy as np
import pytest
from scipy import stats

import mrczdask as md


def test_a_movie_is_in_the_data_model_and_poisson() -> None:
    movie = md.simulate.poisson((10, 256, 512), mean=2.0, seed=1)
    assert movie.name == "images"
    assert movie.dims == ("frame", "y", "x")
    assert movie.dtype == np.uint8
    assert movie.frame.values.tolist() == list(range(10))
    assert movie.movie.item() == "movie_0000"
    assert movie.attrs == {"counts_per_electron": 1.0, "origin": "lower"}
    observed = np.bincount(movie.values.ravel(), minlength=12)
    expected = stats.poisson.pmf(np.arange(len(observed)), 2.0) * movie.size
    keep = expected > 10
    assert stats.chisquare(observed[keep], expected[keep] * observed[keep].sum() / expected[keep].sum()).pvalue > 1e-4


def test_a_session_is_its_movies() -> None:
    session = md.simulate.poisson((3, 4, 32, 40), mean=1.5, dtype="int16", seed=2)
    assert session.dims == ("movie", "frame", "y", "x")
    assert session.movie.values.tolist() == ["movie_0000", "movie_0001", "movie_0002"]
    assert np.array_equal(session[0], md.simulate.poisson((4, 32, 40), mean=1.5, dtype="int16", seed=2))
    for a, b in ((0, 1), (1, 2)):
        assert abs(np.corrcoef(session.values[a].ravel(), session.values[b].ravel())[0, 1]) < 5 / 5120**0.5


def test_seeds_are_independent_and_larger_movies_hold_the_smaller() -> None:
    small, large = (md.simulate.poisson(shape, 1.0, seed=3).values for shape in ((2, 50, 60), (5, 80, 99)))
    assert np.array_equal(small, large[:2, :50, :60])
    other = md.simulate.poisson((2, 50, 60), 1.0, seed=4).values
    assert abs(np.corrcoef(small.ravel(), other.ravel())[0, 1]) < 5 / 6000**0.5


def test_nothing_is_computed_when_the_graph_is_built(no_compute: None) -> None:
    movie = md.simulate.poisson((60, 3838, 3710), mean=1.0)
    with pytest.raises(AssertionError, match="computed"):
        movie.compute()


def test_one_task_a_chunk_and_a_graph_without_pixels() -> None:
    session = md.simulate.poisson((100, 40, 512, 512), mean=1.0, chunks={"frame": 10})
    assert len(pickle.dumps(session.data)) < 5000
    (optimised,) = dask.optimize(session.data)
    assert len(optimised.dask) <= 400 + 1
    assert session.data.chunks == ((1,) * 100, (10,) * 4, (512,), (512,))


def test_equal_movies_have_equal_names_and_others_not() -> None:
    one, same = (md.simulate.poisson((2, 8, 8), 1.0, seed=1).data.name for _ in range(2))
    assert one == same
    for other in ({"mean": 2.0}, {"mean": 1.0, "seed": 2}, {"mean": 1.0, "seed": 1, "dtype": "int8"}):
        assert md.simulate.poisson((2, 8, 8), **other).data.name != one


def test_auto_chunks_hold_whole_frames_up_to_128_mb() -> None:
    assert md.simulate.poisson((60, 3838, 3710), 1.0).data.chunksize == (2, 3838, 3710)
    assert md.simulate.poisson((3, 8192, 8192), 1.0).data.chunksize == (1, 8192, 8192)
    assert md.simulate.poisson((2, 20, 256, 256), 1.0).data.chunksize == (1, 20, 256, 256)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shape": (8, 8), "mean": 1.0}, r"shape=\(8, 8\): give \(frame, y, x\) or \(movie, frame, y, x\)"),
        ({"shape": (0, 8, 8), "mean": 1.0}, "all at least 1"),
        ({"shape": (2, 8, 8), "mean": -1.0}, "mean=-1.0: give electrons per pixel and frame"),
        ({"shape": (2, 8, 8), "mean": np.nan}, "mean=nan"),
        ({"shape": (2, 8, 8), "mean": 300.0}, "mean=300 is above 255, all that uint8 holds"),
        ({"shape": (2, 8, 8), "mean": 1.0, "dtype": "float64"}, "dtype=float64: a simulated movie is one of uint8"),
        ({"shape": (2, 8, 8), "mean": 1.0, "chunks": {"z": 1}}, r"chunks name \['z'\]"),
        ({"shape": (2, 8, 8), "mean": 1.0, "chunks": (1, 8)}, "give 3, one for each of"),
        ({"shape": (2, 8, 8), "mean": 1.0, "chunks": "small"}, 'give "auto"'),
    ],
)
def test_what_cannot_be_simulated(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        md.simulate.poisson(**arguments)


def test_a_seed_is_an_integer() -> None:
    with pytest.raises(TypeError, match="integer"):
        md.simulate.poisson((2, 8, 8), 1.0, seed=1.5)
