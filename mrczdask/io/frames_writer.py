"""Dense frames written as an Eiger does: a NeXus master file and packed data files beside it."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import dask
import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

import mrczdask
from mrczdask import schema
from mrczdask.errors import MrczdaskError
from mrczdask.execution.progress import Progress, track
from mrczdask.execution.regions import run_regions
from mrczdask.execution.resume import check_plan
from mrczdask.io.detector_facts import SHOTS
from mrczdask.io.detector_values import OFFSET, SCALE
from mrczdask.io.frame_set import FRAME_DIMS, MASK
from mrczdask.io.frames import open_frames
from mrczdask.io.geometry import Geometry
from mrczdask.io.grown_store import HDF5_SUFFIXES
from mrczdask.io.hdf5_file import hdf5
from mrczdask.io.nxmx import DETECTOR, write_module, write_specific
from mrczdask.io.sparse_table import CENTER
from mrczdask.io.validity import DELTA, DUMMY, SATURATION, UNDERLOAD

MASTER: Final = "_master"
DATA: Final = "entry/data/data"
FRAMES_PER_FILE: Final = 1000
"""What the filewriter of an Eiger puts in a data file."""
CHUNK_BYTES: Final = 64 << 20


def write_frames(
    frames: xr.DataArray,
    url: str | os.PathLike[str],
    *,
    geometry: Geometry | None = None,
    mask: ArrayLike | None = None,
    frames_per_file: int = FRAMES_PER_FILE,
    resume: bool = False,
    progress: Progress = None,
) -> xr.DataArray:
    """Write frames as Eiger detectors do: a NeXus master and data files, packed by bitshuffle and LZ4.

    Parameters
    ----------
    frames : DataArray
        (shot, y, x) integers or floats, such as `densify` gives.
    url : str or path
        The master file, "run_master.h5" or "run.h5"; data files are put beside it, "run_data_000001.h5" and so on.
    geometry : Geometry, optional
        Of the detector; what it does not know, and by default all, is what the attributes of the frames say of it.
    mask : array of bool, optional
        (y, x), True = bad. By default the coordinate `mask` of the frames and the mask of the geometry together.
    frames_per_file : int
        Frames of a data file.
    resume : bool
        Keep the data files that an earlier run of the same frames finished.
    progress : bool or callable, optional
        Show a bar, or call progress(done, total, label) as blocks are done.

    Returns
    -------
    DataArray
        The file, opened.

    Raises
    ------
    MissingExtraError
        h5py or hdf5plugin is not installed.
    MrczdaskError
        The frames are not (shot, y, x), the name has another ending, or the folder is missing, or a mask does not fit.
    ResumeError
        Data files are there that were made in another way.

    Notes
    -----
    Integers are in the layout that XDS reads through neggia [1]_. Where beam centre, distance and pixel size are known
    of a flat detector across the beam there is a detector module as NXmx [2]_ has it; DIALS asks for a wavelength and
    for the sensor too, which is written where the attributes `sensor_material` and `sensor_thickness_m` tell it.

    Beam centres of the shots, coordinates `beam_center_y` and `beam_center_x`, are kept in `entry/shots`. Frames are
    packed by the tasks that make them and written in order, so that memory is that of a few blocks. A data
    file is put in place when it is whole, the master file at the end.

    References
    ----------
    .. [1] DECTRIS, neggia, "HDF5 file compatibility requirements".
    .. [2] NeXus, application definition NXmx, and Bernstein et al. (2020), IUCrJ 7, 784-792.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> import mrczdask as md
    >>> frames = xr.DataArray(np.ones((3, 64, 64), np.uint16), dims=("shot", "y", "x"))
    >>> md.write_frames(frames, "run_master.h5").sizes["shot"]
    3
    """
    path = os.fspath(url)
    if not path.endswith(HDF5_SUFFIXES):
        raise MrczdaskError(f"{path}: give a name that ends in .h5, .hdf5 or .nxs")
    if not os.path.isdir(folder := os.path.dirname(path) or "."):
        raise MrczdaskError(f"{path}: there is no folder {folder}: make it first")
    if not isinstance(frames, xr.DataArray):
        raise MrczdaskError(f"{path}: a {type(frames).__name__} is no DataArray of {FRAME_DIMS}: give xarray.DataArray")
    if frames.dims != FRAME_DIMS or frames.dtype.kind not in "iuf" or frames_per_file < 1:
        raise MrczdaskError(f"{path}: {frames.dtype} {frames.dims}: give numbers of {FRAME_DIMS}")
    geometry = None if geometry is None else geometry.framed(frames.shape[1:])
    bad = _mask(frames, geometry, mask)
    data = _chunked(frames)
    names = data_files(path, data.shape[0], frames_per_file)
    plan = {"frames": data.name, "shape": list(data.shape), "dtype": data.dtype.str, "per_file": frames_per_file}
    with track(progress, _count_blocks(data, frames_per_file), path) as advance:
        for k, name in enumerate(names):
            part = data[k * frames_per_file : (k + 1) * frames_per_file]
            if resume and _is_done(name, plan):
                for _ in part.chunks[0]:
                    advance()
            else:
                _write_data(name, part, k * frames_per_file, plan, advance)
    _write_master(path, names, frames, geometry, bad)
    return open_frames(path)


def _chunked(frames: xr.DataArray) -> da.Array:
    """Whole frames, a block of at most 64 MB where they are in memory."""
    if isinstance(frames.data, da.Array):
        return frames.data.rechunk({1: -1, 2: -1})
    step = max(CHUNK_BYTES // max(frames.dtype.itemsize * frames.shape[1] * frames.shape[2], 1), 1)
    return da.from_array(frames.data, chunks=(step, -1, -1))


def _mask(frames: xr.DataArray, geometry: Geometry | None, mask: ArrayLike | None) -> NDArray[np.bool_] | None:
    given = [mask] if mask is not None else []
    if mask is None and MASK in frames.coords:
        bad_of_frames = frames.coords[MASK]
        if bad_of_frames.ndim > 2:
            raise MrczdaskError(f"the mask of the frames is {bad_of_frames.shape}, one for each: give mask= of (y, x)")
        given.append(bad_of_frames.values)
    if mask is None and geometry is not None:
        given.append(geometry.mask)
    bad: NDArray[np.bool_] | None = None
    for one in given:
        part = np.asarray(one, bool)
        if part.shape != frames.shape[1:]:
            raise MrczdaskError(f"a mask has the shape {part.shape}, the frames {frames.shape[1:]}")
        bad = part if bad is None else bad | part
    return bad


def data_files(master: str, n: int, per_file: int = FRAMES_PER_FILE) -> list[str]:
    """Names of the data files of a master file for `n` frames."""
    stem, suffix = os.path.splitext(master)
    stem = stem.removesuffix(MASTER)
    return [f"{stem}_data_{k + 1:06d}{suffix}" for k in range(max(-(-n // per_file), 1))]


def _count_blocks(data: da.Array, per_file: int) -> int:
    """Blocks of all data files: one that lies in two files is counted in both."""
    return sum(len(data[k : k + per_file].chunks[0]) for k in range(0, max(data.shape[0], 1), per_file))


def _is_done(name: str, plan: Mapping[str, Any]) -> bool:
    if not os.path.exists(name):
        return False
    with hdf5(name).File(name, "r") as file:
        stored = json.loads(file.attrs.get("plan", "{}"))
    check_plan(stored, plan, name)
    return True


@contextmanager
def _created(path: str) -> Iterator[Any]:
    """A new HDF5 file, put in place when it is whole."""
    part = f"{path}.part"
    try:
        with hdf5(path).File(part, "w") as file:
            yield file
        os.replace(part, path)
    except BaseException:
        if os.path.exists(part):
            os.remove(part)
        raise


def _write_data(name: str, data: da.Array, first: int, plan: Mapping[str, Any], advance: Any) -> None:
    import hdf5plugin

    shape = (1, *data.shape[1:])
    blocks = data.to_delayed().ravel()
    tasks = ((k, dask.delayed(packed_frames, pure=False)(block)) for k, block in enumerate(blocks))
    with _created(name) as file:
        file.attrs["plan"] = json.dumps(plan)
        made = file.create_dataset(DATA, data.shape, data.dtype, chunks=shape, **hdf5plugin.Bitshuffle(cname="lz4"))
        made.attrs["image_nr_low"], made.attrs["image_nr_high"] = first + 1, first + data.shape[0]
        at = 0
        for _, chunks in run_regions(tasks, on_done=advance):
            for chunk in chunks:
                made.id.write_direct_chunk((at, 0, 0), chunk)
                at += 1


def packed_frames(block: NDArray[Any]) -> list[bytes]:
    """Each frame packed by bitshuffle and LZ4, as it stands in a chunk of a file."""
    h5py = hdf5("frames")
    import hdf5plugin

    if not len(block):
        return []
    memory = {"driver": "core", "backing_store": False}
    with h5py.File(f"{uuid.uuid4().hex}.h5", "w", **memory) as file:
        made = file.create_dataset("a", data=block, chunks=(1, *block.shape[1:]), **hdf5plugin.Bitshuffle(cname="lz4"))
        return [bytes(made.id.read_direct_chunk((k, 0, 0))[1]) for k in range(len(block))]


def _write_master(
    path: str, names: list[str], frames: xr.DataArray, geometry: Geometry | None, bad: NDArray[np.bool_] | None
) -> None:
    h5py = hdf5(path)
    with _created(path) as file:
        classes = {
            "entry": "NXentry",
            "entry/data": "NXdata",
            "entry/instrument": "NXinstrument",
            DETECTOR: "NXdetector",
            "entry/instrument/beam": "NXbeam",
            "entry/sample": "NXsample",
            f"entry/{SHOTS}": "NXcollection",
        }
        for group, kind in classes.items():
            file.create_group(group).attrs["NX_class"] = kind
        file.attrs["NX_class"], file.attrs["default"], file["entry"].attrs["default"] = "NXroot", "entry", "data"
        file["entry/definition"] = "NXmx"
        file["entry/program_name"] = f"mrczdask {mrczdask.__version__}"
        file["entry/data"].attrs["signal"] = "data_000001"
        for k, name in enumerate(names):
            file[f"entry/data/data_{k + 1:06d}"] = h5py.ExternalLink(os.path.basename(name), f"/{DATA}")
        for name, value, unit in _facts(frames, geometry):
            file[name] = value
            if unit:
                file[name].attrs["units"] = unit
        shape = (int(frames.shape[1]), int(frames.shape[2]))
        write_specific(file, frames.shape[0], shape, bad)
        if geometry is None or geometry.maps.is_flat:  # tilts are not written, and a module across the beam is wrong
            write_module(file, shape, _attrs(frames, geometry))
        if schema.HISTORY in frames.attrs:
            file["entry/notes"] = frames.attrs[schema.HISTORY]


def _attrs(frames: xr.DataArray, geometry: Geometry | None) -> Mapping[str, Any]:
    return frames.attrs if geometry is None else frames.attrs | geometry.facts()


def _facts(frames: xr.DataArray, geometry: Geometry | None) -> Iterator[tuple[str, Any, str]]:
    """(dataset, value, unit) of what is known of the detector."""
    attrs = _attrs(frames, geometry)
    for name, key, unit in (("beam_center", "beam_center_{}", "pixel"), ("pixel_size_m", "{}_pixel_size", "m")):
        for axis, value in zip("yx", attrs.get(name) or (), strict=False):
            yield f"{DETECTOR}/{key.format(axis)}", float(value), unit
    for name in CENTER if all(name in frames.coords for name in CENTER) else ():
        yield f"entry/{SHOTS}/{name}", np.asarray(frames.coords[name].values, np.float64), "pixel"
    if attrs.get("distance_m"):
        yield f"{DETECTOR}/detector_distance", float(attrs["distance_m"]), "m"
    if attrs.get("wavelength_m"):
        yield "entry/instrument/beam/incident_wavelength", 1e10 * float(attrs["wavelength_m"]), "angstrom"
    for name in (UNDERLOAD, SATURATION):
        if frames.attrs.get(name) is not None:
            yield f"{DETECTOR}/{name}", frames.attrs[name], ""
    dummy = frames.attrs.get(DUMMY)
    if dummy is not None and np.isfinite(dummy):  # as pyFAI writes detectors
        yield f"{DETECTOR}/{DUMMY}", dummy, ""
        yield f"{DETECTOR}/{DELTA}", frames.attrs.get(DELTA) or 0.0, ""
    if frames.attrs.get("counts_per_photon"):
        yield f"{DETECTOR}/adu_per_photon", float(frames.attrs["counts_per_photon"]), ""
    for name in (SCALE, OFFSET):
        if name in frames.attrs:
            yield f"entry/data/{name}", float(frames.attrs[name]), ""
    yield f"{DETECTOR}/bit_depth_image", 8 * frames.dtype.itemsize, ""
