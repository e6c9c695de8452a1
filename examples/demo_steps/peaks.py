"""Bragg peaks of simulated stills found, counted against the truth, written for CrystFEL and sorted into hits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import mrczdask as md


def run(out: Path) -> None:
    """Find the peaks of 20 stills of which every second is blank."""
    from mrczdask.plotting.peaks import plot_run

    shape = (300, 320)
    geometry = md.Geometry.flat(shape, distance_m=0.08, pixel_size_m=150e-6, wavelength_m=1e-10)
    rng = np.random.default_rng(5)
    radius = geometry.radius("r_mm")
    frames = rng.poisson(2 + 20 * np.exp(-radius / 8), (20, *shape)).astype(np.uint16)
    y, x = np.mgrid[-3:4, -3:4]
    spot = np.exp(-(y**2 + x**2) / 1.5)
    for frame in frames[::2]:
        for i in range(20, 290, 30):
            for j in range(20, 310, 40):
                frame[i - 3 : i + 4, j - 3 : j + 4] += rng.poisson(100 * spot).astype(np.uint16)
    written = md.write_frames(xr.DataArray(frames, dims=("shot", "y", "x")), out / "stills.h5", geometry=geometry)
    options: dict[str, Any] = {"cutoff_peak": 5, "bins": 80}
    peaks = md.write_peaks(
        md.find_peaks(written, geometry, **options), out / "stills.cxi", frames=written, geometry=geometry
    )
    table = md.veto(peaks, min_peaks=20)
    found = peaks.compute()
    print(f"   {found.sizes['peak']} peaks, {int(table.hit.sum())} hits of {len(peaks)} frames; stills.cxi and .geom")
    assert table.hit.values.tolist() == [True, False] * 10
    assert found.n_peaks.values[::2].tolist() == [72] * 10
    plot_run(written[0].compute(), peaks.isel(0).compute(), table).savefig(out / "peaks.png", dpi=90)
