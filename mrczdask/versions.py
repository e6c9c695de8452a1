"""Versions for bug reports, and a warm kernel cache."""

from __future__ import annotations

import importlib.metadata
import platform
from typing import Final

PACKAGES: Final = (
    "mrczdask",
    "numpy",
    "scipy",
    "dask",
    "distributed",
    "xarray",
    "zarr",
    "numcodecs",
    "numba",
    "blosc2",
    "fsspec",
    "tifffile",
    "imagecodecs",
    "h5py",
    "hdf5plugin",
    "pyFAI",
    "s3fs",
    "obstore",
    "matplotlib",
)


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that matter here; "-" for one that is not installed."""
    found = {"python": platform.python_version(), "machine": f"{platform.system()} {platform.machine()}"}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "-"
    return found


def show_versions() -> str:
    """Versions of everything that matters, to be pasted into a bug report.

    Returns
    -------
    str
        A line a package.

    Examples
    --------
    >>> import mrczdask as md
    >>> md.show_versions().splitlines()[0].startswith("python")
    True
    """
    return "\n".join(f"{name}: {version}" for name, version in versions().items())


def warm_up() -> None:
    """Call every verb once on a tiny movie: numba compiles, and keeps what it compiled."""
    import tempfile
    from pathlib import Path

    import mrczdask as md

    with tempfile.TemporaryDirectory() as folder:
        movie = md.simulate.poisson((3, 32, 32), mean=1.0, seed=0)
        stored = md.write_mrcz(movie, Path(folder) / "warm.mrcz")
        md.sum_frames(stored).compute()
