"""Is the gain reference right? The residual gain of corrected movies, and alarms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from mrczdask import schema
from mrczdask.execution.progress import Progress
from mrczdask.kernels.count_noise import least_level
from mrczdask.kernels.gain_ratio import in_convention
from mrczdask.kernels.line_means import LEAST_GAIN, MAD_TO_SD, robust_limits
from mrczdask.kernels.midway import Midway
from mrczdask.kernels.outliers import DEAD, find_by_fdr
from mrczdask.kernels.residual import broken_lines, histogram_spread, spread, structure
from mrczdask.movies import line_gain
from mrczdask.movies.arrays import placed
from mrczdask.movies.blind_gain import RANKED_DOSE, by_midway
from mrczdask.movies.camera_turn import check_turn
from mrczdask.movies.orientation import misfit
from mrczdask.movies.ranked_images import Movies, as_movies, electrons_per_frame, electrons_per_image, groups_of
from mrczdask.provenance import record

_TURN: Final = '--orientation "{0}" of the command, or apply_gain(images, gain, orientation="{0}") before, turns it so'
SIGMAS: Final = (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0)
VISIBLE_CORRELATION: Final = 0.45
VISIBLE_EXCESS: Final = 1.5
"""Correlation of residual and mean image, and deviation over that of white noise, from which particles are visible: on
simulated movies of 40 e/pixel vacuum reaches .14, ice of 3 % .25, particles of 5 % contrast .37, of 10 % .53 to .59."""
UNLIKE_HISTOGRAMS: Final = 10.0
"""Variance of the variances of lines over that of samples of one histogram: vacuum 1, particles of 20 % contrast 5, of
50 % (as on phase plates) 20 to 34, simulated."""
DEAD_BY_CHANCE: Final = 0.05
"""Good pixels of an image that may be empty: with more, an empty pixel is not dead."""
CALIBRATION_SD: Final = 5.0
CALIBRATION_LEAST: Final = 0.1
"""Thresholds of a camera: this many robust deviations above the median of good sessions, and 10 % of it at least."""


@dataclass(frozen=True)
class GainThresholds:
    """Limits of a residual gain of mean 1, above which an alarm is raised.

    Parameters
    ----------
    std : float
        Standard deviation of pixels that are no outliers.
    percentile_ratio : float
        Their 97.5 over their 2.5 percentile.
    max_ratio : float
        Maximum of all pixels over the 97.5 percentile.
    std_all : float
        Standard deviation of all pixels: the alarm of hot pixels.

    References
    ----------
    Sorzano et al., section 3: 0.04, 1.15 and 4.5.

    Examples
    --------
    >>> import mrczdask as md
    >>> good = [md.gain_quality(md.simulate.movie((20, 128, 128), dose=2, seed=k)[0]) for k in range(4)]
    >>> ours = md.GainThresholds.calibrated(good)
    >>> ours.std < md.GainThresholds().std
    True
    """

    std: float = 0.04
    percentile_ratio: float = 1.15
    max_ratio: float = 4.5
    std_all: float = 0.04

    @classmethod
    def calibrated(cls, reports: Sequence[xr.Dataset], *, deviations: float = CALIBRATION_SD) -> GainThresholds:
        """Thresholds of one camera from reports of sessions known to be good.

        Parameters
        ----------
        reports : sequence of Dataset
            What `gain_quality` gave for them, 3 at least.
        deviations : float
            Robust standard deviations above the median.

        Raises
        ------
        ValueError
            Fewer than 3 reports.
        """
        if len(reports) < 3:
            raise ValueError(f"{len(reports)} reports: thresholds of a camera need 3 good sessions at least")
        limits = {}
        for field in fields(cls):
            values = np.array([report.attrs[field.name] for report in reports])
            middle = float(np.median(values))
            spread_ = MAD_TO_SD * float(np.median(np.abs(values - middle)))
            least = CALIBRATION_LEAST * (middle - 1 if field.name.endswith("ratio") else middle)
            limits[field.name] = middle + max(deviations * spread_, least)
        return cls(**limits)


def gain_quality(
    movie_or_session: xr.DataArray | xr.Dataset | NDArray[Any],
    gain: xr.DataArray | xr.Dataset | ArrayLike | None = None,
    *,
    thresholds: GainThresholds | None = None,
    mask: ArrayLike | None = None,
    sum_to: float | None = RANKED_DOSE,
    progress: Progress = None,
) -> xr.Dataset:
    """Judge a gain reference by what is left of the gain in the movies corrected with it.

    Parameters
    ----------
    movie_or_session : DataArray, Dataset or array
        (frame, y, x) or (movie, frame, y, x), raw where `gain` is given, else corrected.
    gain : DataArray, Dataset or array, optional
        The reference (y, x) in the convention of its attribute `convention`, else to multiply with. Pixels <= 0 are
        bad.
    thresholds : GainThresholds, optional
        Default: those of the paper. `GainThresholds.calibrated` gives those of a camera.
    mask : (y, x) bool, optional
        Outliers, True = bad, besides the coordinate `mask` and the pixels found here: those further than 6 robust
        standard deviations from their row and column in the mean image.
    sum_to : float or None
        Frames are summed to this dose in electrons per pixel first: single low-dose frames raise false alarms.
    progress : None, True or callable
        True shows a bar; a callable gets (done, total, label).

    Returns
    -------
    Dataset
        `residual` (y, x) float32, the residual gain to divide by, mean 1, and `uncertainty`; `mask` (y, x), the
        outliers; `row_gain`, `row_error` (y), `column_gain`, `column_error` (x), the residual gain of lines with
        standard errors; `row_broken` (y), `column_broken` (x). Attributes: `alarms` (list of str, empty when all is
        well), `notes` (list of str), `valid` (bool), `std`, `percentile_ratio`, `max_ratio`, `std_all`, `p2_5`,
        `p97_5`, `minimum`, `maximum`, `particles_visible` (bool), `specimen_correlation`, `histogram_spread`,
        `thresholds` (dict).

    Raises
    ------
    ValueError
        The gain does not fit the movies; and all that `estimate_gain` raises.

    Notes
    -----
    The residual is one iteration of SME (see `estimate_gain`), as published: it shows half of what is left in rows and
    columns, so that std = 0.04 means 8 % of them. std and the ratio of percentiles are of pixels without outliers,
    max / p97.5 and a second std of all. `valid` is False where rows and columns have unlike histograms (phase plates,
    carbon edges): the residual is then not the gain. Particles are called visible in the residual when it correlates
    with the mean image, in a band of sizes, by more than 0.45 and varies 1.5 times as much as noise. With a single
    movie of strong contrast they are, whatever the gain; over a session they should average out. The raw mean image is
    compared with the gain in all orientations and conventions (`orient_gain`): an alarm names the one that fits where
    it is not the one given.

    References
    ----------
    Sorzano et al., Blind estimation of DED camera gain in electron microscopy, section 3.

    Examples
    --------
    >>> import mrczdask as md
    >>> movie, truth = md.simulate.movie((20, 256, 256), dose=2, gain=md.simulate.Gain(column_sd=0.1))
    >>> md.gain_quality(movie, truth.gain).attrs["alarms"]
    []
    >>> [alarm.split()[0] for alarm in md.gain_quality(movie).attrs["alarms"]]
    ['std', 'percentile', 'std']
    """
    movies = as_movies(movie_or_session, "gain_quality")
    reference, bad = reference_factor(gain, movies)
    known = movies.mask | bad | (False if mask is None else _checked_mask(mask, movies))
    movies = replace(movies, mask=known)
    dose = electrons_per_frame(movies, "gain_quality")
    groups = groups_of(movies, dose, sum_to)
    estimate = by_midway(movies, groups, dose, Midway(SIGMAS), reference=reference, progress=progress)
    sums = line_gain.gather(movies, line_gain.movie_groups(movies), progress, reference)
    lines = line_gain.median_lines(sums)
    defect = estimate.defect & _told_dead(sums.pixel_mean, known, dose * movies.n_movies * movies.n_frames)
    outlier = known | defect | _outliers(sums.pixel_mean, lines)
    residual, uncertainty = in_convention(estimate.gain, estimate.uncertainty, estimate.defect, outlier, False)
    notes = list(estimate.limits)
    report = _report(residual, uncertainty, outlier, lines, movies)
    report.attrs |= _judge(residual, sums.pixel_mean, outlier, report, thresholds or GainThresholds(), notes)
    report.attrs["alarms"] += _turned(gain, sums.pixel_mean, reference)
    report.attrs |= {"n_movies": movies.n_movies, "electrons_per_image": electrons_per_image(groups, dose)}
    called = {"gain": None if gain is None else "given", "sum_to": sum_to}
    report.attrs = record(report.attrs, "gain_quality", called)
    return report


def reference_factor(gain: Any, movies: Movies) -> tuple[NDArray[np.float32] | None, NDArray[np.bool_]]:
    """What to multiply raw frames with, 0 replaced by 1 in bad pixels, and those."""
    nothing = np.zeros(movies.shape, bool)
    if gain is None:
        return None, nothing
    array = gain["gain"] if isinstance(gain, xr.Dataset) else gain
    attrs = array.attrs if isinstance(array, xr.DataArray) else {}
    values = np.asarray(array, np.float64).squeeze()
    if values.shape != movies.shape:
        raise ValueError(
            f"the gain is {values.shape}, the movies are {movies.shape}: is it binned, or of another camera?"
        )
    origins = {a.get(schema.ORIGIN) for a in (attrs, {} if movies.labels is None else movies.labels.attrs)} - {None}
    if len(origins) > 1:
        raise ValueError("the rows of the gain and of the movies run opposite ways (origin): orient_gain turns it over")
    if movies.labels is not None:
        check_turn(xr.DataArray(values, attrs=attrs), movies.labels, None, _TURN)
    bad = ~(np.isfinite(values) & (values > 0))
    values[bad] = 1.0
    factor = 1 / values if attrs.get(schema.CONVENTION, "multiply") == "divide" else values
    return factor.astype(np.float32), bad


def _turned(gain: Any, mean: NDArray[np.float64], reference: NDArray[np.float32] | None) -> list[str]:
    """An alarm where the images, uncorrected again, fit the gain as it lies some other way."""
    if reference is None:
        return []
    array = gain["gain"] if isinstance(gain, xr.Dataset) else gain
    convention = array.attrs.get(schema.CONVENTION) if isinstance(array, xr.DataArray) else None
    found = misfit(mean / reference, np.asarray(array), None, convention)
    return [f"the gain is turned or inverted: {found}"] if found else []


def _checked_mask(mask: Any, movies: Movies) -> NDArray[np.bool_]:
    values = np.asarray(mask, bool)
    if values.shape != movies.shape:
        raise ValueError(f"the mask is {values.shape}, the movies are {movies.shape}")
    return values


def _told_dead(mean: NDArray[np.float64], known: NDArray[np.bool_], electrons: float) -> NDArray[np.bool_]:
    """Pixels that are dead if they are empty: all where an empty one is improbable, else dead lines and blocks."""
    if electrons > least_level(DEAD_BY_CHANCE / max(mean.size, 1), 1.0):
        return np.ones(mean.shape, bool)
    usable = np.isfinite(mean) & (mean >= 0)
    counts = np.where(usable, mean, 0) * electrons / max(float(mean[usable & ~known].mean()), 1e-300)
    return np.asarray(find_by_fdr(counts, DEAD_BY_CHANCE, known | ~usable).kind == DEAD)


def _outliers(mean: NDArray[np.float64], lines: line_gain.Lines) -> NDArray[np.bool_]:
    """Pixels far off their row and column."""
    model = np.nan_to_num(lines.gain)
    ratio = np.divide(mean, model, out=np.zeros_like(mean), where=model > LEAST_GAIN)
    low, high = robust_limits(ratio)
    return np.asarray((ratio < low) | (ratio > high))


def _report(
    residual: Any, uncertainty: Any, outlier: NDArray[np.bool_], lines: line_gain.Lines, movies: Movies
) -> xr.Dataset:
    own = {} if movies.labels is None else placed(movies.labels.attrs)
    found: dict[str, Any] = {
        "residual": ((schema.Y, schema.X), residual, {**own, schema.CONVENTION: "divide"}),
        "uncertainty": ((schema.Y, schema.X), uncertainty, own),
        "mask": ((schema.Y, schema.X), outlier, own),
    }
    for name, dim, profile, error in (
        ("row", schema.Y, lines.row, lines.row_error),
        ("column", schema.X, lines.column, lines.column_error),
    ):
        broken = np.zeros(profile.size, bool)
        broken[broken_lines(profile, error)] = True
        found |= {f"{name}_gain": (dim, profile), f"{name}_error": (dim, error), f"{name}_broken": (dim, broken)}
    kept = {} if movies.labels is None else movies.labels.attrs
    return xr.Dataset(found, attrs={name: kept[name] for name in (schema.ORIGIN,) if name in kept})


def _judge(
    residual: Any, mean: Any, outlier: Any, report: xr.Dataset, limits: GainThresholds, notes: list[str]
) -> dict[str, Any]:
    """Statistics, alarms and notes."""
    found = spread(residual, outlier)
    seen, unlike = structure(residual, mean, outlier), histogram_spread(mean, outlier)
    alarms = [
        f"{name.replace('_', ' ')} {getattr(found, name):.3f} is above {limit:g}"
        for name, limit in asdict(limits).items()
        if getattr(found, name) > limit
    ]
    for kind in ("row", "column"):
        broken = np.flatnonzero(report[f"{kind}_broken"].values)
        if broken.size:
            alarms.append(f"broken {kind}s: {_listed(broken)}")
    visible = seen.correlation > VISIBLE_CORRELATION and seen.excess > VISIBLE_EXCESS
    if visible:
        notes.append(f"particles are visible in the residual (correlation {seen.correlation:.2f} with the mean image)")
    if unlike > UNLIKE_HISTOGRAMS:
        notes.append(
            f"rows and columns have unlike histograms ({unlike:.0f} times what one histogram gives), as with phase "
            "plates or carbon edges: the residual is not the gain"
        )
    return {
        "alarms": alarms,
        "notes": notes,
        "valid": bool(unlike <= UNLIKE_HISTOGRAMS),
        **{name: getattr(found, name) for name in ("std", "percentile_ratio", "max_ratio", "std_all")},
        "p2_5": found.low,
        "p97_5": found.high,
        "minimum": found.minimum,
        "maximum": found.maximum,
        "particles_visible": visible,
        "specimen_correlation": seen.correlation,
        "histogram_spread": unlike,
        "thresholds": asdict(limits),
    }


def _listed(lines: NDArray[np.int64], most: int = 20) -> str:
    more = f" and {lines.size - most} more" if lines.size > most else ""
    return ", ".join(map(str, lines[:most])) + more
