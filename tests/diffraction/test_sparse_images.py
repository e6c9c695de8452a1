"""Sums and virtual images from the stored pixels, against dense frames and against the columns of a real file."""

from __future__ import annotations

from pathlib import Path

import dask.array as da
import numpy as np
import pytest

import mrczdask as md
from mrczdask.errors import MrczdaskError
from mrczdask.io.ragged import Ragged

FRAMES = np.random.default_rng(1).poisson(4.0, (6, 40, 50)).astype(np.uint16)
FRAMES[::2, 10:12, 30:33] += 500
GEOMETRY = md.Geometry.flat((40, 50))


def sparse(chunks: int = 2) -> Ragged:
    lazy = da.from_array(FRAMES, chunks=(chunks, 40, 50))
    return md.sparsify(lazy, GEOMETRY, bins=15, unit="pixel", cutoff_pick=2.0)


@pytest.mark.parametrize("chunks", [1, 4, 6])
def test_images_are_those_of_the_dense_frames(chunks: int) -> None:
    table = sparse().compute()
    dense = np.zeros((6, 40 * 50), np.int64)
    shot = np.repeat(np.arange(6), table.n_pixels.values)
    dense[shot, table["index"].values] = table.intensity.values
    found = md.sparse_sum(sparse(chunks))
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found.values.reshape(-1), dense.sum(0))
    weights = np.random.default_rng(0).random((40, 50))
    image = md.virtual_image(sparse(chunks), weights)
    np.testing.assert_allclose(image, (dense * weights.astype(np.float32).reshape(-1)).sum(1), rtol=1e-12)
    radius = GEOMETRY.radius("pixel").reshape(-1)
    ring = dense[:, (radius >= 10) & (radius < 14)].sum(1)
    annular = md.virtual_image(sparse(chunks), radial_range=(10, 14), scan_shape=(2, 3))
    assert annular.dims == ("scan_y", "scan_x")
    np.testing.assert_array_equal(annular.values.reshape(-1), ring)


@pytest.mark.usefixtures("no_compute")
def test_nothing_is_computed_at_once() -> None:
    md.sparse_sum(sparse())
    md.virtual_image(sparse(), np.ones((40, 50)))


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(MrczdaskError, match=r"\(40, 49\), the frames \(40, 50\)"):
        md.virtual_image(sparse(), np.ones((40, 49)))
    with pytest.raises(ValueError, match="6 shots are no scan of"):
        md.virtual_image(sparse(), scan_shape=(2, 2))
    for wrong in (np.ones((1, 40, 50)), sparse().compute().drop_vars("frame_ptr")):
        with pytest.raises(MrczdaskError, match=f"a {type(wrong).__name__} is no table of sparse frames"):
            md.sparse_sum(wrong)  # type: ignore[arg-type]


def test_a_table_in_memory_is_a_table() -> None:
    np.testing.assert_array_equal(md.sparse_sum(sparse().compute()), md.sparse_sum(sparse()))
    np.testing.assert_array_equal(md.virtual_image(sparse().compute()), md.virtual_image(sparse()))


@pytest.mark.real_data
def test_a_scan_of_terabytes_is_summed_without_its_frames(data_dir: Path) -> None:
    h5py = pytest.importorskip("h5py")
    path = data_dir / "real/diffraction/silicon_fullscan_strong_sparse.h5"
    table = md.open_sparse(path)
    total, image = da.compute(md.sparse_sum(table).data, md.virtual_image(table, scan_shape=(361, 500)).data)
    with h5py.File(path) as file:
        row, column, counts, nnz = (file[f"1.1/{name}"][()] for name in ("row", "col", "intensity", "nnz"))
    expected = np.zeros((2162, 2068), np.int64)
    np.add.at(expected, (row, column), counts.astype(np.int64))
    np.testing.assert_array_equal(total, expected)
    edges = np.concatenate([[0], np.cumsum(nnz)])
    running = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
    np.testing.assert_array_equal(image.reshape(-1), np.diff(running[edges]))
    with pytest.raises(MrczdaskError, match="no pixel_radius"):
        md.virtual_image(table, radial_range=(1, 2))
