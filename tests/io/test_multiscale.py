"""Images of several resolutions as the specification of OME-NGFF 0.5 has them, field by field."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

import mrczdask as md
from mrczdask.io import multiscale


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multiscale, "TILE", 16)


def images(*shape: int, **attrs: Any) -> xr.DataArray:
    pixels = np.random.default_rng(0).integers(0, 2000, shape)
    return xr.DataArray(pixels, dims=("movie", "y", "x")[-len(shape) :], attrs=attrs).chunk()


def metadata(folder: Path) -> dict[str, Any]:
    attributes = json.loads((folder / "derived/multiscale/zarr.json").read_text())["attributes"]
    found: dict[str, Any] = attributes["ome"]
    return found


@pytest.mark.parametrize("shape", [(3, 61, 40), (2, 16, 16), (33, 70)])
@pytest.mark.parametrize("size", [None, 1.25])
def test_the_metadata_are_those_of_the_specification(tmp_path: Path, shape: tuple[int, ...], size: Any) -> None:
    attrs = {} if size is None else {"pixel_size_angstrom": size}
    md.write_multiscale(images(*shape, **attrs), tmp_path / "s.zarr")
    said = metadata(tmp_path / "s.zarr")
    assert said["version"] == "0.5"
    (scales,) = said["multiscales"]
    assert set(scales) == {"name", "axes", "datasets", "type", "metadata"}
    assert isinstance(scales["name"], str)
    axes = scales["axes"]
    assert len({axis["name"] for axis in axes}) == len(axes) == len(shape)
    assert [axis["type"] for axis in axes][-2:] == ["space", "space"]  # 2 or 3 of space, last, the slowest first
    assert [axis["name"] for axis in axes][-2:] == ["y", "x"]
    assert not any(axis["type"] in ("space", "time", "channel") for axis in axes[:-2])  # one of another type at most
    assert [axis.get("unit") for axis in axes[-2:]] == [None if size is None else "angstrom"] * 2
    shapes = []
    for k, dataset in enumerate(scales["datasets"]):
        assert set(dataset) == {"path", "coordinateTransformations"}
        scale, *shift = dataset["coordinateTransformations"]  # one scale, then at most one translation
        assert set(scale) == {"type", "scale"}
        assert scale["type"] == "scale"
        assert scale["scale"] == [1.0] * (len(shape) - 2) + [2**k * (size or 1.0)] * 2
        assert [part["type"] for part in shift] == ["translation"] * (k > 0)
        for part in shift:  # the centre of the first pixel is that of the pixels it is made of
            assert part["translation"] == [0.0] * (len(shape) - 2) + [np.arange(2**k).mean() * (size or 1.0)] * 2
        array = zarr.open_array(str(tmp_path / "s.zarr/derived/multiscale" / dataset["path"]), mode="r")
        assert array.ndim == len(axes)
        assert array.metadata.dimension_names == tuple(axis["name"] for axis in axes)  # type: ignore[union-attr]
        assert array.dtype == np.float32
        shapes.append(array.shape)
    assert shapes[0] == shape
    assert all(small[-1] < large[-1] for large, small in pairwise(shapes))  # from the largest to the smallest
    assert max(shapes[-1][-2:]) <= 16


def test_pixels_are_means_of_those_inside(tmp_path: Path) -> None:
    sums = images(3, 37, 50, pixel_size_angstrom=2.0)
    levels = md.write_multiscale(sums, tmp_path / "s.zarr", group="derived/view")
    assert list(levels) == ["0", "1", "2"]
    np.testing.assert_array_equal(levels["0"]["images"], sums)
    for k, step in ((1, 2), (2, 4)):
        found = levels[str(k)]["images"].values
        for y, x in ((0, 0), (3, 5), (found.shape[1] - 1, found.shape[2] - 1)):
            block = sums.values[:, step * y : step * (y + 1), step * x : step * (x + 1)]
            if block.shape[1:] == (step, step) or step == 2:
                np.testing.assert_allclose(found[:, y, x], block.mean((1, 2)), rtol=1e-6)


def test_a_finished_image_is_left_alone_and_others_are_refused(tmp_path: Path) -> None:
    sums = images(2, 40, 40)
    md.write_multiscale(sums, tmp_path / "s.zarr")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "s.zarr").rglob("c/**/*") if path.is_file()}
    levels = md.write_multiscale(sums, tmp_path / "s.zarr")
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert md.validate(tmp_path / "s.zarr").findings == ()
    assert levels["0"]["images"].data.chunksize == (1, 40, 40)
    assert levels["0"]["images"].encoding["chunks"] == (1, 16, 16)
    with pytest.raises(ValueError, match=r"images \(y, x\) or \(movie, y, x\)"):
        md.write_multiscale(sums.transpose("x", "y", "movie"), tmp_path / "t.zarr")
