from __future__ import annotations

import os
import stat
from pathlib import Path

import fsspec
import pytest

from mrczdask.errors import StoreError
from mrczdask.io import source
from mrczdask.io.write import create_file, replace_file


@pytest.mark.parametrize("kind", ["path", "url", "memory"])
def test_the_file_appears_when_it_is_whole(tmp_path: Path, kind: str) -> None:
    fs = fsspec.filesystem("memory" if kind == "memory" else "file")
    url = {"path": f"{tmp_path}/a", "url": f"file://{tmp_path}/a", "memory": "memory://write/a"}[kind]
    with create_file(url) as file:
        file.write(b"0123456789")
        file.seek(2)
        file.write(b"ab")
        assert not fs.exists(url)
    assert fs.cat(url) == b"01ab456789"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("kind", ["path", "memory"])
def test_nothing_is_left_of_a_failed_one(tmp_path: Path, kind: str, error: type[BaseException]) -> None:
    fs = fsspec.filesystem("memory" if kind == "memory" else "file")
    url = f"{tmp_path}/a" if kind == "path" else f"memory://{error.__name__}/a"

    def fail() -> None:
        with create_file(url) as file:
            file.write(b"half")
            raise error

    with pytest.raises(error):
        fail()
    assert not fs.exists(url)
    assert list(tmp_path.iterdir()) == []
    replace_file(url, b"old")
    with pytest.raises(error):
        fail()
    assert fs.cat(url) == b"old"


def test_two_writers_do_not_mix(tmp_path: Path) -> None:
    with create_file(f"{tmp_path}/a") as one, create_file(f"{tmp_path}/a") as two:
        one.write(b"one")
        two.write(b"second")
    assert (tmp_path / "a").read_bytes() == b"one"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_permissions_are_those_of_the_user(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        replace_file(f"{tmp_path}/a", b"x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        replace_file(f"{tmp_path}/none/a", b"x")


def test_a_store_that_fails_in_passing_gets_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source.time, "sleep", lambda _: None)
    fs = fsspec.filesystem("memory")
    real, tries = type(fs).open, []

    def flaky(self, path, mode="rb", **options):  # type: ignore[no-untyped-def]
        if "w" in mode:
            tries.append(1)
            if len(tries) < 3:
                raise ConnectionResetError("gone")
        return real(self, path, mode, **options)

    monkeypatch.setattr(type(fs), "open", flaky)
    replace_file("memory://flaky/a", b"whole")
    assert len(tries) == 3
    assert fs.cat("memory://flaky/a") == b"whole"
    monkeypatch.setattr(type(fs), "open", lambda *_, **__: (_ for _ in ()).throw(ConnectionResetError("gone")))
    with pytest.raises(StoreError, match="failed 5 times"):
        replace_file("memory://flaky/b", b"never")
