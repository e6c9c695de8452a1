"""Floats that are no numbers: NaN, infinities and garbage beyond 2**53 stay in their pixel, whatever the verb.

The whole file turns numpy's RuntimeWarnings into errors: a cast of a NaN to an integer is one.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import mrczdask as md
from mrczdask.errors import MrczdaskWarning
from mrczdask.kernels.usable import LARGEST, add_floats, mended, unusable
from mrczdask.kernels.window import KnownMeans, fixed_parts, knock_out_windows, unit_of

GARBAGE = [np.nan, np.inf, -np.inf, 1e30, -3e38, LARGEST * 2]
AT = (2, 1, 10, 12)
"""Movie, frame, row and column of the pixel."""
MEAN = 20.0

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")


def session(value: float | None = None, n: int = 6, at: Any = AT) -> xr.Dataset:
    pixels = np.random.default_rng(5).poisson(MEAN, (n, 4, 48, 40)).astype(np.float32)
    if value is not None:
        pixels[at] = value
    coords = {"movie": [f"movie_{k}" for k in range(n)], "n_frames": ("movie", [4] * n)}
    attrs = {"origin": "upper", "pixel_size_angstrom": 1.5}
    images = xr.DataArray(pixels, coords, ("movie", "frame", "y", "x"), "images", attrs)
    return images.to_dataset()


def elsewhere(images: xr.DataArray) -> xr.DataArray:
    """NaN at the pixel of that movie, or of all movies where there is but one image."""
    place = (images.x != AT[3]) | (images.y != AT[2])
    return images.where(place | (images.movie != f"movie_{AT[0]}") if "movie" in images.dims else place)


def mask_of() -> xr.DataArray:
    bad = np.zeros((6, 48, 40), bool)
    bad[AT[0], AT[2], AT[3]] = True
    return xr.DataArray(bad, dims=("movie", "y", "x"), coords={"movie": session().movie})


def equal(one: Any, other: Any) -> None:
    np.testing.assert_array_equal(np.asarray(elsewhere(one)), np.asarray(elsewhere(other)))


def filled(data: xr.Dataset) -> Any:
    return md.fill_outliers(data.images, md.find_outliers(md.sum_frames(data)).mask | mask_of())


VERBS: dict[str, Callable[[xr.Dataset], Any]] = {
    "sum_frames": md.sum_frames,
    "apply_gain": lambda s: md.apply_gain(s.images, np.full((48, 40), 1.1), dark=np.full((48, 40), 0.5)),
    "mask": lambda s: md.find_outliers(md.sum_frames(s)).mask,
    "cdf mask": lambda s: md.find_outliers(md.sum_frames(s), method="cdf").mask,
    "fill_outliers": filled,
}


@pytest.mark.parametrize("value", GARBAGE)
@pytest.mark.parametrize("name", VERBS)
def test_all_else_is_what_it_is_without_it(name: str, value: float) -> None:
    found, clean = VERBS[name](session(value)), VERBS[name](session())
    equal(found, clean)
    if name.endswith("mask"):
        assert bool(found[AT[0], AT[2], AT[3]])
    if name == "fill_outliers":
        assert np.isfinite(found).all()


@pytest.mark.parametrize("value", GARBAGE)
@pytest.mark.parametrize("lazy", [False, True])
def test_a_sum_is_nan_there_alone(value: float, lazy: bool) -> None:
    data = session(value).chunk({"frame": 1}) if lazy else session(value)
    found = np.asarray(md.sum_frames(data))
    assert np.argwhere(np.isnan(found)).tolist() == [[AT[0], AT[2], AT[3]]]
    want = session(value).images.values.sum(axis=1, dtype=float)
    np.testing.assert_array_equal(found[~np.isnan(found)], want[~np.isnan(found)])


def masked_koma(data: xr.Dataset, method: Any) -> xr.DataArray:
    sums = md.sum_frames(data).assign_coords(mask=mask_of())
    return md.koma(data, sums=sums, radius=2, method=method).images


@pytest.mark.parametrize("value", GARBAGE)
@pytest.mark.parametrize("method", ["plain", "wiener"])
def test_koma_leaves_it_out_of_the_windows_as_a_masked_pixel(value: float, method: Any) -> None:
    data = session(value)
    found = md.koma(data, sums=md.sum_frames(data), radius=2, method=method).images
    masked = masked_koma(session(), method)
    others = found.movie != f"movie_{AT[0]}"
    np.testing.assert_array_equal(found[others], masked[others])
    np.testing.assert_allclose(elsewhere(found), elsewhere(masked), atol=0.01)  # of its own level it counts for less


@pytest.mark.parametrize("value", [np.nan, 1e30])
def test_the_stream_gives_the_numbers_of_koma(value: float) -> None:
    data = session(value)
    stream = md.KomaStream(radius=2)
    done = [one for k in range(6) for one in stream.add(data.images.isel(movie=k))] + stream.finish()
    whole = md.koma(data, sums=md.sum_frames(data), radius=2).images
    np.testing.assert_array_equal(np.stack([one.values for one in done]), whole)


@given(
    bad=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2), st.integers(0, 3)), max_size=12),
    value=st.sampled_from([*GARBAGE, 7.0]),
    hidden=st.booleans(),
    size=st.integers(1, 5),
)
@settings(max_examples=40, deadline=None)
def test_windows_average_what_is_known(bad: list[Any], value: float, hidden: bool, size: int) -> None:
    images = np.random.default_rng(0).poisson(30, (5, 3, 4)).astype(float)
    masks = np.zeros(images.shape, bool)
    for place in bad:
        images[place] = value
        masks[place] = hidden
    parts = [fixed_parts(image, mask if hidden else None) for image, mask in zip(images, masks, strict=True)]
    means = KnownMeans(lambda k: parts[k][0], lambda k: parts[k][1], unit_of(images.dtype))
    usable = ~np.stack([np.zeros((3, 4), bool) if (odd := unusable(i)) is None else odd for i in images])
    for own, window in enumerate(knock_out_windows(size, np.ones(5, bool))):
        ranks = [k for k in range(window.start, window.stop) if k != own]
        found = means.mean(window)
        for y, x in np.ndindex(3, 4):
            known = [k for k in ranks if usable[k, y, x] and not masks[k, y, x]]
            known = known or [k for k in ranks if usable[k, y, x]]
            want = np.mean([images[k, y, x] for k in known]) if known else np.nan
            np.testing.assert_allclose(found[y, x], want, rtol=1e-6)


def test_masks_of_one_movie_keep_its_pixels_out_of_the_windows_of_others() -> None:
    hot = session().images.astype(np.uint16)
    hot[AT] = 60000
    clean = masked_koma(session().images.astype(np.uint16).to_dataset(), "plain")
    np.testing.assert_array_equal(masked_koma(hot.to_dataset(), "plain")[3], clean[3])
    unmasked = md.koma(hot, sums=md.sum_frames(hot), radius=2, method="plain")
    assert abs(unmasked - clean)[3, :, AT[2], AT[3]].min() > 1000


@pytest.mark.parametrize("value", GARBAGE)
def test_contrast_radius_and_correlation_hardly_notice(value: float) -> None:
    data, clean = session(value), session()
    one, other = (md.find_high_contrast(md.sum_frames(d)) for d in (data, clean))
    np.testing.assert_allclose(one.contrast, other.contrast, atol=2e-3)
    one, other = (md.koma_radius(md.sum_frames(d)) for d in (data, clean))
    np.testing.assert_allclose(one.covariance, other.covariance, atol=0.02 * MEAN / 4)
    one, other = (md.frame_correlation(d) for d in (data, clean))
    np.testing.assert_allclose(one, other, atol=2e-3)
    kept = one.movie != f"movie_{AT[0]}"
    np.testing.assert_array_equal(one[kept], other[kept])


def test_a_movie_without_a_number_is_left_out_and_named() -> None:
    data = session(np.nan, at=(2,))
    assert md.find_high_contrast(md.sum_frames(data)).attrs["names"] == ["movie_2"]
    with pytest.raises(ValueError, match="no pixel of movie_2 is a number"):
        md.koma_radius(md.sum_frames(data))
    found = md.koma(data, sums=md.sum_frames(data), radius=2).images
    others = data.movie != "movie_2"
    assert np.isfinite(found[others]).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
@pytest.mark.parametrize("verb", ["hybrid", "sme", "means", "quality", "drift"])
def test_blind_gain_refuses_it_by_name_or_leaves_it_out_by_the_mask(verb: str, value: float) -> None:
    def run(data: xr.DataArray) -> xr.Dataset:
        if verb == "quality":
            return md.gain_quality(data).rename(residual="gain")
        if verb == "drift":
            return md.gain_drift(data, reference_movies=4).rename(std="gain")
        return md.estimate_gain(data, method=verb)  # type: ignore[arg-type]

    data = session(value).images
    with pytest.raises(ValueError, match=r"movie_2: 1 pixels, such as y=10, x=12, are .* NaN or infinity: fill them"):
        run(data)
    masked = data.assign_coords(mask=mask_of().any("movie"))
    found, clean = run(masked), run(session().images.assign_coords(mask=masked.mask))
    np.testing.assert_allclose(found.gain, clean.gain, atol=0.05)
    assert bool(found.mask[10, 12]) if verb == "quality" else True


@pytest.mark.parametrize("value", GARBAGE)
@pytest.mark.parametrize("which", ["gain", "dark"])
@pytest.mark.parametrize("lazy", [False, True])
def test_references_name_their_garbage(which: str, value: float, lazy: bool) -> None:
    reference = np.full((48, 40), 1.25)
    reference[10, 12] = value
    given: Any = xr.DataArray(reference, dims=("y", "x"))
    given = given.chunk() if lazy else given
    data = session().images
    found = md.apply_gain(data, given) if which == "gain" else md.apply_gain(data, None, dark=given)
    want = data.values * np.float32(1.25) if which == "gain" else data.values - np.float32(1.25)
    np.testing.assert_allclose(found, want, rtol=1e-6)
    assert np.argwhere(np.asarray(found.mask)).tolist() == [[10, 12]]
    assert found.mask.attrs == {"origin": "upper", "pixel_size_angstrom": 1.5}


@pytest.mark.parametrize("value", GARBAGE)
def test_electrons_beside_it_are_counted(value: float) -> None:
    frames = np.zeros((1, 8, 8), np.float32)
    frames[0, 2, 2] = 90
    frames[0, 2, 4] = frames[0, 3, 3] = value
    dark = np.zeros((8, 8))
    dark[5, 5] = value
    for method in ("pixel", "centroid"):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = md.count_electrons(frames, threshold=50, method=method, dark=dark)  # type: ignore[arg-type]
        assert np.argwhere(found[0]).tolist() == [[2, 2]]


@pytest.mark.parametrize("value", GARBAGE)
def test_integers_are_recovered_around_it(value: float) -> None:
    gain = np.random.default_rng(1).normal(1, 0.05, (48, 40)).astype(np.float32)
    data = session().images[0] * gain
    data[1, 10, 12] = value
    found = md.recover_integers(data, gain).compute()
    want = session().images[0].values
    want[1, 10, 12] = 0
    np.testing.assert_array_equal(found.images, want)
    assert found.images.dtype == np.uint8
    assert found.n_not_integer.values.tolist() == [0, 1, 0, 0]


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4"])
def test_floats_are_summed_as_numpy_does(dtype: str) -> None:
    frames = np.random.default_rng(0).normal(20, 5, (5, 7, 9)).astype(dtype)
    total = np.ones((7, 9))
    assert add_floats(frames, total).values == 0
    np.testing.assert_array_equal(total, frames.sum(axis=0, dtype=float) + 1)
    frames[3, 2, 1] = frames[1, 4, 5] = np.nan
    assert tuple(add_floats(frames, total)) == (2, 1, 4, 5)
    assert np.argwhere(np.isnan(total)).tolist() == [[2, 1], [4, 5]]


def test_an_image_without_a_number_is_mended_to_zeros() -> None:
    image, bad = mended(np.full((4, 4), np.inf))
    assert not image.any()
    assert bad is not None
    assert bad.all()


@pytest.mark.parametrize("value", GARBAGE)
@pytest.mark.parametrize("weighted", [False, True])
def test_fills_do_not_take_from_it(value: float, weighted: bool) -> None:
    data = session(value).images
    bad = np.zeros((48, 40), bool)
    bad[9, 12] = bad[30, 30] = True
    outliers: Any = xr.DataArray(bad, dims=("y", "x"))
    if weighted:
        weight = outliers.copy(data=np.where(bad, 0, 0.9).astype(np.float32))
        outliers = xr.Dataset({"mask": outliers, "weight": weight}, attrs={"method": "cdf"})
    found, clean = (md.fill_outliers(images, outliers).values for images in (data, session().images))
    numbers = np.abs(found) <= LARGEST
    assert np.argwhere(~numbers).tolist() == [list(AT)]
    np.testing.assert_array_equal(found[AT[0], AT[1], 30, 30], clean[AT[0], AT[1], 30, 30])
    assert abs(found - clean)[numbers].max() < 20
    others = np.delete(found, AT[0], axis=0)
    np.testing.assert_array_equal(others, np.delete(clean, AT[0], axis=0))


CASES = [("wiener", "fdr", 1), ("plain", None, 2), ("wiener", "cdf", None)]


@pytest.mark.parametrize(("method", "outliers", "koma"), CASES)
def test_a_session_is_that_of_any_other_garbage(tmp_path: Path, method: Any, outliers: Any, koma: int | None) -> None:
    def run(value: float | None) -> xr.DataTree:
        url = tmp_path / f"{value}.zarr"
        return md.process_session(session(value), url, koma=koma, method=method, outliers=outliers)

    clean = run(None)
    trees = []
    for value in (np.nan, -np.inf, 1e30):
        with pytest.warns(MrczdaskWarning, match=r"movie_2 \(1 pixels, such as frame 1, y 10, x 12\)"):
            trees.append(run(value))
    for tree in trees:
        np.testing.assert_array_equal(tree["movies"].images, trees[0]["movies"].images)
        assert np.isfinite(tree["movies"].images).all()
        sums = tree["derived/sums"]
        assert sums.unusable.sel(movie="movie_2").values.tolist() == [1, 1, 10, 12]
        assert int(sums.defect_kind[AT[0], AT[2], AT[3]]) == 2
        equal(sums.defect_kind, clean["derived/sums"].defect_kind)
        away = abs(elsewhere(tree["movies"].images - clean["movies"].images))
        assert away.max() < 2
        if koma is None:
            assert away.sel(movie=away.movie != "movie_2").max() == 0


def test_a_movie_without_a_number_leaves_the_others_alone(tmp_path: Path) -> None:
    with pytest.warns(MrczdaskWarning, match="movie_2"):
        done = md.process_session(session(np.nan, at=(2,)), tmp_path / "a.zarr", koma=1)
    assert done["derived/windows"].excluded.values.tolist() == [False, False, True, False, False, False]
    others = done["movies"].movie != "movie_2"
    assert np.isfinite(done["movies"].images[others]).all()


def test_half_floats_that_overflow_are_refused(tmp_path: Path) -> None:
    data = session(70000.0)
    with pytest.raises(ValueError, match=r"70000.* at y=10, x=12, and float16 ends at 65504: give dtype"):
        md.process_session(data, tmp_path / "a.zarr", koma=None, outliers=None, dtype="float16")
