"""What stands beside a movie: the `.mdoc` of SerialEM and Tomography, the XML and the gain reference of EPU."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from mrczdask import schema
from mrczdask.errors import MissingExtraError
from mrczdask.formats import epu
from mrczdask.formats.facts import Facts, merged
from mrczdask.formats.mdoc import mdoc_names, parse_mdoc
from mrczdask.io.source import is_of_client, is_remote, local_path, open_source, unwrapped_name

Options = Mapping[str, Any] | None

MAX_BYTES: Final = 64 << 20
"""A larger sidecar is none: SerialEM writes about 1 kB a section."""
_GAINS: Final = ("_gain.tiff", "_gain.tif", "_gain.mrc", ".gain")


def find_mdoc(url: str, storage_options: Options = None) -> str | None:
    """The sidecar of a file, `movie.tif.mdoc` or `movie.mdoc`, if there is one."""
    return _first(mdoc_names(url), storage_options)


def _first(names: tuple[str, ...], storage_options: Options) -> str | None:
    """The first of some files of one folder that is there.

    In a store each name is asked for, by its first byte: folders there may hold millions of other files, and web
    servers list nothing. A listing that fsspec remembers from a pattern is used.
    """
    if not names:
        return None
    if not is_remote(names[0]):
        return next((name for name in names if os.path.isfile(local_path(name))), None)
    from fsspec.core import url_to_fs

    if "?" in names[0]:  # a signed address is of one file
        return None
    fs, path = url_to_fs(names[0], **dict(storage_options or {}))
    folder = path.rpartition("/")[0]
    if folder in fs.dircache:
        there = {str(entry["name"]).rpartition("/")[2] for entry in fs.dircache[folder]}
        return next((name for name in names if name.rpartition("/")[2] in there), None)
    return next((name for name in names if _is_there(fs, f"{folder}/{name.rpartition('/')[2]}")), None)


def _is_there(fs: Any, path: str) -> bool:
    try:
        return bool(fs.cat_file(path, start=0, end=1))
    except Exception as error:  # what a store says of a file that is not there, or not for all: 404, 403
        if isinstance(error, OSError | ValueError) or is_of_client(error):
            return False
        raise


def _epu_stem(url: str) -> str | None:
    """Folder and name of the exposure of EPU that a movie belongs to."""
    folder, slash, name = unwrapped_name(url).rpartition("/")
    stem = epu.movie_stem(name)
    return None if stem is None else folder + slash + stem


def gain_beside(url: str, storage_options: Options = None) -> str | None:
    """The gain reference that EPU put beside a movie."""
    stem = _epu_stem(url)
    if stem is None or epu.name_time(stem.rpartition("/")[2]) is None:
        return None
    return _first(tuple(stem + ending for ending in _GAINS), storage_options)


def read_sidecar(url: str, n_frames: int, storage_options: Options = None) -> Facts:
    """What stands beside `url`: of an mdoc, then of EPU's XML, then of EPU's names; empty without any."""
    return merged(_of_mdoc(url, n_frames, storage_options), _of_epu(url, n_frames, storage_options))


def _of_mdoc(url: str, n_frames: int, options: Options) -> Facts:
    name = find_mdoc(url, options)
    if name is None:
        return Facts()
    text = _read(name, options)
    if isinstance(text, Facts):
        return text
    try:
        return parse_mdoc(text, n_frames)
    except MissingExtraError as error:
        return Facts(notes=(f"{name}: {error}",))


def _of_epu(url: str, n_frames: int, options: Options) -> Facts:
    stem = _epu_stem(url)
    if stem is None:
        return Facts()
    named = epu.name_time(stem.rpartition("/")[2])
    name = _first((stem + epu.SUFFIX,), options)
    text = None if name is None else _read(name, options)
    facts = text if isinstance(text, Facts) else Facts()
    if isinstance(text, bytes) and (named is not None or b"MicroscopeImage" in text):
        facts = epu.parse_epu(text, n_frames)
    if facts.acquired is None and named is not None:
        facts = replace(facts, acquired=named)
    gain = gain_beside(url, options)
    return facts if gain is None else replace(facts, session={schema.GAIN_REFERENCE: gain, **facts.session})


def _read(name: str, options: Options) -> bytes | Facts:
    """The bytes of a small file; of a large one a note."""
    with open_source(name, options) as source:
        if source.size > MAX_BYTES:
            suffix = os.path.splitext(name)[1]
            return Facts(notes=(f"{name}: {source.size} bytes are no {suffix} file",))
        return source.read_at(0, source.size)
