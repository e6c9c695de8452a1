"""Drift of the gain: false alarms of sessions whose gain never changes, and how soon a change is found."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

import mrczdask as md
from benchmarks.common import Table, arguments, report

SHAPE = (1, 64, 96)
LINES = md.simulate.Gain(column_sd=0.03, row_sd=0.02, pixel_sd=0.02)
KINDS: dict[str, dict[str, Any]] = {
    "Poisson noise": {},
    "particles": {"specimen": md.simulate.Specimen(particles=8, particle_contrast=0.2)},
    "ice, particles, carbon": {
        "specimen": md.simulate.Specimen(ice_sd=0.03, particles=8, particle_contrast=0.15, carbon=0.15)
    },
    "hot pixels are born": {"defects": md.simulate.Defects(hot_births=0.0002, hot_lifetime=float("inf"))},
}


def plan(quick: bool) -> Iterator[tuple[int, int, int]]:
    """(movies, reference_movies, sessions) of each kind."""
    if quick:
        yield 25, 4, 1
        return
    yield from ((25, 4, 40), (25, 10, 40), (200, 4, 10), (200, 10, 10), (200, 25, 5), (2000, 4, 1), (2000, 10, 1))


def false_alarms(quick: bool) -> Table:
    """Sessions of a detector that does not change."""
    table = Table(
        "False alarms of gain_drift",
        ["session", "movies", "reference_movies", "sessions", "alarms", "alarms in 1000 movies", "largest sum"],
        "Movies of 40 e/pixel, 64 x 96 pixels, corrected with the gain that they were simulated with. An alarm is a "
        "cumulative sum above 12.",
    )
    for kind, options in KINDS.items():
        for movies, reference, sessions in plan(quick):
            found = [drift(movies, reference, seed, options) for seed in range(sessions)]
            alarms = sum(bool(each.attrs["alarm"]) for each in found)
            largest = max(float(each.cusum.max()) for each in found)
            table.add(kind, movies, reference, sessions, alarms, 1000 * alarms / (movies * sessions), largest)
            print(table.rows[-1], flush=True)
    return table


def drift(movies: int, reference: int, seed: int, options: dict[str, Any]) -> Any:
    """One session, movie by movie."""
    session, truth = md.simulate.session(movies, SHAPE, dose=40, seed=seed, gain=LINES, **options)
    return md.gain_drift(session, truth.gain, reference_movies=reference)


def found_changes(quick: bool) -> Table:
    """Sessions whose response changes from response to response**1.25 in the middle."""
    table = Table(
        "Changes found by gain_drift",
        ["part that changes", "sessions", "found", "movies from the change to the one that is named (mean)"],
        "34 movies of 40 e/pixel, 64 x 96 pixels, columns or rows with 4 %, pixels with 8 % of gain; from movie 22 on "
        "the response is response**1.25.",
    )
    sessions = 1 if quick else 10
    for part, sd in (("column", 0.04), ("row", 0.04), ("pixel", 0.08)):
        gain = md.simulate.Gain(**{f"{part}_sd": sd})
        reports = []
        for seed in range(sessions):
            gamma = [1.0] * 22 + [1.25] * 12
            session, truth = md.simulate.session(34, SHAPE, dose=40, seed=seed, gain=gain, gamma=gamma)
            reports.append(md.gain_drift(session, truth.gain).attrs)
        late = [each["changepoint"] - 22 for each in reports if each["alarm"]]
        table.add(part, sessions, len(late), float(np.mean(late)) if late else None)
    return table


def main(argv: Sequence[str] | None = None) -> int:
    """Run both tables."""
    options = arguments(__doc__, argv)
    tables = [false_alarms(options.quick), found_changes(options.quick)]
    return report("gain_drift", "Drift of the gain", tables, options)


if __name__ == "__main__":
    sys.exit(main())
