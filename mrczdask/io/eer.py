"""EER movies (electron event representation, Falcon 4): each camera frame is a run-length list of electrons.

The container is a BigTIFF whose pages are the camera frames, about 250 a second. Frames are decoded by imagecodecs;
summing them to fractions and the choice of the grid are made here, at reading.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from mrczdask import schema
from mrczdask.errors import MrcFormatError
from mrczdask.formats.facts import ANGSTROM_PER_M, accumulated_dose, credible, credible_along, parse_time, utc_offset
from mrczdask.io.movie_array import preferred_chunks
from mrczdask.io.reader import MovieFile
from mrczdask.io.sidecar import read_sidecar
from mrczdask.io.source import is_wrapped, open_source
from mrczdask.io.tiff_file import (
    EER_COMPRESSIONS,
    Segments,
    all_pages,
    faults,
    find_segments,
    open_tiff_file,
    read_batches,
)
from mrczdask.io.tiff_writer import UPPER

ACQUISITION_TAG: Final = 65001
FRAME_TAG: Final = 65002
BIT_TAGS: Final = (65007, 65008, 65009)
BITS: Final = {65000: (8, 2, 2), 65001: (7, 2, 2), 65002: (7, 2, 2)}
"""Bits of a run, and of the place of the electron inside its pixel along x and y; 65002 may say others in its tags."""
UPSAMPLINGS: Final = (1, 2, 4)
"""Grids on which electrons are rendered: 4096, 8192 and 16384 pixels for a Falcon 4."""
MAX_PLACE_BITS: Final = 2
"""Bits of the place inside a pixel, along a side, up to which imagecodecs decodes as the format description says."""

Items = Mapping[str, tuple[str, str]]


@dataclass(frozen=True)
class EerReader:
    """Reads fractions of one EER file; see `FrameReader`. A fraction is the sum of `group` camera frames."""

    url: str
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    segments: Segments = field(repr=False)
    bits: tuple[int, int, int] = (7, 2, 2)
    upsampling: int = 1
    group: int = 1
    storage_options: Mapping[str, Any] | None = field(default=None, repr=False)
    stamp: str = field(default="", repr=False)

    def read_into(self, out: NDArray[Any], frames: Sequence[int], rows: slice, cols: slice) -> None:
        """Fill `out` with rows and columns of the fractions; a camera frame is always decoded whole."""
        strips = range(self.segments.offsets.shape[1])
        straight = self.group == 1 and out.dtype == np.uint8 and out.shape[1:] == self.shape[1:]
        straight = straight and out[:1].flags.c_contiguous
        whole = None if straight else np.empty(self.shape[1:], np.uint8)
        with faults(self.url), open_source(self.url, self.storage_options) as source:
            out[...] = 0
            for place, fraction in enumerate(frames):
                raw = range(fraction * self.group, (fraction + 1) * self.group)
                for k, parts in read_batches(source, self.segments, raw, strips):
                    if whole is None:
                        self._decode(b"".join(parts), out[place], raw[k])
                    else:
                        whole[...] = 0
                        self._decode(b"".join(parts), whole, raw[k])
                        out[place] += whole[rows, cols]

    def _decode(self, data: bytes, zeros: NDArray[Any], frame: int) -> None:
        import imagecodecs

        # the decoder takes an even number of bytes only; a run of ones is no electron
        data += b"\xff" * (len(data) % 2)
        offset = int(self.segments.offsets[frame, 0])
        with faults(self.url, f"camera frame {frame}", frame // self.group, offset):
            superres = self.upsampling.bit_length() - 1
            imagecodecs.eer_decode(data, self.shape[1:], *self.bits, superres=superres, out=zeros.view(np.bool_))


def open_eer(
    url: str,
    *,
    upsampling: int = 1,
    frames_per_fraction: int = 1,
    storage_options: Mapping[str, Any] | None = None,
) -> MovieFile:
    """Open an EER movie without reading a pixel.

    Parameters
    ----------
    url : str
        The file, local or at any url fsspec knows.
    upsampling : {1, 2, 4}
        Grid on which the electrons are rendered: 1 is that of the physical pixels (4096), 2 and 4 use the place of
        the electron inside its pixel.
    frames_per_fraction : int
        Camera frames summed to one frame of the movie. Those that are left over at the end are not read, as in
        RELION.
    storage_options : mapping, optional
        For the fsspec file system.

    Returns
    -------
    MovieFile
        uint8 (uint16 for more than 255 camera frames a fraction), `origin` "upper". Coordinates `time` (s, start of
        the fraction) and `dose` (e/angstrom^2 received at its end) where the file holds exposure time, dose and pixel
        size.

    Raises
    ------
    MrcFormatError
        No EER file, or a truncated one.
    MissingExtraError
        tifffile or imagecodecs is not installed.
    ValueError
        Parameters out of their range.
    """
    if upsampling not in UPSAMPLINGS:
        raise ValueError(f"upsampling={upsampling}: give one of {UPSAMPLINGS}")
    with open_tiff_file(url, storage_options) as (tif, source):
        every = all_pages(tif)
        pages = [page for page in every if int(page.compression) in EER_COMPRESSIONS]
        if not pages:
            raise MrcFormatError("no page holds electron events: this is no EER file")
        n = len(pages) // frames_per_fraction if frames_per_fraction >= 1 else 0
        if n < 1:
            raise ValueError(f"frames_per_fraction={frames_per_fraction}: give 1 to {len(pages)}, the frames in {url}")
        segments = find_segments(pages, source.size)
        ny, nx = int(pages[0].imagelength), int(pages[0].imagewidth)
        stamp = str(source.fingerprint)
        items = _items(every[0].tags.valueof(ACQUISITION_TAG))
        each = [credible(schema.DOSE, _items(page.tags.valueof(FRAME_TAG)).get("dose", ("",))[0]) for page in pages]
        bits = _bits_of(pages)
        _check_upsampling(upsampling, bits)
        notes = _notes(pages[0])
    reader = EerReader(
        url=url,
        shape=(n, ny * upsampling, nx * upsampling),
        dtype=np.dtype(np.uint8 if frames_per_fraction <= np.iinfo(np.uint8).max else np.uint16),
        segments=segments,
        bits=bits,
        upsampling=upsampling,
        group=frames_per_fraction,
        storage_options=storage_options,
        stamp=stamp,
    )
    return _movie(reader, items, each, notes, storage_options)


def _movie(
    reader: EerReader,
    items: Items,
    dose_of_frames: Sequence[float | None],
    notes: tuple[str, ...],
    storage_options: Mapping[str, Any] | None,
) -> MovieFile:
    n_raw = len(reader.segments)
    beside = read_sidecar(reader.url, n_raw, storage_options)
    attrs = {schema.ORIGIN: UPPER} | dict(beside.attrs) | _attrs(items)
    pixel = attrs.get(schema.PIXEL_SIZE)
    along = dict(beside.per_frame) | _along(items, dose_of_frames, pixel)
    if pixel is not None:
        attrs[schema.PIXEL_SIZE] = (np.asarray(pixel) / reader.upsampling).tolist()
    encoding: dict[str, Any] = {
        schema.PREFERRED_CHUNKS: preferred_chunks(reader.shape, wrapped=is_wrapped(reader.url)),
        schema.EER: {"upsampling": reader.upsampling, "frames_per_fraction": reader.group, "camera_frames": n_raw},
    }
    if notes or beside.notes:
        encoding[schema.NOTES] = (*notes, *beside.notes)
    rate = credible(schema.DOSE_RATE, items.get("meanDoseRate", ("",))[0])
    session = {**beside.session, **({schema.DOSE_RATE: rate} if rate else {})}
    said = items.get("timestamp", ("",))[0]
    if (own := parse_time(said)) is not None:  # the zone of another clock is not that of this one
        offset = utc_offset(said)
        session |= {} if offset is None and schema.UTC_OFFSET not in session else {schema.UTC_OFFSET: offset}
    return MovieFile(
        reader,
        coords={name: ((schema.FRAME,), values) for name, values in _grouped(along, reader)},
        attrs=attrs,
        encoding=encoding,
        acquired=beside.acquired if own is None else own,
        session=session,
    )


def _grouped(along: Mapping[str, NDArray[np.float64]], reader: EerReader) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """Of each fraction the dose at its end, and time and tilt of its first camera frame."""
    for name, values in along.items():
        first = reader.group - 1 if name == schema.DOSE else 0
        yield name, values[first :: reader.group][: reader.shape[0]]


def _bits_of(pages: Sequence[Any]) -> tuple[int, int, int]:
    """The bits of an electron, which all frames have in common."""
    first = _bits(pages[0])
    for frame, page in enumerate(pages):
        if _bits(page) != first:
            raise MrcFormatError(
                f"an electron has {_bits(page)} bits, in frame 0 {first}: the header is corrupt", frame=frame
            )
    return first


def _check_upsampling(upsampling: int, bits: tuple[int, int, int]) -> None:
    """Raise where the place of an electron is not known on so fine a grid."""
    _, across, down = bits
    finest = 1 << min(across, down) if max(across, down) <= MAX_PLACE_BITS else 1
    if upsampling > finest:
        raise MrcFormatError(
            f"electrons are placed in their pixels with {across} + {down} bits: upsampling={upsampling} is finer than "
            f"is known or understood, upsampling={finest} reads the file"
        )


def _notes(page: Any) -> tuple[str, ...]:
    """The compression whose bits stand in tags, without them."""
    if int(page.compression) != EER_COMPRESSIONS[-1] or any(tag in page.tags for tag in BIT_TAGS):
        return ()
    skip, across, down = BITS[EER_COMPRESSIONS[-1]]
    return (f"the tags of the bits of an electron are missing: {skip} + {across} + {down} are taken",)


def _bits(page: Any) -> tuple[int, int, int]:
    skip, horizontal, vertical = BITS[int(page.compression)]
    if int(page.compression) != EER_COMPRESSIONS[-1]:
        return skip, horizontal, vertical
    missing = [tag for tag in BIT_TAGS if tag not in page.tags]
    if missing and len(missing) < len(BIT_TAGS):
        listed = ", ".join(map(str, missing))
        raise MrcFormatError(f"page {page.index} lacks the tag {listed} that tells the bits of an electron: corrupt")
    skip, horizontal, vertical = (
        int(page.tags.valueof(tag, default))
        for tag, default in zip(BIT_TAGS, (skip, horizontal, vertical), strict=True)
    )
    if not (1 < skip < 15 and 0 < horizontal < 5 and 0 < vertical < 5):
        raise MrcFormatError(f"an electron has {skip} + {horizontal} + {vertical} bits: the header is corrupt")
    return skip, horizontal, vertical


def _items(raw: Any) -> dict[str, tuple[str, str]]:
    """(value, unit) by name of the XML of a tag; empty where it is none."""
    text = raw if isinstance(raw, bytes) else str(raw or "").encode()
    start = text.find(b"<metadata")  # Falcon writes declarations that are no XML
    try:
        root = ElementTree.fromstring(text[start:].strip(b"\x00 \r\n\t")) if start >= 0 else None
    except ElementTree.ParseError:
        return {}
    found = root.iter("item") if root is not None else ()
    return {str(item.get("name")): ((item.text or "").strip(), str(item.get("unit") or "")) for item in found}


def _attrs(items: Items) -> dict[str, Any]:
    attrs: dict[str, Any] = {}
    sides = [items.get(f"sensorPixelSize.{side}", ("", "")) for side in ("width", "height")]
    if all(unit == "m" for _, unit in sides):
        sizes = [credible(schema.PIXEL_SIZE, _scaled(value, ANGSTROM_PER_M)) for value, _ in sides]
        if None not in sizes:
            attrs[schema.PIXEL_SIZE] = sizes[0] if sizes[0] == sizes[1] else sizes
    numbers = {"exposureTime": "exposure_time_s", "totalDose": "total_dose_e_per_pixel"}
    for name, key in numbers.items():
        value = credible(key, items.get(name, ("",))[0])
        if value:
            attrs[key] = value
    for name, key in {"commercialName": "camera", "acquisitionID": "acquisition_id"}.items():
        if items.get(name, ("",))[0]:
            attrs[key] = items[name][0]
    return attrs


def _scaled(value: str, factor: float) -> float | None:
    number = credible("", value)
    return None if number is None else number * factor


def _along(items: Items, dose_of_frames: Sequence[float | None], pixel: Any) -> dict[str, NDArray[np.float64]]:
    """`time` and `dose` of the camera frames. The number of frames in the XML is not used: old EPU wrote 1/7 of it."""
    n = len(dose_of_frames)
    along: dict[str, NDArray[np.float64]] = {}
    exposure = credible(schema.TIME, items.get("exposureTime", ("",))[0])
    if exposure:
        along[schema.TIME] = np.linspace(0.0, exposure, n, endpoint=False)
    total = credible(schema.DOSE, items.get("totalDose", ("",))[0])
    known = [dose for dose in dose_of_frames if dose is not None]
    each = np.array(known) if len(known) == n else np.full(n, (total or 0.0) / n)
    area = None if pixel is None else float(np.prod(np.broadcast_to(pixel, 2)))
    dose = None if area is None else accumulated_dose(each / area)
    if dose is not None and credible_along(schema.DOSE, dose) is not None:
        along[schema.DOSE] = dose
    return along
