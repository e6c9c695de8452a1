"""Progress that counts finished regions, so that it is the same on every scheduler."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

ProgressCallback = Callable[[int, int, str], None]
Progress = Literal[True] | ProgressCallback | None
"""None: silent. True: a bar. A callable: called with (done, total, label)."""


@contextmanager
def track(progress: Progress, total: int, label: str) -> Iterator[Callable[[], None]]:
    """Give a function to call after each finished region.

    Parameters
    ----------
    progress : None, True or callable
        Silent, a bar on the terminal or in the notebook, or ``callable(done, total, label)``.
    total : int
        Number of regions.
    label : str
        What is being done, as a person reads it.
    """
    done = 0

    def advance() -> None:
        nonlocal done
        done += 1
        report(done, total, label)

    if not progress:
        report: ProgressCallback = lambda *_: None  # noqa: E731
        yield advance
    elif progress is True:
        with _bar() as report:
            report(0, total, label)
            yield advance
    else:
        report = progress
        report(0, total, label)
        yield advance


@contextmanager
def _bar() -> Iterator[ProgressCallback]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with RichProgress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total, label: bar.update(task, completed=done, total=total, description=label)
