"""Every exception of the package. A message is one line: file, place, what is wrong, what to do."""

from __future__ import annotations


class MrczdaskError(Exception):
    """Base of all errors this package raises on purpose."""


class MrcFormatError(MrczdaskError, ValueError):
    """A file is not what its header says, or not a file this package can read.

    Parameters
    ----------
    problem : str
        What is wrong and, after a colon or a full stop, what to do.
    url : str, optional
        The file. `formats` do not know it; `io` adds it with `at`.
    frame : int, optional
        Frame (0-based) at which the fault was met.
    byte : int, optional
        Offset in the file, from 0.
    """

    def __init__(self, problem: str, *, url: str | None = None, frame: int | None = None, byte: int | None = None):
        super().__init__(problem)
        self.problem, self.url, self.frame, self.byte = problem, url, frame, byte

    def at(self, url: str) -> MrcFormatError:
        """Return the same error with the file it was met in."""
        return type(self)(self.problem, url=url, frame=self.frame, byte=self.byte)

    def __str__(self) -> str:
        place = [f"frame {self.frame}"] if self.frame is not None else []
        place += [f"byte {self.byte:,}".replace(",", " ")] if self.byte is not None else []
        return ": ".join(part for part in (self.url, " at ".join(place), self.problem) if part)

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.problem, self.url, self.frame, self.byte)


def _rebuild(
    kind: type[MrcFormatError], problem: str, url: str | None, frame: int | None, byte: int | None
) -> MrcFormatError:
    return kind(problem, url=url, frame=frame, byte=byte)


class MissingShardError(MrcFormatError, FileNotFoundError):
    """Pixels or labels of an archive are not where they must be: lost, not yet written, or not seen from this host."""


class CodecError(MrczdaskError, ValueError):
    """A compressed buffer is corrupt, or a codec cannot take what it is given."""


class ResumeError(MrczdaskError, RuntimeError):
    """A store was begun with other parameters, inputs or code than the run that wants to continue it."""


class StoreError(MrczdaskError, OSError):
    """A store did not answer after bounded retries."""

    gave_up = False


class MissingExtraError(MrczdaskError, ImportError):
    """An optional dependency is not installed; the message names the extra."""


class MrczdaskWarning(UserWarning):
    """Base of all warnings of this package."""


class StaleIndexWarning(MrczdaskWarning):
    """A frame index does not belong to the file as it is now, and was not used."""


class AmbiguousFileWarning(MrczdaskWarning):
    """A file can be read in two ways; the message says which was taken and how to choose the other."""
