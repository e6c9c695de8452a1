"""What stands behind links of HDF5 files: the same pixels as h5py gives, from the file that holds them."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import mrczdask as md
from mrczdask.errors import MrcFormatError, MrczdaskWarning
from mrczdask.io.hdf5_file import open_hdf5
from mrczdask.io.hdf5_links import MAX_LINKS, find_file, follow, home_of, linked
from tests.io.conftest import Bucket

h5py = pytest.importorskip("h5py")
hdf5plugin = pytest.importorskip("hdf5plugin")

SHAPE = (3, 6, 8)
PADDING = np.arange(5000, dtype="u4")
"""In front of what links are read from: offsets of one file mean other bytes in the other."""


def frames(seed: int = 0) -> NDArray[Any]:
    return np.random.default_rng(seed).integers(0, 60000, SHAPE).astype("u2")


@dataclass
class Maze:
    """Files in which each link leads to the one before; the first stands before a dataset of frames."""

    folder: Path
    names: list[str] = field(default_factory=list)
    at: tuple[str, str] = ("", "")
    """File and path of the last."""

    def begin(self, storage: str) -> None:
        file = self._file("start")
        with h5py.File(self.folder / file, "a") as root:
            if storage == "virtual":
                with h5py.File(self.folder / "raw.h5", "w") as raw:
                    raw["padding"], raw["data"] = PADDING[:700], frames()
                layout = h5py.VirtualLayout(SHAPE, "u2")
                layout[:] = h5py.VirtualSource("../raw.h5", "data", SHAPE)
                root.create_virtual_dataset("g/h/frames", layout, fillvalue=7)
            elif storage == "raw":
                name = str(self.folder / "bytes.raw")
                root.create_dataset("g/h/frames", SHAPE, "u2", external=[(name, 64, frames().nbytes)])[:] = frames()
            else:
                packed = {"chunks": (1, *SHAPE[1:]), "compression": "gzip"} if storage == "packed" else {}
                root.create_dataset("g/h/frames", data=frames(), **packed)
        self.at = file, "g/h/frames"

    def add(self, kind: str, k: int) -> None:
        file, path = self.at
        group, _, last = path.rpartition("/")
        if kind == "soft":
            with h5py.File(self.folder / file, "a") as root:
                root[f"soft{k}/x"] = h5py.SoftLink(f"/{path}")
            self.at = file, f"soft{k}/x"
        elif kind == "relative" and group:
            with h5py.File(self.folder / file, "a") as root:
                root[f"{group}/near{k}"] = h5py.SoftLink(f"./{last}")
            self.at = file, f"{group}/near{k}"
        elif kind == "group" and group:
            with h5py.File(self.folder / file, "a") as root:
                root[f"group{k}"] = h5py.SoftLink(f"/{group}")
            self.at = file, f"group{k}/{last}"
        else:
            named = os.path.relpath(self.folder / file, self.folder / f"d{k}")
            named = str(self.folder / file) if kind == "absolute" else named
            wide = kind == "external group" and group
            made = self._file(f"d{k}")
            with h5py.File(self.folder / made, "a") as root:
                root["out"] = h5py.ExternalLink(named, group if wide else f"/{path}")
            self.at = made, f"out/{last}" if wide else "out"

    def _file(self, folder: str) -> str:
        (self.folder / folder).mkdir()
        with h5py.File(self.folder / folder / "f.h5", "w") as root:
            root["padding"] = PADDING[: 900 * (1 + len(self.names))]
        self.names.append(folder)
        return f"{folder}/f.h5"


KINDS = st.sampled_from(["soft", "relative", "group", "external", "external group", "absolute"])


@settings(max_examples=25, deadline=None)
@given(
    kinds=st.lists(KINDS, min_size=1, max_size=7),
    storage=st.sampled_from(["plain", "packed", "virtual", "raw"]),
    as_virtual=st.booleans(),
)
def test_chains_of_links_lead_where_h5py_says(kinds: list[str], storage: str, as_virtual: bool) -> None:
    with tempfile.TemporaryDirectory() as name:
        maze = Maze(Path(name))
        maze.begin(storage)
        for k, kind in enumerate(kinds):
            maze.add(kind, k)
        path = str(maze.folder / maze.at[0])
        with open_hdf5(path) as file:
            assert (file[maze.at[1]][()] == frames()).all()
            place = follow(file, path, maze.at[1])
            assert place is not None
            home = home_of(file[maze.at[1]], path)
            assert os.path.samefile(home.url, place.url)
        with h5py.File(place.url) as file:
            assert (file[place.path][()] == frames()).all()
            assert (file[home.path][()] == frames()).all()
        np.testing.assert_array_equal(md.open_frames(path, dataset=maze.at[1]), frames())
        if as_virtual:
            with h5py.File(path, "a") as file:
                layout = h5py.VirtualLayout(SHAPE, "u2")
                layout[:] = h5py.VirtualSource(".", maze.at[1], SHAPE)
                file.create_virtual_dataset("seen", layout, fillvalue=3)
            with h5py.File(path) as file:
                expected = file["seen"][()]
            np.testing.assert_array_equal(md.open_frames(path, dataset="seen"), expected)


def test_links_in_a_ring_and_too_many_are_errors_as_in_h5py(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["one"], file["two"] = h5py.SoftLink("/two"), h5py.SoftLink("/one")
        file["out"] = h5py.ExternalLink("a.h5", "/out")
        file["k0"] = frames()
        for k in range(MAX_LINKS + 1):
            file[f"k{k + 1}"] = h5py.SoftLink(f"/k{k}")
    for name in ("one", "two", "out", f"k{MAX_LINKS + 1}"):
        with h5py.File(tmp_path / "a.h5") as file, pytest.raises((RuntimeError, KeyError)):
            file[name]
        with pytest.raises(MrcFormatError, match=f"a.h5: /{name} leads over more than 16 links"):
            md.open_frames(tmp_path / "a.h5", dataset=name)
    np.testing.assert_array_equal(md.open_frames(tmp_path / "a.h5", dataset=f"k{MAX_LINKS}"), frames())


def test_defaults_that_lead_in_a_ring_are_an_error(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["a/data"] = frames()
        file["b/again"] = h5py.SoftLink("/a")
        file.attrs["default"], file["a"].attrs["default"], file["b"].attrs["default"] = "a", "/b", "again"
    with pytest.raises(MrcFormatError, match="the attributes default lead in a ring by way of /a: give dataset="):
        md.open_frames(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file["a"].attrs["default"] = "."
        file["a"].attrs["signal"] = "data"
        file["mask_3d"] = np.zeros(SHAPE, "u1")
        file["other"] = frames(1)
    np.testing.assert_array_equal(md.open_frames(tmp_path / "a.h5"), frames())


PLACES = {"absolute": "gone", "prefix": "prefix", "beside": "m", "working": "here", "resolved": "real"}


@settings(max_examples=30, deadline=None)
@given(
    there=st.sets(st.sampled_from(sorted(PLACES)), min_size=1),
    broken=st.sets(st.sampled_from(sorted(PLACES))),
    is_absolute=st.booleans(),
    virtual=st.booleans(),
)
def test_files_are_looked_for_where_hdf5_looks(
    there: set[str], broken: set[str], is_absolute: bool, virtual: bool
) -> None:
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        for k, (place, folder) in enumerate(PLACES.items()):
            (Path(name) / folder).mkdir()
            if place in there:
                with h5py.File(Path(name) / folder / "x.h5", "w") as file:
                    file["data"] = frames(k)
                if place in broken:
                    os.truncate(Path(name) / folder / "x.h5", 100)
        asked = f"{name}/gone/x.h5" if is_absolute else "x.h5"
        with h5py.File(Path(name) / "real/master.h5", "w") as file:
            layout = h5py.VirtualLayout(SHAPE, "u2")
            layout[:] = h5py.VirtualSource(asked, "data", SHAPE)
            file.create_virtual_dataset("virtual", layout, fillvalue=5)
            file["link"] = h5py.ExternalLink(asked, "data")
        os.symlink(f"{name}/real/master.h5", f"{name}/m/master.h5")
        patch.chdir(Path(name) / "here")
        patch.setenv("HDF5_EXT_PREFIX", f"{name}/none{os.pathsep}{name}/prefix")
        patch.setenv("HDF5_VDS_PREFIX", f"{name}/none{os.pathsep}{name}/prefix")
        opened = {"url": f"{name}/m/master.h5", "dataset": "virtual" if virtual else "link"}
        try:
            with h5py.File(f"{name}/m/master.h5") as file:
                expected = file[opened["dataset"]][()]
        except (KeyError, OSError):
            expected = None
        if expected is None or (expected == 5).all():
            with pytest.raises(MrcFormatError, match=r"missing|truncated|no dataset"):
                md.open_frames(**opened)
        else:
            np.testing.assert_array_equal(md.open_frames(**opened), expected)


def test_the_working_folder_of_hdf5_is_found_by_workers_elsewhere(tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "m").mkdir()
    monkeypatch.chdir(tmp_path)
    with h5py.File("x.h5", "w") as file:
        file["data"] = frames()
    with h5py.File("m/master.h5", "w") as file:
        file["link"] = h5py.ExternalLink("x.h5", "data")
    assert os.path.isabs(find_file("m/master.h5", "x.h5"))


def eiger(folder: Path, *, mask: Any = None) -> Path:
    """A master whose group of frames is a link to the group of the data file."""
    with h5py.File(folder / "x_data.h5", "w") as file:
        file.create_dataset("entry/data/data_000001", data=frames(), chunks=(1, *SHAPE[1:]))
    with h5py.File(folder / "x_master.h5", "w") as file:
        file["padding"] = PADDING
        file["entry/data"] = h5py.ExternalLink("x_data.h5", "/entry/data")
        detector = file.create_group("entry/real/detector")
        detector.attrs["NX_class"] = "NXdetector"
        detector["detector_distance"] = 0.1
        file["entry/instrument"] = h5py.SoftLink("/entry/real")
        if mask is not None:
            detector["pixel_mask"] = mask
    return folder / "x_master.h5"


def test_a_mask_in_another_file_is_read_from_there(tmp_path: Path) -> None:
    bad = frames(3) > 40000
    with h5py.File(tmp_path / "meta.h5", "w") as file:
        file["deep/mask"] = bad[0].astype("u4")
        file["entry/data/data_000001"] = (~bad[0]).astype("u4")
        file["seen"] = h5py.SoftLink("/deep/mask")
    for kind, packed in (("plain", {}), ("packed", {"chunks": (3, 8), "compression": "lzf"})):
        with h5py.File(tmp_path / f"{kind}.h5", "w") as file:
            file.create_dataset("m", data=bad[1].astype("u1"), **packed)
    links = {"seen": ("meta.h5", 0), "m": ("plain.h5", 1), "/m": ("packed.h5", 1)}
    for path, (file, k) in links.items():
        images = md.open_frames(eiger(tmp_path, mask=h5py.ExternalLink(file, path)))
        assert images.attrs["distance_m"] == 0.1
        np.testing.assert_array_equal(images, frames())
        np.testing.assert_array_equal(images.mask, bad[k])
    os.remove(tmp_path / "plain.h5")
    with pytest.warns(MrczdaskWarning, match=r"pixel_mask leads to plain\.h5 m, which is not there"):
        md.open_frames(eiger(tmp_path, mask=h5py.ExternalLink("plain.h5", "m")))


@pytest.mark.parametrize("kind", ["json", "parquet"])
def test_references_of_linked_frames_are_to_the_file_that_holds_them(tmp_path: Path, kind: str) -> None:
    path = eiger(tmp_path)
    np.testing.assert_array_equal(md.virtualize(path, tmp_path / f"v.{kind}").images[0], frames())
    layout = h5py.VirtualLayout((2, *SHAPE[1:]), "u2")
    layout[:] = h5py.VirtualSource("x_data.h5", "entry/data/data_000001", SHAPE)[1:]
    with h5py.File(tmp_path / "part.h5", "w") as file:
        file.create_virtual_dataset("data", layout)
    np.testing.assert_array_equal(md.virtualize(tmp_path / "part.h5", tmp_path / f"p.{kind}").images[0], frames()[1:])


def test_what_a_virtual_dataset_lacks_is_said(tmp_path: Path) -> None:
    """The library gives fill values for it."""
    for k in (0, 1):
        with h5py.File(tmp_path / f"part{k}.h5", "w") as file:
            file["data"] = frames(k)[:, :3]
    layout = h5py.VirtualLayout(SHAPE, "u2")
    for k in (0, 1):
        layout[:, 3 * k : 3 * k + 3] = h5py.VirtualSource(f"part{k}.h5", "data", (3, 3, 8))
    with h5py.File(tmp_path / "v.h5", "w") as file:
        file.create_virtual_dataset("data", layout)
    expected = np.concatenate([frames(0)[:, :3], frames(1)[:, :3]], axis=1)
    before = md.open_frames(tmp_path / "v.h5")
    np.testing.assert_array_equal(before, expected)
    with h5py.File(tmp_path / "part1.h5", "a") as file:
        file["data"][0] = 9
    assert md.open_frames(tmp_path / "v.h5").data.name != before.data.name
    os.remove(tmp_path / "part1.h5")
    with pytest.raises(MrcFormatError, match=r"v\.h5: /data is in .*part1\.h5, which is missing"):
        md.open_frames(tmp_path / "v.h5")
    with h5py.File(tmp_path / "part1.h5", "w") as file:
        file["other"] = 1
    with pytest.raises(MrcFormatError, match=r"part1\.h5: there is no dataset /?data"):
        md.open_frames(tmp_path / "v.h5")


def test_in_an_object_store_links_lead_to_the_other_file(tmp_path: Path, bucket: Bucket) -> None:
    """h5py takes them to lead into the file they stand in, where there is a dataset of the same name."""
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file["entry/data/data"] = frames(1)
        file["soft"] = h5py.SoftLink("/entry/data")
    layout = h5py.VirtualLayout(SHAPE, "u2")
    layout[:, :, :4] = h5py.VirtualSource("data.h5", "entry/data/data", SHAPE)[:, :, :4]
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file["entry/data/data"] = frames(0)
        file["entry/link"] = h5py.ExternalLink("/gone/data.h5", "/soft/data")
        file["entry/instrument/detector/pixel_mask"] = h5py.ExternalLink("data.h5", "/entry/data/data")
        file.create_virtual_dataset("seen", layout)
    for name in ("data.h5", "m.h5"):
        bucket.put(name, (tmp_path / name).read_bytes())
    url = f"{bucket.url}/m.h5"
    with pytest.warns(MrczdaskWarning, match=r"pixel_mask leads to data\.h5"):
        linked_frames = md.open_frames(url, dataset="entry/link", storage_options=bucket.options)
    np.testing.assert_array_equal(linked_frames, frames(1))
    with pytest.raises(MrcFormatError, match="put together from other files, which is done for local files only"):
        md.open_frames(url, dataset="seen", storage_options=bucket.options)


def test_what_a_name_leads_to_is_none_where_there_is_nothing(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["data"], file["soft"] = frames(), h5py.SoftLink("/none")
    with h5py.File(tmp_path / "a.h5") as file:
        for name in ("none", "soft", "data/x", "soft/x"):
            with linked(file, str(tmp_path / "a.h5"), name) as (item, _):
                assert item is None
