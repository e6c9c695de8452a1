"""Small files inside a store: what was planned, what is done, who works on what."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mrczdask.io.source import is_remote, local_path, retry


@dataclass(frozen=True)
class StoreJournal:
    """Files in the folder `url`, local or in an object store; the names may hold slashes.

    Inside a Zarr hierarchy the folder belongs into that of an array, where readers do not look for nodes.
    """

    url: str
    storage_options: Mapping[str, Any] = field(default_factory=dict)

    def read(self, name: str) -> dict[str, Any] | None:
        """The content of a file, or None where there is none or it is torn."""
        url = self._place(name)
        try:
            if is_remote(url):
                fs, path = self._remote(url)
                content = json.loads(retry(lambda: fs.cat_file(path), url))
            else:
                with open(local_path(url), "rb") as file:
                    content = json.load(file)
        except (FileNotFoundError, ValueError):
            return None
        return content if isinstance(content, dict) else None

    def write(self, name: str, content: Mapping[str, Any]) -> None:
        """Write a file, in place of an old one."""
        url = self._place(name)
        text = json.dumps(content).encode()
        if is_remote(url):
            fs, path = self._remote(url)
            retry(lambda: fs.pipe_file(path, text), url)
            return
        temporary = _written_beside(local_path(url), text)
        os.replace(temporary, local_path(url))

    def create(self, name: str, content: Mapping[str, Any]) -> bool:
        """Write a file where there is none: linked whole into its place, or put on the condition that it is free."""
        url = self._place(name)
        text = json.dumps(content).encode()
        try:
            if is_remote(url):
                fs, path = self._remote(url)
                retry(lambda: fs.pipe_file(path, text, mode="create"), url)
                return True
            temporary = _written_beside(local_path(url), text)
            try:
                os.link(temporary, local_path(url))
            finally:
                os.unlink(temporary)
        except FileExistsError:  # an answer that was lost makes the second try fail: it is ours all the same
            return is_remote(url) and self.read(name) == json.loads(text)
        return True

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        url = self._place(name)
        with suppress(FileNotFoundError):
            if is_remote(url):
                fs, path = self._remote(url)
                retry(lambda: fs.rm_file(path), url)
            else:
                os.unlink(local_path(url))

    def _place(self, name: str) -> str:
        return f"{self.url}/{name}"

    def _remote(self, url: str) -> tuple[Any, str]:
        from fsspec.core import url_to_fs  # loads slowly, and local folders need none

        fs, path = url_to_fs(url, **self.storage_options)
        fs.invalidate_cache()
        return fs, path


def _written_beside(path: str, text: bytes) -> str:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    temporary = f"{path}.{secrets.token_hex(4)}.part"
    with open(temporary, "xb") as file:
        file.write(text)
    return temporary


def remove_unfinished(url: str) -> None:
    """Remove what killed writers left beside the chunks of an archive whose regions are all done: nobody reads it."""
    if not is_remote(url):  # an object appears whole
        for left in Path(local_path(url)).rglob("*.partial"):
            left.unlink(missing_ok=True)
