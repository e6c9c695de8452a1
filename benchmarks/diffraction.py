"""Separate, sparsify and densify diffraction frames: seconds against pyFAI and FabIO, memory and overhead at scale.

Frames are generated: a powder-like background of Poisson counts, gaps of the detector, and Bragg peaks. The OpenCL rows
need pyopencl with a device (PoCL makes one of the processor); without it they are left out, and said to be.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
from numpy.typing import NDArray

import mrczdask as md
from benchmarks.common import Table, Timings, arguments, in_child, interleaved, peak_mb, report

THREADS = 2
DETECTOR = "Eiger 4M"
SHAPE = (2167, 2070)
DUMMY = 2**32 - 1
POLARIZATION, CUTOFF, NOISE = 0.99, 3.0, 1.0
SECTORS = 16
MORE = 5
"""Times the frames of the longer run of the programs, from which their start is told apart."""
BARS = {"separate_background": 5, "sparsify": 5, "sparsify program": 20, "its further frames": 20, "densify": 3}


def main(argv: Sequence[str] | None = None) -> int:
    options = arguments(__doc__, argv)
    n_frames = 2 if options.quick else 20
    os.environ.setdefault("OMP_NUM_THREADS", str(THREADS))
    with tempfile.TemporaryDirectory() as folder:
        speed = _speed(Path(folder), n_frames, options.repeats)
        sectors = _sectors(Path(folder), 2 if options.quick else 8, options.repeats)
    tables = [speed, sectors, _scale(*((2_000, 4) if options.quick else (100_000, 500)))]
    return report("diffraction", "Sparse diffraction frames", tables, options)


def _speed(folder: Path, n_frames: int, repeats: int) -> Table:
    poni, raw = folder / "detector.poni", folder / "run_master.h5"
    frames = _write_inputs(poni, raw, n_frames)
    geometry = md.Geometry.from_poni(poni)
    table = Table(
        f"{n_frames} frames of an {DETECTOR}, {THREADS} threads",
        ["task", "program", "ms a frame", "times faster", "asked"],
        f"uint32, 800 bins, Poisson errors, polarization {POLARIZATION} and solid angle, picked at {CUTOFF:g} sd. "
        "Geometry and graph are made before, as pyFAI's are. "
        "Programs include their start, 1.4 s of ours and some 3 s of the other; further frames are those of a run "
        f"{MORE} times as long less those of the first. "
        "Medians of interleaved rounds; the ratio is that of mrczdask to the row's program.",
    )
    given: dict[str, Any] = {"unit": "r_m", "dummy": DUMMY, "polarization": POLARIZATION, "solid_angle": True}
    lazy = da.from_array(frames, chunks=(1, *SHAPE))
    background = md.separate_background(lazy, geometry, **given)
    sparse = md.sparsify(lazy, geometry, cutoff_pick=CUTOFF, **given)
    sparse_file = folder / "sparse.h5"
    with dask.config.set(scheduler="threads", num_workers=THREADS):
        ours: Callable[[], object] = background[["background_avg", "background_std"]].compute
        clip = interleaved({"mrczdask": ours, "pyFAI Cython": _pyfai_clip(poni, frames)}, repeats=repeats)
        _add(table, "separate_background", clip, n_frames)
        picked: dict[str, Callable[[], object]] = {"mrczdask": sparse.compute}
        if _has_opencl():
            picked["pyFAI OpenCL"] = _pyfai_sparsify(poni, frames)
        _add(table, "sparsify", interleaved(picked, repeats=repeats), n_frames)
        dense = md.densify(md.write_sparse(sparse, sparse_file, geometry=geometry))
        filled = interleaved(
            {"mrczdask": lambda: _drain(dense), "FabIO with noise": _fabio(sparse_file)}, repeats=repeats
        )
        _add(table, "densify", filled, n_frames)
    if _has_opencl():
        programs = _programs(folder, poni, raw, repeats)
        _add(table, "sparsify program", programs, n_frames)
        long = _longer(raw, frames)
        _add_further(table, programs, _programs(folder, poni, long, min(repeats, 1)), n_frames)
    else:
        table.note += " Rows of OpenCL are missing: pyopencl or a device was not there."
    return table


def _sectors(folder: Path, n_frames: int, repeats: int) -> Table:
    """What sectors cost; no other program clips by them."""
    poni, raw = folder / "detector.poni", folder / "some_master.h5"
    lazy = da.from_array(_write_inputs(poni, raw, n_frames), chunks=(1, *SHAPE))
    geometry = md.Geometry.from_poni(poni)
    table = Table(
        f"Sectors: {n_frames} frames of an {DETECTOR}, {THREADS} threads",
        ["task", "ms a frame", f"with {SECTORS} sectors", "times as long"],
        "As above, without corrections. Frames are densified from memory.",
    )
    work: dict[str, dict[str, Callable[[], object]]] = {"separate_background": {}, "sparsify": {}, "densify": {}}
    with dask.config.set(scheduler="threads", num_workers=THREADS):
        for sectors in (1, SECTORS):
            given: dict[str, Any] = {"unit": "r_m", "dummy": DUMMY, "sectors": sectors}
            background = md.separate_background(lazy, geometry, **given)
            sparse = md.sparsify(lazy, geometry, cutoff_pick=CUTOFF, **given)
            dense = md.densify(sparse.compute())
            name = str(sectors)
            work["separate_background"][name] = background[["background_avg", "background_std"]].compute
            work["sparsify"][name] = sparse.compute
            work["densify"][name] = partial(_drain, dense)
        for task, runs in work.items():
            timings = interleaved(runs, repeats=repeats)
            one, many = (1e3 * timings.medians[name] / n_frames for name in runs)
            table.add(task, one, many, f"{timings.times_faster('1', than=str(SECTORS)):.2f}")
    return table


def _add(table: Table, task: str, timings: Timings, n_frames: int) -> None:
    for name, seconds in timings.medians.items():
        ours = name == "mrczdask"
        ratio = None if ours else timings.times_faster("mrczdask", than=name)
        table.add(task, name, 1e3 * seconds / n_frames, ratio, None if ours else f">= {BARS[task]}")


def _add_further(table: Table, few: Timings, many: Timings, n_frames: int) -> None:
    """What a frame more costs either program."""
    task, extra = "its further frames", n_frames * (MORE - 1)
    seconds = {name: (many.medians[name] - few.medians[name]) / extra for name in few.medians}
    for name, each in seconds.items():
        ours = name == "mrczdask"
        ratio = None if ours else each / seconds["mrczdask"]
        table.add(task, name, 1e3 * each, ratio, None if ours else f">= {BARS[task]}")


def _longer(raw: Path, frames: NDArray[Any]) -> Path:
    """The same frames several times, in another file."""
    import h5py
    import hdf5plugin

    path = raw.with_name("long_master.h5")
    path.write_bytes(raw.read_bytes())
    with h5py.File(path, "r+") as file:
        data = file["entry/data"]
        packed = [data["data"].id.read_direct_chunk((k, 0, 0))[1] for k in range(len(frames))]
        del data["data"]
        shape = (MORE * len(frames), *SHAPE)
        made = data.create_dataset("data", shape, np.uint32, chunks=(1, *SHAPE), **hdf5plugin.Bitshuffle(cname="lz4"))
        for k in range(shape[0]):
            made.id.write_direct_chunk((k, 0, 0), packed[k % len(packed)])
    return path


def _drain(images: Any) -> None:
    """Compute every frame and keep none."""
    chunks = (images.data.chunks[0], 1, 1)
    images.data.map_blocks(lambda block: block[:, :1, :1].copy(), dtype=images.dtype, chunks=chunks).compute()


def _write_inputs(poni: Path, raw: Path, n_frames: int) -> NDArray[Any]:
    """Write the PONI file and the frames (bitshuffle-LZ4, as Eiger detectors do); return the frames."""
    import h5py
    import hdf5plugin
    import pyFAI.detectors
    from pyFAI.integrator.azimuthal import AzimuthalIntegrator

    detector = pyFAI.detectors.detector_factory(DETECTOR)
    integrator = AzimuthalIntegrator(0.15, 0.0817, 0.0779, detector=detector, wavelength=1e-10)
    integrator.save(str(poni))
    rng = np.random.default_rng(1)
    radius = integrator.array_from_unit(SHAPE, "center", "r_m", scale=False)
    level = 8 * np.exp(-radius / 0.06) + 4 * np.exp(-(((radius - 0.035) / 0.006) ** 2))
    frames = np.empty((n_frames, *SHAPE), np.uint32)
    for frame in frames:
        frame[:] = rng.poisson(level)
        y, x = rng.integers(2, SHAPE[0] - 2, 400), rng.integers(2, SHAPE[1] - 2, 400)
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                frame[y + dy, x + dx] += rng.poisson(200 * 0.5 ** (abs(dy) + abs(dx)), 400).astype(np.uint32)
        frame[detector.mask.astype(bool)] = DUMMY
    with h5py.File(raw, "w") as file:
        entry = file.create_group("entry")
        entry.attrs.update({"NX_class": "NXentry", "default": "data"})
        file.attrs["default"] = "entry"
        data = entry.create_group("data")
        data.attrs.update({"NX_class": "NXdata", "signal": "data"})
        data.create_dataset("data", data=frames, chunks=(1, *SHAPE), **hdf5plugin.Bitshuffle(cname="lz4"))
    return frames


def _pyfai_clip(poni: Path, frames: NDArray[Any]) -> Callable[[], object]:
    import pyFAI

    integrator = pyFAI.load(str(poni))
    how = {"polarization_factor": POLARIZATION, "error_model": "poisson", "thres": 0, "max_iter": 5, "unit": "r_m"}

    def run() -> None:
        for frame in frames:
            integrator.sigma_clip(frame, 800, dummy=DUMMY, method=("no", "csr", "cython"), safe=False, **how)

    return run


def pyfai_finder(poni: Path, bins: int) -> tuple[Any, dict[str, Any]]:
    """The engine of pyFAI's programs, and what they give it with each frame."""
    import pyFAI
    from pyFAI.opencl.peak_finder import OCL_PeakFinder
    from pyFAI.units import to_unit

    integrator = pyFAI.load(str(poni))
    unit, mask = to_unit("r_m"), integrator.detector.mask
    table = integrator.setup_sparse_integrator(SHAPE, bins, mask=mask, unit=unit, split="no", algo="CSR", scale=False)
    finder = OCL_PeakFinder(
        table.lut,
        image_size=SHAPE[0] * SHAPE[1],
        empty=DUMMY,
        unit=unit,
        bin_centers=table.bin_centers,
        radius=integrator.array_from_unit(typ="center", unit=unit, scale=False),
        mask=mask,
    )
    solid, solid_sum = integrator.solidAngleArray(with_checksum=True)
    polar, polar_sum = integrator.polarization(factor=POLARIZATION, with_checksum=True)
    how = {"dummy": DUMMY, "delta_dummy": 0, "safe": False, "error_model": "poisson", "cutoff_clip": 0, "cycle": 5}
    how |= {"solidangle": solid, "solidangle_checksum": solid_sum, "noise": NOISE}
    return finder, how | {"polarization": polar, "polarization_checksum": polar_sum}


def _pyfai_sparsify(poni: Path, frames: NDArray[Any]) -> Callable[[], object]:
    """What its program does with each frame, without reading and writing."""
    finder, how = pyfai_finder(poni, 800)

    def run() -> None:
        for frame in frames:
            finder.sparsify(frame, cutoff_pick=CUTOFF, **how)

    return run


def _fabio(sparse_file: Path) -> Callable[[], object]:
    import fabio

    image = fabio.open(str(sparse_file))
    image.noisy = 1.0

    def run() -> None:
        for k in range(image.nframes):
            image._generate_data(k)

    return run


def _programs(folder: Path, poni: Path, raw: Path, repeats: int) -> Timings:
    """Both programs in processes of their own, start and compilation included."""
    binaries = Path(sys.executable).parent
    asked = ["-p", poni, "-P", POLARIZATION, "-A", "--dummy", DUMMY, "--cutoff-pick", CUTOFF, "--unit", "r_m"]
    theirs = [binaries / "sparsify-Bragg", *asked, "-o", folder / "theirs.h5", raw]
    ours = [sys.executable, "-m", "mrczdask.cli", "sparsify", raw, "-p", poni, "--cutoff-pick", CUTOFF, "--unit", "r_m"]
    ours += ["--polarization", POLARIZATION, "--solid-angle", "--dummy", DUMMY, "-o", folder / "ours.h5"]

    def run(command: list[object]) -> Callable[[], object]:
        return lambda: subprocess.run([str(part) for part in command], check=True, capture_output=True)

    def clean() -> None:
        for name in ("ours.h5", "theirs.h5"):
            (folder / name).unlink(missing_ok=True)

    return interleaved(
        {"mrczdask": run(ours), "sparsify-Bragg": run(theirs)}, repeats=min(repeats, 3), warmups=1, before=clean
    )


def _has_opencl() -> bool:
    if importlib.util.find_spec("pyopencl") is None:
        return False
    pyopencl = importlib.import_module("pyopencl")
    try:
        return any(platform.get_devices() for platform in pyopencl.get_platforms())
    except pyopencl.Error:
        return False


def _scale(n_small: int, n_large: int) -> Table:
    table = Table(
        "At scale, frames generated lazily, two workers of 2 GB",
        ["run", "seconds", "graph MB", "most MB of a worker", "overhead %"],
        "Overhead: of the time the workers could have worked, the share in which no kernel ran.",
    )
    small = in_child(run_small, n_small).value
    table.add(f"{n_small:,} frames of 128 x 128", *small, None)
    seconds, graph, memory, overhead = in_child(run_large, n_large).value
    table.add(f"{n_large:,} frames of 2,048 x 2,048", seconds, graph, memory, overhead)
    return table


def lazy_frames(n: int, side: int, chunk: int) -> da.Array:
    """Poisson frames made in the task; the first two hundred rows are drawn, the rest repeat them."""
    meta = np.empty((0, 0, 0), np.uint16)
    sizes = tuple(min(chunk, n - k) for k in range(0, n, chunk))
    return da.map_blocks(_make, chunks=(sizes, side, side), dtype=np.uint16, meta=meta)


def _make(block_info: Any = None) -> NDArray[np.uint16]:
    n, side, _ = block_info[None]["chunk-shape"]
    rows = np.random.default_rng(block_info[None]["chunk-location"][0]).poisson(2.0, (200, side)).astype(np.uint16)
    return np.broadcast_to(np.resize(rows, (side, side)), (n, side, side)).copy()


def run_small(n: int) -> tuple[float, float, float]:
    """(seconds, MB of the graph, most MB of a worker) of sparse frames of many small ones."""
    return _on_workers(lazy_frames(n, 128, 1024), md.Geometry.flat((128, 128)), 32)[:3]


def run_large(n: int) -> tuple[float, float, float, float]:
    """(seconds, MB of the graph, most MB of a worker, overhead in per cent)."""
    return _on_workers(lazy_frames(n, 2048, 4), md.Geometry.flat((2048, 2048)), 800)


def _on_workers(frames: da.Array, geometry: md.Geometry, bins: int) -> tuple[float, float, float, float]:
    import time

    import distributed

    limits: dict[str, Any] = {"n_workers": THREADS, "threads_per_worker": 1, "memory_limit": "2GB"}
    with distributed.LocalCluster(**limits, dashboard_address=None) as cluster, distributed.Client(cluster) as client:
        warm = md.sparsify(frames[:2], geometry, bins=bins, unit="pixel")
        warm.header["n_pixels"].compute()
        sparse = md.sparsify(frames, geometry, bins=bins, unit="pixel")
        counts = sparse.header["n_pixels"].data
        graph = len(pickle.dumps(dict(counts.__dask_graph__()), protocol=5)) / 1e6
        client.get_task_stream()  # from now on
        start = time.perf_counter()
        total = int(counts.sum().compute())
        seconds = time.perf_counter() - start
        assert total > 0
        busy = sum(_busy(client))
        memory = max(client.run(peak_mb).values())
    return seconds, graph, memory, 100 * max(0.0, 1 - busy / (seconds * THREADS))


def _busy(client: Any) -> list[float]:
    """Seconds that the workers spent in tasks."""
    spans = client.get_task_stream()
    return [
        part["stop"] - part["start"] for task in spans for part in task["startstops"] if part["action"] == "compute"
    ]


if __name__ == "__main__":
    sys.exit(main())
