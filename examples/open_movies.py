"""Open, look at, reduce and rewrite movies: what a first hour with the package looks like.

Writes a movie, a session, an archive and pictures of them to the folder given by --out.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib as mpl
import numpy as np

import mrczdask as md


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("open_movies"))
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    mpl.use("Agg")

    write_session(out)
    movie = md.open_movie(out / "movie_1.mrcz", chunks={"frame": 1})
    print(movie.em)
    parts_of_a_movie(movie)
    pictures(movie, out / "movie.png")
    sums_of_a_session(out)


def write_session(out: Path) -> None:
    """Six movies of one detector, as MRCZ."""
    ice = md.simulate.Specimen(ice_sd=0.04, particles=40, particle_diameter=40, particle_contrast=0.2)
    session, _ = md.simulate.session(6, (20, 512, 512), dose=1.5, specimen=ice, pixel_size_angstrom=1.06, seed=1)
    for k in range(session.sizes["movie"]):
        md.write_mrcz(session.images.isel(movie=k), out / f"movie_{k}.mrcz", metadata={"grid": 7})


def parts_of_a_movie(movie) -> None:
    """A selection reads only what it needs: here the blocks that hold 64 rows of one frame."""
    rows = movie.isel(frame=17, y=slice(128, 192)).compute()
    print(f"64 rows of frame 17: {rows.shape}, mean {float(rows.mean()):.3f} counts")


def pictures(movie, file: Path) -> None:
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 4.5), layout="constrained")
    movie.em.plot(0, ax=axes[0])
    movie.em.plot("sum", ax=axes[1])
    figure.savefig(file, dpi=110)
    plt.close(figure)


def sums_of_a_session(out: Path) -> None:
    """All movies as one array, ordered by time; the sums are computed once, stored and read again."""
    session = md.open_session(str(out / "movie_*.mrcz"))
    sums = md.write_archive(md.sum_frames(session), out / "run.zarr", group="derived/sums")
    doses = sums.mean(("y", "x")) / session.sizes["frame"]
    for name, time, dose in zip(session.movie.values, session.acquired.values, doses.values, strict=True):
        print(f"{name}  {np.datetime_as_string(time, 's')}  {dose:.3f} counts/pixel/frame")


if __name__ == "__main__":
    main()
