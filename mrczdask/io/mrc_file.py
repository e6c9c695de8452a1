"""An MRC or MRCZ file opened: its reader, and coords and attrs from the header, the extended header and the mdoc."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from mrczdask import schema
from mrczdask.errors import MrcFormatError
from mrczdask.formats.extended_header import parse_extended_header
from mrczdask.formats.mrc import MrcHeader
from mrczdask.formats.mrc_fields import HEADER_BYTES
from mrczdask.formats.serialem import title_attrs
from mrczdask.io.index import find_frames, read_header
from mrczdask.io.json_header import kept_attrs, kept_coords, kept_dtype, split_json
from mrczdask.io.movie_array import preferred_chunks
from mrczdask.io.mrc_reader import MrcReader
from mrczdask.io.reader import MovieFile
from mrczdask.io.source import Source, is_wrapped, open_source

Truncated = Literal["error", "readable"]
SQUARE = 1e-4
"""Pixels whose sides differ by less are square: the header rounds to float32."""
_ALONG_MOVIE = (schema.DOSE_RATE, schema.GAIN_REFERENCE)
MAX_EXTENDED_READ = 256 << 20
"""A larger extended header is skipped: it holds no metadata that is read here."""


def open_mrc(
    url: str,
    *,
    signed: bool | None = None,
    truncated: Truncated = "error",
    storage_options: Mapping[str, Any] | None = None,
) -> MovieFile:
    """Open an MRC or MRCZ file without reading a pixel."""
    try:
        with open_source(url, storage_options) as source:
            return _open(source, url, signed, truncated == "readable", storage_options)
    except MrcFormatError as error:
        raise error.at(url) from None


def _open(
    source: Source, url: str, signed: bool | None, readable: bool, storage_options: Mapping[str, Any] | None
) -> MovieFile:
    header = read_header(source, signed=signed)
    table, _ = find_frames(source, header, url, readable=readable, storage_options=storage_options)
    if not len(table):
        raise MrcFormatError("not one whole frame is in the file: it is truncated", frame=0, byte=header.data_offset)
    header = replace(header, shape=(len(table), *header.shape[1:]))
    raw = source.read_at(HEADER_BYTES, header.nsymbt) if header.nsymbt <= MAX_EXTENDED_READ else b""
    facts = parse_extended_header(
        header.exttyp, raw, header.byte_order, len(table), nint=header.nint, nreal=header.nreal
    )
    user, own = split_json(facts.metadata or {})
    reader = MrcReader.of(
        url,
        header,
        table,
        dtype=None if signed is not None else kept_dtype(own, header.stored),
        storage_options=storage_options,
        stamp=str(source.fingerprint),
    )
    attrs = {**_attrs(header), **facts.attrs, **kept_attrs(own)}
    if user:
        attrs[schema.METADATA] = user
    coords: dict[str, Any] = {name: ((schema.FRAME,), values) for name, values in facts.per_frame.items()}
    kept = kept_coords(own, len(table))
    coords |= _slice_coords(header) | kept
    encoding: dict[str, Any] = {
        "source": url,
        schema.MRC_HEADER: header,
        schema.PREFERRED_CHUNKS: preferred_chunks(reader.shape, wrapped=is_wrapped(url)),
    }
    notes = (*header_notes(header), *facts.notes)
    if notes:
        encoding[schema.NOTES] = notes
    scalars = {name: coord[1][()] for name, coord in kept.items() if coord[0] == ()}
    session = {**facts.session, **{name: scalars[name] for name in _ALONG_MOVIE if name in scalars}}
    acquired = scalars.get(schema.ACQUIRED)
    acquired = acquired if isinstance(acquired, np.datetime64) else facts.acquired
    return MovieFile(reader, coords, attrs, encoding, acquired, session)


def header_notes(header: MrcHeader) -> tuple[str, ...]:
    """What in the header was not taken as it stands, and why."""
    notes = []
    if header.stale_nsymbt is not None:
        notes.append(
            f"NSYMBT says {header.stale_nsymbt} bytes of extended header and the file has none: the pixels are read "
            "from byte 1024"
        )
    if header.shifted:
        notes.append(
            "signed bytes of IMOD, which hold the pixel less 128: read as 0..255; signed=True reads them as they stand"
        )
    return tuple(notes)


def _attrs(header: MrcHeader) -> dict[str, Any]:
    """What the 1024 bytes say, under the names of the data model."""
    attrs: dict[str, Any] = {schema.ORIGIN: "lower", **title_attrs(header.labels)}
    if header.pixel_size is not None:
        x, y, _ = header.pixel_size
        attrs[schema.PIXEL_SIZE] = x if abs(x - y) <= SQUARE * x else [x, y]
    optics = {
        schema.VOLTAGE: header.voltage_kv,
        schema.SPHERICAL_ABERRATION: header.spherical_aberration_mm,
        schema.COUNTS_PER_ELECTRON: header.counts_per_electron,
    }
    return attrs | {name: value for name, value in optics.items() if value is not None}


def _slice_coords(header: MrcHeader) -> dict[str, Any]:
    """`volume` and `section` along `frame` where the file holds 3-D frames or a stack of volumes."""
    if header.slices == 1:
        return {}
    volume, section = np.divmod(np.arange(header.shape[0]), header.slices)
    return {"volume": ((schema.FRAME,), volume), "section": ((schema.FRAME,), section)}
