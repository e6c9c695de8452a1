"""All corrections of a session in their order, in three passes that can be interrupted and resumed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any, Final, Literal

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from mrczdask import provenance, schema
from mrczdask.errors import MrczdaskError, ResumeError
from mrczdask.execution.progress import Progress
from mrczdask.execution.resume import Journal, Region, check_plan, digest, run_resumable
from mrczdask.execution.shared import shared
from mrczdask.io.archive import open_archive
from mrczdask.io.journal import StoreJournal, remove_unfinished
from mrczdask.io.source import absolute, is_remote
from mrczdask.io.stores import stored_places
from mrczdask.io.suffixes import check_archive
from mrczdask.kernels.window import knock_out_windows
from mrczdask.movies.koma import Method
from mrczdask.movies.koma_choice import SCALES, stands_out
from mrczdask.movies.masks import MAX_BAD
from mrczdask.movies.pipeline_faults import (
    FORMAT,
    check_format,
    sum_movies,
    unread_before,
    warn_of_left_out,
    warn_of_unusable,
)
from mrczdask.movies.pipeline_inputs import (
    Dtype,
    References,
    check_places,
    check_turn,
    checked_exponents,
    checked_session,
    each_movie,
    fingerprints,
    read_references,
    some_movies,
)
from mrczdask.movies.pipeline_steps import REPORT, Alone, Background, Unread, correct_movie, make_windows, members_of
from mrczdask.movies.pipeline_store import GROUP, MOVIES, NUMBERS, SUMS, WINDOWS, Layout

VERB: Final = "process_session"


def process_session(
    session: xr.Dataset | xr.DataArray,
    url: str | os.PathLike[str],
    *,
    gain: xr.DataArray | NDArray[Any] | None = None,
    dark: xr.DataArray | NDArray[Any] | None = None,
    dose_rate: ArrayLike | xr.DataArray | None = None,
    gamma: ArrayLike | xr.DataArray | None = None,
    orientation: str | xr.Dataset | None = None,
    outliers: Literal["fdr", "cdf"] | None = "fdr",
    mask: xr.DataArray | NDArray[Any] | None = None,
    max_bad: float = MAX_BAD,
    koma: int | None = 12,
    method: Method = "wiener",
    exclude: Literal["auto"] | list[str] | None = "auto",
    errors: Literal["raise", "skip"] = "raise",
    dtype: Dtype = "float32",
    codec: Any = "auto",
    resume: bool = True,
    overwrite: bool = False,
    progress: Progress = None,
    storage_options: Mapping[str, Any] | None = None,
) -> xr.DataTree:
    """Correct a session by gain, outliers and KOMA, and write it as a Zarr archive.

    Parameters
    ----------
    session : Dataset or DataArray
        (movie, frame, y, x), best straight from `open_session`.
    url : str or path
        The archive.
    gain : DataArray or array, optional
        Gain reference (y, x).
    dark : DataArray or array, optional
        Dark counts of a frame (y, x).
    dose_rate : float, array or DataArray, optional
        Electrons per pixel and second, one for all or one a movie: the gain is raised to ``gamma(dose_rate)``.
    gamma : float, array or DataArray, optional
        The exponent itself.
    orientation : str or Dataset, optional
        Of the gain, as of `apply_gain`.
    outliers : {"fdr", "cdf"} or None
        How outlier pixels are found, as of `find_outliers`; None: only those of `mask` and of the gain are filled.
    mask : DataArray or array of bool, optional
        Pixels known to be bad (y, x).
    max_bad : float
        Share of the pixels above which the mask is refused, as one that marks the good ones.
    koma : int or None
        Radius of the knock-out moving average; None: none.
    method : {"wiener", "plain"}
        As of `koma`.
    exclude : "auto", names of movies or None
        Movies left out of the windows; "auto": those of `find_high_contrast`.
    errors : {"raise", "skip"}
        What to do with a movie that breaks while it is read: an error that names file and frame, or a warning that does
        and an archive without it, whose group `movies` lists it in the attribute `left_out`.
    dtype : {"float32", "float16", "float64"}
        Of the corrected movies. Pixels that float16 does not hold, above 65504, are refused.
    codec : "auto", "zstd", "none" or Zarr codec
        As of `write_archive`; "auto" is "zstd" with shuffled bits, the best for noise in float32.
    resume : bool
        Go on with what is in the archive. Movies that changed since, or were added, and those whose windows they are
        in, are done again. False: begin anew; what is there stays until the new groups, beside it, are whole.
    overwrite : bool
        With ``resume=False``: replace the groups `movies`, `derived/sums` and `derived/windows` also where another verb
        or program wrote them. Other groups of the archive always stay.
    progress : None, True or callable
        True shows a bar for each pass; a callable gets (done, total, label).
    storage_options : mapping, optional
        For the fsspec file system.

    Returns
    -------
    xarray.DataTree
        The archive, opened: `movies/images` (movie, frame, y, x) and `movies/correlation_after`; `derived/sums` with
        `sums` (int64), `corrected` sums, `defect_kind`, for "cdf" `weight`, and `report` (movie, number): hot and
        dead pixels, thresholds, contrast, correlation of the raw frames, the share of the pixels where a dead one is
        told and those of empty areas that were left alone (`judged`, `n_unlit`), of floats also `unusable` (movie,
        place), the number of pixels that are no numbers and the first of them; `derived/windows` with the `reference`
        of each movie, `excluded` (True: left out of the windows of the others) and `correlation_floor`, 1/(2 a F + 1),
        what plain KOMA leaves of white noise with F frames in each of the 2 a movies averaged. "wiener" comes below it
        where the correlation was smaller before.

    Raises
    ------
    ValueError
        A parameter or reference does not fit, or there are too few movies, before any pixel is read; the first movie
        fits the gain in another turn, or its reciprocal, and no `orientation` was given.
    ResumeError
        The archive was begun with other parameters, which are named, or by a version whose numbers differ, or is not
        one of this verb.

    Warns
    -----
    MrczdaskWarning
        Movies hold pixels that are no numbers, or were left out because they cannot be read; they are named.

    Notes
    -----
    Three passes, each restartable region by region: sums of movies, their outliers and corrected sums; windows, by
    bands of rows; correction of the frames, which are read a second time. The numbers are those of `apply_gain`,
    `find_outliers`, `fill_outliers` and `koma` in this order. Memory does not depend on the number of movies.

    A pixel that is NaN, infinite or beyond 2**53 in any frame of a movie counts as dead in this movie: it is filled in
    all of its frames, and neither its neighbours nor other movies change. A movie without a number is left out of the
    windows. Pixels of gain or dark that are no numbers are dead in all movies.

    References
    ----------
    McLeod et al., MRCZ, sections 4 and 5.

    Examples
    --------
    >>> import mrczdask as md
    >>> bad, pattern = md.simulate.Defects(hot_fraction=0.005), md.simulate.Pattern(pixel_sd=0.3)
    >>> session, _ = md.simulate.session(9, (8, 64, 64), dose=2, defects=bad, pattern=pattern)
    >>> done = md.process_session(session, "corrected.zarr", koma=4)
    >>> done["movies"].images.dtype, dict(done["movies"].images.sizes)
    (dtype('float32'), {'movie': 9, 'frame': 8, 'y': 64, 'x': 64})
    >>> before = done["derived/sums"].report.sel(number="correlation_before")
    >>> bool((done["movies"].correlation_after < before).all())
    True
    """
    check_archive(url)
    images = session[schema.IMAGES] if isinstance(session, xr.Dataset) else session
    if errors not in ("raise", "skip"):
        raise ValueError(f'process_session: errors={errors!r}: give "raise" or "skip"')
    task = _Task(
        images=checked_session(images, koma, method, outliers, dtype),
        url=absolute(os.fspath(url)),
        options=dict(storage_options or {}) if is_remote(os.fspath(url)) else {},
        outliers=outliers,
        radius=koma,
        method=method,
        exclude=exclude,
        dtype=str(np.dtype(dtype)),
        codec="zstd" if codec == "auto" else codec,
        references=read_references(images, gain, dark, mask, orientation, max_bad),
        exponents=checked_exponents(images, dose_rate, gamma),
    )
    task = task.without(task.unread() if resume and errors == "skip" else {})
    if not resume or task.journal.read("plan.json") is None:
        check_turn(task.images, gain, task.references.dark, orientation)
    task = task.prepared(resume=resume, overwrite=overwrite)
    while broken := task.run(progress, skip=errors == "skip"):
        task = task.without({**task.left_out, **broken})._renamed()
    return open_archive(task.url, storage_options=task.options or None)  # type: ignore[return-value]


@dataclass(frozen=True)
class _Task:
    """A session to be processed: what is done, and where it is stored."""

    images: xr.DataArray
    url: str
    options: dict[str, Any]
    outliers: str | None
    radius: int | None
    method: str
    exclude: Literal["auto"] | list[str] | None
    dtype: str
    codec: Any
    references: References
    exponents: list[float]
    is_beside: bool = False
    """The groups are written beside those of the same name, whose place they take in the end."""
    left_out: dict[str, str] = field(default_factory=dict)

    @cached_property
    def journal(self) -> Journal:
        """Inside the folder of an array: readers of the archive do not look there for nodes."""
        return StoreJournal(f"{self.url}/{self.layout.where(MOVIES)}/{schema.IMAGES}/.journal", self.options)

    @cached_property
    def plan(self) -> dict[str, Any]:
        """What must be the same to go on."""
        given = self.references
        codec = self.codec if isinstance(self.codec, str) else str(self.codec.to_dict())
        return {
            "verb": VERB,
            "format": FORMAT,
            "shape": list(self.images.shape[1:]),
            "raw_dtype": str(self.images.dtype),
            **{name: None if v is None else digest(v) for name, v in vars(given).items()},
            "outliers": self.outliers,
            "koma": self.radius,
            "method": self.method,
            "exclude": self.exclude,
            "dtype": self.dtype,
            "codec": codec,
        }

    @cached_property
    def layout(self) -> Layout:
        """How the archive is cut."""
        step = self.images.data.chunks[1][0]
        weighted, floats = self.outliers == "cdf", self.images.dtype.kind == "f"
        return Layout(self.url, self.options, self.images.shape, step, self.radius, weighted, floats, self.is_beside)

    def prepared(self, *, resume: bool, overwrite: bool) -> _Task:
        """Check the archive against the plan, or create it; return the task to run, maybe one beside what is there."""
        self.layout.finish()
        stored, beside = self.journal.read("plan.json"), replace(self, is_beside=True)
        if resume and stored is not None and stored.get("verb") == VERB:
            if stored != self.plan and beside.journal.read("plan.json") == self.plan:
                return beside._renamed()
            check_format(stored, self.url)
            check_plan(stored, self.plan, self.url)
            self.layout.place(self.images)
            return self._renamed()
        held = self.layout.held()
        if not held and (other := self.layout.other_files()):
            raise ResumeError(f"{self.url}: a folder that holds {other} and is not an archive: give another url")
        if held and not overwrite and (stored is None or stored.get("verb") != VERB):
            raise ResumeError(
                f"{self.url}: holds the groups {', '.join(held)}, which {VERB} did not write: another url keeps them, "
                "resume=False, overwrite=True (--no-resume --overwrite) replaces them"
            )
        task = beside if held else self
        task._create()
        return task

    def _renamed(self) -> _Task:
        """Make room where movies were added or left out."""
        names = {"names": self.names}
        if self.journal.read("names.json") != names:
            self.layout.resize(self.images)
            self.journal.write("names.json", names)
        return self

    def _create(self) -> None:
        given = {name: value for name, value in vars(self.references).items() if value is not None}
        called = {"outliers": self.outliers, "koma": self.radius, "method": self.method, **given}
        attrs = provenance.record(self.images.attrs, VERB, called)
        self.layout.create(self.images, attrs, self.dtype, self.codec)
        self.journal.write("names.json", {"names": self.names})
        self.journal.write("plan.json", self.plan)

    @property
    def names(self) -> list[str]:
        """Names of the movies."""
        return [str(name) for name in self.images[schema.MOVIE].values]

    @cached_property
    def inputs(self) -> list[str]:
        """A digest of what goes into each movie alone."""
        stamps = fingerprints(self.images)
        return [digest(*parts) for parts in zip(self.names, stamps, self.exponents, strict=True)]

    def unread(self) -> dict[str, str]:
        """Movies that could not be read before and are what they were, by name, and why."""
        return unread_before(self.journal, self.names, self.inputs)

    def without(self, broken: dict[str, str]) -> _Task:
        """The same task without some movies."""
        kept = [k for k, name in enumerate(self.names) if name not in broken]
        if len(kept) == len(self.names):
            return self
        if len(kept) < (2 if self.radius else 1):
            first = next(iter(broken.values()))
            raise MrczdaskError(f"{self.url}: {len(kept)} movies are left that can be read: {first}")
        exponents = [self.exponents[k] for k in kept]
        return replace(self, images=some_movies(self.images, kept), exponents=exponents, left_out=broken)

    def run(self, progress: Progress, *, skip: bool) -> dict[str, str]:
        """The three passes; or after the first the movies that cannot be read, by name, and why."""
        check_places(self.url, self.images)
        inputs = self.inputs
        given = self.references
        references = tuple(shared(value) for value in (given.gain, given.dark, given.bad))
        first = self.layout.arrays(SUMS)
        movies = [Unread(movie) for movie in each_movie(self.images)]
        per_electron = float(self.images.attrs.get(schema.COUNTS_PER_ELECTRON, 1.0))
        alone = [Alone(exponent, self.outliers, per_electron) for exponent in self.exponents]
        passes = 3 if self.radius else 2
        parts = [(movie, k, alone[k], *references, first) for k, movie in enumerate(movies)]
        sums = partial(self._run, SUMS, progress=progress, label=f"1/{passes} sums and outliers")
        if broken := sum_movies(sums, parts, self.journal, self.names, inputs, skip=skip):
            return broken
        warn_of_left_out(self.left_out)
        if "unusable" in first:
            warn_of_unusable(self.names, np.asarray(first["unusable"][:]))
        backgrounds, made, arrays = self._windows(inputs, first, progress) if self.radius else ([None], inputs, {})
        arrays |= {name: array for name, array in first.items() if name in ("defect_kind", "weight")}
        arrays |= self.layout.arrays(MOVIES)
        regions = [
            Region(
                f"movies/{k}",
                made[k],
                correct_movie,
                (movie, k, alone[k], backgrounds[k % len(backgrounds)], *references, arrays),
            )
            for k, movie in enumerate(movies)
        ]
        self._run(MOVIES, regions, progress, f"{passes}/{passes} correction")
        remove_unfinished(self.url)
        self.layout.leave_out(list(self.left_out.values()))
        self.layout.put_in_place()
        return {}

    def _run(self, group: str, regions: list[Region], progress: Progress, label: str) -> None:
        inside = partial(self.layout.changing, group)
        lost = self.layout.lost(group)
        regions = [replace(region, lost=place in lost) for place, region in enumerate(regions)]
        run_resumable(regions, self.journal, progress=progress, label=label, inside=inside)

    def _windows(
        self, inputs: list[str], first: dict[str, Any], progress: Progress
    ) -> tuple[list[Background | None], list[str], dict[str, Any]]:
        """Second pass: the backgrounds of the movies, what went into each of them, and where they are stored."""
        assert self.radius is not None
        report = np.asarray(first["report"][:])
        accepted = ~self._excluded(report)
        if accepted.sum() < 2:
            raise ValueError(f"process_session: {int(accepted.sum())} movies are left to average: exclude fewer")
        places = np.flatnonzero(accepted).tolist()
        windows = knock_out_windows(2 * self.radius, accepted)
        stored = self.layout.arrays(WINDOWS)
        floor = [1 / (window.size * self.images.sizes[schema.FRAME] + 1) for window in windows]
        for name, values in zip(NUMBERS, (~accepted, np.array(floor)), strict=True):
            numbers = stored[name]
            if len(stored_places(numbers)) < numbers.nchunks or not np.array_equal(numbers[:], values):
                numbers[:] = values
        arrays: dict[str, Any] = {"reference": stored["reference"]}
        known = windows, places, GROUP, first["corrected"], arrays["reference"]
        regions = [
            Region(f"windows/{k}", digest(inputs, places), make_windows, (rows, *known))
            for k, rows in enumerate(self.layout.bands)
        ]
        self._run(WINDOWS, regions, progress, "2/3 windows")
        variances = report[:, REPORT.index("variance")]
        members = [members_of(window, places) for window in windows]
        plain = self.method == "plain"
        found: list[Background | None] = [Background(float(variances[m].mean()), len(m), plain) for m in members]
        made = [digest(inputs[k], [inputs[i] for i in m]) for k, m in enumerate(members)]
        return found, made, arrays

    def _excluded(self, report: NDArray[np.float64]) -> NDArray[np.bool_]:
        if self.exclude == "auto":
            return stands_out(report[:, [REPORT.index(f"contrast_{box}") for box in SCALES]])[0]
        if unknown := sorted(set(self.exclude or []) - set(self.names)):
            raise ValueError(f"process_session: exclude names {unknown[0]}, which is not among the movies")
        return np.isin(self.names, list(self.exclude or []))
