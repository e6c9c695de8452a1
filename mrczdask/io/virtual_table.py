"""Where the pixels of many files lie, as the chunks of one Zarr array: no pixel is copied."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mrczdask.errors import MrcFormatError
from mrczdask.execution.progress import Progress
from mrczdask.io.frames import HDF5_SUFFIXES
from mrczdask.io.session import Order, checked_order, common_attrs, coords_of, expand_urls, of_one_shape, ordered
from mrczdask.io.source import is_remote, local_path
from mrczdask.io.virtual_files import Codecs, IndexedFile, KeptFiles, index_files

_BLOSC: Final = Codecs("blosc"), Codecs("blosc_frame")
"""The first is read by every reader of Zarr, the second reads both."""


@dataclass(frozen=True)
class VirtualTable:
    """The cube (movie, frame, y, x): its chunks as byte ranges of files, its labels and attributes.

    `offsets` and `lengths` have the shape of the grid of chunks; all chunks of a movie lie in its file.
    """

    shape: tuple[int, ...]
    chunk: tuple[int, ...]
    stored: np.dtype[Any]
    codecs: Codecs
    urls: tuple[str, ...]
    offsets: NDArray[np.uint64] = field(repr=False)
    lengths: NDArray[np.uint64] = field(repr=False)
    coords: xr.Dataset = field(repr=False, default_factory=xr.Dataset)
    attrs: Mapping[str, Any] = field(repr=False, default_factory=dict)

    @property
    def chunk_bytes(self) -> int:
        """Size of a chunk, unpacked."""
        return math.prod(self.chunk) * self.stored.itemsize


def read_table(
    urls: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    order: Order = "time",
    kept: KeptFiles | None = None,
    progress: Progress = None,
    label: str = "index",
    storage_options: Mapping[str, Any] | None = None,
) -> VirtualTable:
    """Index files of one shape; see `virtualize`."""
    checked_order(order)
    found = expand_urls(urls, storage_options)
    files = index_files(found, storage_options, kept=kept, progress=progress, label=label)
    files = of_one_shape(files, "raise")
    codecs = _same([file for _, file in files])
    no_times = order == "time" and all(url.lower().endswith(HDF5_SUFFIXES) for url in found)
    files = ordered(files, "given" if no_times else order)
    names, indexed = [url for url, _ in files], [file for _, file in files]
    return VirtualTable(
        shape=(len(indexed), *indexed[0].shape),
        chunk=(1, *indexed[0].chunk),
        stored=indexed[0].stored,
        codecs=codecs,
        urls=tuple(absolute(file.home) for file in indexed),
        offsets=np.stack([file.offsets for file in indexed]),
        lengths=np.stack([file.lengths for file in indexed]),
        coords=xr.Dataset(coords=coords_of(names, indexed)),
        attrs=common_attrs(indexed),
    )


def absolute(url: str) -> str:
    """A url that means the same from every folder."""
    return url if is_remote(url) else "file://" + os.path.realpath(local_path(url))


def _same(files: Sequence[IndexedFile]) -> Codecs:
    """The codecs of all files, which differ at most in the version of Blosc."""
    kinds = [(file.stored, file.chunk, _BLOSC[0] if file.codecs in _BLOSC else file.codecs) for file in files]
    for file, kind in zip(files, kinds, strict=True):
        if kind != kinds[0]:
            raise MrcFormatError(
                f"pixels are stored otherwise than in {files[0].url} (type, byte order, compression or chunks): "
                "the chunks of one Zarr array are all alike. write_archive copies them, or virtualize them apart",
                url=file.url,
            )
    return next((file.codecs for file in files if file.codecs == _BLOSC[1]), files[0].codecs)
