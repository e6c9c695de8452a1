"""The commands sparsify and densify."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from cyclopts import Parameter

from mrczdask.cli import OK
from mrczdask.cli.background import DEFAULT, Background
from mrczdask.cli.files import disk_size
from mrczdask.cli.options import AsJson, Quiet, Scheduler
from mrczdask.cli.output import megabytes, print_json, print_table
from mrczdask.cli.peak_options import DEFAULT as PEAKS
from mrczdask.cli.peak_options import Peaks
from mrczdask.errors import MrczdaskError

if TYPE_CHECKING:
    import xarray as xr

    from mrczdask.execution.progress import Progress
    from mrczdask.io.geometry import Geometry
    from mrczdask.io.ragged import Ragged

Out = Annotated[str | None, Parameter(name=("--out", "-o"))]
Poni = Annotated[str | None, Parameter(name=("--poni", "-p"))]
Flag = Annotated[bool, Parameter(negative="")]
_KNOWN: Final = ("distance_m", "pixel_size_m", "beam_center")


@Parameter(name="*")
@dataclass(frozen=True)
class Budget:
    """What is shown of a sample before a file is written."""

    budget: Flag = False
    """First show, from a sample, what each cutoff would keep, take and lose."""
    target_ratio: float | None = None
    """Pick the cutoff at which frames shrink by this ratio."""
    sample: int = 16
    """Frames the budget is made of."""
    shells: int = 4
    """Shells of the radius for which the signal kept is shown."""
    cutoffs: Annotated[tuple[float, ...], Parameter(negative="", consume_multiple=True, show_default=False)] = ()
    """Cutoffs of the budget, rising, in deviations: by default 15 from 0.5 to 10."""
    signal_cutoff: float | None = None
    """Pixels this far above the background, in deviations, and those beside them are the signal; 5 by default."""

    def options(self) -> dict[str, Any]:
        """What `loss_budget` takes."""
        signal = {} if self.signal_cutoff is None else {"signal_cutoff": self.signal_cutoff}
        cutoffs = {"cutoffs": self.cutoffs} if self.cutoffs else {}
        return {"sample": self.sample, "shells": self.shells, **signal, **cutoffs}


BUDGET: Final = Budget()


def sparsify(
    *frames: str,
    out: Out = None,
    poni: Poni = None,
    geom: str | None = None,
    dataset: str | None = None,
    cutoff_pick: float = 3.0,
    background: Background = DEFAULT,
    peaks: Flag = False,
    search: Peaks = PEAKS,
    looking: Budget = BUDGET,
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
    peaks
        Find the Bragg peaks too, and write them into the same file; each frame is read once.
    layout
        pyfai, which FabIO reads, or imaged11, without background.
    resume
        Keep finished blocks beside the file, and go on with those of a run that was interrupted.
    """
    from mrczdask.execution.schedulers import use_scheduler
    from mrczdask.io.frames import open_frames
    from mrczdask.io.sparse_writer import save_sparse
    from mrczdask.io.suffixes import format_of

    if out is None and not looking.budget:
        raise ValueError("give --out FILE, or --budget to look only")
    if search != PEAKS and not peaks:
        raise ValueError("options of the peaks are given, but no --peaks")
    if out is not None:
        format_of(out, ("hdf5", "zarr"))
    images = open_frames(list(frames), dataset=dataset)
    geometry = _geometry(poni, geom, images)
    options = background.options(images.shape[-2:])
    about: dict[str, Any] = {}
    with use_scheduler(scheduler):
        if looking.budget or looking.target_ratio is not None:
            sampling, target = options | looking.options(), looking.target_ratio
            about, cutoff_pick = _budget(images, geometry, sampling, cutoff_pick, target, quiet, as_json)
        if out is not None:
            wanted = search.options(background.unit) if peaks else None
            sparse, found = _tables(images, geometry, cutoff_pick, options, wanted)
            shown: Progress = None if quiet else True
            save_sparse(sparse, out, layout, geometry, resume, shown, peaks=found)
            about |= _written(out, images, cutoff_pick, peaks, as_json)
    if as_json:
        print_json(about)
    return OK


def _tables(
    images: xr.DataArray,
    geometry: Geometry,
    cutoff: float,
    options: dict[str, Any],
    search: dict[str, Any] | None,
) -> tuple[Ragged, Ragged | None]:
    """The sparse frames, and the peaks about the same background where they are searched."""
    from mrczdask.diffraction.background import separate_background
    from mrczdask.diffraction.peaks import find_peaks
    from mrczdask.diffraction.sparsify import sparsify as sparsify_frames

    if search is None:
        return sparsify_frames(images, geometry, cutoff_pick=cutoff, **options), None
    found = separate_background(images, geometry, **options)
    sparse = sparsify_frames(images, background=found, cutoff_pick=cutoff)
    return sparse, find_peaks(images, background=found, **search)


def _geometry(poni: str | None, geom: str | None, images: xr.DataArray) -> Geometry:
    from mrczdask.io.geometry import Geometry

    shape = images.shape[-2:]
    if poni is not None and geom is not None:
        raise ValueError("give --poni or --geom, not both")
    if poni is not None:
        return Geometry.from_poni(poni, shape=shape)
    wavelength = images.attrs.get("wavelength_m")
    if geom is not None:
        return Geometry.from_geom(geom, frames=images)
    missing = [name for name in _KNOWN if name not in images.attrs]
    if missing:
        raise MrczdaskError(f"the frames do not say their {', '.join(missing)}: give --poni FILE or --geom FILE")
    known = {name: images.attrs[name] for name in _KNOWN}
    sizes = known["pixel_size_m"][0], known["pixel_size_m"][1]
    center = known["beam_center"][0], known["beam_center"][1]
    return Geometry.flat(
        shape, distance_m=known["distance_m"], pixel_size_m=sizes, beam_center=center, wavelength_m=wavelength
    )


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


def _written(out: str, images: xr.DataArray, cutoff: float, has_peaks: bool, as_json: bool) -> dict[str, Any]:
    import math

    from mrczdask.io.peak_file import open_peaks

    size = disk_size(out)
    shots = math.prod(images.shape[:-2])
    raw = images.nbytes
    found = {"peaks": int(open_peaks(out).n_peaks.sum())} if has_peaks else {}
    if not as_json:
        known = "".join(f", {n} {name}" for name, n in found.items())
        ratio = f"1/{raw / max(size, 1):.1f} of their {megabytes(raw)} unpacked"
        print(f"{out}: {shots} frames{known}, {megabytes(size)}, {ratio}")
    return {"file": out, "frames": shots, "cutoff_pick": cutoff, "bytes": size, "unpacked_bytes": raw} | found


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
