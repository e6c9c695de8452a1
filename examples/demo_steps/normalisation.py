"""A session corrected by gain, outliers and KOMA from the command line, and what is left of the detector."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mrczdask as md
from mrczdask.cli import main
from mrczdask.plotting import draw_image


def run(out: Path) -> None:
    """Write a session of 13 raw movies, correct it, and compare the sums with those of a perfect detector."""
    from matplotlib import pyplot as plt

    folder = out / "session"
    folder.mkdir(exist_ok=True)
    ice = md.simulate.Specimen(ice_sd=0.02, particles=10, particle_diameter=30, particle_contrast=0.3)
    how: dict[str, Any] = {"shape": (10, 256, 256), "dose": 3.0, "specimen": ice, "seed": 6}
    perfect, _ = md.simulate.session(13, **how)
    session, truth = md.simulate.session(
        13,
        **how,
        gain=md.simulate.Gain(smooth_sd=0.05, pixel_sd=0.02),
        pattern=md.simulate.Pattern(column_sd=0.15, row_sd=0.05, pixel_sd=0.1),
        defects=md.simulate.Defects(hot_fraction=0.005, dead_columns=1),
    )
    for k, name in enumerate(session.movie.values):
        md.write_mrcz(session.images.isel(movie=k), folder / f"{name}.mrcz")
    md.write_gain(truth.gain.compute(), folder / "reference.mrc")
    url = out / "corrected.zarr"
    command = ["correct", f"{folder}/movie_*.mrcz", "--gain", f"{folder}/reference.mrc", "--koma", "6"]
    assert main([*command, "--order", "name", "-o", str(url), "--no-resume", "--quiet"]) == 0

    done = md.open_archive(url)
    report, movies = done["derived/sums"].report, done["movies"]
    raw, left = (float(r.mean()) for r in (report.sel(number="correlation_before"), movies.correlation_after))
    best = float(md.frame_correlation(perfect).mean())
    print(f"   correlation between frames {raw:.4f} before, {left:.4f} after, {best:.4f} on a perfect detector")
    assert abs(left - best) < 0.1 * raw
    shown = {
        f"raw: R = {raw:.3f}": session.images.isel(movie=6).sum("frame"),
        f"gain, outliers and KOMA: R = {left:.3f}": movies.images.isel(movie=6).sum("frame"),
        f"a perfect detector: R = {best:.3f}": perfect.images.isel(movie=6).sum("frame"),
    }
    figure, axes = plt.subplots(1, 3, figsize=(13, 4.6), layout="constrained")
    for ax, (title, image) in zip(axes, shown.items(), strict=True):
        draw_image(image.values, ax=ax, title=title)
    figure.savefig(out / "normalisation.png", dpi=90)
    plt.close(figure)
