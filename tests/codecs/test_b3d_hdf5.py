"""Files of the original B3D filter: the error tells their parameters."""

from __future__ import annotations

from pathlib import Path

import h5py
import pytest

from mrczdask.codecs import ORIGINAL_B3D_FILTER, original_b3d_error


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ((1000, 2, 2100, 100, 1600, 24), "mode 2, q = 1, 2.1 counts per electron, offset 100, read noise 1.6, tile 24"),
        ((500, 1, 1), "parameters unknown"),
        ((), "parameters unknown"),
    ],
)
def test_the_parameters_of_a_file_are_told(tmp_path: Path, values: tuple[int, ...], said: str) -> None:
    with h5py.File(tmp_path / "movie.h5", "w") as file:
        kind = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        kind.set_chunk((4, 4))
        kind.set_filter(ORIGINAL_B3D_FILTER, h5py.h5z.FLAG_OPTIONAL, values)
        space = h5py.h5s.create_simple((4, 4))
        h5py.h5d.create(file.id, b"images", h5py.h5t.NATIVE_UINT16, space, kind)
    with h5py.File(tmp_path / "movie.h5") as file:
        number, _, stored, _ = file["images"].id.get_create_plist().get_filter(0)
    assert number == ORIGINAL_B3D_FILTER
    error = original_b3d_error(stored, "images")
    assert str(error).startswith("images: written by the original B3D filter")
    assert said in str(error)
