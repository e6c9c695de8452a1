"""Archives and references in S3: through s3fs and obstore, and through a line on which a tenth of the requests fail."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import s3fs
import xarray as xr
import zarr

import mrczdask as md
from benchmarks.faulty_proxy import FaultyProxy
from mrczdask.errors import StoreError
from mrczdask.io import source
from tests.io.conftest import CREDENTIALS, Bucket
from tests.mrc_bytes import counts

FRAMES = np.stack([counts((4, 64, 50), "i2", seed=k) for k in range(3)])
SECRET = "AKIA-not-to-be-seen"


@pytest.fixture
def session() -> xr.Dataset:
    return xr.Dataset({"images": (("movie", "frame", "y", "x"), FRAMES)}, {"movie": ["a", "b", "c"]}).chunk(movie=1)


@pytest.fixture
def faulty(bucket: Bucket) -> Iterator[tuple[FaultyProxy, dict[str, Any]]]:
    """A proxy before the store, and the options to go through it; the clients themselves try once."""
    with FaultyProxy(bucket.options["endpoint_url"], share=0.1, seed=1) as proxy:
        once = {"retries": {"max_attempts": 0}, "connect_timeout": 5, "read_timeout": 20}
        yield proxy, {**bucket.options, "endpoint_url": proxy.url, "config_kwargs": once}


def of_obstore(bucket: Bucket, prefix: str) -> zarr.storage.ObjectStore[Any]:
    from obstore.store import S3Store

    return zarr.storage.ObjectStore(
        S3Store(
            bucket.name,
            prefix=prefix,
            endpoint=bucket.options["endpoint_url"],
            access_key_id=CREDENTIALS["key"],
            secret_access_key=CREDENTIALS["secret"],
            region="us-east-1",
            client_options={"allow_http": True},
            virtual_hosted_style_request=False,
        )
    )


def test_written_and_read_through_s3fs(bucket: Bucket, session: xr.Dataset) -> None:
    url = f"{bucket.url}/s.zarr"
    for _ in range(2):
        stored = md.write_archive(session, url, storage_options=bucket.options)
        np.testing.assert_array_equal(stored.images, FRAMES)
    before = bucket.journal.of("PUT")
    md.write_archive(session, url, storage_options=bucket.options)
    assert bucket.journal.of("PUT") == before
    assert md.validate(url, storage_options=bucket.options).findings == ()
    key = "s.zarr/movies/images/c/1/0/0/0"
    bucket.client.delete_object(Bucket=bucket.name, Key=key)
    report = md.validate(url, storage_options=bucket.options)
    assert report.codes == ("shard-lost",)


def test_written_and_read_through_obstore(bucket: Bucket, session: xr.Dataset) -> None:
    store = of_obstore(bucket, "o.zarr")
    for _ in range(2):
        np.testing.assert_array_equal(md.write_archive(session, store).images, FRAMES)
    opened = md.open_archive(f"{bucket.url}/o.zarr", "movies", storage_options=bucket.options)
    np.testing.assert_array_equal(opened.images, FRAMES)
    keys = bucket.keys()
    assert "o.zarr/movies/images/.journal/0.0.0.0.done" in keys


def test_one_frame_is_two_requests(bucket: Bucket) -> None:
    movie = md.simulate.poisson((8, 512, 512), mean=1.0, seed=0)
    stored = md.write_archive(movie, f"{bucket.url}/m.zarr", storage_options=bucket.options, codec="zstd")
    array = zarr.open_array(f"{bucket.url}/m.zarr", path="images", mode="r", storage_options=bucket.options)
    wanted = stored[5].values
    bucket.journal.clear()
    np.testing.assert_array_equal(array[5], wanted)
    assert len(bucket.journal.requests) == 2  # index, chunk
    bucket.journal.clear()
    np.testing.assert_array_equal(stored[5], wanted)
    assert len(bucket.journal.requests) == 2
    bucket.journal.clear()
    stored.data.compute(scheduler="threads")
    assert len(bucket.journal.of("GET")) == 1  # the shard


def test_faults_on_the_line_change_nothing(
    faulty: tuple[FaultyProxy, dict[str, Any]], bucket: Bucket, session: xr.Dataset
) -> None:
    proxy, options = faulty
    stored = md.write_archive(session, f"{bucket.url}/s.zarr", storage_options=options)
    np.testing.assert_array_equal(stored.images, FRAMES)
    whole = md.open_archive(f"{bucket.url}/s.zarr", "movies", storage_options=bucket.options)
    np.testing.assert_array_equal(whole.images, FRAMES)
    assert md.validate(f"{bucket.url}/s.zarr", storage_options=bucket.options).findings == ()
    assert sum(proxy.counts[kind] for kind in proxy.kinds) >= 3


def test_a_line_that_is_dead_is_an_error_without_secrets(
    bucket: Bucket, session: xr.Dataset, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    caplog.set_level(logging.DEBUG, logger="mrczdask")
    with FaultyProxy(bucket.options["endpoint_url"], share=1.0, kinds=("drop", "503")) as proxy:
        options = {
            **bucket.options,
            "key": SECRET,
            "secret": SECRET,
            "endpoint_url": proxy.url,
            "config_kwargs": {"retries": {"max_attempts": 0}},
        }
        with pytest.raises(StoreError, match=r"s\.zarr.*the store failed 5 times") as caught:
            md.write_archive(session, f"{bucket.url}/s.zarr", storage_options=options)
    assert SECRET not in f"{caught.value!r}{caught.value}"
    assert SECRET not in caplog.text


@pytest.mark.parametrize("suffix", ["json", "parquet", "icechunk"])
def test_references_to_a_bucket(bucket: Bucket, tmp_path: Any, suffix: str) -> None:
    for module in {"json": (), "parquet": ("fastparquet",), "icechunk": ("icechunk", "virtualizarr")}[suffix]:
        pytest.importorskip(module)
    for k, frames in enumerate(FRAMES):
        md.write_mrcz(frames, f"{bucket.url}/in/m{k}.mrcz", storage_options=bucket.options)
    target = str(tmp_path / f"s.{suffix}")
    cube = md.virtualize(f"{bucket.url}/in/*.mrcz", target, order="name", storage_options=bucket.options)
    bucket.journal.clear()
    np.testing.assert_array_equal(cube.images[1, 2], FRAMES[1, 2])
    assert len(bucket.journal.of("GET")) <= 4  # the frames of the Dask chunk
    again = md.open_archive(target, allow=[f"{bucket.url}/in"], storage_options=bucket.options)
    np.testing.assert_array_equal(again.images, FRAMES)
    with pytest.raises(md.errors.MrcFormatError, match="a reference leaves the store"):
        md.open_archive(target, allow=["s3://other/in"], storage_options=bucket.options).images.values  # noqa: B018
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"testing" not in written
