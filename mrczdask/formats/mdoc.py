"""SerialEM's `.mdoc` sidecars, read with the mdocfile package: text to coordinates and attributes.

A `FrameSet` section describes the movie of one exposure, `ZValue` sections describe the images of a series. mdocfile
refuses a whole file for one wrong value, for a title with two "=" and for bytes that are not UTF-8: lines are cleaned
first, and a value it refuses is left out with a note. It also makes Windows paths of all paths: they are kept as they
stand.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mrczdask import schema
from mrczdask.errors import MissingExtraError
from mrczdask.formats.facts import Facts, accumulated_dose, credible, credible_along, parse_time
from mrczdask.formats.mdoc_sections import along_frames
from mrczdask.formats.serialem import ROTATION_FLIPS, title_attrs

SUFFIX: Final = ".mdoc"
_SECTION: Final = re.compile(r"\[\s*(ZValue|FrameSet|MontSection)\s*=\s*(.*?)\s*\]")
_ALIASES: Final = {"FrameDosesAndNumbers": "FrameDosesAndNumber"}
"""Field of mdocfile: key in the file."""
_LOGGER: Final = logging.getLogger("mdocfile")
_reading: ContextVar[bool] = ContextVar("reading_mdoc", default=False)

_NUMBERS: Final = (
    # key, attribute, whether 0 means "not known"
    ("PixelSpacing", schema.PIXEL_SIZE, True),
    ("Voltage", schema.VOLTAGE, True),
    ("CountsPerElectron", schema.COUNTS_PER_ELECTRON, True),
    ("ExposureTime", "exposure_time_s", True),
    ("Magnification", "magnification", True),
    ("Binning", "binning", True),
    ("RotationAngle", "rotation_angle_deg", False),
    ("TargetDefocus", "target_defocus_um", False),
    ("RotationAndFlip", schema.ROTATION_FLIP, False),
)
_TEXTS: Final = (("DefectFile", "defect_file"), ("SubFramePath", "sub_frame_path"))
_PATHS: Final = ("DefectFile", "SubFramePath", "GainReference", "ImageFile")
_TITLE: Final = re.compile(r"\[?\s*T\s*=")

Section = Mapping[str, Any]


def mdoc_names(url: str) -> tuple[str, str]:
    """Where SerialEM puts the sidecar of a file: `a.tif.mdoc`; other programs write `a.mdoc`."""
    folder, slash, name = url.rpartition("/")
    return url + SUFFIX, folder + slash + name.rpartition(".")[0] + SUFFIX


def parse_mdoc(text: str | bytes, n_frames: int) -> Facts:
    """Read the sidecar of a movie or a series.

    Parameters
    ----------
    text : str or bytes
        The file. Bytes are read as UTF-8, else as Latin-1.
    n_frames : int
        Frames of the image file it stands beside.

    Returns
    -------
    Facts
        Along `frame`: `dose` (e/angstrom^2 the specimen had received at the end of each frame, what was received
        before the movie included where the file says it), `time` (s from the first frame to the start of each), `tilt`
        (deg). Attributes: pixel size, voltage, counts per electron, exposure time, `rotation_flip`, `defect_file`,
        `sub_frame_path` and others; `tilt_axis_angle_deg` as the title says it, which RotationAngle, the rotation of
        the image (`rotation_angle_deg`), does not. For a session: `dose_rate` (e/pixel/s) and `gain_reference`.

    Raises
    ------
    MissingExtraError
        mdocfile is not installed.
    """
    lines = _lines(text)
    starts = [k for k, line in enumerate(lines) if _SECTION.match(line)]
    ends = [*starts[1:], len(lines)][: len(starts)]
    notes: list[str] = []
    titles = title_attrs(line for line in lines if _TITLE.match(line))
    with _quiet():
        common = _read_global(lines[: starts[0] if starts else len(lines)], notes)
        sections = [_read_section(lines[a:b], notes) for a, b in zip(starts, ends, strict=True)]
    images = [section for section in sections if section.get("ZValue") is not None]
    sets = [section for section in sections if section.get("FrameSet") is not None]
    if not sets and len(images) == 1 and n_frames > 1 and images[0].get("NumSubFrames") == n_frames:
        sets, images = images, []
    if sets:
        facts = _movie(common, sets[0], images, n_frames, notes)
    elif images:
        facts = _series(common, images, n_frames, notes)
    else:
        facts = Facts(attrs=_attrs(common), notes=(*notes, "the mdoc file has no FrameSet or ZValue section"))
    return replace(facts, attrs={**facts.attrs, **titles})


@contextmanager
def _quiet() -> Iterator[None]:
    """mdocfile logs a warning for each key it does not model; they are kept all the same."""
    if _not_reading not in _LOGGER.filters:
        _LOGGER.addFilter(_not_reading)
    token = _reading.set(True)
    try:
        yield
    finally:
        _reading.reset(token)


def _not_reading(_: logging.LogRecord) -> bool:
    return not _reading.get()


def _lines(text: str | bytes) -> list[str]:
    try:
        decoded = text.decode("utf-8-sig") if isinstance(text, bytes) else text
    except UnicodeDecodeError:
        decoded = str(text, "latin-1")  # type: ignore[arg-type]
    lines = [line.strip() for line in re.split(r"\r\n|\r|\n", decoded.replace("\x00", ""))]
    return [_SECTION.sub(r"[\1 = \2]", line) for line in lines if "=" in line]


def _models() -> tuple[Any, Any]:
    try:
        from mdocfile.data_models import MdocGlobalData, MdocSectionData
    except ImportError:
        raise MissingExtraError("mdoc files are read with mdocfile: pip install 'mrczdask[em]'") from None
    return MdocGlobalData, MdocSectionData


def _read_global(lines: Sequence[str], notes: list[str]) -> dict[str, Any]:
    """The values before the first section; titles have no key."""
    kept = [line for line in lines if not _TITLE.match(line) and line.count("=") == 1]
    return _validated(_models()[0], kept, "before the first section", notes)


def _read_section(lines: Sequence[str], notes: list[str]) -> dict[str, Any]:
    kept = [line for line in lines if not _TITLE.match(line)]
    return _validated(_models()[1], kept, lines[0], notes)


def _validated(model: Any, lines: list[str], place: str, notes: list[str]) -> dict[str, Any]:
    """The values of a section; those that mdocfile refuses are left out, all of one try at once."""
    while lines:
        try:
            return dict(model.from_lines(lines)) | _paths(lines)
        except ValueError as error:
            faults: list[Any] = getattr(error, "errors", list)()
            fields = {str(fault["loc"][0]) for fault in faults if fault["loc"]}
            keys = fields | {_ALIASES[field] for field in fields if field in _ALIASES}
            kept = [line for line in lines if line.strip("[]").split("=")[0].strip() not in keys]
            notes.append(f"mdoc {place}: {', '.join(sorted(fields)) or error} cannot be read")
            if len(kept) == len(lines):
                return {}
            lines = kept
    return {}


def _paths(lines: Sequence[str]) -> dict[str, str]:
    """Paths as they stand: mdocfile turns /data/x into \\data\\x."""
    pairs = (line.partition("=") for line in lines)
    said = {key.strip(): value.strip() for key, _, value in pairs}
    return {key: said[key] for key in _PATHS if said.get(key)}


def _movie(common: Section, frame_set: Section, images: Sequence[Section], n_frames: int, notes: list[str]) -> Facts:
    per_frame: dict[str, NDArray[np.float64]] = {}
    attrs = _attrs({**common, **{key: value for key, value in frame_set.items() if value is not None}})
    said = frame_set.get("NumSubFrames")
    if said is not None and said != n_frames:
        notes.append(f"the mdoc file says {said} frames, the file has {n_frames}")
    dose = _frame_dose(frame_set, n_frames, notes)
    if dose is not None:
        per_frame[schema.DOSE] = dose
    if images:
        # the ranges of FrameTSStartEndFrames count from a first frame that only the images themselves can tell
        attrs["frame_tilt_angles_deg"] = [
            float(image["TiltAngle"]) for image in images if image.get("TiltAngle") is not None
        ]
        notes.append("a tilt series in one movie: which frame has which tilt angle is not in the mdoc file")
    else:
        tilt = credible(schema.TILT, frame_set.get("TiltAngle"))
        if tilt is not None:
            per_frame[schema.TILT] = np.full(n_frames, tilt)
        seconds = credible(schema.TIME, frame_set.get("ExposureTime"))
        if seconds:
            per_frame[schema.TIME] = np.linspace(0.0, seconds, n_frames, endpoint=False)
    return Facts(
        per_frame,
        attrs,
        acquired=parse_time(frame_set.get("DateTime")),
        session=_session(frame_set),
        notes=tuple(notes),
    )


def _frame_dose(frame_set: Section, n_frames: int, notes: list[str]) -> NDArray[np.float64] | None:
    """Dose received at the end of each frame: from the dose of each, else the exposure shared out evenly."""
    pairs = frame_set.get("FrameDosesAndNumbers") or ()
    doses = [credible(schema.DOSE, dose) for dose, _ in pairs]
    counts = [number for _, number in pairs]
    whole = credible(schema.DOSE, frame_set.get("ExposureDose"))
    if pairs and None not in doses and min(counts) >= 0 and sum(counts) == n_frames:
        each = np.repeat(np.array(doses, np.float64), counts)
    elif whole is not None and frame_set.get("NumSubFrames") in (None, n_frames):
        each = np.full(n_frames, whole / n_frames, np.float64)
    else:
        if pairs:
            notes.append(f"FrameDosesAndNumber does not count {n_frames} frames: no dose along frame")
        return None
    total = accumulated_dose(each)
    before = credible(schema.DOSE, frame_set.get("PriorRecordDose")) or 0.0
    return None if total is None else np.asarray(total + before, np.float64)


def _series(common: Section, images: Sequence[Section], n_frames: int, notes: list[str]) -> Facts:
    """One section an image; the last section of a Z value holds."""
    along, said = along_frames({int(image["ZValue"]): image for image in images}, n_frames)
    notes += said
    per_frame: dict[str, NDArray[np.float64]] = {}
    tilt = credible_along(schema.TILT, _column(along, "TiltAngle"))
    if tilt is not None:
        per_frame[schema.TILT] = tilt
    moments = [parse_time(section.get("DateTime")) for section in along]
    known = [moment for moment in moments if moment is not None]
    order = None
    if len(known) == n_frames:
        seconds = np.array([(moment - min(known)) / np.timedelta64(1, "s") for moment in known])
        order = np.argsort(seconds, kind="stable").tolist()
        if seconds.any():
            per_frame[schema.TIME] = seconds
    prior = _column(along, "PriorRecordDose")
    dose = accumulated_dose(_column(along, "ExposureDose"), None if np.isnan(prior).any() else prior, order)
    if dose is not None:
        per_frame[schema.DOSE] = dose
    along = along if any(along) else list(images)
    first = next((section for section in along if section), {})
    attrs = _attrs({**common, **_constant(along, first)})
    return Facts(per_frame, attrs, acquired=min(known) if known else None, session=_session(first), notes=tuple(notes))


def _column(sections: Sequence[Section], key: str) -> NDArray[np.float64]:
    return np.array([np.nan if section.get(key) is None else section[key] for section in sections], np.float64)


def _constant(along: Sequence[Section], first: Section) -> dict[str, Any]:
    """The values that all images of the series share."""
    return {
        key: value
        for key, value in first.items()
        if value is not None and all(section.get(key) == value for section in along if section)
    }


def _attrs(values: Section) -> dict[str, Any]:
    attrs: dict[str, Any] = {}
    for key, name, zero_is_unknown in _NUMBERS:
        value = credible(name, values.get(key))
        if value is not None and not (zero_is_unknown and value <= 0):
            attrs[name] = value
    for key, name in _TEXTS:
        if values.get(key) is not None:
            attrs[name] = str(values[key])
    if schema.ROTATION_FLIP in attrs:
        turn = attrs.pop(schema.ROTATION_FLIP)
        attrs |= {schema.ROTATION_FLIP: int(turn)} if turn in ROTATION_FLIPS else {}
    return attrs


def _session(section: Section) -> dict[str, Any]:
    rate = credible(schema.DOSE_RATE, section.get("DoseRate"))
    gain = section.get("GainReference")
    session: dict[str, Any] = {schema.DOSE_RATE: rate} if rate else {}
    return session | ({schema.GAIN_REFERENCE: str(gain)} if gain else {})
