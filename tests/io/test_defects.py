"""Defect files as masks of movies: every kind there and back, turned as the images are."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest
import tifffile
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import mrczdask as md
from mrczdask.errors import MrcFormatError
from tests.mrc_bytes import mrc_bytes

# mrcfile 1.5 sets the dtype of an array, which numpy 2.5 deprecates
pytestmark = pytest.mark.filterwarnings("ignore:Setting the dtype:DeprecationWarning")

MASK = np.random.default_rng(0).random((40, 48)) < 0.03
MASK[:, 7], MASK[11], MASK[20:25, 30] = True, True, True
KINDS = [
    ("a.txt", None),
    ("a.txt", "motioncor"),
    ("a.txt", "serialem"),
    ("a.mrc", None),
    ("a.mrcz", None),
    ("a.tif", None),
]


@pytest.mark.parametrize(("name", "kind"), KINDS)
@pytest.mark.parametrize("origin", ["lower", "upper"])
def test_there_and_back(tmp_path: Path, name: str, kind: str | None, origin: str) -> None:
    mask = xr.DataArray(MASK, dims=("y", "x"), attrs={"origin": origin})
    if (name, origin) in (("a.mrc", "upper"), ("a.mrcz", "upper")):
        mask = mask.assign_attrs(origin="lower")  # MRC has no other
    written = md.write_defects(mask, tmp_path / name, kind=kind)
    np.testing.assert_array_equal(written, mask)
    assert written.dtype == bool
    like = xr.DataArray(np.zeros((3, 40, 48)), dims=("frame", "y", "x"), attrs=mask.attrs)
    np.testing.assert_array_equal(md.open_defects(tmp_path / name, like=like), mask)


def test_rows_of_serialem_run_from_the_top(tmp_path: Path) -> None:
    (tmp_path / "d.txt").write_text("CameraSizeX 8\nCameraSizeY 6\nBadPixels 2 1\n")
    assert np.argwhere(md.open_defects(tmp_path / "d.txt").values).tolist() == [[4, 2]]
    upper = xr.DataArray(np.zeros((6, 8)), dims=("y", "x"), attrs={"origin": "upper"})
    assert np.argwhere(md.open_defects(tmp_path / "d.txt", like=upper).values).tolist() == [[1, 2]]


@pytest.mark.parametrize("operation", range(8))
def test_rotation_and_flip(tmp_path: Path, operation: int) -> None:
    (tmp_path / "d.txt").write_text("CameraSizeX 8\nCameraSizeY 6\nBadPixels 2 1\n")
    seen = np.zeros((6, 8), bool)
    seen[1, 2] = True
    turned = np.rot90(np.fliplr(seen) if operation >= 4 else seen, operation % 4)
    like = xr.DataArray(np.zeros(turned.shape), dims=("y", "x"), attrs={"origin": "upper"})
    found = md.open_defects(tmp_path / "d.txt", like=like, rotation_flip=operation)
    np.testing.assert_array_equal(found, turned)


def test_super_resolution_movie(tmp_path: Path) -> None:
    md.write_defects(MASK, tmp_path / "d.txt")
    like = xr.DataArray(np.zeros((80, 96)), dims=("y", "x"))
    np.testing.assert_array_equal(md.open_defects(tmp_path / "d.txt", like=like), MASK.repeat(2, 0).repeat(2, 1))


def test_zeros_of_a_gain(tmp_path: Path) -> None:
    gain = np.ones((40, 48), np.float32)
    gain[MASK] = 0
    md.write_gain(xr.DataArray(gain, dims=("y", "x")), tmp_path / "gain.mrc")
    np.testing.assert_array_equal(md.open_defects(tmp_path / "gain.mrc", kind="gain"), MASK)


def test_faults(tmp_path: Path) -> None:
    (tmp_path / "m.txt").write_text("1 1 2 2\n")
    with pytest.raises(MrcFormatError, match=r"m\.txt: the list does not tell the size of the camera: give like="):
        md.open_defects(tmp_path / "m.txt")
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(MrcFormatError, match="not a text"):
        md.open_defects(tmp_path / "b.txt")
    md.write_defects(MASK, tmp_path / "map.mrc")
    with pytest.raises(MrcFormatError, match="the map is"):
        md.open_defects(tmp_path / "map.mrc", like=xr.DataArray(np.zeros((5, 5)), dims=("y", "x")))
    with pytest.raises(FileNotFoundError):
        md.open_defects(tmp_path / "none.txt")
    with pytest.raises(ValueError, match="rotation_flip=8"):
        md.open_defects(tmp_path / "map.mrc", rotation_flip=8)
    with pytest.raises(ValueError, match="kind='list'"):
        md.open_defects(tmp_path / "map.mrc", kind="list")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="of bool"):
        md.write_defects(MASK.astype(int), tmp_path / "x.txt")
    with pytest.raises(ValueError, match="does not fit its suffix"):
        md.write_defects(MASK, tmp_path / "x.mrc", kind="motioncor")


def imod_map(path: Path, bad: np.ndarray, good: int, sign: int = 1, **header: Any) -> Path:
    """A map of bytes: `good`, and `good` + `sign` where a pixel is bad."""
    values = np.where(bad, good + sign, good).astype(np.int64)[None]
    stored = values.astype("u1") if good >= 0 else values.astype("i1")
    path.write_bytes(mrc_bytes(stored, 0, **header))
    return path


IMOD: dict[str, Any] = {"imod_flags": 1, "labels": (b"clip: defect map",)}


@pytest.mark.parametrize(
    ("good", "header"),
    [
        (-128, IMOD | {"stats": (0, 1, 0.02, 0)}),  # as IMOD's clip says of its unsigned numbers
        (-128, IMOD | {"stats": (-128, -127, -127.98, 0)}),
        (-128, IMOD),
        (-128, {}),
        (128, {}),
        (128, {"imod_flags": 0, "stats": (128, 129, 128.02, 0)}),
        (0, {}),
    ],
)
def test_bytes_of_imod_that_are_128_off(tmp_path: Path, good: int, header: dict[str, Any]) -> None:
    path = imod_map(tmp_path / "m.mrc", MASK, good, **header)
    np.testing.assert_array_equal(md.open_defects(path), MASK)
    with mrcfile.open(path, permissive=True) as file:
        assert np.count_nonzero(file.data != np.median(file.data)) == MASK.sum()
    clean = imod_map(tmp_path / "n.mrc", np.zeros_like(MASK), good, **header)
    assert not md.open_defects(clean).any()


@pytest.mark.parametrize("good", [-128, 0, 128])
@pytest.mark.parametrize("name", ["m.mrc", "m.tif"])
def test_a_map_of_the_good_pixels_is_refused(tmp_path: Path, good: int, name: str) -> None:
    path = imod_map(tmp_path / "m.mrc", ~MASK, good)
    if name == "m.tif":
        path = tmp_path / name
        kind = "u1" if good >= 0 else "i1"
        tifffile.imwrite(path, np.where(MASK, good, good + 1).astype(kind), photometric="minisblack")
    with pytest.raises(MrcFormatError, match=r'% of the pixels bad.*kind="gain"'):
        md.open_defects(path)


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    good=st.sampled_from([-128, 0, 128]),
    kinds=st.integers(1, 4),
    seed=st.integers(0, 99),
)
def test_maps_of_any_kinds_of_defects(shape: tuple[int, int], good: int, kinds: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    bad = rng.random(shape) < 0.3
    bad[0, 0] = False
    with tempfile.TemporaryDirectory() as folder:
        steps = np.where(bad, rng.integers(1, kinds + 1, shape), 0)
        stored = (steps + good)[None].astype("u1" if good >= 0 else "i1")
        path = Path(folder) / "m.mrc"
        path.write_bytes(mrc_bytes(stored, 0))
        if bad.mean() <= 0.5:
            np.testing.assert_array_equal(md.open_defects(path), bad)
        else:
            with pytest.raises(MrcFormatError, match="of the pixels bad"):
                md.open_defects(path)


def test_a_list_of_the_camera_is_turned_as_the_frames_were(tmp_path: Path) -> None:
    text = "CameraSizeX 8\nCameraSizeY 6\nRotationAndFlip {}\nBadPixels 2 1\n"
    seen = np.zeros((6, 8), bool)
    seen[1, 2] = True
    for turn in range(8):
        turned = np.rot90(np.fliplr(seen) if turn >= 4 else seen, turn % 4)
        attrs = {"origin": "upper", "rotation_flip": turn}
        like = xr.DataArray(np.zeros(turned.shape), dims=("y", "x"), attrs=attrs)
        (tmp_path / "d.txt").write_text(text.format(0))
        np.testing.assert_array_equal(md.open_defects(tmp_path / "d.txt", like=like), turned)
        same = xr.DataArray(np.zeros(seen.shape), dims=("y", "x"), attrs=attrs)
        (tmp_path / "e.txt").write_text(text.format(turn))  # the list was turned with the frames
        np.testing.assert_array_equal(md.open_defects(tmp_path / "e.txt", like=same), seen)
    (tmp_path / "e.txt").write_text(text.format(2))
    with pytest.raises(MrcFormatError, match="RotationAndFlip 2, the images by 7"):
        md.open_defects(tmp_path / "e.txt", like=like)
    (tmp_path / "m.txt").write_text("2 1 1 1\n")  # of MotionCor: in the pixels of the frames
    np.testing.assert_array_equal(md.open_defects(tmp_path / "m.txt", like=same), seen)


def test_a_mask_of_turned_frames_there_and_back(tmp_path: Path) -> None:
    like = xr.DataArray(np.zeros(MASK.shape), dims=("y", "x"), attrs={"origin": "upper", "rotation_flip": 5})
    for attrs in (like.attrs, {"origin": "upper"}):  # with and without a word on the turn
        mask = xr.DataArray(MASK, dims=("y", "x"), attrs=attrs)
        md.write_defects(mask, tmp_path / "d.txt")
        np.testing.assert_array_equal(md.open_defects(tmp_path / "d.txt", like=like), MASK)
