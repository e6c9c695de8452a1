"""The accessor `.em`: what it shows is right, and it reads no more than it shows."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
import xarray as xr
from matplotlib import pyplot as plt

import mrczdask as md
from mrczdask.errors import MissingExtraError
from mrczdask.io import source

mpl.use("Agg")


@pytest.fixture(autouse=True)
def no_figures_left() -> Iterator[None]:
    yield
    plt.close("all")


@pytest.fixture
def movie(tmp_path: Path) -> xr.DataArray:
    frames = md.simulate.poisson((12, 96, 80), mean=1.5, seed=1).assign_attrs(pixel_size_angstrom=1.06)
    return md.write_mrcz(frames, tmp_path / "grid.mrcz")


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of what is read from files."""
    sizes: list[int] = []
    plain = source._LocalSource.read_at

    def counting(self: source._LocalSource, offset: int, size: int) -> bytes:
        sizes.append(size)
        return plain(self, offset, size)

    monkeypatch.setattr(source._LocalSource, "read_at", counting)
    return sizes


@pytest.fixture
def lengths(movie: xr.DataArray) -> list[int]:
    """Compressed bytes of each frame."""
    return md.frame_index(movie.encoding["source"]).length.values.tolist()


def shown(ax: plt.Axes) -> np.ndarray:
    return np.asarray(ax.images[0].get_array())


def test_plot_reads_the_frame_it_shows(movie: xr.DataArray, lengths: list[int], read: list[int]) -> None:
    ax = movie.em.plot(frame=7)
    assert read == [lengths[7]]
    np.testing.assert_array_equal(shown(ax), movie[7])
    assert ax.get_title() == "grid, frame 7"
    assert plt.get_fignums() == [ax.figure.number]


def test_a_lazily_opened_dataset_is_plotted(movie: xr.DataArray, lengths: list[int], read: list[int]) -> None:
    ds = xr.open_dataset(movie.encoding["source"], engine="mrcz")
    read.clear()
    np.testing.assert_array_equal(shown(ds.em.plot(3)), movie[3])
    assert read[0] == lengths[3]


def test_frames_count_from_the_end_and_keep_their_numbers(movie: xr.DataArray) -> None:
    assert movie.em.plot().get_title() == "grid, frame 0"
    assert movie.em.plot(-1).get_title() == "grid, frame 11"
    assert movie[5].em.plot().get_title() == "grid, frame 5"
    assert movie[4:].em.plot(1).get_title() == "grid, frame 5"
    np.testing.assert_array_equal(shown(movie.em.plot(-1)), movie[11])


@pytest.mark.parametrize("frame", ["sum", "mean"])
def test_sum_and_mean(movie: xr.DataArray, frame: str) -> None:
    ax = movie.em.plot(frame)
    expected = movie.values.sum(0) / (1 if frame == "sum" else 12)
    np.testing.assert_allclose(shown(ax), expected, rtol=1e-6)
    assert ax.get_title() == f"grid, {frame} of 12 frames"
    assert movie.em.image(frame).attrs["pixel_size_angstrom"] == 1.06


def test_contrast_is_that_of_the_percentiles(movie: xr.DataArray) -> None:
    low, high = movie.em.plot("sum", percentiles=(2, 90)).images[0].get_clim()
    assert (low, high) == tuple(np.percentile(movie.values.sum(0), (2, 90)))


def test_the_graph_of_an_image_is_only_built(movie: xr.DataArray, no_compute: None, read: list[int]) -> None:
    for frame in (None, 3, "sum", "mean"):
        assert movie.em.image(frame).dims == ("y", "x")
    assert read == []


def test_a_session_asks_for_a_movie(movie: xr.DataArray) -> None:
    session = md.open_session([movie.encoding["source"]], order="given")
    for images in (session, session.images):
        with pytest.raises(ValueError, match=r"select with \.isel\(movie=0\) first"):
            images.em.plot()
    assert session.isel(movie=0).em.plot().get_title() == "grid, frame 0"


@pytest.mark.parametrize(
    ("frame", "error", "match"),
    [
        (12, IndexError, "^frame=12: the movie has 12 frames$"),
        (-13, IndexError, "^frame=-13: the movie has 12 frames$"),
        ("median", ValueError, '^frame=\'median\': give the position of a frame, "sum" or "mean"$'),
        (1.0, ValueError, "^frame=1.0: give the position"),
        (True, ValueError, "^frame=True: give the position"),
    ],
)
def test_a_wrong_frame_is_refused(movie: xr.DataArray, frame: object, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        movie.em.plot(frame)
    assert plt.get_fignums() == []


def test_wrong_arrays_are_refused(movie: xr.DataArray) -> None:
    with pytest.raises(ValueError, match=r"^frame=2: the array has no dim 'frame', only \('y', 'x'\)$"):
        movie[0].em.plot(2)
    with pytest.raises(ValueError, match=r'no variable "images": use \.em of one of its own \(mask\)'):
        xr.Dataset({"mask": (("y", "x"), np.zeros((2, 2), bool))}).em.plot()
    with pytest.raises(ValueError, match=r"an image has the shape \(y, x\)"):
        xr.DataArray(np.arange(4.0), dims="x").em.plot()


def test_masks_complex_images_and_colour_are_drawn() -> None:
    mask = np.zeros((40, 40), bool)
    mask[3, 5] = True
    ax = xr.DataArray(mask, dims=("y", "x")).em.plot()
    assert ax.images[0].get_clim() == (0, 1)
    np.testing.assert_array_equal(shown(ax), mask)
    ax = xr.DataArray(np.full((2, 3, 4), 3 + 4j), dims=("frame", "y", "x")).em.plot(1)
    assert (shown(ax) == 5).all()
    bands = xr.DataArray(np.zeros((2, 6, 7, 3), np.uint8), dims=("frame", "y", "x", "band"))
    assert shown(bands.em.plot(0)).shape == (6, 7, 3)
    diffraction = xr.DataArray(np.zeros((5, 6)), dims=("ky", "kx"))
    assert shown(diffraction.em.plot()).shape == (5, 6)


def test_without_matplotlib_the_extra_is_named(movie: xr.DataArray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"mrczdask\[plot\]"):
        movie.em.plot()


def test_load_equals_compute(movie: xr.DataArray) -> None:
    done: list[tuple[int, int]] = []
    again = md.open_movie(movie.encoding["source"], chunks={"frame": 5, "y": 40})
    loaded = again.em.load(progress=lambda k, n, _: done.append((k, n)))
    assert isinstance(loaded.data, np.ndarray)
    xr.testing.assert_identical(loaded, movie.compute())
    assert done[-1] == (9, 9)
    xr.testing.assert_identical((movie + 1).em.load(), (movie + 1).compute())
    session = md.open_session([movie.encoding["source"]], order="given")
    np.testing.assert_array_equal(session.images.em.load()[0], movie)


def test_every_position_of_the_slider_reads_its_frame(movie: xr.DataArray, lengths: list[int], read: list[int]) -> None:
    pytest.importorskip("hvplot")
    slider = movie.assign_coords(frame=np.arange(12) + 100).em.slider(percentiles=(1, 99))
    assert read == []
    element = slider[107]  # the number of the frame, not its position
    assert read == [lengths[7]]
    np.testing.assert_array_equal(element.dimension_values(2, flat=False), movie[7])
    assert element.range("x") == (0, pytest.approx(80 * 0.106))  # nm
    assert element.opts.get("plot").kwargs["clim"] == tuple(np.percentile(movie[7], (1, 99)))


def test_the_slider_of_a_session_has_movies_and_frames(movie: xr.DataArray, read: list[int]) -> None:
    pytest.importorskip("hvplot")
    session = md.open_session([movie.encoding["source"]], order="given")
    read.clear()
    slider = session.em.slider()
    assert [(dim.name, len(dim.values)) for dim in slider.kdims] == [("movie", 1), ("frame", 12)]
    assert read == []
    assert slider["grid", 4].interface.shape(slider["grid", 4], gridded=True) == (96, 80)


def test_an_image_has_no_slider(movie: xr.DataArray) -> None:
    pytest.importorskip("hvplot")
    with pytest.raises(ValueError, match="a slider needs a dim before y and x"):
        movie[0].em.slider()


def test_diffraction_patterns_slide_over_the_scan() -> None:
    pytest.importorskip("hvplot")
    patterns = np.random.default_rng(0).poisson(3, (2, 3, 16, 20))
    slider = xr.DataArray(patterns, dims=("scan_y", "scan_x", "ky", "kx")).em.slider(cmap="viridis")
    element = slider[1, 2]
    np.testing.assert_array_equal(element.dimension_values(2, flat=False), patterns[1, 2])
    assert element.opts.get("style").kwargs["cmap"] == "viridis"


def test_slider_without_hvplot_names_the_extra(movie: xr.DataArray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hvplot.xarray", None)
    with pytest.raises(MissingExtraError, match=r"mrczdask\[plot\]"):
        movie.em.slider()


def test_header_and_views_are_those_of_the_report(movie: xr.DataArray, read: list[int], no_compute: None) -> None:
    assert movie.em.header["shape"] == (12, 96, 80)
    assert movie.to_dataset().em.header == movie.em.header
    assert re.search(r"^pixel size +1\.06 Å$", repr(movie.em), re.MULTILINE)
    assert "compressed bits per pixel, 12 frames" in movie.em._repr_html_()
    assert read == []
