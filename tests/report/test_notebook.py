"""What a notebook shows: complete, escaped, and drawn to scale."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import mrczdask as md
from mrczdask.report.notebook import BARS, bar_chart, movie_html


@pytest.fixture
def movie(tmp_path: Path) -> xr.DataArray:
    frames = md.simulate.poisson((6, 64, 80), mean=1.5, seed=1).assign_attrs(pixel_size_angstrom=1.06)
    return md.write_mrcz(frames, tmp_path / "grid.mrcz", metadata={"note": "<b>&"})


def bars(svg: str) -> list[ET.Element]:
    return list(ET.fromstring(svg).iter("rect"))


def test_a_movie_shows_facts_sizes_header_and_history(movie: xr.DataArray, no_compute: None) -> None:
    html = movie_html(movie.assign_attrs(history="poisson(mean=1.5)"))
    for piece in ("grid", "uint8", "1.06", "MRC header", "zstd", "bits per pixel, 6 frames", "history", "poisson"):
        assert piece in html, piece
    assert "<b>&" not in html
    assert "&lt;b&gt;&amp;" in html
    assert ET.fromstring(html) is not None  # every tag is closed: a notebook embeds it in a page
    tips = re.findall(r"<title>frame (\d+): ([\d.]+) bits per pixel</title>", html)
    lengths = md.frame_index(movie.encoding["source"]).length.values
    assert [int(k) for k, _ in tips] == list(range(6))
    np.testing.assert_allclose([float(bits) for _, bits in tips], lengths * 8 / (64 * 80), atol=5e-4)


def test_a_session_shows_a_bar_a_movie(movie: xr.DataArray) -> None:
    other = md.write_mrcz(movie, Path(movie.encoding["source"]).with_name("other.mrcz"), codec="lz4")
    html = movie_html(md.open_session([movie.encoding["source"], other.encoding["source"]], order="given").images)
    assert "2 movies" in html
    assert html.count("<rect") == 2


@pytest.mark.parametrize("images", [xr.DataArray(np.zeros((3, 4))), xr.DataArray(np.zeros(0), name="<x>")])
def test_any_array_is_shown(images: xr.DataArray) -> None:
    html = movie_html(images)
    assert "float64" in html
    assert "svg" not in html
    assert "<x>" not in html


def test_bars_are_as_high_as_their_values() -> None:
    values = np.array([1.0, 2.0, 4.0])
    heights = np.array([float(bar.get("height", 0)) for bar in bars(bar_chart(values, "frame"))])
    np.testing.assert_allclose(heights / heights[-1], values / 4, atol=2e-3)


def test_many_frames_share_bars() -> None:
    values = np.arange(1000.0)
    drawn = bars(bar_chart(values, "frame"))
    assert len(drawn) == BARS
    assert drawn[0].findtext("title") == "frames 0 to 8: 4.000 bits per pixel"
    edge = max(float(bar.get("x", 0)) + float(bar.get("width", 0)) for bar in drawn)
    assert edge <= 400


@pytest.mark.parametrize("values", [[0.0, 0.0], [2.5], [1e-4, 2e-4]])
def test_odd_values_are_drawn(values: list[float]) -> None:
    assert len(bars(bar_chart(np.array(values), "frame"))) == len(values)
