"""The blocks of a table as they are computed: in order, or kept beside the target until all are there."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mrczdask.errors import MrcFormatError
from mrczdask.execution.progress import Progress, track
from mrczdask.execution.regions import run_regions
from mrczdask.execution.resume import check_plan, digest
from mrczdask.io.journal import StoreJournal
from mrczdask.io.peak_table import PEAKS
from mrczdask.io.ragged import Block, Piece, Ragged
from mrczdask.io.source import is_remote, retry
from mrczdask.io.sparse_table import AZIMUTH, CENTER, RESPONSE, SECTOR
from mrczdask.schema import HISTORY, PROVENANCE

PLAN: Final = "plan.json"
FRAMES_TOKEN: Final = "frames"
"""Of `header.encoding`: names the frames a table is made of, the same in every process until their files change."""

_SPARSE: Final = ("cutoff_pick", "error_model", "noise")
_PEAKS: Final = ("cutoff_peak", "patch_size", "connected")
"""Settings that a plan names, so that one that differs is told."""
_PEAK: Final = "peak_"

Columns = Mapping[str, NDArray[Any]]


def plan_of(table: Ragged, layout: str, peaks: Ragged | None = None) -> dict[str, Any]:
    """What a table is made of and how, and the peaks beside it: a file begun with another plan is not gone on with."""
    known = ("pixel_radius", "radius", "normalization", AZIMUTH, SECTOR, *CENTER, RESPONSE)
    maps = [table.header[name].values for name in known if name in table.header]
    settings = _settings(table)
    beside = {} if peaks is None else {"peaks": digest(_settings(peaks))} | _named(_settings(peaks), _PEAKS)
    return (
        {
            "layout": layout,
            "frames": table.header.encoding.get(FRAMES_TOKEN, ""),
            "shots": len(table),
            "block": max(table.chunks, default=0),
            "detector": digest(*maps),
            "parameters": digest(settings),
        }
        | _named(settings, _SPARSE)
        | beside
    )


def _settings(table: Ragged) -> dict[str, Any]:
    return {name: value for name, value in table.attrs.items() if name not in (HISTORY, PROVENANCE)}


def _named(settings: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: settings[name] for name in names if name in settings}


def computed_blocks(
    table: Ragged,
    tables: tuple[str, ...],
    *,
    kept: KeptBlocks | None,
    plan: Mapping[str, Any],
    progress: Progress,
    label: str,
    peaks: Ragged | None = None,
) -> Iterator[Columns]:
    """Columns, `counts` and the per-shot `tables` of each block in order, and what `peaks_in` takes from them.

    Blocks of `kept` that an earlier run left are not computed again.

    Raises
    ------
    ResumeError
        They were begun with another plan.
    """
    wanted = enumerate(table.pieces(*tables, beside=peaks))
    with track(progress, len(table.chunks), label) as advance:
        if kept is None:
            for _, piece in run_regions(wanted, on_done=advance):
                yield _columns(piece)
            return
        done = kept.begin(plan)
        for _ in done:
            advance()
        missing = ((k, piece) for k, piece in wanted if k not in done)
        for k, piece in run_regions(missing, ordered=False, on_done=advance):
            kept.write(k, _columns(piece))
    for k in range(len(table.chunks)):
        yield kept.read(k)


def _columns(piece: Piece) -> dict[str, NDArray[Any]]:
    peaks = {} if piece.beside is None else {**piece.beside.columns, "counts": piece.beside.counts}
    of_peaks = {f"{_PEAK}{name}": values for name, values in peaks.items()}
    return {**piece.block.columns, **piece.rows, "counts": piece.block.counts, **of_peaks}


def peaks_in(columns: Columns) -> Block:
    """The peaks of the shots of a block."""
    return Block(columns[f"{_PEAK}counts"], {name: columns[f"{_PEAK}{name}"] for name in PEAKS.columns})


@dataclass(frozen=True)
class KeptBlocks:
    """Finished blocks in a folder, local or in an object store; each appears there whole."""

    url: str
    storage_options: Mapping[str, Any] = field(default_factory=dict)

    def begin(self, plan: Mapping[str, Any]) -> set[int]:
        """Numbers of the blocks that are there; the folder and its plan are made where there are none."""
        names = self._names()
        journal = StoreJournal(self.url, self.storage_options)
        stored = journal.read(PLAN)
        if stored is not None:
            check_plan(stored, plan, self.url)
            return {int(name[:-4]) for name in names if name.endswith(".npz") and name[:-4].isdigit()}
        if any(name.endswith(".npz") for name in names):
            raise MrcFormatError("there are blocks without a plan: remove the folder", url=self.url)
        journal.write(PLAN, plan)
        return set()

    def write(self, number: int, columns: Columns) -> None:
        """Keep a block."""
        content = io.BytesIO()
        np.savez(content, allow_pickle=False, **columns)
        url = self._place(number)
        if is_remote(url):
            fs, path = self._remote(url)
            retry(lambda: fs.pipe_file(path, content.getvalue()), url)
            return
        temporary = f"{url}.part"
        with open(temporary, "wb") as file:
            file.write(content.getbuffer())
        os.replace(temporary, url)

    def read(self, number: int) -> Columns:
        """A block that was kept."""
        url = self._place(number)
        if not is_remote(url):
            with np.load(url) as file:
                return dict(file)
        fs, path = self._remote(url)
        with np.load(io.BytesIO(retry(lambda: fs.cat_file(path), url))) as file:
            return dict(file)

    def remove(self) -> None:
        """Remove the folder and all that is in it."""
        if is_remote(self.url):
            fs, path = self._remote(self.url)
            retry(lambda: fs.rm(path, recursive=True), self.url)
        else:
            shutil.rmtree(self.url)

    def _names(self) -> list[str]:
        if not is_remote(self.url):
            os.makedirs(self.url, exist_ok=True)
            return os.listdir(self.url)
        fs, path = self._remote(self.url)
        found = retry(lambda: fs.ls(path, detail=False) if fs.exists(path) else [], self.url)
        return [name.rpartition("/")[2] for name in found]

    def _place(self, number: int) -> str:
        return f"{self.url}/{number:08d}.npz"

    def _remote(self, url: str) -> tuple[Any, str]:
        from fsspec.core import url_to_fs

        fs, path = url_to_fs(url, **self.storage_options)
        fs.invalidate_cache()
        return fs, path
