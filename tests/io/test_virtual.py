"""Files as one Zarr array: the pixels are those of the files, references stay inside, what is odd is refused."""

from __future__ import annotations

import base64
import json
import warnings
from pathlib import Path
from typing import Any

import fsspec
import h5py
import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mrczdask as md
from mrczdask.codecs import BloscFrame, BloscFrameNumcodec
from mrczdask.errors import CodecError, MrcFormatError
from mrczdask.io import virtual_files
from mrczdask.io.virtual_refs import checked_url
from tests.mrc_bytes import blosc1, blosc2_chunks, counts, mrc_bytes

KINDS = ("json", "parquet", "icechunk")
NEEDED: dict[str, tuple[str, ...]] = {"json": (), "parquet": ("fastparquet",), "icechunk": ("icechunk", "virtualizarr")}


def need(kind: str) -> None:
    for module in NEEDED[kind]:
        pytest.importorskip(module)


def write_files(folder: Path, kind: str, order: str = "<") -> np.ndarray:
    """Three movies as foreign programs write them."""
    movies = np.stack([counts((4, 24, 20), "i2", seed=k) for k in range(3)])
    chunk = {"plain": None, "blosc1": blosc1(), "blosc2": blosc2_chunks()}[kind]
    suffix = "mrc" if chunk is None else "mrcz"
    for k, frames in enumerate(movies):
        raw = mrc_bytes(frames, 1, order=order, chunk=chunk, compressor=0 if chunk is None else 6)
        (folder / f"m{k}.{suffix}").write_bytes(raw)
    return movies


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("files", "order"), [("plain", "<"), ("plain", ">"), ("blosc1", "<"), ("blosc2", "<")])
def test_the_cube_is_the_files(tmp_path: Path, kind: str, files: str, order: str) -> None:
    need(kind)
    movies = write_files(tmp_path, files, order)
    cube = md.virtualize(str(tmp_path / "m*.mrc*"), tmp_path / f"s.{kind}", order="name")
    np.testing.assert_array_equal(cube.images, movies)
    assert cube.images.dtype.newbyteorder("=") == movies.dtype
    assert cube.movie.values.tolist() == ["m0", "m1", "m2"]
    assert cube.images.coords["url"].size == 3
    again = md.open_archive(tmp_path / f"s.{kind}")
    np.testing.assert_array_equal(again.images[2, 1, 5:9], movies[2, 1, 5:9])


@pytest.mark.parametrize("kind", KINDS)
def test_an_index_of_changed_files_is_another_array(tmp_path: Path, kind: str) -> None:
    """The pixels lie in the same places of the same files: only the index was made anew."""
    need(kind)
    target = tmp_path / f"s.{kind}"
    names = []
    for add in (0, 1):
        for k in range(2):
            (tmp_path / f"m{k}.mrc").write_bytes(mrc_bytes(counts((2, 6, 5), "i2", seed=k) + np.int16(add), 1))
        md.virtualize(str(tmp_path / "m*.mrc"), target, order="name")
        names += [md.open_archive(target).images.data.name for _ in range(2)]
    assert names[0] == names[1]
    assert names[2] == names[3] != names[0]


def test_zeros_stay_counts(tmp_path: Path) -> None:
    md.write_mrcz(np.zeros((2, 8, 8), np.int8), tmp_path / "m.mrcz")
    cube = md.virtualize(tmp_path / "m.mrcz", tmp_path / "s.json")
    assert cube.images.dtype == np.int8
    assert int(cube.images.sum()) == 0
    refs = json.loads((tmp_path / "s.json").read_text())["refs"]
    assert all(json.loads(text)["fill_value"] is None for key, text in refs.items() if key.endswith(".zarray"))


@pytest.mark.parametrize("files", ["plain", "blosc1"])
def test_fsspec_reads_the_references(tmp_path: Path, files: str) -> None:
    movies = write_files(tmp_path, files)
    md.virtualize(str(tmp_path / "m*.mrc*"), tmp_path / "s.json", order="name")
    fs = fsspec.filesystem("reference", fo=str(tmp_path / "s.json"), remote_protocol="file", asynchronous=True)
    array = zarr.open_array(zarr.storage.FsspecStore(fs, read_only=True, path=""), path="images", mode="r")
    np.testing.assert_array_equal(array[1, 2], movies[1, 2])


def test_kerchunk_reads_the_parquet(tmp_path: Path) -> None:
    need("parquet")
    movies = write_files(tmp_path, "blosc1")
    md.virtualize(str(tmp_path / "m*.mrcz"), tmp_path / "s.parquet", order="name")
    from fsspec.implementations.reference import LazyReferenceMapper

    with warnings.catch_warnings():  # pandas and fastparquet: deprecated between the two
        warnings.simplefilter("ignore")
        mapper = LazyReferenceMapper(str(tmp_path / "s.parquet"), fs=fsspec.filesystem("file"))
        url, offset, size = mapper["images/1.2.0.0"]
    with fsspec.open(url, "rb") as file:
        file.seek(offset)
        chunk = file.read(size)
    pixels = BloscFrameNumcodec(nbytes=movies[0, 0].nbytes).decode(chunk)
    np.testing.assert_array_equal(pixels.view("i2").reshape(24, 20), movies[1, 2])


def test_virtualizarr_parses_a_file(tmp_path: Path) -> None:
    need("icechunk")
    from virtualizarr import open_virtual_dataset

    from mrczdask.io.virtual_icechunk import MrcParser

    write_files(tmp_path, "blosc1")
    parsed = open_virtual_dataset(
        f"file://{tmp_path}/m1.mrcz", registry=_registry(f"file://{tmp_path}"), parser=MrcParser()
    )
    assert parsed.images.shape == (1, 4, 24, 20)
    entry = parsed.images.data.manifest.dict()["0.2.0.0"]
    index = md.frame_index(tmp_path / "m1.mrcz")
    assert (entry["offset"], entry["length"]) == (int(index.offset[2]), int(index.length[2]))


def _registry(prefix: str) -> Any:
    from obspec_utils.registry import ObjectStoreRegistry
    from obstore.store import LocalStore

    return ObjectStoreRegistry({prefix: LocalStore(prefix=prefix.removeprefix("file://"))})


def test_plain_frames_are_cut_into_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    movies = write_files(tmp_path, "plain")
    monkeypatch.setattr(virtual_files, "ROW_BLOCK_BYTES", 5 * 40)
    cube = md.virtualize(str(tmp_path / "m*.mrc"), tmp_path / "s.json", order="name")
    assert cube.images.encoding["chunks"] == (1, 1, 4, 20)
    np.testing.assert_array_equal(cube.images, movies)


@pytest.mark.parametrize("packed", [{}, {"compression": "gzip", "shuffle": True}])
@pytest.mark.parametrize("kind", ["json", "parquet"])
def test_frames_of_hdf5(tmp_path: Path, kind: str, packed: dict[str, Any]) -> None:
    need(kind)
    movies = np.stack([counts((6, 24, 20), "u2", seed=k) for k in range(2)])
    for k, frames in enumerate(movies):
        with h5py.File(tmp_path / f"run_{k}.h5", "w") as file:
            chunks = (2, 24, 20) if packed else None
            file.create_dataset("entry/data/data", data=frames, chunks=chunks, **packed)
    cube = md.virtualize(str(tmp_path / "run_*.h5"), tmp_path / f"s.{kind}")
    np.testing.assert_array_equal(cube.images, movies)


def test_what_zarr_cannot_read_is_refused(tmp_path: Path) -> None:
    md.write_mrcz(counts((2, 8, 8), "u1") % 16, tmp_path / "a.mrc", codec=None, mode=101)
    with pytest.raises(MrcFormatError, match=r"a\.mrc: 4-bit pixels have no data type in Zarr"):
        md.virtualize(tmp_path / "a.mrc", tmp_path / "s.json")
    md.write_mrcz(counts((2, 8, 8), "i2"), tmp_path / "b.mrc", codec=None)
    md.write_mrcz(counts((2, 8, 8), "i2"), tmp_path / "c.mrcz")
    with pytest.raises(MrcFormatError, match=r"c\.mrcz: pixels are stored otherwise"):
        md.virtualize([tmp_path / "b.mrc", tmp_path / "c.mrcz"], tmp_path / "s.json", order="given")
    with pytest.raises(ValueError, match=r"name it \.json, \.parquet"):
        md.virtualize(tmp_path / "b.mrc", tmp_path / "s.zip")


def references(folder: Path, **changed: Any) -> Path:
    """References to one movie, with some of them changed."""
    md.write_mrcz(counts((2, 8, 8), "i2"), folder / "m.mrcz")
    md.virtualize(folder / "m.mrcz", folder / "s.json")
    document = json.loads((folder / "s.json").read_text())
    document["refs"] |= changed
    (folder / "s.json").write_text(json.dumps(document))
    return folder / "s.json"


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/hostname",
        "/etc/hostname",
        "{folder}/../secret.bin",
        "file://{folder}/sub/../../secret.bin",
        "{folder}/link.bin",
        "http://169.254.169.254/latest/meta-data",
        "s3://bucket/key",
        "memory://secret",
        "simplecache::file:///etc/hostname",
    ],
)
def test_references_do_not_leave_the_folder(tmp_path: Path, url: str) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(bytes(4096))
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    path = references(folder, **{"images/0.1.0.0": [url.format(folder=folder), 0, 128]})
    opened = md.open_archive(path)
    assert opened.images[0, 0].shape == (8, 8)
    with pytest.raises(MrcFormatError, match="a reference leaves the store"):
        opened.images.values  # noqa: B018


def test_allowed_folders_are_read(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    frames = counts((2, 8, 8), "i2")
    md.write_mrcz(frames, tmp_path / "data" / "m.mrcz")
    (tmp_path / "refs").mkdir()
    md.virtualize(tmp_path / "data" / "m.mrcz", tmp_path / "refs" / "s.json")
    with pytest.raises(MrcFormatError, match=r"open_archive\(\.\.\., allow="):
        md.open_archive(tmp_path / "refs" / "s.json").images.values  # noqa: B018
    opened = md.open_archive(tmp_path / "refs" / "s.json", allow=[str(tmp_path / "data")])
    np.testing.assert_array_equal(opened.images[0], frames)


@pytest.mark.parametrize(
    ("url", "fine"),
    [
        ("s3://bucket/run/m.mrcz", True),
        ("s3://bucket/run/../other/m.mrcz", False),
        ("s3://bucket/run/%2e%2e/m.mrcz", False),
        ("s3://bucket/running/m.mrcz", False),
        ("https://bucket/run/m.mrcz", False),
    ],
)
def test_urls_in_stores(url: str, fine: bool) -> None:
    if fine:
        assert checked_url(url, ["s3://bucket/run/"], "s.json") == url
    else:
        with pytest.raises(MrcFormatError, match="leaves the store"):
            checked_url(url, ["s3://bucket/run/"], "s.json")


def zarray(**changed: Any) -> str:
    plain = {"zarr_format": 2, "shape": [1, 2, 8, 8], "chunks": [1, 1, 8, 8], "dtype": "<i2", "compressor": None}
    return json.dumps({**plain, "fill_value": None, "order": "C", "filters": None, **changed})


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"images/.zarray": zarray(filters=[{"id": "pickle"}], dtype="|O")}, "the codec 'pickle' is not read here"),
        ({"images/.zarray": zarray(chunks=[1, 1, 1 << 20, 1 << 20])}, r"chunks of .* are refused"),
        ({"images/.zarray": zarray(chunks=[1, 1, 8, 0])}, r"chunks of .* are refused"),
        ({"images/.zarray": "{"}, "no JSON"),
        ({"images/0.0.0.0": ["m.mrcz", 0, 1 << 40]}, "the references are corrupt"),
        ({"images/0.0.0.0": ["m.mrcz", -1, 16]}, "no byte range"),
        ({"images/0.0.0.0": ["m.mrcz"]}, r"no \[url, offset, length\]"),
    ],
)
def test_hostile_references_are_refused(tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    path = references(tmp_path, **changed)
    with pytest.raises(MrcFormatError, match=said):
        md.open_archive(path).images.values  # noqa: B018


def test_hostile_documents_are_refused(tmp_path: Path) -> None:
    for text, said in [("[1]", "no file of references"), ('{"gen": [{}]}', "templates"), ("{", "no JSON")]:
        (tmp_path / "s.json").write_text(text)
        with pytest.raises(MrcFormatError, match=said):
            md.open_archive(tmp_path / "s.json")


def test_a_chunk_that_lies_about_its_size_takes_no_memory(tmp_path: Path) -> None:
    raw = bytearray(blosc1()(bytes(128), 2))
    raw[4:8] = (2**31 - 32).to_bytes(4, "little")
    with pytest.raises(CodecError, match="a chunk of 128 bytes was expected"):
        BloscFrameNumcodec(nbytes=128).decode(bytes(raw))
    for nbytes in (0, -1, 2**31, "128"):
        with pytest.raises(CodecError, match="a chunk has 1 to"):
            BloscFrame(nbytes=nbytes)  # type: ignore[arg-type]
    with pytest.raises(CodecError, match="only reads"):
        BloscFrameNumcodec(nbytes=128).encode(bytes(128))


def test_inline_labels_survive(tmp_path: Path) -> None:
    refs = json.loads(references(tmp_path).read_text())["refs"]
    assert base64.b64decode(refs["movie/0"].removeprefix("base64:")).decode("utf-32-le") == "m"


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_random_cubes(tmp_path: Path, data: st.DataObject) -> None:
    n, *shape = (data.draw(st.integers(1, high)) for high in (3, 4, 12, 9))
    mode, dtype = data.draw(st.sampled_from([(0, "i1"), (1, "i2"), (2, "f4"), (6, "u2"), (4, "c8")]))
    chunk = data.draw(st.sampled_from([None, blosc1(), blosc1("lz4", shuffle="byte"), blosc2_chunks()]))
    movies = np.stack([counts(tuple(shape), dtype, seed=k) for k in range(n)])
    paths = [tmp_path / f"m{k}.{'mrc' if chunk is None else 'mrcz'}" for k in range(n)]
    for path, frames in zip(paths, movies, strict=True):
        path.write_bytes(mrc_bytes(frames, mode, chunk=chunk, compressor=0 if chunk is None else 6, imod_flags=1))
    cube = md.virtualize(paths, tmp_path / "s.json", order="given")
    np.testing.assert_array_equal(cube.images, movies)
    np.testing.assert_array_equal(md.write_archive(cube, tmp_path / "s.zarr", resume=False).images, movies)


@pytest.mark.parametrize("suffix", ["json", "parquet"])
def test_references_that_move_with_their_files(tmp_path: Path, suffix: str) -> None:
    (tmp_path / "a" / "raw").mkdir(parents=True)
    movie = md.simulate.poisson((3, 16, 16), mean=2.0, seed=0)
    md.write_mrcz(movie, tmp_path / "a" / "raw" / "m.mrcz")
    md.virtualize(f"{tmp_path}/a/raw/*.mrcz", tmp_path / "a" / f"run.{suffix}", order="name")
    (tmp_path / "a").rename(tmp_path / "b")
    opened = md.open_archive(tmp_path / "b" / f"run.{suffix}")
    np.testing.assert_array_equal(opened["images"][0], movie)
