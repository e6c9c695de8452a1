"""Importing the package adds next to nothing to `import xarray`, and loads no heavy library."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys

import pytest

LIMIT_S = 0.1
RUNS = 3

# Each costs between 0.1 s and several seconds; all are loaded by the first verb that needs them.
HEAVY = {
    "blosc2",
    "bokeh",
    "dask.array",
    "distributed",
    "fsspec",
    "h5py",
    "holoviews",
    "hvplot",
    "imagecodecs",
    "matplotlib",
    "numba",
    "numcodecs",
    "panel",
    "rich",
    "s3fs",
    "scipy",
    "tifffile",
    "zarr",
}

PROBE = """
import json, sys, time
import xarray
before = set(sys.modules)
start = time.process_time()
import {module}
print(json.dumps([time.process_time() - start, sorted(set(sys.modules) - before)]))
"""


def _import(module: str) -> tuple[float, set[str]]:
    """Return the processor seconds and the new modules of importing `module` after xarray, in a fresh process."""
    program = [sys.executable, "-W", "error", "-c", PROBE.format(module=module)]
    done = subprocess.run(program, capture_output=True, text=True, check=True, timeout=120)
    seconds, modules = json.loads(done.stdout)
    return seconds, set(modules)


def test_the_package_is_imported_in_no_time() -> None:
    runs = [_import("mrczdask") for _ in range(RUNS)]
    seconds, modules = statistics.median(seconds for seconds, _ in runs), runs[0][1]
    assert seconds < LIMIT_S
    assert "mrczdask" in modules
    assert modules & HEAVY == set()
    assert len(modules) < 20, sorted(modules)


def test_the_probe_sees_a_heavy_import() -> None:
    seconds, modules = _import("numba")
    assert "numba" in modules & HEAVY
    assert seconds > LIMIT_S


ACCESSOR = {
    "mrczdask first": """
import sys
import mrczdask
assert "xarray" not in sys.modules and "numpy" not in sys.modules
import importlib.util
assert importlib.util.find_spec("xarray").origin.endswith("__init__.py")  # asking for it is not importing it
import xarray
""",
    "xarray first": "import sys, xarray, mrczdask",
}
"""Programs that import both."""

REGISTERED = """
assert not [finder for finder in sys.meta_path if type(finder).__module__ == "mrczdask"]
assert "exec_module" not in vars(xarray.__loader__)
print(xarray.DataArray([[1, 2], [3, 4]], dims=("y", "x")).em.image().sum().item())
"""


@pytest.mark.parametrize("order", ACCESSOR)
def test_the_accessor_is_there_in_either_order(order: str) -> None:
    program = [sys.executable, "-W", "error", "-c", ACCESSOR[order] + REGISTERED]
    done = subprocess.run(program, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "10\n", "")
