"""The decorator of kernels: compiled code is kept between processes where a folder for it can be written."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import numba

from mrczdask.errors import MrczdaskWarning


def _njit(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """`numba.njit` with these options; uncached, with one warning, where no folder for compiled code can be written."""

    def compiled(function: Callable[..., Any]) -> Any:
        try:
            made = numba.njit(**options)(function)
        except RuntimeError as error:
            if not options.get("cache") or "cannot cache" not in str(error):
                raise
            _warn()
            made = numba.njit(**options | {"cache": False})(function)
        return made

    return compiled


njit: Any = _njit
"""As numba's own: without a type, so that kernels keep that of the functions they are made of."""


@cache
def _warn() -> None:
    warnings.warn(
        "compiled kernels cannot be kept: neither the folder of the package nor a home can be written. Every process "
        "compiles them anew, for up to a minute; the variable NUMBA_CACHE_DIR names a folder for them",
        MrczdaskWarning,
        stacklevel=3,
    )
