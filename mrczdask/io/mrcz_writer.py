"""Movies to MRC and MRCZ files: regions are encoded in parallel and written in order."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import IO, Any, Final, Literal, get_args

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

import mrczdask
from mrczdask import schema
from mrczdask.errors import MrcFormatError
from mrczdask.execution.progress import Progress
from mrczdask.formats.frame_index import pack_footer
from mrczdask.formats.mrc import MrcHeader, build_header
from mrczdask.formats.mrc_fields import BLOSC_CODECS, PACKED4
from mrczdask.io.append import append_movie
from mrczdask.io.encode import Encoding, NotExactError, Sums, choose_blosc
from mrczdask.io.json_header import pack_json
from mrczdask.io.mrcz_plan import (
    INT8_MAX,
    Codec,
    as_movie,
    bottom_up,
    encoded_frames,
    in_int32,
    in_uint16,
    plan_encoding,
    sample_frames,
    table_of,
)
from mrczdask.io.suffixes import format_of
from mrczdask.io.write import create_file

LABEL: Final = "MRCZ0.6.0"
"""The layout version, as python-mrcz reads it. The second label names this package."""


class _NeedsUint16(Exception):
    """A uint8 pixel above 127 in a file begun in mode 0."""


def write_mrcz(
    movie: xr.DataArray | xr.Dataset | da.Array | NDArray[Any],
    url: str | os.PathLike[str],
    *,
    codec: Codec | Literal["auto"] | None = "auto",
    level: int = 1,
    mode: int | None = None,
    metadata: Mapping[str, Any] | None = None,
    index: bool = True,
    append: bool = False,
    shuffle: Literal["none", "byte", "bit"] | None = None,
    blocksize: int | None = None,
    as_list: bool | None = None,
    progress: Progress = None,
    storage_options: Mapping[str, Any] | None = None,
) -> xr.DataArray:
    """Write a movie as MRCZ, plain MRC or TIFF, as the suffix says, in bounded memory.

    Frames are computed and compressed in parallel, on threads or on the cluster of the client in force, and written
    in order. The file appears under its name only when it is whole. Rows are written as the format has them, the lowest
    of the picture first in MRC and the highest in TIFF: a movie whose attribute `origin` says otherwise is turned over,
    as by ``mrczdask convert``, so that every program shows the same picture.

    Parameters
    ----------
    movie : DataArray, Dataset, dask array or numpy array
        (frame, y, x), or one (y, x) image. Dtypes: bool, int8, uint8, int16, uint16, int32, uint32, float16,
        float32, complex64. uint8 goes to mode 0 while every pixel is <= 127, else to mode 6 (uint16). Sums of 64 bits,
        int64 and float64, are written as float32 where that is exact, integers else as int32.
    url : str or path
        The file, local or in an object store: .mrcz, .mrc (.mrcs, .map, .st, .rec, .ali), or .tif (.tiff, .gtiff). An
        existing file is replaced.
    codec : {"auto", "zstd", "zlib", "lz4", "lz4hc", "blosclz", "none"} or None
        Blosc codec of an .mrcz; None or "none" does not compress. "auto": zstd for .mrcz, none for .mrc, lzw or zlib
        for TIFF.
    level : int
        Compression level of an .mrcz, 0 to 9.
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
    as_list : bool, optional
        Write MZ = 1: a stack of images, which python-mrcz reads as a list of frames; False: MZ = 0, which it reads as
        one 3-D array. By default only plain MRC has MZ = 1 (but for mode 101, which python-mrcz reads as an
        array only): other programs divide the depth of the cell by it.
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
        The suffix names no format that is written, or one without the codec; no MRC mode holds the dtype or, of 64
        bits, the pixels; or an appended movie does not fit the file.
    ValueError
        The level is not one of 0 to 9.

    Examples
    --------
    >>> import mrczdask as md
    >>> movie = md.simulate.poisson((4, 32, 32), mean=2.0, seed=1)
    >>> stored = md.write_mrcz(movie, "movie.mrcz", metadata={"session": "grid 7"})
    >>> bool((stored == movie).all()), stored.em.metadata["session"]
    (True, 'grid 7')
    """
    target = os.fspath(url)
    kind = format_of(target, ("mrc", "mrcz", "tiff"))
    if not 0 <= level <= 9:
        raise ValueError(f"level={level}: give 0 to 9")
    if kind == "tiff":
        if append or mode is not None or codec != "auto":
            raise MrcFormatError(
                "append, mode and codec are of MRC files: leave them out, or name it .mrcz", url=target
            )
        from mrczdask.io.tiff_movie import to_tiff

        return to_tiff(as_movie(movie), target, progress, metadata=metadata, storage_options=storage_options)
    if codec == "auto":
        codec = "zstd" if kind == "mrcz" else None
    codec = None if codec in (None, "none") else codec
    if codec in get_args(Codec) and kind == "mrc" and not append:
        raise MrcFormatError(f"codec={codec!r}: an MRC file is not compressed: name it .mrcz", url=target)
    return write_rows(
        bottom_up(as_movie(movie)),
        target,
        codec=codec,
        level=level,
        mode=mode,
        metadata=metadata,
        index=index,
        append=append,
        shuffle=shuffle,
        blocksize=blocksize,
        as_list=as_list,
        progress=progress,
        storage_options=storage_options,
    )


def write_rows(
    movie: xr.DataArray,
    target: str,
    *,
    codec: str | None,
    level: int = 1,
    mode: int | None = None,
    metadata: Mapping[str, Any] | None = None,
    index: bool = True,
    append: bool = False,
    shuffle: str | None = None,
    blocksize: int | None = None,
    as_list: bool | None = None,
    progress: Progress = None,
    storage_options: Mapping[str, Any] | None = None,
) -> xr.DataArray:
    """As `write_mrcz`, with the rows in the order in which they are, whatever `origin` says."""
    from mrczdask.io.movie import open_movie

    frames = as_movie(movie)
    plan = plan_encoding(frames, codec, level, mode)
    if append:
        if metadata is not None:
            raise MrcFormatError("metadata cannot grow in place: append without it", url=target)
        append_movie(frames, target, plan, index, shuffle, blocksize, progress)
        return open_movie(target, storage_options=storage_options)
    samples = sample_frames(frames)
    if mode is None and plan.mode == 0 and frames.dtype == np.uint8 and max(map(np.max, samples)) > INT8_MAX:
        plan = in_uint16(plan)
    for attempt in (plan, in_int32(plan) if plan.narrowed else in_uint16(plan)):
        try:
            encoding = choose_blosc(samples, attempt, shuffle, blocksize) if codec else attempt
            header = _header(frames, encoding, _is_list(encoding) if as_list is None else as_list)
            extended = pack_json(frames, metadata)
            with create_file(target, storage_options) as file:
                _write(file, frames, header, extended, encoding, index, progress, os.path.basename(target))
            break
        except _NeedsUint16:
            if mode == 0:
                raise MrcFormatError("a uint8 pixel is above 127: mode 0 is signed, use mode 6", url=target) from None
        except NotExactError as error:
            if mode is not None or attempt is not plan or frames.dtype.kind == "f":
                raise error.at(target) from None
    return open_movie(target, storage_options=storage_options)


def _is_list(encoding: Encoding) -> bool:
    return encoding.codec is None and encoding.mode != PACKED4


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
    for encoded in encoded_frames(frames, encoding, progress, label):
        _check_mode0(frames, encoding, encoded.sums)
        sums.add(encoded.sums)
        for frame in encoded.frames:
            file.write(frame)
            lengths.append(len(frame))
    if encoding.codec and index:
        file.write(pack_footer(table_of(header.data_offset, lengths)))
    packed_bytes = sum(lengths) if encoding.codec else 0
    file.seek(0)
    file.write(build_header(replace(header, statistics=sums.statistics(), packed_bytes=packed_bytes)))


def _check_mode0(frames: xr.DataArray, encoding: Encoding, sums: Sums) -> None:
    if encoding.mode == 0 and frames.dtype == np.uint8 and sums.high > INT8_MAX:
        raise _NeedsUint16
