"""Files without rules of their own, TIFF, EER, HDF5, Merlin and others: opened, and every frame read."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import xarray as xr
from dask.delayed import delayed

from mrczdask import schema
from mrczdask.errors import MrcFormatError, MrczdaskError
from mrczdask.execution.progress import Progress, track
from mrczdask.execution.regions import run_regions
from mrczdask.formats.faults import Finding, find
from mrczdask.formats.first_bytes import is_tiff
from mrczdask.formats.mrc_fields import SUFFIXES
from mrczdask.io.movie import EER_SUFFIXES, GAIN_SUFFIX, TIFF_SUFFIXES, open_file
from mrczdask.io.movie_array import movie_array
from mrczdask.io.reader import FrameReader
from mrczdask.io.source import is_wrapped, open_source, unwrapped_name

Options = Mapping[str, Any] | None

_REGION_BYTES: Final = 8 << 20
_HEAD: Final = 64
_HDF5: Final = b"\x89HDF\r\n\x1a\n"
_FRAME_SUFFIXES: Final = (".h5", ".hdf5", ".nxs", ".cxi", ".hdf", ".nx", ".emd", ".hspy", ".blo", ".mib")
_FABIO_SUFFIXES: Final = (".cbf", ".edf", ".img", ".mccd", ".mar3450", ".mar2300", ".sfrm", ".npy")


def kind_to_read(url: str, options: Options = None) -> str | None:
    """How a file is read that is no MRC: as a "movie" or as "frames"; None for MRC files, and those like nothing."""
    name = unwrapped_name(url).lower()
    if name.endswith((*TIFF_SUFFIXES, *EER_SUFFIXES, GAIN_SUFFIX)):
        return "movie"
    if name.endswith(SUFFIXES):
        return None
    if name.endswith((*_FRAME_SUFFIXES, *_FABIO_SUFFIXES)):
        return "frames"
    with open_source(url, options) as source:
        head = source.read_at(0, _HEAD)
    return "frames" if head.startswith(_HDF5) or is_tiff(head) else None


def check_frames(
    url: str, kind: str, *, pixels: bool, progress: Progress = None, storage_options: Options = None
) -> tuple[list[Finding], int]:
    """Findings of a file, and how many frames it has: whether it opens, and whether every frame is read."""
    try:
        readers, notes = _opened(url, kind, storage_options)
    except FileNotFoundError:
        raise
    except (MrczdaskError, OSError, ValueError) as error:
        if getattr(error, "gave_up", False):
            raise
        problem = getattr(error, "problem", None) or " ".join(str(error).split())
        place = {"byte": getattr(error, "byte", None), "frame": getattr(error, "frame", None)}
        return [find("not-opened", problem=problem, **place)], 0
    found = [find("noted", note=note) for note in notes]
    if pixels:
        found += _scanned(readers, progress, os.path.basename(url))
    return found, sum(reader.shape[0] for reader in readers)


def _opened(url: str, kind: str, options: Options) -> tuple[list[FrameReader], Sequence[str]]:
    if kind == "movie":
        movie = open_file(url, storage_options=options)
        return [movie.reader], movie.encoding.get(schema.NOTES, ())
    images = _frames(url, options)
    source = None if images is None else movie_array(images.data)
    return [] if source is None else list(source.readers), ()


def _frames(url: str, options: Options) -> xr.DataArray | None:
    """Diffraction frames; None for a sparse file, whose columns are checked as they are opened."""
    from mrczdask.io.frames import open_frames

    try:
        return open_frames(url, storage_options=options)
    except MrcFormatError:
        if _is_sparse(url, options):
            return None
        raise


def _is_sparse(url: str, options: Options) -> bool:
    from mrczdask.io.sparse import open_sparse

    try:
        open_sparse(url, storage_options=options)
    except (MrczdaskError, OSError, ValueError, KeyError):
        return False
    return True


def _scanned(readers: Sequence[FrameReader], progress: Progress, label: str) -> list[Finding]:
    regions = [(reader, frames) for reader in readers for frames in _regions(reader)]
    scan = delayed(_scan, pure=False, traverse=False)
    found: list[Finding] = []
    bad = frames = 0
    with track(progress, len(regions), label) as advance:
        for _, (findings, own_bad, own_frames) in run_regions(
            ((k, scan(reader, part)) for k, (reader, part) in enumerate(regions)), on_done=advance
        ):
            found += findings
            bad, frames = bad + own_bad, frames + own_frames
    return found + ([find("not-finite", n=bad, frames=frames)] if bad else [])


def _regions(reader: FrameReader) -> Iterator[range]:
    n = reader.shape[0]
    frame_bytes = int(np.prod(reader.shape[1:])) * reader.dtype.itemsize
    step = n if is_wrapped(reader.url) else max(_REGION_BYTES // max(frame_bytes, 1), 1)
    return (range(start, min(start + step, n)) for start in range(0, n, max(step, 1)))


def _scan(reader: FrameReader, frames: range) -> tuple[list[Finding], int, int]:
    """Faults, pixels that are not finite, and frames with such; frame by frame where some do not unpack."""
    try:
        return [], *_not_finite(reader, frames)
    except MrcFormatError as error:
        if len(frames) == 1:
            return [_fault(error, frames[0])], 0, 0
    parts = [_scan(reader, frames[k : k + 1]) for k in range(len(frames))]
    return [one for part in parts for one in part[0]], sum(part[1] for part in parts), sum(part[2] for part in parts)


def _fault(error: MrcFormatError, frame: int) -> Finding:
    return find("frame-corrupt", frame=frame, byte=error.byte, problem=error.problem)


def _not_finite(reader: FrameReader, frames: range) -> tuple[int, int]:
    out = np.empty((len(frames), *reader.shape[1:]), reader.dtype)
    reader.read_into(out, frames, slice(0, reader.shape[1]), slice(0, reader.shape[2]))
    if out.dtype.kind not in "fc":
        return 0, 0
    bad = np.count_nonzero(~np.isfinite(out.reshape(len(frames), -1)), axis=1)
    return int(bad.sum()), int(np.count_nonzero(bad))
