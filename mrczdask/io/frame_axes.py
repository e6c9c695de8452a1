"""What the axes of frames in HDF5 mean: those of a scan, thresholds or panels, as the file says."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from mrczdask import schema
from mrczdask.errors import MrcFormatError
from mrczdask.io.frame_set import SCAN_DIMS
from mrczdask.io.hdf5_find import text_of

THRESHOLD: Final = "threshold"
PANEL: Final = "panel"
_SCAN: Final = re.compile(r"4d.?stem|datacube|(^|/)Experiments/", re.IGNORECASE)
_VELOX: Final = re.compile(r"^Data/(Image|SpectrumStream)/")
"""Velox has the frames along the last axis."""
_MODULES: Final = "module_identifier"
"""CXI: beside the data of detectors in modules."""
_PANEL: Final = re.compile(
    r"(^|/)(entry|instrument)_\d+/(data|detector)_\d+/|(^|/)INSTRUMENT/|/image/data$|AGIPD|DSSC|LPD|JF\d+T|JUNGFRAU|"
    r"ePix|CSPAD|module|panel",
    re.IGNORECASE,
)
_NAMES: Final = {
    "scan": re.compile(r"scan|^r[xy]|nav|^pos", re.IGNORECASE),
    PANEL: re.compile(r"module|panel|asic", re.IGNORECASE),
    THRESHOLD: re.compile(r"channel|threshold|energy", re.IGNORECASE),
}
"""Paths and names of axes as 4D-STEM programs, CXI and EuXFEL, and NXmx have them."""
_CHANNEL: Final = "channel"
"""NXmx: the axis of the thresholds, and the end of the names of groups with what is of one of them."""


@dataclass(frozen=True)
class Axes:
    """The axes in front of (y, x): their sizes and names, and of thresholds their labels."""

    sizes: tuple[int, ...]
    dims: tuple[str, ...]
    labels: tuple[Any, ...] = ()

    @property
    def pair(self) -> tuple[int, int]:
        return self.sizes[0], self.sizes[1]

    @property
    def four(self) -> tuple[str, str, str, str]:
        """Names of all axes but those of a scan."""
        return self.dims[0], self.dims[1], schema.Y, schema.X

    def chosen(self, threshold: int | str | None, url: str) -> int | None:
        """The place of a threshold; numbers count from 1, as the file names them."""
        if threshold is None:
            return None
        known = list(self.labels)
        names = (threshold, f"{THRESHOLD}_{threshold}")
        found = next((known.index(name) for name in names if name in known), None)
        if found is None:
            listed = ", ".join(map(str, known)) or "none"
            raise MrcFormatError(f"there is no threshold {threshold}, the file has: {listed}", url=url)
        return found


@dataclass(frozen=True)
class Said:
    """Where a dataset stands: what tells of its axes."""

    path: str
    dataset: Any
    group: Any
    root: Any
    detector: Any | None

    def names(self) -> list[str]:
        """Names of the axes, of NXdata or of the dimensions of the dataset."""
        axes = self.group.attrs.get("axes", ())
        listed = [axes] if isinstance(axes, str | bytes) else list(axes)
        return [text_of(one) for one in listed] + [str(dim.label) for dim in self.dataset.dims]

    def is_scan(self) -> bool:
        """EMD, py4DSTEM and HyperSpy say so by attributes and groups of their own."""
        own = "emd_group_type" in self.group.attrs or "axis-0" in self.group or "dim0" in self.group
        return own or bool(_SCAN.search(self.path)) or self._is_named("scan")

    def is_panels(self) -> bool:
        told = self.detector is not None and _MODULES in self.detector
        return "cxi_version" in self.root or told or bool(_PANEL.search(self.path)) or self._is_named(PANEL)

    def is_thresholds(self) -> bool:
        """NXmx names them, or has no other fourth axis."""
        return self.detector is not None or self.names_thresholds()

    def names_thresholds(self) -> bool:
        named = self.detector is not None and any(name.endswith(f"_{_CHANNEL}") for name in self.detector)
        return named or self._is_named(THRESHOLD)

    def _is_named(self, kind: str) -> bool:
        return any(_NAMES[kind].search(name) for name in self.names())

    def labels(self, n: int) -> tuple[Any, ...]:
        """Names of the thresholds, or their numbers from 1."""
        channel = self.group.get(_CHANNEL)
        if getattr(channel, "shape", None) == (n,):
            return tuple(text_of(one) for one in channel[()])
        return tuple(range(1, n + 1))


def axes_of(shapes: Sequence[tuple[int, ...]], said: Said, url: str, *, is_scan: bool = False) -> Axes:
    """The axes in front of the rows and columns of datasets that follow one another along the first.

    Raises
    ------
    MrcFormatError
        There are more axes than the file tells the meaning of.
    """
    first = shapes[0]
    total = sum(shape[0] if len(shape) > 2 else 1 for shape in shapes)
    if _VELOX.search(said.path):
        raise MrcFormatError(f"{said.path} has its frames along the last axis, as Velox writes: convert it", url=url)
    if len(first) < 4:
        return Axes((total,), (schema.SHOT,))
    same = all(shape[1:] == first[1:] for shape in shapes)
    if len(shapes) == 1 and len(first) == 4 and (is_scan or said.is_scan()):
        return Axes(first[:2], SCAN_DIMS[:2])
    wide = [n for n in first[1:-2] if n > 1]
    if same and not wide:
        return Axes((total,), (schema.SHOT,))
    if same and len(wide) == 1 and total == 1 and not (said.is_panels() or said.is_thresholds()):
        return Axes(tuple(wide), (schema.SHOT,))
    if same and len(wide) == 1:
        if said.is_panels() and not said.names_thresholds():
            return Axes((total, wide[0]), (schema.SHOT, PANEL))
        if said.is_thresholds():
            return Axes((total, wide[0]), (schema.SHOT, THRESHOLD), said.labels(wide[0]))
    axes = f"{said.path} has the axes {first}, and the file does not say what they are"
    remedy = f": a scan is opened with scan_shape={first[:2]}" if len(first) == 4 else ": write those to be read apart"
    raise MrcFormatError(axes + remedy, url=url)


def channel_of(detector: Any, label: Any) -> Any | None:
    """What a detector says of one threshold alone."""
    found = detector.get(f"{label}_{_CHANNEL}") if isinstance(label, str) else None
    found = found if hasattr(found, "keys") else detector.get(f"{THRESHOLD}_{label}_{_CHANNEL}")
    return found if hasattr(found, "keys") else None
