"""Options that many commands share, and what `--help` says of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

Scheduler = Annotated[str | None, Parameter(help="threads, local:N or tcp://host:port.")]
Upsampling = Annotated[
    Literal[1, 2, 4], Parameter(help="EER: grid on which electrons are rendered, 1 for that of the physical pixels.")
]
FramesPerFraction = Annotated[
    int | None, Parameter(help="EER: camera frames summed to one frame, about 250 of which are read a second.")
]
Lengths = Annotated[
    Literal["same", "shortest"],
    Parameter(help="Movies of unequal length: refused (same), or cut to the shortest."),
]
MANY_CAMERA_FRAMES = 200
"""Frames of an EER movie from which on a command wants to be told how many to sum: a second of a Falcon 4."""
Quiet = Annotated[bool, Parameter(name=("--quiet", "-q"), negative="", help="No progress bar.")]
AsJson = Annotated[bool, Parameter(name="--json", negative="", help="Print JSON instead of text.")]


def eer_options(
    urls: Sequence[str], upsampling: int, frames_per_fraction: int | None, *, every: bool = False
) -> dict[str, int]:
    """Options of `open_movie` and `open_session` for EER files, refused for others and wanted for long movies.

    `every` is for commands that only sum: there it does not matter how frames are divided.
    """
    from mrczdask.io.movie import EER_SUFFIXES, open_file
    from mrczdask.io.source import unwrapped_name

    given = {"upsampling": upsampling, "frames_per_fraction": frames_per_fraction or 1}
    is_eer = bool(urls) and unwrapped_name(urls[0]).lower().endswith(EER_SUFFIXES)
    if every or frames_per_fraction is not None or not is_eer:
        return given
    n = open_file(urls[0]).shape[0]
    if n > MANY_CAMERA_FRAMES:
        raise ValueError(
            f"{urls[0]}: {n} camera frames: say how many make a frame of the movie with --frames-per-fraction "
            "(1 keeps each of them)"
        )
    return given


def read_array(path: str) -> NDArray[Any]:
    """The numbers of a .npy file that an option names."""
    import numpy as np

    from mrczdask.errors import MrczdaskError

    try:
        return np.asarray(np.load(path, allow_pickle=False))
    except (ValueError, EOFError):
        raise MrczdaskError(f"{path}: this is no .npy file of numbers") from None
