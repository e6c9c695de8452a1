"""Movies of a session that cannot be read, and those that hold pixels that are no numbers: both are told."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mrczdask.errors import CodecError, MrcFormatError, MrczdaskWarning, ResumeError, StoreError
from mrczdask.execution.resume import Journal, Region
from mrczdask.movies.arrays import warned
from mrczdask.movies.pipeline_steps import REPORT, Unread, sum_movie

FORMAT: Final = 2
"""Changes when the numbers in an archive would, or their places: an old one is then not gone on with."""
_UNREAD: Final = "unread.json"
_LISTED: Final = 5
"""Movies named in a warning before "and n more"."""


def sum_movies(
    run: Callable[[list[Region]], None],
    parts: Sequence[tuple[Any, ...]],
    journal: Journal,
    names: Sequence[str],
    inputs: Sequence[str],
    *,
    skip: bool,
) -> dict[str, str]:
    """First pass, `sum_movie` on each of `parts`; with `skip` the movies that cannot be read, by name, and why."""
    strict = [Region(f"sums/{k}", inputs[k], sum_movie, part) for k, part in enumerate(parts)]
    lenient = [
        Region(f"sums/{k}", inputs[k], sum_if_readable, (journal, inputs[k], *part)) for k, part in enumerate(parts)
    ]
    run(lenient if skip else strict)
    broken = _broken(journal, names, inputs, np.asarray(parts[0][-1]["report"][:])) if parts else {}
    if broken and not skip:  # left by a call that skipped them
        run(strict)
        return {}
    if broken:
        _remember(journal, broken, names, inputs)
    return broken


def sum_if_readable(journal: Journal, inputs: str, movie: Unread, place: int, *rest: Any) -> None:
    """As `sum_movie`; of a movie that cannot be read a note is left, and a report of NaN."""
    try:
        sum_movie(movie, place, *rest)
    except StoreError:
        raise  # it is the store that fails, not one movie in it
    except (MrcFormatError, CodecError, OSError) as error:
        journal.write(_note(inputs), {"error": str(error)})
        rest[-1]["report"][place] = np.full(len(REPORT), np.nan)


def _broken(
    journal: Journal, names: Sequence[str], inputs: Sequence[str], report: NDArray[np.float64]
) -> dict[str, str]:
    """The movies of which `sum_if_readable` left a note, and why; their sums are to be made again."""
    found = {}
    for k in np.flatnonzero(np.isnan(report).all(axis=1)).tolist():
        note = journal.read(_note(inputs[k]))
        if note is not None:
            found[names[k]] = str(note["error"])
            journal.remove(f"sums/{k}.done")
            journal.remove(_note(inputs[k]))
    return found


def _remember(journal: Journal, broken: Mapping[str, str], names: Sequence[str], inputs: Sequence[str]) -> None:
    """Keep which movies could not be read, as they are now."""
    known = journal.read(_UNREAD) or {}
    new = {name: [own, broken[name]] for name, own in zip(names, inputs, strict=True) if name in broken}
    journal.write(_UNREAD, {**known, **new})


def unread_before(journal: Journal, names: Sequence[str], inputs: Sequence[str]) -> dict[str, str]:
    """Movies that could not be read before and are what they were, and why."""
    known = journal.read(_UNREAD) or {}
    pairs = zip(names, inputs, strict=True)
    return {name: str(known[name][1]) for name, own in pairs if name in known and known[name][0] == own}


def warn_of_left_out(left_out: Mapping[str, str]) -> None:
    """Warn of movies that are not in the archive."""
    if left_out:
        warned(f"{len(left_out)} movies cannot be read and were left out: {_list(left_out.values())}", MrczdaskWarning)


def warn_of_unusable(names: Sequence[str], places: NDArray[np.int64]) -> None:
    """Warn of pixels that are NaN, infinite or beyond 2**53: masked and filled they look like any others."""
    odd = [
        f"{name} ({pixels} pixels, such as frame {frame}, y {y}, x {x})" if frame >= 0 else f"{name} ({pixels} pixels)"
        for name, (pixels, frame, y, x) in zip(names, places.tolist(), strict=True)
        if pixels
    ]
    if odd:
        warned(
            f"{len(odd)} movies hold pixels that are NaN, infinite or beyond 2**53, dead in these movies and filled: "
            f"{_list(odd)}",
            MrczdaskWarning,
        )


def _note(inputs: str) -> str:
    return f"unread/{inputs}.json"


def _list(parts: Any) -> str:
    listed = list(parts)
    more = f" and {len(listed) - _LISTED} more" if len(listed) > _LISTED else ""
    return "; ".join(listed[:_LISTED]) + more


def check_format(stored: Mapping[str, Any], url: str) -> None:
    """Refuse to go on with an archive of a version whose numbers differ."""
    if stored.get("format") != FORMAT:
        raise ResumeError(
            f"{url}: made by another version, which found other outliers: give another place, or resume=False "
            "(--no-resume) to begin anew"
        )
