"""What XDS and readers of NXmx look for in a master file: the groups of DECTRIS and a detector module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

DETECTOR: Final = "entry/instrument/detector"
_BAD: Final = 1
"""Bit of the pixel mask of NXmx: a gap."""
_SENSOR: Final = {"sensor_material": None, "sensor_thickness": "m"}
"""What DIALS asks for besides, by the attributes of frames `sensor_material` and `sensor_thickness_m`, and its unit."""


def write_specific(file: Any, n_frames: int, shape: tuple[int, int], bad: NDArray[np.bool_] | None) -> None:
    """The group that neggia, the plugin of XDS, reads: how many images, and a mask even where no pixel is bad."""
    import hdf5plugin

    specific = file.create_group(f"{DETECTOR}/detectorSpecific")
    specific.attrs["NX_class"] = "NXcollection"
    specific["nimages"], specific["ntrigger"] = np.uint64(n_frames), np.uint64(1)
    mask = np.zeros(shape, np.uint32) if bad is None else bad.astype(np.uint32) * np.uint32(_BAD)
    specific.create_dataset("pixel_mask", data=mask, chunks=shape, **hdf5plugin.Bitshuffle(cname="lz4"))
    if bad is not None:
        file[f"{DETECTOR}/pixel_mask"] = specific["pixel_mask"]
        file[f"{DETECTOR}/pixel_mask_applied"] = True


def write_module(file: Any, shape: tuple[int, int], facts: Mapping[str, Any]) -> None:
    """Where the pixels stand: one module across the beam, in the axes of NeXus, of which x points left as seen with
    the beam and y up. Nothing is written where distance, pixel size or beam centre are not known."""
    for name, unit in _SENSOR.items():
        value = facts.get(f"{name}_{unit}" if unit else name)
        if value is not None:
            file[f"{DETECTOR}/{name}"] = value
            file[f"{DETECTOR}/{name}"].attrs.update({"units": unit} if unit else {})
    sizes, center, distance = (facts.get(name) for name in ("pixel_size_m", "beam_center", "distance_m"))
    if not (sizes and center and distance):
        return
    path = f"/{DETECTOR}/transformations/translation"
    file.create_group(f"{DETECTOR}/transformations").attrs["NX_class"] = "NXtransformations"
    module = file.create_group(f"{DETECTOR}/module")
    module.attrs["NX_class"] = "NXdetector_module"
    module["data_origin"], module["data_size"] = np.zeros(2, np.int64), np.array(shape, np.int64)
    corner = [float(center[1]) * float(sizes[1]), float(center[0]) * float(sizes[0]), 0.0]
    _translation(file, path, distance, (0, 0, 1), ".")
    _translation(file, f"{module.name}/module_offset", 0.0, (0, 0, 1), path, corner)
    _translation(file, f"{module.name}/fast_pixel_direction", sizes[1], (-1, 0, 0), f"{module.name}/module_offset")
    _translation(file, f"{module.name}/slow_pixel_direction", sizes[0], (0, -1, 0), f"{module.name}/module_offset")
    file[f"{DETECTOR}/depends_on"] = path
    file["entry/sample/depends_on"] = "."


def _translation(
    file: Any, name: str, value: float, vector: tuple[int, int, int], on: str, offset: list[float] | None = None
) -> None:
    file[name] = float(value)
    said = {"transformation_type": "translation", "units": "m", "vector": np.array(vector, float), "depends_on": on}
    said |= {"offset": np.array(offset or [0.0, 0.0, 0.0]), "offset_units": "m"}
    file[name].attrs.update(said)
