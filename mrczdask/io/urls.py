"""Names of files: what patterns stand for, and in which order."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

from mrczdask.io.source import is_remote, local_path


def expand_urls(
    urls: str | os.PathLike[str] | Iterable[str | os.PathLike[str]], storage_options: Mapping[str, Any] | None = None
) -> list[str]:
    """The files that urls and patterns stand for, each once, patterns in natural name order."""
    given = [urls] if isinstance(urls, str | os.PathLike) else list(urls)
    found: list[str] = []
    for path in given:
        item = str(os.fspath(path))
        marks = "*?[" if not item.startswith(("http://", "https://")) else "*"  # "?" begins the signature of an address
        if not any(mark in item for mark in marks) or (not is_remote(item) and os.path.exists(local_path(item))):
            found.append(item)
            continue
        matches = sorted(_glob(item, storage_options), key=natural_key)
        if not matches:
            raise FileNotFoundError(f"{item}: no file matches")
        found += matches
    if not found:
        raise FileNotFoundError("no movie was named: give at least one url or pattern")
    return list(dict.fromkeys(found))


def _glob(pattern: str, storage_options: Mapping[str, Any] | None) -> list[str]:
    from fsspec.core import url_to_fs

    fs, path = url_to_fs(pattern, **dict(storage_options or {}))
    matches = [str(match) for match in fs.glob(path)]
    if not is_remote(pattern):
        return matches if os.path.isabs(pattern) else [os.path.relpath(match) for match in matches]
    return [fs.unstrip_protocol(match) for match in matches]


def natural_key(name: str) -> list[tuple[int, int | str]]:
    """Sort key by which movie_2 comes before movie_10."""
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in re.split(r"(\d+)", name) if part]
