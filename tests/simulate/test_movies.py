"""Movies and sessions: the same pixels for any chunking and selection, and the truth that belongs to them."""

from __future__ import annotations

import math
import pickle
from typing import Any

import dask
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

import mrczdask as md
from mrczdask.simulate import Defects, Gain, Pattern, Readout, Specimen

SHAPE = (6, 40, 52)
EVERYTHING: dict[str, Any] = {
    "dose": [2.0, 1.5, 3.0, 90.0],
    "dose_rate": [4.0, 1.0, 2.0, 8.0],
    "gain": Gain(smooth_sd=0.03, column_sd=0.03, row_sd=0.02, pixel_sd=0.02),
    "gamma": lambda rate: 1 - 0.02 * rate,
    "pattern": Pattern(level=0.1, column_sd=0.1, row_sd=0.1, pixel_sd=0.1, stable=0.3, lifetime=50.0),
    "defects": Defects(
        hot_fraction=0.02,
        hot_births=0.01,
        hot_lifetime=3,
        hot_clusters=0.3,
        dead_fraction=0.01,
        dead_columns=1,
        dead_rows=2,
    ),
    "specimen": Specimen(ice_sd=0.05, particles=5, particle_diameter=12, particle_contrast=0.3, carbon=0.5),
    "drift": 0.7,
    "coincidence_time": 0.02,
    "seed": 5,
}
INTEGRATING = EVERYTHING | {"readout": Readout(counts_per_electron=20, offset=50, read_noise=0.4), "dtype": "uint16"}
KINDS = {"counting": EVERYTHING, "integrating": INTEGRATING, "vacuum": {"dose": 2.0, "defects": EVERYTHING["defects"]}}


@pytest.fixture(scope="module")
def whole() -> dict[str, tuple[NDArray[Any], NDArray[Any]]]:
    """Pixels and expected values of each kind of session, computed in one block."""
    found = {}
    for kind, options in KINDS.items():
        session, truth = md.simulate.session(4, SHAPE, chunks=(4, *SHAPE), **options)
        found[kind] = session.images.values, truth.expected.values
    return found


def sizes(n: int) -> st.SearchStrategy[int]:
    return st.integers(1, n)


@pytest.mark.parametrize("kind", KINDS)
@given(chunks=st.tuples(sizes(4), sizes(6), sizes(40), sizes(52)))
@settings(deadline=None, max_examples=12)
def test_no_chunking_changes_a_pixel(whole: Any, kind: str, chunks: tuple[int, ...]) -> None:
    chunks = tuple(max(chunk, n // 4) for chunk, n in zip(chunks, (4, *SHAPE), strict=True))
    session, truth = md.simulate.session(4, SHAPE, chunks=chunks, **KINDS[kind])
    pixels, expected = dask.compute(session.images.data, truth.expected.data)
    assert np.array_equal(pixels, whole[kind][0])
    assert np.array_equal(expected, whole[kind][1])


def index_of(n: int) -> st.SearchStrategy[Any]:
    number = st.integers(-n, n - 1)
    some = st.lists(st.integers(0, n - 1), min_size=1, max_size=4)
    return st.one_of(number, st.slices(n), some)


@pytest.mark.parametrize("kind", KINDS)
@given(movie=index_of(4), frame=index_of(6), y=index_of(40), x=index_of(52))
@settings(deadline=None, max_examples=25)
def test_no_selection_changes_a_pixel(whole: Any, kind: str, movie: Any, frame: Any, y: Any, x: Any) -> None:
    session, truth = md.simulate.session(4, SHAPE, **KINDS[kind])
    chosen = {"movie": movie, "frame": frame, "y": y, "x": x}
    pixels, expected = dask.compute(session.images.isel(chosen), truth.expected.isel(chosen))
    for got, all_of_it in zip((pixels, expected), whole[kind], strict=True):
        labelled = session.images.copy(data=all_of_it)
        assert np.array_equal(got, labelled.isel(chosen))


def test_new_axes_and_masks_select_too(whole: Any) -> None:
    images = md.simulate.session(4, SHAPE, **EVERYTHING).session.images
    assert np.array_equal(images.data[1, None, 2:4, ::-3].compute(), whole["counting"][0][1, None, 2:4, ::-3])
    odd = np.arange(40) % 2 == 1
    assert np.array_equal(images.data[:, :, odd].compute(), whole["counting"][0][:, :, odd])


def test_a_movie_is_the_first_of_a_session_with_its_name() -> None:
    session, truths = md.simulate.session(["late_7", "other"], SHAPE, dose=2.0, specimen=Specimen(ice_sd=0.1))
    movie, truth = md.simulate.movie(SHAPE, name="late_7", dose=2.0, specimen=Specimen(ice_sd=0.1))
    assert np.array_equal(movie, session.images[0])
    assert truth.specimen.dims == ("y", "x")
    assert np.array_equal(truth.specimen, truths.specimen[0])
    assert movie.movie.item() == "late_7"
    assert not np.array_equal(session.images[0], session.images[1])


def test_the_first_movies_do_not_depend_on_how_many_follow() -> None:
    options = {name: value for name, value in EVERYTHING.items() if name not in ("dose", "dose_rate")}
    few, many = (md.simulate.session(n, SHAPE, **options).session.images for n in (2, 5))
    assert np.array_equal(few, many[:2])


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_computed_when_the_graph_is_built(kind: str, no_compute: None) -> None:
    session, truth = md.simulate.session(4, (40, 4096, 4096), **KINDS[kind])
    assert session.images.nbytes > 1e9
    for array in (session.images, truth.clean, truth.gain, truth.mask):
        with pytest.raises(AssertionError, match="computed"):
            array.compute()


def test_one_task_a_chunk_and_a_graph_without_pixels() -> None:
    options = EVERYTHING | {"dose": 2.0, "dose_rate": 4.0}
    session, truth = md.simulate.session(2000, (40, 4096, 4096), **options)
    assert len(pickle.dumps(session.images.data)) < 300_000  # names and numbers of 2000 movies, once, for 80 000 chunks
    assert len(pickle.dumps(truth.gain.data)) < 300_000
    few = md.simulate.session(10, (40, 512, 512), chunks={"frame": 5}, **options).session.images
    (optimised,) = dask.optimize(few.data)
    assert len(optimised.dask) <= 80 + 1


def test_the_data_model() -> None:
    session, truth = md.simulate.session(
        3, (4, 16, 16), dose=[2.0, 2.0, 1.0], dose_rate=[4.0, 8.0, 1.0], pixel_size_angstrom=2.0, voltage_kv=200
    )
    images = session.images
    assert images.dims == ("movie", "frame", "y", "x")
    assert images.attrs["pixel_size_angstrom"] == 2.0
    assert images.attrs["voltage_kv"] == 200.0
    assert images.attrs["counts_per_electron"] == 1.0
    assert images.attrs["origin"] == "lower"
    assert "simulate" in images.attrs["history"]
    assert session.movie.values.tolist() == ["movie_0000", "movie_0001", "movie_0002"]
    assert session.n_frames.values.tolist() == [4, 4, 4]
    assert session.dose_rate.values.tolist() == [4.0, 8.0, 1.0]
    assert session.dose_rate.attrs["units"] == "e/pixel/s"
    assert session.dose.dims == session.time.dims == ("movie", "frame")
    assert session.dose.sel(movie="movie_0002").values.tolist() == [0.25, 0.5, 0.75, 1.0]  # e/angstrom^2 at the end
    assert session.time.isel(movie=1).values.tolist() == [0.0, 0.25, 0.5, 0.75]  # s at the begin
    gaps = np.diff(session.acquired.values) / np.timedelta64(1, "s")
    assert gaps.tolist() == [2 + 30, 1 + 30]
    assert truth.mask.dtype == bool
    assert truth.gamma.dims == truth.carbon.dims == ("movie",)
    movie, _ = md.simulate.movie((4, 16, 16), dose=2.0)
    assert movie.dose.dims == movie.time.dims == ("frame",)
    assert movie.acquired.dims == movie.dose_rate.dims == ()


def test_vacuum_is_the_flat_simulation_with_the_same_seed() -> None:
    movie, _ = md.simulate.movie((4, 64, 64), dose=2.0, seed=9)
    assert np.array_equal(movie, md.simulate.poisson((4, 64, 64), 2.0, seed=9))


@pytest.mark.parametrize("kind", ["counting", "integrating"])
def test_raw_pixels_have_the_expected_mean_and_variance(kind: str) -> None:
    """200 frames of a resting specimen: chi-square of the time means and variances of all pixels."""
    n = 200
    options = KINDS[kind] | {"drift": 0.0, "dose": 3.0, "dose_rate": 4.0, "dtype": "float32"}
    movie, truth = md.simulate.movie((n, 48, 48), **options)
    movie, expected, response = dask.compute(movie, truth.expected[0], truth.response**truth.gamma)
    variance = expected
    if kind == "integrating":
        electrons = (expected - 50) / 20 - truth.pattern.compute()
        variance = 400 * (electrons * response + 0.4**2)
    keep = (truth.defect_kind != 2).compute()
    z = ((movie.mean("frame") - expected) / np.sqrt(variance / n)).values[keep]
    assert abs((z**2).mean() - 1) < 5 * (2 / z.size) ** 0.5
    assert abs(z.mean()) < 5 / z.size**0.5
    ratio = (movie.var("frame", ddof=1) / variance).values[keep]
    assert abs(ratio.mean() - 1) < 5 * (2.5 / n / ratio.size) ** 0.5


def test_gain_and_gamma_correct_what_the_detector_did() -> None:
    gain = Gain(smooth_sd=0.05, column_sd=0.05, row_sd=0.05, pixel_sd=0.05)
    session, truth = md.simulate.session(
        2,
        (30, 64, 64),
        dose=200.0,
        dtype="uint16",
        gain=gain,
        dose_rate=[1.0, 7.0],
        gamma=lambda rate: 1.1 - 0.05 * rate,
    )
    assert truth.gamma.values.tolist() == pytest.approx([1.05, 0.75])
    assert truth.gain.attrs["convention"] == "multiply"
    assert truth.response.attrs["convention"] == "divide"
    assert np.allclose(truth.gain * truth.response, 1, atol=1e-6)
    total = session.images.sum("frame")
    corrected = (total * truth.gain**truth.gamma).compute()
    noise = 200 * 30 * (truth.gain**truth.gamma).mean(("y", "x"))
    for movie in range(2):
        assert abs(corrected[movie].std() / noise[movie] ** 0.5 - 1) < 0.05
        assert total[movie].std() > 5 * corrected[movie].std()


def test_coincidence_loss_follows_its_formula() -> None:
    rates = np.array([0.5, 5.0, 20.0])
    session, truth = md.simulate.session(3, (4, 512, 512), dose=2.0, dose_rate=rates, coincidence_time=0.0225)
    met = 0.0225 * rates
    expected = 2.0 * (1 - np.exp(-met)) / met
    assert np.allclose(truth.expected.isel(frame=0, y=0, x=0), expected, rtol=1e-5)
    assert np.allclose(session.images.mean(("frame", "y", "x")), expected, atol=5 * (2 / 2**20) ** 0.5)


@pytest.mark.parametrize("kind", KINDS)
def test_clean_is_the_same_movie_without_defects(kind: str) -> None:
    session, truth = md.simulate.session(4, (8, 100, 100), **KINDS[kind] | {"drift": 0.0})
    images, clean, mask, excess, kind_of = dask.compute(
        session.images, truth.clean, truth.mask, truth.hot_excess, truth.defect_kind
    )
    assert np.array_equal(mask, (excess > 0) | (kind_of == 2))
    assert np.array_equal(kind_of == 1, excess > 0)
    same = (images == clean).all("frame")
    assert same.where(~mask, True).all()
    assert same.where(mask, False).mean() < 0.2 * mask.mean()
    if kind == "counting" or kind == "vacuum":
        hot = (images.astype(int) - clean).where(kind_of == 1)
        assert hot.min() >= 0
        assert abs(hot.mean() / excess.where(kind_of == 1).mean() - 1) < 0.1
        assert images.where(kind_of == 2).max() == 0


def test_detector_and_electrons_have_seeds_of_their_own() -> None:
    detector: dict[str, Any] = {
        "gain": EVERYTHING["gain"],
        "pattern": EVERYTHING["pattern"],
        "defects": EVERYTHING["defects"],
        "dose": 2.0,
    }
    first, other, third = (
        md.simulate.movie(SHAPE, seed=seed, detector_seed=detector_seed, **detector)
        for seed, detector_seed in ((1, 7), (2, 7), (2, 8))
    )
    for name in ("gain", "pattern", "mask"):
        assert np.array_equal(first.truth[name], other.truth[name])
        assert not np.array_equal(third.truth[name], other.truth[name])
    assert not np.array_equal(first.movie, other.movie)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "float32"])
def test_dtypes_hold_the_same_counts_clipped(dtype: str) -> None:
    options: dict[str, Any] = {"dose": 100.0, "defects": Defects(hot_fraction=0.1, hot_excess=(60.0, 200.0))}
    wide = md.simulate.movie((2, 64, 64), dtype="float32", **options).movie.values
    got = md.simulate.movie((2, 64, 64), dtype=dtype, **options).movie.values
    limit = np.iinfo(dtype).max if dtype != "float32" else np.inf
    assert wide.max() > 255
    assert got.dtype == dtype
    assert np.array_equal(got, np.minimum(wide, limit))


def test_integrating_detectors_round_and_clip_both_ends() -> None:
    noisy = Readout(counts_per_electron=100, offset=0, read_noise=1.0)
    wide, got = (
        md.simulate.movie((2, 128, 128), dose=1.0, readout=noisy, dtype=dtype).movie.values
        for dtype in ("float32", "uint8")
    )
    assert wide.min() < -100
    assert wide.max() > 300
    assert np.array_equal(got, np.clip(np.rint(wide), 0, 255))


def test_drift_moves_the_specimen_by_the_truth() -> None:
    """The centre of mass of one particle gives the shift back."""
    ice = Specimen(particles=1, particle_diameter=20, particle_contrast=0.9)
    at = np.array([[0.0, 0.0], [0.25, -0.5], [3.5, 2.125], [-1.0, 4.75]])
    _, truth = md.simulate.movie((4, 128, 128), dose=5.0, specimen=ice, drift=at, seed=11)
    assert truth.drift_y.values.tolist() == at[:, 0].tolist()
    assert truth.drift_x.values.tolist() == at[:, 1].tolist()
    dark = 5 - truth.expected.values.astype(float)
    y, x = np.mgrid[0:128, 0:128]
    centre = np.array([[(part * axis).sum() / part.sum() for axis in (y, x)] for part in dark])
    assert np.allclose(centre - centre[0], at, atol=2e-3)


def test_random_walks_have_the_step_asked_for() -> None:
    _, truth = md.simulate.session(200, (21, 8, 8), drift=0.3)
    walk = np.stack([truth.drift_y, truth.drift_x])
    steps = np.diff(walk, axis=2)
    assert not walk[:, :, 0].any()
    assert stats.kstest(steps.ravel() / 0.3, "norm").pvalue > 1e-4


def test_provenance_says_how_it_was_made() -> None:
    movie, _ = md.simulate.movie((2, 8, 8), dose=2.0, gain=Gain(column_sd=0.03), seed=4)
    assert "Gain(smooth_sd=0.0, column_sd=0.03" in movie.attrs["provenance"]
    assert '"seed": 4' in movie.attrs["provenance"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"movies": 0}, "movies=0: give their number, 1 or more"),
        ({"movies": ["a", "a"]}, "each once"),
        ({"shape": (8, 8)}, r"give \(frame, y, x\)"),
        ({"dose": -1.0}, "dose=-1.0: give a number from 0 to inf"),
        ({"dose": [1.0, 2.0]}, "dose has the shape .2,.: give one number, or one for each of 3 movies"),
        ({"dose_rate": 0.0}, "dose_rate=0.0"),
        ({"gamma": math.nan}, "gamma=nan"),
        ({"dose": 300.0}, "dose=300 is above 255"),
        ({"dose": 30.0, "readout": Readout(counts_per_electron=10)}, "dose=300 is above 255"),
        ({"drift": -1.0}, "drift=-1.0"),
        ({"drift": np.zeros((3, 2))}, r"drift has the shape \(3, 2\): give a number, or finite positions \(2, 2\)"),
        ({"drift": np.full((2, 2), np.nan)}, "finite positions"),
        ({"coincidence_time": -1.0}, "coincidence_time=-1.0"),
        ({"pixel_size_angstrom": 0.0}, "pixel_size_angstrom=0.0"),
        ({"dtype": "int64"}, "dtype=int64"),
        ({"chunks": {"z": 3}}, r"chunks name \['z'\]"),
    ],
)
def test_what_cannot_be_simulated(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        md.simulate.session(**({"movies": 3, "shape": (2, 8, 8)} | options))


def test_wrong_kinds_of_arguments() -> None:
    with pytest.raises(TypeError, match=r"gain=0.03: give a simulate.Gain\(...\) or None"):
        md.simulate.session(3, (2, 8, 8), gain=0.03)
    with pytest.raises(TypeError, match="no option gian"):
        md.simulate.movie((2, 8, 8), gian=None)
    with pytest.raises(TypeError, match="integer"):
        md.simulate.movie((2, 8, 8), seed="x")
