from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

import mrczdask as md
from mrczdask.errors import MrcFormatError, MrczdaskWarning
from tests.io.test_eer import SHAPE, camera_frames, render, write_eer
from tests.mrc_bytes import counts, mrc_bytes


def eer_session(folder: Path, lengths: list[int]) -> list[np.ndarray]:
    """EER movies of some numbers of camera frames, and what is in them."""
    truth = []
    for k, n in enumerate(lengths):
        frames = camera_frames(n, SHAPE, seed=k)
        write_eer(folder / f"movie_{k}.eer", frames, SHAPE)
        truth.append(render(frames, SHAPE, 1))
    return truth


def test_movies_of_unequal_length_are_refused_or_cut(tmp_path: Path, no_compute: None) -> None:
    import dask

    truth = eer_session(tmp_path, [8, 9, 7])
    with pytest.raises(MrcFormatError, match=r'lengths="shortest" \(--lengths shortest\)'):
        md.open_session(f"{tmp_path}/*.eer", order="name")
    session = md.open_session(f"{tmp_path}/*.eer", order="name", lengths="shortest")
    assert session.images.shape == (3, 7, *SHAPE)
    assert session.n_frames.values.tolist() == [7, 7, 7]
    with dask.config.set(scheduler="threads"):
        np.testing.assert_array_equal(session.images.values, [movie[:7] for movie in truth])
        np.testing.assert_array_equal(md.sum_frames(session.images).values, [movie[:7].sum(0) for movie in truth])
    with pytest.raises(ValueError, match="lengths='pad': give \"same\""):
        md.open_session(f"{tmp_path}/*.eer", lengths="pad")


def test_whole_fractions_may_be_of_one_length_already(tmp_path: Path) -> None:
    truth = eer_session(tmp_path, [8, 9, 10])
    session = md.open_session(f"{tmp_path}/*.eer", order="name", frames_per_fraction=4)
    want = [movie[:8].reshape(2, 4, *SHAPE).sum(axis=1) for movie in truth]
    np.testing.assert_array_equal(session.images.values, want)


def test_a_movie_that_was_stopped_does_not_shorten_the_others(tmp_path: Path) -> None:
    for k, n in enumerate((8, 8, 7, 2)):
        (tmp_path / f"m{k}.mrc").write_bytes(mrc_bytes(counts((n, 6, 5), "i2", seed=k), 1))
    with pytest.raises(MrcFormatError, match=r"1 movies have less than half the frames of most: .*m3\.mrc 2 frames"):
        md.open_session(f"{tmp_path}/*.mrc", order="name", lengths="shortest")
    with pytest.warns(MrczdaskWarning, match=r"m3\.mrc 2 frames: left out"):
        session = md.open_session(f"{tmp_path}/*.mrc", order="name", lengths="shortest", errors="skip")
    assert session.images.shape == (3, 7, 6, 5)
    (tmp_path / "n.mrc").write_bytes(mrc_bytes(counts((8, 6, 4), "i2"), 1))
    with pytest.raises(MrcFormatError, match="do not have the shape") as error:
        md.open_session([tmp_path / "m0.mrc", tmp_path / "m1.mrc", tmp_path / "n.mrc"], order="name")
    assert "shortest" not in str(error.value)


# ---- one file a frame


def test_one_file_a_frame(tmp_path: Path) -> None:
    frames = counts((11, 12, 9), "u2")
    for k, frame in enumerate(frames):
        tifffile.imwrite(tmp_path / f"frame_{k}.tif", frame, photometric="minisblack", metadata=None)
    movie = md.open_movie(f"{tmp_path}/frame_*.tif")  # 10 comes behind 9
    assert movie.dims == ("frame", "y", "x")
    assert movie.attrs == {"origin": "upper"}
    np.testing.assert_array_equal(movie.values, frames)
    np.testing.assert_array_equal(movie[[7, 2], 3:5, 1].values, frames[[7, 2], 3:5, 1])
    given = md.open_movie([tmp_path / "frame_4.tif", tmp_path / "frame_1.tif"])
    np.testing.assert_array_equal(given.values, frames[[4, 1]])
    tifffile.imwrite(tmp_path / "frame_11.tif", frames[0][:5], photometric="minisblack", metadata=None)
    with pytest.raises(MrcFormatError, match=r"others differ: .*frame_11\.tif"):
        md.open_movie(f"{tmp_path}/frame_*.tif")


def test_parts_of_a_movie_in_a_list_but_not_by_a_pattern(tmp_path: Path) -> None:
    parts = [counts((n, 6, 5), "i2", seed=n) for n in (3, 2)]
    for k, part in enumerate(parts):
        (tmp_path / f"m{k}.mrc").write_bytes(mrc_bytes(part, 1))
        angles = "".join(f"[ZValue = {z}]\nTiltAngle = {10 * k + z}\nExposureDose = 1\n\n" for z in range(len(part)))
        (tmp_path / f"m{k}.mrc.mdoc").write_text(angles)
    movie = md.open_movie([tmp_path / "m0.mrc", tmp_path / "m1.mrc"])
    np.testing.assert_array_equal(movie.values, np.concatenate(parts))
    assert movie.tilt.values.tolist() == [0, 1, 2, 10, 11]
    assert "dose" not in movie.coords  # it begins anew in each file
    with pytest.raises(ValueError, match="2 movies match: open_session"):
        md.open_movie(f"{tmp_path}/m*.mrc")
    np.testing.assert_array_equal(md.open_movie(f"{tmp_path}/m1*.mrc").values, parts[1])
