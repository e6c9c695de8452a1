"""Densified frames have the moments of the original's background, and its stored pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest

import mrczdask as md
from mrczdask.errors import MrczdaskError

OPTIONS: dict[str, Any] = {"bins": 20, "unit": "pixel"}
MOMENTS_ALIKE = 0.015
"""Relative, of mean and variance of the pixels not stored."""


@pytest.mark.parametrize("mean", [0.05, 0.2, 1.0, 5.0])
def test_counts_have_the_moments_of_the_original(mean: float) -> None:
    frames = np.random.default_rng(7).poisson(mean, (4, 500, 500)).astype(np.uint16)
    table = md.sparsify(frames, md.Geometry.flat((500, 500)), cutoff_pick=3.0, noise=1.0, **OPTIONS).compute()
    dense = md.densify(table, seed=5).values
    shot = np.repeat(np.arange(4), table.n_pixels)
    free = np.ones(frames.shape, bool)
    free.reshape(4, -1)[shot, table["index"]] = False
    np.testing.assert_array_equal(dense[~free], frames[~free])
    assert dense[free].mean() == pytest.approx(frames[free].mean(), rel=MOMENTS_ALIKE)
    assert dense[free].var() == pytest.approx(frames[free].var(), rel=MOMENTS_ALIKE)
    assert dense[free].max() == frames[free].max()


def test_chunks_and_selections_change_no_pixel(no_compute: None) -> None:
    frames = np.random.default_rng(7).poisson(3, (6, 60, 70)).astype(np.uint16)
    mask = np.zeros((60, 70), bool)
    mask[5] = True
    tables = [
        md.sparsify(
            da.from_array(frames, chunks=(n, -1, -1)), md.Geometry.flat((60, 70)), mask=mask, dummy=9, **OPTIONS
        )
        for n in (1, 4)
    ]
    one, other = (md.densify(table) for table in tables)
    some, unlike = md.densify(tables[0].isel([4, 1])), md.densify(tables[0], seed=1)
    with dask.config.set(scheduler="sync"):
        np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(some, one[[4, 1]])
        assert (unlike.values != one.values).mean() > 0.5
        assert (one.values[:, 5] == 9).all()
    assert one.dtype == np.uint16


def test_fabio_mode_is_what_fabio_draws(tmp_path: Path) -> None:
    """The same pixels are dummy, the same are stored, and mean and deviation of the rest agree, bias and all."""
    fabio = pytest.importorskip("fabio")
    frames = np.random.default_rng(7).poisson(0.5, (1, 300, 310)).astype(np.int32)
    mask = np.zeros((300, 310), bool)
    mask[50:55] = True
    geometry = md.Geometry.flat((300, 310), distance_m=0.1, pixel_size_m=1e-4, mask=mask)
    sparse = md.sparsify(frames, geometry, bins=20, unit="r_m", dummy=-1)
    written = md.write_sparse(sparse, tmp_path / "sparse.h5", geometry=geometry)
    image = fabio.open(str(tmp_path / "sparse.h5"))
    image.noisy = 1.0
    theirs, ours = image._generate_data(0), md.densify(written, background="fabio", seed=3)[0].values
    np.testing.assert_array_equal(ours == -1, theirs == -1)
    good = ours != -1
    assert ours[good].mean() == pytest.approx(theirs[good].mean(), rel=0.02)
    assert ours[good].std() == pytest.approx(theirs[good].std(), rel=0.02)
    assert ours[good].mean() > 1.05 * frames[0][good].mean()


def test_bad_input_is_named() -> None:
    table = md.sparsify(np.ones((1, 60, 70)), md.Geometry.flat((60, 70)), **OPTIONS).compute()
    with pytest.raises(ValueError, match="background='white'"):
        md.densify(table, background="white")  # type: ignore[arg-type]
    for seed in (-1, 1.5, 2**64):
        with pytest.raises(ValueError, match=f"seed={seed}"):
            md.densify(table, seed=seed)  # type: ignore[arg-type]
    with pytest.raises(MrczdaskError, match="a ndarray is no table of sparse frames"):
        md.densify(np.ones((1, 60, 70)))  # type: ignore[arg-type]
    with pytest.raises(MrczdaskError, match="lack radius"):
        md.densify(table.drop_vars("radius"))
