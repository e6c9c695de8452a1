"""Which shots of two tables are the same frame: by file and event, never by place."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mrczdask import schema
from mrczdask.errors import MrczdaskError, MrczdaskWarning
from mrczdask.io.peak_table import EVENT, EVENT_NAME, IMAGE, PEAK_FILE
from mrczdask.io.ragged import Ragged
from mrczdask.io.session import natural_key

Table = Ragged | xr.Dataset
_STEM: Final = re.compile(r"(_master|_data_\d+|_peaks)?(\.\w+)?$")
"""What files of one run have in their names besides its own."""


def same_shots(ours: Table, other: Table) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Places in both tables of the shots that both have.

    Raises
    ------
    MrczdaskError
        It cannot be told which shots are the same, or one is in a table twice.
    """
    if not _is_stream(other) and _is_stream(ours):
        second, first = same_shots(other, ours)
        return first, second
    if _is_stream(other):
        place = _both_streams(ours, other) if _is_stream(ours) else stream_places(ours, other)
    else:
        place = _of_labels(ours, other)
    there = np.flatnonzero(place >= 0)
    return place[there], there


def stream_places(ours: Table, stream: Table) -> NDArray[np.int64]:
    """Place in our table of each frame of a CrystFEL stream.

    Frames are matched by file and event. Where our shots do not say their file, the events of a stream of one file are
    their labels, and those of several files follow one another in natural order of their names.

    Raises
    ------
    MrczdaskError
        The stream has a frame twice, or one that is none of ours, or it cannot be told which it is.
    """
    images, events, names = (_values(stream, name) for name in (IMAGE, EVENT, EVENT_NAME))
    _check_once(images, names)
    files = sorted(set(images.tolist()), key=natural_key)
    for known, numbers in _known_by(ours):
        match = _matched(files, sorted(set(known.tolist()), key=natural_key))
        if match is None:
            continue
        keys = {(image, int(number)): k for k, (image, number) in enumerate(zip(known, numbers, strict=True))}
        wanted = [(match[image], max(int(event), 0)) for image, event in zip(images, events, strict=True)]
        return _looked_up(keys, wanted, images, names, len(known))
    return _by_number(ours, files, images, events, names)


def _by_number(
    ours: Table, files: Sequence[str], images: NDArray[Any], events: NDArray[np.int64], names: NDArray[Any]
) -> NDArray[np.int64]:
    """Places of frames whose files are not those of our shots, or where these do not say theirs."""
    labels, told = _values(ours, schema.SHOT), _told_files(ours)
    n = labels.size
    if len(files) == 1 and (events >= 0).all():
        if told and not _alike(told, files[0]):
            if len(told) > 1 or not np.array_equal(labels, np.arange(n)):
                raise MrczdaskError(f"the stream is of {files[0]}, the peaks are of {_listed(told)}: give those of it")
            problem = f"the stream is of {files[0]}, the peaks are of {told[0]}: its events are taken for their shots"
            warnings.warn(problem, MrczdaskWarning, stacklevel=3)
        keys = {(files[0], int(label)): k for k, label in enumerate(labels)} if labels.dtype.kind in "iu" else {}
        return _looked_up(keys, [(files[0], int(event)) for event in events], images, names, n)
    if told and not (len(told) == 1 and all(_alike(told, file) for file in files)):
        raise MrczdaskError(f"the stream is of {_listed(files)}, the peaks are of {_listed(told)}: give those of it")
    if images.size != n:
        problem = (
            f"the stream has {images.size} frames of {_listed(files)}, the peaks {n} shots that do not say their file"
        )
        raise MrczdaskError(f"{problem}: find them in frames that open_frames opened")
    order = sorted(range(n), key=lambda k: (natural_key(str(images[k])), natural_key(str(names[k]))))
    place = np.empty(n, np.int64)
    place[order] = np.arange(n)
    return place


def _looked_up(
    keys: dict[tuple[str, int], int], wanted: list[tuple[str, int]], images: Any, names: Any, n: int
) -> NDArray[np.int64]:
    place = np.array([keys.get(key, -1) for key in wanted], np.int64)
    lost = np.flatnonzero(place < 0)
    if lost.size:
        k = int(lost[0])
        of = f" of {images[k]}" if images[k] else ""
        raise MrczdaskError(f"the stream has the event {wanted[k][1]}{of}, which is none of the {n} shots")
    if np.unique(place).size != place.size:
        twice = np.flatnonzero(np.bincount(place) > 1)
        said = [f"{images[k]} {names[k]}" for k in np.flatnonzero(place == twice[0])]
        raise MrczdaskError(f"frames of the stream are one shot: {', '.join(said)}: give the peaks of one dataset each")
    return place


def _known_by(table: Table) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """(file, number in it) of every shot, in each way in which the table knows it."""
    labels = _values(table, schema.SHOT)
    found = []
    if _has(table, IMAGE) and _has(table, EVENT):
        found.append((_values(table, IMAGE), _values(table, EVENT)))
    if table.attrs.get(PEAK_FILE):
        found.append((np.full(labels.size, table.attrs[PEAK_FILE]), labels))
    if table.attrs.get(IMAGE) and labels.dtype.kind in "iu":
        found.append((np.full(labels.size, table.attrs[IMAGE]), labels))
    return found


def _told_files(table: Table) -> list[str]:
    found = [name for images, _ in _known_by(table) for name in sorted(set(images.tolist()), key=natural_key)]
    return list(dict.fromkeys(found))


def _both_streams(ours: Table, other: Table) -> NDArray[np.int64]:
    """Place in one stream of each frame of another; -1 where it has it not."""
    images, names = _values(ours, IMAGE), _values(ours, EVENT_NAME)
    other_images, other_names = _values(other, IMAGE), _values(other, EVENT_NAME)
    for one in ((images, names), (other_images, other_names)):
        _check_once(*one)
    files = sorted(set(other_images.tolist()) & set(images.tolist())) or sorted(set(other_images.tolist()))
    match = _matched(files, sorted(set(images.tolist())))
    if match is None:
        raise MrczdaskError(f"one stream is of {_listed(files)}, the other of {_listed(sorted(set(images.tolist())))}")
    keys = {key: k for k, key in enumerate(zip(images.tolist(), names.tolist(), strict=True))}
    wanted = zip(other_images.tolist(), other_names.tolist(), strict=True)
    return np.array([keys.get((match.get(image, ""), name), -1) for image, name in wanted], np.int64)


def _of_labels(ours: Table, other: Table) -> NDArray[np.int64]:
    """Place of each shot of another table, by the labels of shots."""
    labels, of_other = _values(ours, schema.SHOT), _values(other, schema.SHOT)
    if labels.size != of_other.size:
        raise MrczdaskError(f"the peaks are of {labels.size} shots, the reference of {of_other.size}")
    if np.array_equal(labels, of_other):
        return np.arange(labels.size)
    order = np.argsort(labels, kind="stable")
    if np.unique(labels).size != labels.size or not np.array_equal(labels[order], np.sort(of_other)):
        raise MrczdaskError(
            "the shots of the peaks and of the reference have other labels: give the same shots of both"
        )
    return order[np.searchsorted(labels[order], of_other)]


def _matched(files: Sequence[str], known: Sequence[str]) -> dict[str, str] | None:
    """For each file the one of ours of its name: folders count only where names alone do not tell them apart."""
    found: dict[str, str] = {}
    ends = [_parts(name) for name in known]
    for file in files:
        parts = _parts(file)
        alike = [sum(1 for _ in _common(parts, end)) for end in ends]
        best = max(alike, default=0)
        if not best or alike.count(best) > 1:
            return None
        found[file] = known[alike.index(best)]
    return found if len(set(found.values())) == len(found) else None


def _common(one: list[str], other: list[str]) -> Any:
    """Equal parts of two paths, from the last one on."""
    for a, b in zip(reversed(one), reversed(other), strict=False):
        if a != b:
            return
        yield a


def _parts(path: str) -> list[str]:
    return [part for part in re.split(r"[/\\]", path.partition("://")[2] or path) if part]


def _alike(told: Sequence[str], file: str) -> bool:
    """Whether a file has the name of a run that is told."""
    stems = {_STEM.sub("", (_parts(name) or [""])[-1]) for name in told}
    return _STEM.sub("", (_parts(file) or [""])[-1]) in stems


def _check_once(images: NDArray[Any], names: NDArray[Any]) -> None:
    seen: set[tuple[str, str]] = set()
    for key in zip(images.tolist(), names.tolist(), strict=True):
        if key in seen:
            raise MrczdaskError(
                f"the stream has {' '.join(key).strip() or 'a frame without name'} twice: give one of a single run"
            )
        seen.add(key)


def _listed(files: Sequence[str]) -> str:
    more = f" and {len(files) - 1} more" if len(files) > 1 else ""
    return f"{files[0] or 'a file without name'}{more}"


def _is_stream(table: Table) -> bool:
    return _has(table, EVENT_NAME)


def _has(table: Table, name: str) -> bool:
    return name in (table.header if isinstance(table, Ragged) else table).coords


def _values(table: Table, name: str) -> NDArray[Any]:
    return np.asarray(table[name].values)
