"""What changes when stored data do: with it in their names, Dask never gives what was there before for what is."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from mrczdask.execution.resume import digest
from mrczdask.io.source import is_remote, local_path, open_source, retry

Options = Mapping[str, Any] | None

_THREADS: Final = 16
"""Requests to an object store at once."""
_TIMES: Final = ("ETag", "etag", "mtime", "LastModified", "created")
"""What file systems say of the last change of a file; the first that one knows is taken."""


def file_stamp(url: str, options: Options = None) -> str:
    """Of a file: its size, and mtime or etag."""
    with open_source(url, options) as source:
        return str(source.fingerprint)


def file_stamps(urls: Sequence[str], options: Options = None) -> list[str]:
    """Of many files; an object store is asked for several at once."""
    if not any(map(is_remote, urls)):
        return [file_stamp(url, options) for url in urls]
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(lambda url: file_stamp(url, options), urls))


def folder_stamp(url: str, options: Options = None) -> str:
    """Of all files in a folder, in which any program may have written: of their names, sizes, and mtimes or etags.

    Of a file system that lists nothing, such as plain HTTP, nothing is known.
    """
    return digest(sorted(_remote_files(url, options) if is_remote(url) else _local_files(local_path(url))))


def _local_files(folder: str) -> list[list[Any]]:
    found: list[list[Any]] = []
    waiting = [folder]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_dir():
                    waiting.append(entry.path)
                else:
                    stat = entry.stat()
                    found.append([os.path.relpath(entry.path, folder), stat.st_size, stat.st_mtime_ns])
    return found


def _remote_files(url: str, options: Options) -> list[list[Any]]:
    from fsspec.core import url_to_fs

    fs, path = url_to_fs(url, **dict(options or {}))
    fs.invalidate_cache()
    try:
        files = retry(lambda: fs.find(path, detail=True), url)
    except (NotImplementedError, PermissionError, FileNotFoundError):
        return []
    return [[name, file.get("size"), str(_time(file))] for name, file in files.items()]


def _time(file: Mapping[str, Any]) -> Any:
    return next((file[name] for name in _TIMES if name in file), "")
