"""Movies whose numbers of frames differ, and movies of one file a frame: cut and joined along `frame`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, Literal, get_args

import numpy as np

from mrczdask import schema
from mrczdask.errors import MrcFormatError
from mrczdask.io.movie_array import preferred_chunks
from mrczdask.io.part_reader import PartReader, joined
from mrczdask.io.reader import MovieFile

Lengths = Literal["same", "shortest"]
ABORTED: Final = 0.5
"""A movie with less than this share of the frames that most have was stopped: it does not shorten the others."""
_LISTED: Final = 3


def checked_lengths(lengths: str) -> None:
    """Raise unless it is a rule for movies of unequal length."""
    if lengths not in get_args(Lengths):
        raise ValueError(
            f'lengths={lengths!r}: give "same", which refuses movies of other lengths, or "shortest", which takes as '
            "many frames of each as the shortest has"
        )


def aborted(movies: Sequence[MovieFile]) -> list[bool]:
    """Which movies have far fewer frames than most."""
    counts = [movie.shape[0] for movie in movies]
    usual = float(np.median(counts)) if counts else 0.0
    return [count < ABORTED * usual for count in counts]


def cut(movie: MovieFile, n_frames: int) -> MovieFile:
    """The first frames of a movie."""
    if movie.shape[0] == n_frames:
        return movie
    reader = PartReader(movie.reader, 0, n_frames)
    coords = {name: _cut_coord(coord, n_frames) for name, coord in movie.coords.items()}
    sizes = preferred_chunks(reader.shape)
    wanted = {**sizes, **movie.encoding.get(schema.PREFERRED_CHUNKS, {})}
    wanted[schema.FRAME] = min(int(wanted[schema.FRAME]), n_frames)
    encoding = {**movie.encoding, schema.PREFERRED_CHUNKS: wanted}
    encoding.pop(schema.MRC_HEADER, None)
    return replace(movie, reader=reader, coords=coords, encoding=encoding)


def _cut_coord(coord: tuple[Any, ...], n_frames: int) -> tuple[Any, ...]:
    dims, data, *rest = coord
    return (dims, np.asarray(data)[:n_frames], *rest) if dims == (schema.FRAME,) else coord


def join(movies: Sequence[tuple[str, MovieFile]]) -> MovieFile:
    """The frames of several files as one movie; attributes are those on which all agree."""
    first = movies[0][1]
    if len(movies) == 1:
        return first
    odd = [f"{url} {movie.shape[1:]}" for url, movie in movies if movie.shape[1:] != first.shape[1:]]
    if odd:
        more = f" and {len(odd) - _LISTED} more" if len(odd) > _LISTED else ""
        raise MrcFormatError(
            f"its frames are {first.shape[1:]} (y, x), others differ: {'; '.join(odd[:_LISTED])}{more}",
            url=movies[0][0],
        )
    reader = joined([movie.reader for _, movie in movies])
    parts = [movie for _, movie in movies]
    notes = dict.fromkeys(f"{url}: {note}" for url, movie in movies for note in movie.encoding.get(schema.NOTES, ()))
    encoding: dict[str, Any] = {schema.PREFERRED_CHUNKS: preferred_chunks(reader.shape)}
    return MovieFile(
        reader,
        coords=_joined_coords(parts),
        attrs=_common([movie.attrs for movie in parts]),
        encoding=encoding | ({schema.NOTES: tuple(notes)} if notes else {}),
        acquired=min((m.acquired for m in parts if m.acquired is not None), default=None),
        session=_common([movie.session for movie in parts]),
    )


def _joined_coords(movies: Sequence[MovieFile]) -> dict[str, Any]:
    """`tilt`, and `time` of files of one frame each: what is summed along a movie begins anew in each file."""
    coords: dict[str, Any] = {}
    tilts = [movie.coords.get(schema.TILT) for movie in movies]
    if all(tilt is not None for tilt in tilts):
        coords[schema.TILT] = ((schema.FRAME,), np.concatenate([np.asarray(tilt[1]) for tilt in tilts if tilt]))
    moments = [movie.acquired for movie in movies if movie.acquired is not None]
    if len(moments) == len(movies) and all(movie.shape[0] == 1 for movie in movies):
        seconds = np.array([(moment - min(moments)) / np.timedelta64(1, "s") for moment in moments])
        if seconds.any():
            coords[schema.TIME] = ((schema.FRAME,), seconds)
    return coords


def _common(many: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {k: v for k, v in many[0].items() if all(k in one and np.array_equal(one[k], v) for one in many[1:])}
