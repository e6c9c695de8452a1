"""What stands behind the links of HDF5 files, found as the HDF5 library finds it: the file and the name in it.

`dataset.file.filename` and `dataset.name` of h5py do not tell it: behind a soft link to an external link the name is
that of the soft link, which the other file does not have. Of a file that is read from an object store the library
takes every external link to lead into that same file. Links are therefore followed here, one by one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any, Final

import numpy as np

from mrczdask.errors import MrcFormatError
from mrczdask.io.hdf5_file import Options, beside, open_hdf5
from mrczdask.io.source import is_remote, local_path, open_source

MAX_LINKS: Final = 16
"""Soft and external links that the library follows on its way to an object (H5Pset_nlinks)."""
LINK_FOLDERS: Final = "HDF5_EXT_PREFIX"
VIRTUAL_FOLDERS: Final = "HDF5_VDS_PREFIX"
RAW_FOLDER: Final = "HDF5_EXTFILE_PREFIX"
"""Environment variables in which the library finds folders to look in."""
_ORIGIN: Final = "${ORIGIN}"
_BLOCK: Final = re.compile("%(.?)")


@dataclass(frozen=True)
class Located:
    """An object: the file that holds it, its name there by hard links alone, and the name it was asked for by."""

    url: str
    path: str
    asked: str

    def is_same(self, other: Located) -> bool:
        """Whether it is the same place, by whatever name it was asked for."""
        return (self.url, self.path) == (other.url, other.path)


@contextmanager
def linked(file: Any, url: str, path: str, options: Options = None) -> Iterator[tuple[Any, Located]]:
    """The object that a name in an open file leads to, and where it is; None where the name leads nowhere.

    Raises
    ------
    MrcFormatError
        A file on the way is missing or damaged, or links lead in a ring.
    """
    found, parts, left = Located(url, "", path), _parts(path), MAX_LINKS
    with ExitStack() as stack:
        while parts is not None:
            at, link, rest = _walk(file, parts)
            if link is None:
                item = file[at or "/"] if rest is not None else None
                yield item, Located(found.url, at or "/", path)
                return
            left -= 1
            if left < 0:
                problem = (
                    f"/{path.strip('/')} leads over more than {MAX_LINKS} links, in a ring it seems: give dataset="
                )
                raise MrcFormatError(problem, url=url)
            parts = [*_parts(link.path), *(rest or [])]
            if hasattr(link, "filename"):
                try:
                    found = Located(find_file(found.url, link.filename, options), "", path)
                    file = stack.enter_context(open_hdf5(found.url, options))
                except FileNotFoundError as error:
                    problem = (
                        f"/{path.strip('/')} is in {error}, which is missing: put it where the master file expects it"
                    )
                    raise MissingLinkError(problem, url=url) from None
            elif not link.path.startswith("/"):
                parts = [*_parts(at), *parts]


class MissingLinkError(MrcFormatError):
    """A file is missing that a link leads to."""


def follow(file: Any, url: str, path: str, options: Options = None) -> Located | None:
    """Where the object is that a name in an open file leads to, if there is one; see `linked`."""
    with linked(file, url, path, options) as (item, place):
        return None if item is None else place


def _walk(file: Any, parts: Sequence[str]) -> tuple[str, Any, list[str] | None]:
    """The path along hard links, the link where they end, and the names that follow it.

    Without a link the object is at the path; it is missing where the names that follow are None.
    """
    at = ""
    for k, part in enumerate(parts):
        group = file[at or "/"]
        link = group.get(part, getlink=True) if hasattr(group, "keys") else None
        if link is None:
            return "/".join([at, *parts[k:]]), None, None
        if hasattr(link, "path"):
            return at, link, list(parts[k + 1 :])
        at = f"{at}/{part}"
    return at, None, []


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]


def find_file(parent: str, name: str, options: Options = None, *, folders: str = LINK_FOLDERS) -> str:
    """The file that another names: the first that is there of all places where the library looks.

    An absolute name that is gone is looked for by its last part. Places are the folders of an environment variable,
    the folder of the file that names it, the working folder, and the folder that a symbolic link to it leads to.

    Raises
    ------
    FileNotFoundError
        It is at none of these places; the error has the name at which it is expected.
    """
    for place in dict.fromkeys(_places(parent, name, folders)):
        if _is_there(place, options):
            return place
    raise FileNotFoundError(beside(parent, name))


def _places(parent: str, name: str, folders: str) -> Iterator[str]:
    if os.path.isabs(name) or is_remote(name):
        yield name
        name = name.rsplit("/", 1)[-1]
    if is_remote(parent):
        yield beside(parent, name)
        return
    path = local_path(parent)
    said = os.environ.get(folders, "")
    yield from (os.path.join(folder, name) for folder in said.split(os.pathsep) if folder)
    if folders != LINK_FOLDERS and said.startswith(_ORIGIN):
        yield os.path.dirname(os.path.abspath(path)) + os.path.join(said[len(_ORIGIN) :], name)
    yield os.path.join(os.path.dirname(path), name)
    yield os.path.abspath(name)
    yield os.path.join(os.path.dirname(os.path.realpath(path)), name)


def _is_there(url: str, options: Options) -> bool:
    """A damaged file ends the search, as it does that of the library."""
    if not is_remote(url):
        return os.path.isfile(path := local_path(url)) and os.access(path, os.R_OK)
    try:
        with open_source(url, options):
            return True
    except FileNotFoundError:
        return False


@dataclass(frozen=True)
class Mapped:
    """A source of a virtual dataset; `selection` is None where a pattern names it."""

    url: str
    path: str
    selection: Any


def mapped(dataset: Any, url: str, options: Options = None) -> Iterator[Mapped]:
    """The sources of a virtual dataset, in the files that the library takes them from."""
    for one in dataset.virtual_sources():
        names = one.file_name, one.dset_name
        if any(_pattern(name, 0) != _pattern(name, 1) for name in names):
            yield from _numbered(names, url, options)
        else:
            file, path = (_pattern(name, 0) for name in names)
            yield Mapped(_source_file(url, file, options), path, one)


def _numbered(names: tuple[str, str], url: str, options: Options) -> Iterator[Mapped]:
    """The sources of a pattern, as many as there are."""
    for k in count():
        file, path = (_pattern(name, k) for name in names)
        try:
            where = _source_file(url, file, options)
            with open_hdf5(where, options) as root:
                there = follow(root, where, path, options) is not None
        except (FileNotFoundError, MissingLinkError):
            there = False
        if not there:
            return
        yield Mapped(where, path, None)


def _source_file(url: str, name: str, options: Options) -> str:
    return url if name == "." else find_file(url, name, options, folders=VIRTUAL_FOLDERS)


def _pattern(name: str, number: int) -> str:
    """The name of a source: %b is the number of its block, %% a per cent sign."""
    return _BLOCK.sub(lambda found: {"b": str(number), "%": "%"}.get(found[1], found[0]), name)


def files_of(dataset: Any, url: str, options: Options = None) -> list[str]:
    """The files that an open dataset of a file is read from, that file first.

    Raises
    ------
    MrcFormatError
        One of them is missing, for which the library gives fill values, or the dataset is spread over other files
        and is not local: the library would read all of them from this one.
    """
    found = [url]
    if not dataset.is_virtual:
        found += [_raw_file(url, name) for name, *_ in dataset.external or ()]
    else:
        found += [file for file, _, _ in sources_of(dataset, url, options)]
    if is_remote(url) and len(set(found)) > 1:
        problem = f"{dataset.name} is put together from other files, which is done for local files only: copy them"
        raise MrcFormatError(problem, url=url)
    return list(dict.fromkeys(found))


def sources_of(dataset: Any, url: str, options: Options = None) -> list[tuple[str, str, int]]:
    """The datasets with pixels of their own that a virtual one is put together from: file, path and frames."""
    found: list[tuple[str, str, int]] = []
    try:
        sources = {(one.url, one.path) for one in mapped(dataset, url, options)}
    except FileNotFoundError as error:
        problem = f"{dataset.name} is in {error}, which is missing: put it where the master file expects it"
        raise MissingLinkError(problem, url=url) from None
    for where, path in sorted(sources):
        with ExitStack() as stack:
            root = dataset.file if where == url else stack.enter_context(open_hdf5(where, options))
            item, place = stack.enter_context(linked(root, where, path, options))
            if not hasattr(item, "dtype"):
                problem = f"there is no dataset {path}, which {dataset.name} of {url} is put together from"
                raise MrcFormatError(problem, url=where)
            if item.is_virtual:
                found += sources_of(item, place.url, options)
            else:
                files_of(item, place.url, options)
                found.append((place.url, place.path.strip("/"), int(np.prod(item.shape[:-2]))))
    return list(dict.fromkeys(found))


def _raw_file(url: str, name: str) -> str:
    """Where the library looks for raw data that stand in a file of their own: from the working folder on."""
    path = local_path(url)
    folder = os.environ.get(RAW_FOLDER, "")
    if folder.startswith(_ORIGIN):
        folder = os.path.dirname(os.path.abspath(path)) + folder[len(_ORIGIN) :]
    place = os.path.join(folder, name)
    if not os.path.isfile(place):
        raise MissingLinkError(f"its pixels are in {place}, which is missing: put it there", url=url)
    return place


def home_of(item: Any, url: str) -> Located:
    """Where an open object of h5py is, `url` being the file that it was asked for in."""
    name = item.name
    if item.file.get(name or "") != item:  # the name of a link on the way, which the file does not have
        name = item.file.visititems(lambda path, one: path if one == item else None)
    return Located(url if is_remote(url) else str(item.file.filename), f"/{(name or '').strip('/')}", item.name or "")
