"""False discoveries and recall of outlier pixels by dose and scene, against the median filter of scipy."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, stats

import mrczdask as md
from benchmarks.common import Table, arguments, report

RATE = 0.05
DOSES = (0.01, 0.1, 0.5, 1.0, 4.0, 10.0, 40.0, 200.0, 1000.0)
HOT_SHARE, DEAD_SHARE = 0.005, 0.0005
WEAKEST, STRONGEST = 2.0, 15.0
"""What hot pixels add, in standard deviations and at least as many electrons; the logarithm is uniform."""
STRONG = 5.0
BAR = 2 * RATE

Image = NDArray[Any]


def main(argv: Sequence[str] | None = None) -> int:
    """Print the tables; the bar is twice the stated rate."""
    options: argparse.Namespace = arguments(__doc__, argv)
    size, repeats, doses = (128, 1, DOSES[::4]) if options.quick else (256, 6, DOSES)
    report("outliers", "Outlier pixels: false discoveries and recall", [rates(size, repeats, doses)], options)
    return 0


def scenes(size: int, rng: np.random.Generator) -> dict[str, Callable[[], Image]]:
    """Relative levels of what electron microscopes see."""
    y, x = np.mgrid[:size, :size] / size

    def specimen(**how: Any) -> Image:
        drawn = md.simulate.Specimen(**how)
        _, truth = md.simulate.movie((1, size, size), dose=1, seed=int(rng.integers(1 << 20)), specimen=drawn)
        return np.asarray(truth.specimen)

    particles = {"particles": size * size // 3200, "particle_diameter": 24, "particle_contrast": 0.2}
    return {
        "flat": lambda: np.ones((size, size)),
        "gradient": lambda: 0.3 + 1.4 * x,
        "thickness": lambda: np.exp(0.5 * np.sin(6 * y + 1) * np.cos(5 * x)),
        "particles": lambda: specimen(**particles),
        "carbon": lambda: specimen(carbon=1.0),
        "dark half": lambda: np.where(x < 0.5, 1.0, 0.03),
    }


def by_median(image: Image) -> Image:
    """What stands out of the local median of stabilised counts: the same rate by normal deviations and their MAD."""
    stabilised = 2 * np.sqrt(image + 3 / 8)
    left = stabilised - ndimage.uniform_filter(ndimage.median_filter(stabilised, 9, mode="mirror"), 9, mode="mirror")
    left -= np.median(left)
    z = left / max(1.4826 * float(np.median(np.abs(left))), 1e-2)
    tails = [stats.false_discovery_control(stats.norm.sf(side).ravel(), method="bh") for side in (z, -z)]
    return np.any(np.array(tails) < RATE, axis=0).reshape(image.shape)


def ours(image: Image) -> Image:
    """The default method."""
    return np.asarray(md.find_outliers(image, q=RATE).mask)


def rates(size: int, repeats: int, doses: Sequence[float]) -> Table:
    """Mean shares of false ones among what is found, and of strong outliers that are found."""
    note = (
        f"Poisson images of {size} x {size}, {repeats} each: {HOT_SHARE:.1%} hot, {DEAD_SHARE:.2%} dead pixels and a "
        f"dead column; q = {RATE}. False: share of what is found. Recall: hot pixels of {STRONG:g} standard deviations "
        f"and {STRONG:g} electrons or more. Clean: pixels found where nothing is, per million. scipy: 9 x 9 median and "
        f"mean of stabilised counts, normal tails. Bar: {BAR:g} false."
    )
    names = ["scene", "electrons/pixel", "false", "recall", "clean", "scipy false", "scipy recall", "scipy clean"]
    table = Table("By scene and dose", names, note)
    for scene in scenes(size, np.random.default_rng(0)):
        for dose in doses:
            seen = [_trial(scene, dose, size, seed) for seed in range(repeats)]
            numbers = np.mean(seen, axis=0)
            table.add(
                scene, dose, *(f"{value:.3f}" if k % 3 < 2 else f"{value:.0f}" for k, value in enumerate(numbers))
            )
    return table


def _trial(scene: str, dose: float, size: int, seed: int) -> list[float]:
    rng = np.random.default_rng(seed)
    level = dose * scenes(size, rng)[scene]()
    clean = rng.poisson(level)
    hot, dead = rng.random(level.shape) < HOT_SHARE, rng.random(level.shape) < DEAD_SHARE
    dead[:, size // 3] = True
    hot &= ~dead
    strength = WEAKEST * (STRONGEST / WEAKEST) ** rng.random(level.shape)
    excess = strength * np.maximum(np.sqrt(level), 1)
    image = np.where(dead, 0, clean + np.where(hot, rng.poisson(excess), 0))
    strong = hot & (strength > STRONG)
    found = []
    for method in (ours, by_median):
        mask = method(image)
        false = np.count_nonzero(mask & ~hot & ~dead) / max(np.count_nonzero(mask), 1)
        found += [false, float(mask[strong].mean()), 1e6 * float(method(clean).mean())]
    return found


if __name__ == "__main__":
    sys.exit(main())
