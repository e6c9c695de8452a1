"""The command `mrczdask`: one module a group of commands, loaded when the command is called."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

from cyclopts import App, CycloptsError, CycloptsPanel

import mrczdask

OK: Final = 0
FAILED: Final = 1
BAD_USAGE: Final = 2

app = App(
    name="mrczdask",
    help="Electron-microscopy movies and sparse diffraction: look, check, convert, correct.",
    version=mrczdask.__version__,
    help_format="plaintext",
)
_COMMANDS: Final = (
    # name, where it is, the line of `mrczdask --help`: nothing is imported to show it
    ("info", "mrczdask.cli.files:info", "Show shape, header and compression of movies."),
    ("validate", "mrczdask.cli.files:validate", "Check files for every known fault of their writers."),
    ("convert", "mrczdask.cli.files:convert", "Convert a movie between MRC, MRCZ, Zarr and TIFF."),
    ("virtualize", "mrczdask.cli.files:virtualize", "One Zarr array of many files, no pixel copied."),
    ("index", "mrczdask.cli.files:index", "Add the frame index to MRCZ files."),
    ("correct", "mrczdask.cli.correct:correct", "Correct a session by gain, outlier pixels and KOMA."),
    ("gain", "mrczdask.cli.gain:app", "Estimate, check, follow and orient gain references."),
    ("sparsify", "mrczdask.cli.sparse:sparsify", "Keep the Bragg signal and the background of diffraction frames."),
    ("densify", "mrczdask.cli.sparse:densify", "Fill sparse frames with their background again."),
    ("peaks", "mrczdask.cli.peaks:peaks", "Find Bragg peaks and hits in diffraction frames."),
    ("doctor", "mrczdask.cli.doctor:doctor", "Show versions and compile the kernels."),
)
_WITHOUT_KERNELS: Final = ("info", "index")
"""Commands that seldom need numba: it is not imported for them beforehand."""
for _name, _where, _line in _COMMANDS:
    app.command(_where, name=_name, help=_line)

INTERRUPTED = "interrupted: files are whole or not there; of an archive parts may lack: the same command goes on"


def _told(error: Exception) -> str:
    """Return an error in one line."""
    from mrczdask.errors import MrczdaskError

    if isinstance(error, FileNotFoundError) and not isinstance(error, MrczdaskError):
        return f"{error.filename or error}: there is no such file"
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status: 0, 1 (failed) or 2 (bad usage).

    Without `argv` it is that of the process, which then is taken to end with the command.
    """
    from mrczdask.errors import MrczdaskError

    try:
        command, given, _ = app.parse_args(argv, print_error=False, exit_on_error=False)
        if argv is None and command.__module__.startswith(f"{__name__}."):
            from mrczdask.cli.start import load_libraries

            load_libraries(kernels=command.__name__ not in _WITHOUT_KERNELS)
        status = command(*given.args, **given.kwargs)
    except CycloptsError as error:
        from rich.console import Console

        Console(stderr=True).print(CycloptsPanel(error))
        return BAD_USAGE
    except KeyboardInterrupt:
        print(INTERRUPTED, file=sys.stderr)
        return FAILED
    except (MrczdaskError, OSError, ValueError) as error:
        print(_told(error), file=sys.stderr)
        return FAILED
    return int(status or OK)
