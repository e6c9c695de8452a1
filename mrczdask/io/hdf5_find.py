"""Which datasets of an HDF5 file are the frames: by name, by what the file says, or because only they can be."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from fnmatch import fnmatchcase
from typing import Any, Final

import numpy as np

from mrczdask.errors import MrcFormatError
from mrczdask.io.hdf5_file import Options
from mrczdask.io.hdf5_links import Located, MissingLinkError, linked
from mrczdask.io.session import natural_key

NUMBERED: Final = re.compile(r"data_\d+")
"""Names under which an Eiger master links its data files."""
_USUAL: Final = ("entry/data", "entry/instrument/detector")
_WILD: Final = re.compile(r"[*?\[]")
_TABLES: Final = {"frame_ptr": "open_sparse", "nnz": "open_sparse", "nPeaks": "open_peaks"}
"""What stands beside tables of sparse frames and of peaks, which have two axes too, and what reads them."""
_MAPS: Final = ("pixel_mask", "flatfield")
"""Maps of the detector in NXmx, which are no frames even where they are all there is."""
_BESIDE: Final = re.compile("mask", re.IGNORECASE)
"""In the names of datasets of the shape of the frames."""
_DEEP: Final = 12
"""Groups in groups that are looked through."""


class Finder:
    """Finds the frames of an open file, behind its links too. Paths are those from the root of this file."""

    def __init__(self, file: Any, url: str, options: Options, stack: ExitStack):
        self._file, self._url, self._options, self._stack = file, url, options, stack
        self._seen: dict[str, tuple[Any, Located]] = {"": (file, Located(url, "/", "/"))}

    def at(self, path: str) -> Any:
        """What a path leads to, or None."""
        return self._at(path)[0]

    def entries_of(self, path: str) -> Iterator[tuple[Any, str]]:
        """The entry that a dataset is asked for in, and that in the file which holds it, with its path in that file."""
        first, _, rest = _clean(path).partition("/")
        item, place = self._at(first)
        if is_group(item):
            yield item, f"{place.path}/{rest}"
        item, place = self._at(path)
        home = item.file.get(f"/{_clean(place.path).partition('/')[0]}") if item is not None else None
        if is_group(home) and place.url != self._url:
            yield home, place.path

    def _at(self, path: str) -> tuple[Any, Located]:
        path = _clean(path)
        if path not in self._seen:
            self._seen[path] = self._stack.enter_context(linked(self._file, self._url, path, self._options))
        return self._seen[path]

    def named(self, name: str) -> list[str]:
        """The datasets of a name, which may be a pattern or that of a group."""
        name = _clean(name)
        try:
            item = self.at(name)
        except MissingLinkError:
            return [name]  # said when it is opened
        if item is None and _WILD.search(name):
            found = [path for path in self._matching("", name.split("/")) if not is_group(self.at(path))]
            if found:
                return sorted(found, key=natural_key)
        if item is None:
            raise MrcFormatError(f"there is no dataset {name}", url=self._url)
        return self._of_group(name) if is_group(item) else [name]

    def _matching(self, path: str, patterns: list[str]) -> Iterator[str]:
        group = self.at(path)
        if not patterns or not is_group(group):
            yield from [] if patterns else [path]
            return
        for name in group:
            if fnmatchcase(name, patterns[0]):
                yield from self._matching(_clean(f"{path}/{name}"), patterns[1:])

    def found(self) -> list[str]:
        """Where the file says its frames are, else the only dataset that can be frames."""
        path = self._default()
        group = self.at(path)
        if verb := _reads_tables(group):
            raise self._no_frames({f"/{path}": verb})
        signal = text_of(group.attrs.get("signal"))
        if signal and _has(group, signal):
            return self._of_group(path) if NUMBERED.fullmatch(signal) else [_clean(f"{path}/{signal}")]
        for usual in _USUAL:
            if is_group(group := self.at(usual)) and any(NUMBERED.fullmatch(name) for name in group):
                return self._of_group(usual)
        return [self._only_one(path)]

    def _default(self) -> str:
        """The group that the attributes `default` lead to."""
        path, seen = "", [self._at("")[1]]
        while default := text_of(self.at(path).attrs.get("default")):
            lead = default if default.startswith("/") else f"{path}/{default}"
            item, place = self._at(lead)
            if not is_group(item) or place.is_same(seen[-1]):
                break
            if any(place.is_same(one) for one in seen):
                problem = f"the attributes default lead in a ring by way of {place.path}: give dataset="
                raise MrcFormatError(problem, url=self._url)
            seen.append(place)
            path = _clean(lead)
        return path

    def _of_group(self, path: str) -> list[str]:
        group = self.at(path)
        names = sorted((name for name in group if NUMBERED.fullmatch(name)), key=natural_key)
        if names:
            return [_clean(f"{path}/{name}") for name in names]
        signal = text_of(group.attrs.get("signal"))
        return [_clean(f"{path}/{signal}")] if signal and _has(group, signal) else [self._only_one(path, within=True)]

    def _only_one(self, path: str, *, within: bool = False) -> str:
        """The only dataset in a group that can be frames, or in the file where the group has none."""
        several: list[str] = []
        beside: dict[str, str] = {}
        for place in (path,) if within or not path else (path, ""):
            several, beside = self._could_be_frames(place)
            if several:
                break
        if not several:
            raise self._no_frames(beside)
        if len(several) > 1:
            listed = ", ".join(f"/{one} {self.at(one).shape} {self.at(one).dtype}" for one in several[:5])
            raise MrcFormatError(f"several datasets could be frames: {listed}: give dataset=", url=self._url)
        return several[0]

    def _no_frames(self, tables: dict[str, str]) -> MrcFormatError:
        """The error that says so, and what the tables in some groups are read with."""
        said = [f"{place} holds rows that md.{verb} reads" for place, verb in tables.items()]
        return MrcFormatError("; ".join(["no dataset holds frames: numbers of (shot, y, x)", *said]), url=self._url)

    def _could_be_frames(self, path: str) -> tuple[list[str], dict[str, str]]:
        """Paths of what could be frames, each dataset once, and groups of other tables with the verb that reads them.

        Hard links come first: what stands in the file itself is named so.
        """
        found: dict[Any, str] = {}
        beside: dict[str, str] = {}
        for is_linked in (False, True):
            known: set[Any] = set()
            for place, item in self._within(path, is_linked, known, _DEEP):
                group, _, name = place.rpartition("/")
                if verb := _reads_tables(self.at(group)):
                    beside[f"/{group}"] = verb
                elif _is_images(item) and name not in _MAPS:
                    found.setdefault(self._key(place), place)
        stacks = [one for one in found.values() if self.at(one).ndim > 2] or list(found.values())
        return [one for one in stacks if not _BESIDE.search(one.rpartition("/")[2])] or stacks, beside

    def _within(self, path: str, is_linked: bool, known: set[Any], deep: int) -> Iterator[tuple[str, Any]]:
        """The datasets of a group and of the groups in it, with links followed or without."""
        group = self.at(path)
        if not is_group(group) or self._key(path) in known:
            return
        known.add(self._key(path))
        for name in group:
            if not is_linked and hasattr(group.get(name, getlink=True), "path"):
                continue
            try:
                item = self.at(inner := _clean(f"{path}/{name}"))
            except (MrcFormatError, FileNotFoundError):
                continue
            if is_group(item) and deep:
                yield from self._within(inner, is_linked, known, deep - 1)
            elif hasattr(item, "dtype"):
                yield inner, item

    def _key(self, path: str) -> Any:
        """What is the same for all paths to an object."""
        item, place = self._at(path)
        return place.url, hash(item)


def is_group(item: Any) -> bool:
    return hasattr(item, "keys")


def text_of(value: Any) -> str:
    """A text of an attribute or a dataset."""
    if isinstance(value, np.ndarray):
        value = value.flat[0] if value.size else ""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value or "")


def _reads_tables(group: Any) -> str:
    """The verb that reads the tables of a group, if that is what it holds."""
    return next((verb for table, verb in _TABLES.items() if _has(group, table)), "")


def _has(group: Any, name: str) -> bool:
    return group.get(name, getlink=True) is not None


def _is_images(item: Any) -> bool:
    return item.dtype.kind in "iuf" and item.ndim >= 2 and min(item.shape[-2:]) > 1


def _clean(path: str) -> str:
    return "/".join(part for part in path.split("/") if part not in ("", "."))
