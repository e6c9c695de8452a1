"""Movies to MRC and MRCZ files: regions are encoded in parallel and written in order."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import IO, Any, Final, Literal

import dask.array as da
import numpy as np
import xarray as xr
from dask.delayed import delayed
from numpy.typing import NDArray

import mrczdask
from mrczdask import schema
from mrczdask.errors import MrcFormatError
from mrczdask.execution.progress import Progress, track
from mrczdask.execution.regions import run_regions
from mrczdask.formats.frame_index import pack_footer
from mrczdask.formats.mrc import MrcHeader, build_header, parse_header
from mrczdask.formats.mrc_fields import BLOSC_CODECS, HEADER_BYTES, MODE_DTYPES, PACKED4
from mrczdask.formats.mrcz import FrameTable, ReadRanges, raw_table, walk_chunks
from mrczdask.io.encode import EncodedFrames, Encoding, Sums, choose_blosc, encode_block
from mrczdask.io.json_header import pack_json
from mrczdask.io.source import is_remote, local_path, open_source
from mrczdask.io.write import create_file

LABEL: Final = "MRCZ0.6.0"
"""The layout version, as python-mrcz reads it. The second label names this package."""
SAMPLE_FRAMES: Final = 3
MODE_OF: Final = {
    "i1": 0,
    "b1": 0,
    "i2": 1,
    "f4": 2,
    "c8": 4,
    "u2": 6,
    "i4": 7,
    "u4": 8,
    "f2": 12,
}
"""MODE by dtype. uint8 has none: mode 0 while every pixel is <= 127, else mode 6."""
INT8_MAX: Final = 127

Codec = Literal["none", "blosclz", "lz4", "lz4hc", "zlib", "zstd"]


class _NeedsUint16(Exception):
    """A uint8 pixel above 127 in a file begun in mode 0."""


def write_mrcz(
    movie: xr.DataArray | xr.Dataset | da.Array | NDArray[Any],
    url: str | os.PathLike[str],
    *,
    codec: Codec | None = "zstd",
    level: int = 1,
    mode: int | None = None,
    metadata: Mapping[str, Any] | None = None,
    index: bool = True,
    append: bool = False,
    shuffle: Literal["none", "byte", "bit"] | None = None,
    blocksize: int | None = None,
    as_list: bool = False,
    progress: Progress = None,
    storage_options: Mapping[str, Any] | None = None,
) -> xr.DataArray:
    """Write a movie as MRCZ, or as plain MRC with ``codec=None``, in bounded memory.

    Frames are computed and compressed in parallel, on threads or on the cluster of the client in force, and written
    in order. The file appears under its name only when it is whole.

    Parameters
    ----------
    movie : DataArray, Dataset, dask array or numpy array
        (frame, y, x), or one (y, x) image. Dtypes: bool, int8, uint8, int16, uint16, int32, uint32, float16,
        float32, complex64. uint8 goes to mode 0 while every pixel is <= 127, else to mode 6 (uint16).
    url : str or path
        The file, local or in an object store. An existing file is replaced.
    codec : {"zstd", "zlib", "lz4", "lz4hc", "blosclz", "none"} or None
        Blosc codec; None or "none" does not compress.
    level : int
        Compression level, 0 to 9.
    mode : int, optional
        MRC mode; by the dtype where None. 101 packs 4-bit pixels (not compressed).
    metadata : mapping, optional
        JSON for the extended header; by default the attribute `metadata` of the movie. Coordinates along `frame`,
        attributes and the dtype are kept beside it.
    index : bool
        Write the shard footer behind the last chunk: the file opens without a walk over its chunks.
    append : bool
        Add the frames to an existing local file of the same shape and mode. The number of frames in its header is
        patched last: a reader sees the old movie or the new one.
    shuffle : {"none", "byte", "bit"}, optional
        Blosc filter; the one that makes a few frames smallest where None.
    blocksize : int, optional
        Blosc block in bytes; measured where None. Small blocks read rows faster, large ones compress better.
    as_list : bool
        Let python-mrcz read a list of frames (MZ = 1) instead of one 3-D array (MZ = 0).
    progress : None, True or callable
        True shows a bar; a callable gets (done, total, label).
    storage_options : mapping, optional
        For the fsspec file system.

    Returns
    -------
    xarray.DataArray
        The movie, opened from the file.

    Raises
    ------
    MrcFormatError
        No MRC mode holds the dtype, or an appended movie does not fit the file.

    Examples
    --------
    >>> import mrczdask as md
    >>> movie = md.simulate.poisson((4, 32, 32), mean=2.0, seed=1)
    >>> stored = md.write_mrcz(movie, "movie.mrcz", metadata={"session": "grid 7"})
    >>> bool((stored == movie).all()), stored.attrs["metadata"]["session"]
    (True, 'grid 7')
    """
    from mrczdask.io.movie import open_movie

    target = os.fspath(url)
    frames = as_movie(movie)
    codec = None if codec in (None, "none") else codec
    plan = _plan(frames, codec, level, mode)
    if append:
        if metadata is not None:
            raise MrcFormatError("metadata cannot grow in place: append without it", url=target)
        _append(frames, target, plan, index, shuffle, blocksize, progress)
        return open_movie(target, storage_options=storage_options)
    samples = _samples(frames)
    if plan.mode == 0 and frames.dtype == np.uint8 and max(map(np.max, samples)) > INT8_MAX:
        plan = _in_uint16(plan)
    for attempt in (plan, _in_uint16(plan)):
        encoding = choose_blosc(samples, attempt, shuffle, blocksize) if codec else attempt
        try:
            header = _header(frames, encoding, as_list)
            extended = pack_json(frames, metadata)
            with create_file(target, storage_options) as file:
                _write(file, frames, header, extended, encoding, index, progress, os.path.basename(target))
            break
        except _NeedsUint16:
            continue
    return open_movie(target, storage_options=storage_options)


def as_movie(movie: Any) -> xr.DataArray:
    """A DataArray (frame, y, x) over a Dask array, of whatever holds a movie or one image."""
    if isinstance(movie, xr.Dataset):
        movie = movie[schema.IMAGES]
    if not isinstance(movie, xr.DataArray):
        dims = schema.MOVIE_DIMS[-np.ndim(movie) :] if 2 <= np.ndim(movie) <= 3 else None
        movie = xr.DataArray(movie, dims=dims)
    if movie.dims == schema.MOVIE_DIMS[1:]:
        movie = movie.expand_dims(schema.FRAME)
    if movie.ndim != 3 or 0 in movie.shape:
        raise MrcFormatError(
            f"a movie has the dims (frame, y, x) and at least one pixel, not {dict(movie.sizes)}: "
            "select one movie with .isel(movie=...) first"
        )
    if not isinstance(movie.data, da.Array):
        movie = movie.chunk({movie.dims[0]: max((64 << 20) // max(movie[0].nbytes, 1), 1)})
    return movie


def _plan(frames: xr.DataArray, codec: str | None, level: int, mode: int | None) -> Encoding:
    """Mode and stored dtype for the dtype of the movie."""
    if codec is not None and codec not in BLOSC_CODECS:
        raise MrcFormatError(f"codec {codec!r} is not one of {', '.join(BLOSC_CODECS)}")
    dtype = frames.dtype
    chosen = mode if mode is not None else 0 if dtype == np.uint8 else MODE_OF.get(dtype.str[1:])
    if chosen not in MODE_DTYPES or MODE_DTYPES[chosen].shape:
        kinds = "int8, uint8, int16, uint16, int32, uint32, float16, float32, complex64"
        raise MrcFormatError(
            f"no MRC mode holds {dtype} pixels: convert with .astype() to {kinds}"
            if mode is None
            else f"mode {mode} is not written: choose one of 0, 1, 2, 4, 6, 7, 8, 12, 101"
        )
    stored = MODE_DTYPES[chosen].newbyteorder("<")
    if chosen == PACKED4:
        if dtype != np.uint8 or codec:
            raise MrcFormatError("mode 101 packs uint8 pixels of 0..15 and is not compressed: codec=None")
        return Encoding(chosen, stored)
    fits = dtype.name in ("uint8", "bool") if chosen == 0 and dtype != np.int8 else np.can_cast(dtype, stored)
    if not fits:
        raise MrcFormatError(f"mode {chosen} stores {stored.name}, which does not hold every {dtype}")
    return Encoding(chosen, stored, codec, level)


def _in_uint16(plan: Encoding) -> Encoding:
    return replace(plan, mode=6, stored=np.dtype("<u2"))


def _samples(frames: xr.DataArray) -> list[NDArray[Any]]:
    """The first, the middle and the last frame, computed."""
    places = sorted({0, frames.shape[0] // 2, frames.shape[0] - 1})[:SAMPLE_FRAMES]
    tasks = [(k, frames.data[k]) for k in places]
    return [frame for _, frame in run_regions(tasks)]


def _header(frames: xr.DataArray, encoding: Encoding, as_list: bool) -> MrcHeader:
    n, ny, nx = frames.shape
    pixel = frames.attrs.get(schema.PIXEL_SIZE)
    sizes = np.ravel(pixel).astype(float).tolist() if pixel is not None else None
    return MrcHeader(
        shape=(n, ny, nx),
        mode=encoding.mode,
        compressor=BLOSC_CODECS[encoding.codec or "none"],
        stored=encoding.stored,
        packed4=encoding.mode == PACKED4,
        exttyp="json",
        pixel_size=None if sizes is None else (sizes[0], sizes[min(1, len(sizes) - 1)], sizes[-1]),
        voltage_kv=frames.attrs.get(schema.VOLTAGE),
        spherical_aberration_mm=frames.attrs.get(schema.SPHERICAL_ABERRATION),
        counts_per_electron=frames.attrs.get(schema.COUNTS_PER_ELECTRON),
        labels=(LABEL, f"written by mrczdask {mrczdask.__version__}"),
        m=(nx, ny, 1 if as_list else 0),
    )


def _write(
    file: IO[bytes],
    frames: xr.DataArray,
    header: MrcHeader,
    extended: bytes,
    encoding: Encoding,
    index: bool,
    progress: Progress,
    label: str,
) -> None:
    """Header, extended header, frames, footer; then the header again with what the pixels turned out to be."""
    header = replace(header, nsymbt=len(extended))
    file.write(build_header(header))
    file.write(extended)
    sums = Sums()
    lengths: list[int] = []
    for encoded in _encoded(frames, encoding, progress, label):
        _check_mode0(frames, encoding, encoded.sums)
        sums.add(encoded.sums)
        for frame in encoded.frames:
            file.write(frame)
            lengths.append(len(frame))
    if encoding.codec and index:
        file.write(pack_footer(_table(header.data_offset, lengths)))
    packed_bytes = sum(lengths) if encoding.codec else 0
    file.seek(0)
    file.write(build_header(replace(header, statistics=sums.statistics(), packed_bytes=packed_bytes)))


def _table(first: int, lengths: list[int]) -> FrameTable:
    sizes = np.array(lengths, np.uint64)
    starts = first + np.concatenate([[0], np.cumsum(sizes[:-1])]).astype(np.uint64)
    return FrameTable(starts.astype(np.uint64), sizes)


def _check_mode0(frames: xr.DataArray, encoding: Encoding, sums: Sums) -> None:
    if encoding.mode == 0 and frames.dtype == np.uint8 and sums.high > INT8_MAX:
        raise _NeedsUint16


def _encoded(frames: xr.DataArray, encoding: Encoding, progress: Progress, label: str) -> Iterator[EncodedFrames]:
    """Encoded frames in order; a region is the frames of one Dask chunk."""
    blocks = frames.data.to_delayed()
    encode = delayed(encode_block, pure=False)
    tasks = (
        (k, encode(block.tolist() if block.size > 1 else block.item(), encoding)) for k, block in enumerate(blocks)
    )
    with track(progress, len(blocks), label) as advance:
        for _, encoded in run_regions(tasks, on_done=advance):
            yield encoded


def _append(
    frames: xr.DataArray,
    url: str,
    plan: Encoding,
    index: bool,
    shuffle: str | None,
    blocksize: int | None,
    progress: Progress,
) -> None:
    """Write behind the last frame, sync, and only then patch NZ."""
    if is_remote(url):
        raise MrcFormatError("append works on local files: write a new file, or append before the upload", url=url)
    path = local_path(url)
    with open_source(path) as source:
        raw = source.read_at(0, HEADER_BYTES)
        header = parse_header(raw)
        table = _existing_table(header, source.size, source.read_ranges)
        footer = source.read_at(table.end, source.size - table.end)
    plan = _appended_plan(header, frames, plan, url)
    encoding = choose_blosc(_samples(frames), plan, shuffle, blocksize) if plan.codec else plan
    with open(path, "r+b") as file:
        try:
            lengths = _append_frames(file, frames, encoding, table, index, progress, os.path.basename(path))
        except BaseException:
            file.seek(table.end)  # the old movie as it was, its footer too
            file.write(footer)
            file.truncate()
            _sync(file)
            raise
        _patch(file, len(lengths), sum(lengths) if encoding.codec else 0)


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
    for encoded in _encoded(frames, encoding, progress, label):
        if encoding.mode == 0 and frames.dtype == np.uint8 and encoded.sums.high > INT8_MAX:
            raise MrcFormatError("a pixel is above 127 and the file is in mode 0: write a new file")
        for frame in encoded.frames:
            file.write(frame)
            lengths.append(len(frame))
    if encoding.codec and index:
        file.write(pack_footer(_table(int(table.offsets[0]), lengths)))
    file.truncate()
    _sync(file)
    return lengths


def _existing_table(header: MrcHeader, size: int, read: ReadRanges) -> FrameTable:
    return walk_chunks(header, size, read) if header.layout == "blosc" else raw_table(header, size)


def _appended_plan(header: MrcHeader, frames: xr.DataArray, plan: Encoding, url: str) -> Encoding:
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
    plan = _in_uint16(plan) if widened else plan
    if bool(header.compressor) != (plan.codec is not None):
        said = "compressed" if header.compressor else "not compressed"
        raise MrcFormatError(f"the file is {said}: give the matching codec", url=url)
    return plan


def _sync(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _patch(file: IO[bytes], n_frames: int, packed_bytes: int) -> None:
    """NZ last: 4 bytes that turn the old movie into the new one. Statistics of the old frames become "unset"."""
    unset = np.array([0, -1, -2], "<f4").tobytes()
    for place, content in ((76, unset), (144, packed_bytes.to_bytes(8, "little")), (216, unset[4:8])):
        file.seek(place)
        file.write(content)
    _sync(file)
    file.seek(8)
    file.write(n_frames.to_bytes(4, "little"))
    _sync(file)
