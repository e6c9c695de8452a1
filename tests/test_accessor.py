"""The accessor `.em`: what it shows is right, and it reads no more than it shows."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
import xarray as xr
from matplotlib import pyplot as plt

import mrczdask as md
from mrczdask.io import source
from mrczdask.report import bits_per_frame, describe

mpl.use("Agg")


@pytest.fixture
def movie(tmp_path: Path) -> xr.DataArray:
    frames = md.simulate.poisson((12, 96, 80), mean=1.5, seed=1).assign_attrs(pixel_size_angstrom=1.06)
    return md.write_mrcz(frames, tmp_path / "grid.mrcz", metadata={"note": "<b>&"})


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


def test_header_is_that_of_the_file(movie: xr.DataArray) -> None:
    assert movie.em.header.shape == (12, 96, 80)
    assert xr.DataArray(np.zeros((2, 2))).em.header is None


def test_plot_reads_one_frame(movie: xr.DataArray, read: list[int]) -> None:
    one = md.open_movie(movie.encoding["source"], chunks={"frame": 1})
    table = md.frame_index(movie.encoding["source"])
    read.clear()
    ax = one.em.plot(frame=7)
    assert read == [int(table.length[7])]
    shown = ax.images[0].get_array()
    np.testing.assert_array_equal(shown, movie[7])
    assert ax.get_title() == "grid, frame 7"
    plt.close(ax.figure)


@pytest.mark.parametrize("frame", ["sum", "mean"])
def test_sum_and_mean(movie: xr.DataArray, frame: str) -> None:
    ax = movie.em.plot(frame)
    expected = movie.values.sum(0) / (1 if frame == "sum" else 12)
    np.testing.assert_allclose(ax.images[0].get_array(), expected, rtol=1e-6)
    plt.close(ax.figure)


def test_a_session_asks_for_a_movie(movie: xr.DataArray) -> None:
    session = md.open_session([movie.encoding["source"]], order="given")
    with pytest.raises(ValueError, match=r"select with \.isel\(movie=0\) first"):
        session.images.em.plot()
    ax = session.images.isel(movie=0).em.plot()
    plt.close(ax.figure)


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


def test_html_shows_header_and_sizes_without_reading(movie: xr.DataArray, read: list[int]) -> None:
    html = movie.em._repr_html_()
    assert read == []
    for piece in ("grid", "uint8", "1.06 angstrom", "MRC mode 0, blosc", "bits per pixel, 12 frames"):
        assert piece in html
    assert html.count("<rect") == 12
    assert "<b>&" not in html


def test_bits_are_those_of_the_index(movie: xr.DataArray) -> None:
    bits = bits_per_frame(movie)
    lengths = md.frame_index(movie.encoding["source"]).length.values
    np.testing.assert_allclose(bits, 8 * lengths / (96 * 80))
    assert bits_per_frame(movie + 1) is None


def test_repr_and_description_name_dose_and_tilt(movie: xr.DataArray) -> None:
    named = movie.assign_coords(dose=("frame", np.arange(12.0)))
    assert describe(named)["dose"] == "0 to 11 e/angstrom^2"
    assert re.search(r"^pixel size +1\.06 angstrom$", repr(named.em), re.MULTILINE)


def test_slider_is_lazy(movie: xr.DataArray, read: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("hvplot")
    read.clear()
    slider = movie.em.slider()
    assert type(slider).__name__ in ("DynamicMap", "HoloMap")
    assert read == []


def test_slider_without_hvplot_names_the_extra(movie: xr.DataArray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hvplot.xarray", None)
    with pytest.raises(md.errors.MissingExtraError, match=r"mrczdask\[plot\]"):
        movie.em.slider()
