"""Kernels without a folder for compiled code: as in containers that run as any user over a read-only installation."""

import os
import subprocess
import sys
from pathlib import Path

import numba
import pytest

from mrczdask.errors import MrczdaskWarning
from mrczdask.kernels import compiling

PROGRAM = """
import os, tempfile, warnings
os.chdir(tempfile.mkdtemp())
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    import mrczdask as md
    movie = md.simulate.poisson((2, 16, 16), mean=1.0, seed=0).compute()
    md.write_mrcz(movie, "m.mrcz", codec=None)
    assert int(md.sum_frames(movie).sum()) == int(movie.sum())
print(sum("NUMBA_CACHE_DIR" in str(one.message) for one in said))
"""


def _add(a: int, b: int) -> int:
    return a + b


def _twice(a: int) -> int:
    return 2 * a


def test_kernels_are_compiled_without_a_folder_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    real = numba.njit

    def refuse(*given: object, **options: object) -> object:
        if options.get("cache"):
            raise RuntimeError("cannot cache function 'add': no locator available for file 'x.py'")
        return real(*given, **options)

    monkeypatch.setattr(compiling.numba, "njit", refuse)
    compiling._warn.cache_clear()
    with pytest.warns(MrczdaskWarning, match="NUMBA_CACHE_DIR") as said:
        add, twice = (compiling.njit(nogil=True, cache=True)(function) for function in (_add, _twice))
    assert (add(2, 3), twice(4), len(said)) == (5, 8, 1)


def test_other_errors_stay_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("another")

    monkeypatch.setattr(compiling.numba, "njit", refuse)
    with pytest.raises(RuntimeError, match="another"):
        compiling.njit(nogil=True, cache=True)(len)


@pytest.mark.slow
@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become a user without a home"
)
def test_a_user_without_a_home_over_a_read_only_installation() -> None:
    package = Path(compiling.__file__).parents[2]
    caps = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *caps]
    if subprocess.run([*user, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no such user can be had here")
    done = subprocess.run(
        [*user, sys.executable, "-c", PROGRAM],
        cwd="/",
        env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "PYTHONDONTWRITEBYTECODE": "1"}
        | {"PYTHONPATH": os.pathsep.join([str(package), *sys.path])},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["1"]
