"""KOMA against its law for white noise, slices written out, and itself as a stream."""

from __future__ import annotations

from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import mrczdask as md
from mrczdask.errors import MrczdaskWarning

FRAMES, MOVIES = 10, 25
PATTERN = md.simulate.Pattern(pixel_sd=0.3)
SIZE = (FRAMES, 224, 224)
STATIC = md.simulate.session(MOVIES, SIZE, dose=2, pattern=PATTERN)[0].compute()
NOISE = md.simulate.session(MOVIES, SIZE, dose=2)[0].compute()
SUMS = {"static": md.sum_frames(STATIC), "noise": md.sum_frames(NOISE)}


def correlation(session: xr.Dataset) -> float:
    return float(md.frame_correlation(session).mean())


@pytest.mark.parametrize("radius", [2, 4])
def test_plain_koma_follows_its_law(radius: int) -> None:
    left = md.koma(STATIC, sums=SUMS["static"], radius=radius, method="plain")
    assert correlation(left) == pytest.approx(1 / (2 * radius * FRAMES + 1), rel=0.1)
    white = md.koma(NOISE, sums=SUMS["noise"], radius=radius, method="plain").images.sum("frame")
    gained = float((white.var(("y", "x")) / SUMS["noise"].var(("y", "x"))).mean())
    assert gained == pytest.approx(1 + 1 / (2 * radius), rel=0.02)


@pytest.mark.parametrize("radius", [2, 4, 12])
def test_wiener_koma_never_makes_worse(radius: int) -> None:
    for name, session in (("noise", NOISE), ("static", STATIC)):
        left = correlation(md.koma(session, sums=SUMS[name], radius=radius))
        assert left <= correlation(session) + 2e-4
    assert left <= 1.1 / (2 * radius * FRAMES + 1)


def test_written_out() -> None:
    radius = 2
    sums = SUMS["static"].values
    corrected = md.koma(STATIC.isel(frame=slice(3)), sums=SUMS["static"], radius=radius, method="plain")
    for movie, members in ((0, [1, 2, 3, 4]), (1, [0, 2, 3, 4]), (7, [5, 6, 8, 9]), (24, [20, 21, 22, 23])):
        reference = sums[members].sum(axis=0) / (4 * FRAMES)
        expected = STATIC.images.values[movie, :3] - (reference - reference.mean())
        np.testing.assert_allclose(corrected.images[movie], expected, atol=2e-6)


def test_stored_parts(tmp_path: Path) -> None:
    """Sums, outliers and contrast from an archive, whose names have another dtype: the same numbers, no warning."""
    sums = md.write_archive(md.sum_frames(SMALL), tmp_path / "run.zarr", group="derived/sums")
    outliers = md.write_archive(md.find_outliers(sums), tmp_path / "run.zarr", group="derived/outliers")
    high = md.find_high_contrast(sums).high_contrast
    filled = md.fill_outliers(SMALL, outliers)
    corrected = md.koma(filled, sums=md.fill_outliers(sums, outliers), radius=2, exclude=high)
    found = md.find_outliers(SMALL_SUMS)
    totals = md.fill_outliers(SMALL_SUMS, found)
    expected = md.koma(md.fill_outliers(SMALL, found), sums=totals, radius=2, exclude=high)
    np.testing.assert_array_equal(corrected.images, expected.images)


def test_fewer_movies_than_the_window() -> None:
    few = STATIC.isel(movie=slice(3))
    corrected = md.koma(few, sums=SUMS["static"].isel(movie=slice(3)), radius=12, method="plain")
    reference = SUMS["static"].values[[0, 2]].sum(axis=0) / (2 * FRAMES)
    expected = few.images.values[1] - (reference - reference.mean())
    np.testing.assert_allclose(corrected.images[1], expected, atol=2e-6)


SMALL = md.simulate.session(7, (3, 24, 20), dose=2, pattern=PATTERN)[0]
SMALL_SUMS = md.sum_frames(SMALL).compute()


@settings(max_examples=12, deadline=None)
@given(
    st.tuples(st.integers(1, 7), st.integers(1, 3), st.integers(6, 24), st.integers(5, 20)),
    st.booleans(),
    st.sampled_from(["plain", "wiener"]),
)
def test_chunks_change_nothing(chunks: tuple[int, ...], floats: bool, method: str) -> None:
    sums = SMALL_SUMS * 1.1 if floats else SMALL_SUMS
    sums = sums.assign_attrs(SMALL_SUMS.attrs)
    whole = md.koma(SMALL.compute(), sums=sums, radius=2, method=method)
    lazy_sums = sums.copy(data=da.from_array(sums.values, (chunks[0], *chunks[2:])))
    pieces = SMALL.chunk(dict(zip(("movie", "frame", "y", "x"), chunks, strict=True)))
    np.testing.assert_array_equal(md.koma(pieces, sums=lazy_sums, radius=2, method=method).images, whole.images)


@pytest.mark.parametrize("method", ["plain", "wiener"])
@pytest.mark.parametrize("excluded", [[], ["movie_0000", "movie_0004"]])
def test_the_stream_gives_the_same(method: str, excluded: list[str]) -> None:
    whole = md.koma(SMALL, sums=SMALL_SUMS, radius=2, method=method, exclude=excluded).images.compute()
    stream = md.KomaStream(2, method)
    done: list[xr.DataArray] = []
    for name in SMALL.movie.values:
        done += stream.add(SMALL.images.sel(movie=name), exclude=str(name) in excluded)
    assert len(stream._sums) <= 6
    done += stream.finish()
    assert [str(movie.movie.values) for movie in done] == SMALL.movie.values.tolist()
    for k, movie in enumerate(done):
        assert isinstance(movie.data, da.Array)
        np.testing.assert_array_equal(movie, whole[k])


def spoiled(masks: np.ndarray) -> xr.DataArray:
    """Movies whose bad pixels hold what would change every mean and variance."""
    images = SMALL.images.astype(np.int64)
    hot = xr.DataArray(masks, dims=("movie", "y", "x")[-masks.ndim :])
    return images.where(~hot, 50 * images + 400).chunk({"movie": 1, "frame": 2}).assign_attrs(SMALL.images.attrs)


def streamed(stream: md.KomaStream, movies: xr.DataArray, sums: xr.DataArray | None = None) -> np.ndarray:
    done: list[xr.DataArray] = []
    for k in range(movies.sizes["movie"]):
        total = None if sums is None else sums.isel(movie=k)
        done += stream.add(movies.isel(movie=k), total=total, exclude=k == 4)
    return np.stack([np.asarray(movie) for movie in (*done, *stream.finish())])


@pytest.mark.parametrize("method", ["plain", "wiener"])
def test_the_stream_heeds_masks_as_koma_does(method: str) -> None:
    masks = np.random.default_rng(5).random((7, 24, 20)) < 0.1
    for mask, dims in ((masks, ("movie", "y", "x")), (masks[2].T, ("x", "y"))):
        bare = spoiled(mask if mask.ndim == 3 else mask.T)
        movies = bare.assign_coords(mask=(dims, mask))
        sums = md.sum_frames(movies).compute()
        wanted = md.koma(movies, sums=sums, radius=2, method=method, exclude=["movie_0004"]).values
        blind = md.koma(bare, sums=sums.drop_vars("mask"), radius=2, method=method, exclude=["movie_0004"]).values
        assert np.abs(wanted - blind).max() > 1
        numbers = sums.assign_coords(mask=sums.mask.astype(np.uint8))
        np.testing.assert_array_equal(
            md.koma(bare, sums=numbers, radius=2, method=method, exclude=["movie_0004"]).values, wanted
        )
        pieces = bare.assign_coords(mask=(dims, da.from_array(mask, chunks=(3, 10, 7)[-mask.ndim :])))
        np.testing.assert_array_equal(streamed(md.KomaStream(2, method), movies), wanted)
        np.testing.assert_array_equal(streamed(md.KomaStream(2, method), pieces), wanted)
        np.testing.assert_array_equal(streamed(md.KomaStream(2, method), movies.drop_vars("mask"), sums), wanted)
        np.testing.assert_array_equal(streamed(md.KomaStream(2, method), pieces, sums.drop_vars("mask")), wanted)
    for known in (masks[2], da.from_array(masks[2], chunks=(10, 7)), xr.DataArray(masks[2].T, dims=("x", "y"))):
        np.testing.assert_array_equal(streamed(md.KomaStream(2, method, mask=known), bare), wanted)
    both = bare.assign_coords(mask=(("movie", "y", "x"), masks & ~masks[2]))
    np.testing.assert_array_equal(
        streamed(md.KomaStream(2, method, mask=masks[2]), both),
        streamed(md.KomaStream(2, method), bare.assign_coords(mask=(("movie", "y", "x"), masks | masks[2]))),
    )


def test_the_mask_of_another_sum_is_the_one_that_counts() -> None:
    """As in `koma`, which knows the sums' mask only."""
    masks = np.random.default_rng(6).random((2, 24, 20)) < 0.1
    bare = spoiled(masks[1])
    sums = md.sum_frames(bare).compute().assign_coords(mask=(("y", "x"), masks[1]))
    found = streamed(md.KomaStream(2), bare.assign_coords(mask=(("y", "x"), masks[0])), sums)
    np.testing.assert_array_equal(found, md.koma(bare, sums=sums, radius=2, exclude=["movie_0004"]))
    by_frame = bare.assign_coords(mask=(("frame", "y", "x"), np.stack([masks[0]] * 3)))
    found = streamed(md.KomaStream(2), by_frame)
    sums = md.sum_frames(by_frame).compute()
    np.testing.assert_array_equal(found, md.koma(by_frame, sums=sums, radius=2, exclude=["movie_0004"]))


def test_masks_and_sums_of_another_size_are_refused() -> None:
    movie = SMALL.images.isel(movie=0)
    with pytest.raises(ValueError, match="the mask is 10 x 24, the images are 24 x 20"):
        md.KomaStream(2, mask=np.zeros((10, 24), bool)).add(movie)
    with pytest.raises(ValueError, match=r"the mask has the dims .*give \(y, x\)"):
        md.KomaStream(2, mask=np.zeros((7, 24, 20), bool))
    with pytest.raises(ValueError, match="the sum of the frames is 24 x 10"):
        md.KomaStream(2).add(movie, total=SMALL_SUMS.isel(movie=0, x=slice(10)))


def test_a_stream_of_one_movie_and_of_odd_ones() -> None:
    stream = md.KomaStream(2)
    stream.add(SMALL.images.isel(movie=0))
    with pytest.raises(ValueError, match="2 frames, the first one 3"):
        stream.add(SMALL.images.isel(movie=1, frame=slice(2)))
    with pytest.raises(ValueError, match="the movie is 24 x 10"):
        stream.add(SMALL.images.isel(movie=1, x=slice(10)))
    with pytest.raises(ValueError, match="one movie"):
        stream.finish()


def test_one_movie_out_of_a_session() -> None:
    whole = md.koma(SMALL, sums=SMALL_SUMS, radius=2).images.compute()
    np.testing.assert_array_equal(md.koma(SMALL.images.isel(movie=3), sums=SMALL_SUMS, radius=2), whole[3])


def test_masked_pixels_do_not_count_for_the_level() -> None:
    mask = np.zeros((24, 20), bool)
    mask[3, 4] = True
    spoiled = SMALL_SUMS.copy()
    spoiled.values[:, 3, 4] = 10**6
    args = {"radius": 2, "method": "plain"}
    with_mask = md.koma(SMALL, sums=spoiled.assign_coords(mask=(("y", "x"), mask)), **args).images.where(~mask)
    clean = md.koma(SMALL, sums=SMALL_SUMS, **args).images.where(~mask)
    np.testing.assert_allclose(with_mask, clean, atol=0.01)
    pieces = xr.DataArray(da.from_array(np.stack([mask] * 7), (2, 10, 7)), dims=("movie", "y", "x"))
    for kind in (pieces, pieces[0]):
        corrected = md.koma(SMALL, sums=spoiled.assign_coords(mask=kind), radius=2).images
        expected = md.koma(SMALL, sums=spoiled.assign_coords(mask=(("y", "x"), mask)), radius=2).images
        np.testing.assert_array_equal(corrected, expected)


@pytest.mark.usefixtures("no_compute")
def test_nothing_is_computed_and_the_graph_is_small() -> None:
    session = md.simulate.session(240, (4, 64, 64))[0]
    sums = md.sum_frames(session).copy(data=da.zeros((240, 64, 64), chunks=(1, 64, 64), dtype="int64"))
    corrected = md.koma(session, sums=sums, radius=12)
    assert len(dict(corrected.images.data.dask)) < 9 * 240


class TestCarbon:
    """High-contrast movies are found, and left out of the windows."""

    NAMES = ("movie_0004", "movie_0011")
    SESSION = md.simulate.session(16, (5, 192, 192), dose=4, specimen=md.simulate.Specimen(ice_sd=0.02, carbon=NAMES))[
        0
    ].compute()
    TOTAL = md.sum_frames(SESSION)

    def test_found_and_named(self) -> None:
        found = md.find_high_contrast(self.TOTAL)
        assert found.attrs["names"] == list(self.NAMES)
        assert found.high_contrast.values.sum() == 2

    def test_left_out(self) -> None:
        found = md.find_high_contrast(self.TOTAL)
        args = {"sums": self.TOTAL, "radius": 2, "method": "plain"}
        kept = md.koma(self.SESSION, exclude=found.high_contrast, **args)
        names = [n for n in self.SESSION.movie.values if n not in self.NAMES]
        alone = md.koma(self.SESSION.sel(movie=names), sums=self.TOTAL.sel(movie=names), radius=2, method="plain")
        np.testing.assert_array_equal(kept.images.sel(movie=names), alone.images)
        assert "movie_0011" in kept.images.attrs["provenance"]

    def test_chunks_change_nothing(self) -> None:
        for chunks in ((3, 192, 192), (16, 100, 70)):
            pieces = self.TOTAL.copy(data=da.from_array(self.TOTAL.values, chunks))
            xr.testing.assert_identical(md.find_high_contrast(pieces), md.find_high_contrast(self.TOTAL))

    def test_vacuum_has_none(self) -> None:
        assert md.find_high_contrast(SUMS["static"]).attrs["names"] == []

    def test_bad_names(self) -> None:
        with pytest.raises(ValueError, match="movie_9999, which is not among"):
            md.koma(SMALL, sums=SMALL_SUMS, exclude=["movie_9999"])
        with pytest.raises(ValueError, match="exclude fewer"):
            md.koma(SMALL, sums=SMALL_SUMS, exclude=SMALL.movie.values[:6])


class TestRadius:
    """The choice follows the lifetime of the pattern and the noise."""

    @staticmethod
    def chosen(stable: float, lifetime: float = 1.0, decay: float = 2.0, **options: float) -> xr.Dataset:
        pattern = md.simulate.Pattern(pixel_sd=0.4, stable=stable, lifetime=lifetime, decay=decay)
        session, _ = md.simulate.session(41, (10, 96, 96), dose=2, pattern=pattern)
        return md.koma_radius(md.sum_frames(session), **options)

    def test_lasting_patterns_are_averaged_long(self) -> None:
        found = self.chosen(1.0)
        assert found.attrs["radius"] >= 10
        assert found.attrs["raw"] == pytest.approx(0.16 / 2.16, rel=0.1)
        assert found.attrs["lifetime"] == np.inf
        expected = found.floor.sel(radius=10)
        assert float(found.correlation.sel(radius=10)) == pytest.approx(float(expected), rel=0.2)

    def test_short_lived_patterns_are_averaged_briefly(self) -> None:
        found = self.chosen(0.0, lifetime=80.0, noise_budget=1.0)
        assert found.attrs["radius"] <= 5
        assert 2 <= found.attrs["lifetime"] <= 6

    def test_noise_alone_is_not_helped(self) -> None:
        assert not md.koma_radius(SUMS["noise"]).attrs["helps"]

    def test_too_few(self) -> None:
        with pytest.raises(ValueError, match="four movies or more"):
            md.koma_radius(SMALL_SUMS.isel(movie=slice(3)))


def test_differently_corrected_sums_warn() -> None:
    gained = md.apply_gain(SMALL, np.ones((24, 20), np.float32))
    with pytest.warns(MrczdaskWarning, match="went through apply_gain, their sums through nothing"):
        md.koma(gained, sums=SMALL_SUMS)


def test_unstored_sums_warn() -> None:
    with pytest.warns(MrczdaskWarning, match="store it first"):
        md.koma(SMALL, sums=md.sum_frames(SMALL))


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="radius of 1 or more"):
        md.koma(SMALL, sums=SMALL_SUMS, radius=0)
    with pytest.raises(ValueError, match="there is one movie"):
        md.koma(SMALL, sums=SMALL_SUMS.isel(movie=slice(1)))
    with pytest.raises(ValueError, match="5 of the movies are lacking, such as movie_0002"):
        md.koma(SMALL, sums=SMALL_SUMS.isel(movie=slice(2)))
    odd = SMALL_SUMS.assign_coords(n_frames=("movie", [3, 3, 3, 4, 3, 3, 3]))
    with pytest.raises(ValueError, match="3 to 4 frames"):
        md.koma(SMALL, sums=odd)
    with pytest.raises(ValueError, match="sum of the frames is 24 x 10"):
        md.koma(SMALL, sums=SMALL_SUMS.isel(x=slice(10)))


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("radius", [3, 14])
def test_the_correlation_expected_is_the_one_found(seed: int, radius: int) -> None:
    wandering = md.simulate.Pattern(pixel_sd=0.4, stable=0.3, lifetime=200.0)
    session = md.simulate.session(31, (4, 96, 96), dose=2.0, seed=seed, pattern=wandering)[0].compute()
    sums = md.sum_frames(session)
    expected = float(md.koma_radius(sums).correlation.sel(radius=radius))
    found = float(md.frame_correlation(md.koma(session, sums=sums, radius=radius, method="plain")).mean())
    assert expected == pytest.approx(found, rel=0.15)
