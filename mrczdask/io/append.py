"""Frames added to an MRC or MRCZ file in place: a reader sees the old movie or the new one."""

from __future__ import annotations

import os
from typing import IO, Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mrczdask.errors import MrcFormatError
from mrczdask.execution.progress import Progress
from mrczdask.formats.extended_header import parse_extended_header
from mrczdask.formats.frame_index import pack_footer
from mrczdask.formats.mrc import MrcHeader, parse_header
from mrczdask.formats.mrc_fields import HEADER_BYTES
from mrczdask.formats.mrcz import FrameTable, ReadRanges, raw_table, walk_chunks
from mrczdask.io.encode import Encoding, choose_blosc
from mrczdask.io.json_header import kept_dtype, split_json
from mrczdask.io.mrcz_plan import INT8_MAX, encoded_frames, in_uint16, sample_frames, table_of
from mrczdask.io.source import is_remote, is_wrapped, local_path, open_source

_CELL_Z: Final = 48
"""Byte of CELLA z."""


def append_movie(
    frames: xr.DataArray,
    url: str,
    plan: Encoding,
    index: bool,
    shuffle: str | None,
    blocksize: int | None,
    progress: Progress,
) -> None:
    """Write behind the last frame, sync, and only then patch NZ."""
    if is_wrapped(url):
        raise MrcFormatError("a file in a compressed wrapper is not appended to: unpack it first", url=url)
    if is_remote(url):
        raise MrcFormatError("append works on local files: write a new file, or append before the upload", url=url)
    path = local_path(url)
    with open_source(path) as source:
        raw = source.read_at(0, HEADER_BYTES)
        header = parse_header(raw)
        table = _existing_table(header, source.size, source.read_ranges)
        footer = source.read_at(table.end, source.size - table.end)
        facts = parse_extended_header(header.exttyp, source.read_at(HEADER_BYTES, header.nsymbt), "<", len(table))
    plan = _fitted(header, kept_dtype(split_json(facts.metadata or {})[1], header.stored), frames, plan, url)
    encoding = choose_blosc(sample_frames(frames), plan, shuffle, blocksize) if plan.codec else plan
    with open(path, "r+b") as file:
        try:
            lengths = _append_frames(file, frames, encoding, table, index, progress, os.path.basename(path))
        except BaseException:
            file.seek(table.end)  # the old movie as it was, its footer too
            file.write(footer)
            file.truncate()
            _sync(file)
            raise
        depth = np.frombuffer(raw, "<f4", 1, _CELL_Z) * np.float32(1 if header.m[2] else len(lengths) / len(table))
        _patch(file, depth, len(lengths), sum(lengths) if encoding.codec else 0)


def _append_frames(
    file: IO[bytes],
    frames: xr.DataArray,
    encoding: Encoding,
    table: FrameTable,
    index: bool,
    progress: Progress,
    label: str,
) -> list[int]:
    lengths = table.lengths.tolist()
    file.seek(table.end)
    for encoded in encoded_frames(frames, encoding, progress, label):
        if encoding.mode == 0 and frames.dtype == np.uint8 and encoded.sums.high > INT8_MAX:
            raise MrcFormatError("a pixel is above 127 and the file is in mode 0: write a new file")
        for frame in encoded.frames:
            file.write(frame)
            lengths.append(len(frame))
    if encoding.codec and index:
        file.write(pack_footer(table_of(int(table.offsets[0]), lengths)))
    file.truncate()
    _sync(file)
    return lengths


def _existing_table(header: MrcHeader, size: int, read: ReadRanges) -> FrameTable:
    return walk_chunks(header, size, read) if header.layout == "blosc" else raw_table(header, size)


def _fitted(header: MrcHeader, kept: np.dtype[Any] | None, frames: xr.DataArray, plan: Encoding, url: str) -> Encoding:
    """The encoding of the file as it is, if the new frames fit into it."""
    if header.byte_order != "<" or header.mrcz_version is None:
        raise MrcFormatError("append needs a little-endian file labelled MRCZ: write a new file", url=url)
    if header.shape[1:] != frames.shape[1:]:
        raise MrcFormatError(f"the file has frames of {header.shape[1:]}, these are {frames.shape[1:]}", url=url)
    if header.slices > 1:
        raise MrcFormatError("the file is a list of 3-D frames: it is not appended to", url=url)
    widened = frames.dtype == np.uint8 and header.mode == 6
    if header.mode != plan.mode and not widened:
        raise MrcFormatError(f"the file is of mode {header.mode}, these frames are of mode {plan.mode}", url=url)
    if kept is not None and not np.can_cast(frames.dtype, kept):
        raise MrcFormatError(f"the file is read as {kept}, which does not hold every {frames.dtype}", url=url)
    plan = in_uint16(plan) if widened else plan
    if bool(header.compressor) != (plan.codec is not None):
        said = "compressed" if header.compressor else "not compressed"
        raise MrcFormatError(f"the file is {said}: give the matching codec", url=url)
    return plan


def _sync(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _patch(file: IO[bytes], depth: NDArray[Any], n_frames: int, packed_bytes: int) -> None:
    """NZ last: 4 bytes that turn the old movie into the new one. Statistics of the old frames become "unset"."""
    unset = np.array([0, -1, -2], "<f4").tobytes()
    for place, content in (
        (_CELL_Z, depth.tobytes()),
        (76, unset),
        (144, packed_bytes.to_bytes(8, "little")),
        (216, unset[4:8]),
    ):
        file.seek(place)
        file.write(content)
    _sync(file)
    file.seek(8)
    file.write(n_frames.to_bytes(4, "little"))
    _sync(file)
