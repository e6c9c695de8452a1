"""Counts recovered from floats, and the floats from counts, to the last bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr

import mrczdask as md
from mrczdask.kernels.orientation import ORIENTATIONS, oriented
from mrczdask.movies import decimation

RAW, TRUTH = md.simulate.movie((4, 96, 96), dose=2, gain=md.simulate.Gain(pixel_sd=0.05), seed=3)
RAW = RAW.compute()
GAIN = TRUTH.gain.values


def floats(scale: float = 1.0, counts: xr.DataArray = RAW) -> xr.DataArray:
    return counts.copy(data=counts.values.astype(np.float32) * GAIN * np.float32(scale))


@pytest.mark.parametrize("scale", [1.0, 0.1, 16.0, 1 / 3, 123.456])
@pytest.mark.parametrize("dose", [0.05, 2.0, 60.0])
def test_scales(scale: float, dose: float) -> None:
    counts = RAW.copy(data=np.random.default_rng(0).poisson(dose, RAW.shape).astype(np.uint8))
    found = md.recover_integers(floats(scale, counts), GAIN).compute()
    np.testing.assert_array_equal(found.images, counts)
    assert found.images.attrs["gain_scale"] == pytest.approx(scale, rel=1e-6)
    assert int(found.n_not_integer.sum()) == int(found.n_inexact.sum()) == 0


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("divide", [False, True])
def test_orientations_and_conventions(orientation: str, divide: bool) -> None:
    stored = next(
        s for name in ORIENTATIONS for s in [oriented(GAIN, name)] if (oriented(s, orientation) == GAIN).all()
    )
    movie = RAW.copy(data=RAW.values.astype(np.float32) / GAIN) if divide else floats()
    found = md.recover_integers(movie, stored).compute()
    np.testing.assert_array_equal(found.images, RAW)
    assert found.images.attrs["gain_orientation"] == orientation
    assert found.images.attrs["gain_formula"].startswith("n / g" if divide else "n * (g")
    assert not found.n_inexact.any()


def test_what_is_no_count_is_reported() -> None:
    movie = floats()
    movie.values[2, 5, 6] += 0.3
    movie.values[3, 7, 8] = np.nextafter(movie.values[3, 7, 8] + np.float32(GAIN[7, 8]), np.float32(99))
    found = md.recover_integers(movie, GAIN).compute()
    assert found.n_not_integer.values.tolist() == [0, 0, 1, 0]
    assert found.n_inexact.values.tolist() == [0, 0, 0, 1]
    assert found.images.values[2, 5, 6] == 0


def test_defects_of_the_gain_do_not_count() -> None:
    gain = GAIN.copy()
    gain[3, 4] = 0
    movie = floats()
    movie.values[:, 3, 4] = 0.1234
    found = md.recover_integers(movie, gain).compute()
    assert not found.n_not_integer.any()
    assert bool(found.mask.values[3, 4])
    assert not found.images.values[:, 3, 4].any()


def test_the_floats_come_back_from_a_file(tmp_path: Path) -> None:
    session = xr.concat([floats(), floats()], "movie").assign_coords(movie=["a", "b"]).chunk({"movie": 1, "frame": 2})
    counts = md.recover_integers(session, GAIN).images
    stored = md.write_archive(counts.drop_vars("mask", errors="ignore"), tmp_path / "counts.zarr")
    assert stored.dtype == np.uint8
    np.testing.assert_array_equal(md.restore_floats(stored, GAIN), session)
    written = md.write_mrcz(md.recover_integers(floats(), GAIN).images, tmp_path / "counts.mrcz")
    np.testing.assert_array_equal(md.apply_gain(written, GAIN), floats())


def test_small_files_for_the_same_floats(tmp_path: Path) -> None:
    """Section 1 of the paper: four times before compression, ten after."""
    movie, truth = md.simulate.movie((4, 512, 512), dose=1.5, gain=md.simulate.Gain(pixel_sd=0.05))
    corrected = md.apply_gain(movie, truth.gain).compute()
    counts = md.recover_integers(corrected, truth.gain).images
    assert corrected.nbytes == 4 * counts.nbytes
    md.write_mrcz(counts, tmp_path / "counts.mrcz")
    md.write_mrcz(corrected, tmp_path / "floats.mrcz")
    raw = corrected.nbytes / (tmp_path / "counts.mrcz").stat().st_size
    assert raw > 10
    assert (tmp_path / "floats.mrcz").stat().st_size > 5 * (tmp_path / "counts.mrcz").stat().st_size


def test_one_task_gives_counts_and_faults(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    real = decimation.count_frame

    def counted(*args: Any) -> Any:
        seen.append(1)
        return real(*args)

    lazy = floats().chunk({"frame": 1})
    found = md.recover_integers(lazy, GAIN)
    monkeypatch.setattr(decimation, "count_frame", counted)
    whole = found.compute(scheduler="sync")
    assert len(seen) == 4
    for part in (found.images, found[["n_not_integer", "n_inexact"]], found.n_inexact.isel(frame=[0, 1, 2, 3])):
        seen.clear()
        part.compute(scheduler="sync")
        assert len(seen) == 4
    seen.clear()
    xr.testing.assert_equal(found.isel(frame=[2]).compute(scheduler="sync"), whole.isel(frame=[2]))
    assert len(seen) == 1


def test_lazy_and_the_same_for_any_chunks() -> None:
    lazy = floats().chunk({"frame": 1, "y": 50, "x": 37})
    found = md.recover_integers(lazy, GAIN)
    assert isinstance(found.images.data, da.Array)
    assert isinstance(found.n_inexact.data, da.Array)
    np.testing.assert_array_equal(found.images, RAW)
    odd = floats()
    odd.values[2, 5, 6] += 0.3
    for chunks in ({"frame": 4}, {"frame": 3, "y": 50, "x": 37}):
        assert md.recover_integers(odd.chunk(chunks), GAIN).n_not_integer.values.tolist() == [0, 0, 1, 0]


@pytest.mark.parametrize(
    ("movie", "gain", "message"),
    [
        (RAW, GAIN, "the movie is uint8"),
        (floats(), GAIN[:50], "the gain is"),
        (floats(), GAIN[::-1] * GAIN, "under no orientation"),
        (floats().isel(frame=slice(2)) * 0, GAIN, "under no orientation"),
        (floats() + floats().roll(x=1) * 0.31, GAIN, "under no orientation"),
    ],
)
def test_bad_input(movie: xr.DataArray, gain: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        md.recover_integers(movie, gain)


def test_counts_without_attributes_are_refused() -> None:
    with pytest.raises(ValueError, match="lack the attribute gain_orientation"):
        md.restore_floats(RAW, GAIN)


@pytest.mark.parametrize("formula", ["multiply", "divide"])
def test_zeros_of_the_other_sign_are_told(formula: str) -> None:
    """-0.0 == 0.0, but its bits are others: a movie that holds it is not given back bit for bit."""
    rng = np.random.default_rng(0)
    counts = xr.DataArray(rng.poisson(2, (2, 64, 64)).astype(np.float32), dims=("frame", "y", "x"))
    gain = (1 + 0.05 * rng.normal(size=(64, 64))).astype(np.float32)
    movie = counts * gain if formula == "multiply" else counts / gain
    movie.values[0][counts.values[0] == 0] = -0.0
    found = md.recover_integers(movie, gain).compute()
    again = md.restore_floats(found.images, gain).values
    other = (again.view(np.uint32) != movie.values.view(np.uint32)).sum(axis=(1, 2))
    assert other[0] > 100
    np.testing.assert_array_equal(found.n_inexact, other)
    assert int(found.n_not_integer.sum()) == 0
