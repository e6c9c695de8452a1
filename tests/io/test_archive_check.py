"""`validate` on archives: what is lost, half written or damaged is found, with a word on what to do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr

import mrczdask as md
from mrczdask.cli import main


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    movie = md.simulate.poisson((6, 400, 500), mean=1.0, seed=0)
    md.write_archive(movie, tmp_path / "m.zarr", codec="zstd", frames_per_shard=2)
    return tmp_path / "m.zarr"


def test_a_sound_archive(archive: Path) -> None:
    report = md.validate(archive)
    assert report.ok
    assert report.findings == ()
    assert report.n_frames == 6
    assert md.validate(archive, pixels=False).findings == ()


def test_missing_and_half_written_shards(archive: Path) -> None:
    (archive / "images/c/1/0/0").unlink()
    (archive / "images/c/2/0/0").unlink()
    (archive / "images/.journal/2.0.0.done").unlink()
    (archive / "images/.journal/0.0.0.done").unlink()
    (archive / "images/c/0/0/0.77.partial").write_bytes(b"x")
    report = md.validate(archive)
    assert report.codes == ("shard-lost", "shard-unwritten", "shard-half-written", "partial-files")
    assert "1 of 3 shards of images were written and are missing: 1/0/0" in report.findings[0].text
    movie = md.simulate.poisson((6, 400, 500), mean=1.0, seed=0)
    np.testing.assert_array_equal(md.write_archive(movie, archive, codec="zstd", frames_per_shard=2), movie)
    assert md.validate(archive).findings == ()


@pytest.mark.parametrize("pixels", [True, False])
def test_damaged_shards(archive: Path, pixels: bool) -> None:
    shard = archive / "images/c/1/0/0"
    raw = bytearray(shard.read_bytes())
    raw[-10 if not pixels else 1000] ^= 0x55
    shard.write_bytes(raw)
    report = md.validate(archive, pixels=pixels)
    assert report.codes == ("shard-corrupt",)
    assert "images: the shard 1/0/0: " in report.findings[0].text
    assert "resume=True" in report.findings[0].remedy


def test_archives_of_others_and_what_is_none(tmp_path: Path) -> None:
    group = zarr.open_group(str(tmp_path / "o.zarr"), mode="w")
    group.create_array("a", shape=(4, 8, 8), chunks=(1, 8, 8), dtype="i2")[:2] = 1
    assert md.validate(tmp_path / "o.zarr").codes == ("shards-absent",)
    (tmp_path / "o.zarr/a/zarr.json").write_text('{"zarr_format": 3, "node_type": "array"}')
    assert "archive-metadata" in md.validate(tmp_path / "o.zarr").codes
    with pytest.raises(FileNotFoundError):
        md.validate(tmp_path / "none.zarr")


def test_the_command_line(archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", str(archive)]) == 0
    (archive / "images/c/1/0/0").unlink()
    assert main(["validate", str(archive)]) == 1
    assert "shard-lost" in capsys.readouterr().out
    md.write_mrcz(md.simulate.poisson((3, 32, 32), mean=1.0, seed=0), tmp_path / "m.mrcz", index=False)
    assert main(["index", "--footer", str(tmp_path / "m.mrcz")]) == 0
    assert main(["index", "--footer", "--sidecar", str(tmp_path / "m.mrcz")]) == 1
    assert main(["virtualize", str(tmp_path / "m.mrcz"), "--to", str(tmp_path / "v.json")]) == 0
    assert "1 x 3 x 32 x 32 uint8" in capsys.readouterr().out
    for _ in range(2):
        assert main(["convert", str(tmp_path / "m.mrcz"), str(tmp_path / "converted.zarr"), "--resume", "-q"]) == 0
    assert main(["convert", str(tmp_path / "m.mrcz"), str(tmp_path / "m.mrc"), "--resume", "-q"]) == 1
