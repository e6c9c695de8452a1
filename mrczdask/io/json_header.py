"""The JSON extended header of files written here: the user's metadata, and what MRC has no field for."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

import mrczdask
from mrczdask import schema
from mrczdask.errors import MrcFormatError
from mrczdask.io.plain_attrs import metadata_of

KEY: Final = "mrczdask"
"""Key beside the user's own, under which dtype, coordinates and attributes are kept."""
_PAD: Final = 16
_NO_COORDS: Final = (schema.IMAGES, schema.Y, schema.X)
_MAX_TEXT: Final = 16 << 20
"""Characters of a coordinate of texts, each taken for as long as the longest."""
_MOMENT: Final = re.compile(r"NaT|[-+0-9T:.]+")
_OF_THE_FILE: Final = (schema.MOVIE, schema.URL, schema.N_FRAMES)
"""Coordinates that the new file gives itself."""


def pack_json(movie: xr.DataArray, metadata: Mapping[str, Any] | None) -> bytes:
    """Metadata, dtype, coordinates along `frame`, scalar coordinates and attributes as padded JSON."""
    user = metadata_of(movie.attrs) if metadata is None else dict(metadata)
    own = {
        "version": mrczdask.__version__,
        "dtype": movie.dtype.name,
        "attrs": {k: v for k, v in movie.attrs.items() if k != schema.METADATA},
        "coords": {
            str(name): _coord(values)
            for name, values in movie.coords.items()
            if values.dims in ((), (schema.FRAME,)) and name not in _OF_THE_FILE
        },
    }
    try:
        text = json.dumps({**user, KEY: own}, default=_plain)
    except TypeError as error:
        raise MrcFormatError(f"metadata cannot be written as JSON: {error}") from None
    raw = text.encode()
    return raw + b" " * (-len(raw) % _PAD)


def _coord(values: xr.DataArray) -> dict[str, Any]:
    as_json = {"M": str, "m": np.int64}.get(values.dtype.kind)
    data = values.values if as_json is None else values.values.astype(as_json)
    return {"dims": list(values.dims), "data": data.tolist(), "dtype": values.dtype.str, "attrs": dict(values.attrs)}


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist() if value.dtype.kind not in "mM" else value.astype(str).tolist()
    raise TypeError(f"{type(value).__name__} is no JSON type")


def split_json(document: Mapping[str, Any]) -> tuple[dict[str, Any], Mapping[str, Any]]:
    """The user's metadata, and what this package kept beside it (empty for files of other writers)."""
    own = document.get(KEY)
    user = {key: value for key, value in document.items() if key != KEY}
    return user, own if isinstance(own, Mapping) else {}


def kept_dtype(own: Mapping[str, Any], stored: np.dtype[Any]) -> np.dtype[Any] | None:
    """The dtype before writing, if it is one that `stored` can stand for: uint8 and bool in int8 or uint16."""
    name = own.get("dtype")
    allowed = {"uint8", "bool"} if stored in (np.dtype("i1"), np.dtype("u2")) else set()
    return np.dtype(name) if isinstance(name, str) and name in allowed else None


def kept_attrs(own: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes kept in the JSON."""
    attrs = own.get("attrs")
    return {str(name): value for name, value in attrs.items()} if isinstance(attrs, Mapping) else {}


def kept_coords(own: Mapping[str, Any], n_frames: int) -> dict[str, tuple[tuple[str, ...], Any, dict[str, Any]]]:
    """Coordinates kept in the JSON that fit the frames in the file; others are left out."""
    coords: dict[str, tuple[tuple[str, ...], Any, dict[str, Any]]] = {}
    kept = own.get("coords")
    for name, entry in kept.items() if isinstance(kept, Mapping) else ():
        try:
            data = _kept_values(entry["data"], np.dtype(entry["dtype"]))
            dims = tuple(entry["dims"])
            attrs = dict(entry["attrs"])
        except (KeyError, TypeError, ValueError, OverflowError):
            continue
        fits = (dims, data.shape) in (((), ()), ((schema.FRAME,), (n_frames,)))
        if fits and name not in _NO_COORDS and (name != schema.FRAME or dims):
            coords[str(name)] = (dims, data, attrs)
    return coords


def _kept_values(data: Any, dtype: np.dtype[Any]) -> NDArray[Any]:
    """The values of a coordinate. What no writer here makes is refused before memory is asked for it."""
    values = data if isinstance(data, list) else [data]
    if dtype.kind in "UM" and not all(isinstance(value, str) for value in values):
        raise ValueError("no texts")
    if dtype.kind == "U" and len(values) * max(map(len, values), default=0) > _MAX_TEXT:
        raise ValueError("too long")
    if dtype.kind == "M" and not all(_MOMENT.fullmatch(value) for value in values):
        raise ValueError("no times")
    if dtype.kind not in "biufUMm":
        raise ValueError("no values of a coordinate")
    with np.errstate(invalid="ignore", over="ignore"):
        return np.asarray(data).astype(str if dtype.kind == "U" else dtype)
