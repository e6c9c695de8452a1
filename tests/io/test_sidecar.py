from __future__ import annotations

import sys
from pathlib import Path

import fsspec
import pytest

from mrczdask.io.sidecar import find_mdoc, read_sidecar

MDOC = "Voltage = 300\n\n[FrameSet = 0]\nTiltAngle = 3\nNumSubFrames = 2\nDoseRate = 7\n"


@pytest.mark.parametrize("name", ["movie.tif.mdoc", "movie.mdoc"])
def test_beside_the_movie(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(MDOC)
    facts = read_sidecar(str(tmp_path / "movie.tif"), 2)
    assert facts.attrs["voltage_kv"] == 300
    assert facts.session == {"dose_rate": 7.0}
    assert find_mdoc(str(tmp_path / "movie.tif")) == str(tmp_path / name)


def test_none(tmp_path: Path) -> None:
    (tmp_path / "other.tif.mdoc").write_text(MDOC)
    assert read_sidecar(str(tmp_path / "movie.tif"), 2).attrs == {}


def test_remote() -> None:
    fs = fsspec.filesystem("memory")
    fs.pipe("/sidecars/movie.tif.mdoc", MDOC.encode())
    assert read_sidecar("memory://sidecars/movie.tif", 2).attrs["voltage_kv"] == 300
    assert find_mdoc("memory://sidecars/other.tif") is None
    assert find_mdoc("memory://nowhere/movie.tif") is None


def test_without_mdocfile_the_movie_still_opens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "movie.mdoc").write_text(MDOC)
    monkeypatch.setitem(sys.modules, "mdocfile.data_models", None)
    facts = read_sidecar(str(tmp_path / "movie.tif"), 2)
    assert facts.attrs == {}
    assert "mrczdask[em]" in facts.notes[0]


def test_a_huge_sidecar_is_not_read(tmp_path: Path) -> None:
    with open(tmp_path / "movie.mdoc", "wb") as file:
        file.truncate(65 << 20)
    assert "bytes are no" in read_sidecar(str(tmp_path / "movie.tif"), 2).notes[0]
