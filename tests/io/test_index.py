from __future__ import annotations

import os
import warnings
from pathlib import Path

import fsspec
import mrcz
import numcodecs.blosc
import numpy as np
import pytest

import mrczdask as md
from mrczdask.errors import MrcFormatError, StaleIndexWarning
from mrczdask.formats import mrcz as walking
from mrczdask.io import index as indexing
from mrczdask.io.index import write_index
from mrczdask.io.source import open_source
from tests.mrc_bytes import blosc1, blosc2_chunks, counts, mrc_bytes

FRAMES = counts((7, 32, 20), "i2")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file as other programs write it: without an index."""
    (tmp_path / "a.mrcz").write_bytes(
        mrc_bytes(FRAMES, 1, chunk=blosc1(), compressor=6, labels=(b"MRCZ0.6.0",), m=(0, 0, 0))
    )
    return tmp_path / "a.mrcz"


@pytest.fixture
def no_walk(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the chunks were walked")

    monkeypatch.setattr(indexing, "walk_chunks", refuse)


def truth(path: Path) -> tuple[list[int], list[int]]:
    found = md.frame_index(path)
    assert found.attrs["source"] == "chunks"
    return found.offset.values.tolist(), found.length.values.tolist()


def test_where_the_frames_stand(path: Path) -> None:
    offsets, lengths = truth(path)
    raw = path.read_bytes()
    for k, (offset, length) in enumerate(zip(offsets, lengths, strict=True)):
        assert numcodecs.blosc.decompress(raw[offset : offset + length]) == FRAMES[k].tobytes()
    assert md.frame_index(str(path)).attrs["frame_bytes"] == 32 * 20 * 2


@pytest.mark.parametrize("sidecar", [False, True])
def test_an_index_saves_the_walk(path: Path, sidecar: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = truth(path)
    before = path.read_bytes()
    assert write_index(path, sidecar=sidecar) == str(path) + ".index.json" * sidecar
    assert path.read_bytes()[: len(before)] == before
    assert (len(path.read_bytes()) == len(before)) == sidecar

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the chunks were walked")

    monkeypatch.setattr(indexing, "walk_chunks", refuse)
    found = md.frame_index(path)
    assert (found.offset.values.tolist(), found.length.values.tolist()) == expected
    np.testing.assert_array_equal(md.open_movie(path).values, FRAMES)
    monkeypatch.undo()
    np.testing.assert_array_equal(mrcz.readMRC(str(path))[0], FRAMES)
    report = md.validate(path)
    assert report.ok
    assert not {"footer-stale", "footer-corrupt", "sidecar-stale", "trailing-bytes"} & set(report.codes)


def test_an_index_is_written_once(path: Path) -> None:
    write_index(path)
    once = path.read_bytes()
    write_index(path)
    assert path.read_bytes() == once


def test_files_written_here_have_one(tmp_path: Path, no_walk: None) -> None:
    md.write_mrcz(FRAMES, tmp_path / "a.mrcz")
    assert md.frame_index(tmp_path / "a.mrcz").attrs["source"] == "footer"


@pytest.mark.parametrize("change", ["touched", "replaced", "longer"])
def test_a_stale_sidecar_is_said_and_not_used(path: Path, change: str) -> None:
    write_index(path, sidecar=True)
    assert md.frame_index(path).attrs["source"] == "sidecar"
    raw = path.read_bytes()
    if change == "touched":
        os.utime(path, ns=(1, 1))
    elif change == "replaced":
        other = np.flip(FRAMES, 0)
        path.write_bytes(mrc_bytes(other, 1, chunk=blosc1("lz4"), compressor=2, labels=(b"MRCZ0.6.0",)))
    else:
        path.write_bytes(raw + b"x" * 40)
    with pytest.warns(StaleIndexWarning, match=r"a\.mrcz\.index\.json: not used, the file has changed since"):
        movie = md.open_movie(path)
    np.testing.assert_array_equal(movie.values, np.flip(FRAMES, 0) if change == "replaced" else FRAMES)
    assert "sidecar-stale" in md.validate(path).codes


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"\xff" * 50, b'{"mrczdask_index": 1}'])
def test_a_broken_sidecar_is_said_and_not_used(path: Path, content: bytes) -> None:
    Path(f"{path}.index.json").write_bytes(content)
    with pytest.warns(StaleIndexWarning, match="it cannot be read"):
        np.testing.assert_array_equal(md.open_movie(path).values, FRAMES)


def test_a_sidecar_of_another_file_is_not_used(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "b.mrcz"
    other.write_bytes(mrc_bytes(FRAMES[:6], 1, chunk=blosc1(), compressor=6))
    write_index(other, sidecar=True)
    os.replace(f"{other}.index.json", f"{path}.index.json")
    with pytest.warns(StaleIndexWarning):
        np.testing.assert_array_equal(md.open_movie(path).values, FRAMES)


@pytest.mark.parametrize("place", [0, 5, 60, -1])
def test_a_damaged_footer_is_not_used(path: Path, place: int) -> None:
    expected = truth(path)
    end = path.stat().st_size
    write_index(path)
    raw = bytearray(path.read_bytes())
    raw[end + place if place >= 0 else place] ^= 1
    path.write_bytes(raw)
    found = md.frame_index(path)
    assert found.attrs["source"] == "chunks"
    assert (found.offset.values.tolist(), found.length.values.tolist()) == expected
    assert "footer-corrupt" in md.validate(path).codes


def test_a_footer_of_fewer_frames_is_not_used(path: Path, tmp_path: Path) -> None:
    """A program that does not know the index appends a chunk over it, or patches NZ alone."""
    raw = path.read_bytes()
    body = mrc_bytes(FRAMES[:6], 1, chunk=blosc1(), compressor=6, labels=(b"MRCZ0.6.0",))
    (tmp_path / "six.mrcz").write_bytes(body)
    write_index(tmp_path / "six.mrcz")
    footer = (tmp_path / "six.mrcz").read_bytes()[len(body) :]
    path.write_bytes(raw + footer)
    assert md.frame_index(path).attrs["source"] == "chunks"
    np.testing.assert_array_equal(md.open_movie(path).values, FRAMES)
    assert "footer-stale" in md.validate(path).codes


def test_a_footer_with_bytes_before_it_is_not_used(path: Path) -> None:
    end = path.stat().st_size
    write_index(path)
    raw = path.read_bytes()
    path.write_bytes(raw[:end] + b"x" * 10 + raw[end:])
    assert md.frame_index(path).attrs["source"] == "chunks"
    assert "footer-stale" in md.validate(path).codes


def test_version_5_chunks_are_indexed_too(tmp_path: Path) -> None:
    path = tmp_path / "a.mrcz"
    path.write_bytes(mrc_bytes(FRAMES, 1, chunk=blosc2_chunks(), compressor=6))
    write_index(path)
    assert md.frame_index(path).attrs["source"] == "footer"
    np.testing.assert_array_equal(md.open_movie(path).values, FRAMES)


@pytest.mark.parametrize(
    ("name", "said"),
    [("a.mrc", "not compressed"), ("a.mrcz.gz", "wrapper"), ("memory://a.mrcz", "local files")],
)
def test_what_has_no_index(tmp_path: Path, name: str, said: str) -> None:
    raw = mrc_bytes(FRAMES, 1)
    (tmp_path / "a.mrc").write_bytes(raw)
    with pytest.raises(MrcFormatError, match=said):
        write_index(name if "://" in name else str(tmp_path / name))
    assert (tmp_path / "a.mrc").read_bytes() == raw
    assert md.frame_index(tmp_path / "a.mrc").attrs["source"] == "header"


def test_damaged_files_are_not_indexed(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])
    before = path.read_bytes()
    with pytest.raises(MrcFormatError, match=r"a\.mrcz: frame 6"):
        write_index(path)
    assert path.read_bytes() == before
    with pytest.raises(MrcFormatError, match=r"a\.mrcz: frame 6"):
        md.frame_index(path)


def test_sidecar_beside_a_remote_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fs = fsspec.filesystem("memory")
    fs.pipe("/indexed/a.mrcz", path.read_bytes())
    with open_source("memory://indexed/a.mrcz") as source:
        fingerprint = source.fingerprint
    table = walking.FrameTable(*(np.array(part, np.uint64) for part in truth(path)))
    fs.pipe("/indexed/a.mrcz.index.json", indexing.pack_sidecar(table, fingerprint))
    monkeypatch.setattr(indexing, "walk_chunks", None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(md.open_movie("memory://indexed/a.mrcz").values, FRAMES)


@pytest.mark.parametrize("sidecar", [False, True])
def test_an_index_does_not_hide_a_lying_header(path: Path, sidecar: bool) -> None:
    """NY says 16 million rows: the chunks know better, and no array is made before one was asked."""
    write_index(path, sidecar=sidecar)
    raw = path.read_bytes()
    stat = path.stat()
    path.write_bytes(raw[:4] + (2**24).to_bytes(4, "little") + raw[8:])
    os.utime(path, ns=(stat.st_mtime_ns, stat.st_mtime_ns))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StaleIndexWarning)
        with pytest.raises(MrcFormatError, match="the chunk unpacks to 1280 bytes, a frame has 671088640"):
            md.open_movie(path)
