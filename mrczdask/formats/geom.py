"""CrystFEL geometry files (.geom): panels of a detector, their place in space, and what of them is bad."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mrczdask.errors import MrcFormatError
from mrczdask.formats.geom_bad import BadPixels, bad_pixels_of
from mrczdask.formats.geom_units import Quantity, beam_of, length_of, offset_of, quantity, wavelength_of

_SPANS: Final = ("min_fs", "max_fs", "min_ss", "max_ss")
_NOT_PANELS: Final = ("rigid_group", "group")
_VECTOR: Final = re.compile(r"([+-]?\s*[\d.]*(?:[eE][+-]?\d+)?)\s*([xyz])")


@dataclass(frozen=True)
class Panel:
    """A panel: its place in the data (fs fast, ss slow, ends included) and in space, in pixels but `clen_m`."""

    name: str
    span: tuple[int, int, int, int]
    corner: tuple[float, float]
    fs: tuple[float, float, float]
    ss: tuple[float, float, float]
    pixels_per_m: float
    clen_m: float | None
    offset_m: float
    used: bool
    layer: int = 0
    """Number of the plane of the data that holds the panel."""
    first_row: int = 0
    """Where that plane begins in a frame, whose planes lie one below the other."""

    def place(self) -> tuple[slice, slice]:
        """Rows and columns of the panel in a frame."""
        min_fs, max_fs, min_ss, max_ss = self.span
        return slice(self.first_row + min_ss, self.first_row + max_ss + 1), slice(min_fs, max_fs + 1)

    def positions(self, clen_m: float) -> NDArray[np.float64]:
        """(3, ss, fs): x, y and z of the pixel centres, in metres from the sample."""
        rows, cols = self.place()
        return self.places(np.arange(rows.start, rows.stop)[:, None], np.arange(cols.start, cols.stop), clen_m)

    def places(self, y: NDArray[Any], x: NDArray[Any], clen_m: float) -> NDArray[np.float64]:
        """x, y and z in metres of places in pixels of the frame, on the plane of the panel."""
        fs, ss = x - self.span[0] + 0.5, y - self.first_row - self.span[2] + 0.5
        shifts = [self.fs[k] * fs + self.ss[k] * ss for k in range(3)]
        start = (*self.corner, 0.0)
        out = np.stack([(start[k] + shifts[k]) / self.pixels_per_m for k in range(3)])
        out[2] += clen_m
        return out

    def away(self, y: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Pixels of the frame from places to the edge of the panel; -1 of those that its pixels hold."""
        min_fs, max_fs, min_ss, max_ss = self.span
        y = y - self.first_row
        row, col = np.floor(y + 0.5), np.floor(x + 0.5)
        held = (row >= min_ss) & (row <= max_ss) & (col >= min_fs) & (col <= max_fs)
        up = np.maximum(np.maximum(min_ss - 0.5 - y, y - max_ss - 0.5), 0.0)
        side = np.maximum(np.maximum(min_fs - 0.5 - x, x - max_fs - 0.5), 0.0)
        return np.where(held, -1.0, np.hypot(up, side))

    @property
    def normal(self) -> NDArray[np.float64]:
        """Unit vector across the panel."""
        across = np.cross(self.fs, self.ss)
        return np.asarray(across / np.linalg.norm(across))


@dataclass(frozen=True)
class BadRegion:
    """Pixels that are not used: a span of (fs, ss) of one panel or of all, or a rectangle of (x, y) in pixels."""

    span: tuple[float, float, float, float]
    in_space: bool
    panel: str | None = None


@dataclass(frozen=True)
class GeomFile:
    """What a geometry file says; `shift_m` (x, y) is that of the whole detector, 0 where the frames tell it."""

    panels: tuple[Panel, ...]
    bad: tuple[BadRegion, ...] = ()
    shift_m: tuple[float, float] = (0.0, 0.0)
    beam: Quantity | None = None
    """The wavelength, photon energy or voltage."""
    clen: Quantity | None = None
    """The distance that is common to the panels."""
    bad_pixels: dict[str, BadPixels] = field(default_factory=dict)
    frame: tuple[int, int] | None = None
    """(y, x) of the frames, where they have rows or columns of no panel at their end."""
    plane: int = 0
    """Rows of one of the planes that lie one below the other in a frame."""

    @property
    def wavelength_m(self) -> float | None:
        """None where it is a place in the data files, or is not told."""
        value = None if self.beam is None else self.beam.value
        return None if self.beam is None or value is None else wavelength_of(self.beam.key, value)

    @property
    def shape(self) -> tuple[int, int]:
        """(y, x) of the frames: as given, else what holds every panel."""
        return self.frame or (self.height * self.layers, self.width)

    @property
    def layers(self) -> int:
        """Planes of the data, which lie one below the other in a frame."""
        return max(panel.layer for panel in self.panels) + 1

    @property
    def height(self) -> int:
        """Rows of a plane that hold every panel."""
        return max(panel.span[3] for panel in self.panels) + 1

    @property
    def width(self) -> int:
        """Columns that hold every panel."""
        return max(panel.span[1] for panel in self.panels) + 1

    def framed(self, shape: Sequence[int] | None) -> GeomFile:
        """The same panels in frames of a shape: what lies after the last panel is of none.

        Raises
        ------
        MrcFormatError
            The frames do not hold every panel.
        """
        size = (self.height * self.layers, self.width) if shape is None else (int(shape[0]), int(shape[1]))
        rows, rest = divmod(size[0], self.layers)
        if self.layers > 1 and size[0] % self.height == 0:  # whole planes, maybe more than panels are in
            rows, rest = self.height, 0 if size[0] == self.height * self.layers or rest else 1
        if rest or rows < self.height or size[1] < self.width or size[0] < rows * self.layers:
            planes = f"{self.layers} planes of " if self.layers > 1 else ""
            held = f"{planes}{self.height} x {self.width} pixels"
            raise MrcFormatError(f"the panels need {held}, the frames are {size} (y, x): it is of another detector")
        placed = tuple(replace(panel, first_row=panel.layer * rows) for panel in self.panels)
        return replace(self, frame=size, plane=rows, panels=placed)

    def maps(self, distance_m: float | None) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
        """(3, y, x) positions in metres, (3, y, x) unit vectors across the panels, and (y, x) the bad pixels.

        Pixels of no panel are bad, and at the sample.
        """
        positions, normals = np.zeros((2, 3, *self.shape))
        mask = np.ones(self.shape, bool)
        for panel in self.panels:
            rows, cols = panel.place()
            if not mask[rows, cols].all() and panel.used:
                raise MrcFormatError(f"panel {panel.name} lies on another one")
            positions[:, rows, cols] = panel.positions(_distance(panel, distance_m))
            normals[:, rows, cols] = panel.normal[:, None, None]
            if panel.used:
                mask[rows, cols] = self._bad(panel, positions[:, rows, cols])
                self._spare_edges(panel, mask[rows, cols])
            for axis, shift in zip(positions, self.shift_m, strict=False):
                axis[rows, cols] += shift
        return positions, normals, mask

    def _spare_edges(self, panel: Panel, mask: NDArray[np.bool_]) -> None:
        """Mask so many pixels of each side of a panel as the file says."""
        edge = self.bad_pixels[panel.name].edge if panel.name in self.bad_pixels else 0
        if edge > 0:
            inside = mask[edge:-edge, edge:-edge].copy()
            mask[...] = True
            mask[edge:-edge, edge:-edge] = inside

    def positions(self, y: ArrayLike, x: ArrayLike, distance_m: float | None) -> NDArray[np.float64]:
        """(3, n) x, y and z in metres of places (n) in pixels of the frame, each on the panel that holds it.

        Between panels, and off the frame, on the plane of the panel nearest in the frame.
        """
        rows, columns = (np.asarray(values, np.float64) for values in (y, x))
        out = np.full((3, *rows.shape), np.nan)
        least = np.full(rows.shape, np.inf)
        for panel in self.panels:
            away = panel.away(rows, columns)
            near = away <= least  # of panels that lie on one another the last one counts, as in maps
            least[near] = away[near]
            out[:, near] = panel.places(rows[near], columns[near], _distance(panel, distance_m))
            for axis, shift in zip(out, self.shift_m, strict=False):
                axis[near] += shift
        return out

    def _bad(self, panel: Panel, positions: NDArray[np.float64]) -> NDArray[np.bool_]:
        found = np.zeros(positions.shape[1:], bool)
        fs = np.arange(panel.span[0], panel.span[1] + 1)
        ss = np.arange(panel.span[2], panel.span[3] + 1)[:, None]  # of the plane, as the file counts
        for region in self.bad:
            if region.panel not in (None, panel.name):
                continue
            low_1, high_1, low_2, high_2 = region.span
            one, two = positions[:2] * panel.pixels_per_m if region.in_space else (fs, ss)
            found |= (low_1 <= one) & (one <= high_1) & (low_2 <= two) & (two <= high_2)
        return found


def _distance(panel: Panel, distance_m: float | None) -> float:
    """From the sample, in metres; a given one stands for that of the file."""
    clen = panel.clen_m if distance_m is None else distance_m
    if clen is None:
        raise MrcFormatError(f"panel {panel.name} has no distance: give distance_m=")
    return clen + panel.offset_m


def parse_geom(text: str) -> GeomFile:
    """Read a geometry file.

    Raises
    ------
    MrcFormatError
        It has no panels, a panel lacks something, or its panels are not in one plane (y, x) of the data.
    """
    common: dict[str, str] = {}
    panels: dict[str, dict[str, str]] = {}
    regions: dict[str, dict[str, str]] = {}
    for name, key, value in _lines(text):
        if name is None:
            common.pop(key, None)  # of several the last one counts, and in that order
            common[key] = value
        elif name.startswith("bad"):
            regions.setdefault(name, {})[key] = value
        else:
            panels.setdefault(name, dict(common))[key] = value
    if not panels:
        raise MrcFormatError("there are no panels: this is no CrystFEL geometry")
    layers = _layers(panels)
    found = GeomFile(
        panels=tuple(_panel(name, said, layers[name]) for name, said in panels.items()),
        bad=tuple(_region(name, said) for name, said in regions.items()),
        shift_m=(length_of(common, "detector_shift_x") or 0.0, length_of(common, "detector_shift_y") or 0.0),
        beam=beam_of(common),
        clen=quantity(common, "clen"),
        bad_pixels=bad_pixels_of(_lines(text)),
    )
    return found.framed(None)


def _layers(panels: Mapping[str, Mapping[str, str]]) -> dict[str, int]:
    """Number of the plane of the data in which each panel lies: that of the axis along which panels differ.

    Raises
    ------
    MrcFormatError
        Panels are in planes along several axes or in several datasets, or columns come before rows.
    """
    axes = {name: _axes(name, said) for name, said in panels.items()}
    kinds = {
        tuple((key, "number" if value.isdigit() else value) for key, value in found.items()) for found in axes.values()
    }
    places = {said.get("data", "") for said in panels.values()}
    if len(kinds) > 1 or len(places) > 1:
        raise MrcFormatError("panels are in data of several layouts or places: only panels of one dataset are read")
    numbers = {axis: {found[axis] for found in axes.values()} for axis in next(iter(axes.values()))}
    varied = [axis for axis, values in numbers.items() if len(values) > 1]
    if len(varied) > 1:
        raise MrcFormatError(f"panels are in planes along {' and '.join(varied)}: only those along one axis are read")
    return {name: int(found[varied[0]]) if varied else 0 for name, found in axes.items()}


def _axes(name: str, said: Mapping[str, str]) -> dict[str, str]:
    """What each axis of the data of a panel is, the slowest first."""
    keys = sorted((key for key in said if re.fullmatch(r"dim\d+", key)), key=lambda key: int(key[3:]))
    axes = {key: said[key] for key in keys}
    values = list(axes.values())
    if {"ss", "fs"} <= set(values) and values.index("fs") < values.index("ss"):
        raise MrcFormatError(
            f"panel {name}: its fast axis fs comes before ss: write the slow one first, as CrystFEL does"
        )
    return axes


def _lines(text: str) -> Iterator[tuple[str | None, str, str]]:
    """(panel or None, key, value) of each line."""
    for line in text.splitlines():
        said, _, value = line.partition(";")[0].partition("=")
        name, slash, key = said.strip().rpartition("/")
        if not value or (not slash and key.startswith(_NOT_PANELS)):
            continue
        yield (name if slash else None), key.strip(), value.strip()


def _panel(name: str, said: dict[str, str], layer: int) -> Panel:
    missing = [key for key in (*_SPANS, "corner_x", "corner_y", "fs", "ss", "res") if key not in said]
    if missing:
        raise MrcFormatError(f"panel {name} lacks {', '.join(missing)}")
    try:
        span = tuple(int(float(said[key])) for key in _SPANS)
        resolution = float(said["res"])
        corner = float(said["corner_x"]), float(said["corner_y"])
        clen = length_of(said, "clen")
        offset = offset_of(said.get("coffset", "0"))
    except ValueError as error:
        raise MrcFormatError(f"panel {name}: {error}") from None
    if span[0] > span[1] or span[2] > span[3] or min(span) < 0 or resolution <= 0:
        raise MrcFormatError(f"panel {name} spans {span} at {resolution} pixels/m")
    return Panel(
        name=name,
        span=span,  # type: ignore[arg-type]
        corner=corner,
        fs=_vector(said["fs"], name),
        ss=_vector(said["ss"], name),
        pixels_per_m=resolution,
        clen_m=clen,
        offset_m=offset,
        used=said.get("no_index", "0") in ("0", "false"),
        layer=layer,
    )


def _vector(text: str, name: str) -> tuple[float, float, float]:
    parts = dict.fromkeys("xyz", 0.0)
    for number, axis in _VECTOR.findall(text):
        digits = number.replace(" ", "")
        parts[axis] = float(digits + "1" if digits in ("", "+", "-") else digits)
    found = parts["x"], parts["y"], parts["z"]
    if not any(found):
        raise MrcFormatError(f"panel {name}: {text!r} is no direction")
    return found


def _region(name: str, said: dict[str, str]) -> BadRegion:
    for in_space, (one, two) in ((False, ("fs", "ss")), (True, ("x", "y"))):
        keys = f"min_{one}", f"max_{one}", f"min_{two}", f"max_{two}"
        if all(key in said for key in keys):
            return BadRegion(tuple(float(said[key]) for key in keys), in_space, said.get("panel"))  # type: ignore[arg-type]
    raise MrcFormatError(f"{name} lacks its limits: min_fs, max_fs, min_ss, max_ss or min_x, max_x, min_y, max_y")
