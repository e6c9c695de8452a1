"""Movies from MRC to MRCZ to Zarr and back, every step proved equal."""

from __future__ import annotations

import os
import time
from pathlib import Path

import matplotlib as mpl
import xarray as xr

import mrczdask as md
from mrczdask.io.convert import convert

REAL_MOVIES = ("EMD-3001.map", "EMD-3197.map", "emd_3197.map.gz", "HAADFscan.mrc", "ROI_Random_Scan_movie.mrc")


def run(out: Path) -> None:
    """Convert generated movies and, where there are any, real files."""
    mpl.use("Agg")
    movie = generated(out)
    round_trip(movie, out / "generated.mrc", out)
    for file in real_files():
        round_trip(md.open_movie(file), file, out)
    session(out)
    pictures(out)


def generated(out: Path) -> xr.DataArray:
    """A movie of particles in ice, as a counting detector with a gain and hot pixels sees it."""
    simulate = md.simulate
    movie, _ = simulate.movie(
        (30, 1024, 1024),
        dose=1.5,
        specimen=simulate.Specimen(ice_sd=0.04, particles=60, particle_diameter=60, particle_contrast=0.15),
        gain=simulate.Gain(column_sd=0.01, pixel_sd=0.01),
        defects=simulate.Defects(),
        drift=0.5,
        pixel_size_angstrom=1.06,
        seed=2026,
    )
    return md.write_mrcz(movie, out / "generated.mrc", codec=None)


def real_files() -> list[Path]:
    """Real files of the test data, where MRCZDASK_TEST_DATA names their folder."""
    folder = Path(os.environ.get("MRCZDASK_TEST_DATA", "no data")) / "real" / "mrc"
    return [folder / name for name in REAL_MOVIES if (folder / name).exists()]


def round_trip(movie: xr.DataArray, file: Path, out: Path) -> None:
    """MRC -> MRCZ -> Zarr -> MRCZ; raises where a pixel or an attribute of the header changed."""
    stem = file.name.split(".")[0]
    steps = (out / f"{stem}.mrcz", out / f"{stem}.zarr", out / f"{stem}_again.mrcz")
    print(f"   {file.name}: {' x '.join(map(str, movie.shape))} {movie.dtype}, {size_of(file):.2f} MB")
    source = str(file)
    for target in steps:
        begin = time.perf_counter()
        written = convert(source, str(target))
        seconds = time.perf_counter() - begin
        prove_equal(movie, written, target)
        bits = 8e6 * size_of(target) / movie.size
        print(f"     -> {target.name:28} {size_of(target):8.2f} MB {bits:6.2f} bits/pixel {seconds:6.2f} s   equal")
        source = str(target)


def prove_equal(movie: xr.DataArray, written: xr.DataArray, target: Path) -> None:
    assert written.dtype == movie.dtype, f"{target}: {written.dtype}, was {movie.dtype}"
    assert bool((written.data == movie.data).all()), f"{target}: pixels differ"
    for name in ("pixel_size_angstrom", "voltage_kv", "origin"):
        assert written.attrs.get(name) == movie.attrs.get(name), f"{target}: {name} differs"


def session(out: Path) -> None:
    """Five movies as one array; the sums are stored and read again."""
    for k in range(1, 6):
        md.write_mrcz(md.simulate.poisson((20, 512, 512), mean=1.0, seed=k), out / f"movie_{k}.mrcz")
    movies = md.open_session(str(out / "movie_*.mrcz"), order="name")
    sums = md.write_archive(md.sum_frames(movies), out / "run.zarr", group="derived/sums", resume=False)
    assert (sums.data == movies.images.data.sum(axis=1)).all().compute()
    print(f"   session of {movies.sizes['movie']} movies: sums stored in run.zarr, equal to the sums of the pixels")
    rows = movies.images.isel(movie=1, frame=17, y=slice(0, 64))
    print(f"   64 rows of frame 17 of {rows.movie.item()}: mean {float(rows.mean()):.3f} counts")


def pictures(out: Path) -> None:
    from matplotlib import pyplot as plt

    movie = md.open_movie(out / "generated.mrcz")
    figure, axes = plt.subplots(1, 2, figsize=(9, 4.4), layout="constrained")
    movie.em.plot(frame=0, ax=axes[0])
    movie.em.plot(frame="sum", ax=axes[1])
    figure.savefig(out / "movie.png", dpi=90)
    plt.close(figure)


def size_of(path: Path) -> float:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files) / 1e6
