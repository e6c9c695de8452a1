"""Check an MRC or MRCZ file for every known fault of its writers, other files frame by frame, and say what to do."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

import numpy as np

from mrczdask.errors import MrcFormatError
from mrczdask.execution.progress import Progress
from mrczdask.formats.blosc_frame import HEADER_BYTES as CHUNK_BYTES
from mrczdask.formats.blosc_frame import VERSIONS, parse_chunk_header
from mrczdask.formats.extended_header import parse_extended_header
from mrczdask.formats.faults import Finding, find
from mrczdask.formats.frame_index import SIDECAR_SUFFIX
from mrczdask.formats.mrc import MrcHeader
from mrczdask.formats.mrc_fields import BLOSC_CODECS, COMPRESSORS, HEADER_BYTES
from mrczdask.formats.mrcz import FrameTable, check_compressed, raw_table, walk_chunks
from mrczdask.formats.validation import (
    check_append,
    check_chunks,
    check_extended,
    check_header,
    check_statistics,
    check_trailing,
)
from mrczdask.io.frame_check import check_frames, kind_to_read
from mrczdask.io.given_stores import ZIP_SUFFIX
from mrczdask.io.index import read_header, read_sidecar
from mrczdask.io.mrc_file import MAX_EXTENDED_READ
from mrczdask.io.mrc_reader import MrcReader
from mrczdask.io.pixel_scan import scan_pixels
from mrczdask.io.sidecar import read_sidecar as read_beside
from mrczdask.io.source import Source, is_remote, local_path, open_source, unwrapped_name

_BATCH: Final = 1024
_MAX_TRAILING: Final = 64 << 20
"""Bytes behind the last frame that are looked at: the index of four million frames."""
_SEVERITIES: Final = ("error", "warning", "note")


@dataclass(frozen=True)
class ValidationReport:
    """What `validate` found in one file.

    Attributes
    ----------
    url : str
    findings : tuple of Finding
        Worst first, then in the order of the file. Each has `severity` ("error", "warning", "note"), `code`, `text`,
        `writer` (the program that makes the fault, where known), `remedy`, `byte` and `frame`.
    n_frames : int
        Whole frames in the file.
    pixels : bool
        Whether their pixels were read.
    """

    url: str
    findings: tuple[Finding, ...] = field(default_factory=tuple)
    n_frames: int = 0
    pixels: bool = True

    @property
    def ok(self) -> bool:
        """No error: every pixel can be read as the file says."""
        return not any(finding.severity == "error" for finding in self.findings)

    @property
    def codes(self) -> tuple[str, ...]:
        """The codes of the findings."""
        return tuple(finding.code for finding in self.findings)

    def __str__(self) -> str:
        counts = [(sum(f.severity == name for f in self.findings), name) for name in _SEVERITIES]
        said = ", ".join(f"{n} {name}{'s' * (n != 1)}" for n, name in counts if n) or "nothing found"
        looked = "pixels" if self.pixels else "headers"
        frames = f"{self.n_frames} frame{'s' * (self.n_frames != 1)}"
        return "\n".join([f"{self.url}: {said} ({looked} of {frames} read)", *map(str, self.findings)])

    def to_dict(self) -> dict[str, Any]:
        """The report in JSON types."""
        findings = [asdict(finding) for finding in self.findings]
        return {"url": self.url, "ok": self.ok, "n_frames": self.n_frames, "pixels": self.pixels, "findings": findings}

    def to_json(self) -> str:
        """The report as a JSON document."""
        return json.dumps(self.to_dict(), indent=2)


def validate(
    url: str | os.PathLike[str],
    *,
    pixels: bool = True,
    progress: Progress = None,
    storage_options: Mapping[str, Any] | None = None,
) -> ValidationReport:
    """Check an MRC or MRCZ file for the known faults of its writers, or a Zarr archive for lost and damaged shards.

    Of TIFF, EER, HDF5 and other files every frame is read. A damaged file makes findings, not exceptions. Frames are
    read a few at a time, whatever the size of the file.

    Parameters
    ----------
    url : str or path
        A file or a .zarr archive, local or at any url fsspec knows.
    pixels : bool
        Read every frame, and check the checksum of every chunk of an archive: damaged chunks, wrong statistics, values
        that are not finite and traces of appends are found only so. False looks at the headers, of the file and of its
        chunks, or at the indexes of the shards.
    progress : None, True or callable
        True shows a bar; a callable gets (done, total, label).
    storage_options : mapping, optional
        Passed to the fsspec file system.

    Returns
    -------
    ValidationReport
        `ok`, `findings`; printed, it is what a person reads; `to_json()` is for programs.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    StoreError
        An object store failed after bounded retries.

    Examples
    --------
    >>> import os
    >>> import mrczdask as md
    >>> movie = md.simulate.poisson((3, 8, 8), mean=1.0, seed=0)
    >>> _ = md.write_mrcz(movie, "good.mrc", codec=None)
    >>> md.validate("good.mrc").ok
    True
    >>> os.truncate("good.mrc", os.path.getsize("good.mrc") - 1)  # a copy that was cut
    >>> report = md.validate("good.mrc")
    >>> report.findings[0].code, report.findings[0].frame, report.n_frames
    ('truncated', 2, 2)
    """
    name = os.fspath(url)
    if is_archive(name):
        from mrczdask.io.archive_check import check_archive

        found, images = check_archive(name, pixels=pixels, progress=progress, storage_options=storage_options)
        return ValidationReport(name, _ranked(found), images, pixels)
    kind = kind_to_read(name, storage_options)
    if kind is not None:
        others, n_frames = check_frames(name, kind, pixels=pixels, progress=progress, storage_options=storage_options)
        return ValidationReport(name, _ranked(others), n_frames, pixels)
    check = _Check(name, storage_options)
    try:
        with open_source(name, storage_options) as source:
            check.structure(source)
    except MrcFormatError as error:  # a wrapper that does not unpack
        check.add(find("not-mrc", byte=error.byte, problem=error.problem))
    if pixels:
        check.pixels(progress)
    return ValidationReport(name, _ranked(check.findings), len(check.table), pixels)


def is_archive(url: str) -> bool:
    """Whether a url names a Zarr archive."""
    return url.rstrip("/").lower().endswith((".zarr", ZIP_SUFFIX)) or (
        not is_remote(url) and os.path.exists(os.path.join(local_path(url), "zarr.json"))
    )


def _ranked(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    return tuple(sorted(findings, key=lambda finding: _SEVERITIES.index(finding.severity)))


_NO_FRAMES: Final = FrameTable(np.zeros(0, np.uint64), np.zeros(0, np.uint64))


class _Check:
    """The findings so far, and what later checks need: the header and the frames that are whole."""

    def __init__(self, url: str, storage_options: Mapping[str, Any] | None):
        self.url, self._options = url, storage_options
        self.findings: list[Finding] = []
        self.header: MrcHeader | None = None
        self.table = _NO_FRAMES

    def add(self, *findings: Finding) -> None:
        self.findings += findings

    def structure(self, source: Source) -> None:
        """Everything but the pixels."""
        raw = source.read_at(0, HEADER_BYTES)
        try:
            header = self.header = read_header(source)
        except MrcFormatError as error:
            self.add(find("not-mrc", byte=error.byte, problem=error.problem))
            return
        suffix = os.path.splitext(unwrapped_name(self.url))[1].lower()
        self.add(*check_header(raw, header, suffix))
        self.table, faults = _frames(source, header)
        self.add(*faults)
        self.add(*_extended(source, header))
        if not len(self.table):
            return
        if header.compressor:
            self.add(*check_chunks(header, self.table, _chunk_headers(source, self.table)))
            self.add(*_sidecar(source, header, self.url, self._options))
        beside = read_beside(self.url, len(self.table), self._options)
        self.add(*(find("noted", note=note) for note in beside.notes))
        tail = source.read_at(self.table.end, min(source.size - self.table.end, _MAX_TRAILING))
        self.add(*check_trailing(header, self.table, tail, source.size))

    def pixels(self, progress: Progress) -> None:
        """Read every frame that is there."""
        header, table = self.header, self.table
        if header is None or not len(table):
            if header is not None:
                self.add(*check_statistics(header, None, None), *_sign(header, None))
            return
        known = replace(header, signed_known=True)
        reader = MrcReader.of(self.url, known, table, storage_options=self._options)
        scan = scan_pixels(reader, header, progress, os.path.basename(self.url))
        self.add(*scan.findings)
        if scan.not_finite:
            self.add(find("not-finite", n=scan.not_finite, frames=scan.frames_not_finite))
        whole = scan.frames == header.shape[0]
        actual = scan.sums.statistics() if whole else None
        self.add(*check_statistics(header, scan.first.statistics(), actual))
        self.add(*_sign(header, scan.sums.low))
        self.add(*check_append(header, table, scan.head, scan.tails))


def _frames(source: Source, header: MrcHeader) -> tuple[FrameTable, list[Finding]]:
    """The frames that are whole, and why there are not as many as the header says."""
    if not header.compressor:
        return _raw_frames(source, header)
    try:
        check_compressed(header, source.size)
    except MrcFormatError as error:
        return _NO_FRAMES, [_header_lie(error, header, source.size)]
    read, size, speculate = source.read_ranges, source.size, source.concurrent
    try:
        return walk_chunks(header, size, read, speculate=speculate), []
    except MrcFormatError as error:
        table = walk_chunks(header, size, read, speculate=speculate, readable=True)
        return table, [_chunk_fault(error, source, header, table)]


def _raw_frames(source: Source, header: MrcHeader) -> tuple[FrameTable, list[Finding]]:
    try:
        return raw_table(header, source.size), []
    except MrcFormatError as error:
        code = "truncated" if header.nsymbt_sure else "nsymbt-unsure"
        fault = find(code, frame=error.frame, byte=error.byte, problem=error.problem)
    if not header.nsymbt_sure:
        return _NO_FRAMES, [fault]
    missing = header.data_offset + header.shape[0] * header.frame_bytes - source.size
    if missing == header.nsymbt and header.exttyp == "json" and header.mrcz_version is not None:
        fault = find("append-json", byte=source.size, nsymbt=header.nsymbt)
    try:
        return raw_table(header, source.size, readable=True), [fault]
    except MrcFormatError as error:
        return _NO_FRAMES, [find("header-lie", byte=error.byte, problem=error.problem)]


def _header_lie(error: MrcFormatError, header: MrcHeader, size: int) -> Finding:
    if COMPRESSORS[header.compressor] not in BLOSC_CODECS:
        return find("compressor", byte=error.byte, problem=error.problem)
    if size == HEADER_BYTES and not header.has_map:
        return find("dropped-frames", byte=size, nz=header.shape[0], found=0)
    return find("nsymbt" if error.byte == 92 else "header-lie", byte=error.byte, problem=error.problem)


def _chunk_fault(error: MrcFormatError, source: Source, header: MrcHeader, table: FrameTable) -> Finding:
    """Which of the ways in which a chunk can be wrong stopped the walk."""
    place = {"frame": error.frame, "byte": error.byte}
    byte = header.data_offset if error.byte is None else error.byte
    if byte == source.size and not header.has_map:
        return find("dropped-frames", **place, nz=header.shape[0], found=len(table))
    head = source.read_at(byte, CHUNK_BYTES)
    if len(head) < CHUNK_BYTES:
        return find("truncated", **place, problem=error.problem)
    chunk = parse_chunk_header(head)
    if chunk.version not in VERSIONS:
        return find("not-a-chunk", **place, problem=error.problem)
    if chunk.nbytes != header.frame_bytes:
        return find("chunk-nbytes", **place, problem=error.problem)
    if chunk.cbytes < CHUNK_BYTES or chunk.cbytes > 2 * chunk.nbytes + 2 * CHUNK_BYTES:
        return find("chunk-cbytes", **place, problem=error.problem)
    return find("truncated", **place, problem=error.problem)


def _extended(source: Source, header: MrcHeader) -> Iterator[Finding]:
    if not header.nsymbt:
        return
    raw = source.read_at(HEADER_BYTES, min(header.nsymbt, MAX_EXTENDED_READ))
    facts = parse_extended_header(
        header.exttyp, raw, header.byte_order, header.shape[0], nint=header.nint, nreal=header.nreal
    )
    yield from check_extended(header, raw, facts.metadata, facts.notes)


def _chunk_headers(source: Source, table: FrameTable) -> list[Any]:
    heads: list[bytes] = []
    offsets = table.offsets.tolist()
    for start in range(0, len(offsets), _BATCH):
        heads += source.read_ranges([(offset, CHUNK_BYTES) for offset in offsets[start : start + _BATCH]])
    return [parse_chunk_header(head) for head in heads]


def _sidecar(
    source: Source, header: MrcHeader, url: str, storage_options: Mapping[str, Any] | None
) -> Iterator[Finding]:
    _, why = read_sidecar(source, header, url, storage_options)
    if why is not None:
        yield find("sidecar-stale", name=os.path.basename(url) + SIDECAR_SUFFIX, why=why)


def _sign(header: MrcHeader, low: float | None) -> Iterator[Finding]:
    """Faults of the sign of mode 0; `low` is the least pixel as int8 if they were read."""
    if header.mode or header.packed4 or header.shifted or header.stored != np.dtype("i1"):
        return
    if not header.signed_known:
        yield find("sign-ambiguous" if low is not None and low >= 0 else "sign-unknown", byte=12)
    elif header.mrcz_version is not None and low is not None and low < 0:
        yield find("rosettasciio-sign", byte=12)
