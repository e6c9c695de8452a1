"""TIFF files read by ranges: the pages, where their strips or tiles are, and whether all of them are in the file."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mrczdask.errors import MissingExtraError, MrcFormatError, MrczdaskError
from mrczdask.formats.first_bytes import is_tiff, kind_of
from mrczdask.io.source import Source, open_source

LOCAL_BUFFER: Final = 16 << 10
REMOTE_BUFFER: Final = 128 << 10
"""Bytes read at once while the directories are walked: one request a page of a remote file."""
MAX_RATIO: Final = 1 << 16
"""Pixels cannot be more than this times the bytes they are compressed to: a page that says so is corrupt. LZW reaches
2730, deflate 1032, zstd more on constant frames."""
SLACK_BYTES: Final = 1 << 20
MANY_BYTES: Final = 64 << 20
"""Compressed bytes held at once while frames are read."""
_HEAD: Final = 1024
EER_COMPRESSIONS: Final = (65000, 65001, 65002)


@dataclass(frozen=True)
class Segments:
    """Where the strips or tiles of the pages are, (page, segment)."""

    offsets: NDArray[np.int64] = field(repr=False)
    counts: NDArray[np.int64] = field(repr=False)

    def __len__(self) -> int:
        return len(self.offsets)

    def __getitem__(self, pages: slice) -> Segments:
        return Segments(self.offsets[pages], self.counts[pages])

    @property
    def contiguous(self) -> bool:
        """Whether the segments of every page follow each other without a gap."""
        return bool((self.offsets[:, 1:] == self.offsets[:, :-1] + self.counts[:, :-1]).all())


class _SourceFile(io.RawIOBase):
    """A `Source` as the seekable file that tifffile reads."""

    def __init__(self, source: Source):
        self._source = source
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._source.size}[whence]
        self._place = max(start + offset, 0)
        return self._place

    def readinto(self, buffer: Any) -> int:
        data = self._source.read_at(self._place, len(buffer))
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)


def tifffile_module() -> Any:
    """tifffile, or an error that names the extra."""
    try:
        import imagecodecs  # noqa: F401
        import tifffile
    except ImportError as error:
        raise MissingExtraError(
            f"TIFF and EER files are read with tifffile and imagecodecs ({error}): pip install 'mrczdask[em]'"
        ) from None
    return tifffile


@contextmanager
def open_tiff_file(url: str, storage_options: Mapping[str, Any] | None = None) -> Iterator[tuple[Any, Source]]:
    """Give a `tifffile.TiffFile` and the source it reads; whatever goes wrong in tifffile names the file."""
    tifffile = tifffile_module()
    with open_source(url, storage_options) as source:
        buffer = REMOTE_BUFFER if source.concurrent else LOCAL_BUFFER
        with faults(url), io.BufferedReader(_SourceFile(source), buffer) as file:
            try:
                opened = tifffile.TiffFile(file)
            except Exception:
                head = source.read_at(0, _HEAD)
                kind = None if is_tiff(head) else kind_of(head)
                if kind is not None:
                    raise MrcFormatError(f"no TIFF file: this is {kind}", byte=0) from None
                raise
            with opened as tif:
                yield tif, source


@contextmanager
def faults(url: str, what: str = "", frame: int | None = None, byte: int | None = None) -> Iterator[None]:
    """Turn any error of tifffile and its codecs into one that names the file and the place."""
    try:
        yield
    except MrcFormatError as error:
        raise error.at(url) from None
    except (MrczdaskError, OSError):
        raise
    except Exception as error:  # TiffFileError, struct.error, KeyError, codec errors: as the fault has it
        said = f"{type(error).__name__}: {error}".replace("\n", " ")
        raise MrcFormatError(
            f"{what or 'the TIFF directory'} cannot be read ({said}): the file is corrupt or truncated",
            url=url,
            frame=frame,
            byte=byte,
        ) from None


def all_pages(tif: Any) -> list[Any]:
    """Every page of the file; an error where the chain of directories breaks off."""
    pages = list(tif.pages)
    if not pages:
        raise MrcFormatError("the file has no page: it is truncated or no TIFF")
    _check_last(pages[-1], tif)
    return pages


def find_segments(pages: Sequence[Any], size: int) -> Segments:
    """Strips or tiles of pages that are all alike and wholly in a file of `size` bytes."""
    first = _layout(pages[0])
    for k, page in enumerate(pages):
        if _layout(page) != first:
            raise MrcFormatError(
                f"page {page.index} is {_words(page)}, page {pages[0].index} is {_words(pages[0])}: "
                "the pages of a movie are alike",
                frame=k,
            )
    lengths = {(len(page.dataoffsets), len(page.databytecounts)) for page in pages}
    if len(lengths) != 1 or len(set(lengths.pop())) != 1:
        raise MrcFormatError("the pages do not have the same number of strips, or not all their lengths: corrupt")
    segments = Segments(
        np.array([page.dataoffsets for page in pages], np.int64),
        np.array([page.databytecounts for page in pages], np.int64),
    )
    check_segments(segments, size, _frame_bytes(pages[0]), [page.index for page in pages])
    return segments


def _frame_bytes(page: Any) -> int:
    """Bytes of a decoded page, or of one tile of it where that is more."""
    pixels = max(page.imagelength * page.imagewidth, page.tilelength * page.tilewidth)
    return int(pixels) * max(int(np.max(page.bitspersample)) // 8, 1)


def check_segments(segments: Segments, size: int, frame_bytes: int, numbers: Sequence[int]) -> None:
    """Every segment has bytes and ends inside the file, and no page claims more pixels than they can hold."""
    ends = segments.offsets + segments.counts
    bad = (segments.counts <= 0) | (segments.offsets <= 0) | (ends > size)
    if bad.any():
        page, segment = (int(k) for k in np.argwhere(bad)[0])
        offset, count = int(segments.offsets[page, segment]), int(segments.counts[page, segment])
        raise MrcFormatError(
            f"page {numbers[page]}: strip {segment} says {count} bytes, the file has {max(size - offset, 0)} there: "
            "the file is truncated",
            frame=page,
            byte=offset,
        )
    held = segments.counts.sum(axis=1)
    if not len(held) or frame_bytes > MAX_RATIO * int(held.min()) + SLACK_BYTES:
        raise MrcFormatError(f"a page of {frame_bytes} bytes cannot be in {int(held.min())}: the header is corrupt")


def _layout(page: Any) -> tuple[Any, ...]:
    """What the pages of a movie have in common: the first one decodes them all."""
    names = (
        "imagewidth",
        "imagelength",
        "imagedepth",
        "samplesperpixel",
        "bitspersample",
        "sampleformat",
        "compression",
        "predictor",
        "fillorder",
        "rowsperstrip",
        "tilewidth",
        "tilelength",
    )
    return tuple(getattr(page, name) for name in names)


def _words(page: Any) -> str:
    return f"{page.imagelength} x {page.imagewidth} {page.dtype}, compression {int(page.compression)}"


def _check_last(page: Any, tif: Any) -> None:
    """tifffile stops at a pointer to a page that is not there: the movie would only be shorter."""
    file, form = tif.filehandle, tif.tiff
    file.seek(page.offset)
    count = int.from_bytes(file.read(form.tagnosize), _order(tif))
    file.seek(page.offset + form.tagnosize + count * form.tagsize)
    raw = file.read(form.offsetsize)
    following = int.from_bytes(raw, _order(tif))
    if following or len(raw) < form.offsetsize:
        raise MrcFormatError(
            f"the page after page {page.index} should be at byte {following} and cannot be read: the file is truncated",
            frame=page.index + 1,
            byte=following,
        )


def _order(tif: Any) -> Any:
    return "little" if tif.byteorder == "<" else "big"


def read_batches(
    source: Source, segments: Segments, pages: Sequence[int], wanted: Sequence[int]
) -> Iterator[tuple[int, list[bytes]]]:
    """(place in `pages`, the wanted segments of that page), with neighbours fetched as one range."""
    order = sorted(range(len(pages)), key=lambda place: int(segments.offsets[pages[place], 0]))
    batch: list[int] = []
    held = 0
    for place in order:
        size = int(segments.counts[pages[place], list(wanted)].sum())
        if batch and (not source.concurrent or held + size > MANY_BYTES):
            yield from _fetch(source, segments, pages, wanted, batch)
            batch, held = [], 0
        batch.append(place)
        held += size
    if batch:
        yield from _fetch(source, segments, pages, wanted, batch)


def _fetch(
    source: Source, segments: Segments, pages: Sequence[int], wanted: Sequence[int], batch: Sequence[int]
) -> Iterator[tuple[int, list[bytes]]]:
    ranges: list[tuple[int, int]] = []
    inside: list[list[tuple[int, int, int]]] = []
    for place in batch:
        parts: list[tuple[int, int, int]] = []
        for segment in wanted:
            offset, count = int(segments.offsets[pages[place], segment]), int(segments.counts[pages[place], segment])
            if parts and sum(ranges[-1]) == offset:
                ranges[-1] = (ranges[-1][0], ranges[-1][1] + count)
            else:
                ranges.append((offset, count))
            parts.append((len(ranges) - 1, offset - ranges[-1][0], count))
        inside.append(parts)
    data = source.read_ranges(ranges)
    for (offset, size), part in zip(ranges, data, strict=True):
        if len(part) < size:
            raise MrcFormatError(
                f"{size} bytes were here when the file was opened, {len(part)} are left: "
                "the file has changed, open it again",
                byte=offset,
            )
    for place, parts in zip(batch, inside, strict=True):
        yield place, [data[k][start : start + count] for k, start, count in parts]
