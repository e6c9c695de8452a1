"""From every format that is read into an archive and back: bit for bit, under random chunks, shards and codecs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile
import xarray as xr
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mrczdask as md
from mrczdask.io.shard_reader import ShardArray, stored_array
from tests.io.test_eer import camera_frames, render, write_eer
from tests.mrc_bytes import blosc1, blosc2_chunks, counts, mrc_bytes

Draw = Callable[[st.SearchStrategy[Any]], Any]
Made = tuple[xr.DataArray, np.ndarray]
MODES = [(0, "i1"), (1, "i2"), (2, "f4"), (4, "c8"), (6, "u2"), (12, "f2")]


def of_mrc(folder: Path, draw: Draw, shape: tuple[int, ...], *, packed: bool = False) -> Made:
    mode, dtype = draw(st.sampled_from(MODES))
    frames = counts(shape, dtype, seed=sum(shape))
    chunk = draw(st.sampled_from([blosc1(), blosc1("lz4", shuffle="byte"), blosc2_chunks()])) if packed else None
    order = "<" if packed else draw(st.sampled_from("<>"))
    path = folder / ("m.mrcz" if packed else "m.mrc")
    path.write_bytes(
        mrc_bytes(frames, mode, order=order, chunk=chunk, compressor=6 if packed else 0, imod_flags=int(mode == 0))
    )
    return md.open_movie(path), frames


def of_mrcz(folder: Path, draw: Draw, shape: tuple[int, ...]) -> Made:
    return of_mrc(folder, draw, shape, packed=True)


def of_tiff(folder: Path, draw: Draw, shape: tuple[int, ...]) -> Made:
    frames = counts(shape, draw(st.sampled_from(["u1", "i2", "u2", "f4"])), seed=sum(shape))
    packed = draw(st.sampled_from([None, "lzw", "zlib"]))
    tifffile.imwrite(folder / "m.tif", frames, compression=packed, photometric="minisblack", metadata=None)
    return md.open_movie(folder / "m.tif"), frames


def of_eer(folder: Path, draw: Draw, shape: tuple[int, ...]) -> Made:
    camera = 4 * shape[1], 4 * shape[2]
    electrons = camera_frames(shape[0], camera, seed=sum(shape))
    path = write_eer(folder / "m.eer", electrons, camera, scheme=draw(st.sampled_from([65000, 65001, 65002])))
    return md.open_movie(path), render(electrons, camera, 1).astype(np.uint8)


def of_hdf5(folder: Path, draw: Draw, shape: tuple[int, ...]) -> Made:
    frames = counts(shape, draw(st.sampled_from(["u1", "i2", "u2", "u4", "f4"])), seed=sum(shape))
    packed = draw(st.sampled_from([{}, {"chunks": (1, *shape[1:]), "compression": "gzip", "shuffle": True}]))
    with h5py.File(folder / "m.h5", "w") as file:
        file.create_dataset("entry/data/data", data=frames, **packed)
    return md.open_frames(folder / "m.h5"), frames


def of_zarr(folder: Path, draw: Draw, shape: tuple[int, ...]) -> Made:
    frames = counts(shape, draw(st.sampled_from(["u1", "i4", "f4", "f8"])), seed=sum(shape))
    step = draw(st.integers(1, shape[0]))
    zarr.open_group(str(folder / "m.zarr"), mode="w")
    zarr.create_array(str(folder / "m.zarr"), name="images", data=frames, chunks=(step, *shape[1:]))
    return md.open_frames(folder / "m.zarr"), frames


@pytest.mark.filterwarnings("ignore:.*without a sure word on its sign:mrczdask.errors.AmbiguousFileWarning")
@pytest.mark.parametrize("make", [of_mrc, of_mrcz, of_tiff, of_eer, of_hdf5, of_zarr], ids=lambda one: one.__name__[3:])
@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_an_archive_gives_back_what_a_file_holds(
    tmp_path: Path, make: Callable[..., Made], data: st.DataObject
) -> None:
    shape = (data.draw(st.integers(1, 7)), data.draw(st.integers(4, 9)), data.draw(st.integers(4, 9)))
    images, pixels = make(tmp_path, data.draw, shape)
    images = images.chunk({dim: data.draw(st.integers(-(-n // 3), n)) for dim, n in images.sizes.items()})
    codec = data.draw(st.sampled_from(["auto", "zstd", "pixel_histogram", "b3d", "none"]))
    per_shard = data.draw(st.none() | st.integers(-(-shape[0] // 2), shape[0]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mrczdask.io.archive_codecs.MIN_SHARD_BYTES", 0)
        md.write_archive(images, tmp_path / "a.zarr", codec=codec, frames_per_shard=per_shard, resume=False)
    opened = md.open_archive(tmp_path / "a.zarr", "")
    assert isinstance(opened, xr.Dataset)
    stored = opened["images"]
    assert isinstance(stored_array(stored.data), ShardArray)
    np.testing.assert_array_equal(stored.values, pixels)
    assert stored.dtype == pixels.dtype
    assert stored.dims == images.dims
    assert set(stored.coords) == set(images.coords)
    for name, coord in images.coords.items():
        np.testing.assert_array_equal(stored[name].values.astype(coord.dtype), coord.values)
    assert {name: stored.attrs[name] for name in images.attrs} == images.attrs
