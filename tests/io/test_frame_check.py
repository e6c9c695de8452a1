"""`validate` of files that are no MRC: sound ones are sound, and what cannot be read is named."""

from __future__ import annotations

import json
from pathlib import Path

import fabio.cbfimage
import fabio.edfimage
import h5py
import numpy as np
import pytest
import tifffile
from numcodecs import zstd

import mrczdask as md
from mrczdask.cli import main
from mrczdask.errors import MrczdaskWarning
from tests.io.test_eer import SHAPE, camera_frames, write_eer
from tests.io.test_frames import block_file
from tests.mrc_bytes import counts, mrc_bytes

FRAMES = counts((5, 24, 32), "u2")


def hdf5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("entry/data/data", data=FRAMES, chunks=(1, 24, 32), compression="gzip")


def mib(path: Path) -> None:
    head = "MQ1,000001,00384,01,0032,0024,U08,   1x1,01,2024-01-01 00:00:00.000000,0.001,0,0,0".ljust(384, "\0")
    path.write_bytes(b"".join(head.encode() + frame.astype("u1").tobytes() for frame in FRAMES))


def blo(path: Path) -> None:
    path.write_bytes(block_file((1, 5), np.ascontiguousarray(FRAMES[:, :, :24].astype("u1"))))


SOUND = {
    "a.tif": lambda path: tifffile.imwrite(path, FRAMES, photometric="minisblack", metadata=None, compression="lzw"),
    "a.tiff": lambda path: tifffile.imwrite(path, FRAMES, photometric="minisblack", metadata=None),
    "a.gain": lambda path: tifffile.imwrite(path, FRAMES[:1].astype("f4"), photometric="minisblack", metadata=None),
    "a.eer": lambda path: write_eer(path, camera_frames(5, SHAPE), SHAPE),
    "a.h5": hdf5,
    "a.cxi": hdf5,
    "a.mib": mib,
    "a.blo": blo,
    "a.cbf": lambda path: fabio.cbfimage.CbfImage(data=FRAMES[0].astype("i4")).write(str(path)),
    "a.edf": lambda path: fabio.edfimage.EdfImage(data=FRAMES[0]).write(str(path)),
    "a.mrc": lambda path: path.write_bytes(mrc_bytes(FRAMES, 6)),
    "a.mrc.zst": lambda path: path.write_bytes(bytes(zstd.compress(mrc_bytes(FRAMES, 6), 3))),
}


@pytest.mark.parametrize("pixels", [True, False])
@pytest.mark.parametrize("name", list(SOUND))
def test_a_sound_file_has_no_fault(tmp_path: Path, name: str, pixels: bool) -> None:
    SOUND[name](tmp_path / name)
    report = md.validate(tmp_path / name, pixels=pixels)
    assert report.ok
    assert not {"not-mrc", "not-opened", "frame-corrupt"} & set(report.codes), str(report)
    assert report.n_frames == (1 if name in ("a.gain", "a.cbf", "a.edf") else 5)
    assert main(["validate", str(tmp_path / name)]) == 0


@pytest.mark.parametrize("name", ["a.tif", "a.eer", "a.h5", "a.mib", "a.blo", "a.cbf"])
@pytest.mark.parametrize("damage", ["cut", "text"])
def test_a_file_that_does_not_open_is_named(tmp_path: Path, name: str, damage: str) -> None:
    SOUND[name](tmp_path / name)
    raw = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(raw[: len(raw) // 3] if damage == "cut" else b"a note\n" * 200)
    report = md.validate(tmp_path / name)
    assert not report.ok
    assert "not-mrc" not in report.codes
    assert main(["validate", str(tmp_path / name)]) == 1
    with pytest.raises(FileNotFoundError):
        md.validate(tmp_path / f"b{name}")


def test_every_strip_that_does_not_unpack_is_listed(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, FRAMES, photometric="minisblack", metadata=None, compression="deflate", rowsperstrip=8)
    raw = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        for page in (1, 3):
            at = file.pages[page].dataoffsets[2]
            raw[at + 4 : at + 8] = b"\xff\xfe\xff\xfe"
    path.write_bytes(raw)
    report = md.validate(path)
    assert [(one.code, one.frame) for one in report.findings] == [("frame-corrupt", 1), ("frame-corrupt", 3)]
    assert md.validate(path, pixels=False).ok


def test_pixels_that_are_not_numbers(tmp_path: Path) -> None:
    frames = FRAMES.astype("f4")
    frames[2, 3, :4] = np.nan
    tifffile.imwrite(tmp_path / "a.tif", frames, photometric="minisblack", metadata=None)
    report = md.validate(tmp_path / "a.tif")
    assert report.codes == ("not-finite",)
    assert "4 pixels of 1 frames" in report.findings[0].text


def test_notes_are_told_by_validate_and_info_and_once_by_open(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for k in range(3):
        (tmp_path / f"m{k}.mrc").write_bytes(mrc_bytes(FRAMES, 6))
        text = "".join(f"[ZValue = {z}]\nTiltAngle = {z}\nDateTime = 1-Jan-24  10:0{k}:0{z}\n\n" for z in range(1, 6))
        (tmp_path / f"m{k}.mrc.mdoc").write_text(text)
    with pytest.warns(MrczdaskWarning) as said:
        md.open_session(f"{tmp_path}/m*.mrc")
    (text,) = [str(one.message) for one in said]
    assert text.count("numbered 1 to 5") == 1
    assert all(f"m{k}.mrc" in text for k in range(3))
    assert "noted" in md.validate(tmp_path / "m0.mrc").codes
    assert main(["info", str(tmp_path / "m0.mrc"), "--json"]) == 0
    (about,) = json.loads(capsys.readouterr().out)
    assert "numbered 1 to 5" in about["notes"][0]
