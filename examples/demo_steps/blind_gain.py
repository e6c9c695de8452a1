"""The gain of a detector from its movies alone, against the gain it was simulated with."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import mrczdask as md


def run(out: Path) -> None:
    """Estimate the gain of 24 movies of particles in ice and judge what is left."""
    from matplotlib import pyplot as plt

    detector = md.simulate.Gain(column_sd=0.03, row_sd=0.02, pixel_sd=0.02)
    ice = md.simulate.Specimen(ice_sd=0.02, particles=12, particle_diameter=30, particle_contrast=0.1)
    session, truth = md.simulate.session(24, (8, 256, 256), dose=5.0, gain=detector, specimen=ice, seed=11)
    gain = md.estimate_gain(session).gain
    md.write_gain(gain, str(out / "gain.mrc"))
    r2 = float(np.corrcoef(np.ravel(gain), np.ravel(truth.gain))[0, 1] ** 2)
    assert r2 > 0.7, f"the estimated gain explains only {r2:.2f} of the true one"
    print(f"   gain of {session.sizes['movie']} movies of 40 e/pixel: R2 {r2:.3f} against the truth, in gain.mrc")

    figure, axes = plt.subplots(1, 2, figsize=(9, 4.5), layout="constrained")
    truth.gain.compute().em.plot(ax=axes[0], title="true gain")
    gain.em.plot(ax=axes[1], title="estimated from the movies")
    figure.savefig(out / "gain.png", dpi=90)
    plt.close(figure)
