"""What a file with sparse frames says besides their pixels, checked: shapes, dtypes and numbers that can be."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mrczdask import schema
from mrczdask.errors import MrcFormatError
from mrczdask.io.detector_facts import detector_attrs, find_detector
from mrczdask.io.hdf5_file import Options
from mrczdask.io.session import natural_key
from mrczdask.io.sparse_fields import Header, text_of
from mrczdask.io.sparse_sectors import BIN, sectors_in
from mrczdask.io.sparse_source import SparseFile
from mrczdask.io.sparse_table import CENTER, EMPTY, LIMITS, NUMBERS, RESPONSE, SETTINGS, TABLES
from mrczdask.io.validity import INVALID, PANELS, validity_of

_ROWS: Final = ("frame_ptr", "index", "intensity")
_PARTS: Final = ("nnz", "row", "col", "intensity")
"""Datasets of a scan of ImageD11."""
SCAN: Final = "scan"
"""Coordinate (shot) with its name."""
_PLANE: Final = (schema.Y, schema.X)
_FACTS: Final = {"distance_m": 0, "pixel_size_m": 2, "beam_center": 2, "wavelength_m": 0}
"""Of the detector: how many numbers, 0 for one alone."""
_OURS: Final = "mrczdask"


def pyfai_header(
    file: Any, path: str, place: str, options: Options
) -> tuple[xr.Dataset, SparseFile, NDArray[np.int64]]:
    """Of frames in the layout of pyFAI: what is per shot and per pixel, where the rows are, and the pointers."""
    header = Header(file[place], path, place, options)
    missing = [name for name in (*_ROWS, "mask") if name not in header]
    if missing:
        raise MrcFormatError(f"{place} lacks {', '.join(missing)}", url=path)
    pointer = header.array("frame_ptr", (None,), kinds="iu").astype(np.int64)
    shots = max(pointer.size - 1, 0)
    header.node("index", kinds="iu", shape=(None,))
    intensity = header.node("intensity", shape=(None,))
    if intensity.dtype == np.float16:
        raise header.wrong("intensity is float16, which the layout does not have")
    mask = header.array("mask", (None, None))
    if np.isinf(mask).any():
        raise header.wrong("mask has radii without end")
    unit = {} if header.unit("mask").get("units") == BIN else header.unit("mask")
    coords: dict[str, Any] = {schema.SHOT: np.arange(shots), "pixel_radius": (_PLANE, mask, unit)}
    tables = [name for name in TABLES if name in header]
    if tables and not (len(tables) == len(TABLES) and "radius" in header):
        raise header.wrong(f"there is {tables[0]}, the rest of the background is lost")
    if tables:
        coords |= _bins(header, shots, mask, unit)
    for name in ("normalization", RESPONSE):
        if name in header:
            coords[name] = (_PLANE, header.array(name, mask.shape))
    coords |= _centers(header, shots)
    entry = place.split("/")[0]
    attrs = {"shape": list(mask.shape), "dtype": intensity.dtype.newbyteorder("=").str}
    detector = find_detector(file[entry]) if hasattr(file, "userblock_size") else None
    if detector is not None:
        attrs |= detector_attrs(detector, file[entry], np.dtype(np.float32))
    attrs |= _settings(file, entry, path)
    attrs["dummy"] = _dummy(header) if "dummy" in header else attrs.get("dummy", np.nan)
    empty = header.array(EMPTY, (None,), kinds="iu").astype(np.int64).tolist() if EMPTY in header else ()
    is_sorted = _OURS in text_of(file.attrs.get("creator"))
    source = SparseFile(path, place, mask.size, sorted=is_sorted, empty=tuple(empty))
    return xr.Dataset(coords=coords, attrs=attrs), source, pointer


def image_d11_scans(file: Any, path: str) -> list[str]:
    """The scans in a file of ImageD11, in the order of their numbers."""
    scans = [name for name in file if hasattr(file[name], "keys") and all(part in file[name] for part in _PARTS)]
    if not scans:
        raise MrcFormatError("there are no sparse frames: neither those of pyFAI nor a scan of ImageD11", url=path)
    return sorted(scans, key=natural_key)


def image_d11_header(
    file: Any, path: str, scan: str, options: Options
) -> tuple[xr.Dataset, SparseFile, NDArray[np.int64]]:
    """As `pyfai_header`, of a scan in a file of ImageD11."""
    header = Header(file[scan], path, scan, options)
    shape = int(header.group.attrs["shape0"]), int(header.group.attrs["shape1"])
    counts = header.array("nnz", (None,), kinds="iu").astype(np.int64)
    for name in _PARTS[1:]:
        header.node(name, kinds="iuf" if name == "intensity" else "iu", shape=(None,))
    if min(shape) < 1 or (counts < 0).any():
        raise header.wrong(f"frames of {shape} with {counts.min(initial=0)} pixels and more")
    coords = {schema.SHOT: np.arange(counts.size), SCAN: (schema.SHOT, np.full(counts.size, scan))}
    found = xr.Dataset(coords=coords, attrs={"shape": list(shape)})
    source = SparseFile(path, scan, shape[0] * shape[1], shape[1])
    return found, source, np.concatenate([[0], np.cumsum(counts)])


def _bins(header: Header, shots: int, mask: NDArray[Any], unit: Mapping[str, str]) -> dict[str, Any]:
    """The coordinates of the bins of the background."""
    radius = header.rising("radius")
    for name in TABLES:
        header.node(name, shape=(shots, radius.size))
    return {"radius": ("radius", radius, unit)} | sectors_in(header, radius.size, mask)


def _centers(header: Header, shots: int) -> dict[str, Any]:
    """The beam of each shot, where it is stored."""
    there = [name for name in CENTER if name in header]
    if len(there) == 1:
        raise header.wrong(f"there is {there[0]}, the other coordinate of the beam is lost")
    found = {name: header.array(name, (shots,)) for name in there}
    for name, values in found.items():
        if not np.isfinite(values).all():
            raise header.wrong(f"{name} is no number in shot {int(np.flatnonzero(~np.isfinite(values))[0])}")
    return {name: (schema.SHOT, values) for name, values in found.items()}


def _dummy(header: Header) -> float:
    value = np.asarray(header.group["dummy"][()])
    if value.size != 1 or value.dtype.kind not in "iuf":
        raise header.wrong(f"dummy is {value.dtype} {value.shape}, a number is wanted")
    return float(value.reshape(()))


def _settings(file: Any, entry: str, path: str) -> dict[str, Any]:
    """What the frames were sparsified with, as far as it is written."""
    place = f"{entry}/sparsify/configuration"
    if place not in file:
        return {}
    note = file[place]
    text = note["data"][()] if "data" in note else note.attrs.get("data", "{}")  # Zarr keeps texts as attributes
    try:
        said = json.loads(text_of(text))
    except ValueError:
        return {}
    parts = [said.get(name) if isinstance(said, dict) else None for name in ("sparsify", "geometry")]
    sparsify, geometry = (part if isinstance(part, dict) else {} for part in parts)
    found = {name: sparsify[name] for name in SETTINGS if sparsify.get(name) is not None}
    facts = {name: geometry[name] for name in _FACTS if geometry.get(name) is not None}
    wrong: list[str] = [name for name in (*NUMBERS, *LIMITS) if name in found and not _is_numbers(found[name], 0)]
    wrong += [name for name in (INVALID, PANELS) if name in found and not _is_rule(found, name)]
    wrong += [name for name, n in _FACTS.items() if name in facts and not _is_numbers(facts[name], n)]
    wrong += ["radial_range"] if not _is_numbers(found.get("radial_range", [0, 0]), 2, endless=True) else []
    wrong += [name for name in ("unit", "error_model") if not isinstance(found.get(name, ""), str)]
    if wrong:
        value = (found | facts)[wrong[0]]
        raise MrcFormatError(f"{place}: {wrong[0]} is {value!r}: the file is damaged", url=path)
    return found | facts


def _is_rule(found: Mapping[str, Any], name: str) -> bool:
    """Whether what is no count is said as `Validity.attrs` does."""
    try:
        validity_of({name: found[name]})
    except (TypeError, ValueError, AttributeError, IndexError):
        return False
    return True


def _is_numbers(value: Any, n: int, *, endless: bool = False) -> bool:
    """Whether it is a finite number, or a list of n."""
    values = value if n and isinstance(value, list) else [value]
    numbers = all(isinstance(one, int | float) and (endless or np.isfinite(one)) for one in values)
    return numbers and (not n or len(values) == n)
