"""Frames that are still arriving: an HDF5 file or Zarr array that grows, or a folder of files."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

import xarray as xr

from mrczdask import schema
from mrczdask.errors import MrczdaskError
from mrczdask.io.frames import open_frames
from mrczdask.io.session import natural_key


class GrowingFrames:
    """Frames of a file, or of the files of a folder, as far as they have been there for `settle_s` seconds."""

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
        if self._is_folder:
            return self._of_folder(done, block)
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

    def _of_folder(self, done: int, block: int) -> xr.DataArray | None:
        """One frame a file; a file counts when it is not written to any more."""
        folder, now = str(self.source), time.time()
        names = sorted((n for n in os.listdir(folder) if not n.startswith(".")), key=natural_key)
        paths = [os.path.join(folder, name) for name in names]
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
            raise MrczdaskError(f"{folder}: the files hold several frames each: watch a file that grows instead")
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
