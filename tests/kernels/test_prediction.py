"""Prediction: residuals against a plain form, the fit against a known optimum, every pixel back."""

from __future__ import annotations

import numpy as np
import pytest

from mrczdask.kernels import prediction as p
from mrczdask.kernels import prediction_model as models


def plain_residuals(
    rows: np.ndarray, height: int, model: np.ndarray, starts: np.ndarray
) -> tuple[list[int], list[int]]:
    """The specification, pixel by pixel: docs/codecs.md."""
    w0, w1, w2, w3, bias, shift, low, high, _, bits, context_shift = (int(n) for n in model)
    n, width = rows.shape
    length = -(-n // 8)
    folded, contexts = [], []
    for t in range(length):
        for c in range(width):
            for lane in range(8):
                r = lane * length + t
                if r >= n:
                    continue
                x = [int(v) for v in rows[r]]
                if t == 0 or r % height == 0:
                    predicted = x[c - 1] if c else low
                else:
                    above = [int(v) for v in rows[r - 1]]
                    west, north_west = (x[c - 1], above[c - 1]) if c else (above[c], above[c])
                    north_east = above[c + 1] if c + 1 < width else above[c]
                    predicted = (w0 * west + w1 * above[c] + w2 * north_west + w3 * north_east + bias) >> shift
                predicted = min(max(predicted, low), high)
                residual = (x[c] - predicted) % 2**bits
                residual -= 2**bits if residual >= 2 ** (bits - 1) else 0
                folded.append(2 * residual if residual >= 0 else -2 * residual - 1)
                contexts.append(int(np.searchsorted(starts, (predicted - low) >> context_shift, "right")))
    return folded, contexts


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "uint32"])
@pytest.mark.parametrize(("rows", "height", "width"), [(1, 1, 7), (9, 3, 5), (24, 8, 2), (30, 30, 1), (64, 16, 11)])
def test_residuals_are_those_of_the_specification(dtype: str, rows: int, height: int, width: int) -> None:
    info = np.iinfo(dtype)
    pixels = np.random.default_rng(0).integers(info.min, info.max, (rows, width), dtype, endpoint=True)
    model = models.classic(int(pixels.min()), int(pixels.max()), info.bits)
    model[: p.SHIFT + 1] = 3000, 2500, -1900, 600, 2048, 12
    starts = np.array([5, 900, 2000])
    folded, contexts = p.residuals(pixels, height, model, models.lookup_of(starts))
    expected = plain_residuals(pixels, height, model, starts)
    assert folded.tolist() == expected[0]
    assert contexts.tolist() == expected[1]
    whole, by_line = p.symbols_of(folded, contexts), p.residual_symbols(pixels, height, model, models.lookup_of(starts))
    for a, b in zip(whole, by_line, strict=True):
        np.testing.assert_array_equal(a, b)


def test_classic_predictor_is_the_published_one() -> None:
    image = np.random.default_rng(0).integers(0, 1000, (1, 2, 9)).astype(np.uint16)
    model = models.classic(0, 1000, 16)
    folded, _ = p.residuals(image[0], 2, model, np.zeros(p.LOOKUP, np.uint8))
    # two rows are two lanes, which begin anew; one image of many rows shows (W + N) >> 1
    tall = np.random.default_rng(1).integers(0, 1000, (80, 9)).astype(np.uint16)
    folded, _ = p.residuals(tall, 80, model, np.zeros(p.LOOKUP, np.uint8))
    r, c = 12, 4  # lane 1, its third row
    residual = int(tall[r, c]) - (int(tall[r, c - 1]) + int(tall[r - 1, c])) // 2
    assert folded.reshape(10, 9, 8)[2, c, 1] == (2 * residual if residual >= 0 else -2 * residual - 1)


def test_fit_finds_the_weights_of_a_known_process() -> None:
    rng = np.random.default_rng(0)
    true = np.array([0.55, 0.6, -0.35, 0.15])
    image = np.zeros((300, 300))
    noise = rng.normal(0, 20, image.shape)
    for r in range(1, 300):
        for c in range(1, 299):
            near = np.array([image[r, c - 1], image[r - 1, c], image[r - 1, c - 1], image[r - 1, c + 1]])
            image[r, c] = true @ near + noise[r, c]
    pixels = np.rint(image + 5000).astype(np.uint16)
    model = models.fitted(pixels, 300, int(pixels.min()), int(pixels.max()), 16)
    np.testing.assert_allclose(model[:4] / 4096, true, atol=0.03)


def test_bright_noise_gets_its_own_contexts() -> None:
    means = np.repeat(np.array([10.0, 400.0]), 100)[None, :] * np.ones((200, 1))
    pixels = np.random.default_rng(0).poisson(means).astype(np.uint16)
    model = models.fitted(pixels, 200, int(pixels.min()), int(pixels.max()), 16)
    starts = models.contexts(pixels, 200, model)
    assert 1 <= starts.size <= 15
    intensities = starts << model[p.CONTEXT_SHIFT]
    assert ((intensities > 20) & (intensities < 300)).any()


@pytest.mark.parametrize("constant", [0, 77])
def test_flat_images_fit_without_a_warning(constant: int) -> None:
    pixels = np.full((64, 64), constant, np.uint16)
    pixels[3, 3] += 1
    model = models.fitted(pixels, 64, constant, constant + 1, 16)
    p.residuals(pixels, 64, model, models.lookup_of(models.contexts(pixels, 64, model)))


def test_symbols_are_coded_once() -> None:
    """The words take their place: a second time they would be other symbols, of tables that there are not."""
    symbols = np.full(4000, 0x0FFF, np.uint16)
    tables = np.full((p.CONTEXTS, 256), 16, np.uint16)
    p.encode_lanes(symbols, tables, 40, 100)
    with pytest.raises(ValueError, match="coded before"):
        p.encode_lanes(symbols, tables, 40, 100)
    with pytest.raises(ValueError, match="4000 symbols for 50 x 100 pixels"):
        p.encode_lanes(symbols.copy(), tables, 50, 100)
    p.encode_lanes(np.full(4000, 0xFFFF, np.uint16), tables, 40, 100)  # no context 255: nothing outside is read
