"""The rows of sparse frames in a file, read in the task that needs them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mrczdask.errors import MrcFormatError
from mrczdask.io.damaged import damaged
from mrczdask.io.hdf5_file import Options, open_hdf5
from mrczdask.io.hdf5_rows import Rows
from mrczdask.io.ragged import Block
from mrczdask.io.source import is_remote, open_source
from mrczdask.io.stamps import file_stamp, folder_stamp

_DAMAGED = "the stored pixels do not unpack"


@dataclass(frozen=True)
class SparseFile:
    """Where the rows of sparse frames are. `width` is 0 but where rows and columns are stored."""

    path: str
    group: str
    pixels: int
    width: int = 0
    sorted: bool = False
    """Indices rise in each frame: `write_sparse` writes them so, pyFAI in no order."""
    storage_options: Options = field(default=None, repr=False)
    empty: tuple[int, ...] = field(default=(), repr=False)
    """Frames without a background."""
    tables: Mapping[str, Rows] = field(default_factory=dict, repr=False)
    """Of the columns whose bytes are read past the HDF5 library."""

    @property
    def places(self) -> tuple[str, ...]:
        """The columns that say where a pixel is."""
        return ("row", "col") if self.width else ("index",)

    def between(self, first: int, last: int, *names: str) -> SparseFile:
        """What reading these rows of some columns needs."""
        tables = {name: self.tables[name].between(first, last) for name in names if name in self.tables}
        return replace(self, tables=tables)

    def block(self, pointer: NDArray[np.int64], shot: int) -> Block:
        """The rows of consecutive shots, `pointer` being theirs and `shot` the first; refuses pixels off the frame."""
        intensity, *places = self._read(("intensity", *self.places), int(pointer[0]), int(pointer[-1]), shot)
        if self.width:
            row, column = (place.astype(np.int64) for place in places)
            index = np.where(column < self.width, row * self.width + column, self.pixels)
        else:
            index = places[0].astype(np.int64)
        if index.size and not (index.min() >= 0 and index.max() < self.pixels):
            wrong = index.max() if index.max() >= self.pixels else index.min()
            problem = f"a stored pixel has the index {wrong}, a frame has {self.pixels} pixels: the file is damaged"
            raise MrcFormatError(problem, url=self.path, frame=shot)
        return self._in_order(np.diff(pointer), index, intensity, shot)

    def rows(self, name: str, shape: tuple[int, ...], first: int, last: int) -> NDArray[np.float32]:
        """(shot, radius) or (shot, sector, radius) of the background; NaN where a frame has none."""
        (found,) = self._read((name,), first, last, first)
        found = found.astype(np.float32, copy=bool(self.empty)).reshape(last - first, *shape)
        found[[shot - first for shot in self.empty if first <= shot < last]] = np.nan
        return found

    def _read(self, names: tuple[str, ...], first: int, last: int, shot: int) -> list[NDArray[Any]]:
        """Rows of columns of one file, in the byte order of this machine."""
        found: dict[str, NDArray[Any]] = {}
        known = [name for name in names if name in self.tables]
        with damaged(self.path, _DAMAGED, shot):
            for url in dict.fromkeys(self.tables[name].url for name in known):
                tables = {name: self.tables[name] for name in known if self.tables[name].url == url}
                end = max(one.table.end for one in tables.values())
                with open_source(url, self.storage_options, size=end) as source:
                    found |= {name: one.read(source, first, last, url, shot) for name, one in tables.items()}
            if len(known) < len(names):
                with opened(self.path, self.storage_options, whole=True) as file:
                    for name in names:
                        if name not in found:
                            rows = np.asarray(file[self.group][name][first:last])
                            found[name] = rows.astype(rows.dtype.newbyteorder("="), copy=False)
        return [found[name] for name in names]

    def _in_order(
        self, counts: NDArray[np.int64], index: NDArray[np.int64], intensity: NDArray[Any], shot: int
    ) -> Block:
        """The rows with rising indices in each shot; a pixel that is stored twice is refused."""
        key = np.repeat(np.arange(counts.size) * self.pixels, counts) + index
        if not (key[1:] > key[:-1]).all():
            order = np.argsort(key, kind="stable")
            key = key[order]
            twice = np.flatnonzero(key[1:] == key[:-1])
            if twice.size or self.sorted:
                problem = "a pixel is stored twice" if twice.size else "the indices do not rise"
                frame = shot + int(key[twice[0]] // self.pixels) if twice.size else shot
                raise MrcFormatError(f"{problem}: the file is damaged", url=self.path, frame=frame)
            index, intensity = index[order], intensity[order]
        return Block(counts, {"index": index.astype(np.uint32), "intensity": intensity})


def stamp(path: str, options: Options = None) -> str:
    """What changes when a file or a Zarr folder does."""
    return folder_stamp(path, options) if _is_folder(path) else file_stamp(path, options)


def _is_folder(path: str) -> bool:
    return path.endswith(".zarr") if is_remote(path) else os.path.isdir(path)


@contextmanager
def opened(path: str, storage_options: Options = None, *, whole: bool = False) -> Iterator[Any]:
    """The root group of an HDF5 file or a Zarr folder, to read; of a `whole` one no chunk may be missing."""
    if not is_remote(path) and not os.path.exists(path):
        raise FileNotFoundError(path)
    if _is_folder(path):
        import zarr

        from mrczdask.io.stores import open_store, whole_store

        store = whole_store(path, storage_options) if whole else open_store(path, storage_options, read_only=True)
        try:
            group = zarr.open_group(store, mode="r")
        except FileNotFoundError:
            if is_remote(path):
                raise FileNotFoundError(path) from None
            raise MrcFormatError("this folder is no Zarr group: the metadata of its root are lost", url=path) from None
        yield group
        return
    with open_hdf5(path, storage_options) as file:
        yield file
