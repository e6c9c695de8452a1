"""A table of chunks to references of kerchunk, JSON or parquet."""

from __future__ import annotations

import base64
import json
import os
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import xarray as xr

from mrczdask import schema
from mrczdask.io.hdf5_chunks import GZIP, SHUFFLE, ZSTD_FILTER
from mrczdask.io.source import without_secrets
from mrczdask.io.virtual_files import plain
from mrczdask.io.virtual_refs import HOME
from mrczdask.io.virtual_table import VirtualTable
from mrczdask.io.write import replace_file

RECORD_SIZE: Final = 10_000
"""References of one parquet file."""
REVISION: Final = "revision"
"""Other readers of references skip it."""


def metadata(table: VirtualTable) -> dict[str, Any]:
    """The documents of Zarr v2 and the labels by key. `fill_value` is null: with 0 a count of 0 becomes NaN."""
    names = [str(dim) for dim in schema.SESSION_DIMS]
    docs: dict[str, Any] = {".zgroup": {"zarr_format": 2}, ".zattrs": {}}
    beside = " ".join(str(name) for name in table.coords.coords if name not in table.coords.dims)
    attrs = {**table.attrs, **({"coordinates": beside} if beside else {})}
    docs |= _array(schema.IMAGES, table.shape, table.chunk, table.stored, names, attrs, codecs_v2(table))
    for name, coord in table.coords.variables.items():
        encoded = xr.conventions.encode_cf_variable(coord, name=str(name))
        values = encoded.values
        values = values.astype(str) if values.dtype.kind in "OT" else values
        dims = [str(dim) for dim in encoded.dims]
        docs |= _array(str(name), values.shape, values.shape, values.dtype, dims, encoded.attrs, {})
        if values.dtype.kind == "U":
            values = np.array([without_secrets(str(v)) for v in values.ravel()], values.dtype).reshape(values.shape)
        key = ".".join("0" * max(values.ndim, 1))
        docs[f"{name}/{key}"] = "base64:" + base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()
    return docs


def _array(
    name: str, shape: Sequence[int], chunks: Sequence[int], dtype: Any, dims: Any, attrs: Mapping[str, Any], packed: Any
) -> dict[str, Any]:
    kept = {k: plain(v) for k, v in attrs.items()}
    described = {"zarr_format": 2, "shape": list(shape), "chunks": [max(n, 1) for n in chunks], "dtype": dtype.str}
    described |= {"compressor": None, "fill_value": None, "order": "C", "filters": None, **packed}
    return {f"{name}/.zarray": described, f"{name}/.zattrs": {"_ARRAY_DIMENSIONS": list(dims), **kept}}


def codecs_v2(table: VirtualTable) -> dict[str, Any]:
    """Compressor and filters of a `.zarray`."""
    if table.codecs.kind == "blosc":
        return {"compressor": {"id": "blosc", "cname": "zstd", "clevel": 1, "shuffle": 2, "blocksize": 0}}
    if table.codecs.kind == "blosc_frame":
        return {"compressor": {"id": "mrczdask.blosc_frame", "nbytes": table.chunk_bytes}}
    names = {SHUFFLE: "shuffle", GZIP: "zlib", ZSTD_FILTER: "zstd"}
    made = [
        {"id": names[number], **({"elementsize": parameter} if number == SHUFFLE else {})}
        for number, parameter in table.codecs.filters
    ]
    return {"filters": made or None}


def write_json(table: VirtualTable, path: str) -> None:
    """Write references as one JSON file, which replaces an old one when it is whole."""
    docs = metadata(table)
    refs: dict[str, Any] = {key: doc if isinstance(doc, str) else json.dumps(doc) for key, doc in docs.items()}
    for place in np.ndindex(table.offsets.shape):
        key = ".".join(map(str, place))
        refs[f"{schema.IMAGES}/{key}"] = [
            table.urls[place[0]],
            int(table.offsets[place]),
            int(table.lengths[place]),
        ]
    replace_file(path, json.dumps({"version": 1, HOME: _home(path), REVISION: _drawn(), "refs": refs}).encode())


def _drawn() -> str:
    """A mark of this index: files may have got other pixels in the same places since the last one."""
    return secrets.token_hex(16)


def write_parquet(table: VirtualTable, path: str) -> None:
    """Write references as a folder of parquet files in the layout of kerchunk."""
    import fastparquet
    import pandas as pd

    folder = os.path.join(path, schema.IMAGES)
    os.makedirs(folder, exist_ok=True)
    docs = metadata(table)
    inline = {key: doc for key, doc in docs.items() if isinstance(doc, str)}
    kept = {key: doc for key, doc in docs.items() if key not in inline}
    offsets, lengths = table.offsets.reshape(-1).astype(np.int64), table.lengths.reshape(-1).astype(np.int64)
    movie = np.repeat(np.arange(len(table.urls)), offsets.size // len(table.urls))

    def write(where: str, frame: Any) -> None:
        encoding = {"path": "utf8", "raw": "bytes"}
        options = {"object_encoding": encoding, "has_nulls": ["path", "raw"], "write_index": False, "stats": False}
        fastparquet.write(where, frame, compression="ZSTD", **options)

    for number, first in enumerate(range(0, offsets.size, RECORD_SIZE)):
        part = slice(first, first + RECORD_SIZE)
        paths = np.array(table.urls, object)[movie[part]]
        columns = {"path": paths, "offset": offsets[part], "size": lengths[part]}
        rows = pd.DataFrame({**columns, "raw": np.full(len(paths), None, object)})
        write(os.path.join(folder, f"refs.{number}.parq"), _padded(rows))
    for key, text in inline.items():
        name = key.partition("/")[0]
        os.makedirs(os.path.join(path, name), exist_ok=True)
        raw = base64.b64decode(text.removeprefix("base64:"))
        one = {"path": [None], "offset": [0], "size": [0], "raw": [raw]}
        write(os.path.join(path, name, "refs.0.parq"), _padded(pd.DataFrame(one)))
    document = {"metadata": kept, "record_size": RECORD_SIZE, HOME: _home(path), REVISION: _drawn()}
    replace_file(os.path.join(path, ".zmetadata"), json.dumps(document).encode())


def _padded(rows: Any) -> Any:
    """Strings as objects: newer pandas has a type of their own for them."""
    for name in ("path", "raw"):
        rows[name] = rows[name].astype(object)
    return rows


def _home(path: str) -> str:
    """The folder of references: files below it are found again when all of it is moved."""
    return os.path.realpath(os.path.dirname(os.path.abspath(path)))
