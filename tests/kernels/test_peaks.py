"""Peaks against the rule written with SciPy's filters, and against spots of known place and counts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage
from scipy.special import erf

from mrczdask.kernels import bright_pixels
from mrczdask.kernels import peaks as kernel
from mrczdask.kernels.places import Places
from mrczdask.kernels.valid import FINITE

CUTOFF, NOISE, BINS = 3.0, 0.7, 30


def detector(place: NDArray[Any], **maps: Any) -> bright_pixels.Detector:
    n = place.size
    whole = {
        "searched": np.ones(n, bool),
        "norm": np.ones(n, np.float32),
        "dark": np.empty(0, np.float32),
        "bounds": FINITE,
    }
    places = Places(place.astype(np.float32).ravel(), np.empty(0, np.float32))
    return bright_pixels.Detector(place.shape[1], places, **(whole | maps))


def rule(**changes: Any) -> kernel.Rule:
    least = {"cutoff": CUTOFF, "noise": NOISE, "half": 2, "least": 3, "most": 25, "keep_border": False}
    return kernel.Rule(**({**least, "gaps": kernel.FILL, "gain": 1.0, "width": 0.0} | changes))


def found_in(
    frame: NDArray[Any], where: bright_pixels.Detector, how: kernel.Rule, average: Any = 3.0, deviation: Any = 1.7
) -> NDArray[Any]:
    average, deviation = (np.broadcast_to(np.float32(table), BINS).copy() for table in (average, deviation))
    bright, above = np.empty(frame.size + 1, np.uint32), np.empty(frame.size + 1, np.float32)
    segments = bright_pixels.segments_of(where, BINS)
    tables = average, deviation
    n = bright_pixels.find_bright(frame.ravel(), where, segments, how.cutoff, how.noise, *tables, bright, above)
    peaks = np.empty(n, kernel.PEAK)
    n = kernel.measure_peaks(frame.ravel(), where, how, average, deviation, bright[:n], above[:n], peaks)
    return peaks[:n]


def by_filters(
    frame: NDArray[Any], where: bright_pixels.Detector, how: kernel.Rule, average: Any, deviation: Any
) -> dict[str, NDArray[Any]]:
    """The published rule with whole-image filters, in float64."""
    shape, side = frame.shape, 2 * how.half + 1
    place = where.places.radial.reshape(shape).astype(float)
    bad = np.isnan(place) | (frame > where.bounds.high)
    std = np.interp(place, np.arange(BINS), deviation)
    u = np.hypot(std, how.noise)
    d = (frame - where.dark.reshape(shape)) / where.norm.reshape(shape) - np.interp(place, np.arange(BINS), average)
    d = np.where(bad, -np.inf, d)
    high = (d > 0) & (d >= how.cutoff * u)
    maximum = d == ndimage.maximum_filter(d, side, mode="constant", cval=-np.inf)
    ones = np.ones((side, side))
    pixels = ndimage.convolve(high.astype(int), ones.astype(int), mode="constant")
    inside = np.zeros(shape, bool)
    inside[how.half : shape[0] - how.half, how.half : shape[1] - how.half] = True
    peak = high & maximum & (pixels >= how.least) & inside
    positive = np.where(d > 0, d, 0)
    y, x = np.indices(shape)

    def total(image: NDArray[Any]) -> NDArray[Any]:
        return ndimage.convolve(image, ones, mode="constant")[peak]

    intensity = total(positive)
    return {
        "index": np.flatnonzero(peak),
        "y": total(positive * y) / intensity,
        "x": total(positive * x) / intensity,
        "intensity": intensity,
        "sigma_background": np.sqrt(total(np.where(d > 0, u**2, 0))),
        "n_pixels": pixels[peak],
    }


@pytest.mark.parametrize("half", [1, 2])
def test_peaks_are_those_of_the_published_rule(half: int) -> None:
    random = np.random.default_rng(1)
    shape = (90, 130)
    y, x = np.indices(shape)
    place = np.hypot(y - 41.3, x - 70.2) / 3
    place[:, 64:68] = np.nan
    norm = random.uniform(0.5, 1.5, shape).astype(np.float32).ravel()
    dark = random.uniform(0, 2, shape).astype(np.float32).ravel()
    where = detector(place, norm=norm, dark=dark, bounds=FINITE._replace(high=np.float32(65534)))
    average, deviation = np.linspace(30, 4, BINS), np.linspace(5, 2, BINS)
    frame = random.poisson(np.interp(np.nan_to_num(place), np.arange(BINS), average) * norm.reshape(shape))
    for i, j in random.integers(0, (89, 129), (150, 2)):
        frame[i : i + 2, j : j + 2] += random.poisson(60, frame[i : i + 2, j : j + 2].shape)
    frame[random.random(shape) < 0.01] = 65535
    frame = frame.astype(np.uint16)
    how = rule(half=half, gaps=kernel.IGNORE)
    found = found_in(frame, where, how, average, deviation)
    wanted = by_filters(frame.astype(float), where, how, average, deviation)
    assert len(found) > 50
    np.testing.assert_array_equal(found["index"], wanted["index"])
    np.testing.assert_array_equal(found["n_pixels"], wanted["n_pixels"])
    for name in ("y", "x", "intensity", "sigma_background"):
        np.testing.assert_allclose(found[name], wanted[name], rtol=2e-5)
    assert len(found_in(frame, where, how._replace(most=4), average, deviation)) == (wanted["n_pixels"] <= 4).sum()


def test_a_flat_top_is_one_peak() -> None:
    frame = np.full((20, 20), 3.0, np.float32)
    frame[5:8, 6:9] = 90
    frame[12, 4:14] = 50  # longer than a patch
    peaks = found_in(frame, detector(np.zeros((20, 20))), rule())
    assert peaks["index"].tolist() == [5 * 20 + 6, 12 * 20 + 4]


def spots(counts: float, sd: float, *, hidden: int | None) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Spots 10 pixels apart at known places; (frame, places, gap `hidden` pixels right of each)."""
    random = np.random.default_rng(2)
    n, step = 24, 10
    frame, gap = np.zeros((n * step, n * step)), np.zeros((n * step, n * step), bool)
    places = random.uniform(-0.5, 0.5, (n * n, 2))
    edges = np.arange(step + 1) - step / 2 - 0.5
    for k, (dy, dx) in enumerate(places):
        profile = [np.diff(erf((edges - d) / sd / np.sqrt(2))) / 2 for d in (dy, dx)]
        corner = np.array(divmod(k, n)) * step
        frame[corner[0] : corner[0] + step, corner[1] : corner[1] + step] = counts * np.outer(*profile)
        places[k] += corner + step / 2
        if hidden is not None:
            gap[corner[0] : corner[0] + step, corner[1] + step // 2 + hidden : corner[1] + step] = True
    return random.poisson(frame + 3).astype(np.uint16), places, gap


def nearest(places: NDArray[Any], peaks: NDArray[Any]) -> NDArray[np.intp]:
    """The place nearest to each peak."""
    offset = places[:, None] - np.stack([peaks["y"], peaks["x"]], 1)
    return np.hypot(*offset.transpose(2, 0, 1)).argmin(0)


def test_sigma_is_the_scatter_of_the_intensity() -> None:
    frame, places, _ = spots(1000, 0.8, hidden=None)
    peaks = found_in(frame, detector(np.zeros(frame.shape)), rule(noise=0.0, cutoff=5.0))
    assert len(peaks) == len(places)
    assert peaks["sigma"].mean() == pytest.approx(peaks["intensity"].std(), rel=0.1)
    assert peaks["intensity"].std() > 3 * peaks["sigma_background"].mean()
    error = np.stack([peaks["y"], peaks["x"]], 1) - places[nearest(places, peaks)]
    assert np.sqrt((error**2).mean()) < 0.06


def test_weighted_centroids_come_near_the_bound_of_counting() -> None:
    frame, places, _ = spots(120, 0.8, hidden=None)
    rms = []
    for width in (0.0, 1.3):
        peaks = found_in(frame, detector(np.zeros(frame.shape)), rule(width=width, noise=0.0, cutoff=5.0))
        error = np.stack([peaks["y"], peaks["x"]], 1) - places[nearest(places, peaks)]
        assert np.abs(error.mean(0)).max() < 0.015
        rms.append(np.sqrt((error**2).mean()))
    assert rms[1] < min(0.85 * rms[0], 1.2 * bound_of_counting(120, 0.8, 3.0))


def bound_of_counting(counts: float, sd: float, background: float) -> float:
    """Least deviation of a place (Cramer and Rao), mean over where in a pixel it is."""
    edges, step, bounds = np.arange(12) - 5.5, 1e-3, []
    for place in np.linspace(-0.5, 0.5, 11):
        along, moved, other = (np.diff(erf((edges - d) / sd / np.sqrt(2))) / 2 for d in (place, place + step, 0.2))
        slope = counts * np.outer(moved - along, other) / step
        bounds.append((slope**2 / (counts * np.outer(along, other) + background)).sum() ** -0.5)
    return float(np.mean(bounds))


@pytest.mark.parametrize(("hidden", "bias"), [(1, 0.02), (2, 0.01)])
def test_a_gap_beside_a_peak_biases_neither_place_nor_sum(hidden: int, bias: float) -> None:
    frame, places, gap = spots(2000, 0.8, hidden=hidden)
    where = detector(np.where(gap, np.nan, 0))
    found = {}
    for gaps in (kernel.FILL, kernel.IGNORE):
        peaks = found_in(frame, where, rule(gaps=gaps, cutoff=5.0))
        found[gaps] = float((peaks["x"] - places[nearest(places, peaks), 1]).mean()), float(peaks["intensity"].mean())
    assert abs(found[kernel.FILL][0]) < bias < abs(found[kernel.IGNORE][0]) / 3
    assert found[kernel.FILL][1] == pytest.approx(1990, rel=0.02)
    void = found_in(frame, where, rule(gaps=kernel.VOID, cutoff=5.0))
    assert len(void) < 0.05 * len(places)  # maxima a pixel further from the gap


@pytest.mark.parametrize("hidden", [1, 2])
@pytest.mark.parametrize("counts", [1000, 4000])
def test_sigma_is_the_scatter_where_a_gap_was_filled(counts: int, hidden: int) -> None:
    frame, _, gap = spots(counts, 0.8, hidden=hidden)
    peaks = found_in(frame, detector(np.where(gap, np.nan, 0)), rule(noise=0.0, cutoff=5.0))
    pull = (peaks["intensity"] - peaks["intensity"].mean()) / peaks["sigma"]
    assert pull.std() == pytest.approx(1, abs=0.1)
    assert np.sqrt((peaks["sigma"] ** 2).mean()) == pytest.approx(peaks["intensity"].std(), rel=0.1)
    if hidden == 1:  # the fit leans on few pixels: what it fills in is less certain than what was counted
        assert peaks["sigma"].mean() > 2 * np.sqrt(peaks["intensity"].mean())


def test_peaks_over_the_border_by_choice() -> None:
    frame = np.full((30, 30), 3, np.uint16)
    frame[0:2, 10:12] = [[500, 300], [400, 200]]
    frame[28:30, 0:2] = 400
    where = detector(np.zeros((30, 30)))
    assert not len(found_in(frame, where, rule()))
    kept = found_in(frame, where, rule(keep_border=True))
    assert kept["index"].tolist() == [10, 28 * 30]


def test_empty_frames_and_masked_ones_have_no_peak() -> None:
    where = detector(np.full((12, 12), np.nan))
    assert not len(found_in(np.full((12, 12), 10**4, np.uint16), where, rule()))
    frame = np.full((12, 12), np.nan, np.float32)
    assert not len(found_in(frame, detector(np.zeros((12, 12))), rule()))
    assert not len(found_in(np.empty((0, 5), np.float32), detector(np.empty((0, 5))), rule()))
