"""The command correct: all corrections of a session, resumable, and a table of what they did."""

from __future__ import annotations

import json
import math
import sys
import warnings
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from cyclopts import Parameter

from mrczdask import schema
from mrczdask.cli import FAILED, OK
from mrczdask.cli.options import AsJson, FramesPerFraction, Lengths, Quiet, Scheduler, Upsampling, eer_options
from mrczdask.cli.output import print_json, print_table

if TYPE_CHECKING:
    import xarray as xr

Out = Annotated[str, Parameter(name=("--out", "-o"))]
_COLUMNS: Final = ("movie", "hot", "dead", "thresholds (sd)", "R before", "R after", "expected floor", "")
_PLACE: Final = ("pixels", "frame", "y", "x")
_THRESHOLDS: Final = ("threshold_dark", "threshold_hot")
_CORRELATIONS: Final = ("correlation_before", "correlation_after", "correlation_floor")


def correct(
    *files: str,
    out: Out,
    gain: str | None = None,
    gain_convention: Literal["multiply", "divide", "eer"] | None = None,
    orientation: str | None = None,
    dark: str | None = None,
    dose_rate: float | Literal["recorded"] | None = None,
    gamma: float | None = None,
    defects: str | None = None,
    max_bad: float = 0.1,
    outliers: Literal["fdr", "cdf", "none"] = "fdr",
    koma: int = 12,
    method: Literal["wiener", "plain"] = "wiener",
    exclude: list[str] | None = None,
    dtype: Literal["float32", "float16", "float64"] = "float32",
    codec: Literal["auto", "zstd", "none"] = "auto",
    resume: bool = True,
    overwrite: bool = False,
    order: Literal["time", "name", "given"] = "time",
    skip_unfit: Annotated[bool, Parameter(negative="")] = False,
    lengths: Lengths = "same",
    upsampling: Upsampling = 1,
    frames_per_fraction: FramesPerFraction = None,
    scheduler: Scheduler = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> int:
    """Correct a session by gain, outlier pixels and KOMA, in three passes that can be interrupted and resumed.

    Parameters
    ----------
    files
        Raw movies or patterns, all of one shape.
    out
        The Zarr archive. One that this command began is gone on with; changed and added movies are done again.
    gain
        Gain reference: MRC, MRCZ, TIFF or .gain.
    gain_convention
        multiply, divide or eer, where the file does not say it.
    orientation
        How the gain is to be turned, such as "flip y"; find: compare it with the sum of the first movie.
    dark
        Dark counts of a frame; the mean of the frames of a movie.
    dose_rate
        Electrons per pixel and second, or recorded in the movies: the gain is raised to the gamma of it.
    gamma
        The exponent of the gain itself.
    defects
        Pixels known to be bad: a list of SerialEM or MotionCor, or an image in which they are not zero.
    max_bad
        Share of the pixels above which the defects are refused, as a mask of the good ones.
    outliers
        fdr: false discovery rate above the local level. cdf: fat tails of the histogram, as published. none.
    koma
        Radius of the knock-out moving average in movies; 0: none.
    method
        Of KOMA: wiener subtracts the share of the average that is a pattern, plain all of it.
    exclude
        Name of a movie to leave out of the averages, once for each, or none; default: those of high contrast.
    dtype
        Of the corrected movies.
    codec
        auto is zstd with shuffled bits.
    resume
        Go on with what is in the archive (--resume), or begin anew (--no-resume).
    overwrite
        With --no-resume: replace also groups of these names that another program wrote.
    order
        By time of acquisition, by name or as given: neighbours are averaged.
    skip_unfit
        Leave out movies that cannot be opened or have another shape, and those that are found damaged when their pixels
        are read: they are named at the end, and the exit status is 1.
    """
    from mrczdask.execution.schedulers import use_scheduler
    from mrczdask.io.session import expand_urls, open_session
    from mrczdask.io.suffixes import check_archive
    from mrczdask.movies.pipeline import process_session

    check_archive(out)
    urls = expand_urls(files)
    rendered: dict[str, Any] = eer_options(urls, upsampling, frames_per_fraction)
    session = open_session(urls, order=order, errors="skip" if skip_unfit else "raise", lengths=lengths, **rendered)
    images = session[schema.IMAGES]
    with use_scheduler(scheduler), warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*cannot be read and were left out")  # they are named at the end
        reference = _gain(gain, gain_convention)
        done = process_session(
            images,
            out,
            gain=reference,
            dark=_dark(dark),
            dose_rate=_dose_rate(dose_rate, images),
            gamma=gamma,
            orientation=_orientation(orientation, images, reference),
            outliers=None if outliers == "none" else outliers,
            mask=_mask(defects, images),
            max_bad=max_bad,
            koma=koma or None,
            method=method,
            exclude=_exclude(exclude),
            errors="skip" if skip_unfit else "raise",
            dtype=dtype,
            codec=codec,
            resume=resume,
            overwrite=overwrite,
            progress=None if quiet else True,
        )
    return _show(out, done, as_json, _unfit(urls, session))


def _unfit(urls: list[str], session: xr.Dataset) -> list[str]:
    """Movies that were left out as they were opened; a warning has told why."""
    from mrczdask.io.session import without_gains

    opened = set(session[schema.URL].values.tolist())
    return [f"{url}: cannot be opened or does not fit" for url in without_gains(urls) if url not in opened]


def _gain(url: str | None, convention: Any) -> xr.DataArray | None:
    from mrczdask.io.gain import open_gain

    return None if url is None else open_gain(url, convention=convention).compute()


def _dark(url: str | None) -> xr.DataArray | None:
    from mrczdask.io.convert import open_any

    if url is None:
        return None
    frames = open_any(url)
    return frames.mean(schema.FRAME, keep_attrs=True).compute() if schema.FRAME in frames.dims else frames.compute()


def _dose_rate(given: float | Literal["recorded"] | None, images: xr.DataArray) -> Any:
    if given != "recorded":
        return given
    if schema.DOSE_RATE not in images.coords:
        raise ValueError("--dose-rate recorded: the movies do not tell their dose rate: give a number")
    return images.coords[schema.DOSE_RATE]


def _orientation(given: str | None, images: xr.DataArray, gain: xr.DataArray | None) -> str | xr.Dataset | None:
    from mrczdask.movies.orientation import orient_gain

    if given is None or gain is None:
        return None
    return orient_gain(images.isel({schema.MOVIE: 0}), gain) if given == "find" else given


def _mask(url: str | None, images: xr.DataArray) -> xr.DataArray | None:
    from mrczdask.io.defects import open_defects

    return None if url is None else open_defects(url, like=images).compute()


def _exclude(names: list[str] | None) -> Any:
    if not names:
        return "auto"
    return None if names == ["none"] else names


def _show(url: str, done: xr.DataTree, as_json: bool, unfit: list[str]) -> int:
    rows = _rows(done)
    images = done["movies"][schema.IMAGES]
    excluded = [row["movie"] for row in rows if row["excluded"]]
    told = done["movies"].attrs.get("left_out", [])  # an archive keeps a list as text
    left_out = [*unfit, *(json.loads(told) if isinstance(told, str) else told)]
    status = FAILED if left_out else OK
    for error in left_out:
        print(f"left out: {error}", file=sys.stderr)
    if as_json:
        shape = list(images.shape)
        about = {"file": url, "shape": shape, "dtype": images.dtype.name, "excluded": excluded, "movies": rows}
        print_json(about | {"left_out": left_out})
        return status
    print_table(_COLUMNS, map(_line, rows))
    print(f"{url}: {' x '.join(map(str, images.shape))} {images.dtype}")
    if excluded:
        print(f"left out of the averages: {', '.join(excluded)}")
    for row in rows:
        if row["unusable"]["pixels"]:
            place = "{pixels} pixels are no numbers, such as frame {frame}, y {y}, x {x}".format(**row["unusable"])
            print(f"{row['movie']}: {place}; they count as dead")
    return status


def _rows(done: xr.DataTree) -> list[dict[str, Any]]:
    """What was done to each movie; None where there is no such number."""
    sums = done["derived/sums"].to_dataset()
    report = sums.report.compute()
    unusable = sums["unusable"].values.tolist() if "unusable" in sums else [[0] + [-1] * 3] * len(report)
    after = done["movies"].to_dataset().correlation_after.values
    windows = done["derived/windows"].to_dataset() if "windows" in done["derived"].children else None
    floor = [0.0] * len(after) if windows is None else windows.correlation_floor.values.tolist()
    excluded = [False] * len(after) if windows is None else windows.excluded.values.tolist()
    rows = []
    for k, name in enumerate(report[schema.MOVIE].values.tolist()):
        numbers = dict(zip(report["number"].values.tolist(), report.values[k].tolist(), strict=True))
        row = {"movie": name, "hot": int(numbers["n_hot"]), "dead": int(numbers["n_dead"])}
        row |= {key: _known(numbers[key]) for key in ("threshold_hot", "threshold_dark")}
        row |= {"correlation_before": _known(numbers["correlation_before"]), "correlation_after": _known(after[k])}
        row |= {"unusable": dict(zip(_PLACE, unusable[k], strict=True))}
        rows.append(row | {"correlation_floor": floor[k], "excluded": excluded[k]})
    return rows


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _line(row: dict[str, Any]) -> tuple[Any, ...]:
    thresholds = " ".join("none" if row[key] is None else f"{row[key]:+.2f}" for key in _THRESHOLDS)
    correlations = ("-" if row[key] is None else f"{row[key]:.4f}" for key in _CORRELATIONS)
    return row["movie"], row["hot"], row["dead"], thresholds, *correlations, "left out" if row["excluded"] else ""
