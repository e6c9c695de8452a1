"""Bytes of a file, local or in an object store, read by ranges."""

from __future__ import annotations

import bz2
import errno
import gzip
import inspect
import io
import lzma
import os
import re
import socket
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO, Any, Final, Protocol, TypeVar

from mrczdask.errors import MrcFormatError, StoreError

T = TypeVar("T")

TRIES: Final = 5
FIRST_PAUSE_S: Final = 0.1
_CLIENTS: Final = ("botocore", "aiobotocore", "aiohttp", "google", "gcsfs", "azure", "requests", "urllib3", "obstore")
"""Packages whose errors are those of the network or the store; not all of them are an OSError."""
_USER: Final = re.compile(r"(\w://)[^/@\s'\"]+@")
_SECRET: Final = re.compile(
    r"(?i)([?&;\s\"'](?:x-amz-[\w-]+|x-goog-[\w-]+|sig|sign(?:ature)?|se|skoid|token|access_?token|session_?token|"
    r"(?:aws_?)?access_?key_?id|(?:aws_?)?secret(?:_?access_?key)?|key|secret|password|credential)"
    r"[\"']?\s*[=:]\s*[\"']?)[^&\s'\",;}]+"
)
"""What stands in front of a password, token or signature in urls and in the messages of clients."""
_FINAL_ERRORS: Final = (FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError, NotImplementedError)


def _open_zstd(raw: IO[bytes], mode: str) -> IO[bytes]:
    """A Zstandard file unpacked whole into memory: numcodecs has no stream."""
    from numcodecs import zstd

    data = raw.read()
    try:
        return io.BytesIO(zstd.decompress(data) if data else b"")
    except RuntimeError as error:
        raise ValueError(str(error)) from None


_WRAPPERS: Final[dict[str, Callable[..., Any]]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
    ".zst": _open_zstd,
}
_COPY_IT: Final = "download it and open the copy"
_PIECE: Final = 1 << 20


class Source(Protocol):
    """An open file. `read_at` gives fewer bytes than asked for only at the end of the file."""

    @property
    def size(self) -> int: ...

    @property
    def fingerprint(self) -> dict[str, Any]:
        """What changes when the file does: size, and mtime or etag."""
        ...

    @property
    def concurrent(self) -> bool:
        """Many ranges at once cost little more than one: an object store."""
        ...

    def read_at(self, offset: int, size: int) -> bytes: ...

    def read_ranges(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]: ...


def is_remote(url: str) -> bool:
    """Whether `url` names a store other than the local file system."""
    return "://" in url and not url.startswith(("file://", "local://"))


def local_path(url: str) -> str:
    """The path of a local url."""
    return os.path.expanduser(url.split("://", 1)[1] if "://" in url else url)


def absolute(url: str) -> str:
    """A url that means the same file from any working folder; of stores it is as given."""
    return url if is_remote(url) else os.path.abspath(local_path(url))


def unwrapped_name(url: str) -> str:
    """The name of a file without the suffix of a compressed wrapper: `map.mrc.gz` gives `map.mrc`."""
    name = without_query(url)
    stem, suffix = os.path.splitext(name)
    return stem if suffix.lower() in _WRAPPERS else name


def without_query(url: str) -> str:
    """An address on a web server without what stands behind the name of the file, such as its signature."""
    return url.partition("?")[0] if url.startswith(("http://", "https://")) else url


def is_wrapped(url: str) -> bool:
    """Whether the whole file is compressed: gzip, bzip2, xz or Zstandard by its suffix."""
    return unwrapped_name(url) != without_query(url)


@contextmanager
def open_source(
    url: str, storage_options: Mapping[str, Any] | None = None, *, size: int | None = None
) -> Iterator[Source]:
    """Open a file for reading by ranges, and close it.

    Parameters
    ----------
    url : str
        A path, or any url fsspec knows. A `.gz`, `.bz2`, `.xz` or `.zst` file is read through its wrapper.
    storage_options : mapping, optional
        Passed to the fsspec file system.
    size : int, optional
        Bytes known to be there, all that will be asked for lies within: an object store is not asked for it again.

    Raises
    ------
    FileNotFoundError, IsADirectoryError
    StoreError
        An object store did not answer after bounded retries.
    """
    if is_wrapped(url):
        with _open_wrapped(url, storage_options) as source:
            yield source
    elif is_remote(url):
        yield _RemoteSource(url, storage_options, size)
    else:
        try:
            fd = os.open(local_path(url), os.O_RDONLY | getattr(os, "O_BINARY", 0))
        except FileNotFoundError as error:
            from mrczdask.execution.schedulers import in_task  # not for `--help`

            if in_task():  # maybe of another host than the one that opened the file
                raise FileNotFoundError(error.errno, f"not seen from {socket.gethostname()}", url) from None
            raise
        try:
            if stat.S_ISDIR(os.fstat(fd).st_mode):
                raise IsADirectoryError(errno.EISDIR, "this is a folder, give a file in it", url)
            yield _LocalSource(fd)
        finally:
            os.close(fd)


class _LocalSource:
    concurrent = False

    def __init__(self, fd: int):
        self._fd = fd
        self._stat = os.fstat(fd)

    @property
    def size(self) -> int:
        return self._stat.st_size

    @property
    def fingerprint(self) -> dict[str, Any]:
        return {"size": self.size, "mtime_ns": self._stat.st_mtime_ns}

    def read_at(self, offset: int, size: int) -> bytes:
        size = max(min(size, self.size - offset), 0)
        data = os.pread(self._fd, size, offset)
        if len(data) == size:
            return data
        parts = [data]  # Linux reads at most 2 GiB at a time; network mounts may give less
        while data and (got := sum(map(len, parts))) < size:
            data = os.pread(self._fd, size - got, offset + got)
            parts.append(data)
        return b"".join(parts)

    def read_ranges(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        return [self.read_at(offset, size) for offset, size in ranges]


class _RemoteSource:
    concurrent = True

    def __init__(self, url: str, storage_options: Mapping[str, Any] | None, size: int | None):
        from fsspec.core import url_to_fs

        self._fs, self._path = url_to_fs(url, **dict(storage_options or {}))
        self._url = url
        self._info = retry(self._fresh_info, url) if size is None else {"size": size}

    def _fresh_info(self) -> Mapping[str, Any]:
        """What the store says now, not what fsspec remembers of an earlier listing."""
        ask = inspect.signature(getattr(self._fs, "_info", self._fs.info))
        if "refresh" in ask.parameters:
            info: Mapping[str, Any] = self._fs.info(self._path, refresh=True)
        else:  # a file system that remembers nothing, or hands what it does not know to the web server's client
            info = self._fs.info(self._path)
        if info.get("size") is None:
            raise _given_up(f"{self._url}: the server does not tell the size of the file: {_COPY_IT}")
        return info

    @property
    def size(self) -> int:
        return int(self._info["size"])

    @property
    def fingerprint(self) -> dict[str, Any]:
        stamp = next((self._info[key] for key in ("ETag", "etag", "mtime", "LastModified") if key in self._info), "")
        return {"size": self.size, "etag": str(stamp)}

    def read_at(self, offset: int, size: int) -> bytes:
        return self.read_ranges([(offset, size)])[0]

    def read_ranges(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        ends = [max(min(offset + size, self.size), offset) for offset, size in ranges]
        return retry(lambda: self._fetch([offset for offset, _ in ranges], ends), self._url)

    def _fetch(self, starts: Sequence[int], ends: Sequence[int]) -> list[bytes]:
        wanted = [k for k in range(len(starts)) if ends[k] > starts[k]]
        paths = [self._path] * len(wanted)
        parts = self._fs.cat_ranges(paths, [starts[k] for k in wanted], [ends[k] for k in wanted], on_error="raise")
        out = [b""] * len(starts)
        for k, part in zip(wanted, parts, strict=True):
            if len(part) > ends[k] - starts[k]:
                raise _given_up(f"{self._url}: the server sends the whole file where a part is asked for: {_COPY_IT}")
            if len(part) != ends[k] - starts[k]:
                raise StoreError(f"{self._url}: asked for {ends[k] - starts[k]} bytes, got {len(part)}")
            out[k] = part
        return out


def retry(call: Callable[[], T], url: str) -> T:
    """Call a store, again after a growing pause where it failed in passing; `StoreError` at last."""
    for attempt in range(TRIES):
        try:
            return call()
        except Exception as error:
            if not fails_in_passing(error):
                raise
            if attempt == TRIES - 1:
                raise gave_up(error, url) from None
            time.sleep(pause_s(attempt))
    raise AssertionError("unreachable")


def fails_in_passing(error: Exception) -> bool:
    """Whether the network or the store failed, and may not the next time."""
    if isinstance(error, _FINAL_ERRORS) or getattr(error, "gave_up", False):
        return False
    return isinstance(error, OSError | EOFError) or is_of_client(error)


def is_of_client(error: Exception) -> bool:
    """Whether a client of the network or of a store raised it."""
    return type(error).__module__.split(".")[0] in _CLIENTS


def gave_up(error: Exception, url: str) -> StoreError:
    """The error after the last try, in one line and without the secrets a url or a client's message may hold."""
    said = " ".join(str(error).split())
    return _given_up(f"{url}: the store failed {TRIES} times: {type(error).__name__}: {said}")


def _given_up(text: str) -> StoreError:
    """An error of a store that is not tried again."""
    final = StoreError(without_secrets(text))
    final.gave_up = True
    return final


def pause_s(attempt: int) -> float:
    """Seconds to wait before the next try."""
    return FIRST_PAUSE_S * 2**attempt


def without_secrets(text: str) -> str:
    """The text with passwords, tokens and signatures in its urls blotted out."""
    return _SECRET.sub(r"\1***", _USER.sub(r"\1***@", text))


@contextmanager
def _open_wrapped(url: str, storage_options: Mapping[str, Any] | None) -> Iterator[Source]:
    import fsspec

    opener = _WRAPPERS[os.path.splitext(without_query(url))[1].lower()]
    with fsspec.open(url, "rb", **dict(storage_options or {})) as raw:
        try:
            stream = opener(raw, "rb")
        except ValueError as error:
            raise MrcFormatError(f"the compressed wrapper is corrupt or truncated: {error}", url=url) from None
        with stream:
            yield _WrappedSource(stream, url, _fingerprint(url, storage_options))


def _fingerprint(url: str, storage_options: Mapping[str, Any] | None) -> dict[str, Any]:
    """Of the file as it is stored, whatever its suffix."""
    if is_remote(url):
        return _RemoteSource(url, storage_options, None).fingerprint
    stat = os.stat(local_path(url))
    return {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns}


class _WrappedSource:
    """A compressed stream: a read unpacks everything before it, so readers ask for frames in rising order."""

    concurrent = False

    def __init__(self, stream: IO[bytes], url: str, fingerprint: dict[str, Any]):
        self._stream, self._url = stream, url
        self.fingerprint = fingerprint
        self._size: int | None = None

    @property
    def size(self) -> int:
        if self._size is None:
            self._size = self._unpack(self._measure)
        return self._size

    def read_at(self, offset: int, size: int) -> bytes:
        return self._unpack(lambda: self._seek_and_read(offset, size))

    def read_ranges(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        return [self.read_at(offset, size) for offset, size in ranges]

    def _measure(self) -> int:
        self._stream.seek(0)
        return sum(len(piece) for piece in iter(lambda: self._stream.read(_PIECE), b""))

    def _seek_and_read(self, offset: int, size: int) -> bytes:
        self._stream.seek(offset)
        parts = []
        while size > 0 and (piece := self._stream.read(min(size, _PIECE))):
            parts.append(piece)
            size -= len(piece)
        return b"".join(parts)

    def _unpack(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except (EOFError, lzma.LZMAError, OSError, ValueError) as error:
            raise MrcFormatError(f"the compressed wrapper is corrupt or truncated: {error}", url=self._url) from None
        except Exception as error:  # zlib.error has no common base
            if type(error).__module__ != "zlib":
                raise
            raise MrcFormatError(f"the compressed wrapper is corrupt: {error}", url=self._url) from None
