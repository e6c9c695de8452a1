"""Archives that are written again in their own place: nothing old goes before all that is new is there."""

import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import mrczdask as md
from mrczdask.errors import ResumeError
from mrczdask.io import replacing
from mrczdask.io.stores import BESIDE


def session() -> xr.Dataset:
    pixels = np.stack([md.simulate.poisson((4, 24, 32), mean=3.0, seed=k).values for k in range(3)])
    images = xr.DataArray(pixels, dims=("movie", "frame", "y", "x")).chunk({"movie": 1})
    return xr.Dataset({"images": images}, {"movie": ["a", "b", "c"]}, {"facility": "one"})


CHANGES: dict[str, tuple[Callable[[xr.Dataset], xr.Dataset], dict[str, Any]]] = {
    "another codec": (lambda ds: ds, {"codec": "b3d"}),
    "other shards": (lambda ds: ds, {"frames_per_shard": 2}),
    "a coordinate more": (lambda ds: ds.assign_coords(good=("movie", [True, False, True])), {}),
    "fewer movies": (lambda ds: ds.isel(movie=[0, 2]), {}),
    "another name": (lambda ds: ds.rename(images="pixels"), {}),
}


@pytest.mark.parametrize(("change", "options"), CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("url", ["a.zarr", "memory://replaced.zarr"])
def test_an_archive_is_written_from_itself(
    change: Any, options: Any, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    md.write_archive(session(), url, codec="zstd", resume=False)
    opened = md.open_archive(url, "movies")
    written = md.write_archive(change(opened), url, group="movies", resume=False, **{"codec": "zstd"} | options)
    wanted = change(session())
    for ds in (written, md.open_archive(url, "movies")):
        xr.testing.assert_equal(ds.compute(), wanted.compute())
        assert ds.attrs["facility"] == "one"
    assert md.validate(url).findings == ()
    assert not list(tmp_path.rglob(BESIDE))


@pytest.mark.parametrize("step", range(1, 9))
def test_a_replacement_that_is_killed_loses_nothing(step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever step is the last one done, the next call ends with the new movies."""
    url, truth = tmp_path / "a.zarr", session()
    md.write_archive(truth, url, codec="zstd")
    changed = md.open_archive(url, "movies").assign_coords(good=("movie", [True, False, True]))
    left = iter(range(step))

    def killed(call: Any) -> Any:
        def wrapped(*given: Any, **options: Any) -> Any:
            if next(left, None) is None:
                raise KeyboardInterrupt
            return call(*given, **options)

        return wrapped

    with monkeypatch.context() as patched:
        for module, name in ((replacing, "_move"), (replacing.shutil, "rmtree"), (replacing.os, "rename")):
            patched.setattr(module, name, killed(getattr(module, name)))
        patched.setattr(replacing, "_read", killed(replacing._read))
        with suppress(KeyboardInterrupt):
            md.write_archive(changed, url, group="movies", codec="zstd", resume=False)
    again = truth.assign_coords(good=("movie", [True, False, True]))
    done = md.write_archive(again, url, group="movies", codec="zstd", resume=False)
    xr.testing.assert_equal(done.compute(), again.compute())


def test_what_was_begun_beside_is_gone_on_with(tmp_path: Path) -> None:
    url, truth = tmp_path / "a.zarr", session()
    md.write_archive(truth, url, codec="zstd")
    options: dict[str, Any] = {"group": "movies", "codec": "zstd", "frames_per_shard": 2}
    opened = md.open_archive(url, "movies")

    def stop(done: int, total: int, label: str) -> None:
        if done == total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        md.write_archive(opened, url, resume=False, progress=stop, **options)
    xr.testing.assert_equal(md.open_archive(url, "movies").compute(), truth.compute())
    written = md.write_archive(opened, url, **options)
    xr.testing.assert_equal(written.compute(), truth.compute())
    assert not (url / "movies" / BESIDE).exists()


def test_arrays_without_pixels_do_not_take_the_place_of_movies(tmp_path: Path) -> None:
    md.write_archive(session(), tmp_path / "a.zarr", codec="zstd")
    other = session().isel(frame=[0])
    with pytest.raises(ResumeError, match=r"would be lost before new pixels are there: overwrite=True"):
        md.write_archive(other, tmp_path / "a.zarr", codec="zstd", resume=False, create_only=True)
    assert md.open_archive(tmp_path / "a.zarr", "movies").sizes["frame"] == 4
    md.write_archive(other, tmp_path / "a.zarr", codec="zstd", resume=False, create_only=True, overwrite=True)


def test_a_group_that_was_lost_in_part_is_replaced(tmp_path: Path) -> None:
    md.write_archive(session(), tmp_path / "a.zarr", codec="zstd")
    shutil.rmtree(tmp_path / "a.zarr/movies/movie")
    done = md.write_archive(session(), tmp_path / "a.zarr", codec="zstd", resume=False)
    xr.testing.assert_equal(done.compute(), session().compute())
