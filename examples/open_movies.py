"""Open, look at, reduce and rewrite movies: what a first hour with the package looks like.

Writes movies, an archive, two pictures and a page (movie.png, session.png, movie.html) to the folder given by --out.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib as mpl
import numpy as np
import xarray as xr

import mrczdask as md
from mrczdask.plotting import STYLE

ICE = md.simulate.Specimen(ice_sd=0.04, particles=60, particle_diameter=60, particle_contrast=0.15)
PIXEL_SIZE = 1.06


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("open_movies"))
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    mpl.use("Agg")
    mpl.rcParams.update(STYLE)

    movie = write_movie(out / "movie.mrcz")
    look_at(movie, out)
    read_parts_of(movie)
    session = write_session(out)
    reduce_session(session, out)


def write_movie(file: Path) -> xr.DataArray:
    """Thirty frames of particles in ice at 1.5 electrons a pixel, compressed; what is written comes back lazily."""
    simulated, _ = md.simulate.movie((30, 1024, 1024), dose=1.5, specimen=ICE, pixel_size_angstrom=PIXEL_SIZE, seed=3)
    return md.write_mrcz(simulated, file, codec="zstd", metadata={"grid": 7})


def look_at(movie: xr.DataArray, out: Path) -> None:
    """The facts as text and as the page a notebook shows; a frame and the sum as a picture."""
    from matplotlib import pyplot as plt

    print(movie.em, end="\n\n")
    (out / "movie.html").write_text(movie.em._repr_html_(), encoding="utf-8")
    figure, axes = plt.subplots(1, 2, figsize=(9, 4.75), layout="constrained")
    movie.em.plot(0, ax=axes[0])
    movie.em.plot("sum", ax=axes[1])
    figure.savefig(out / "movie.png", dpi=90)
    plt.close(figure)


def read_parts_of(movie: xr.DataArray) -> None:
    """A selection reads only what it needs: here one frame of thirty, and of it the blocks that hold 64 rows."""
    rows = movie.isel(frame=17, y=slice(128, 192)).compute()
    print(f"64 rows of frame 17: {rows.shape}, mean {float(rows.mean()):.3f} counts", end="\n\n")


def write_session(out: Path) -> xr.Dataset:
    """Six movies of one detector; as one array they are ordered by time."""
    shape = (20, 512, 512)
    simulated, _ = md.simulate.session(6, shape, dose=1.5, specimen=ICE, pixel_size_angstrom=PIXEL_SIZE, seed=1)
    for k in range(simulated.sizes["movie"]):
        md.write_mrcz(simulated.images.isel(movie=k), out / f"session_{k}.mrcz")
    return md.open_session(str(out / "session_*.mrcz"))


def reduce_session(session: xr.Dataset, out: Path) -> None:
    """Sums are computed once, stored, and read again by what follows."""
    from matplotlib import pyplot as plt

    sums = md.write_archive(md.sum_frames(session), out / "run.zarr", group="derived/sums", resume=False)
    doses = sums.mean(("y", "x")) / session.sizes["frame"]
    for name, time, dose in zip(session.movie.values, session.acquired.values, doses.values, strict=True):
        print(f"{name}  {np.datetime_as_string(time, 's')}  {dose:.3f} counts/pixel/frame")
    figure, axes = plt.subplots(2, 3, figsize=(9, 6.3), layout="constrained")
    for k, ax in enumerate(axes.flat):
        sums.isel(movie=k).em.plot(ax=ax)
    figure.savefig(out / "session.png", dpi=90)
    plt.close(figure)


if __name__ == "__main__":
    main()
