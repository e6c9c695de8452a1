"""The blocks of a table as they are computed: in order, or kept beside the target until all are there."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mrczdask.errors import MrcFormatError
from mrczdask.execution.progress import Progress, track
from mrczdask.execution.regions import run_regions
from mrczdask.execution.resume import check_plan, digest
from mrczdask.io.journal import StoreJournal
from mrczdask.io.ragged import Ragged
from mrczdask.io.sparse_table import CENTER, RESPONSE

PLAN: Final = "plan.json"
FRAMES_TOKEN: Final = "frames"
"""Of `header.encoding`: names the frames a table is made of, the same in every process until their files change."""

Columns = Mapping[str, NDArray[Any]]


def plan_of(table: Ragged, layout: str) -> dict[str, Any]:
    """What a table is made of and how: a file begun with another plan is not gone on with."""
    known = ("pixel_radius", "radius", "normalization", *CENTER, RESPONSE)
    maps = [table.header[name].values for name in known if name in table.header]
    settings = {name: value for name, value in table.attrs.items() if name not in ("history", "provenance")}
    return {
        "layout": layout,
        "frames": table.header.encoding.get(FRAMES_TOKEN, ""),
        "shots": len(table),
        "block": max(table.chunks, default=0),
        "detector": digest(*maps),
        "parameters": digest(settings),
    } | {name: settings[name] for name in ("cutoff_pick", "error_model", "noise") if name in settings}


def computed_blocks(
    table: Ragged, tables: tuple[str, ...], *, kept: str | None, plan: Mapping[str, Any], progress: Progress, label: str
) -> Iterator[Columns]:
    """Columns, `counts` and the per-shot `tables` of each block in order.

    Blocks in the folder `kept` that an earlier run left are not computed again.

    Raises
    ------
    ResumeError
        The folder was begun with another plan.
    """
    edges = np.cumsum([0, *table.chunks])
    light = Ragged(table.header[list(tables)].reset_coords(drop=True), table.block_layer, table.layout)
    wanted = ((k, light.isel(slice(edges[k], edges[k + 1]))) for k in range(len(table.chunks)))
    with track(progress, len(table.chunks), label) as advance:
        if kept is None:
            for _, piece in run_regions(wanted, on_done=advance):
                yield _columns(piece, light, tables)
            return
        done = _begun(kept, plan)
        for _ in done:
            advance()
        missing = ((k, piece) for k, piece in wanted if k not in done)
        for k, piece in run_regions(missing, ordered=False, on_done=advance):
            _keep(os.path.join(kept, f"{k:08d}.npz"), _columns(piece, light, tables))
    for k in range(len(table.chunks)):
        with np.load(os.path.join(kept, f"{k:08d}.npz")) as file:
            yield dict(file)


def _columns(piece: Any, light: Ragged, tables: tuple[str, ...]) -> dict[str, NDArray[Any]]:
    names = (*light.layout.columns, *tables)
    return {name: piece[name].values for name in names} | {"counts": np.diff(piece[light.layout.pointer].values)}


def _begun(folder: str, plan: Mapping[str, Any]) -> set[int]:
    """Numbers of the blocks that are there; the folder and its plan are made where there are none."""
    os.makedirs(folder, exist_ok=True)
    journal = StoreJournal(folder)
    stored = journal.read(PLAN)
    if stored is None:
        if any(name.endswith(".npz") for name in os.listdir(folder)):
            raise MrcFormatError("there are blocks without a plan: remove the folder", url=folder)
        journal.write(PLAN, plan)
        return set()
    check_plan(stored, plan, folder)
    return {int(name[:-4]) for name in os.listdir(folder) if name.endswith(".npz") and name[:-4].isdigit()}


def _keep(path: str, columns: Columns) -> None:
    temporary = f"{path}.part"
    with open(temporary, "wb") as file:
        np.savez(file, allow_pickle=False, **columns)
    os.replace(temporary, path)
