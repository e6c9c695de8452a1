"""Finding the frames of an MRC or MRCZ file: its footer, its sidecar, or a walk over its chunks."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from typing import Any, Final

import xarray as xr

from mrczdask.errors import MrcFormatError, StaleIndexWarning
from mrczdask.formats.blosc_frame import HEADER_BYTES as CHUNK_BYTES
from mrczdask.formats.blosc_frame import VERSIONS, parse_chunk_header
from mrczdask.formats.frame_index import SIDECAR_SUFFIX, footer_bytes, pack_footer, pack_sidecar, parse_footer
from mrczdask.formats.frame_index import parse_sidecar as _parse_sidecar
from mrczdask.formats.mrc import MrcHeader, parse_header
from mrczdask.formats.mrc_fields import HEADER_BYTES
from mrczdask.formats.mrcz import FrameTable, check_compressed, check_table, raw_table, walk_chunks
from mrczdask.io.source import Source, is_remote, is_wrapped, local_path, open_source
from mrczdask.io.write import replace_file

NSYMBT: Final = slice(92, 96)
_BEYOND: Final = 4096
"""Bytes behind the header that show whether there is an extended header."""


def read_header(source: Source, *, signed: bool | None = None) -> MrcHeader:
    """The header of a file, with the size of the file and the bytes behind the 1024 as witnesses of NSYMBT."""
    raw = source.read_at(0, HEADER_BYTES + (_BEYOND if source.concurrent else 0))  # one request of a store
    if len(raw) == HEADER_BYTES and raw[NSYMBT].strip(b"\0"):  # else there is none, and what follows are pixels
        raw += source.read_at(HEADER_BYTES, _BEYOND)
    return parse_header(raw, signed=signed, size=source.size)


def find_frames(
    source: Source,
    header: MrcHeader,
    url: str,
    *,
    readable: bool = False,
    storage_options: Mapping[str, Any] | None = None,
) -> tuple[FrameTable, str]:
    """Offsets and lengths of the frames, and where they are from: "header", "footer", "sidecar" or "chunks"."""
    if header.layout != "blosc":
        return raw_table(header, source.size, readable=readable), "header"
    check_compressed(header, source.size)
    table = footer_of(source, header)
    if table is not None:
        return table, "footer"
    table = _sidecar(source, header, url, storage_options)
    if table is not None:
        return table, "sidecar"
    walked = walk_chunks(header, source.size, source.read_ranges, speculate=source.concurrent, readable=readable)
    return walked, "chunks"


def footer_of(source: Source, header: MrcHeader) -> FrameTable | None:
    """The frames by the shard footer; None where there is none, or it does not belong to the file as it is."""
    size = footer_bytes(header.shape[0])
    if header.data_offset + size > source.size:
        return None
    tail, head = source.read_ranges([(source.size - size, size), (header.data_offset, CHUNK_BYTES)])
    table = parse_footer(tail)
    if table is None or check_table(table, header, source.size - size) is not None:
        return None
    return table if table.end == source.size - size and _begins_frame(head, header) else None


def _begins_frame(head: bytes, header: MrcHeader) -> bool:
    """Whether a chunk as large as the header says begins here: before memory for a frame is asked for."""
    if len(head) < CHUNK_BYTES:
        return False
    chunk = parse_chunk_header(head)
    return chunk.version in VERSIONS and chunk.nbytes == header.frame_bytes


def _sidecar(
    source: Source, header: MrcHeader, url: str, storage_options: Mapping[str, Any] | None
) -> FrameTable | None:
    """The frames by the sidecar, where there is one and it was made of this very file."""
    table, fault = read_sidecar(source, header, url, storage_options)
    if fault is not None:
        warnings.warn(
            f"{url}{SIDECAR_SUFFIX}: not used, {fault}; write it again with: mrczdask index {url} --sidecar",
            StaleIndexWarning,
            stacklevel=2,
        )
    return table


def read_sidecar(
    source: Source, header: MrcHeader, url: str, storage_options: Mapping[str, Any] | None
) -> tuple[FrameTable | None, str | None]:
    """(frames, None) by a sidecar, (None, why not) by one that is of no use, (None, None) where there is none."""
    if not is_remote(url) and not os.path.exists(local_path(url) + SIDECAR_SUFFIX):
        return None, None
    try:
        with open_source(url + SIDECAR_SUFFIX, storage_options) as beside:
            parsed = _parse_sidecar(beside.read_at(0, beside.size))
    except (FileNotFoundError, PermissionError):  # a store that must not be listed answers 403 for what is not there
        return None, None
    if parsed is None:
        return None, "it cannot be read"
    table, fingerprint = parsed
    if fingerprint != source.fingerprint:
        return None, "the file has changed since"
    fault = check_table(table, header, source.size)
    if fault is None and not _begins_frame(source.read_at(header.data_offset, CHUNK_BYTES), header):
        fault = "no frame of the size in the header begins where it says"
    return (table, None) if fault is None else (None, fault)


def frame_index(url: str | os.PathLike[str], *, storage_options: Mapping[str, Any] | None = None) -> xr.Dataset:
    """Where every frame of an MRC or MRCZ file stands, without reading a pixel.

    Parameters
    ----------
    url : str or path
        A file, local or at any url fsspec knows.
    storage_options : mapping, optional
        For the fsspec file system.

    Returns
    -------
    xarray.Dataset
        `offset` and `length` in bytes (uint64, dim `frame`), attributes `frame_bytes` (unpacked size of a frame),
        `data_offset` and `source` ("header", "footer", "sidecar" or "chunks").

    Raises
    ------
    MrcFormatError
        The file is no MRC or MRCZ file, or truncated.

    Examples
    --------
    >>> import mrczdask as md
    >>> movie = md.simulate.poisson((3, 8, 8), mean=1.0, seed=0)
    >>> _ = md.write_mrcz(movie, "three.mrcz")
    >>> index = md.frame_index("three.mrcz")
    >>> index.sizes["frame"], index.attrs["source"]
    (3, 'footer')
    """
    url = os.fspath(url)
    try:
        with open_source(url, storage_options) as source:
            header = read_header(source)
            table, found = find_frames(source, header, url, storage_options=storage_options)
    except MrcFormatError as error:
        raise error.at(url) from None
    attrs = {"frame_bytes": header.frame_bytes, "data_offset": header.data_offset, "source": found}
    return xr.Dataset({"offset": ("frame", table.offsets), "length": ("frame", table.lengths)}, attrs=attrs)


def write_index(url: str | os.PathLike[str], *, sidecar: bool = False) -> str:
    """Write the index of an MRCZ file: the shard footer at its end, or a sidecar beside it.

    The footer is appended and the file synced: readers of MRCZ ignore what follows the last chunk, so the file is
    valid at every moment. Footers are for local files; a sidecar does not touch the file.

    Parameters
    ----------
    url : str or path
        A local MRCZ file.
    sidecar : bool
        Write `<file>.index.json` instead of the footer.

    Returns
    -------
    str
        The file written to.

    Raises
    ------
    MrcFormatError
        The file is damaged, is no MRCZ file, or is still written.
    """
    url = os.fspath(url)
    if is_wrapped(url):
        raise MrcFormatError("a file in a compressed wrapper is read from its beginning: no index helps", url=url)
    if is_remote(url):
        raise MrcFormatError("an index is written to local files only: index the file before it is uploaded", url=url)
    path = local_path(url)
    try:
        with open_source(path) as source:
            header = read_header(source)
            if header.layout != "blosc":
                raise MrcFormatError("the file is not compressed: its frames need no index")
            table = walk_chunks(header, source.size, source.read_ranges)
            fingerprint = source.fingerprint
    except MrcFormatError as error:
        raise error.at(url) from None
    if sidecar:
        replace_file(path + SIDECAR_SUFFIX, pack_sidecar(table, fingerprint))
        return path + SIDECAR_SUFFIX
    with open(path, "r+b") as file:
        now = os.fstat(file.fileno())
        if {"size": now.st_size, "mtime_ns": now.st_mtime_ns} != fingerprint:
            raise MrcFormatError("the file changed while it was indexed: index it when it is whole", url=url)
        file.truncate(table.end)
        file.seek(table.end)
        file.write(pack_footer(table))
        file.flush()
        os.fsync(file.fileno())
    return path
