"""The rules of tests/layer_rules.py hold for the package, and each of them is able to fail."""

from __future__ import annotations

from pathlib import Path

import pytest

import mrczdask
from tests.layer_rules import FUNCTION_LINES, LEVELS, MODULE_LINES, MODULES, PACKAGE, circle, module_name, violations

HOMES = dict(mrczdask._MODULE_OF)


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_a_module_keeps_the_rules(path: Path) -> None:
    found = violations(path.read_text(encoding="utf-8"), module_name(path), HOMES)
    assert not found, "\n".join(found)


def test_the_modules_are_found() -> None:
    names = {module_name(path) for path in MODULES}
    assert {"mrczdask", "mrczdask.errors", "mrczdask.formats.mrc", "mrczdask.io.movie", "mrczdask.cli"} <= names


def test_no_modules_import_each_other_in_a_circle() -> None:
    sources = {module_name(path): path.read_text(encoding="utf-8") for path in MODULES}
    del sources["mrczdask"]  # its names load on first use
    assert circle(sources) == []


@pytest.mark.parametrize("late", ["from mrczdask.io.x import f", "import mrczdask.io.x", "from mrczdask.io import x"])
def test_a_circle_is_found(late: str) -> None:
    sources = {
        "mrczdask.io.x": "from mrczdask.io.y import Y",
        "mrczdask.io.y": f"def g():\n    {late}",
        "mrczdask.io.z": "from mrczdask.io import x, y",
    }
    assert set(circle(sources)) == {"mrczdask.io.x", "mrczdask.io.y"}
    assert circle(sources | {"mrczdask.io.y": "import numpy"}) == []


def test_every_part_of_the_package_has_one_level() -> None:
    parts = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert parts - {"__init__"} <= set().union(*LEVELS)
    assert sum(map(len, LEVELS)) == len(set().union(*LEVELS))


BROKEN = {
    "up": ("mrczdask.kernels.x", "from mrczdask.io.movie import open_movie", "`kernels` may not import `io`"),
    "up, as a module": ("mrczdask.execution.x", "import mrczdask.io.movie", "`execution` may not import `io`"),
    "up, by the package": ("mrczdask.io.x", "from mrczdask import cli", "`io` may not import `cli`"),
    "up, by a public name": ("mrczdask.codecs.x", "from mrczdask import open_movie", "`codecs` may not import `io`"),
    "up, by an attribute": ("mrczdask.formats.x", "import mrczdask as md\nmd.open_movie(1)", "may not import `io`"),
    "up, inside a function": ("mrczdask.io.x", "def f():\n    import mrczdask.cli", "`io` may not import `cli`"),
    "up, for types only": (
        "mrczdask.formats.x",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from mrczdask.io.movie import open_movie",
        "`formats` may not import `io`",
    ),
    "sideways": ("mrczdask.movies.x", "from mrczdask.diffraction import veto", "may not import `diffraction`"),
    "sideways, low": ("mrczdask.formats.x", "from mrczdask.kernels import bits", "may not import `kernels`"),
    "simulate uses io": ("mrczdask.simulate.x", "from mrczdask.io.movie import y", "`simulate` may not import `io`"),
    "simulate uses formats": ("mrczdask.simulate.x", "from mrczdask.formats import mrc", "may not import `formats`"),
    "relative": ("mrczdask.io.x", "from .movie import open_movie", "relative import"),
    "no layer": ("mrczdask.helpers.x", "", "`helpers` belongs to no layer"),
    "dask in formats": ("mrczdask.formats.x", "import dask.array as da", "`formats` may not import dask"),
    "xarray in kernels": ("mrczdask.kernels.x", "import xarray as xr", "`kernels` may not import xarray"),
    "zarr in kernels": ("mrczdask.kernels.x", "from zarr.abc import codec", "`kernels` may not import zarr"),
    "fsspec in formats": ("mrczdask.formats.x", "import fsspec", "`formats` may not import fsspec"),
    "h5py in diffraction": ("mrczdask.diffraction.x", "def f():\n    import h5py", "may not import h5py"),
    "open in formats": ("mrczdask.formats.x", "open('a')", "only io opens files"),
    "read in movies": ("mrczdask.movies.x", "Path('a').read_bytes()", "only io opens files"),
    "print": ("mrczdask.io.x", "print(1)", "only cli prints"),
    "parallel": ("mrczdask.kernels.x", "@njit(nogil=True, cache=True, parallel=True)\ndef f(): ...", "dask's alone"),
    "holds the lock": ("mrczdask.kernels.x", "@njit(cache=True)\ndef f(): ...", "nogil=True, cache=True"),
    "njit of numba": ("mrczdask.kernels.x", "from numba import njit", "kernels.compiling"),
    "bare kernel": ("mrczdask.kernels.x", "@numba.njit\ndef f(): ...", "nogil=True, cache=True"),
    "blosc threads": ("mrczdask.io.x", "numcodecs.blosc.use_threads = False", "changes the whole process"),
    "blosc2 threads": ("mrczdask.io.x", "blosc2.set_nthreads(1)", "changes the whole process"),
    "dask settings": ("mrczdask.io.x", "dask.config.set(scheduler='sync')", "changes the whole process"),
    "global generator": ("mrczdask.simulate.x", "np.random.poisson(1.0)", "global generator"),
    "long module": ("mrczdask.io.x", "x = 1\n" * (MODULE_LINES + 1), "401 lines"),
    "long function": ("mrczdask.io.x", "def f():\n" + "    x = 1\n" * (FUNCTION_LINES + 1), "`f` has 51 lines"),
    "long method": (
        "mrczdask.io.x",
        "class A:\n  def f(self):\n" + "    x = 1\n" * (FUNCTION_LINES + 1),
        "has 51 lines",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_rule_is_found(case: str) -> None:
    module, source, message = BROKEN[case]
    found = violations(source, module, {"open_movie": "mrczdask.io.movie"})
    assert len(found) == 1
    assert message in found[0]
    assert found[0].startswith(f"{module}:")


KEPT = {
    "down": ("mrczdask.cli.x", "from mrczdask.io.movie import open_movie\nimport mrczdask.kernels.bits"),
    "own part": ("mrczdask.io.x", "from mrczdask.io.movie import open_movie"),
    "ground": ("mrczdask.provenance", "from mrczdask import schema\nfrom mrczdask.errors import MrcFormatError"),
    "version": ("mrczdask.io.x", "import mrczdask\nmrczdask.__version__"),
    "simulate": ("mrczdask.simulate.x", "import dask.array as da\nfrom mrczdask.kernels import poisson"),
    "h5py in io": ("mrczdask.io.x", "import h5py"),
    "cli prints": ("mrczdask.cli.x", "print(1)"),
    "io opens": ("mrczdask.io.x", "open('a')"),
    "a method named open": ("mrczdask.codecs.x", "self.open(stream)"),
    "kernel": ("mrczdask.kernels.x", "@njit(nogil=True, cache=True)\ndef f(): ..."),
    "inlined kernel": ("mrczdask.kernels.x", "@njit(inline='always')\ndef f(): ..."),
    "scoped setting": ("mrczdask.execution.x", "with dask.config.set(scheduler='threads'):\n    pass"),
    "own generator": ("mrczdask.io.x", "np.random.default_rng(0)"),
    "example": ("mrczdask.kernels.x", "def f():\n    '''>>> import mrczdask as md\n    >>> md.open_movie(1)'''"),
    "long docstring": ("mrczdask.io.x", "def f():\n    '''\n" + "    text\n" * 100 + "    '''\n    return 1"),
}


@pytest.mark.parametrize("case", KEPT)
def test_a_kept_rule_is_not_reported(case: str) -> None:
    module, source = KEPT[case]
    assert violations(source, module, {"open_movie": "mrczdask.io.movie"}) == []
