"""A session as one Zarr archive: written, damaged, found damaged, gone on with; and the same files by references."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import xarray as xr

import mrczdask as md


def run(out: Path) -> None:
    """Prove every step equal to the files."""
    session = write_files(out)
    publish(session, out)
    repair(session, out)
    virtual(session, out)


def write_files(out: Path) -> xr.Dataset:
    """Four movies as a microscope leaves them."""
    for k in range(4):
        md.write_mrcz(md.simulate.poisson((12, 512, 512), mean=0.8, seed=k), out / f"archived_{k}.mrcz")
    return md.open_session(str(out / "archived_*.mrcz"), order="name")


def publish(session: xr.Dataset, out: Path) -> None:
    """Write the archive with the codec that a sample shows to be the smallest."""
    begin = time.perf_counter()
    stored = md.write_archive(session, out / "archive.zarr", resume=False)
    seconds = time.perf_counter() - begin
    assert bool((stored.images.data == session.images.data).all()), "the archive differs from the files"
    used = [stored.images.encoding.get("serializer"), *(stored.images.encoding.get("compressors") or ())]
    names = ", ".join(type(codec).__name__ for codec in used)
    print(f"   archive.zarr: {session.images.nbytes / 1e6:.1f} MB of pixels in {seconds:.1f} s, codecs: {names}")


def repair(session: xr.Dataset, out: Path) -> None:
    """Lose a shard, find it, write it again, and nothing else."""
    shard = out / "archive.zarr/movies/images/c/2/0/0/0"
    shard.unlink()
    report = md.validate(out / "archive.zarr")
    assert report.codes == ("shard-lost",), report
    print(f"   a shard is deleted; validate: {report.findings[0].text}")
    stored = md.write_archive(session, out / "archive.zarr")
    assert bool((stored.images.data == session.images.data).all()), "the archive differs from the files"
    assert md.validate(out / "archive.zarr").ok
    print("   write_archive(..., resume=True) wrote that one again: equal to the files")


def virtual(session: xr.Dataset, out: Path) -> None:
    """The same files as one Zarr array, no pixel copied."""
    cube = md.virtualize(str(out / "archived_*.mrcz"), out / "archive.json", order="name")
    assert np.array_equal(cube.images[3, 7].values, session.images[3, 7].values), "the references differ"
    size = (out / "archive.json").stat().st_size
    print(f"   archive.json: {size / 1e3:.1f} kB of references to the {cube.images.nbytes / 1e6:.1f} MB, equal too")
