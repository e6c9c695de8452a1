"""Values, masks and gain of a .geom file: which numbers of its panels are counts, and which pixels are bad."""

from __future__ import annotations

import os
import warnings
from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mrczdask.errors import AmbiguousFileWarning, MrcFormatError, MrczdaskWarning
from mrczdask.formats.geom import GeomFile
from mrczdask.formats.geom import Panel as GeomPanel
from mrczdask.formats.geom_bad import BadPixels, MaskPlace
from mrczdask.formats.geom_units import PLANCK_EV_M
from mrczdask.io.detector_masks import bad_pixels
from mrczdask.io.geom_places import Frames
from mrczdask.io.hdf5_file import open_hdf5
from mrczdask.io.hdf5_links import linked
from mrczdask.io.session import expand_urls
from mrczdask.io.validity import Panel, Validity

_PLANE: Final = 2
_NO_MASK: Final = np.zeros(())


def flags_of(said: GeomFile) -> Validity:
    """The rule of its flags: one of all panels, or one of each where they differ."""
    rules = [_rule(_bad(said, panel)) for panel in said.panels]
    if len(set(rules)) == 1:
        return rules[0]
    panels = zip(said.panels, rules, strict=True)
    return Validity(panels=tuple(Panel(_place(panel), rule) for panel, rule in panels if rule != Validity()))


def gain_of(said: GeomFile, wavelength_m: float | None, url: str) -> float | None:
    """Counts of a photon; of panels that differ that of the first, which a warning says.

    Raises
    ------
    MrcFormatError
        It is not above 0.
    """
    found: dict[float, str] = {}
    for panel in said.panels:
        bad = _bad(said, panel)
        gain = bad.gain
        if gain is None and bad.per_ev is not None and wavelength_m:
            gain = bad.per_ev * PLANCK_EV_M / wavelength_m
        if gain is not None:
            found.setdefault(gain, panel.name)
    if not found:
        return None
    first = next(iter(found))
    if not all(0 < gain < np.inf for gain in found):
        raise MrcFormatError(f"adu_per_photon is {min(found):g}: it must be above 0", url=url)
    if len(found) > 1:
        warnings.warn(
            f"{url}: adu_per_photon is {', '.join(f'{gain:g} of {name}' for gain, name in found.items())}: counting "
            f"noise is reckoned with {first:g} everywhere",
            AmbiguousFileWarning,
            stacklevel=4,
        )
    return first


def masks_in_files(said: GeomFile, url: str, frames: Frames | None) -> tuple[NDArray[np.bool_], tuple[str, ...]]:
    """(y, x) of the pixels that masks in files say to be bad; names of those in data files that are not given.

    Raises
    ------
    MrcFormatError
        A file or its dataset is missing, or is no mask of the panels.
    """
    bad = np.zeros(said.shape, bool)
    read: dict[MaskPlace, NDArray[np.bool_] | None] = {}
    for panel in said.panels:
        for number, mask in _bad(said, panel).masks:
            if mask not in read:
                read[mask] = _read(mask, number, url, frames, said.shape)
            whole = read[mask]
            if whole is None:
                continue
            y0, y1, x0, x1 = _place(panel)
            part = whole[y0:y1, x0:x1]
            if part.shape != (y1 - y0, x1 - x0):
                raise MrcFormatError(f"{mask.data} is {whole.shape}: it does not hold the panel {panel.name}")
            bad[y0:y1, x0:x1] |= part
    return bad, tuple(mask.data for mask, found in read.items() if found is None and mask.data)


def _read(
    mask: MaskPlace, number: str, url: str, frames: Frames | None, shape: tuple[int, int]
) -> NDArray[np.bool_] | None:
    """Where a mask (y, x) says that pixels are bad, in its file or those of the frames; None where no frames are given.

    Its file is relative to the working folder, as in CrystFEL, or to that of the .geom file. One for each frame is none
    of a geometry: frames have it as their coordinate.
    """
    name = f"mask{number}_data = {mask.data}"
    if not mask.data:
        return None
    if mask.file:
        beside = os.path.join(os.path.dirname(url), mask.file)
        files = [path for path in (mask.file, beside) if os.path.isfile(path)][:1]
        if not files:
            raise MrcFormatError(f"mask{number}_file = {mask.file}: there is no such file: put it beside")
    else:
        urls: Any = frames.encoding.get("source") if isinstance(frames, xr.DataArray) else frames
        files = [] if urls is None else expand_urls(urls)
        if not files or (isinstance(frames, xr.DataArray) and frames.coords.get("mask", _NO_MASK).ndim > _PLANE):
            return None
    planes = [plane for file in files if (plane := _plane(file, mask, name)) is not None]
    if not planes:
        return np.zeros(shape, bool)
    if not all(plane.shape == planes[0].shape for plane in planes):
        raise MrcFormatError(f"{name}: masks of different shapes in {files[0]} and others")
    return np.logical_or.reduce(planes)


def _plane(path: str, mask: MaskPlace, name: str) -> NDArray[np.bool_] | None:
    """(y, x), True = bad; None, and a warning, where files of frames lack it: one .geom file serves many runs."""
    with open_hdf5(path) as file, linked(file, path, mask.data) as (found, _):
        if found is None and not mask.file:
            told = f"{name}: there is no such mask in {path}: no pixel is masked by it"
            warnings.warn(told, MrczdaskWarning, stacklevel=2)
            return None
        if found is None or getattr(found, "ndim", 0) < _PLANE or found.dtype.kind not in "iub":
            raise MrcFormatError(f"{name}: there is no such mask in {path}")
        if any(size != 1 for size in found.shape[:-_PLANE]):
            problem = f"{name} is {found.shape} in {path}, one for each frame: give open_frames(..., mask=) its name"
            raise MrcFormatError(f"{problem}, and the frames to from_geom(..., frames=)")
        values = np.asarray(found[()]).reshape(found.shape[-_PLANE:])
    return bad_pixels(values, mask.bad_bits, mask.good_bits)


def _bad(said: GeomFile, panel: GeomPanel) -> BadPixels:
    return said.bad_pixels.get(panel.name, BadPixels())


def _rule(bad: BadPixels) -> Validity:
    return Validity(bad.lowest, bad.highest, tuple((value, value) for value in sorted(set(bad.equal))))


def _place(panel: GeomPanel) -> tuple[int, int, int, int]:
    rows, columns = panel.place()
    return rows.start, rows.stop, columns.start, columns.stop
