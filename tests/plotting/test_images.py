"""Pictures drawn: contrast, scale bars and axes against numbers worked out by hand."""

from __future__ import annotations

import time
from collections.abc import Iterator

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib import pyplot as plt
from mpl_toolkits.axes_grid1.anchored_artists import AnchoredSizeBar
from numpy.typing import NDArray

from mrczdask.plotting import COLOURS, STYLE, axes_or_new, bin_image, draw_image, scale_bar

mpl.use("Agg")


@pytest.fixture(autouse=True)
def no_figures_left() -> Iterator[None]:
    yield
    plt.close("all")


def test_a_single_bad_pixel_of_a_mask_stays_white() -> None:
    mask = np.zeros((1000, 1000), bool)
    mask[617, 3] = True
    shown, _ = bin_image(mask, largest=100)
    assert (shown[61, 0], shown.sum()) == (1, 1)
    assert draw_image(mask).images[0].get_clim() == (0, 1)


def test_contrast_of_a_large_image_is_that_of_what_is_seen() -> None:
    counts = np.random.default_rng(0).poisson(100, (1536, 1536))
    ax = plt.figure(figsize=(2.56, 2.56), dpi=100).add_axes((0, 0, 1, 1))  # 256 pixels: blocks of 6
    low, high = draw_image(counts, ax=ax, percentiles=(2.275, 97.725)).images[0].get_clim()  # 2 standard deviations
    assert high - low == pytest.approx(4 * 10 / 6, rel=0.03)
    assert ax.images[0].get_array().shape == (768, 768)


@pytest.mark.parametrize(
    ("width", "pixel", "pixels", "label"),
    [
        (1000, 1.0, 200.0, "20 nm"),  # a quarter is 250 angstrom: 200 is the longest round length
        (4096, 1.06, 1000 / 1.06, "100 nm"),
        (100, 0.2, 25.0, "5 Å"),
        (512, 1000.0, 100.0, "10 µm"),
    ],
)
def test_scale_bars_are_round_and_fit(width: float, pixel: float, pixels: float, label: str) -> None:
    assert scale_bar(width, pixel) == (pytest.approx(pixels), label)


def bar_in_pixels(ax: plt.Axes) -> tuple[float, str]:
    """Length of the scale bar as it is drawn, in pixels of the image, and its label."""
    (bar,) = (artist for artist in ax.artists if isinstance(artist, AnchoredSizeBar))
    ax.figure.canvas.draw()
    box = bar.size_bar.get_window_extent(ax.figure.canvas.get_renderer())
    ends = ax.transData.inverted().transform([(box.x0, 0), (box.x1, 0)])
    return float(ends[1, 0] - ends[0, 0]), bar.txt_label.get_text()


@pytest.mark.parametrize("shape", [(500, 1000), (2500, 5000), (300, 200)])
@pytest.mark.parametrize("origin", ["lower", "upper"])
def test_the_bar_has_its_length_in_the_picture(shape: tuple[int, int], origin: str) -> None:
    ax = draw_image(np.zeros(shape), pixel_size_angstrom=2.0, origin=origin)
    length, label = bar_in_pixels(ax)
    expected = {1000: "50 nm", 5000: "200 nm", 200: "10 nm"}[shape[1]]
    assert label == expected
    assert length * 2.0 == pytest.approx(10 * float(expected.split()[0]), rel=0.01)


def test_the_bar_stays_right_in_a_zoom() -> None:
    ax = draw_image(np.zeros((1000, 1000)), pixel_size_angstrom=2.0)
    ax.set(xlim=(0, 300), ylim=(0, 300))
    assert bar_in_pixels(ax) == (pytest.approx(250, rel=0.01), "50 nm")


def test_pixels_that_are_not_square_are_drawn_so() -> None:
    ax = draw_image(np.zeros((100, 200)), pixel_size_angstrom=[1.0, 3.0])
    assert ax.get_aspect() == 3
    assert bar_in_pixels(ax) == (pytest.approx(50, rel=0.01), "5 nm")


def test_without_a_pixel_size_the_axes_count_pixels() -> None:
    ax = draw_image(np.zeros((3000, 2000)))
    assert ax.get_xlabel() == "x (pixels)"
    assert ax.get_ylabel() == "y (pixels)"
    assert ax.get_xlim()[1] == pytest.approx(2000, abs=3)
    assert not ax.artists


def test_a_colour_bar_has_its_label() -> None:
    ax = draw_image(np.eye(9), colorbar="counts")
    assert [bar.get_ylabel() for bar in ax.child_axes] == ["counts"]


@pytest.mark.parametrize(
    ("image", "options", "match"),
    [
        (np.zeros(4), {}, r"an image has the shape \(y, x\) or \(y, x, 3\), this array has \(4,\)"),
        (np.zeros((4, 4, 2)), {}, r"this array has \(4, 4, 2\)"),
        (np.zeros((0, 4)), {}, r"no pixels: its shape is \(0, 4\)"),
        (np.array([["a"]]), {}, "pixels of dtype <U1 cannot be drawn"),
        (np.zeros((2, 2)), {"origin": "left"}, "^origin='left': give"),
        (np.zeros((2, 2)), {"percentiles": (9, 1)}, r"^percentiles=\(9, 1\): give two rising numbers"),
        (np.zeros((2, 2)), {"pixel_size_angstrom": 0}, "^pixel_size_angstrom=0: give one positive number"),
        (np.zeros((2, 2)), {"pixel_size_angstrom": (1, 2, 3)}, "give one positive number"),
    ],
)
def test_bad_inputs_are_refused_before_a_figure_is_made(
    image: NDArray[np.generic], options: dict[str, object], match: str
) -> None:
    with pytest.raises(ValueError, match=match):
        draw_image(image, **options)
    assert plt.get_fignums() == []


def test_given_axes_are_used_and_no_figure_is_added() -> None:
    _, axes = plt.subplots(1, 2)
    assert draw_image(np.eye(4), ax=axes[1]) is axes[1]
    assert len(plt.get_fignums()) == 1


def test_a_4k_frame_is_drawn_in_less_than_a_second() -> None:
    frame = np.random.default_rng(0).poisson(1.5, (4096, 4096)).astype("u1")
    draw_image(frame[:64, :64], pixel_size_angstrom=1.06).figure.canvas.draw()  # fonts are found once
    begin = time.thread_time()
    draw_image(frame, pixel_size_angstrom=1.06).figure.canvas.draw()
    assert time.thread_time() - begin < 1


def test_the_style_is_of_matplotlib() -> None:
    with plt.style.context(STYLE):
        assert plt.rcParams["axes.prop_cycle"].by_key()["color"] == list(COLOURS)
    assert axes_or_new(None).title.get_fontsize() == STYLE["axes.titlesize"]


@pytest.mark.parametrize(("origin", "first"), [("lower", 0), ("upper", 3)])
def test_origin_puts_the_first_row_where_it_belongs(origin: str, first: int) -> None:
    ax = draw_image(np.arange(12).reshape(4, 3), origin=origin)
    bottom, top = ax.get_ylim()
    assert (bottom < top) == (first == 0)
    plt.close(ax.figure)


def test_colour_bands_are_drawn() -> None:
    ax = draw_image(np.random.default_rng(0).integers(0, 255, (8, 8, 3)))
    assert ax.images[0].get_array().shape == (8, 8, 3)
    plt.close(ax.figure)
