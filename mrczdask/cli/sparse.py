"""The commands sparsify and densify."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from cyclopts import Parameter

from mrczdask.cli import OK
from mrczdask.cli.files import disk_size
from mrczdask.cli.options import AsJson, Quiet, Scheduler, read_array
from mrczdask.cli.output import megabytes, print_json, print_table
from mrczdask.errors import MrczdaskError

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

    from mrczdask.execution.progress import Progress
    from mrczdask.io.geometry import Geometry

Out = Annotated[str | None, Parameter(name=("--out", "-o"))]
Poni = Annotated[str | None, Parameter(name=("--poni", "-p"))]
Flag = Annotated[bool, Parameter(negative="")]
_KNOWN: Final = ("distance_m", "pixel_size_m", "beam_center")


def sparsify(
    *frames: str,
    out: Out = None,
    poni: Poni = None,
    geom: str | None = None,
    dataset: str | None = None,
    cutoff_pick: float = 3.0,
    bins: int = 800,
    unit: Literal["q_A^-1", "q_nm^-1", "2th_deg", "2th_rad", "r_m", "r_mm", "pixel"] = "q_A^-1",
    error_model: Literal["poisson", "azimuthal", "hybrid", "count"] = "poisson",
    cutoff_clip: float = 0.0,
    cycle: int = 5,
    noise: float = 1.0,
    mask: str | None = None,
    dummy: float | None = None,
    delta_dummy: float | None = None,
    polarization: float | None = None,
    solid_angle: Flag = False,
    radial_range: tuple[float, float] | None = None,
    beam_centers: str | None = None,
    budget: Flag = False,
    target_ratio: float | None = None,
    sample: int = 16,
    shells: int = 4,
    layout: Literal["pyfai", "imaged11"] = "pyfai",
    resume: Flag = False,
    scheduler: Scheduler = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> int:
    """Keep the pixels of diffraction frames that stand out of their background, and the background.

    Parameters
    ----------
    frames
        HDF5 master files, CBF, .blo, .mib, MRC or Zarr: files or patterns, taken one after another.
    out
        .h5, .hdf5, .nxs or .zarr, the latter also at a url. It may be left out with --budget.
    poni
        Geometry of the detector as pyFAI writes it. Without it and --geom, what the frames say of a flat detector.
    geom
        Geometry of the detector as CrystFEL writes it.
    dataset
        The dataset with the frames, where an HDF5 file does not tell it.
    cutoff_pick
        A pixel is kept that is further than this above the background, in deviations.
    bins
        Radial bins.
    unit
        Of the radius.
    error_model
        Deviation of a pixel from its counts, or from the spread of its bin; hybrid: the latter to clip. count: by
        quantiles, for few counts.
    cutoff_clip
        Pixels further from the average of their bin, in deviations, are dropped; 0: Chauvenet's criterion alone.
    cycle
        Most passes of clipping.
    noise
        Deviation of the detector, in counts.
    mask
        An image that is not 0 where a pixel is bad: .npy, or any format of frames. Masks of the detector always count.
    dummy
        Value of invalid pixels; by default what the file says.
    delta_dummy
        Values this close to the dummy are invalid too.
    polarization
        Polarization factor of the beam, to correct for.
    solid_angle
        Correct for the solid angle of a pixel.
    radial_range
        Only pixels of these radii are kept.
    beam_centers
        A .npy file of (y, x) of the beam in each frame, in pixels from the outer edge of the first: bins follow it.
    budget
        First show, from a sample, what each cutoff would keep, take and lose.
    target_ratio
        Pick the cutoff at which frames shrink by this ratio.
    sample
        Frames the budget is made of.
    shells
        Shells of the radius for which the signal kept is shown.
    layout
        pyfai, which FabIO reads, or imaged11, without background.
    resume
        Keep finished blocks beside the file, and go on with those of a run that was interrupted.
    """
    from mrczdask.diffraction.sparsify import sparsify as sparsify_frames
    from mrczdask.execution.schedulers import use_scheduler
    from mrczdask.io.frames import open_frames
    from mrczdask.io.sparse_writer import write_sparse

    if out is None and not budget:
        raise ValueError("give --out FILE, or --budget to look only")
    images = open_frames(list(frames), dataset=dataset)
    geometry = _geometry(poni, geom, images)
    options: dict[str, Any] = {
        "bins": bins,
        "unit": unit,
        "error_model": error_model,
        "cutoff_clip": cutoff_clip,
        "cycle": cycle,
        "noise": noise,
        "mask": _mask(mask, images),
        "dummy": dummy,
        "delta_dummy": delta_dummy,
        "polarization": polarization,
        "solid_angle": solid_angle,
        "radial_range": radial_range,
        "beam_centers": None if beam_centers is None else read_array(beam_centers),
    }
    about: dict[str, Any] = {}
    with use_scheduler(scheduler):
        if budget or target_ratio is not None:
            sampling = options | {"sample": sample, "shells": shells}
            about, cutoff_pick = _budget(images, geometry, sampling, cutoff_pick, target_ratio, quiet, as_json)
        if out is not None:
            sparse = sparsify_frames(images, geometry, cutoff_pick=cutoff_pick, **options)
            shown: Progress = None if quiet else True
            write_sparse(sparse, out, layout=layout, geometry=geometry, resume=resume, progress=shown)
            about |= _written(out, images, cutoff_pick, as_json)
    if as_json:
        print_json(about)
    return OK


def _geometry(poni: str | None, geom: str | None, images: xr.DataArray) -> Geometry:
    from mrczdask.io.geometry import Geometry

    shape = images.shape[-2:]
    if poni is not None and geom is not None:
        raise ValueError("give --poni or --geom, not both")
    if poni is not None:
        return Geometry.from_poni(poni, shape=shape)
    wavelength = images.attrs.get("wavelength_m")
    if geom is not None:
        return Geometry.from_geom(geom, distance_m=images.attrs.get("distance_m"), wavelength_m=wavelength)
    missing = [name for name in _KNOWN if name not in images.attrs]
    if missing:
        raise MrczdaskError(f"the frames do not say their {', '.join(missing)}: give --poni FILE or --geom FILE")
    known = {name: images.attrs[name] for name in _KNOWN}
    sizes = known["pixel_size_m"][0], known["pixel_size_m"][1]
    center = known["beam_center"][0], known["beam_center"][1]
    return Geometry.flat(
        shape, distance_m=known["distance_m"], pixel_size_m=sizes, beam_center=center, wavelength_m=wavelength
    )


def _mask(path: str | None, images: xr.DataArray) -> NDArray[Any] | None:
    """The mask of a file; that of the frames counts by itself."""

    if path is None:
        return None
    if path.endswith(".npy"):
        given = read_array(path) != 0
    else:
        from mrczdask.io.frames import open_frames

        given = open_frames(path)[0].values != 0
    if given.shape != images.shape[-2:]:
        raise MrczdaskError(f"{path}: the mask has the shape {given.shape}, the frames {images.shape[-2:]}")
    return given


def _budget(
    images: xr.DataArray,
    geometry: Geometry,
    options: dict[str, Any],
    cutoff: float,
    target: float | None,
    quiet: bool,
    as_json: bool,
) -> tuple[dict[str, Any], float]:
    """Show the loss budget, or put it into the JSON document; the cutoff of the target ratio, if one is given."""
    from mrczdask.diffraction.loss import loss_budget, pick_cutoff

    found = loss_budget(images, geometry, progress=None if quiet else True, **options)
    if target is not None:
        cutoff = pick_cutoff(found, target)
    if as_json:
        names = ("kept_fraction", "expected_fraction", "frame_bytes", "ratio", "kept_signal")
        rows = {name: found[name].values for name in ("cutoff", "radius_low", "radius_high", *names)}
        return {"budget": rows | {"unit": found.attrs["unit"], "frames": found.attrs["n_shots"]}}, cutoff
    unit = found.attrs["unit"]
    shells = [
        f"{low:.2g}-{high:.2g}" for low, high in zip(found.radius_low.values, found.radius_high.values, strict=True)
    ]
    table = [
        (
            f"{float(row.cutoff):g}",
            f"{100 * float(row.kept_fraction):.3g} %",
            megabytes(float(row.frame_bytes)),
            f"{float(row.ratio):.1f}",
            *(("-" if value != value else f"{100 * value:.0f} %") for value in row.kept_signal.values.tolist()),
        )
        for row in (found.isel(cutoff=k) for k in range(found.sizes["cutoff"]))
    ]
    title = f"{found.attrs['n_shots']} frames of {megabytes(found.attrs['dense_bytes'])}; signal kept by {unit}"
    print_table(("cutoff", "kept", "a frame", "ratio", *shells), table, title=title)
    if target is not None:
        print(f"cutoff {cutoff:.3f} for a ratio of {target:g}")
    return {}, cutoff


def _written(out: str, images: xr.DataArray, cutoff: float, as_json: bool) -> dict[str, Any]:
    import math

    size = disk_size(out)
    shots = math.prod(images.shape[:-2])
    raw = images.nbytes
    if not as_json:
        print(
            f"{out}: {shots} frames, {megabytes(size)}, 1/{raw / max(size, 1):.1f} of their {megabytes(raw)} unpacked"
        )
    return {"file": out, "frames": shots, "cutoff_pick": cutoff, "bytes": size, "unpacked_bytes": raw}


def densify(
    sparse: str,
    /,
    *,
    out: Annotated[str, Parameter(name=("--out", "-o"))],
    background: Literal["poisson", "mean", "fabio"] = "poisson",
    seed: int = 0,
    resume: Flag = False,
    scheduler: Scheduler = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> int:
    """Fill sparse frames with their background again.

    Parameters
    ----------
    sparse
        A file of sparsify or of pyFAI.
    out
        .h5 or .nxs: an Eiger master file with data files beside it. .zarr: an archive.
    background
        poisson: counts that keep the mean and the variance. mean: the average. fabio: what FabIO gives.
    seed
        Of the counts: the same seed gives the same frames, whatever the scheduler.
    resume
        Go on with what an interrupted run left.
    """
    from mrczdask.diffraction.densify import densify as fill
    from mrczdask.execution.schedulers import use_scheduler
    from mrczdask.io.archive import write_archive
    from mrczdask.io.frames_writer import data_files, write_frames
    from mrczdask.io.sparse import open_sparse

    if os.path.abspath(sparse) == os.path.abspath(out):
        raise ValueError(f"{out}: source and target are the same file")
    progress: Progress = None if quiet else True
    table = open_sparse(sparse)
    with use_scheduler(scheduler):
        frames = fill(table, background=background, seed=seed)
        if out.rstrip("/").endswith(".zarr"):
            write_archive(frames, out, resume=resume, progress=progress)
            files = [out]
        else:
            bad = table.header["pixel_radius"].isnull().values
            write_frames(frames, out, mask=bad, resume=resume, progress=progress)
            files = [out, *data_files(out, frames.shape[0])]
    size = sum(map(disk_size, files))
    about = {"file": out, "shape": list(frames.shape), "dtype": frames.dtype.name, "bytes": size}
    if as_json:
        print_json(about)
    else:
        shape = " x ".join(map(str, frames.shape))
        print(f"{out}: {shape} {frames.dtype}, {megabytes(size)}")
    return OK
