"""A process that is the command's own starts and ends sooner: what its libraries do for others is left out."""

from __future__ import annotations

import atexit
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

UNUSED: Final = ("scipy.fftpack", "scipy.sparse")
"""Dask imports them to know whether they are there; no command has it transform by the first or hold the matrices."""


def load_libraries(*, kernels: bool = True) -> None:
    """Import what nearly every command needs, with numba for its `kernels`; only for a process that ends with it."""
    # nothing that is imported becomes garbage: a collector that looks through it, now or at the end, finds nothing
    gc.disable()
    atexit.register(gc.freeze)
    try:
        with suppress(ImportError), _absent(*UNUSED), _undocumented():  # another Dask, imported in full when used
            import dask.array  # noqa: F401
        import xarray  # noqa: F401

        if kernels:
            _load_kernels_alone()
    finally:
        gc.freeze()
        gc.enable()


@contextmanager
def _absent(*modules: str) -> Iterator[None]:
    """Modules that are not there yet cannot be imported inside."""
    blocked = dict.fromkeys(name for name in modules if name not in sys.modules)
    sys.modules.update(blocked)  # type: ignore[arg-type]  # None: an import raises ModuleNotFoundError
    try:
        yield
    finally:
        for name in blocked:
            del sys.modules[name]


@contextmanager
def _undocumented() -> Iterator[None]:
    """Dask does not write its docstrings from those of NumPy, which takes it longer than the rest of its import."""
    import dask.utils

    patched: Any = dask.utils
    written = getattr(patched, "derived_from", None)
    patched.derived_from = lambda *_, **__: lambda function: function
    try:
        yield
    finally:
        patched.derived_from = written


def _load_kernels_alone() -> None:
    """Load cached kernels without first loading all that numba can compile; what compiles still does."""
    try:
        from numba.core.caching import Cache
        from numba.core.runtime.nrt import rtsys
    except ImportError:
        return
    if not (hasattr(Cache, "_load_overload") and hasattr(Cache, "_guard_against_spurious_io_errors")):
        return  # another numba, which loads them in its own way

    def load_overload(cache: Any, signature: Any, context: Any) -> Any:
        rtsys.initialize(context)
        with cache._guard_against_spurious_io_errors():
            return cache._load_overload(signature, context)

    patched: Any = Cache
    patched.load_overload = load_overload
