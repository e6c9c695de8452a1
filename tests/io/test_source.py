from __future__ import annotations

import bz2
import gzip
import lzma
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest
from numcodecs import zstd

from mrczdask.errors import MrcFormatError, StoreError
from mrczdask.io import source
from mrczdask.io.source import is_remote, is_wrapped, local_path, open_source, retry, unwrapped_name

BODY = bytes(range(256)) * 40
WRAP: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda body: bytes(zstd.compress(body, 3, checksum=True)),
}


@pytest.fixture
def no_pause(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    pauses: list[float] = []
    monkeypatch.setattr(source.time, "sleep", pauses.append)
    return pauses


def body_at(path: Path, kind: str) -> str:
    if kind == "memory":
        fsspec.filesystem("memory").pipe("/bodies/body.bin", BODY)
        return "memory://bodies/body.bin"
    if kind in WRAP:
        target = path / f"body.bin{kind}"
        target.write_bytes(WRAP[kind](BODY))
        return str(target)
    target = path / "body.bin"
    target.write_bytes(BODY)
    return f"file://{target}" if kind == "url" else str(target)


@pytest.mark.parametrize("kind", ["path", "url", "memory", *WRAP])
def test_ranges_are_read(tmp_path: Path, kind: str) -> None:
    with open_source(body_at(tmp_path, kind)) as opened:
        assert opened.size == len(BODY)
        assert opened.fingerprint["size"] == len(WRAP.get(kind, bytes)(BODY))
        assert opened.concurrent == (kind == "memory")
        assert opened.read_at(100, 50) == BODY[100:150]
        assert opened.read_at(10, 0) == b""
        assert opened.read_at(len(BODY) - 5, 100) == BODY[-5:]
        assert opened.read_at(len(BODY) + 5, 100) == b""
        ranges = [(500, 10), (0, 4), (len(BODY), 9), (20, 0)]
        assert opened.read_ranges(ranges) == [BODY[500:510], BODY[:4], b"", b""]


@pytest.mark.parametrize("kind", WRAP)
@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: raw[:-30],
        lambda raw: raw[:20] + bytes(255 - byte for byte in raw[20:29]) + raw[29:],
        lambda raw: b"no",
    ],
    ids=["cut", "flipped", "other"],
)
def test_damaged_wrappers_are_format_errors(tmp_path: Path, kind: str, damage: Callable[[bytes], bytes]) -> None:
    path = Path(body_at(tmp_path, kind))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(MrcFormatError, match="wrapper is corrupt"), open_source(str(path)) as opened:
        opened.read_at(0, opened.size)


@pytest.mark.parametrize("url", ["missing.mrc", "missing.mrc.gz", "memory://missing.mrc"])
def test_missing_files(tmp_path: Path, url: str) -> None:
    url = url if "://" in url else str(tmp_path / url)
    with pytest.raises(FileNotFoundError), open_source(url) as opened:
        opened.read_at(0, 1)


@pytest.mark.parametrize("kind", ["path", *WRAP])
def test_fingerprint_changes_with_the_file(tmp_path: Path, kind: str) -> None:
    wrap = WRAP.get(kind, bytes)
    path = tmp_path / f"a{kind if kind in WRAP else ''}"
    path.write_bytes(wrap(b"one"))
    with open_source(str(path)) as opened:
        first = opened.fingerprint
    path.write_bytes(wrap(b"two"))
    os.utime(path, ns=(1, 1))
    with open_source(str(path)) as opened:
        assert opened.fingerprint != first


@pytest.mark.parametrize(
    ("url", "remote", "wrapped", "name", "path"),
    [
        ("a.mrc", False, False, "a.mrc", "a.mrc"),
        ("/x/a.mrc.GZ", False, True, "/x/a.mrc", "/x/a.mrc.GZ"),
        ("file:///x/a.mrc.bz2", False, True, "file:///x/a.mrc", "/x/a.mrc.bz2"),
        ("s3://b/a.mrcz", True, False, "s3://b/a.mrcz", "b/a.mrcz"),
        ("https://h/a.map.xz", True, True, "https://h/a.map", "h/a.map.xz"),
    ],
)
def test_names(url: str, remote: bool, wrapped: bool, name: str, path: str) -> None:
    assert (is_remote(url), is_wrapped(url), unwrapped_name(url), local_path(url)) == (remote, wrapped, name, path)


def test_retry_pauses_longer_each_time_and_gives_up(no_pause: list[float]) -> None:
    calls = []

    def fail() -> None:
        calls.append(1)
        raise TimeoutError("slow down")

    with pytest.raises(StoreError, match=r"s3://b/a: the store failed 5 times: TimeoutError: slow down"):
        retry(fail, "s3://b/a")
    assert len(calls) == source.TRIES
    assert no_pause == [0.1, 0.2, 0.4, 0.8]
    assert sum(no_pause) < 10


def test_retry_succeeds_when_the_store_does(no_pause: list[float]) -> None:
    answers = iter([OSError("503 slow down"), ConnectionResetError(), b"pixels"])

    def call() -> bytes:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert retry(call, "s3://b/a") == b"pixels"
    assert len(no_pause) == 2


@pytest.mark.parametrize("error", [FileNotFoundError, PermissionError, IsADirectoryError, ValueError, KeyError])
def test_what_cannot_pass_is_not_tried_again(no_pause: list[float], error: type[Exception]) -> None:
    def fail() -> None:
        raise error("for good")

    with pytest.raises(error):
        retry(fail, "s3://b/a")
    assert no_pause == []


def test_store_that_gives_too_few_bytes_is_asked_again(no_pause: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    fs = fsspec.filesystem("memory")
    fs.pipe("/short/a.bin", BODY)
    real = type(fs).cat_ranges
    asked = []

    def short(self, paths, starts, ends, **options):  # type: ignore[no-untyped-def]
        asked.append(len(paths))
        parts = real(self, paths, starts, ends, **options)
        return [part[:-1] for part in parts] if len(asked) == 1 else parts

    monkeypatch.setattr(type(fs), "cat_ranges", short)
    with open_source("memory://short/a.bin") as opened:
        assert opened.read_ranges([(5, 10), (50, 10)]) == [BODY[5:15], BODY[50:60]]
    assert asked == [2, 2]
    assert len(no_pause) == 1


def test_errors_travel_between_processes() -> None:
    error = MrcFormatError("bad", url="a.mrc", frame=3, byte=12345)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is MrcFormatError
    assert str(again) == str(error) == "a.mrc: frame 3 at byte 12 345: bad"
    assert str(MrcFormatError("bad").at("b.mrc")) == "b.mrc: bad"


def test_a_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError, match=f"folder, give a file in it: '{tmp_path}'"), open_source(str(tmp_path)):
        pass
