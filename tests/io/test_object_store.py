"""Movies in S3: few requests to open, ranges to read, one upload to write, and nothing left of a failed one."""

from __future__ import annotations

from typing import Any

import dask.array as da
import mrcz
import numpy as np
import pytest
import s3fs

import mrczdask as md
from mrczdask.errors import MrcFormatError, StoreError
from mrczdask.io import source
from tests.io.conftest import Bucket
from tests.mrc_bytes import blosc1, counts, mrc_bytes

FRAMES = counts((40, 128, 100), "i2")


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    labels = {"labels": (b"MRCZ0.6.0",)}
    return {
        "plain.mrc": mrc_bytes(FRAMES, 1, **labels),
        "chunks.mrcz": mrc_bytes(FRAMES, 1, chunk=blosc1(block=4096), compressor=6, **labels),
    }


@pytest.fixture
def no_pause(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    pauses: list[float] = []
    monkeypatch.setattr(source.time, "sleep", pauses.append)
    return pauses


@pytest.mark.parametrize("name", ["plain.mrc", "chunks.mrcz"])
def test_open_and_read(bucket: Bucket, files: dict[str, bytes], name: str) -> None:
    url = bucket.put(name, files[name])
    movie = md.open_movie(url, storage_options=bucket.options)
    np.testing.assert_array_equal(movie.values, FRAMES)
    np.testing.assert_array_equal(movie.isel(frame=[30, 7], y=slice(40, 50)).values, FRAMES[[30, 7], 40:50])


def test_the_walk_takes_a_handful_of_requests_in_a_row(bucket: Bucket, files: dict[str, bytes]) -> None:
    url = bucket.put("chunks.mrcz", files["chunks.mrcz"])
    rounds = []
    real = source._RemoteSource.read_ranges

    def read_ranges(self: Any, ranges: Any) -> list[bytes]:
        rounds.append(len(ranges))
        return real(self, ranges)

    source._RemoteSource.read_ranges = read_ranges  # type: ignore[method-assign]
    try:
        movie = md.open_movie(url, storage_options=bucket.options)
    finally:
        source._RemoteSource.read_ranges = real  # type: ignore[method-assign]
    assert movie.sizes["frame"] == 40
    assert len(rounds) <= 8  # header, footer that is not there, 4 rounds of the walk, extended header


def test_an_index_saves_the_walk(bucket: Bucket) -> None:
    url = f"{bucket.url}/movie.mrcz"
    md.write_mrcz(FRAMES, url, storage_options=bucket.options)
    bucket.journal.clear()
    md.open_movie(url, storage_options=bucket.options)
    gets = [part for part in bucket.journal.ranges() if part != (0, 0)]  # those ask for what may stand beside it
    assert len(gets) == 4  # header; at the same time index and first chunk header; JSON
    assert sum(last - first + 1 for first, last in gets) < 4096 + 2048


def test_one_frame_is_one_range(bucket: Bucket, files: dict[str, bytes]) -> None:
    url = bucket.put("chunks.mrcz", files["chunks.mrcz"])
    movie = md.open_movie(url, chunks={"frame": 1}, storage_options=bucket.options)
    index = md.frame_index(url, storage_options=bucket.options)
    bucket.journal.clear()
    np.testing.assert_array_equal(movie[17].values, FRAMES[17])
    first = int(index.offset[17])
    assert bucket.journal.ranges() == [(first, first + int(index.length[17]) - 1)]
    assert len(bucket.journal.requests) == 1
    bucket.journal.clear()
    np.testing.assert_array_equal(movie[17, 8:16].values, FRAMES[17, 8:16])
    taken = sum(last - start + 1 for start, last in bucket.journal.ranges())
    assert taken < 4096 + 0.2 * int(index.length[17])


def test_plain_rows_are_one_range(bucket: Bucket, files: dict[str, bytes]) -> None:
    movie = md.open_movie(bucket.put("plain.mrc", files["plain.mrc"]), storage_options=bucket.options)
    bucket.journal.clear()
    np.testing.assert_array_equal(movie[3, 10:12].values, FRAMES[3, 10:12])
    start = 1024 + 3 * 128 * 200 + 10 * 200
    assert bucket.journal.ranges() == [(start, start + 399)]


def test_sessions_by_pattern(bucket: Bucket) -> None:
    for k in (2, 10, 1):
        frames = counts((3, 8, 10), "i2", seed=k)
        bucket.put(f"session/m{k}.mrcz", mrc_bytes(frames, 1, chunk=blosc1(), compressor=6))
    session = md.open_session(f"{bucket.url}/session/*.mrcz", order="name", storage_options=bucket.options)
    assert session.movie.values.tolist() == ["m1", "m2", "m10"]
    assert session.url.values[0] == f"{bucket.url}/session/m1.mrcz"
    np.testing.assert_array_equal(session.images.sel(movie="m10").values, counts((3, 8, 10), "i2", seed=10))


@pytest.mark.parametrize("codec", [None, "zstd"])
def test_writing_is_one_upload_that_is_whole_at_once(bucket: Bucket, codec: Any, tmp_path: Any) -> None:
    stored = md.write_mrcz(FRAMES, f"{bucket.url}/a.mrcz", codec=codec, storage_options=bucket.options)
    np.testing.assert_array_equal(stored.values, FRAMES)
    assert bucket.keys() == ["a.mrcz"]
    assert bucket.unfinished() == []
    bucket.client.download_file(bucket.name, "a.mrcz", str(tmp_path / "a.mrcz"))
    np.testing.assert_array_equal(mrcz.readMRC(str(tmp_path / "a.mrcz"))[0], FRAMES)


def test_large_files_go_in_parts(bucket: Bucket) -> None:
    frames = np.random.default_rng(0).integers(0, 2**15, (10, 1024, 1024), "i2")  # 21 MB, more than one part
    stored = md.write_mrcz(frames, f"{bucket.url}/a.mrc", codec=None, storage_options=bucket.options)
    assert len(bucket.journal.of("PUT")) >= 2
    np.testing.assert_array_equal(stored[7].values, frames[7])
    assert bucket.unfinished() == []


@pytest.mark.parametrize("error", [RuntimeError("fire"), KeyboardInterrupt()])
def test_an_error_midway_leaves_the_old_object(bucket: Bucket, error: BaseException) -> None:
    url = bucket.put("a.mrcz", b"the old one")

    def fail(part: np.ndarray, block_info: Any = None) -> np.ndarray:
        if block_info and block_info[None]["chunk-location"][0] == 5:
            raise error
        return part

    lazy = da.from_array(FRAMES, chunks=(4, -1, -1)).map_blocks(fail, dtype="i2")
    with pytest.raises(type(error)):
        md.write_mrcz(lazy, url, storage_options=bucket.options)
    assert bucket.keys() == ["a.mrcz"]
    assert bucket.client.get_object(Bucket=bucket.name, Key="a.mrcz")["Body"].read() == b"the old one"
    assert bucket.unfinished() == []


@pytest.mark.parametrize("stop", [KeyboardInterrupt, RuntimeError])
def test_an_upload_that_is_stopped_is_aborted(
    bucket: Bucket, stop: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    def some_then_stop(file: Any, target: Any, size: int) -> None:
        target.write(file.read(6 << 20))
        target.flush()
        raise stop

    monkeypatch.setattr("mrczdask.io.write._PIECE", 5 << 20)
    monkeypatch.setattr("mrczdask.io.write.shutil.copyfileobj", some_then_stop)
    frames = np.random.default_rng(0).integers(0, 2**15, (8, 1024, 1024), "i2")
    with pytest.raises(stop):
        md.write_mrcz(frames, f"{bucket.url}/a.mrc", codec=None, storage_options=bucket.options)
    assert [path for path in bucket.journal.of("PUT") if path.endswith("a.mrc")]  # a part had been sent
    assert bucket.keys() == []
    assert bucket.unfinished() == []


def test_a_store_that_stumbles_is_asked_again(bucket: Bucket, files: dict[str, bytes], no_pause: list[float]) -> None:
    url = bucket.put("plain.mrc", files["plain.mrc"])
    options = {**bucket.options, "config_kwargs": {"retries": {"max_attempts": 0}}}
    movie = md.open_movie(url, chunks={"frame": 1}, storage_options=options)
    bucket.journal.refuse += [503, 500]
    np.testing.assert_array_equal(movie[2].values, FRAMES[2])


def test_a_store_that_does_not_answer_is_an_error_of_one_line(
    bucket: Bucket, files: dict[str, bytes], no_pause: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = bucket.put("plain.mrc", files["plain.mrc"])
    movie = md.open_movie(url, storage_options=bucket.options)
    tries = []

    async def fail(*_: Any, **__: Any) -> None:
        tries.append(1)
        raise ConnectionResetError("peer went away")

    monkeypatch.setattr(s3fs.S3FileSystem, "_cat_file", fail)
    with pytest.raises(StoreError, match=r"plain\.mrc: the store failed 5 times: ConnectionResetError") as caught:
        movie[0].compute()
    assert "\n" not in str(caught.value)
    assert len(tries) == source.TRIES
    assert sum(no_pause) <= 2


def test_a_store_that_is_not_there(no_pause: list[float]) -> None:
    options = {
        "key": "testing",
        "secret": "testing",
        "endpoint_url": "http://127.0.0.1:9",  # the port of the discard service, closed everywhere
        "client_kwargs": {"region_name": "us-east-1"},
        "config_kwargs": {"retries": {"max_attempts": 0}, "connect_timeout": 2},
    }
    with pytest.raises(StoreError, match=r"s3://none/a\.mrc: the store failed 5 times: EndpointConnectionError"):
        md.open_movie("s3://none/a.mrc", storage_options=options)


def test_missing_objects_and_buckets(bucket: Bucket) -> None:
    with pytest.raises(FileNotFoundError):
        md.open_movie(f"{bucket.url}/none.mrc", storage_options=bucket.options)
    with pytest.raises(FileNotFoundError):
        md.open_session(f"{bucket.url}/*.mrcz", storage_options=bucket.options)


def test_an_object_that_was_replaced_is_seen_as_it_is(bucket: Bucket) -> None:
    first, second = counts((3, 8, 10), "i2", seed=1), counts((5, 8, 10), "i2", seed=2)
    url = bucket.put("a.mrcz", mrc_bytes(first, 1, chunk=blosc1(), compressor=6))
    # a session lists the bucket, and fsspec remembers the sizes it saw
    session = md.open_session(f"{bucket.url}/*.mrcz", order="name", storage_options=bucket.options)
    assert session.sizes["frame"] == 3
    bucket.put("a.mrcz", mrc_bytes(second, 1, chunk=blosc1(), compressor=6))
    movie = md.open_movie(url, storage_options=bucket.options)
    assert movie.sizes["frame"] == 5
    np.testing.assert_array_equal(movie.values, second)
    with pytest.raises(MrcFormatError):
        session.images.compute()


def test_validate_in_the_store(bucket: Bucket, files: dict[str, bytes]) -> None:
    url = bucket.put("a.mrcz", files["chunks.mrcz"][:-7])
    assert md.validate(url, storage_options=bucket.options).codes[0] == "truncated"
