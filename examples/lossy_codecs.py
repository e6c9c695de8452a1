"""How much may be lost? Molecules, a knock-out moving average and Bragg peaks, after lossy compression.

    python examples/lossy_codecs.py [--frames N] [--out FOLDER]

All experiments have known truth. The first is that of the B3D paper: spots of sigma 1 pixel, each further off the
pixel grid, fitted by maximum likelihood; errors are compared with the Cramer-Rao bound. The second subtracts the fixed
pattern of an integrating detector from movies that were stored within their noise. The third finds the Bragg peaks of
stored stills of a counting detector.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
from scipy.spatial import KDTree

import mrczdask as md
from mrczdask.simulate import Readout

STEPS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0)
FORMS: dict[str, dict[str, Any]] = {
    "strict": {},
    "stabilised": {"bound": "stabilised"},
    "stabilised, predict first": {"bound": "stabilised", "order": "predict-first"},
}
PHOTONS, BACKGROUND = 500.0, 10.0


@dataclass(frozen=True)
class Point:
    """One form and step: how small, and how far off."""

    form: str
    q: float
    ratio: float
    error: float


def codec_for(readout: Readout, q: float, **form: str) -> md.codecs.B3D:
    """The codec that knows this camera."""
    camera = {"counts_per_electron": readout.counts_per_electron, "offset": readout.offset}
    return md.codecs.B3D(quantisation=q, **camera, read_noise=readout.read_noise, **form)


def localisation_study(n_frames: int, steps: Sequence[float] = STEPS) -> list[Point]:
    """Root mean square error over the Cramer-Rao bound, and compression, for every form and step."""
    truth = md.simulate.localisation(n_frames, photons=PHOTONS, background=BACKGROUND)
    images = truth.images.values
    bound = md.simulate.cramer_rao_bound(truth.positions, truth.readout, photons=PHOTONS, background=BACKGROUND)
    points = []
    for form, settings in FORMS.items():
        for q in steps:
            codec = codec_for(truth.readout, q, **settings)
            stream = codec.encode_array(images)
            fits = md.simulate.localise(codec.decode_array(stream), truth.positions, truth.readout)
            error = np.sqrt(((fits - truth.positions) ** 2).mean() / (bound**2).mean())
            points.append(Point(form, q, images.nbytes / len(stream), float(error)))
    return points


@dataclass(frozen=True)
class Knocked:
    """Correlation of frames that share a fixed pattern, before and after it is subtracted."""

    q: float
    ratio: float
    before: float
    after: float


def knock_out_study(n_movies: int = 6, n_frames: int = 10, steps: Sequence[float] = STEPS) -> list[Knocked]:
    """Mean pairwise correlation of the frames of stored movies, as they are and after the knock-out moving average."""
    readout = Readout(counts_per_electron=8.0, offset=100.0, read_noise=1.5)
    pattern = md.simulate.Pattern(pixel_sd=2.0)
    shape = (n_frames, 128, 128)
    session, _ = md.simulate.session(n_movies, shape, dose=20.0, pattern=pattern, readout=readout, dtype="uint16")
    raw = session.images.compute()
    points = []
    for q in steps:
        codec = codec_for(readout, q)
        streams = [codec.encode_array(movie) for movie in raw.values]
        movies = raw.copy(data=np.stack([codec.decode_array(stream) for stream in streams]))
        flat = md.koma(movies, sums=md.sum_frames(movies), radius=2)
        before, after = (float(md.frame_correlation(each).mean()) for each in (movies, flat))
        points.append(Knocked(q, raw.nbytes / sum(map(len, streams)), before, after))
    return points


@dataclass(frozen=True)
class Peaks:
    """Bragg peaks of stored stills: share of the strong spots found, others a shot, error in pixels."""

    q: float
    ratio: float
    found: float
    false: float
    error: float


def peak_study(n_shots: int = 8, steps: Sequence[float] = STEPS) -> list[Peaks]:
    """Peaks found in stored stills against the spots that were simulated; strong ones have 150 counts or more."""
    run = md.simulate.stills(n_shots, (256, 256), hit_rate=1.0, strength=500.0)
    raw, geometry = run.frames.compute(), md.Geometry.flat((256, 256))
    spots = [run.truth(shot) for shot in range(n_shots)]
    points = []
    for q in steps:
        codec = md.codecs.B3D(quantisation=q, counts_per_electron=1.0)
        stream = codec.encode_array(raw.values)
        stored = raw.copy(data=codec.decode_array(stream))
        peaks = md.find_peaks(stored, geometry, cutoff_peak=4.0, bins=100, unit="pixel").compute()
        ends = peaks.peak_ptr.values.astype(int)
        places = np.stack([peaks.y.values, peaks.x.values], 1)
        found, false, error = [], 0, []
        for shot, truth in enumerate(spots):
            mine, strong = places[ends[shot] : ends[shot + 1]], truth[truth[:, 2] >= 150, :2]
            distance = KDTree(mine).query(strong)[0]
            found += (distance < 1.5).tolist()
            error += distance[distance < 1.5].tolist()
            false += int((KDTree(truth[:, :2]).query(mine)[0] >= 3).sum())
        rms = float(np.sqrt(np.mean(np.square(error))))
        points.append(Peaks(q, raw.nbytes / len(stream), float(np.mean(found)), false / n_shots, rms))
    return points


def plot(points: Sequence[Point], path: Path) -> None:
    """Error and size against the step, for every form."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for form in FORMS:
        mine = [point for point in points if point.form == form]
        left.plot([point.q for point in mine], [point.error for point in mine], "o-", label=form)
        right.plot([point.q for point in mine], [point.ratio for point in mine], "o-", label=form)
    lossless = points[0].error
    left.plot(STEPS, [lossless * (1 + q**2 / 12) ** 0.5 for q in STEPS], "k--", label="lossless x sqrt(1 + q^2 / 12)")
    left.set(xlabel="q", ylabel="error / Cramer-Rao bound")
    right.set(xlabel="q", ylabel="times smaller than uint16", yscale="log")
    left.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the tables and draw the first."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--frames", type=int, default=50, help="frames of 100 molecules")
    parser.add_argument("--out", type=Path, default=Path("."), help="folder of the picture")
    options = parser.parse_args(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    points = localisation_study(options.frames)
    print("Localisation: times smaller than uint16, error / Cramer-Rao bound")
    for point in points:
        print(f"  {point.form:26s} q = {point.q:3.1f}  {point.ratio:6.2f} x  {point.error:6.3f}")
    plot(points, options.out / "lossy_codecs.png")
    print("Knock-out moving average: times smaller than uint16, correlation of frames before and after")
    for knocked in knock_out_study():
        print(f"  q = {knocked.q:3.1f}  {knocked.ratio:6.2f} x  {knocked.before:7.4f}  {knocked.after:7.4f}")
    print("Bragg peaks: times smaller than uint16, strong spots found, false peaks a shot, error in pixels")
    for peaks in peak_study():
        shares = f"{peaks.found:7.1%} {peaks.false:6.2f} {peaks.error:7.3f}"
        print(f"  q = {peaks.q:3.1f}  {peaks.ratio:6.2f} x  {shares}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
