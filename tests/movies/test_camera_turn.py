"""Gains of frames that the camera software turned: never applied as they lie without a word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import xarray as xr

import mrczdask as md
from mrczdask.kernels.orientation import oriented
from mrczdask.movies.camera_turn import orientation_between
from tests.mrc_bytes import mrc_bytes

RNG = np.random.default_rng(5)
GAIN = (1 + 0.05 * RNG.standard_normal((24, 16))).astype("f4")


def turned(image: np.ndarray, turn: int) -> np.ndarray:
    """As SerialEM counts: left and right exchanged, then quarter turns counter-clockwise."""
    return np.rot90(image[..., ::-1] if turn >= 4 else image, turn % 4, axes=(-2, -1))


@pytest.mark.parametrize("turn", range(8))
@pytest.mark.parametrize("origins", [("upper", "upper"), ("lower", "upper"), ("upper", "lower"), ("lower", "lower")])
def test_the_name_of_the_turn_turns_the_gain(turn: int, origins: tuple[str, str]) -> None:
    gain_origin, images_origin = origins
    stored = GAIN if gain_origin == "upper" else GAIN[::-1]
    frames = turned(GAIN, turn)
    frames = frames if images_origin == "upper" else frames[::-1]
    name = orientation_between(0, turn, gain_origin, images_origin)
    np.testing.assert_array_equal(oriented(stored, name), frames)
    for other in range(8):  # a gain that is turned itself
        gain = turned(GAIN, other) if gain_origin == "upper" else turned(GAIN, other)[::-1]
        name = orientation_between(other, turn, gain_origin, images_origin)
        np.testing.assert_array_equal(oriented(gain, name), frames)


def movie_of(folder: Path, turn: int, title: str, mdoc: int | None = None, suffix: str = "tif") -> xr.DataArray:
    raw = RNG.poisson(6 / GAIN, (4, *GAIN.shape)).astype("u1")
    frames = np.ascontiguousarray(turned(raw, turn))
    path = folder / f"movie.{suffix}"
    if suffix == "tif":
        tifffile.imwrite(path, frames, photometric="minisblack", metadata=None, description=title)
    else:
        path.write_bytes(mrc_bytes(frames[:, ::-1], 6, labels=(title.encode()[:80],)))
    if mdoc is not None:
        (folder / f"movie.{suffix}.mdoc").write_text(f"[FrameSet = 0]\nNumSubFrames = 4\nRotationAndFlip = {mdoc}\n")
    return md.open_movie(path)


def refused(movie: xr.DataArray, gain: Any) -> str:
    with pytest.raises(ValueError, match="turned by the camera software") as error:
        md.apply_gain(movie, gain)
    return str(error.value).split('orientation="')[1].split('"')[0]


@pytest.mark.parametrize("turn", range(1, 8))
@pytest.mark.parametrize("suffix", ["tif", "mrc"])
@pytest.mark.parametrize("said", ["title", "mdoc", "both"])
def test_a_gain_of_the_camera_is_refused_with_the_turn_named(tmp_path: Path, turn: int, suffix: str, said: str) -> None:
    title = "" if said == "mdoc" else f"SerialEMCCD: Frames . ., scaled by 1.00  r/f {turn}"
    movie = movie_of(tmp_path, turn, title, None if said == "title" else turn, suffix)
    assert movie.attrs["rotation_flip"] == turn
    tifffile.imwrite(tmp_path / "gain.tif", GAIN, photometric="minisblack", metadata=None)
    gain = md.open_gain(tmp_path / "gain.tif")
    name = refused(movie, gain)
    corrected = md.apply_gain(movie, gain, orientation=name).values
    want = turned(GAIN, turn)
    want = want if suffix == "tif" else want[::-1]
    np.testing.assert_allclose(corrected, movie.values * want, rtol=1e-6)
    refused(movie.sum("frame", keep_attrs=True).assign_coords(n_frames=4), gain)
    refused(movie, GAIN)
    as_frames = xr.DataArray(want, dims=("y", "x"), attrs={"origin": movie.origin, "rotation_flip": turn})
    np.testing.assert_allclose(md.apply_gain(movie, as_frames).values, corrected, rtol=1e-6)
    back = md.write_gain(as_frames, tmp_path / f"as_frames.{suffix}")
    assert back.attrs["rotation_flip"] == turn
    np.testing.assert_allclose(md.apply_gain(movie, back).values, corrected, rtol=1e-6)


def test_a_title_that_says_that_frames_were_not_turned(tmp_path: Path) -> None:
    movie = movie_of(tmp_path, 0, "SerialEMCCD: Frames . .,  r/f 0 need 5", mdoc=5)
    assert (movie.attrs["rotation_flip"], movie.attrs["rotation_flip_needed"]) == (0, 5)
    gain = xr.DataArray(GAIN, dims=("y", "x"), attrs={"origin": "upper"})
    np.testing.assert_allclose(md.apply_gain(movie, gain).values, movie.values * GAIN, rtol=1e-6)


def test_a_gain_estimated_from_turned_frames_fits_them() -> None:
    images = xr.DataArray(
        RNG.poisson(30 / GAIN, (20, *GAIN.shape)).astype("u2"),
        dims=("frame", "y", "x"),
        attrs={"origin": "upper", "rotation_flip": 4},
    )
    found = md.estimate_gain(images, method="means", progress=None)
    md.apply_gain(images, found.gain)


def test_movies_of_a_session_that_are_turned_in_different_ways(tmp_path: Path) -> None:
    paths = []
    for k, turn in enumerate((0, 4)):
        (tmp_path / str(k)).mkdir()
        movie_of(tmp_path / str(k), turn, f"r/f {turn}")
        paths.append(tmp_path / str(k) / "movie.tif")
    session = md.open_session(paths, order="name")
    assert session.rotation_flip.values.tolist() == [0, 4]
    with pytest.raises(ValueError, match="turned in different ways"):
        md.apply_gain(session.images, GAIN)
    md.apply_gain(session.images.isel(movie=[0]), xr.DataArray(GAIN, dims=("y", "x"), attrs={"origin": "upper"}))
    same = md.open_session(paths[1:], order="name")
    assert same.images.attrs["rotation_flip"] == 4
    refused(same.images, GAIN)
