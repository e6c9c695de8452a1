"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Any, Final

from mrczdask.io.source import is_remote, local_path, retry

_PIECE: Final = 16 << 20


@contextmanager
def create_file(url: str, storage_options: Mapping[str, Any] | None = None) -> Iterator[IO[bytes]]:
    """Give a seekable file that becomes `url` when the block ends well; nothing is left when it does not.

    A local file is written under a temporary name beside it, synced and renamed. For an object store it is kept in
    a local temporary file, then sent as one upload that is completed last and aborted on an error.
    """
    if is_remote(url):
        with tempfile.TemporaryFile() as file:
            yield file
            file.seek(0)
            retry(lambda: _upload(file, url, storage_options), url)
        return
    path = local_path(url)
    temporary = os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.{secrets.token_hex(4)}.part")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise


def _upload(file: IO[bytes], url: str, storage_options: Mapping[str, Any] | None) -> None:
    from fsspec.core import url_to_fs

    fs, path = url_to_fs(url, **dict(storage_options or {}))
    file.seek(0)
    target = fs.open(path, "wb", autocommit=False, block_size=_PIECE)
    try:
        shutil.copyfileobj(file, target, _PIECE)
        target.close()
        target.commit()
    except BaseException:
        target.discard()
        raise
    fs.invalidate_cache()


def replace_file(url: str, content: bytes) -> None:
    """Write a small file whole."""
    with create_file(url) as file:
        file.write(content)
