"""Archives hold what was given, bit for bit, whatever interrupts their writing; what is wrong is said by name."""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask.array as da
import fsspec
import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from zarr.codecs import BloscCodec, Crc32cCodec, GzipCodec

import mrczdask as md
from mrczdask.codecs import B3D, PixelHistogram
from mrczdask.errors import MrcFormatError, MrczdaskError, ResumeError, StoreError
from mrczdask.io import source, stores
from mrczdask.io.archive_codecs import codecs_of, inner_chunk
from tests.mrc_bytes import counts


@pytest.fixture
def session(tmp_path: Path) -> xr.Dataset:
    for k in range(4):
        md.write_mrcz(counts((6, 40, 30), "i2", seed=k), tmp_path / f"m{k}.mrcz")
    return md.open_session(str(tmp_path / "m?.mrcz"), order="name")


def shards(folder: Path) -> dict[str, int]:
    """The files of the shards and when they were written."""
    return {str(f.relative_to(folder)): f.stat().st_mtime_ns for f in folder.rglob("c/**/*") if f.is_file()}


def test_a_session_goes_to_its_group_with_its_labels(session: xr.Dataset, tmp_path: Path) -> None:
    stored = md.write_archive(session, tmp_path / "s.zarr", frames_per_shard=3)
    np.testing.assert_array_equal(stored.images, session.images)
    assert stored.images.dtype == session.images.dtype
    assert stored.images.data.chunksize == (1, 3, 40, 30)
    assert stored.movie.values.tolist() == ["m0", "m1", "m2", "m3"]
    assert stored.movie.dtype.kind == "U"
    assert stored.images.attrs == session.images.attrs
    assert "write_archive" in stored.attrs["history"]
    tree = md.open_archive(tmp_path / "s.zarr")
    assert list(tree.children) == ["movies"]
    np.testing.assert_array_equal(tree["movies/images"], session.images)


def test_a_tree_is_written_group_by_group(session: xr.Dataset, tmp_path: Path) -> None:
    sums = md.sum_frames(session.images).to_dataset(name="images")
    mask = xr.DataArray(np.eye(30, dtype=bool), dims=("y", "x"), name="mask")
    tree = xr.DataTree.from_dict({"movies": session, "derived/sums": sums, "reference": mask.to_dataset()})
    stored = md.write_archive(tree, tmp_path / "s.zarr")
    assert {node.path for node in stored.subtree} == {"/", "/movies", "/derived", "/derived/sums", "/reference"}
    np.testing.assert_array_equal(stored["derived/sums/images"], sums.images)
    np.testing.assert_array_equal(stored["reference/mask"], mask)
    again = md.write_archive(sums, tmp_path / "s.zarr", group="derived/sums", resume=False)
    np.testing.assert_array_equal(again.images, sums.images)
    np.testing.assert_array_equal(md.open_archive(tmp_path / "s.zarr")["movies/images"], session.images)


def test_replacing_the_root_keeps_the_groups(session: xr.Dataset, tmp_path: Path) -> None:
    md.write_archive(session, tmp_path / "s.zarr")
    for seed in (1, 2):
        movie = md.simulate.poisson((3, 8, 8), mean=1.0, seed=seed)
        stored = md.write_archive(movie, tmp_path / "s.zarr", resume=False)
        np.testing.assert_array_equal(stored, movie)
    np.testing.assert_array_equal(md.open_archive(tmp_path / "s.zarr", "movies").images, session.images)


def test_consolidated_metadata_tell_what_is_there(session: xr.Dataset, tmp_path: Path) -> None:
    folder = tmp_path / "s.zarr"
    md.write_archive(session, folder)
    assert zarr.open_group(str(folder), mode="r").metadata.consolidated_metadata is None
    md.write_archive(session, folder, consolidate=True)
    sums = md.sum_frames(session.images)
    md.write_archive(sums, folder, group="derived/sums")
    md.write_archive(sums[:2], folder, group="derived/sums", resume=False)
    found = zarr.open_group(str(folder), mode="r", use_consolidated=True)
    known = found.metadata.consolidated_metadata
    assert known is not None
    assert known.flattened_metadata["movies/images"].shape == session.images.shape  # type: ignore[union-attr]
    assert known.flattened_metadata["derived/sums/images"].shape == (2, 40, 30)  # type: ignore[union-attr]
    np.testing.assert_array_equal(md.open_archive(folder)["derived/sums/images"], sums[:2])


def test_nothing_to_write_and_odd_parameters(tmp_path: Path) -> None:
    movie = md.simulate.poisson((3, 8, 8), mean=1.0, seed=0)
    with pytest.raises(MrczdaskError, match="holds no array"):
        md.write_archive(xr.Dataset(), tmp_path / "a.zarr")
    with pytest.raises(ValueError, match="codec 'lzma': give one of \"auto\""):
        md.write_archive(movie, tmp_path / "a.zarr", codec="lzma")
    with pytest.raises(ValueError, match="frames_per_shard=0"):
        md.write_archive(movie, tmp_path / "a.zarr", frames_per_shard=0)
    assert not (tmp_path / "a.zarr").exists()


@pytest.mark.parametrize("codec", ["auto", "zstd", "pixel_histogram", "b3d", "none", GzipCodec(level=1), B3D()])
def test_every_codec_is_exact_and_checked(tmp_path: Path, codec: Any) -> None:
    movie = md.simulate.poisson((6, 300, 300), mean=2.0, seed=3)
    stored = md.write_archive(movie.astype("u2"), tmp_path / "a.zarr", codec=codec, frames_per_shard=4)
    np.testing.assert_array_equal(stored, movie)
    assert (stored.encoding["chunks"], stored.encoding["shards"]) == ((1, 300, 300), (4, 300, 300))
    file = tmp_path / "a.zarr/images/c/0/0/0"
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 3] ^= 1
    file.write_bytes(raw)
    with pytest.raises(Exception, match=r"(?i)checksum|corrupt|crc"):
        md.open_archive(tmp_path / "a.zarr", "").images.values  # noqa: B018


@pytest.mark.parametrize("codec", ["zstd", "pixel_histogram", "b3d"])
@pytest.mark.parametrize("dtype", ["u1", "u2", "i4"])
def test_shards_are_the_bytes_that_zarr_writes(tmp_path: Path, codec: str, dtype: str) -> None:
    movie = md.simulate.poisson((7, 300, 300), mean=2.0, seed=3).astype(dtype)
    md.write_archive(movie, tmp_path / "a.zarr", codec=codec, frames_per_shard=4)
    shutil.copytree(tmp_path / "a.zarr", tmp_path / "b.zarr")
    zarr.open_array(str(tmp_path / "b.zarr"), path="images", mode="r+")[:] = movie.values
    for name in ("0/0/0", "1/0/0"):
        ours, theirs = (tmp_path / one / "images/c" / name for one in ("a.zarr", "b.zarr"))
        assert sorted_chunks(ours) == sorted_chunks(theirs)


def sorted_chunks(shard: Path) -> list[bytes]:
    """The chunks of a shard of four by their place: Zarr writes them in an order of its own."""
    raw = shard.read_bytes()
    table = np.frombuffer(raw[-68:-4], "<u8").reshape(4, 2)
    return [raw[int(at) : int(at + size)] for at, size in table if at < len(raw)]


def test_auto_takes_what_is_smallest() -> None:
    frames = md.simulate.poisson((2, 256, 256), mean=1.0, seed=0)
    noise = xr.DataArray(da.from_array(np.random.default_rng(0).integers(0, 2**16, (2, 64, 64), "u2")))
    smooth = md.simulate.fluorescence((2, 256, 256)).images.chunk()
    flat = xr.DataArray(da.zeros((2, 64, 64), dtype="f4"))

    def chosen(variable: xr.DataArray) -> Any:
        found = codecs_of(variable, "auto", (1, *variable.shape[1:]))
        return found.get("serializer") or found["compressors"][0]

    assert isinstance(chosen(frames), PixelHistogram | B3D)
    assert isinstance(chosen(smooth), B3D)
    assert isinstance(chosen(noise), BloscCodec)
    assert isinstance(chosen(flat), BloscCodec)
    assert chosen(md.sum_frames(frames)).to_dict()["configuration"]["cname"] == "lz4"
    assert isinstance(codecs_of(flat, "zstd", (1, 64, 64))["compressors"][-1], Crc32cCodec)


def test_the_chunk_in_a_shard() -> None:
    assert inner_chunk(("movie", "frame", "y", "x"), (1, 20, 512, 512), 2) == (1, 1, 512, 512)
    assert inner_chunk(("scan_y", "scan_x", "ky", "kx"), (4, 96, 128, 128), 2) == (1, 96, 128, 128)
    assert inner_chunk(("scan_y", "scan_x", "ky", "kx"), (4, 512, 128, 128), 2) == (1, 128, 128, 128)
    assert inner_chunk(("scan_y", "scan_x", "ky", "kx"), (4, 7, 4096, 4096), 2) == (1, 1, 4096, 4096)
    assert inner_chunk(("y", "x"), (64, 64), 8) == (64, 64)


def test_nothing_is_computed_until_the_plan_is_there(no_compute: None, tmp_path: Path) -> None:
    lazy = xr.DataArray(da.zeros((4, 8, 8), chunks=(2, 8, 8), dtype="i2"), dims=("frame", "y", "x"), name="images")
    made = md.write_archive(lazy, tmp_path / "a.zarr", codec="zstd", create_only=True)
    assert made.shape == (4, 8, 8)
    with pytest.raises(MrcFormatError, match=r"images/c/0/0/0: this shard is missing.*not yet written"):
        np.asarray(zarr.open_array(stores.open_store(tmp_path / "a.zarr", read_only=True), path="images")[0])


def test_a_finished_archive_is_left_alone(session: xr.Dataset, tmp_path: Path) -> None:
    md.write_archive(session, tmp_path / "s.zarr")
    before, done = shards(tmp_path / "s.zarr"), []
    stored = md.write_archive(session, tmp_path / "s.zarr", progress=lambda *said: done.append(said))
    assert shards(tmp_path / "s.zarr") == before
    assert done[-1] == (4, 4, "movies")
    np.testing.assert_array_equal(stored.images, session.images)


def test_only_what_changed_or_was_lost_is_written_again(session: xr.Dataset, tmp_path: Path) -> None:
    folder = tmp_path / "s.zarr"
    md.write_archive(session, folder)
    before = shards(folder)
    md.write_mrcz(counts((6, 40, 30), "i2", seed=77), tmp_path / "m1.mrcz")
    (folder / "movies/images/c/3/0/0/0").unlink()
    with pytest.raises(MrcFormatError, match="c/3/0/0/0: this shard is missing"):
        md.open_archive(folder)["movies/images"].values  # noqa: B018
    (folder / "movies/images/c/1/0/0/0.0123.partial").write_bytes(b"left by a killed writer")
    changed = md.open_session(str(tmp_path / "m?.mrcz"), order="name")
    stored = md.write_archive(changed, folder)
    np.testing.assert_array_equal(stored.images, changed.images)
    after = shards(folder)
    assert {name for name in after if after[name] != before.get(name)} == {
        "movies/images/c/1/0/0/0",
        "movies/images/c/3/0/0/0",
    }


def test_other_parameters_are_refused_by_name(session: xr.Dataset, tmp_path: Path) -> None:
    md.write_archive(session, tmp_path / "s.zarr", codec="zstd")
    before = shards(tmp_path / "s.zarr")
    cases: list[tuple[Any, dict[str, Any], str]] = [
        (session, {"codec": "none"}, "codec was 'zstd' and is 'none'"),
        (session, {"codec": "zstd", "frames_per_shard": 2}, r"images\.shards was \[1, 6, 40, 30\] and is \[1, 2"),
        (session.isel(frame=slice(3)), {"codec": "zstd"}, r"images\.shape was \[4, 6"),
        (session.astype("f4"), {"codec": "zstd"}, r"images\.dtype was 'int16' and is 'float32'"),
        (session.assign_coords(frame=np.arange(6) + 1), {"codec": "zstd"}, r"frame\.values was"),
    ]
    for other, options, said in cases:
        with pytest.raises(ResumeError, match=said):
            md.write_archive(other, tmp_path / "s.zarr", **options)
    assert shards(tmp_path / "s.zarr") == before


def test_what_another_program_wrote_is_kept(tmp_path: Path) -> None:
    zarr.create_array(str(tmp_path / "s.zarr" / "images"), data=np.ones((3, 8, 8)))
    zarr.open_group(str(tmp_path / "s.zarr"), mode="a")
    movie = md.simulate.poisson((3, 8, 8), mean=1.0, seed=0)
    with pytest.raises(ResumeError, match=r"s\.zarr: holds the array 'images' and no plan.*resume=False"):
        md.write_archive(movie, tmp_path / "s.zarr")
    with pytest.raises(
        ResumeError, match=r"s\.zarr: holds .*images, which write_archive did not write: overwrite=True"
    ):
        md.write_archive(movie, tmp_path / "s.zarr", resume=False)
    replaced = md.write_archive(movie, tmp_path / "s.zarr", resume=False, overwrite=True)
    np.testing.assert_array_equal(replaced, movie)


def test_a_creation_that_was_cut_short_is_begun_again(session: xr.Dataset, tmp_path: Path) -> None:
    md.write_archive(session, tmp_path / "s.zarr", create_only=True)
    (tmp_path / "s.zarr/movies/images/.journal/plan.json").unlink()
    np.testing.assert_array_equal(md.write_archive(session, tmp_path / "s.zarr").images, session.images)


def test_job_arrays_write_regions_side_by_side(session: xr.Dataset, tmp_path: Path) -> None:
    folder = tmp_path / "s.zarr"
    with pytest.raises(ResumeError, match="create_only=True"):
        md.write_archive(session, folder, region={"movie": slice(0, 2)})
    md.write_archive(session, folder, frames_per_shard=2, create_only=True)
    md.write_archive(session, folder, frames_per_shard=2, region={"movie": slice(1, 3), "frame": slice(2, 6)})
    assert {name.partition("images/c/")[2] for name in shards(folder) if "images" in name} == {
        f"{m}/{f}/0/0" for m in (1, 2) for f in (1, 2)
    }
    with pytest.raises(ValueError, match=r"region=\{'frame': slice\(1, 3\)\}: a region is whole shards, of 2"):
        md.write_archive(session, folder, frames_per_shard=2, region={"frame": slice(1, 3)})
    stored = md.write_archive(session, folder, frames_per_shard=2)
    np.testing.assert_array_equal(stored.images, session.images)


WRITER = """
import sys
import dask
import mrczdask as md
from tests.io.test_archive import slow_session
with dask.config.set(num_workers=2):
    print("begun", flush=True)
    md.write_archive(slow_session(), sys.argv[1], codec="zstd")
"""


def slow(block: np.ndarray) -> np.ndarray:
    time.sleep(0.03)
    return block + 1


def slow_session() -> xr.Dataset:
    """16 shards, 0.24 s of work on two threads."""
    frames = np.random.default_rng(0).integers(0, 99, (16, 2, 64, 64)).astype("i2")
    lazy = da.from_array(frames, chunks=(1, 2, 64, 64)).map_blocks(slow, dtype="i2")
    return xr.Dataset({"images": (("movie", "frame", "y", "x"), lazy)}, {"movie": [f"m{k}" for k in range(16)]})


def test_killed_at_any_moment_it_goes_on(tmp_path: Path) -> None:
    """The benchmark of archives does the same at 20 moments."""
    folder, wanted = tmp_path / "s.zarr", slow_session().images.values
    for pause in (0.02, 0.12, 0.2):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(folder)],
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        )
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"begun\n"
        time.sleep(pause)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
    counted: list[Any] = []
    stored = md.write_archive(slow_session(), folder, codec="zstd", progress=lambda *said: counted.append(said))
    np.testing.assert_array_equal(stored.images, wanted)
    assert not list(folder.rglob("*.partial"))
    assert not list(folder.rglob("*.lock"))
    whole = md.write_archive(slow_session(), tmp_path / "whole.zarr", codec="zstd")
    assert whole.identical(stored)
    pairs = [((folder / name), (tmp_path / "whole.zarr" / name)) for name in shards(folder)]
    assert all(ours.read_bytes() == theirs.read_bytes() for ours, theirs in pairs)


def test_a_worker_process_that_is_killed_costs_nothing(tmp_path: Path) -> None:
    from distributed import Client, LocalCluster

    whole = md.write_archive(slow_session(), tmp_path / "whole.zarr", codec="zstd")
    killed: list[int] = []
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster, Client(cluster) as client:

        def kill_one(done: int, total: int, label: str) -> None:
            if done == 3 and not killed:
                killed.append(next(iter(client.run(os.getpid).values())))
                os.kill(killed[0], signal.SIGKILL)

        stored = md.write_archive(slow_session(), tmp_path / "s.zarr", codec="zstd", progress=kill_one)
        assert killed
        assert stored.identical(whole)
    pairs = [(tmp_path / "s.zarr" / name, tmp_path / "whole.zarr" / name) for name in shards(tmp_path / "whole.zarr")]
    assert len(pairs) > 16
    assert all(ours.read_bytes() == theirs.read_bytes() for ours, theirs in pairs)
    assert not [*tmp_path.rglob("*.partial"), *tmp_path.rglob("*.lock*")]


def test_a_region_can_be_sent_to_another_machine(session: xr.Dataset, tmp_path: Path) -> None:
    store = stores.open_store(str(tmp_path / "s.zarr"), read_only=False)
    assert pickle.loads(pickle.dumps(store)) == store
    md.write_archive(session, tmp_path / "s.zarr")
    opened = md.open_archive(tmp_path / "s.zarr")["movies/images"]
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(opened)), session.images)


@pytest.fixture
def memory() -> Iterator[str]:
    yield "memory://archive-test/s.zarr"
    fsspec.filesystem("memory").rm("/archive-test", recursive=True)


def test_stores_by_url_and_stores_of_zarr(session: xr.Dataset, memory: str) -> None:
    np.testing.assert_array_equal(md.write_archive(session, memory).images, session.images)
    kept: dict[str, Any] = {}
    store = zarr.storage.MemoryStore(kept)
    for _ in range(2):
        np.testing.assert_array_equal(md.write_archive(session, store).images, session.images)
    assert any(key.endswith("images/.journal/0.0.0.0.done") for key in kept)
    np.testing.assert_array_equal(md.open_archive(store)["movies/images"], session.images)


class Stumbling(zarr.storage.LocalStore):
    """Fails as often as it is told."""

    failures: int = 0

    async def get(self, *given: Any, **options: Any) -> Any:
        if Stumbling.failures > 0:
            Stumbling.failures -= 1
            raise ConnectionResetError("peer went away from https://user:pass@host/x?X-Amz-Signature=abc&y=1")
        return await super().get(*given, **options)


def test_requests_are_tried_again_and_their_number_is_bounded(
    session: xr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    md.write_archive(session, tmp_path / "s.zarr")
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(stores.asyncio, "sleep", pause)
    Stumbling.failures = source.TRIES - 1
    opened = md.open_archive(Stumbling(tmp_path / "s.zarr", read_only=True), "movies")
    np.testing.assert_array_equal(opened.images, session.images)
    assert len(pauses) == source.TRIES - 1
    assert sum(pauses) <= 2
    Stumbling.failures = 1000
    with pytest.raises(StoreError, match="the store failed 5 times: ConnectionResetError") as caught:
        opened.images[0].compute()
    Stumbling.failures = 0
    assert "pass" not in str(caught.value)
    assert "abc" not in str(caught.value)


def test_metadata_that_ask_for_too_much_are_refused(tmp_path: Path) -> None:
    group = zarr.open_group(str(tmp_path / "s.zarr"), mode="w")
    group.create_array("images", shape=(1 << 20, 1 << 20), chunks=(1 << 17, 1 << 17), dtype="f4")
    with pytest.raises(MrcFormatError, match=r"images: chunks of .*more than 2 GiB"):
        md.open_archive(tmp_path / "s.zarr")
    group = zarr.open_group(str(tmp_path / "t.zarr"), mode="w")
    group.create_array("frame", shape=(1 << 40,), chunks=(1024,), dtype="i8", dimension_names=["frame"])
    with pytest.raises(MrcFormatError, match="labels along one dim"):
        md.open_archive(tmp_path / "t.zarr")


def test_secrets_in_urls_are_not_archived(session: xr.Dataset, tmp_path: Path) -> None:
    signed = "https://user:hunter2@host/m0.mrcz?X-Amz-Credential=AKIA&X-Amz-Signature=f00d&partNumber=1"
    labelled = session.assign_coords(url=("movie", [signed] * 4))
    labelled.attrs["history"] = f"read from {signed}"
    md.write_archive(labelled, tmp_path / "s.zarr")
    for file in (path for path in (tmp_path / "s.zarr").rglob("*") if path.is_file()):
        assert not any(secret in file.read_bytes() for secret in (b"hunter2", b"AKIA", b"f00d")), file
    kept = md.open_archive(tmp_path / "s.zarr")["movies"].url.values[0]
    assert kept == "https://***@host/m0.mrcz?X-Amz-Credential=***&X-Amz-Signature=***&partNumber=1"


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_round_trips_under_random_chunks(tmp_path: Path, data: st.DataObject) -> None:
    shape = tuple(data.draw(st.lists(st.integers(1, 9), min_size=4, max_size=4)))
    dtype = data.draw(st.sampled_from(["u1", "i2", "u2", "u4", "f4", "c8", "?"]))
    chunks = tuple(data.draw(st.integers(-(-n // 2), n)) for n in shape)
    scan = data.draw(st.booleans())
    dims = ("scan_y", "scan_x", "ky", "kx") if scan else ("movie", "frame", "y", "x")
    pixels = np.random.default_rng(sum(shape)).integers(0, 200, shape).astype(dtype)
    lazy = xr.DataArray(da.from_array(pixels, chunks=chunks), dims=dims, name="images")
    codec = data.draw(st.sampled_from(["auto", "zstd", "pixel_histogram", "b3d", "none"]))
    per_shard = None if scan else data.draw(st.none() | st.integers(-(-shape[1] // 2), shape[1]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mrczdask.io.archive_codecs.MIN_SHARD_BYTES", 0)
        stored = md.write_archive(
            lazy, tmp_path / "a.zarr", codec=codec, frames_per_shard=per_shard, resume=False, group="movies"
        )
    np.testing.assert_array_equal(stored.values, pixels)
    assert stored.dtype == pixels.dtype
