"""Options that many commands share, and what `--help` says of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

if TYPE_CHECKING:
    from numpy.typing import NDArray

Scheduler = Annotated[str | None, Parameter(help="threads, local:N or tcp://host:port.")]
Quiet = Annotated[bool, Parameter(name=("--quiet", "-q"), negative="", help="No progress bar.")]
AsJson = Annotated[bool, Parameter(name="--json", negative="", help="Print JSON instead of text.")]


def read_array(path: str) -> NDArray[Any]:
    """The numbers of a .npy file that an option names."""
    import numpy as np

    from mrczdask.errors import MrczdaskError

    try:
        return np.asarray(np.load(path, allow_pickle=False))
    except (ValueError, EOFError):
        raise MrczdaskError(f"{path}: this is no .npy file of numbers") from None
