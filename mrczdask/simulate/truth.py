"""What is known about simulated movies, as a lazy Dataset."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import DTypeLike, NDArray

from mrczdask import schema
from mrczdask.simulate import render
from mrczdask.simulate.defects import Defects
from mrczdask.simulate.frames import Grid
from mrczdask.simulate.scene import Scene

_PER_ELECTRON = {"units": "e/pixel/frame"}
_STILLS: Mapping[str, tuple[Callable[..., Any], DTypeLike, bool, Mapping[str, Any]]] = {
    "response": (render.response, "float32", False, {schema.CONVENTION: "divide"}),
    "gain": (render.gain, "float32", False, {schema.CONVENTION: "multiply"}),
    "pattern": (render.pattern, "float32", True, _PER_ELECTRON),
    "hot_excess": (render.hot_excess, "float32", True, _PER_ELECTRON),
    "mask": (render.mask, "bool", True, {}),
    "defect_kind": (
        render.defect_kind,
        "uint8",
        True,
        {"flag_values": np.arange(3, dtype=np.uint8), "flag_meanings": "good hot dead"},
    ),
    "specimen": (render.specimen, "float32", True, {}),
}
"""Name: how it is computed, its dtype, whether it is another one in each movie, its attributes."""


def make_truth(scene: Scene, grid: Grid, dtype: np.dtype[Any], attrs: Mapping[str, Any]) -> xr.Dataset:
    """All truths of a scene; `attrs` are those of its images."""
    clean = render.Raw(replace(scene, defects=Defects()))
    found = {
        "clean": grid.array(clean, schema.SESSION_DIMS, dtype, "clean", attrs),
        "expected": grid.array(render.Expected(scene), schema.SESSION_DIMS, "float32", "expected", {}),
    }
    for name, (image, kind, per_movie, about) in _STILLS.items():
        dims = (schema.MOVIE, schema.Y, schema.X) if per_movie else (schema.Y, schema.X)
        placed = {schema.ORIGIN: attrs[schema.ORIGIN], **about}
        found[name] = grid.array(render.Still(scene, image), dims, kind, name, placed)
    small = {name: xr.Variable(dims, values, about) for name, (dims, values, about) in _small(scene).items()}
    if schema.MOVIE not in grid.sizes:
        small = {name: variable.isel({schema.MOVIE: 0}) for name, variable in small.items()}
    return xr.Dataset({**found, **small}, attrs={"seed": scene.seed, "detector_seed": scene.detector_seed})


def _small(scene: Scene) -> dict[str, tuple[tuple[str, ...], NDArray[Any], dict[str, Any]]]:
    """What fits into memory: numbers a movie and a frame."""
    shifts = np.stack([scene.shifts(movie) for movie in range(len(scene.names))])
    film = [scene.specimen is not None and scene.specimen.has_carbon(scene.seed, name) for name in scene.names]
    along = (schema.MOVIE, schema.FRAME)
    return {
        "drift_y": (along, shifts[..., 0], {"units": "pixel"}),
        "drift_x": (along, shifts[..., 1], {"units": "pixel"}),
        "gamma": ((schema.MOVIE,), np.array(scene.gamma), {}),
        "carbon": ((schema.MOVIE,), np.array(film), {}),
    }
