from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mrczdask as md
from mrczdask.errors import MrcFormatError, MrczdaskWarning
from mrczdask.io.session import expand_urls, natural_key, unique_names
from tests.mrc_bytes import blosc1, counts, mrc_bytes

SHAPE = (3, 8, 10)


def write(
    path: Path, seed: int = 0, *, mode: int = 1, dtype: str = "i2", shape: Any = SHAPE, **options: Any
) -> np.ndarray:
    frames = counts(shape, dtype, seed=seed)
    metadata = options.pop("metadata", None)
    if metadata:
        options |= {"extended": json.dumps(metadata).encode(), "exttyp": b"json"}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(mrc_bytes(frames, mode, chunk=blosc1(), compressor=6, labels=(b"MRCZ0.6.0",), **options))
    return frames


def test_natural_order_and_data_model(tmp_path: Path, no_compute: None) -> None:
    for k in (10, 2, 1):
        write(tmp_path / f"movie_{k}.mrcz", k)
    session = md.open_session(f"{tmp_path}/movie_*.mrcz", order="name")
    assert session.movie.values.tolist() == ["movie_1", "movie_2", "movie_10"]
    assert session.images.dims == ("movie", "frame", "y", "x")
    assert session.n_frames.values.tolist() == [3, 3, 3]
    assert session.url.values.tolist() == [str(tmp_path / f"movie_{k}.mrcz") for k in (1, 2, 10)]
    assert session.images.chunksizes["movie"] == (1, 1, 1)


def test_pixels_by_name_and_position(tmp_path: Path) -> None:
    frames = {k: write(tmp_path / f"m{k}.mrcz", k) for k in range(4)}
    session = md.open_session(tmp_path / "m*.mrcz", order="name")
    for k in range(4):
        np.testing.assert_array_equal(session.images.sel(movie=f"m{k}").values, frames[k])
    np.testing.assert_array_equal(session.images.isel(movie=[3, 1], frame=-1).values, [frames[3][-1], frames[1][-1]])
    np.testing.assert_array_equal(session.images.values, np.stack(list(frames.values())))


@pytest.mark.parametrize("key", ["acquired", "AcquisitionTime", "date_time"])
def test_order_of_time(tmp_path: Path, key: str) -> None:
    hours = {"a": 12, "b": 9, "c": 15}
    for name, hour in hours.items():
        write(tmp_path / f"{name}.mrcz", metadata={key: f"2026-03-01T{hour:02}:00:00"})
    session = md.open_session(f"{tmp_path}/*.mrcz")
    assert session.movie.values.tolist() == ["b", "a", "c"]
    assert session.acquired.dtype == "datetime64[ns]"
    assert (np.diff(session.acquired.values) > np.timedelta64(0, "ns")).all()
    given_order = md.open_session([tmp_path / f"{name}.mrcz" for name in "cab"], order="given")
    assert given_order.movie.values.tolist() == ["c", "a", "b"]


def test_without_times_the_names_decide_and_say_so(tmp_path: Path) -> None:
    write(tmp_path / "m2.mrcz", metadata={"acquired": "2026-03-01T08:00:00"})
    write(tmp_path / "m1.mrcz")
    with pytest.warns(MrczdaskWarning, match=r"1 of 2 movies do not say when .*m1\.mrcz.*ordered by name"):
        session = md.open_session(f"{tmp_path}/*.mrcz")
    assert session.movie.values.tolist() == ["m1", "m2"]
    assert "acquired" not in session.coords


def test_one_movie_is_a_session_without_a_warning(tmp_path: Path) -> None:
    write(tmp_path / "only.mrcz")
    assert md.open_session(tmp_path / "only.mrcz").sizes["movie"] == 1


@pytest.mark.parametrize(
    ("kinds", "dtype"),
    [
        ([(0, "i1"), (6, "u2")], "int32"),
        ([(0, "i1"), (1, "i2")], "int16"),
        ([(1, "i2"), (2, "f4")], "float32"),
        ([(6, "u2"), (8, "u4")], "uint32"),
    ],
)
def test_dtypes_are_promoted(tmp_path: Path, kinds: list[tuple[int, str]], dtype: str) -> None:
    movies = [write(tmp_path / f"{k}.mrcz", k, mode=mode, dtype=kind) for k, (mode, kind) in enumerate(kinds)]
    session = md.open_session(f"{tmp_path}/*.mrcz", order="name")
    assert session.images.dtype == dtype
    np.testing.assert_array_equal(session.images.values, np.stack([movie.astype(dtype) for movie in movies]))


def test_odd_shapes_and_broken_files_are_listed_or_left_out(tmp_path: Path) -> None:
    good = [write(tmp_path / f"m{k}.mrcz", k) for k in range(3)]
    write(tmp_path / "odd.mrcz", shape=(2, 8, 10))
    with pytest.raises(MrcFormatError, match=r"1 movies do not have the shape \(3, 8, 10\).*odd.mrcz \(2, 8, 10\)"):
        md.open_session(f"{tmp_path}/*.mrcz", order="name")
    (tmp_path / "broken.mrcz").write_bytes(b"no MRC" * 300)
    with pytest.raises(MrcFormatError, match=r'1 movies cannot be opened: .*broken\.mrcz.*errors="skip"'):
        md.open_session(f"{tmp_path}/*.mrcz", order="name")
    with pytest.warns(MrczdaskWarning) as warned:
        session = md.open_session(f"{tmp_path}/*.mrcz", order="name", errors="skip")
    assert sum("left out" in str(warning.message) for warning in warned) == 2
    np.testing.assert_array_equal(session.images.values, np.stack(good))


def test_long_lists_of_broken_files_are_cut(tmp_path: Path) -> None:
    write(tmp_path / "good.mrcz")
    for k in range(9):
        (tmp_path / f"bad{k}.mrcz").write_bytes(b"")
    with pytest.raises(MrcFormatError, match=r"9 movies cannot be opened: .* and 4 more"):
        md.open_session(f"{tmp_path}/*.mrcz", order="name")


def test_nothing_to_open(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no file matches"):
        md.open_session(f"{tmp_path}/*.mrcz")
    with pytest.raises(FileNotFoundError, match="no movie was named"):
        md.open_session([])
    (tmp_path / "a.mrcz").write_bytes(b"")
    with pytest.raises(MrcFormatError, match="1024 bytes"):
        md.open_session(f"{tmp_path}/*.mrcz", errors="skip")
    with pytest.raises(ValueError, match='"time", "name" or "given"'):
        md.open_session("x.mrc", order="size")  # type: ignore[arg-type]


def test_names_with_brackets_are_files_too(tmp_path: Path) -> None:
    write(tmp_path / "movie[1].mrcz")
    assert md.open_session(tmp_path / "movie[1].mrcz").movie.values.tolist() == ["movie[1]"]


def test_session_in_an_object_store() -> None:
    fs = fsspec.filesystem("memory")
    frames = {}
    for k in (1, 2, 10):
        frames[k] = counts(SHAPE, "i2", seed=k)
        fs.pipe(f"/session/m{k}.mrcz", mrc_bytes(frames[k], 1, chunk=blosc1(), compressor=6))
    session = md.open_session("memory://session/m*.mrcz", order="name")
    assert session.movie.values.tolist() == ["m1", "m2", "m10"]
    np.testing.assert_array_equal(session.images.values, np.stack([frames[k] for k in (1, 2, 10)]))


def test_coordinates_along_movie_and_frame(tmp_path: Path) -> None:
    for k, rate in enumerate((5.0, 7.5)):
        movie = md.open_movie(_plain(tmp_path / f"raw{k}.mrc", k)).assign_coords(
            dose=("frame", np.arange(3.0) + k), tilt=("frame", np.arange(3.0)), dose_rate=rate
        )
        md.write_mrcz(movie, tmp_path / f"m{k}.mrcz")
    session = md.open_session(f"{tmp_path}/m*.mrcz", order="name")
    assert session.dose.dims == ("movie", "frame")
    assert session.tilt.dims == ("frame",)
    assert session.dose_rate.values.tolist() == [5.0, 7.5]
    assert session.dose.attrs["units"] == "e/angstrom^2"


def _plain(path: Path, seed: int) -> Path:
    path.write_bytes(mrc_bytes(counts(SHAPE, "i2", seed=seed), 1))
    return path


def test_only_common_attributes_are_kept(tmp_path: Path) -> None:
    write(tmp_path / "a.mrcz", optics=(300.0, 2.7, 1.0))
    write(tmp_path / "b.mrcz", optics=(200.0, 2.7, 1.0))
    attrs = md.open_session(f"{tmp_path}/*.mrcz", order="name").images.attrs
    assert "voltage_kv" not in attrs
    assert attrs["spherical_aberration_mm"] == 2.7


@given(st.lists(st.text("ab12_", min_size=1, max_size=6), min_size=1, max_size=8))
def test_natural_order_sorts_numbers_by_value(stems: list[str]) -> None:
    ordered = sorted(stems, key=natural_key)
    assert sorted(ordered) == sorted(stems)
    assert natural_key("m2") < natural_key("m10") < natural_key("m10a")
    natural_key("1²2")


@pytest.mark.parametrize(
    ("urls", "names"),
    [
        (["x/a.mrc", "y/a.mrc"], ["x/a", "y/a"]),
        (["x/a.mrc", "x/b.mrc.gz"], ["a", "b"]),
        (["s3://k/x/1/a.mrcz", "s3://k/y/1/a.mrcz"], ["x/1/a", "y/1/a"]),
        (["a.mrc", "a.mrcz"], ["a.mrc", "a.mrcz"]),
    ],
)
def test_unique_names(urls: list[str], names: list[str]) -> None:
    assert unique_names(urls) == names


def test_each_file_once(tmp_path: Path) -> None:
    for k in (1, 2):
        write(tmp_path / f"m{k}.mrcz")
    urls = expand_urls([tmp_path / "m2.mrcz", f"{tmp_path}/*.mrcz"])
    assert [Path(url).name for url in urls] == ["m2.mrcz", "m1.mrcz"]


def test_relative_patterns_give_relative_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "sub" / "m1.mrcz")
    monkeypatch.chdir(tmp_path)
    assert expand_urls("sub/*.mrcz") == ["sub/m1.mrcz"]


# ---- folders of EPU


def epu(folder: Path, hole: int, when: str, zone: str, seed: int, *, xml: bool = True) -> np.ndarray:
    """One exposure: movie, gain reference and XML beside each other, the time in their names."""
    import tifffile

    from tests.formats.test_epu import xml as document

    frames = counts((4, 8, 10), "u1", seed=seed)
    folder.mkdir(parents=True, exist_ok=True)
    day, clock = when.split("T")
    stem = folder / f"FoilHole_{hole}_Data_10_{day.replace('-', '')}_{clock.replace(':', '')}"
    options = {"photometric": "minisblack", "metadata": None}
    tifffile.imwrite(f"{stem}_fractions.tiff", frames, compression="lzw", **options)
    tifffile.imwrite(f"{stem}_gain.tiff", np.ones((8, 10), "f4"), **options)
    if xml:
        Path(f"{stem}.xml").write_bytes(document(when + ".0" + zone))
    return frames


EXPOSURES = [  # in the order of time, which is not that of the names, nor of the clock where it is set back
    (3, 900, "2024-10-27T02:40:00", "+02:00"),
    (1, 901, "2024-10-27T02:50:00", "+02:00"),
    (3, 200, "2024-10-27T02:10:00", "+01:00"),
    (1, 199, "2024-10-27T02:20:00", "+01:00"),
]


def test_movies_of_epu_in_the_order_of_time_without_their_gains(tmp_path: Path) -> None:
    truth = [
        epu(tmp_path / f"GridSquare_{square}" / "Data", hole, when, zone, hole)
        for square, hole, when, zone in EXPOSURES
    ]
    session = md.open_session(f"{tmp_path}/*/Data/*.tiff")
    assert [name.split("_")[1] for name in session.movie.values.tolist()] == ["900", "901", "200", "199"]
    np.testing.assert_array_equal(session.images.values, truth)
    assert session.acquired.values.tolist() == np.array([e[2] for e in EXPOSURES], "datetime64[ns]").tolist()
    assert session.utc_offset.values.tolist() == [120, 120, 60, 60]
    assert all(str(name).endswith("_gain.tiff") for name in session.gain_reference.values)
    assert session.images.attrs["pixel_size_angstrom"] == 0.82
    assert session.images.attrs["voltage_kv"] == 300
    np.testing.assert_allclose(session.dose.values, [10, 20, 30, 40])
    given = [str(path) for path in sorted(tmp_path.glob("*/Data/*.tiff"), reverse=True)]
    np.testing.assert_array_equal(md.open_session(given).images.values, truth)
    gains = md.open_session(f"{tmp_path}/*/Data/*_gain.tiff", order="name")  # asked for alone
    assert gains.images.shape == (4, 1, 8, 10)


def test_movies_of_epu_by_the_time_in_their_names(tmp_path: Path) -> None:
    whens = ["2024-11-11T22:56:30", "2024-11-11T22:58:10", "2024-11-12T01:02:03"]
    for hole, when in zip((900, 901, 200), whens, strict=True):
        epu(tmp_path, hole, when, "", hole, xml=hole == 901)
    session = md.open_session(f"{tmp_path}/*.tiff")
    assert [name.split("_")[1] for name in session.movie.values.tolist()] == ["900", "901", "200"]
    assert session.acquired.values.tolist() == np.array(whens, "datetime64[ns]").tolist()
