"""The loss budget, against what sparsify keeps and files take, and against the normal distribution."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest

import mrczdask as md
from mrczdask.diffraction.loss import packed_bytes
from mrczdask.errors import MrczdaskError

SHAPE = (96, 110)
GEOMETRY = md.Geometry.flat(SHAPE)
OPTIONS: dict[str, Any] = {"bins": 20, "unit": "pixel"}
CUTOFFS = (1.0, 2.0, 3.0)


def normal_frames() -> Any:
    return np.random.default_rng(4).normal(500.0, 20.0, (12, *SHAPE)).astype(np.float32)


def test_a_normal_background_keeps_the_fractions_of_the_normal_distribution() -> None:
    budget = md.loss_budget(
        normal_frames(), GEOMETRY, cutoffs=CUTOFFS, sample=12, error_model="azimuthal", noise=0.0, cycle=0, **OPTIONS
    )
    assert budget.expected_fraction.values.round(4).tolist() == [0.1587, 0.0228, 0.0013]
    np.testing.assert_allclose(budget.kept_fraction[:2], budget.expected_fraction[:2], rtol=0.02)
    np.testing.assert_allclose(budget.kept_fraction[2], budget.expected_fraction[2], rtol=0.15)


@pytest.mark.parametrize("chunk", [1, 5])
def test_what_is_kept_is_what_sparsify_keeps(chunk: int) -> None:
    frames = np.random.default_rng(1).poisson(6.0, (9, *SHAPE)).astype(np.uint16)
    frames[:, 40:43, 30:33] += 60
    frames[4, ::7] = 65535
    options = {**OPTIONS, "dummy": 65535, "solid_angle": True, "dark": np.full(SHAPE, 0.5), "noise": 0.7}
    lazy = da.from_array(frames, chunks=(chunk, *SHAPE))
    budget = md.loss_budget(lazy, GEOMETRY, cutoffs=CUTOFFS, sample=3, **options)
    assert budget.attrs["n_shots"] == 3
    valid = 2 * frames[0].size + int((frames[4] != 65535).sum())
    for cutoff, fraction in zip(CUTOFFS, budget.kept_fraction.values, strict=True):
        sparse = md.sparsify(frames, GEOMETRY, cutoff_pick=cutoff, **options).compute()
        assert int(sparse.n_pixels[[0, 4, 8]].sum()) == pytest.approx(fraction * valid, abs=1)
    background = md.separate_background(lazy, GEOMETRY, **options)
    again = md.loss_budget(lazy, background=background, cutoffs=CUTOFFS, sample=3)
    np.testing.assert_array_equal(again.kept_fraction, budget.kept_fraction)


def test_signal_is_lost_as_it_is_known_to_be() -> None:
    """A peak of 100 with tails of 12 on a background of 100: tails of 1.2 deviations go between 1 and 2."""
    frames = np.full((4, *SHAPE), 100, np.int32)
    place = [(10, 12), (60, 70), (80, 20)]
    for y, x in place:
        frames[:, y - 1 : y + 2, x - 1 : x + 2] += 12
        frames[:, y, x] += 88
    budget = md.loss_budget(frames, GEOMETRY, cutoffs=(0.5, 2.0, 11.0), shells=1, noise=0.0, **OPTIONS)
    np.testing.assert_allclose(budget.kept_signal[:, 0], [1.0, 100 / (100 + 8 * 12), 0.0], rtol=5e-3)
    assert np.isnan(md.loss_budget(frames[:, :6], md.Geometry.flat((6, 110)), shells=2, **OPTIONS).kept_signal).all()


def test_the_cutoff_of_a_ratio_gives_it() -> None:
    frames = np.random.default_rng(1).poisson(900.0, (4, *SHAPE)).astype(np.uint16)
    budget = md.loss_budget(frames, GEOMETRY, **OPTIONS)
    cutoff = md.pick_cutoff(budget, 6.4)
    there = md.loss_budget(frames, GEOMETRY, cutoffs=(cutoff,), **OPTIONS)
    assert float(there.ratio[0]) == pytest.approx(6.4, rel=0.05)
    with pytest.raises(MrczdaskError, match=r"a ratio of 1e\+06 is not reached: .* at a cutoff of 10"):
        md.pick_cutoff(budget, 1e6)


@pytest.mark.parametrize(
    "wrong", [{"cutoffs": ()}, {"cutoffs": (2, 1)}, {"cutoffs": (-1,)}, {"cutoffs": (float("nan"),)}, {"shells": 0}]
)
def test_numbers_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="rising cutoffs"):
        md.loss_budget(np.ones((1, *SHAPE)), GEOMETRY, **wrong, **OPTIONS)


def test_no_frames_and_no_ratio_are_refused() -> None:
    with pytest.raises(MrczdaskError, match="no frames to take a sample of"):
        md.loss_budget(np.ones((0, *SHAPE)), GEOMETRY, **OPTIONS)
    with pytest.raises(ValueError, match="ratio=nan"):
        md.pick_cutoff(md.loss_budget(np.ones((1, *SHAPE)), GEOMETRY, **OPTIONS), np.nan)


@pytest.mark.parametrize("sectors", [1, 8])
def test_the_size_of_a_file_is_foretold(sectors: int, tmp_path: Path) -> None:
    """But for the maps of the detector, which a file has once."""
    h5py = pytest.importorskip("h5py")
    shape = (240, 250)
    frames = np.random.default_rng(5).poisson(8.0, (30, *shape)).astype(np.uint16)
    frames[:, 50:53, 60:63] += 60
    geometry, options = md.Geometry.flat(shape), {"bins": 200, "unit": "pixel", "sectors": sectors}
    budget = md.loss_budget(frames, geometry, cutoffs=(1.0,), sample=30, **options)
    path = tmp_path / "run.h5"
    md.write_sparse(md.sparsify(frames, geometry, cutoff_pick=1.0, **options), path)
    with h5py.File(path) as file:
        stored = file["entry_0000/sparse_frames"].values()
        maps = sum(each.id.get_storage_size() for each in stored if each.shape == shape)
    assert 30 * float(budget.frame_bytes[0]) == pytest.approx(path.stat().st_size - maps, rel=0.15)


@pytest.mark.real_data
def test_bytes_are_those_of_files(data_dir: Path, tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    from mrczdask.io.frames_writer import packed_frames

    frames = md.open_frames(data_dir / "simulated/bragg_stills.h5", chunks={"shot": 1})[2:4]
    dense = frames.values
    assert sum(map(packed_bytes, dense)) == pytest.approx(sum(map(len, packed_frames(dense))), rel=0.05)
    geometry = md.Geometry.flat(frames.shape[1:], beam_center=(530.8, 513.2))
    options: dict[str, Any] = {"bins": 200, "unit": "pixel", "dummy": 2**32 - 1}
    budget = md.loss_budget(frames, geometry, cutoffs=(1.0,), **options)
    sparse = md.sparsify(frames, geometry, cutoff_pick=1.0, **options)
    md.write_sparse(sparse, tmp_path / "run.h5")
    import h5py

    with h5py.File(tmp_path / "run.h5") as file:
        group = file["entry_0000/sparse_frames"]
        names = ("index", "intensity", "background_avg", "background_std")
        stored = sum(group[name].id.get_storage_size() for name in names)
    assert float(budget.frame_bytes[0]) * 2 == pytest.approx(stored, rel=0.05)
