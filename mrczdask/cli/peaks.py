"""The command peaks: Bragg peaks of diffraction frames into a file that CrystFEL reads, with the hit rate so far."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Final

from cyclopts import Parameter

from mrczdask.cli import OK
from mrczdask.cli.background import DEFAULT, Background
from mrczdask.cli.options import AsJson, Quiet, Scheduler
from mrczdask.cli.output import print_json
from mrczdask.cli.peak_options import DEFAULT as PEAKS
from mrczdask.cli.peak_options import Peaks

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

    from mrczdask.diffraction.live import HitRate, PeakWatch
    from mrczdask.io.geometry import Geometry

_PART: Final = ".part.zarr"
_PLANE: Final = 2
_COPIED: Final = 16
"""Frames of a block that is copied into a .cxi file."""


def peaks(
    *files: str,
    geometry: Annotated[str, Parameter(name=("--geometry", "-p"))],
    out: Annotated[str, Parameter(name=("--out", "-o"))],
    dataset: str | None = None,
    min_peaks: int = 20,
    search: Peaks = PEAKS,
    background: Background = DEFAULT,
    block: int = 16,
    live: float | None = None,
    plot: Annotated[bool, Parameter(negative="")] = False,
    resume: bool = True,
    scheduler: Scheduler = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> int:
    """Find the Bragg peaks of diffraction frames, and write them for CrystFEL (.cxi), as NeXus, Parquet or Zarr.

    Parameters
    ----------
    files
        A master file, several files of frames or patterns of their names, or a folder of files of one frame each.
    geometry
        A PONI file, or a .geom file of CrystFEL.
    out
        A name that ends in .cxi, .h5, .nxs, .parquet or .zarr.
    dataset
        The dataset of the frames, where the file does not tell it.
    min_peaks
        A frame of at least so many peaks is a hit.
    block
        Most frames that are searched together.
    live
        Wait for frames that are still arriving until none has come for so many seconds.
    plot
        Write a picture of the peaks, the hits and the sweep of the threshold beside the file.
    resume
        Go on with what an interrupted run left (--resume), or begin anew (--no-resume).
    """
    from mrczdask.diffraction.live import PeakWatch
    from mrczdask.execution.schedulers import use_scheduler
    from mrczdask.io.peak_writer import check_name

    check_name(out)
    source = _source(files, live)
    detector = _detector(geometry, source, dataset, live)
    part = f"{out}{_PART}"
    if not resume and os.path.isdir(part):
        shutil.rmtree(part)
    options = _background(background, detector, source, dataset, live) | search.options(background.unit)
    with use_scheduler(scheduler):
        watch = PeakWatch(
            source,
            detector,
            part,
            min_peaks=min_peaks,
            block=block,
            dataset=dataset,
            settle_s=0.0 if live is None else 0.5,
            **options,
        )
        with _bar(quiet, min_peaks) as show:
            for state in watch.update() if live is None else watch.follow(idle_s=live):
                show(state)
        try:
            table = _finish(watch, out, source, dataset, detector, min_peaks)
        finally:
            if not watch.state.shots:
                shutil.rmtree(part)
    shutil.rmtree(part)
    picture = _plot(out, source, dataset, table) if plot else None
    return _show(out, table, picture, as_json)


def _source(files: tuple[str, ...], live: float | None) -> Any:
    """The files; of what is still arriving, the folder or pattern."""
    import glob

    from mrczdask.io.session import expand_urls

    if len(files) == 1 and (live is not None or not glob.has_magic(files[0])):
        return files[0]
    found = expand_urls(files)
    return found[0] if len(found) == 1 else found


def _detector(name: str, source: Any, dataset: str | None, live: float | None) -> Geometry:
    from mrczdask.io.geometry import Geometry

    frames = _present(source, dataset)
    if name.endswith(".geom"):
        return Geometry.from_geom(name, frames=frames)
    if live is not None or frames is None:
        return Geometry.from_poni(name)
    own = frames.coords.get("mask")
    mask = own.values if own is not None and own.ndim == _PLANE else None  # one for each frame stays with the frames
    return Geometry.from_poni(name, shape=frames.shape[-2:], mask=mask)


def _background(
    background: Background, detector: Geometry, source: Any, dataset: str | None, live: float | None
) -> dict[str, Any]:
    """Options of the background; beam centres are those of the frames that are there."""
    options = background.options(detector.shape)
    if background.beam_centers is not None:
        options["beam_centers"] = _centers(options["beam_centers"], source, dataset, live)
    return options


def _present(source: Any, dataset: str | None) -> xr.DataArray | None:
    """The frames, where they are not in a folder of files or still to come."""
    from mrczdask.io.frames import open_frames

    if isinstance(source, str) and (
        (os.path.isdir(source) and not source.endswith(".zarr")) or not os.path.exists(source)
    ):
        return None
    return open_frames(source, dataset=dataset, chunks=None)


def _centers(found: NDArray[Any], source: Any, dataset: str | None, live: float | None) -> NDArray[Any]:
    """Beam centres, as many as there are frames where no more will come."""
    import math

    from mrczdask.diffraction.beams import shot_centers

    frames = _present(source, dataset) if live is None else None
    return found if frames is None else shot_centers(found, math.prod(frames.shape[:-2]))


def _finish(watch: PeakWatch, out: str, source: Any, dataset: str | None, detector: Geometry, min_peaks: int) -> Any:
    """Write the peaks under their final name, into a .cxi file with their frames; the hit table."""
    from mrczdask.diffraction.veto import veto
    from mrczdask.errors import MrczdaskError
    from mrczdask.io.growing import GrowingFrames
    from mrczdask.io.peak_writer import write_peaks

    if not watch.state.shots:
        raise MrczdaskError(f"{source}: there are no frames")
    is_cxi = out.endswith(".cxi")
    found = watch.peaks()
    frames = GrowingFrames(source, dataset=dataset, settle_s=0).frames(0, _COPIED) if is_cxi else None
    write_peaks(found, out, frames=frames, geometry=detector if is_cxi else None)
    return veto(found, min_peaks=min_peaks).assign(peaks=watch.peaks().compute()["n_peaks"].sum())


@contextmanager
def _bar(quiet: bool, min_peaks: int) -> Iterator[Any]:
    """Frames done and the hit rate so far, on standard error."""
    if quiet:
        yield lambda state: None
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    with Progress(
        SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=Console(stderr=True)
    ) as bar:
        task = bar.add_task("waiting for frames", total=None)

        def show(state: HitRate) -> None:
            text = f"{state.shots} frames, {state.hits} hits of {min_peaks} peaks or more: {100 * state.rate:.1f} %"
            bar.update(task, description=text)

        yield show


def _plot(out: str, source: Any, dataset: str | None, table: Any) -> str:
    from mrczdask.io.growing import GrowingFrames
    from mrczdask.io.peak_file import open_peaks
    from mrczdask.plotting.peaks import plot_run

    best = int(table.n_peaks.values.argmax())
    frames = GrowingFrames(source, dataset=dataset, settle_s=0).frames(best, 1)
    if frames is None:
        return ""
    frame = frames[0].compute()
    found = open_peaks(out).isel(best).compute()
    picture = f"{os.path.splitext(out)[0]}.png"
    plot_run(frame, found, table).savefig(picture, dpi=110)
    return picture


def _show(out: str, table: Any, picture: str | None, as_json: bool) -> int:
    rate, low, high = (float(table[name]) for name in ("hit_rate", "hit_rate_low", "hit_rate_high"))
    hits = int(table.hit.sum())
    about = {"file": out, "frames": table.sizes["shot"], "peaks": int(table.peaks), "hits": hits, "hit_rate": rate}
    if as_json:
        more = {"hit_rate_interval": [low, high], "min_peaks": table.attrs["min_peaks"], "picture": picture}
        print_json(about | more | {"n_peaks": table.n_peaks.values})
        return OK
    print(f"{out}: {about['peaks']} peaks in {about['frames']} frames")
    interval = f"({100 * low:.1f} to {100 * high:.1f})"
    print(f"{hits} hits of {table.attrs['min_peaks']} peaks or more: {100 * rate:.1f} % {interval}")
    if picture:
        print(picture)
    return OK
