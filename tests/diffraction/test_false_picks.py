"""The predicted share of background pixels against what `sparsify` keeps, and the background it rests on."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
import pytest

import mrczdask as md
from mrczdask.errors import MrczdaskError

SHAPE = (250, 260)
GEOMETRY = md.Geometry.flat(SHAPE)
OPTIONS: dict[str, Any] = {"bins": 20, "unit": "pixel"}


def dim(mean: float, n: int) -> Any:
    """Poisson frames with one strong pixel in fifty."""
    rng = np.random.default_rng(11)
    frames = rng.poisson(mean, (n, *SHAPE)).astype(np.uint16)
    frames[rng.random(frames.shape) < 0.002] += 60 + int(10 * mean)
    return frames


@pytest.mark.parametrize(("mean", "n"), [(0.01, 100), (0.03, 60), (0.1, 30), (1.0, 8), (100.0, 2)])
def test_the_count_model_finds_the_background_at_any_count(mean: float, n: int) -> None:
    found = md.separate_background(dim(mean, n), GEOMETRY, error_model="count", **OPTIONS).compute()
    weight = found.n_used.values[:, 1:-1]
    level = (found.background_avg.values[:, 1:-1] * weight).sum() / weight.sum()
    assert level == pytest.approx(mean, rel=0.02)


def test_the_other_models_fail_where_counts_are_few() -> None:
    for model in ("azimuthal", "hybrid"):
        found = md.separate_background(dim(0.03, 4), GEOMETRY, error_model=model, **OPTIONS).compute()  # type: ignore[arg-type]
        assert float((found.background_avg == 0).mean()) > 0.5


@pytest.mark.parametrize(
    ("mean", "noise", "cutoff"), [(0.2, 0.0, 3.0), (0.2, 1.0, 2.0), (5.0, 0.5, 1.0), (60.0, 1.0, 2.0)]
)
def test_predicted_and_kept_shares_agree(mean: float, noise: float, cutoff: float) -> None:
    frames = np.random.default_rng(2).poisson(mean, (6, *SHAPE)).astype(np.uint16)
    options = OPTIONS | {"error_model": "count", "noise": noise}
    background = md.separate_background(frames, GEOMETRY, **options)
    expected = float(md.false_picks(background, cutoff_pick=cutoff).expected_pixels.sum())
    kept = int(md.sparsify(frames, background=background, cutoff_pick=cutoff).compute().n_pixels.sum())
    assert abs(kept - expected) < 4 * np.sqrt(expected) + 0.03 * expected + 3


def test_a_normal_background_and_norms() -> None:
    frames = np.random.default_rng(2).normal(500, 20, (4, *SHAPE)).astype(np.float32)
    flat = np.linspace(0.8, 1.2, SHAPE[0] * SHAPE[1]).reshape(SHAPE)
    background = md.separate_background(
        frames * flat, GEOMETRY, error_model="azimuthal", noise=0.0, flat=flat, **OPTIONS
    )
    rate = md.false_picks(background, cutoff_pick=2.0).false_positive_rate.values
    np.testing.assert_allclose(rate, 0.02275, rtol=1e-3)


CENTERS = np.array([[120.3, 133.1], [300.0, -14.0], [70.5, 260.0]])
CORRECTED: dict[str, Any] = {
    "polarization": 0.9,
    "solid_angle": True,
    "flat": np.linspace(0.8, 1.2, SHAPE[0] * SHAPE[1]).reshape(SHAPE),
}


@pytest.mark.parametrize("corrected", [False, True])
def test_rings_are_counted_about_the_beam_of_each_shot(corrected: bool) -> None:
    frames = da.from_array(np.random.default_rng(2).poisson(1.0, (3, *SHAPE)).astype(np.uint16), chunks=(2, *SHAPE))
    extra = CORRECTED if corrected else {}
    geometry = md.Geometry.flat(SHAPE, distance_m=0.1, pixel_size_m=1e-3)
    background = md.separate_background(frames, geometry, beam_centers=CENTERS, **OPTIONS, **extra).compute()
    found = md.false_picks(background, cutoff_pick=2.0)
    low, step = background.radius.values[0], np.diff(background.radius.values).mean()
    for k, center in enumerate(CENTERS):
        moved = geometry.moved(tuple(center))
        ring = np.clip(np.rint((moved.radius("pixel") - low) / step), 0, 19).astype(int).ravel()
        pixels = np.bincount(ring, minlength=20)
        norm = moved.correction(0.9, True) * CORRECTED["flat"] if corrected else np.ones(SHAPE)
        w = np.bincount(ring, norm.ravel(), 20) / np.maximum(pixels, 1)
        average, deviation = background.background_avg.values[k], background.background_std.values[k]
        threshold = w * (average + np.maximum(1.0, 2.0 * np.hypot(deviation, 1.0)))
        seen = np.isfinite(average) & (pixels > 50)
        assert seen.sum() > 8
        np.testing.assert_allclose(found.threshold_counts[k].values[seen], threshold[seen], rtol=2e-4)
        rate = found.false_positive_rate[k].values
        assert float(found.expected_pixels[k]) == pytest.approx(np.nansum(rate * pixels), rel=1e-4)


def test_rings_of_sectors_hold_the_same_pixels() -> None:
    frames = np.random.default_rng(2).poisson(5.0, (2, *SHAPE)).astype(np.uint16)
    options: dict[str, Any] = OPTIONS | {"error_model": "count", "noise": 0.0}
    for extra in ({}, {"beam_centers": CENTERS[:2]}):
        background = md.separate_background(frames, GEOMETRY, sectors=4, **options, **extra)
        found = md.false_picks(background, cutoff_pick=2.0)
        assert found.false_positive_rate.dims == ("shot", "sector", "radius")
        kept = md.sparsify(frames, background=background, cutoff_pick=2.0).compute().n_pixels.values
        expected = found.expected_pixels.values
        assert (np.abs(kept - expected) < 4 * np.sqrt(expected) + 0.05 * expected).all()


def test_nothing_is_computed_and_graphs_of_many_frames_are_small(no_compute: None) -> None:
    import pickle

    lazy = da.zeros((100_000, 128, 128), np.uint16, chunks=(1024, -1, -1))
    background = md.separate_background(lazy, md.Geometry.flat((128, 128)), **OPTIONS)
    found = md.false_picks(background)
    sparse = md.sparsify(lazy, background=background)
    options = OPTIONS | {"beam_centers": np.full((100_000, 2), 60.0)}
    moving = md.false_picks(md.separate_background(lazy, md.Geometry.flat((128, 128)), **options))
    graphs = [one.expected_pixels.data.__dask_graph__() for one in (found, moving)]
    for graph in (*graphs, sparse.__dask_graph__()):
        assert len(pickle.dumps(dict(graph), protocol=5)) < 20e6
        assert len(graph) < 20 * 98


def test_bad_input_is_named() -> None:
    background = md.separate_background(np.ones((1, *SHAPE)), GEOMETRY, **OPTIONS)
    with pytest.raises(ValueError, match="cutoff_pick=-1"):
        md.false_picks(background, cutoff_pick=-1)
    with pytest.raises(MrczdaskError, match="lacks background_std"):
        md.false_picks(background.drop_vars("background_std"))
