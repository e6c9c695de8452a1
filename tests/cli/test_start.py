"""A command starts without what it does not use, and what is left out is there for what asks for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HEAVY = ("dask", "distributed", "fsspec", "h5py", "numba", "numcodecs", "numpy", "pandas", "scipy", "xarray", "zarr")

HELP = """
import sys
from mrczdask.cli import main
assert main(["--help"]) == 0
assert main(["sparsify", "--help"]) == 0
print(*sys.modules, file=sys.stderr)
"""

KERNELS = """
import math
import numpy as np
from numba import njit

@njit(nogil=True, cache=True)
def cached(n):
    out = np.zeros(n)  # what allocates needs the runtime of numba
    for k in range(n):
        out[k] = math.exp(-k)
    return out

@njit
def compiled(values):
    return np.sort(values)[::-1].sum()
"""

COMMAND = """
import gc, sys
from mrczdask.cli.start import UNUSED, load_libraries

load_libraries()
assert gc.isenabled()
assert not set(UNUSED) & set(sys.modules)
import dask.utils, scipy.fftpack, scipy.sparse
assert dask.utils.derived_from.__name__ == "derived_from"

import numpy as np, kernels
values = kernels.cached(3)
np.testing.assert_array_equal(values, np.exp([0.0, -1.0, -2.0]))
print(sum(kernels.cached.stats.cache_hits.values()), "numba.typed.typeddict" in sys.modules)
assert kernels.compiled(values) == sum(sorted(values, reverse=True))
"""


def run(program: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a program in a process of its own."""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done


def test_help_imports_no_library(tmp_path: Path) -> None:
    modules = set(run(HELP, tmp_path).stderr.split())
    assert "cyclopts" in modules
    assert not modules.intersection(HEAVY)


def test_cached_kernels_are_loaded_alone(tmp_path: Path) -> None:
    (tmp_path / "kernels.py").write_text(KERNELS)
    assert run(COMMAND, tmp_path).stdout.split() == ["0", "True"]
    assert run(COMMAND, tmp_path).stdout.split() == ["1", "False"]
