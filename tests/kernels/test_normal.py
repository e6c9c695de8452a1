"""Normal deviates against SciPy's distribution."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mrczdask.kernels.normal import fill_normal, normal_vector


def image(shape: tuple[int, int], y0: int = 0, x0: int = 0, key: int = 3, frame: int = 0) -> np.ndarray:
    out = np.empty(shape)
    fill_normal(np.uint64(key), frame, y0, x0, out)
    return out


def test_normal_and_white() -> None:
    pixels = image((512, 512))
    assert stats.kstest(pixels.ravel(), "norm").pvalue > 1e-4
    correlation = np.fft.irfft2(np.abs(np.fft.rfft2(pixels)) ** 2) / (pixels**2).sum()
    correlation[0, 0] = 0
    assert np.abs(correlation).max() < 6.2 / 512
    for other in (image((512, 512), key=4), image((512, 512), frame=1)):
        assert abs(np.corrcoef(pixels.ravel(), other.ravel())[0, 1]) < 5 / 512


def test_neighbours_of_one_draw_are_independent_beyond_correlation() -> None:
    """Box-Muller gives pairs of one radius: their squares are uncorrelated too."""
    squares = image((512, 512)) ** 2
    for step in (1, 2, 3):
        assert abs(np.corrcoef(squares[:, :-step].ravel(), squares[:, step:].ravel())[0, 1]) < 5 / 512


@given(st.integers(0, 20), st.integers(0, 20), st.integers(0, 12), st.integers(0, 12))
@settings(deadline=None, max_examples=50)
def test_any_rectangle(y0: int, x0: int, ny: int, nx: int) -> None:
    assert np.array_equal(image((ny, nx), y0, x0), image((32, 32))[y0 : y0 + ny, x0 : x0 + nx])


def test_vectors_are_prefixes() -> None:
    assert np.array_equal(normal_vector(5, 7), normal_vector(5, 100)[:7])
