"""Names of what is read from archives: the same until something is written, whoever asks, and others after it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

import mrczdask as md
from mrczdask.errors import ResumeError
from mrczdask.io.revisions import changing
from mrczdask.io.stores import ZarrJournal, open_store

COUNTS = np.arange(4 * 8 * 8, dtype="u2").reshape(4, 8, 8)


def frames(add: int) -> xr.DataArray:
    return xr.DataArray(COUNTS + np.uint16(add), dims=("frame", "y", "x"), name="images").chunk(frame=2)


def sparse(add: int) -> xr.Dataset:
    """Two tables of the same pointers and places, and other intensities."""
    return xr.Dataset(
        {
            "frame_ptr": ("shot_edge", np.array([0, 2, 3], "u8")),
            "n_pixels": ("shot", np.array([2, 1])),
            "index": ("pixel", np.array([1, 5, 3], "u4")),
            "intensity": ("pixel", np.array([7, 8, 9], "u2") + np.uint16(add)),
            "background_avg": (("shot", "radius"), np.full((2, 3), 1.5 + add, "f4")),
        },
        {"shot": [0, 1], "radius": [0.0, 1.0, 2.0]},
        {"shape": [4, 4]},
    )


NAMES = """
import sys, mrczdask as md
url = sys.argv[1]
tree, table = md.open_archive(url), md.open_archive(url, "sparse")
print(tree["raw/images"].data.name, tree["sparse/intensity"].data.name)
print(table.block_layer.name, table.background_avg.data.name, table.n_pixels.data.name)
"""


def names(url: Path) -> list[str]:
    """What Dask calls the arrays of an archive."""
    tree, table = md.open_archive(url), md.open_archive(url, "sparse")
    found = [tree["raw/images"].data.name, tree["sparse/intensity"].data.name]
    return [*found, table.block_layer.name, table.background_avg.data.name, table.n_pixels.data.name]


def write(url: Any, add: int, **options: Any) -> None:
    md.write_archive(frames(add), url, group="raw", **options)
    md.write_archive(sparse(add), url, **options)


def test_other_pixels_have_other_names(tmp_path: Path) -> None:
    url = tmp_path / "run.zarr"
    write(url, 0)
    first = names(url)
    write(url, 0)  # all is there
    assert names(url) == first
    assert len(set(first)) == len(first)
    elsewhere = subprocess.run([sys.executable, "-c", NAMES, str(url)], capture_output=True, text=True, check=True)
    assert elsewhere.stdout.split() == first
    write(url, 1, resume=False)
    assert not set(names(url)) & set(first)


def test_what_is_made_of_changed_pixels_is_not_taken_for_done(tmp_path: Path) -> None:
    url = tmp_path / "run.zarr"
    sums = md.sum_frames(md.write_archive(frames(0), url, group="raw"))
    stored = md.write_archive(sums, url, group="sums")
    np.testing.assert_array_equal(stored, COUNTS.sum(axis=0))
    again = md.sum_frames(md.open_archive(url, "raw")["images"])
    md.write_archive(again, url, group="sums")
    changed = md.sum_frames(md.write_archive(frames(1), url, group="raw", resume=False))
    with pytest.raises(ResumeError, match=r"input was"):
        md.write_archive(changed, url, group="sums")


def test_some_shards_written_again_are_other_pixels(tmp_path: Path) -> None:
    """Of a movie whose file changed: the plan is the same."""
    url, file = tmp_path / "run.zarr", tmp_path / "m.mrcz"
    found = []
    for add in (0, 1):
        md.write_mrcz(COUNTS + np.uint16(add), file)
        found.append(md.write_archive(md.open_movie(file), url).data.name)
    assert found[0] != found[1]
    assert md.write_archive(md.open_movie(file), url).data.name == found[1]


def test_the_jobs_of_an_array_mark_what_they_write(tmp_path: Path) -> None:
    url = tmp_path / "run.zarr"
    found = [md.write_archive(frames(0), url, create_only=True).data.name]
    for part in (slice(0, 2), slice(2, 4)):
        found.append(md.write_archive(frames(0), url, region={"frame": part}).data.name)
    assert len(set(found)) == 3


def test_a_writer_that_fails_leaves_another_mark(tmp_path: Path) -> None:
    journal = ZarrJournal(open_store(tmp_path, read_only=False), "raw")

    def mark() -> Any:
        return (journal.read("images/.journal/revision.json") or {}).get("id")

    def fail() -> None:
        with changing(journal, ["images"]):
            seen.append(mark())
            raise KeyboardInterrupt

    seen = [mark()]
    with pytest.raises(KeyboardInterrupt):
        fail()
    seen.append(mark())
    assert len(set(seen)) == 3


@pytest.mark.parametrize("local", [True, False])
def test_arrays_of_other_programs(tmp_path: Path, local: bool) -> None:
    """Without marks: two stores in memory are two, and on a disk an array that is made again is another."""
    found = []
    for add in (0, 1):
        store: Any = str(tmp_path / "run.zarr") if local else zarr.storage.MemoryStore()
        root = zarr.open_group(store, mode="w")
        root.create_array("images", data=COUNTS + add, dimension_names=("frame", "y", "x"), chunks=(2, 8, 8))
        opened = md.open_archive(store)["images"]
        np.testing.assert_array_equal(opened, COUNTS + add)
        assert md.open_archive(store)["images"].data.name == opened.data.name
        found.append((store, opened.data.name))  # a store that is gone could give its place to the next
    assert found[0][1] != found[1][1]
