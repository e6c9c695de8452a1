"""Movies to MRC and MRCZ files: regions are encoded in parallel and written in order."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import IO, Any, Final, Literal

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
from mrczdask.io.encode import Encoding, Sums, choose_blosc
from mrczdask.io.json_header import pack_json
from mrczdask.io.mrcz_plan import (
    INT8_MAX,
    Codec,
    as_movie,
    encoded_frames,
    in_uint16,
    plan_encoding,
    sample_frames,
    table_of,
)
from mrczdask.io.source import is_wrapped
from mrczdask.io.write import create_file

LABEL: Final = "MRCZ0.6.0"
"""The layout version, as python-mrcz reads it. The second label names this package."""


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
    as_list: bool | None = None,
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
    if is_wrapped(target):
        raise MrcFormatError("compressed wrappers are read, not written: name the file .mrcz or .mrc", url=target)
    frames = as_movie(movie)
    codec = None if codec in (None, "none") else codec
    plan = plan_encoding(frames, codec, level, mode)
    if append:
        if metadata is not None:
            raise MrcFormatError("metadata cannot grow in place: append without it", url=target)
        append_movie(frames, target, plan, index, shuffle, blocksize, progress)
        return open_movie(target, storage_options=storage_options)
    samples = sample_frames(frames)
    if mode is None and plan.mode == 0 and frames.dtype == np.uint8 and max(map(np.max, samples)) > INT8_MAX:
        plan = in_uint16(plan)
    for attempt in (plan, in_uint16(plan)):
        encoding = choose_blosc(samples, attempt, shuffle, blocksize) if codec else attempt
        try:
            header = _header(frames, encoding, _is_list(encoding) if as_list is None else as_list)
            extended = pack_json(frames, metadata)
            with create_file(target, storage_options) as file:
                _write(file, frames, header, extended, encoding, index, progress, os.path.basename(target))
            break
        except _NeedsUint16:
            if mode == 0:
                raise MrcFormatError("a uint8 pixel is above 127: mode 0 is signed, use mode 6", url=target) from None
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
