"""Defect files as masks of movies: every kind there and back, turned as the images are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import mrczdask as md
from mrczdask.errors import MrcFormatError

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
