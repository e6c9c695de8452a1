"""The file and the number of each frame: found where frames are opened, kept with their peaks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mrczdask import schema
from mrczdask.errors import MrcFormatError
from mrczdask.io.peak_table import EVENT, IMAGE

SOURCE: Final = "source"
"""Encoding of frames: the files they were opened from."""
SOURCE_FRAMES: Final = "source_frames"
"""Encoding of frames: how many each of the files has."""
DATASET: Final = "dataset"
"""Encoding of frames: the dataset that was asked for."""
_FILES, _NUMBER = "image_files", "image_number"


def identity_of(encoding: Mapping[Any, Any], shots: NDArray[Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Coordinates (shot) `image` and `event`, or the attribute `image` of a single file, as far as frames tell them."""
    files, counts = list(encoding.get(SOURCE) or []), encoding.get(SOURCE_FRAMES)
    if not files or counts is None or len(counts) != len(files) or shots.dtype.kind not in "iu":
        return {}, {}
    edges = np.cumsum([0, *counts])
    of_these = not shots.size or (shots.min() >= 0 and shots.max() < edges[-1])
    if not of_these or np.unique(shots).size != shots.size:  # frames of other files were put beside
        return {}, {}
    if len(files) == 1:
        return {}, {IMAGE: files[0]}
    owner = np.searchsorted(edges, shots, side="right") - 1
    return file_coords(np.array(files, str)[owner], shots - edges[owner]), {}


def file_coords(images: Sequence[str] | NDArray[Any], events: Any) -> dict[str, Any]:
    """Coordinates (shot) of the file and the number in it."""
    return {IMAGE: (schema.SHOT, np.asarray(images, str)), EVENT: (schema.SHOT, np.asarray(events, np.int64))}


def put_identity(store: Any, place: str, header: xr.Dataset) -> None:
    """Write the file and number of each shot into a group of a store that grows, where they are known."""
    stored = stored_identity(header)
    if stored:
        store.text(f"{place}/{_FILES}", stored[_FILES])
        for name in (_NUMBER, EVENT):
            store.put(f"{place}/{name}", stored[name])


def stored_identity(header: xr.Dataset) -> dict[str, Any]:
    """Names of the files as a text, their numbers and those of the events; nothing where they are not known."""
    if not {IMAGE, EVENT} <= set(header.coords) or header[IMAGE].dims != (schema.SHOT,):
        return {}
    files, number = np.unique(header[IMAGE].values, return_inverse=True)
    numbers = {_NUMBER: number.astype(np.int32), EVENT: header[EVENT].values.astype(np.int64)}
    return {_FILES: json.dumps(files.tolist())} | numbers


def read_identity(group: Any, n: int, path: str) -> dict[str, Any]:
    """Coordinates that `put_identity` wrote of n shots, of a group or a mapping."""
    if _NUMBER not in group or EVENT not in group:
        return {}
    text = group[_FILES] if _FILES in group else group.attrs[_FILES]
    text = text[()] if hasattr(text, "shape") else text
    files = json.loads(text.decode() if isinstance(text, bytes) else str(text))
    number, event = (np.asarray(group[name][:n], np.int64) for name in (_NUMBER, EVENT))
    if number.shape != (n,) or event.shape != (n,) or (n and not (number.min() >= 0 and number.max() < len(files))):
        raise MrcFormatError(f"the files of its {n} shots are not told: it is damaged", url=path)
    return file_coords(np.array(files, str)[number] if n else [], event)
