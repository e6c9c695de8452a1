"""The frames of a file read one after another, for what `validate` says of its pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from dask.delayed import delayed
from numpy.typing import NDArray

from mrczdask.errors import MrcFormatError
from mrczdask.execution.progress import Progress, track
from mrczdask.execution.regions import run_regions
from mrczdask.formats.faults import Finding, find
from mrczdask.formats.mrc import MrcHeader
from mrczdask.formats.validation import GAP_TAIL
from mrczdask.io.encode import Sums, frame_sums
from mrczdask.io.mrc_reader import MrcReader
from mrczdask.io.source import is_wrapped, open_source

_REGION_BYTES: Final = 8 << 20
"""Pixels of one region: small frames are checked many at a time, large ones singly."""


@dataclass
class PixelScan:
    """What some frames say: statistics, faults, and the bytes at their ends."""

    frames: int = 0
    sums: Sums = field(default_factory=Sums)
    first: Sums = field(default_factory=Sums)
    """Of the first frame, which has several slices in a list of 3-D frames."""
    not_finite: int = 0
    frames_not_finite: int = 0
    findings: list[Finding] = field(default_factory=list)
    head: bytes = b""
    tails: list[bytes] = field(default_factory=list)

    def join(self, other: PixelScan) -> None:
        """Take in the frames that follow."""
        self.first.add(other.first)
        self.head = self.head or other.head
        self.frames += other.frames
        self.sums.add(other.sums)
        self.not_finite += other.not_finite
        self.frames_not_finite += other.frames_not_finite
        self.findings += other.findings
        self.tails += other.tails


def scan_pixels(reader: MrcReader, header: MrcHeader, progress: Progress, label: str) -> PixelScan:
    """Scan regions of frames in parallel; a wrapped file in one go, because every opening unpacks it again."""
    n = len(reader.table)
    step = n if is_wrapped(reader.url) else max(_REGION_BYTES // max(header.frame_bytes, 1), 1)
    regions = [range(start, min(start + step, n)) for start in range(0, n, step)]
    scan = delayed(_scan_frames, pure=False)
    total = PixelScan()
    with track(progress, len(regions), label) as advance:
        for _, part in run_regions(
            ((region, scan(reader, region, header.slices)) for region in regions), on_done=advance
        ):
            total.join(part)
    return total


def _scan_frames(reader: MrcReader, frames: Sequence[int], slices: int) -> PixelScan:
    scan = PixelScan()
    waiting = list(frames)
    if not reader.compressed:
        _read_ends(reader, waiting, scan)
    while waiting:  # again behind each frame that does not unpack
        try:
            for pixels in reader.iter_frames(waiting):
                _take(scan, pixels, is_first=waiting[0] < slices)
                waiting = waiting[1:]
        except MrcFormatError as error:
            scan.findings.append(find("frame-corrupt", frame=error.frame, byte=error.byte, problem=error.problem))
            waiting = waiting[1:]
    return scan


def _take(scan: PixelScan, pixels: NDArray[Any], *, is_first: bool) -> None:
    sums = frame_sums(pixels)
    if is_first:
        scan.first.add(sums)
    if pixels.dtype.kind in "fc":
        bad = pixels.size - int(np.count_nonzero(np.isfinite(pixels)))
        scan.not_finite += bad
        scan.frames_not_finite += bool(bad)
    scan.frames += 1
    scan.sums.add(sums)


def _read_ends(reader: MrcReader, frames: Sequence[int], scan: PixelScan) -> None:
    """The last bytes of each frame of a plain file, and the first of the pixels: an append can have spoiled them."""
    with open_source(reader.url, reader.storage_options, size=reader.table.end) as source:
        if frames[0] == 0:
            scan.head = source.read_at(int(reader.table.offsets[0]), GAP_TAIL)
        for frame in frames:
            length = int(reader.table.lengths[frame])
            size = min(GAP_TAIL, length)
            scan.tails.append(source.read_at(int(reader.table.offsets[frame]) + length - size, size))
