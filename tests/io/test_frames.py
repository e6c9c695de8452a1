"""Frames of every format, against the programs that wrote or read them."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

import mrczdask as md
from mrczdask.errors import MrcFormatError
from mrczdask.formats.blo import FRAME_HEAD, HEAD
from tests.io.conftest import Bucket

FRAMES = np.random.default_rng(5).poisson(3.0, (6, 64, 80)).astype(np.uint16)
BLOCK_SUMS = [[845297, 867000], [861801, 872369], [847954, 870149]]
EXAMPLE = ("MQ1", "000001", "00384", "01", "0080", "0064", "U16", "   1x1", "01")


def merlin(frames: NDArray[Any], kind: str = "U16", bits: int = 12) -> bytes:
    """A Merlin file: the text header and the big-endian pixels of each frame."""
    out = b""
    for frame in frames:
        words = [*EXAMPLE[:4], f"{frame.shape[1]:04d}", f"{frame.shape[0]:04d}", kind, *EXAMPLE[7:]]
        text = ",".join([*words, "MQ1A", "2020-05-11T14:51:22.219878Z", "555000ns", str(bits)])
        out += text.encode().ljust(384, b"\0")
        if kind != "R64":
            out += frame.astype({"U08": ">u1", "U16": ">u2", "U32": ">u4"}[kind]).tobytes()
        elif bits == 1:
            out += np.packbits(frame.reshape(-1, 64)[:, ::-1].astype(np.uint8)).tobytes()
        else:
            width = 8 if bits == 6 else 4
            out += frame.astype(">u2" if bits == 12 else ">u1").reshape(-1, width)[:, ::-1].tobytes()
    return out


@pytest.mark.parametrize("kind", ["U08", "U16", "U32"])
def test_merlin_frames(tmp_path: Path, kind: str) -> None:
    (tmp_path / "scan.mib").write_bytes(merlin(FRAMES, kind))
    frames = md.open_frames(tmp_path / "scan.mib", chunks={"shot": 2})
    assert frames.dims == ("shot", "y", "x")
    assert frames.dtype.isnative
    assert frames.attrs["origin"] == "lower"
    np.testing.assert_array_equal(frames, FRAMES)
    np.testing.assert_array_equal(frames[4, 3:9, 7], FRAMES[4, 3:9, 7])


@pytest.mark.parametrize("bits", [1, 6, 12])
def test_raw_merlin_frames(tmp_path: Path, bits: int) -> None:
    frames = np.minimum(FRAMES, 1) if bits == 1 else FRAMES
    (tmp_path / "scan.mib").write_bytes(merlin(frames, "R64", bits))
    np.testing.assert_array_equal(md.open_frames(tmp_path / "scan.mib"), frames)


def test_a_merlin_scan_has_the_shape_of_its_hdr_file(tmp_path: Path) -> None:
    (tmp_path / "scan.mib").write_bytes(merlin(FRAMES))
    (tmp_path / "scan.hdr").write_text(
        "HDR,\t\nTime and Date Stamp (yr, mnth, day, hr, min, s):\t24/01/2019\n"
        "Frames in Acquisition (Number):\t6\nFrames per Trigger (Number):\t3\nEnd\t"
    )
    scan = md.open_frames(tmp_path / "scan.mib")
    assert dict(scan.sizes) == {"scan_y": 2, "scan_x": 3, "ky": 64, "kx": 80}
    np.testing.assert_array_equal(scan, FRAMES.reshape(2, 3, 64, 80))
    other = md.open_frames(tmp_path / "scan.mib", scan_shape=(3, 2))
    np.testing.assert_array_equal(other, FRAMES.reshape(3, 2, 64, 80))
    with pytest.raises(ValueError, match="6 frames are no scan of"):
        md.open_frames(tmp_path / "scan.mib", scan_shape=(4, 2))


def test_broken_merlin_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "scan.mib"
    path.write_bytes(merlin(FRAMES)[:-100])
    with pytest.raises(MrcFormatError, match=r"scan\.mib: frame 5 at byte .* truncated"):
        md.open_frames(path)
    path.write_bytes(b"MQ1,1,x")
    with pytest.raises(MrcFormatError, match="corrupt"):
        md.open_frames(path)
    path.write_bytes(b"MM")
    with pytest.raises(MrcFormatError, match="no Merlin file"):
        md.open_frames(path)
    path.write_bytes(merlin(FRAMES, "R64", 24))
    with pytest.raises(MrcFormatError, match="24 bits are not read"):
        md.open_frames(path)


def block_file(scan: tuple[int, int], patterns: NDArray[Any]) -> bytes:
    head = np.zeros(1, HEAD)
    head["id"], head["version"], head["frames_offset"] = b"IMGBLO", 258, 0x1000
    head["side"], head["ny"], head["nx"], head["step_x_nm"] = patterns.shape[-1], *scan, 12.8
    body = b"".join(b"\xaa\x55" + bytes(FRAME_HEAD - 2) + pattern.tobytes() for pattern in patterns)
    return head.tobytes().ljust(0x1000, b"\0") + body


def test_block_files(tmp_path: Path) -> None:
    patterns = FRAMES[:, :64, :64].astype(np.uint8)
    (tmp_path / "scan.blo").write_bytes(block_file((2, 3), patterns))
    scan = md.open_frames(tmp_path / "scan.blo", chunks={"scan_y": 1, "scan_x": 2})
    assert scan.scan_x.values.tolist() == [0.0, 12.8, 25.6]
    np.testing.assert_array_equal(scan, patterns.reshape(2, 3, 64, 64))
    (tmp_path / "scan.blo").write_bytes(block_file((2, 4), patterns))
    with pytest.raises(MrcFormatError, match="8 patterns, 6 are there: the file is truncated"):
        md.open_frames(tmp_path / "scan.blo")
    (tmp_path / "scan.blo").write_bytes(b"IMG")
    with pytest.raises(MrcFormatError, match="no block file"):
        md.open_frames(tmp_path / "scan.blo")


@pytest.mark.real_data
def test_a_real_block_file(data_dir: Path) -> None:
    """Sums that RosettaSciIO gives for it."""
    scan = md.open_frames(data_dir / "real/stem/test1.blo")
    assert dict(scan.sizes) == {"scan_y": 3, "scan_x": 2, "ky": 144, "kx": 144}
    assert scan.sum(("ky", "kx"), dtype=np.int64).values.tolist() == BLOCK_SUMS
    assert scan.attrs["voltage_kv"] == 200
    assert scan.attrs["camera_length_mm"] == 200


def test_movies_are_frames_too(tmp_path: Path) -> None:
    md.write_mrcz(FRAMES.astype(np.int16), tmp_path / "a.mrcz")
    md.write_mrcz(FRAMES[:2].astype(np.int16), tmp_path / "b.mrcz")
    frames = md.open_frames([tmp_path / "a.mrcz", tmp_path / "b.mrcz"], chunks={"shot": 4})
    assert frames.dims == ("shot", "y", "x")
    np.testing.assert_array_equal(frames, np.concatenate([FRAMES, FRAMES[:2]]))
    md.write_mrcz(FRAMES[:, 1:].astype(np.int16), tmp_path / "c.mrcz")
    with pytest.raises(MrcFormatError, match=r"others differ: .*c\.mrcz"):
        md.open_frames(str(tmp_path / "*.mrcz"))


def test_zarr_arrays_and_archives(tmp_path: Path) -> None:
    zarr.create_array(str(tmp_path / "plain.zarr"), data=FRAMES, chunks=(2, 64, 80))
    np.testing.assert_array_equal(md.open_frames(tmp_path / "plain.zarr"), FRAMES)
    frames = md.open_frames(tmp_path / "plain.zarr")
    md.write_archive(frames, str(tmp_path / "archive.zarr"))
    names = [md.open_frames(tmp_path / "archive.zarr").data.name for _ in range(2)]
    md.write_archive(frames + 1, str(tmp_path / "archive.zarr"), resume=False)
    assert names[0] == names[1] != md.open_frames(tmp_path / "archive.zarr").data.name
    md.write_archive(frames, str(tmp_path / "archive.zarr"), resume=False)
    again = md.open_frames(tmp_path / "archive.zarr", chunks={"shot": 3})
    assert again.chunks[0] == (3, 3)
    np.testing.assert_array_equal(again, FRAMES)
    with pytest.raises(MrcFormatError, match=r"there is no array dark, only: .*images"):
        md.open_frames(tmp_path / "archive.zarr", dataset="dark")


def test_fabio_formats(tmp_path: Path) -> None:
    fabio = pytest.importorskip("fabio")
    for k, frame in enumerate(FRAMES):
        fabio.cbfimage.CbfImage(data=frame.astype(np.int32)).write(str(tmp_path / f"run_{k}.cbf"))
    frames = md.open_frames(str(tmp_path / "run_*.cbf"))
    np.testing.assert_array_equal(frames, FRAMES)
    stack = fabio.edfimage.EdfImage(data=FRAMES[0])
    for frame in FRAMES[1:]:
        stack.append_frame(data=frame)
    stack.write(str(tmp_path / "stack.edf"))
    np.testing.assert_array_equal(md.open_frames(tmp_path / "stack.edf", chunks={"shot": 2}), FRAMES)
    fabio.cbfimage.CbfImage(data=FRAMES[0, 1:].astype(np.int32)).write(str(tmp_path / "run_2.cbf"))
    with pytest.raises(MrcFormatError, match=r"run_2\.cbf: frame 0: int32 \(63, 80\) where int32 \(64, 80\)"):
        frames.compute(scheduler="sync")
    with pytest.raises(ValueError, match="FabIO, Merlin files together"):
        md.open_frames([tmp_path / "run_0.cbf", tmp_path / "scan.mib"])
    with pytest.raises(FileNotFoundError):
        md.open_frames(tmp_path / "none.cbf")


def test_a_truncated_cbf_is_refused(tmp_path: Path) -> None:
    fabio = pytest.importorskip("fabio")
    path = tmp_path / "run.cbf"
    fabio.cbfimage.CbfImage(data=FRAMES[0].astype(np.int32)).write(str(path))
    whole = path.read_bytes()
    start = whole.index(b"\x0c\x1a\x04\xd5")
    for size in (0, 5, 20, 200, start - 100, start, start + 3, start + 4, start + 9, len(whole) - 40):
        path.write_bytes(whole[:size])
        with pytest.raises(MrcFormatError, match=r"run\.cbf: "):
            md.open_frames(path).compute(scheduler="sync")
    for name, cut in (("run.cbf.gz", gzip.compress(whole[:start])), ("run.img", whole[:start])):
        (tmp_path / name).write_bytes(cut)
        with pytest.raises(MrcFormatError, match=r"run\.\w.*: the file ends before the pixels of the CBF begin"):
            md.open_frames(tmp_path / name)


@pytest.mark.real_data
def test_real_cbf_frames_from_disk_and_from_an_object_store(data_dir: Path, bucket: Bucket) -> None:
    fabio = pytest.importorskip("fabio")
    files = sorted((data_dir / "real/diffraction").glob("thau*.cbf.bz2"))
    frames = md.open_frames(files, chunks={"shot": 1})
    assert frames.attrs["beam_center"] == [1306.96, 1261.61]
    assert frames.attrs["distance_m"] == 0.351
    assert (frames.attrs["dummy"], frames.attrs["delta_dummy"]) == (-2, 1.5)
    expected = fabio.open(str(files[3])).data
    np.testing.assert_array_equal(frames[3], expected)
    url = bucket.put(files[3].name, files[3].read_bytes())
    np.testing.assert_array_equal(md.open_frames(url, storage_options=bucket.options)[0], expected)
