"""Frames that lie in a file at equal distances: NanoMEGAS .blo and Merlin .mib."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mrczdask import schema
from mrczdask.errors import MrcFormatError
from mrczdask.formats.blo import FRAME_HEAD, HEAD, parse_blo
from mrczdask.formats.mib import HEAD_GUESS, MibHeader, parse_hdr, parse_mib
from mrczdask.io.frame_set import FrameSet
from mrczdask.io.hdf5_file import Options
from mrczdask.io.source import is_remote, local_path, open_source

LOWER: Final = "lower"


@dataclass(frozen=True)
class StrideReader:
    """Reads frames that begin every `stride` bytes from `first` on; see `FrameReader`."""

    url: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    first: int
    stride: int
    size: int
    layout: MibHeader | None = None
    """How pixels are stored, where they are not just one after another."""
    storage_options: Options = field(default=None, repr=False)
    stamp: str = field(default="", repr=False)

    def read_into(self, out: NDArray[Any], frames: Sequence[int], rows: slice, cols: slice) -> None:
        ranges = [(self.first + frame * self.stride, self.size) for frame in frames]
        end = self.first + self.shape[0] * self.stride
        with open_source(self.url, self.storage_options, size=end) as source:
            parts = source.read_ranges(ranges) if source.concurrent else (source.read_at(*one) for one in ranges)
            for place, data in enumerate(parts):
                if len(data) != self.size:
                    problem = f"{self.size} bytes are wanted, {len(data)} are left: the file is truncated"
                    raise MrcFormatError(problem, url=self.url, frame=int(frames[place]), byte=ranges[place][0])
                whole = np.frombuffer(data, self.dtype).reshape(self.shape[1:]) if self.layout is None else None
                pixels = self.layout.pixels(data) if whole is None and self.layout else whole
                out[place] = pixels[rows, cols]  # type: ignore[index]


def open_blo(url: str, storage_options: Options = None) -> FrameSet:
    """Open a block file: (scan_y, scan_x, ky, kx) uint8."""
    with open_source(url, storage_options) as source:
        header = _at(url, parse_blo, source.read_at(0, HEAD.itemsize))
        size, stamp = source.size, str(source.fingerprint)
    whole = (size - header.first) // header.frame_bytes
    if whole < header.n_frames:
        problem = f"the header says {header.n_frames} patterns, {max(whole, 0)} are there: the file is truncated"
        raise MrcFormatError(problem, url=url)
    shape = (header.n_frames, header.side, header.side)
    pixels = header.side * header.side
    reader = StrideReader(
        url,
        shape,
        np.dtype(np.uint8),
        header.first + FRAME_HEAD,
        header.frame_bytes,
        pixels,
        None,
        storage_options,
        stamp,
    )
    attrs: dict[str, Any] = {schema.VOLTAGE: header.voltage_kv, "camera_length_mm": header.camera_length_mm}
    if header.pixel_size_m:
        attrs["pixel_size_m"] = [header.pixel_size_m] * 2
    coords = {
        name: ((name,), np.arange(n) * step, {"units": "nm"})
        for name, n, step in zip(("scan_y", "scan_x"), header.scan, header.step_nm, strict=True)
    }
    return FrameSet(reader, scan=header.scan, coords=coords, attrs=attrs)  # type: ignore[arg-type]


def open_mib(url: str, storage_options: Options = None) -> FrameSet:
    """Open a Merlin file: (shot, y, x), or a scan where the .hdr file beside it tells its shape."""
    with open_source(url, storage_options) as source:
        header = _at(url, parse_mib, source.read_at(0, HEAD_GUESS))
        size, stamp = source.size, str(source.fingerprint)
    n = size // header.frame_bytes
    if not n or size % header.frame_bytes:
        problem = f"{size} bytes are no whole number of frames of {header.frame_bytes}: the file is truncated"
        raise MrcFormatError(problem, url=url, frame=n, byte=n * header.frame_bytes)
    dtype = header.dtype.newbyteorder("=")
    layout = None if header.dtype == dtype and not header.raw_bits else header
    reader = StrideReader(
        url,
        (n, *header.shape),
        dtype,
        header.head_bytes,
        header.frame_bytes,
        header.pixel_bytes,
        layout,
        storage_options,
        stamp,
    )
    scan = _scan_beside(url)
    told = scan is not None and scan[0] * scan[1] == n
    return FrameSet(reader, scan=scan if told else None, attrs={schema.ORIGIN: LOWER})


def _scan_beside(url: str) -> tuple[int, int] | None:
    beside = os.path.splitext(local_path(url))[0] + ".hdr"
    if is_remote(url) or not os.path.exists(beside):
        return None
    with open(beside, encoding="latin-1") as file:
        return parse_hdr(file.read())


def _at(url: str, parse: Any, head: bytes) -> Any:
    try:
        return parse(head)
    except MrcFormatError as error:
        raise error.at(url) from None
