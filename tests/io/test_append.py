from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import dask.array as da
import mrcz
import numpy as np
import pytest
import xarray as xr

import mrczdask as md
from mrczdask.errors import MrcFormatError
from tests.mrc_bytes import counts, mrc_bytes

SHAPE = (12, 10)
CODECS = [None, "zstd"]


def movie(n: int, dtype: str = "i2", seed: int = 0) -> np.ndarray:
    return counts((n, *SHAPE), dtype, seed=seed)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("index", [(True, True), (True, False), (False, True), (False, False)])
def test_frames_are_added(tmp_path: Path, codec: Any, index: tuple[bool, bool]) -> None:
    path = tmp_path / "a.mrcz"
    parts = [movie(3), movie(2, seed=1), movie(1, seed=2)]
    md.write_mrcz(parts[0], path, codec=codec, index=index[0], metadata={"grid": 7})
    for part in parts[1:]:
        stored = md.write_mrcz(part, path, codec=codec, append=True, index=index[1])
    np.testing.assert_array_equal(stored.values, np.concatenate(parts))
    assert stored.em.metadata == {"grid": 7}
    np.testing.assert_array_equal(mrcz.readMRC(str(path))[0], np.concatenate(parts))
    if codec:
        assert md.frame_index(path).attrs["source"] == ("footer" if index[1] else "chunks")
    report = md.validate(path)
    assert report.ok
    assert set(report.codes) <= {"statistics-unset", "pixel-size-missing"}


def test_appended_to_a_file_of_python_mrcz(tmp_path: Path) -> None:
    path = tmp_path / "a.mrcz"
    mrcz.writeMRC(movie(3), str(path), meta={"a": 1}, compressor="zstd")
    stored = md.write_mrcz(movie(2, seed=1), path, append=True)
    both = np.concatenate([movie(3), movie(2, seed=1)])
    np.testing.assert_array_equal(stored.values, both)
    np.testing.assert_array_equal(mrcz.readMRC(str(path))[0], both)


@pytest.mark.parametrize("codec", CODECS)
def test_the_cell_grows_with_the_movie(tmp_path: Path, codec: Any) -> None:
    path = tmp_path / "a.mrcz"
    frames = xr.DataArray(movie(2), dims=("frame", "y", "x"), attrs={"pixel_size_angstrom": 1.5})
    md.write_mrcz(frames, path, codec=codec)
    md.write_mrcz(frames, path, codec=codec, append=True)
    record = path.read_bytes()[:1024]
    sections, depth = np.frombuffer(record[36:40], "<i4")[0], np.frombuffer(record[48:52], "<f4")[0]
    assert depth == 1.5 * (sections or 4)


def test_a_larger_image_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.mrcz"
    md.write_mrcz(movie(3), path)
    before = path.read_bytes()
    cases: list[tuple[np.ndarray, dict[str, Any], str]] = [
        (counts((2, 12, 11), "i2"), {}, r"frames of \(12, 10\), these are \(12, 11\)"),
        (movie(2, "f4"), {}, "the file is of mode 1, these frames are of mode 2"),
        (movie(2), {"codec": None}, "the file is compressed: give the matching codec"),
        (movie(2), {"metadata": {"a": 1}}, "metadata cannot grow in place"),
    ]
    for frames, options, said in cases:
        with pytest.raises(MrcFormatError, match=said):
            md.write_mrcz(frames, path, append=True, **options)
        assert path.read_bytes() == before


def test_files_of_others_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.mrc"
    for options, said in (
        ({}, "labelled MRCZ"),
        ({"order": ">", "labels": (b"MRCZ0.6.0",)}, "little-endian"),
        ({"labels": (b"MRCZ0.6.0",), "m": (0, 0, 2)}, "list of 3-D frames"),
    ):
        path.write_bytes(mrc_bytes(movie(4), 1, **options))  # type: ignore[arg-type]
        with pytest.raises(MrcFormatError, match=said):
            md.write_mrcz(movie(2), path, append=True, codec=None)
    with pytest.raises(MrcFormatError, match="local files"):
        md.write_mrcz(movie(2), "memory://a.mrcz", append=True)
    with pytest.raises(MrcFormatError, match="read, not written"):
        md.write_mrcz(movie(2), tmp_path / "a.mrc.gz", append=True)
    with pytest.raises(FileNotFoundError):
        md.write_mrcz(movie(2), tmp_path / "none.mrcz", append=True)


def test_damaged_files_are_not_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "a.mrcz"
    for codec in CODECS:
        md.write_mrcz(movie(3), path, codec=codec, index=False)
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(MrcFormatError, match="truncated"):
            md.write_mrcz(movie(2), path, codec=codec, append=True)


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        (
            np.full((2, 3, 4), 200, "u1"),
            np.full((1, 3, 4), 300, "u2"),
            "read as uint8, which does not hold every uint16",
        ),
        (np.full((2, 3, 4), 100, "u1"), np.full((1, 3, 4), -5, "i1"), "read as uint8, which does not hold every int8"),
        (np.ones((2, 3, 4), "?"), np.full((1, 3, 4), 5, "i1"), "read as bool, which does not hold every int8"),
        (np.full((2, 3, 4), 100, "u1"), np.full((1, 3, 4), 128, "u1"), "above 127"),
    ],
)
def test_frames_that_would_read_back_wrong_are_refused(
    tmp_path: Path, first: np.ndarray, second: np.ndarray, said: str
) -> None:
    path = tmp_path / "a.mrcz"
    md.write_mrcz(first, path)
    before = path.read_bytes()
    with pytest.raises(MrcFormatError, match=said):
        md.write_mrcz(second, path, append=True)
    assert path.read_bytes() == before


def test_uint8_fits_into_a_file_in_uint16(tmp_path: Path) -> None:
    path = tmp_path / "a.mrcz"
    md.write_mrcz(np.full((2, 3, 4), 200, "u1"), path)
    stored = md.write_mrcz(np.full((1, 3, 4), 7, "u1"), path, append=True)
    assert stored.dtype == np.uint8
    assert stored.values[:, 0, 0].tolist() == [200, 200, 7]


def test_coordinates_of_the_old_frames_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "a.mrcz"
    frames = xr.DataArray(movie(3), dims=("frame", "y", "x"), coords={"dose": ("frame", [1.0, 2.0, 3.0])})
    assert "dose" in md.write_mrcz(frames, path).coords
    assert "dose" not in md.write_mrcz(movie(1), path, append=True).coords


@pytest.mark.parametrize("error", [RuntimeError("fire"), KeyboardInterrupt()])
@pytest.mark.parametrize("codec", CODECS)
def test_an_error_midway_gives_the_old_file_back(tmp_path: Path, codec: Any, error: BaseException) -> None:
    path = tmp_path / "a.mrcz"
    md.write_mrcz(movie(3), path, codec=codec)
    before = path.read_bytes()

    def fail(part: np.ndarray, block_info: Any = None) -> np.ndarray:
        if block_info and block_info[None]["chunk-location"][0] == 5:
            raise error
        return part

    lazy = da.from_array(movie(12), chunks=(1, -1, -1)).map_blocks(fail, dtype="i2")
    with pytest.raises(type(error)):
        md.write_mrcz(lazy, path, codec=codec, append=True)
    assert path.read_bytes() == before


class Journal:
    """A file that keeps what is done to it, in groups that end with a sync."""

    def __init__(self, path: str, mode: str):
        self._file = open(path, mode, buffering=0)  # noqa: SIM115
        self.groups: list[list[tuple[str, int, bytes]]] = [[]]

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def seek(self, place: int) -> int:
        return self._file.seek(place)

    def write(self, content: bytes) -> int:
        self.groups[-1].append(("write", self._file.tell(), bytes(content)))
        return self._file.write(content)

    def truncate(self) -> int:
        self.groups[-1].append(("truncate", self._file.tell(), b""))
        return self._file.truncate()

    def flush(self) -> None:
        self.groups.append([])

    def fileno(self) -> int:
        return self._file.fileno()


def apply(content: bytes, operations: list[tuple[str, int, bytes]]) -> bytes:
    raw = bytearray(content)
    for kind, place, data in operations:
        if kind == "truncate":
            del raw[place:]
            continue
        raw.extend(b"\x00" * (place - len(raw)))
        raw[place : place + len(data)] = data
    return bytes(raw)


def crashes(groups: list[list[tuple[str, int, bytes]]]) -> list[list[tuple[str, int, bytes]]]:
    """What can be on the disk after a crash: all groups before one, and some of it, whole or in part, in any order."""
    rng = np.random.default_rng(0)
    states, done = [], []
    for group in groups:
        for k in range(len(group) + 1):
            states.append([*done, *group[:k]])
            if k < len(group) and group[k][0] == "write" and len(group[k][2]) > 4:  # 4 bytes are written at once
                kind, place, data = group[k]
                states.append([*done, *group[:k], (kind, place, data[: len(data) // 2])])
        for _ in range(10):  # a disk may take the writes between two syncs in any order
            states.append([*done, *(operation for operation in group if rng.random() < 0.5)])
        done += group
    return states


@pytest.mark.parametrize("index", [(True, True), (False, True), (True, False)])
@pytest.mark.parametrize("codec", CODECS)
def test_after_a_crash_the_file_is_the_old_or_the_new_movie(
    tmp_path: Path, codec: Any, index: tuple[bool, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.mrcz"
    old, added = movie(4), movie(3, seed=1)
    new = np.concatenate([old, added])
    md.write_mrcz(old, path, codec=codec, index=index[0])
    before = path.read_bytes()
    journals: list[Journal] = []

    def record(name: str, mode: str) -> Journal:
        journals.append(Journal(name, mode))
        return journals[-1]

    monkeypatch.setattr("mrczdask.io.append.open", record, raising=False)
    md.write_mrcz(added, path, codec=codec, append=True, index=index[1])
    (journal,) = journals
    after = path.read_bytes()
    groups = [group for group in journal.groups if group]
    assert apply(before, list(itertools.chain(*groups))) == after
    assert len(groups) >= 3
    assert [(place, len(data)) for _, place, data in groups[-1]] == [(8, 4)]  # NZ, last and alone

    seen = set()
    for operations in crashes(groups):
        path.write_bytes(apply(before, operations))
        pixels = md.open_movie(path).values
        expected = {len(old): old, len(new): new}[len(pixels)]
        np.testing.assert_array_equal(pixels, expected)
        assert md.validate(path).ok
        seen.add(len(pixels))
    assert seen == {4, 7}
