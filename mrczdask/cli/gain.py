"""Commands about gain references: gain estimate, check, drift, orient."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from cyclopts import App, Parameter

from mrczdask import schema
from mrczdask.cli import FAILED, OK
from mrczdask.cli.options import AsJson, FramesPerFraction, Lengths, Quiet, Scheduler, Upsampling, eer_options
from mrczdask.cli.output import print_json, print_table

app = App(
    name="gain",
    help="Estimate, check, follow and orient gain references.",
    help_format="plaintext",
    result_action="return_value",
)

FailOnAlarm = Annotated[bool, Parameter(negative="")]
Convention = Literal["multiply", "divide", "eer"] | None
_UNSAID = (schema.HISTORY, schema.PROVENANCE)


@app.command
def estimate(
    *files: str,
    out: str | None = None,
    method: Literal["hybrid", "sme", "means", "deviation"] = "hybrid",
    iterations: int | Literal["converge"] = 1,
    sequential: Annotated[bool, Parameter(negative="")] = False,
    sum_to: float = 40.0,
    convention: Literal["multiply", "divide"] = "multiply",
    picture: str | None = None,
    scheduler: Scheduler = None,
    quiet: Quiet = False,
    lengths: Lengths = "same",
    upsampling: Upsampling = 1,
    frames_per_fraction: FramesPerFraction = None,
    as_json: AsJson = False,
) -> int:
    """Estimate the gain from raw movies, without a flat field.

    Parameters
    ----------
    files
        Movies or patterns, all of one shape.
    out
        Write the gain here: .mrc, .mrcz, .tif or .gain.
    method
        hybrid (best), sme (published; rows and columns), means (rows and columns), deviation (for comparison).
    iterations
        Of sme; a number or converge.
    sequential
        Of sme: columns, then rows of the result.
    sum_to
        Electrons per pixel to which frames are summed before they are ranked; 0 ranks every frame.
    convention
        What the numbers printed and drawn mean; a file is written in the convention of its format.
    picture
        Write a PNG of the gain and its histogram here.
    """
    from mrczdask.io.gain import check_gain_name, write_gain
    from mrczdask.movies.blind_gain import estimate_gain

    if out:
        check_gain_name(out)
    options: dict[str, Any] = {"method": method, "iterations": iterations, "sequential": sequential}
    options |= {"sum_to": sum_to or None, "convention": convention, "progress": None if quiet else True}
    with _scheduled(scheduler):
        found = estimate_gain(_session(files, Rendered(upsampling, frames_per_fraction, lengths)), **options)
    if out:
        write_gain(found.gain, out)
    if picture:
        from mrczdask.cli.gain_pictures import draw_gain

        draw_gain(found.gain, found.mask, f"gain by {method}", picture)
    about = {"gain": out, "picture": picture, **_said(found.attrs)}
    about |= {"gain_sd": float(found.gain.where(~found.mask).std()), "bad_pixels": int(found.mask.sum())}
    about |= {"median_uncertainty": float(found.uncertainty.median())}
    return _show(about, as_json)


@app.command
def check(
    *files: str,
    gain: str | None = None,
    gain_convention: Convention = None,
    orientation: str | None = None,
    thresholds: str | None = None,
    calibrate: str | None = None,
    sum_to: float = 40.0,
    picture: str | None = None,
    fail_on_alarm: FailOnAlarm = False,
    scheduler: Scheduler = None,
    quiet: Quiet = False,
    lengths: Lengths = "same",
    upsampling: Upsampling = 1,
    frames_per_fraction: FramesPerFraction = None,
    as_json: AsJson = False,
) -> int:
    """Judge a gain reference by the residual gain of the movies corrected with it.

    Parameters
    ----------
    files
        Movies or patterns: raw with --gain, else corrected.
    gain
        The gain reference of raw movies.
    gain_convention
        multiply, divide or eer, where the file does not say it.
    orientation
        How the gain is to be turned, such as "flip y"; find: compare it with the sum of the first movie.
    thresholds
        JSON of the thresholds of this camera; default: those published.
    calibrate
        Take these movies, three at least, as good, each on its own, and write the thresholds of the camera here.
    sum_to
        Electrons per pixel to which frames are summed first; 0 sums none.
    picture
        Write a PNG of the residual gain, its histogram and its rows and columns here.
    fail_on_alarm
        Exit status 1 on an alarm.
    """
    from mrczdask.movies.quality import GainThresholds, gain_quality

    limits = GainThresholds(**json.loads(Path(thresholds).read_text(encoding="utf-8"))) if thresholds else None
    options: dict[str, Any] = {"sum_to": sum_to or None, "progress": None if quiet else True}
    session = _session(files, Rendered(upsampling, frames_per_fraction, lengths))
    with _scheduled(scheduler):
        reference = _reference(gain, gain_convention, orientation, session)
        if calibrate:
            movies = (session.isel({schema.MOVIE: k}) for k in range(session.sizes[schema.MOVIE]))
            limits = GainThresholds.calibrated([gain_quality(movie, reference, **options) for movie in movies])
            Path(calibrate).write_text(json.dumps(asdict(limits), indent=2) + "\n", encoding="utf-8")
        report = gain_quality(session, reference, thresholds=limits, **options)
    if picture:
        from mrczdask.cli.gain_pictures import draw_report

        draw_report(report, picture)
    about = {"thresholds_file": calibrate or thresholds, "picture": picture, **_said(report.attrs)}
    status = _show(about, as_json)
    return FAILED if fail_on_alarm and report.attrs["alarms"] else status


@app.command
def drift(
    *files: str,
    gain: str | None = None,
    gain_convention: Convention = None,
    orientation: str | None = None,
    reference_movies: int = 10,
    order: Literal["time", "name", "given"] = "time",
    picture: str | None = None,
    fail_on_alarm: FailOnAlarm = False,
    scheduler: Scheduler = None,
    quiet: Quiet = False,
    lengths: Lengths = "same",
    upsampling: Upsampling = 1,
    frames_per_fraction: FramesPerFraction = None,
    as_json: AsJson = False,
) -> int:
    """Find from which movie of a session on the gain has changed.

    Parameters
    ----------
    files
        Movies or patterns: raw with --gain, else corrected.
    gain
        The gain reference of raw movies.
    gain_convention
        multiply, divide or eer, where the file does not say it.
    orientation
        How the gain is to be turned, such as "flip y"; find: compare it with the sum of the first movie.
    reference_movies
        The first movies, that define what the gain was.
    order
        By time of acquisition, by name or as given.
    picture
        Write a PNG of the percentile curves here.
    fail_on_alarm
        Exit status 1 when the gain has changed.
    """
    from mrczdask.movies.drift import gain_drift

    session = _session(files, Rendered(upsampling, frames_per_fraction, lengths), order)
    options: dict[str, Any] = {"reference_movies": reference_movies, "progress": None if quiet else True}
    with _scheduled(scheduler):
        found = gain_drift(session, _reference(gain, gain_convention, orientation, session), **options)
    if picture:
        from mrczdask.cli.gain_pictures import draw_drift

        draw_drift(found, picture)
    about = {"picture": picture, **_said(found.attrs)}
    if as_json:
        names = found[schema.MOVIE].values.tolist()
        about["movies"] = [
            {"movie": name, **{key: float(found[key][k]) for key in ("std", "p2_5", "p97_5", "minimum", "maximum")}}
            for k, name in enumerate(names)
        ]
    status = _show(about, as_json)
    return FAILED if fail_on_alarm and found.attrs["alarm"] else status


@app.command
def orient(
    *files: str,
    gain: str,
    out: str | None = None,
    fail_on_alarm: FailOnAlarm = False,
    lengths: Lengths = "same",
    upsampling: Upsampling = 1,
    frames_per_fraction: FramesPerFraction = None,
    as_json: AsJson = False,
) -> int:
    """Find how a gain reference is turned and flipped, and whether it multiplies or divides.

    Parameters
    ----------
    files
        Raw movies or patterns.
    gain
        The gain reference.
    out
        Write the gain here as it fits the movies: .mrc, .mrcz, .tif or .gain.
    fail_on_alarm
        Exit status 1 where nothing could be decided.
    """
    from mrczdask.io.gain import check_gain_name, open_gain
    from mrczdask.movies.orientation import orient_gain

    if out:
        check_gain_name(out)
    reference = open_gain(gain)
    session = _session(files, Rendered(upsampling, frames_per_fraction, lengths))
    found = orient_gain(session[schema.IMAGES], reference)
    if out:
        _write_oriented(reference, found.attrs, session, out)
    best = {"z": float(found["z"].max()), "second_z": float(found["z"].to_numpy().ravel()[_order(found)[-2]])}
    status = _show({"gain": out, **_said(found.attrs), **best}, as_json)
    return FAILED if fail_on_alarm and not found.attrs["decided"] else status


def _order(found: Any) -> Any:
    import numpy as np

    return np.argsort(np.nan_to_num(found["z"].to_numpy().ravel(), nan=-np.inf))


def _write_oriented(reference: Any, verdict: Mapping[str, Any], session: Any, out: str) -> None:
    from mrczdask.io.gain import write_gain

    if not verdict["decided"] or verdict["scale"] != 1:
        raise ValueError(f"{out} is not written: {verdict['verdict']}")
    write_gain(_turned(reference, verdict["orientation"], verdict["convention"], session), out)


def _turned(reference: Any, orientation: str, convention: str | None, session: Any) -> Any:
    """The gain as the images lie, which it says."""
    import xarray as xr

    from mrczdask.movies.camera_turn import rotation_flip_of
    from mrczdask.movies.orientation import oriented

    images = session[schema.IMAGES]
    said = {schema.CONVENTION: convention, schema.ROTATION_FLIP: rotation_flip_of(images)}
    said |= {schema.ORIGIN: images.attrs.get(schema.ORIGIN)}
    attrs = {name: value for name, value in said.items() if value is not None}
    return xr.DataArray(oriented(reference.values, orientation), dims=(schema.Y, schema.X), attrs=attrs)


class Rendered(NamedTuple):
    """How movies are opened: the options that all these commands share."""

    upsampling: int
    frames_per_fraction: int | None
    lengths: Literal["same", "shortest"]


def _session(files: Sequence[str], rendered: Rendered, order: Any = "given") -> Any:
    from mrczdask.io.session import expand_urls, open_session

    urls = expand_urls(files)
    options: dict[str, Any] = eer_options(urls, rendered.upsampling, rendered.frames_per_fraction, every=True)
    return open_session(urls, order=order, lengths=rendered.lengths, **options)


def _reference(gain: str | None, convention: Convention, orientation: str | None, session: Any) -> Any:
    if gain is None:
        return None
    from mrczdask.io.gain import open_gain
    from mrczdask.movies.orientation import orient_gain

    reference = open_gain(gain, convention=convention).compute()
    if orientation is None:
        return reference
    told = reference.attrs.get(schema.CONVENTION)
    if orientation != "find":
        return _turned(reference, orientation, told, session)
    found = orient_gain(session[schema.IMAGES].isel({schema.MOVIE: 0}), reference).attrs
    if not found["decided"] or found["scale"] != 1:
        raise ValueError(f"{gain}: --orientation find: {found['verdict']}")
    return _turned(reference, found["orientation"], found[schema.CONVENTION], session)


def _scheduled(scheduler: str | None) -> AbstractContextManager[Any]:
    from mrczdask.execution.schedulers import use_scheduler

    return use_scheduler(scheduler)


def _said(attrs: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in attrs.items() if name not in _UNSAID}


def _show(about: Mapping[str, Any], as_json: bool) -> int:
    """Print what was found; JSON has no infinity and no NaN."""
    known = {name: value for name, value in about.items() if value is not None}
    if as_json:
        print_json({name: _finite(value) for name, value in known.items()})
    else:
        print_table(("", ""), [(name, _text(value)) for name, value in known.items()])
    return OK


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return "; ".join(_text(item) for item in value) or "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_text(item)}" for name, item in value.items())
    return str(value)
