"""The response of a detector has the parts that were asked for."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage, stats

import mrczdask as md
from mrczdask.simulate import Gain

SIDE = 400


def response(seed: int = 1, **parts: float) -> NDArray[np.float32]:
    truth = md.simulate.movie((1, SIDE, SIDE), gain=Gain(**parts), seed=seed).truth
    return truth.response.values


def test_columns_and_rows_are_lines_of_the_asked_deviation() -> None:
    columns, rows = response(column_sd=0.03), response(row_sd=0.02)
    assert np.ptp(columns, axis=0).max() == 0
    assert np.ptp(rows, axis=1).max() == 0
    assert stats.kstest((columns[0] - 1) / 0.03, "norm").pvalue > 1e-3
    assert stats.kstest((rows[:, 0] - 1) / 0.02, "norm").pvalue > 1e-3
    assert abs(np.corrcoef(columns[0], rows[:, 0])[0, 1]) < 5 / SIDE**0.5


def test_pixels_are_white() -> None:
    pixels = response(pixel_sd=0.05)
    assert stats.kstest((pixels.ravel() - 1) / 0.05, "norm").pvalue > 1e-3
    assert abs(pixels.mean(0).std() * SIDE**0.5 / 0.05 - 1) < 0.2


def test_the_smooth_part_is_smooth() -> None:
    deviations = []
    for seed in range(12):
        field = response(seed=seed, smooth_sd=0.05).astype(float)
        deviations.append(field.std())
        blurred = ndimage.uniform_filter(field, 5, mode="nearest")
        assert (field - blurred).std() < 0.02 * field.std()
    assert abs(np.mean(deviations) - 0.05) < 0.01


def test_parts_multiply() -> None:
    parts = dict.fromkeys(("smooth_sd", "column_sd", "row_sd", "pixel_sd"), 0.05)
    single = [response(**{name: sd}).astype(float) for name, sd in parts.items()]
    assert np.allclose(response(**parts), np.prod(single, axis=0), atol=1e-6)


def test_no_response_is_below_the_floor() -> None:
    assert response(pixel_sd=0.5).min() == np.float32(0.05)


@pytest.mark.parametrize("bad", [-0.01, 0.6, np.nan, "big"])
def test_ranges(bad: object) -> None:
    with pytest.raises(ValueError, match=r"Gain: row_sd=.*: give a number from 0 to 0.5"):
        Gain(row_sd=bad)  # type: ignore[arg-type]
