"""Frames that are still arriving: an HDF5 file or Zarr array that grows, or a folder of files."""

from __future__ import annotations

import glob
import os
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mrczdask import schema
from mrczdask.errors import MrczdaskError
from mrczdask.io.frames import open_frames
from mrczdask.io.session import natural_key
from mrczdask.io.shot_identity import file_coords, identity_of


class GrowingFrames:
    """Frames of a file, of the files of a folder or of a pattern, that have been there for `settle_s` seconds."""

    def __init__(
        self, source: str | os.PathLike[str] | Sequence[str], *, dataset: str | None = None, settle_s: float = 0.5
    ):
        self.source = source if isinstance(source, list | tuple) else os.fspath(source)  # type: ignore[arg-type]
        self._dataset, self._settle = dataset, settle_s
        self._seen: list[tuple[float, int]] = []

    def frames(self, done: int, block: int) -> xr.DataArray | None:
        """Frames that are new since the first `done`, lazy, in chunks of at most `block`; None where there are none.

        Raises
        ------
        MrczdaskError
            There are fewer than before.
        """
        if self._is_folder or self._is_pattern:
            return self._of_files(done, block)
        if isinstance(self.source, str) and not os.path.exists(self.source) and not done and "://" not in self.source:
            return None
        images = open_frames(self.source, dataset=self._dataset, chunks=None)
        if images.ndim != 3:
            images = images.stack({schema.SHOT: images.dims[:-2]}).transpose(schema.SHOT, ...).drop_vars(schema.SHOT)
        settled = self._settled(images.sizes[schema.SHOT])
        self._check(images.sizes[schema.SHOT], done)
        if settled <= done:
            return None
        return images.isel({schema.SHOT: slice(done, settled)}).chunk({schema.SHOT: block})

    @property
    def _is_folder(self) -> bool:
        return isinstance(self.source, str) and os.path.isdir(self.source) and not self.source.endswith(".zarr")

    @property
    def _is_pattern(self) -> bool:
        return isinstance(self.source, str) and glob.has_magic(self.source) and not os.path.exists(self.source)

    def _paths(self) -> list[str]:
        """The files of a folder, or of a pattern."""
        if self._is_pattern:
            return sorted(glob.glob(str(self.source), recursive=True), key=natural_key)
        names = sorted((n for n in os.listdir(self.source) if not n.startswith(".")), key=natural_key)  # type: ignore[arg-type]
        return [os.path.join(str(self.source), str(name)) for name in names]

    def identity(self, shots: NDArray[Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """The files and numbers of shots, as coordinates, or as an attribute where they are of one file."""
        if self._is_folder or self._is_pattern:
            return file_coords(np.array(self._paths(), str)[shots] if shots.size else [], np.zeros_like(shots)), {}
        return identity_of(open_frames(self.source, dataset=self._dataset, chunks=None).encoding, shots)

    def _of_files(self, done: int, block: int) -> xr.DataArray | None:
        """One frame a file; a file counts when it is not written to any more."""
        paths, now = self._paths(), time.time()
        ready: list[str] = []
        for path in paths:
            if now - os.path.getmtime(path) < self._settle:
                break
            ready.append(path)
        self._check(len(paths), done)
        if len(ready) <= done:
            return None
        images = open_frames(ready[done:], chunks={schema.SHOT: block})
        if images.sizes[schema.SHOT] != len(ready) - done:
            raise MrczdaskError(f"{self.source}: the files hold several frames each: watch a file that grows instead")
        return images.assign_coords({schema.SHOT: range(done, len(ready))})

    def _settled(self, count: int) -> int:
        """Frames that were there when we looked so long ago: the last ones may still be being written."""
        now = time.monotonic()
        if not self._seen or self._seen[-1][1] != count:
            self._seen.append((now, count))
        old = [n for at, n in self._seen if now - at >= self._settle]
        self._seen = [(at, n) for at, n in self._seen if now - at < self._settle] or self._seen[-1:]
        return max(old, default=0)

    def _check(self, count: int, done: int) -> None:
        if count < done:
            raise MrczdaskError(
                f"{self.source}: holds {count} frames, {done} were there before: it shrank or was replaced; "
                "give another output to begin anew"
            )
