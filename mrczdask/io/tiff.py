"""TIFF movies: pages to frames, through tifffile and imagecodecs.

Rows of a TIFF run from the top down, those of an MRC from the bottom up. Nothing is turned over while reading: the
attribute `origin` says which it is.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mrczdask import schema
from mrczdask.errors import MrcFormatError
from mrczdask.formats.facts import credible, datetime64
from mrczdask.formats.miniheader import PILATUS_MARKS, is_dectris, parse_miniheader
from mrczdask.formats.pixels import unpack_lines
from mrczdask.formats.serialem import is_full_size, is_halved_size, says_packed, title_attrs
from mrczdask.io.json_header import KEY, kept_coords, split_json
from mrczdask.io.movie_array import preferred_chunks
from mrczdask.io.reader import MovieFile
from mrczdask.io.source import Source, is_wrapped, open_source
from mrczdask.io.tiff_file import (
    Segments,
    all_pages,
    check_segments,
    faults,
    find_segments,
    open_tiff_file,
    read_batches,
)
from mrczdask.io.tiff_writer import ANGSTROM_PER_CM, UPPER, write_tiff

__all__ = ["TiffReader", "open_tiff", "write_tiff"]

MAX_PIXEL_ANGSTROM: Final = 1e4
"""A larger pixel comes from the 72 dots an inch that writers put where they know nothing."""
ANGSTROM_PER_UNIT: Final[Mapping[str, float]] = {
    "a": 1.0,
    "å": 1.0,
    "angstrom": 1.0,
    "pm": 1e-2,
    "nm": 10.0,
    "nanometer": 10.0,
    "um": 1e4,
    "µm": 1e4,
    "μm": 1e4,
    "micron": 1e4,
}
"""Units of the pixel size in ImageJ's description."""
ANGSTROM_PER_INCH: Final = 2.54e8
LZW: Final = 5
COMPRESSIONS: Final = (1, LZW, 8, 32946, 32773, 34925, 50000)
"""None, LZW, deflate (two numbers), PackBits, LZMA and zstd: others are not lossless, or not written by cameras."""

Unpack = Callable[[bytes, int], Any]
"""The bytes of a strip as stored, and how many its pixels are, to what tifffile decodes."""


@dataclass(frozen=True)
class TiffReader:
    """Reads frames of one TIFF file; see `FrameReader`."""

    url: str
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    segments: Segments = field(repr=False)
    keyframe: int = 0
    rows_per_segment: int = 0
    across: int = 1
    stored: np.dtype[Any] | None = None
    """Dtype of plain pixels that follow each other, of which any rows are read; None: strips and tiles are decoded."""
    packed4: bool = False
    """Each byte that tifffile gives holds two pixels of 4 bits, the lower half first."""
    storage_options: Mapping[str, Any] | None = field(default=None, repr=False)
    stamp: str = field(default="", repr=False)

    def read_into(self, out: NDArray[Any], frames: Sequence[int], rows: slice, cols: slice) -> None:
        """Fill `out` with rows and columns of the frames; only the strips that hold them are read."""
        if self.packed4:
            self._read_packed(out, frames, rows, cols)
            return
        if self.stored is not None:
            self._read_plain(out, frames, rows, cols)
            return
        first = rows.start // self.rows_per_segment * self.across
        last = -(-rows.stop // self.rows_per_segment) * self.across
        wanted = range(first, last)
        with open_tiff_file(self.url, self.storage_options) as (tif, source):
            keyframe = tif.pages[self.keyframe]
            unpack = _unpacker(keyframe)
            for place, parts in read_batches(source, self.segments, frames, wanted):
                for segment, data in zip(wanted, parts, strict=True):
                    at = (frames[place], segment)
                    self._decode(keyframe, unpack, out[place], data, at, rows, cols)

    def _read_packed(self, out: NDArray[Any], frames: Sequence[int], rows: slice, cols: slice) -> None:
        """Read the bytes that hold the columns, a frame at a time, and unpack them."""
        n, ny, nx = self.shape
        as_bytes = replace(self, shape=(n, ny, nx // 2), packed4=False)
        held = slice(cols.start // 2, -(-cols.stop // 2))
        line = np.empty((1, rows.stop - rows.start, held.stop - held.start), np.uint8)
        for place, frame in enumerate(frames):
            as_bytes.read_into(line, [frame], rows, held)
            pixels = unpack_lines(line[0], 2 * line.shape[2])
            out[place] = pixels[:, cols.start - 2 * held.start : cols.stop - 2 * held.start]

    def _read_plain(self, out: NDArray[Any], frames: Sequence[int], rows: slice, cols: slice) -> None:
        assert self.stored is not None
        line = self.shape[2] * self.stored.itemsize
        starts = self.segments.offsets[list(frames), 0] + rows.start * line
        size = (rows.stop - rows.start) * line
        with faults(self.url), open_source(self.url, self.storage_options) as source:
            plain = Segments(starts[:, None], np.full((len(starts), 1), size, np.int64))
            for place, (data,) in read_batches(source, plain, range(len(starts)), (0,)):
                out[place] = np.frombuffer(data, self.stored).reshape(-1, self.shape[2])[:, cols]

    def _decode(
        self,
        keyframe: Any,
        unpack: Unpack,
        out: NDArray[Any],
        data: bytes,
        at: tuple[int, int],
        rows: slice,
        cols: slice,
    ) -> None:
        """One strip or tile to its place in the rows and columns asked for."""
        frame, segment = at
        offset = int(self.segments.offsets[frame, segment])
        with faults(self.url, f"page {frame}, strip {segment}", frame, offset):
            _, (_, _, top, left, _), shape = keyframe.decode(None, segment)
            data = unpack(data, -(-shape[2] * keyframe.bitspersample // 8) * shape[1])
            pixels = keyframe.decode(data, segment)[0].reshape(shape)[0, :, :, 0]
        bottom = min(top + shape[1], rows.stop)
        right = min(left + shape[2], cols.stop)
        y, x = max(top, rows.start), max(left, cols.start)
        if y < bottom and x < right:
            part = pixels[y - top : bottom - top, x - left : right - left]
            out[y - rows.start : bottom - rows.start, x - cols.start : right - cols.start] = part


def _unpacker(keyframe: Any) -> Unpack:
    """LZW by our own kernel: imagecodecs 2026.3, the last for Python 3.11, reads foreign memory in corrupt streams."""
    if keyframe.compression != LZW:
        return lambda data, _: data
    import imagecodecs

    from mrczdask.kernels.lzw import lzw_unpack

    reverse = keyframe.fillorder == 2
    # what is unpacked here goes through tifffile as if it had not been compressed
    keyframe.compression, keyframe.fillorder = 1, 1
    return lambda data, size: lzw_unpack(imagecodecs.bitorder_decode(data) if reverse else data, size)


def open_tiff(url: str, *, first_page: bool = False, storage_options: Mapping[str, Any] | None = None) -> MovieFile:
    """Open a TIFF movie without reading a pixel.

    Parameters
    ----------
    url : str
        A multi-page TIFF or BigTIFF of gray pages that are alike, local or at any url fsspec knows.
    first_page : bool
        Take the first page alone, with a note where there are more: of references, whose other pages are other things.
    storage_options : mapping, optional
        For the fsspec file system.

    Returns
    -------
    MovieFile
        Attributes: `origin` ("upper"), `pixel_size_angstrom` where the resolution tags hold one, `rotation_flip` and
        `tilt_axis_angle_deg` where the description says them.

    Raises
    ------
    MrcFormatError
        No TIFF, a truncated one, or pages that are no frames of one movie.
    MissingExtraError
        tifffile or imagecodecs is not installed.
    """
    with open_tiff_file(url, storage_options) as (tif, source):
        pages = [page for page in all_pages(tif) if not page.is_reduced]
        if not pages:
            raise MrcFormatError("the file has only pages of reduced resolution")
        _check_gray(pages[0])
        n_pages = len(pages)
        pages = pages[:1] if first_page else pages
        reader = _reader(tif, pages, source, url, storage_options)
        attrs, acquired = _tag_attrs(tif, pages[0]), pages[0].datetime
        user, own = split_json(_document(pages[0].description))
        notes = _notes(pages[0])
        if len(pages) < n_pages:
            notes += (f"the file has {n_pages} pages: the first one is read",)
        reader, packed_notes = _as_packed(reader, pages[0].description)
        notes += packed_notes
        attrs = title_attrs([pages[0].description]) | attrs if not own else attrs
    attrs |= dict(own.get("attrs", {})) | ({schema.METADATA: user} if user else {})
    encoding: dict[str, Any] = {schema.PREFERRED_CHUNKS: preferred_chunks(reader.shape, wrapped=is_wrapped(url))}
    if notes:
        encoding[schema.NOTES] = notes
    when = None if acquired is None else datetime64(acquired)
    coords: dict[str, Any] = dict(kept_coords(own, reader.shape[0]))
    return MovieFile(reader, coords, attrs, encoding, acquired=when)


def _check_gray(page: Any) -> None:
    if page.samplesperpixel != 1 or page.imagedepth != 1:
        raise MrcFormatError(f"page {page.index} has {page.samplesperpixel} samples a pixel: a movie has one")
    if page.dtype is None or page.dtype.kind not in "buifc" or min(page.imagewidth, page.imagelength) < 1:
        raise MrcFormatError(
            f"page {page.index} has {page.bitspersample}-bit samples of format {page.sampleformat} in "
            f"{page.imagelength} x {page.imagewidth} pixels: not an image that is read here"
        )
    if int(page.compression) not in COMPRESSIONS:
        raise MrcFormatError(
            f"page {page.index} is compressed with {page.compression!s}: LZW, deflate, PackBits, LZMA and zstd are read"
        )


def _reader(
    tif: Any, pages: Sequence[Any], source: Source, url: str, storage_options: Mapping[str, Any] | None
) -> TiffReader:
    page = pages[0]
    plain = page.compression == 1 and page.predictor == 1 and page.fillorder == 1 and not page.is_tiled
    plain = plain and page.bitspersample == page.dtype.itemsize * 8
    stored = np.dtype(page.dtype).newbyteorder(tif.byteorder) if plain else None
    segments = _stacked(tif, page, source.size) if plain and len(tif.pages) == 1 else None
    if segments is None:
        segments = find_segments(pages, source.size)
    if stored is not None:
        frame_bytes = page.imagelength * page.imagewidth * stored.itemsize
        if segments.contiguous and bool((segments.counts.sum(axis=1) >= frame_bytes).all()):
            segments = Segments(segments.offsets[:, :1], np.full((len(segments), 1), frame_bytes, np.int64))
        else:
            stored = None
    return TiffReader(
        url=url,
        shape=(len(segments), int(page.imagelength), int(page.imagewidth)),
        dtype=np.dtype(page.dtype).newbyteorder("="),
        segments=segments,
        keyframe=int(page.index),
        rows_per_segment=int(page.tilelength if page.is_tiled else page.rowsperstrip),
        across=-(-int(page.imagewidth) // int(page.tilewidth)) if page.is_tiled else 1,
        stored=stored,
        storage_options=storage_options,
        stamp=str(source.fingerprint),
    )


def _as_packed(reader: TiffReader, description: str) -> tuple[TiffReader, tuple[str, ...]]:
    """The reader of 4-bit pixels where bytes hold two of them, as SerialEM writes super-resolution frames.

    The description says it. Without one the size does, as in IMOD: no detector has frames of half a side.
    """
    n, ny, nx = reader.shape
    said, halved = says_packed(description), is_halved_size(nx, ny)
    if not (said or halved):
        return reader, ()
    if reader.dtype not in (np.dtype(np.uint8), np.dtype(np.int8)) or is_full_size(nx, ny):
        what = f"pixels are {reader.dtype} and frames {nx} x {ny}"
        return reader, (f"the description says 4 bits packed, {what}: read as they stand",) if said else ()
    packed = replace(reader, shape=(n, ny, 2 * nx), dtype=np.dtype(np.uint8), packed4=True)
    if said:
        return packed, ()
    note = f"{nx} x {ny} bytes are super-resolution frames of two pixels a byte: read as 4-bit pixels"
    return packed, (note,)


def _stacked(tif: Any, page: Any, size: int) -> Segments | None:
    """Frames behind one directory, as ImageJ writes stacks of more than 4 GB; None where there is only one."""
    series = tif.series[0]
    n = int(np.prod(series.shape[:-2]))
    if n < 2 or series.dataoffset is None or tuple(series.shape[-2:]) != (page.imagelength, page.imagewidth):
        return None
    frame_bytes = page.imagelength * page.imagewidth * page.dtype.itemsize
    offsets = series.dataoffset + frame_bytes * np.arange(n, dtype=np.int64)
    segments = Segments(offsets[:, None], np.full((n, 1), frame_bytes, np.int64))
    check_segments(segments, size, frame_bytes, range(n))
    return segments


def _tag_attrs(tif: Any, page: Any) -> dict[str, Any]:
    attrs: dict[str, Any] = {schema.ORIGIN: UPPER}
    sizes = [_pixel_angstrom(tif, page, code) for code in ("XResolution", "YResolution")]
    if None not in sizes:
        x, y = sizes
        attrs[schema.PIXEL_SIZE] = x if x == y else [x, y]
    said = [str(page.tags.valueof(name) or "") for name in ("Model", "ImageDescription")]
    found = parse_miniheader(said[1])
    if page.dtype.kind == "i" and (found or is_dectris(*said)):
        found |= PILATUS_MARKS
    return attrs | found


def _pixel_angstrom(tif: Any, page: Any, name: str) -> float | None:
    """Pixel size from a resolution tag; ImageJ writes its unit in the description."""
    value = page.tags.valueof(name)
    try:
        resolution = value[0] / value[1]
    except (TypeError, ZeroDivisionError, IndexError):
        return None
    unit = str((tif.imagej_metadata or {}).get("unit", "")).lower() if tif.is_imagej else ""
    if tif.is_imagej:
        scale = ANGSTROM_PER_UNIT.get(unit.replace("\\u00b5", "µ").replace("\\u00c5", "å"))
    else:
        scale = {2: ANGSTROM_PER_INCH, 3: ANGSTROM_PER_CM}.get(int(page.resolutionunit or 0))
    if scale is None or resolution <= 0:
        return None
    size = credible(schema.PIXEL_SIZE, scale / resolution)
    return float(f"{size:.6g}") if size is not None and size < MAX_PIXEL_ANGSTROM else None


def _notes(page: Any) -> tuple[str, ...]:
    orientation = page.tags.valueof("Orientation")
    if orientation in (None, 1):
        return ()
    return (f"the Orientation tag is {int(orientation)}: not applied, as by other programs",)


def _document(description: str) -> dict[str, Any]:
    """The JSON that `write_tiff` puts into the description; nothing for other writers."""
    try:
        document = json.loads(description) if description.startswith("{") else {}
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) and KEY in document else {}
