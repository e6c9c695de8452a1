"""References of kerchunk, JSON or parquet, as a Zarr store that stays inside what was allowed."""

from __future__ import annotations

import base64
import json
import math
import os
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, Protocol

import numpy as np
from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype, default_buffer_prototype

from mrczdask.errors import MrcFormatError, StoreError
from mrczdask.formats.blosc_frame import MAX_FRAME_BYTES
from mrczdask.io.source import is_remote, local_path, open_source, without_secrets
from mrczdask.io.virtual_json import read_entries

MAX_METADATA_BYTES: Final = 1 << 30
MAX_INLINE_BYTES: Final = 64 << 20
SAFE_CODECS: Final = frozenset(
    {"blosc", "zlib", "gzip", "zstd", "lz4", "bz2", "lzma", "shuffle", "delta", "fletcher32", "vlen-utf8"}
    | {"mrczdask.blosc_frame", "mrczdask.pixel_histogram", "mrczdask.b3d"}
)
"""Codecs that make pixels of bytes and nothing else: `pickle` and the like run what a file says."""
HOME: Final = "home"
"""Key beside the references: the folder in which they were written. Other readers skip it."""
_META: Final = (".zarray", ".zattrs", ".zgroup")


class References(Protocol):
    """What a key stands for: inline bytes, or [url, offset, length]."""

    meta: dict[str, Any]
    home: str
    """The folder in which they were written; "" where they do not say."""

    def find(self, key: str) -> Any: ...

    def keys(self) -> Iterable[str]: ...


class JsonReferences:
    """References of a JSON file, version 1 of kerchunk, without templates and generated keys."""

    def __init__(self, raw: bytes, url: str):
        try:
            top, refs = read_entries(raw)
        except (ValueError, RecursionError):
            raise MrcFormatError("this is no file of references: it is no JSON object", url=url) from None
        if top.get("templates") or top.get("gen"):
            raise MrcFormatError("references by templates are not read: write them out with kerchunk", url=url)
        if top.get("refs") is not None:
            raise MrcFormatError("this is no file of references", url=url)
        self._refs = refs or top
        self.home = str(top.get(HOME) or "") if refs is not None else ""
        self.meta = {
            key: _document(value, url) for key, value in self._refs.others.items() if key.rsplit("/", 1)[-1] in _META
        }

    def find(self, key: str) -> Any:
        return self._refs.get(key)

    def keys(self) -> Iterable[str]:
        return self._refs


def _document(value: Any, url: str) -> Any:
    try:
        return json.loads(inline(value)) if isinstance(value, str) else value
    except ValueError:
        raise MrcFormatError("the metadata in the references are no JSON", url=url) from None


def inline(value: str) -> bytes:
    """Bytes written into the references."""
    if value.startswith("base64:"):
        return base64.b64decode(value.removeprefix("base64:"), validate=True)
    return value.encode()


class ParquetReferences:
    """References of a folder of parquet files: a file is read when a chunk in it is asked for."""

    def __init__(self, document: Any, url: str, options: Mapping[str, Any] | None):
        try:
            self.meta = dict(document["metadata"])
            self._record = int(document["record_size"])
            self.home = str(document.get(HOME) or "")
        except (KeyError, TypeError, ValueError):
            raise MrcFormatError("this is no folder of references", url=url) from None
        self._url, self._options = url.rstrip("/"), options
        self._rows = lru_cache(maxsize=16)(self._load)

    def __reduce__(self) -> tuple[Any, ...]:
        document = {"metadata": self.meta, "record_size": self._record, HOME: self.home}
        return ParquetReferences, (document, self._url, self._options)

    def find(self, key: str) -> Any:
        name, _, place = key.rpartition("/")
        described = self.meta.get(f"{name}/.zarray")
        if described is None or not all(part.isdecimal() for part in place.split(".")):
            return None
        grid = [-(-n // c) for n, c in zip(described["shape"], described["chunks"], strict=True)]
        at = [int(part) for part in place.split(".")] if grid else []
        if len(at) != len(grid) or any(k >= n for k, n in zip(at, grid, strict=True)):
            return None
        number = int(np.ravel_multi_index(at, grid)) if grid else 0
        rows, row = self._rows(name, number // self._record), number % self._record
        if row >= len(rows["offset"]):
            return None
        raw, path = rows["raw"][row], rows["path"][row]
        if isinstance(raw, bytes):
            return raw
        return [path, int(rows["offset"][row]), int(rows["size"][row])] if isinstance(path, str) else None

    def keys(self) -> Iterable[str]:
        return self.meta

    def _load(self, name: str, number: int) -> dict[str, Any]:
        import fastparquet

        url = f"{self._url}/{name}/refs.{number}.parq"
        with open_source(url, self._options) as source:
            if source.size > MAX_METADATA_BYTES:
                raise MrcFormatError(f"{source.size} bytes of references: the file is no part of them", url=url)
            raw = source.read_at(0, source.size)
        import io

        frame = fastparquet.ParquetFile(io.BytesIO(raw)).to_pandas()
        return {column: frame[column].to_numpy() for column in ("path", "offset", "size", "raw")}


class ReferenceStore(Store):
    """A Zarr v2 store over references: reads byte ranges of files below `allow` and nothing else."""

    supports_writes = False
    supports_deletes = False
    supports_listing = True

    def __init__(self, references: References, name: str, allow: Sequence[str], options: Mapping[str, Any] | None):
        super().__init__(read_only=True)
        self.references, self.name = references, name
        self.allow, self.options = tuple(map(_folder, allow)), dict(options or {})
        check_metadata(references.meta, name)

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, ReferenceStore) and self.name == other.name)

    __hash__ = None  # type: ignore[assignment]  # as every store of Zarr

    def __str__(self) -> str:
        return self.name

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        return "mrczdask.ReferenceStore", self.name, json.dumps(self.references.meta, sort_keys=True, default=str)

    async def get(
        self, key: str, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """The bytes a key stands for."""
        import asyncio

        if key == ".zmetadata":
            raw: bytes | None = json.dumps({"zarr_consolidated_format": 1, "metadata": self.references.meta}).encode()
        elif key in self.references.meta:
            raw = json.dumps(self.references.meta[key]).encode()
        elif key.rsplit("/", 1)[-1] in _META or key.endswith("zarr.json"):
            raw = None
        else:
            raw = await asyncio.to_thread(self._read, key)
        if raw is None:
            return None
        return (prototype or default_buffer_prototype()).buffer.from_bytes(_part(raw, byte_range))

    def _read(self, key: str) -> bytes | None:
        found = self.references.find(key)
        if found is None or isinstance(found, bytes):
            return found
        if isinstance(found, str):
            return inline(found)
        url, offset, length = self._checked(found, key)
        with open_source(url, self.options, size=offset + length if is_remote(url) else None) as source:
            raw = source.read_at(offset, length)
        if len(raw) < length:
            raise MrcFormatError(
                f"{length} bytes were here when the file was indexed, {len(raw)} are left: virtualize it again",
                url=url,
                byte=offset,
            )
        return raw

    def _checked(self, found: Any, key: str) -> tuple[str, int, int]:
        if not (isinstance(found, list) and len(found) == 3 and isinstance(found[0], str)):
            raise MrcFormatError(f"{key}: {str(found)[:80]} is no [url, offset, length]", url=self.name)
        url, offset, length = found
        if not all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in (offset, length)):
            raise MrcFormatError(f"{key}: offset {offset} and length {length} are no byte range", url=self.name)
        if length > MAX_FRAME_BYTES:
            raise MrcFormatError(f"{key}: a chunk of {length} bytes: the references are corrupt", url=self.name)
        return checked_url(self._moved(url), self.allow, self.name), offset, length

    def _moved(self, url: str) -> str:
        """Where a file lies now that was below the folder of the references when they were written."""
        home = self.references.home.rstrip("/")
        if not home or is_remote(url) or is_remote(self.name):
            return url
        path = local_path(url)
        if not path.startswith(f"{home}/") or os.path.exists(path):
            return url
        return os.path.join(os.path.dirname(os.path.abspath(local_path(self.name.rstrip("/")))), path[len(home) + 1 :])

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Several ranges of several keys."""
        return [await self.get(key, prototype, part) for key, part in key_ranges]

    async def exists(self, key: str) -> bool:
        """Whether there is a key."""
        return key in self.references.meta or key == ".zmetadata" or self.references.find(key) is not None

    async def set(self, key: str, value: Buffer) -> None:
        """Refuse: references are read only."""
        raise StoreError(f"{self.name}: references are read only")

    async def delete(self, key: str) -> None:
        """Refuse: references are read only."""
        raise StoreError(f"{self.name}: references are read only")

    async def list(self) -> AsyncIterator[str]:
        """All keys that are known without reading further."""
        for key in self._sorted(""):
            yield key

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """Keys below a prefix."""
        for key in self._sorted(prefix):
            yield key

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Names right below a prefix."""
        base = f"{prefix.rstrip('/')}/" if prefix else ""
        for name in dict.fromkeys(key.removeprefix(base).partition("/")[0] for key in self._sorted(base)):
            yield name

    def _sorted(self, prefix: str) -> Iterator[str]:
        return (key for key in sorted(self.references.keys()) if key.startswith(prefix))


def _part(raw: bytes, byte_range: ByteRequest | None) -> bytes:
    if byte_range is None:
        return raw
    if isinstance(byte_range, RangeByteRequest):
        return raw[byte_range.start : byte_range.end]
    if isinstance(byte_range, OffsetByteRequest):
        return raw[byte_range.offset :]
    return raw[-byte_range.suffix :] if byte_range.suffix else b""


def check_metadata(meta: Mapping[str, Any], url: str) -> None:
    """Refuse codecs that could run code, and chunks that are too large to be true."""
    for key, described in meta.items():
        if not key.endswith(".zarray"):
            continue
        try:
            named = [described.get("compressor"), *(described.get("filters") or [])]
            ids = [codec["id"] for codec in named if codec]
            pixels, itemsize = math.prod(map(int, described["chunks"])), np.dtype(described["dtype"]).itemsize
            sizes = [int(n) for n in (*described["shape"], *described["chunks"])]
            is_array = len(described["shape"]) == len(described["chunks"]) and all(n >= 0 for n in sizes)
        except (TypeError, KeyError, ValueError, AttributeError):
            raise MrcFormatError(f"{key}: the metadata are corrupt", url=url) from None
        unsafe = [one for one in ids if one not in SAFE_CODECS]
        if unsafe:
            raise MrcFormatError(f"{key}: the codec {unsafe[0]!r} is not read here", url=url)
        if not is_array or pixels < 1 or pixels * max(itemsize, 1) > MAX_FRAME_BYTES:
            raise MrcFormatError(f"{key}: chunks of {described['chunks']} {described['dtype']} are refused", url=url)


def _folder(url: str) -> str:
    if is_remote(url):
        return url.rstrip("/") + "/"
    return os.path.join(os.path.realpath(local_path(url)), "")


def checked_url(url: str, allow: Sequence[str], name: str) -> str:
    """The url, where it lies below one of the folders the user named.

    Raises
    ------
    MrcFormatError
        It lies elsewhere, has another scheme or host, or climbs with `..`.
    """
    if is_remote(url):
        path = url.split("://", 1)[1]
        climbs = any(part in ("..", ".") for part in path.lower().replace("%2e", ".").replace("\\", "/").split("/"))
        inside = not climbs and "::" not in url and any(url.startswith(folder) for folder in allow)
    else:
        real = os.path.realpath(local_path(url))
        inside = "::" not in url and any(real.startswith(folder) for folder in allow if "://" not in folder)
        url = real
    if not inside:
        raise MrcFormatError(
            f"a reference leaves the store for {without_secrets(url)}: if you trust it, "
            f"open_archive(..., allow=[{without_secrets(url.rsplit('/', 1)[0])!r}])",
            url=name,
        )
    return url
