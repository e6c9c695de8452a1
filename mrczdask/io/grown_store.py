"""A store whose arrays grow as blocks are appended: an HDF5 file or a Zarr folder, in place when it is whole."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mrczdask.errors import MrczdaskError
from mrczdask.io.hdf5_file import Options, hdf5
from mrczdask.io.source import is_remote

HDF5_SUFFIXES: Final = (".h5", ".hdf5", ".nxs", ".cxi")
GZIP: Final = {"compression": "gzip", "compression_opts": 1, "shuffle": True}
"""What every reader unpacks."""
_SUMS: Final = {"fletcher32": True}
"""A checksum behind each packed chunk: HDF5 itself knows it, and unpacks nothing that does not fit."""


class GrownStore:
    """Named arrays that grow along their first axis, and fixed values. `filters` are None for Zarr."""

    def __init__(self, root: Any, filters: Mapping[str, Any] | None):
        self.root, self._filters = root, filters
        self._growing: dict[str, Any] = {}

    def group(self, name: str, attrs: Mapping[str, Any]) -> None:
        """Make a group, or the root for an empty name."""
        group = self.root.require_group(name) if name else self.root
        group.attrs.update(dict(attrs))

    def growing(self, name: str, shape: tuple[int, ...], chunks: tuple[int, ...], dtype: Any) -> None:
        """Make an array that `append` adds to."""
        if self._filters is None:
            self._growing[name] = self.root.create_array(name, shape=shape, chunks=chunks, dtype=dtype, **_in_zarr())
        else:
            limits = (None, *shape[1:])
            made = self.root.create_dataset(
                name, shape, dtype, chunks=chunks, maxshape=limits, **self._filters, **_SUMS
            )
            self._growing[name] = made

    def append(self, name: str, values: NDArray[Any]) -> None:
        """Add rows to an array."""
        array = self._growing[name]
        n = array.shape[0]
        array.resize((n + len(values), *array.shape[1:]))
        if len(values):
            array[n:] = values

    def put(self, name: str, value: Any, attrs: Mapping[str, Any] | None = None) -> None:
        """Write an array or a number."""
        array = np.asarray(value)
        if self._filters is None:
            made = self.root.create_array(name, data=array, **_in_zarr())
        else:
            made = self.root.create_dataset(name, data=array, **({**self._filters, **_SUMS} if array.ndim else {}))
        if attrs:
            made.attrs.update(dict(attrs))

    def text(self, name: str, value: str) -> None:
        """Write a text: a dataset in HDF5, an attribute in Zarr."""
        if self._filters is None:
            self.root.require_group(name.rpartition("/")[0]).attrs[name.rpartition("/")[2]] = value
        else:
            self.root[name] = value


def _in_zarr() -> dict[str, Any]:
    """Bits transposed and packed, a checksum, and every chunk written: one that is missing was lost."""
    from zarr.codecs import BloscCodec, Crc32cCodec

    packed = BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle")
    return {"compressors": (packed, Crc32cCodec()), "config": {"write_empty_chunks": True}}


@contextmanager
def grown_store(
    path: str, *, filters: Mapping[str, Any] | None = None, storage_options: Options = None
) -> Iterator[GrownStore]:
    """A new store under another name, put in place of `path` at the end and removed on failure.

    Raises
    ------
    MrczdaskError
        The name has an ending that is not known, or that of an HDF5 file in an object store.
    """
    if is_remote(path):
        with _remote_store(path, storage_options) as store:
            yield store
        return
    with _replacing(path) as part:
        if path.endswith(".zarr"):
            import zarr

            yield GrownStore(zarr.open_group(part, mode="w"), None)
        elif path.endswith(HDF5_SUFFIXES):
            h5py = hdf5(path)
            import hdf5plugin

            if not os.path.isdir(folder := os.path.dirname(path) or "."):
                raise MrczdaskError(f"{path}: there is no folder {folder}: make it first")
            with h5py.File(part, "w") as file:
                yield GrownStore(file, hdf5plugin.Bitshuffle(cname="lz4") if filters is None else filters)
        else:
            raise MrczdaskError(f"{path}: give a name that ends in .h5, .hdf5, .nxs, .cxi or .zarr")


@contextmanager
def _remote_store(url: str, storage_options: Options) -> Iterator[GrownStore]:
    """A Zarr folder in an object store; what is moved at the end is copied there by the store itself."""
    if not url.endswith(".zarr"):
        raise MrczdaskError(f"{url}: HDF5 files are written to disks only: give a name that ends in .zarr, or copy one")
    import zarr
    from fsspec.core import url_to_fs

    from mrczdask.io.stores import open_store

    fs, place = url_to_fs(url, **dict(storage_options or {}))
    part = f"{place}.part"
    try:
        yield GrownStore(zarr.open_group(open_store(f"{url}.part", storage_options, read_only=False), mode="w"), None)
        fs.invalidate_cache()
        if fs.exists(place):
            fs.rm(place, recursive=True)
        written = fs.find(part)
        fs.copy(written, [f"{place}{name[len(part) :]}" for name in written])
    finally:
        fs.invalidate_cache()
        if fs.exists(part):
            fs.rm(part, recursive=True)
        fs.invalidate_cache()


@contextmanager
def _replacing(path: str) -> Iterator[str]:
    """A name beside the target; moved to it at the end, removed on failure."""
    part = f"{path}.part"
    try:
        yield part
        if os.path.isdir(path):
            shutil.rmtree(path)
        os.replace(part, path)
    except BaseException:
        if os.path.isdir(part):
            shutil.rmtree(part)
        elif os.path.exists(part):
            os.remove(part)
        raise
