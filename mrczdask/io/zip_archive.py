"""Archives written as one zip file: in a folder beside it first, then packed in order, each name once."""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import ZipStore

from mrczdask.errors import ResumeError
from mrczdask.io.given_stores import is_zip
from mrczdask.io.source import absolute, is_remote
from mrczdask.io.stores import BESIDE, CREATING, JOURNAL, Place

PART: Final = ".part.zarr"
"""Suffix of the folder in which an archive lies until it is packed: a run that was killed goes on there."""
_SKIPPED: Final = (JOURNAL, BESIDE, CREATING)


def zip_target(place: Place) -> str | None:
    """The absolute path of the zip file that a place stands for; None for other places."""
    if isinstance(place, ZipStore):
        return str(place.path.absolute())
    if isinstance(place, str | os.PathLike) and is_zip(os.fspath(place)):
        if is_remote(os.fspath(place)):
            raise ValueError(f"{os.fspath(place)}: a zip file is written to a local disk: upload it when it is whole")
        return absolute(os.fspath(place))
    return None


@contextmanager
def packed(place: Place, path: str, *, replace: bool) -> Iterator[str]:
    """The folder in which an archive is written; what is in it at the end becomes the zip file at `path`.

    Raises
    ------
    ResumeError
        The zip file is there, and is not to be replaced.
    """
    store = place if isinstance(place, ZipStore) else None
    held = _held(store, path)
    if held and not replace:
        raise ResumeError(
            f"{path}: holds {', '.join(held[:3])}: a zip file is written whole: resume=False, overwrite=True "
            "(--no-resume --overwrite) replaces it, another name keeps it"
        )
    if store is not None and store.read_only:
        raise ResumeError(f'{path}: the store was opened to be read: give zarr.storage.ZipStore(path, mode="w")')
    folder = f"{path}{PART}"
    if replace:
        shutil.rmtree(folder, ignore_errors=True)
    yield folder
    if store is None or held:
        _pack_file(folder, path)
    else:
        _pack_store(folder, store)
    shutil.rmtree(folder)


def _held(store: ZipStore | None, path: str) -> list[str]:
    """What is in the zip file; a store that begins it anew holds what was written into it since it was opened."""
    mode = getattr(store, "_zmode", "r")
    if store is not None and store._is_open:

        async def names() -> list[str]:
            return [name async for name in store.list_dir("")]

        return sorted(sync(names()))
    if mode == "w" or not os.path.exists(path):
        return []
    try:
        with zipfile.ZipFile(path) as file:
            return sorted({name.partition("/")[0] for name in file.namelist()})
    except zipfile.BadZipFile:
        return ["something other than a whole zip file"]


def _files(folder: str) -> list[tuple[Path, str]]:
    """The files of an archive and their names in it, in order, without those of the journal."""
    root = Path(folder)
    found = ((path, path.relative_to(root)) for path in root.rglob("*") if path.is_file())
    kept = [(path, name) for path, name in found if not any(part in _SKIPPED for part in name.parts)]
    return sorted(((path, name.as_posix()) for path, name in kept), key=lambda one: one[1])


def _pack_file(folder: str, path: str) -> None:
    """Pack into a file that takes its name when it is whole."""
    beside = f"{path}.part"
    try:
        with zipfile.ZipFile(beside, "w", zipfile.ZIP_STORED) as packed_file:
            for source, name in _files(folder):
                packed_file.write(source, name)
        os.replace(beside, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(beside)
        raise


def _pack_store(folder: str, store: ZipStore) -> None:
    """Pack into a store that is given, and close it: only then is the zip file whole."""
    buffer: Any = default_buffer_prototype().buffer
    if not store._is_open:
        sync(store._open())
    for source, name in _files(folder):
        sync(store.set(name, buffer.from_bytes(source.read_bytes())))
    store.close()
