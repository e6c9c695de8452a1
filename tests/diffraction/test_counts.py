"""Special numbers of detectors are no counts, in any verb and whatever said so."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import dask.array as da
import h5py
import numpy as np
import pytest
import tifffile
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import mrczdask as md
from mrczdask.errors import AmbiguousFileWarning, MrcFormatError, MrczdaskError
from mrczdask.io.validity import counts_in, dtype_rule

SHAPE = (60, 64)
GEOMETRY = md.Geometry.flat(SHAPE)
OPTIONS: dict[str, Any] = {"bins": 10, "unit": "pixel"}
SPOTS = ((12, 50), (45, 14))


def counts(n: int = 3, dtype: str = "u2", seed: int = 0) -> NDArray[Any]:
    frames = np.random.default_rng(seed).poisson(6.0, (n, *SHAPE))
    for y, x in SPOTS:
        frames[:, y : y + 2, x : x + 2] += 200
    return frames.astype(dtype)


def bad() -> NDArray[np.bool_]:
    """A gap, a bad pixel beside the beam, and two next to one another."""
    found = np.zeros(SHAPE, bool)
    found[:, 30:32] = found[28, 36] = found[50, 40:42] = True
    return found


def marked(frames: NDArray[Any], *numbers: float) -> NDArray[Any]:
    """Frames with such numbers in place of the bad pixels."""
    out = frames.copy()
    out[:, bad()] = np.resize(np.array(numbers).astype(frames.dtype), int(bad().sum()))
    return out


def found_in(frames: Any, geometry: md.Geometry = GEOMETRY, **options: Any) -> dict[str, Any]:
    """What every verb makes of frames."""
    how = OPTIONS | options
    background = md.separate_background(frames, geometry, **how).compute()
    sparse = md.sparsify(frames, geometry, **how).compute()
    peaks = md.find_peaks(frames, geometry, cutoff_peak=6, **how).compute()
    budget = md.loss_budget(frames, geometry, cutoffs=(2.0, 5.0), shells=2, **how)
    return {
        "average": background.background_avg.values,
        "deviation": background.background_std.values,
        "used": background.n_used.values,
        "mean": md.azimuthal_average(frames, geometry, **how).compute().intensity.values,
        "index": sparse["index"].values,
        "peaks": peaks.n_peaks.values,
        "peak": peaks.index.values if "index" in peaks else peaks.y.values,
        "kept": budget.kept_fraction.values,
        "dark": md.find_bad_pixels(frames, geometry, **how).compute().deviation.values[~bad()],
        "sum": md.sparse_sum(sparse).values,
    }


def assert_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    for name, values in one.items():
        np.testing.assert_allclose(values, other[name], rtol=1e-6, err_msg=name)


def as_frames(values: NDArray[Any], **attrs: Any) -> xr.DataArray:
    return xr.DataArray(da.from_array(values, chunks=(2, -1, -1)), dims=("shot", "y", "x"), attrs=attrs)


CASES: dict[str, tuple[str, tuple[float, ...], dict[str, Any]]] = {
    "bounds": ("i4", (-9, 70000), {"underload_value": 0, "saturation_value": 60000}),
    "two highest": ("u4", (2**32 - 1, 2**32 - 2), {}),
    "depth": ("u4", (65535, 65534), {"dummy": 65535, "delta_dummy": 1}),
    "jungfrau": ("i4", (-(2**31), -(2**30)), {}),
    "pilatus": ("i4", (-1, -2), {"dummy": -2, "delta_dummy": 1.5}),
    "floats": ("f4", (np.nan, -np.inf, 1e7), {"saturation_value": 1e6}),
    "two holes": ("i4", (-1, 77777, 88888), {"dummy": -1, "invalid_values": [[77777, 77777], [88888, 88890]]}),
    "narrow": ("u2", (65535, 65534), {"dummy": 65535, "delta_dummy": 1}),
}


@pytest.mark.parametrize("name", CASES)
def test_special_numbers_are_as_if_masked_in_every_verb(name: str) -> None:
    dtype, numbers, attrs = CASES[name]
    clean = counts(dtype=dtype)
    geometry = md.Geometry.flat(SHAPE, mask=bad())
    assert_same(found_in(as_frames(marked(clean, *numbers), **attrs)), found_in(clean, geometry))


@settings(max_examples=12, deadline=None)
@given(
    dtype=st.sampled_from(["i2", "u2", "i4", "u4", "f4"]),
    low=st.integers(-40, 0),
    high=st.integers(400, 30000),
    equal=st.integers(300, 399),
    model=st.sampled_from(["poisson", "azimuthal", "hybrid", "count"]),
)
def test_bounds_and_marks_of_any_size(dtype: str, low: int, high: int, equal: int, model: str) -> None:
    clean = counts(dtype=dtype)
    numbers = [high + 1, equal] + ([low - 1] if dtype[0] != "u" else [])
    attrs = {"underload_value": low, "saturation_value": high, "dummy": equal}
    one = md.separate_background(as_frames(marked(clean, *numbers), **attrs), GEOMETRY, error_model=model, **OPTIONS)
    other = md.separate_background(clean, GEOMETRY, mask=bad(), error_model=model, **OPTIONS)
    np.testing.assert_allclose(one.background_avg, other.background_avg, rtol=1e-6)
    assert not np.isnan(one.background_avg).any()


def test_flags_of_a_geom_file_hold_for_all_panels_or_for_each(tmp_path: Path) -> None:
    head = "clen = 0.1\nphoton_energy = 9000\nres = 10000\nadu_per_photon = 1\n"

    def panel(name: str, first: int, last: int, more: str = "") -> str:
        return (
            f"{name}/min_fs = 0\n{name}/max_fs = {SHAPE[1] - 1}\n{name}/min_ss = {first}\n{name}/max_ss = {last}\n"
            f"{name}/corner_x = -32\n{name}/corner_y = {first - 30}\n{name}/fs = x\n{name}/ss = y\n{more}"
        )

    whole, halves = tmp_path / "whole.geom", tmp_path / "halves.geom"
    whole.write_text(head + "flag_equal = -1\nflag_lessthan = -5\nflag_morethan = 60000\n" + panel("p", 0, 59))
    lower = "b/flag_equal = -1\nb/flag_equal = -2\nb/flag_lessthan = -5\n"
    halves.write_text(head + "flag_morethan = 60000\n" + panel("a", 0, 29) + panel("b", 30, 59, lower))
    clean = counts(dtype="i4")
    frames = marked(clean, -1, -1000, 65000)
    geometry = md.Geometry.from_geom(whole)
    plain = md.Geometry.from_geom(whole, mask=bad())
    assert_same(found_in(frames, geometry), found_in(clean, plain))
    both = md.Geometry.from_geom(halves)
    mixed = clean.copy()
    mixed[:, 50, 40:42], mixed[:, 28, 36], mixed[:, 10, 30] = [-1, -2], -2, 70000  # -2 counts in the upper panel
    found = md.azimuthal_average(mixed, both, **OPTIONS).n_used.values.sum(axis=1)
    assert (found == SHAPE[0] * SHAPE[1] - 3).all()
    assert_same(
        {"n": md.sparsify(mixed, both, **OPTIONS).compute()["index"].values},
        {"n": md.sparsify(mixed, background=md.separate_background(mixed, both, **OPTIONS)).compute()["index"].values},
    )


def test_edges_and_masks_of_a_geom_file(tmp_path: Path) -> None:
    text = (
        "clen = 0.1\nphoton_energy = 9000\nres = 10000\nmask_edge_pixels = 2\nmask_file = mask.h5\nmask = /m\n"
        "mask_good = 0x1\nmask_bad = 0x4\n"
        "p/min_fs = 0\np/max_fs = 63\np/min_ss = 0\np/max_ss = 59\n"
        "p/corner_x = -32\np/corner_y = -30\np/fs = x\np/ss = y\n"
    )
    path = tmp_path / "d.geom"
    path.write_text(text)
    bits = np.full((1, *SHAPE), 1 + 2, np.uint16)
    bits[0, 20, 20], bits[0, 21, 21] = 2, 1 + 4
    with h5py.File(tmp_path / "mask.h5", "w") as file:
        file["m"] = bits
    edge = np.ones(SHAPE, bool)
    edge[2:-2, 2:-2] = False
    edge[20, 20] = edge[21, 21] = True
    np.testing.assert_array_equal(md.Geometry.from_geom(path).mask, edge)
    in_data = tmp_path / "in_data.geom"
    in_data.write_text(text.replace("mask_file = mask.h5\n", "").replace("mask_edge_pixels = 2\n", ""))
    geometry = md.Geometry.from_geom(in_data)
    with pytest.raises(MrczdaskError, match=r"takes its mask from /m of the data files: give them as"):
        md.separate_background(counts(), geometry, **OPTIONS)
    with h5py.File(tmp_path / "run.h5", "w") as file:
        file["data"], file["m"] = counts(), bits
    told = md.Geometry.from_geom(in_data, frames=md.open_frames(tmp_path / "run.h5", dataset="data"))
    assert np.argwhere(told.mask).tolist() == [[20, 20], [21, 21]]
    path.write_text(text.replace("mask.h5", "gone.h5"))
    with pytest.raises(MrcFormatError, match=r"gone\.h5: there is no such file"):
        md.Geometry.from_geom(path)


def test_names_of_detectors_in_poni_files_say_what_pyfai_says(tmp_path: Path) -> None:
    from pyFAI import detectors

    seen = 0
    for name, kind in sorted(detectors.ALL_DETECTORS.items()):
        if kind.DUMMY is None or kind.MAX_SHAPE is None or np.prod(kind.MAX_SHAPE) > 2e5:
            continue
        path = tmp_path / "d.poni"
        path.write_text(
            f"poni_version: 2\nDetector: {name}\nDetector_config: {{}}\nDistance: 0.1\nPoni1: 0.01\nPoni2: 0.01\n"
            "Rot1: 0\nRot2: 0\nRot3: 0\nWavelength: 1e-10\n"
        )
        geometry = md.Geometry.from_poni(path)
        detector = detectors.detector_factory(name)
        for dtype in ("i4", "u2", "u4", "f4"):
            dummy, delta = detector.get_dummies(np.dtype(dtype))
            numbers = np.array([0, 1, 7], dtype)
            top = np.array([-3, -2, -1]).astype("i8").astype(dtype) if dtype[0] != "f" else np.array([-3, -2, -1], "f4")
            frame = np.ones(geometry.shape, dtype)
            frame.ravel()[:6] = np.concatenate([numbers, top])
            invalid = np.abs(frame.astype(np.float32) - dummy) <= delta
            invalid |= ~counts_in(dtype_rule(frame.dtype), frame)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", AmbiguousFileWarning)
                used = md.azimuthal_average(frame, geometry, bins=3, unit="r_mm").n_used.values.sum()
            assert used == (~invalid & ~geometry.mask).sum(), (name, dtype)
        seen += 1
    assert seen > 5


def test_a_dummy_given_stands_for_all_others_and_nan_for_none() -> None:
    clean = counts(dtype="i4")
    frames = as_frames(marked(clean, -1, -2), dummy=-2, delta_dummy=1.5)

    def used(**options: Any) -> int:
        return int(md.azimuthal_average(frames, GEOMETRY, **OPTIONS, **options).n_used.values[0].sum())

    n = SHAPE[0] * SHAPE[1]
    gone = int(bad().sum())
    assert used() == used(dummy=-2) == n - gone
    assert used(dummy=np.nan) == n
    assert used(dummy=-1) == n - int((marked(clean, -1, -2)[0] == -1).sum())


@pytest.mark.parametrize(("dtype", "top"), [("u2", 65535), ("u1", 255), ("i2", 32767)])
def test_the_largest_number_of_a_dtype_is_warned_of_where_nothing_says_what_it_is(dtype: str, top: int) -> None:
    frames = counts(1, dtype)
    frames[0, 40, 40] = top
    with pytest.warns(AmbiguousFileWarning, match=f"hold {top}, the largest number of the dtype.*dummy={top}"):
        md.separate_background(frames, GEOMETRY, **OPTIONS).compute(scheduler="synchronous")
    for options in ({"dummy": top}, {"dummy": np.nan}, {"mask": frames[0] == top}):
        md.separate_background(frames, GEOMETRY, **OPTIONS, **options).compute(scheduler="synchronous")


def test_a_ring_with_one_pixel_left_has_a_background() -> None:
    frames = counts(1, "u4")
    ring = np.hypot(*(np.indices(SHAPE) - np.array([30, 32])[:, None, None] + 0.5))
    frames[0, (ring > 10) & (ring < 20)] = 2**32 - 1
    frames[0, 30, 47] = 5
    used = md.azimuthal_average(frames, GEOMETRY, bins=60, unit="pixel").n_used
    assert used.sel(radius=slice(11, 19)).sum() == 1
    valid = used.values > 0
    for model in ("poisson", "azimuthal", "hybrid", "count"):
        found = md.separate_background(frames, GEOMETRY, bins=60, unit="pixel", error_model=model)
        np.testing.assert_array_equal(np.isfinite(found.background_avg), valid, err_msg=model)


@pytest.mark.parametrize("dtype", ["u2", "i4", "f4", "u1"])
def test_a_mask_for_each_frame_counts_in_every_verb(dtype: str) -> None:
    frames = counts(3, dtype)
    masks = np.zeros(frames.shape, bool)
    for k in range(3):
        masks[k, 10 * k : 10 * k + 5, 20:40] = True
    frames[masks] = 120
    labelled = as_frames(frames).assign_coords(mask=(("shot", "y", "x"), da.from_array(masks, chunks=(1, -1, -1))))
    together = found_in(labelled)
    for k in range(3):
        alone = found_in(frames[k : k + 1], md.Geometry.flat(SHAPE, mask=masks[k]))
        np.testing.assert_allclose(together["average"][k], alone["average"][0], rtol=1e-6)
        assert together["peaks"][k] == alone["peaks"][0]


def test_scaled_frames_are_averaged_in_counts_and_gains_change_no_decision() -> None:
    clean = counts(2, "i4")
    stored = clean * 10 + 400
    stored[:, bad()] = -(2**31)
    scaled = as_frames(stored, data_scaling_factor=0.1, data_offset=-400.0)
    wanted = found_in(clean.astype("f4"), md.Geometry.flat(SHAPE, mask=bad()))
    assert_same(found_in(scaled), wanted)
    gained = md.separate_background(as_frames(clean * 8, counts_per_photon=8.0), GEOMETRY, **OPTIONS).compute()
    plain = md.separate_background(clean, GEOMETRY, **OPTIONS).compute()
    np.testing.assert_allclose(gained.background_avg, 8 * plain.background_avg, rtol=1e-5)
    np.testing.assert_allclose(gained.background_std, 8 * plain.background_std, rtol=1e-5)
    np.testing.assert_array_equal(gained.n_used, plain.n_used)


@pytest.mark.parametrize("suffix", ["h5", "zarr"])
def test_the_rule_survives_sparse_files(tmp_path: Path, suffix: str) -> None:
    frames = as_frames(marked(counts(dtype="i4"), -1, 70000, 500), underload_value=0, saturation_value=60000)
    frames.attrs["invalid_values"] = [[500, 500]]
    made = md.sparsify(frames, GEOMETRY, **OPTIONS)
    again = md.write_sparse(made, tmp_path / f"run.{suffix}")
    for name in ("underload_value", "saturation_value", "invalid_values"):
        assert again.attrs[name] == made.attrs[name]
    dense = md.densify(again, background="mean")
    report = md.compare_background(frames, dense, again, shells=2)
    wanted = md.compare_background(frames.values, dense, again, shells=2)
    assert (
        report.n_pixels.sum() == wanted.n_pixels.sum() == frames.size - 3 * bad().sum() - len(again.compute()["index"])
    )


def test_frames_written_and_read_again_have_the_same_rule(tmp_path: Path) -> None:
    frames = as_frames(marked(counts(dtype="i4"), -1, 70000), underload_value=0, saturation_value=60000)
    again = md.write_frames(frames, tmp_path / "run_master.h5")
    assert_same(found_in(again), found_in(frames))


def test_marks_of_pilatus_in_tiff_headers(tmp_path: Path) -> None:
    frames = marked(counts(1, "i4"), -1, -2)
    head = "# Pixel_size 172e-6 m x 172e-6 m\n# Count_cutoff 1048574 counts\n# Detector_distance 0.2 m\n"
    tifffile.imwrite(tmp_path / "a.tif", frames[0], description=head)
    found = md.open_frames(tmp_path / "a.tif")
    assert (found.attrs["dummy"], found.attrs["distance_m"], found.attrs["saturation_value"]) == (-2, 0.2, 1048574)
    assert_same(found_in(found), found_in(counts(1, "i4"), md.Geometry.flat(SHAPE, mask=bad())))
