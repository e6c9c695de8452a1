"""The archive of `process_session`: its groups, arrays and chunks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Final

import dask.array as da
import numpy as np
import xarray as xr
import zarr

from mrczdask import schema
from mrczdask.io.archive import add_coords, create_arrays, open_arrays
from mrczdask.io.archive_group import arrays_of, renew_consolidated
from mrczdask.io.journal import StoreJournal
from mrczdask.io.replacing import beside_of, finish, mark
from mrczdask.io.revisions import changing
from mrczdask.io.stores import METADATA, ArchiveStore, all_places, delete_dir, list_dir, open_store, stored_places
from mrczdask.kernels.outliers import DEAD, GOOD, HOT
from mrczdask.movies.arrays import placed
from mrczdask.movies.pipeline_steps import REPORT
from mrczdask.movies.sums import sum_dtype

SUMS, WINDOWS, MOVIES = "derived/sums", "derived/windows", "movies"
"""Groups."""
BAND_BYTES: Final = 64 << 20
"""Sums that a task of the second pass may hold."""
GROUP: Final = 16
"""Movies whose windows are stored in one shard."""
NUMBERS: Final = {"excluded": np.bool_, "correlation_floor": np.float64}
"""Numbers of each movie about its window, which the client writes."""
UNUSABLE: Final = ("pixels", "frame", "y", "x")
"""Of a movie of floats: how many pixels are no numbers in some frame, and the first of them; -1 for none."""
LEFT_OUT: Final = "left_out"
"""Attribute of the group of movies: those that could not be read, and why."""
_IMAGE: Final = (schema.MOVIE, schema.Y, schema.X)


@dataclass(frozen=True)
class Layout:
    """Which arrays there are, and how they are cut."""

    url: str
    options: Mapping[str, Any]
    shape: tuple[int, ...]
    step: int
    radius: int | None
    weighted: bool
    floats: bool = False
    is_beside: bool = False
    """The groups are written beside those of the same name."""

    @property
    def groups(self) -> list[str]:
        """Names of the groups; that of the corrected movies, which holds the journal, is the last."""
        return [SUMS, *([WINDOWS] if self.radius else []), MOVIES]

    def where(self, group: str) -> str:
        """The path at which a group is written."""
        return beside_of(group) if self.is_beside else group

    def held(self) -> list[str]:
        """The groups of these names that hold arrays."""
        return [group for group in (SUMS, WINDOWS, MOVIES) if arrays_of(self._store, group)]

    def other_files(self) -> str | None:
        """The name of something at the place of the archive where there is no archive."""
        names = list_dir(self._store, "")
        return None if METADATA in names else min(names, default=None)

    def finish(self) -> None:
        """Finish what a killed `put_in_place` began."""
        for group in (SUMS, WINDOWS, MOVIES):
            finish(self._store, group)

    def put_in_place(self) -> None:
        """Let the groups beside, which are whole, take the place of the old ones."""
        for call in (mark, finish) if self.is_beside else ():
            for group in self.groups:
                call(self._store, group)
        if self.is_beside and WINDOWS not in self.groups:
            delete_dir(self._store, WINDOWS)
        renew_consolidated(self._store, wanted=False)

    @property
    def _store(self) -> ArchiveStore:
        return open_store(self.url, self.options or None, read_only=False)

    @property
    def bands(self) -> list[slice]:
        """Bands of rows of the second pass; their height is that of the chunks of the sums."""
        ny, nx = self.shape[-2:]
        held = (2 * (self.radius or 0) + 2 + GROUP) * nx * 8
        rows = max(min(BAND_BYTES // held, -(-ny // 4)), 1)
        return [slice(first, min(first + rows, ny)) for first in range(0, ny, rows)]

    def arrays(self, group: str) -> dict[str, zarr.Array[Any]]:
        """The arrays of a group, to be read and written."""
        return open_arrays(self.url, self.where(group), list(self._inner(group)), self.options or None)

    def lost(self, group: str) -> set[int]:
        """The regions of a pass whose chunks are not all stored: places of movies, and of windows bands of rows."""
        axis = 1 if group == WINDOWS else 0
        arrays = (array for name, array in self.arrays(group).items() if name not in NUMBERS)
        return {place[axis] for array in arrays for place in {*all_places(array)} - stored_places(array)}

    def changing(self, group: str) -> AbstractContextManager[None]:
        """A context in which arrays of a group are written."""
        return changing(StoreJournal(f"{self.url}/{self.where(group)}", self.options), self._inner(group))

    def _inner(self, group: str) -> dict[str, tuple[int, ...]]:
        """Chunks by name: bands of rows of what the second pass reads, frames of movies."""
        ny, nx = self.shape[-2:]
        band = (1, self.bands[0].stop, nx)
        if group == SUMS:
            images = ["sums", "corrected", "defect_kind", *(["weight"] if self.weighted else [])]
            own = {"unusable": (1, len(UNUSABLE))} if self.floats else {}
            return {**dict.fromkeys(images, band), "report": (1, len(REPORT)), **own}
        if group == WINDOWS:
            return {"reference": band, **dict.fromkeys(NUMBERS, self.shape[:1])}
        return {schema.IMAGES: (1, 1, ny, nx), "correlation_after": (1,)}

    def create(self, images: xr.DataArray, attrs: Mapping[str, Any], dtype: str, codec: Any) -> None:
        """Create the arrays, without pixels."""
        n, _, ny, nx = self.shape
        shard = (1, self.bands[0].stop * len(self.bands), nx)
        dtypes = {
            "sums": sum_dtype(images.dtype),
            "corrected": np.float64,
            "defect_kind": np.uint8,
            "weight": np.float32,
        }
        along = {name: c for name, c in images.coords.items() if c.dims == (schema.MOVIE,)}
        first = {
            name: _template(_IMAGE, (n, ny, nx), dtypes[name], shard) for name in self._inner(SUMS) if name in dtypes
        }
        for name, variable in first.items():
            variable.attrs = self._attrs(images, name)
        labels: dict[Any, Any] = {**along, "number": list(REPORT)}
        if self.floats:
            first["unusable"] = _template((schema.MOVIE, "place"), (n, len(UNUSABLE)), np.int64, (1, len(UNUSABLE)))
            labels["place"] = list(UNUSABLE)
        first["report"] = _template((schema.MOVIE, "number"), (n, len(REPORT)), np.float64, (1, len(REPORT)))
        self._create(SUMS, xr.Dataset(first, labels), "zstd")
        if self.radius:
            reference = _template(_IMAGE, (n, ny, nx), np.float32, (GROUP, self.bands[0].stop, nx))
            reference.attrs = self._attrs(images, "reference")
            numbers = {name: _template((schema.MOVIE,), (n,), to, (n,)) for name, to in NUMBERS.items()}
            self._create(WINDOWS, xr.Dataset({"reference": reference, **numbers}, along), "zstd")
        out = _template(schema.SESSION_DIMS, self.shape, dtype, (1, self.step, ny, nx))
        out.attrs = dict(attrs)
        after = _template((schema.MOVIE,), (n,), np.float64, (1,))
        self._create(MOVIES, xr.Dataset({schema.IMAGES: out, "correlation_after": after}, images.coords), codec)

    def _create(self, group: str, templates: xr.Dataset, codec: Any) -> None:
        options = self.options or None
        create_arrays(
            templates, self.url, self.where(group), inner=self._inner(group), codec=codec, storage_options=options
        )

    @staticmethod
    def _attrs(images: xr.DataArray, name: str) -> dict[str, Any]:
        """Which row comes first, the size of a pixel, and what the numbers are."""
        counts = images.attrs.get(schema.COUNTS_PER_ELECTRON)
        if name == "defect_kind":
            return {**placed(images.attrs), "flag_values": [GOOD, HOT, DEAD], "flag_meanings": "good hot dead"}
        if name == "weight" or counts is None:
            return placed(images.attrs)
        return {**placed(images.attrs), schema.COUNTS_PER_ELECTRON: counts}

    def place(self, images: xr.DataArray) -> None:
        """Give arrays that an earlier version made the attributes that it did not write."""
        for group in self.groups[:-1]:
            for name, array in self.arrays(group).items():
                lacking = {key: v for key, v in self._attrs(images, name).items() if key not in array.attrs}
                if lacking and array.shape[1:] == self.shape[-2:]:
                    array.attrs.update(lacking)

    def leave_out(self, errors: Sequence[str]) -> None:
        """Write down which movies could not be read."""
        options: dict[str, Any] = {"storage_options": dict(self.options)} if self.options else {}
        node = zarr.open_group(self.url, path=self.where(MOVIES), mode="r+", use_consolidated=False, **options)
        if list(errors) != node.attrs.get(LEFT_OUT, []):
            node.attrs[LEFT_OUT] = list(errors)

    def resize(self, images: xr.DataArray) -> None:
        """Make room for another number of movies, and put in their coordinates."""
        options: dict[str, Any] = {"storage_options": dict(self.options)} if self.options else {}
        along = {name: c for name, c in images.coords.items() if schema.MOVIE in c.dims}
        for group in self.groups:
            for array in self.arrays(group).values():
                array.resize((len(images), *array.shape[1:]))
            node = zarr.open_group(self.url, path=self.where(group), mode="r+", use_consolidated=False, **options)
            for name in along:
                if str(name) in node:
                    del node[str(name)]
            coords = xr.Dataset(coords=along if group == MOVIES else {k: c for k, c in along.items() if c.ndim == 1})
            add_coords(coords, self.url, self.where(group), options)


def _template(dims: tuple[str, ...], shape: tuple[int, ...], dtype: Any, shard: tuple[int, ...]) -> xr.Variable:
    return xr.Variable(dims, da.zeros(shape, dtype=dtype, chunks=shard))
