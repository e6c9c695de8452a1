"""The known faults of MRC and MRCZ files as data: how bad each is, which writer makes it, what to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

Severity = Literal["error", "warning", "note"]

REWRITE: Final = "write it again: write_mrcz(open_movie(file), copy)"
NOTHING: Final = "nothing to do"
_FROM_SOURCE: Final = "write the file again from its source"
_HEADER_ONLY: Final = "the pixels are not touched by it"


@dataclass(frozen=True)
class Fault:
    """One kind of fault. `text` has named gaps for what was found; `writer` is who makes it, or who trips over it."""

    severity: Severity
    text: str
    remedy: str = NOTHING
    writer: str = ""


@dataclass(frozen=True)
class Finding:
    """One fault met in one file.

    Attributes
    ----------
    severity : {"error", "warning", "note"}
        error: pixels are lost, corrupt or cannot be read; warning: a program gets something wrong; note: good to know.
    code : str
        Name of the fault, the same in all versions.
    text : str
        What is wrong.
    writer : str
        The program that makes this fault, or that trips over it, where known.
    remedy : str
        What to do.
    byte, frame : int or None
        Offset in the file, and frame, both from 0.
    """

    severity: Severity
    code: str
    text: str
    writer: str = ""
    remedy: str = ""
    byte: int | None = None
    frame: int | None = None

    def __str__(self) -> str:
        place = [f"frame {self.frame}"] if self.frame is not None else []
        place += [f"byte {self.byte:,}".replace(",", " ")] if self.byte is not None else []
        text = ": ".join(part for part in (" at ".join(place), self.text) if part)
        after = [f"writer: {self.writer}"] if self.writer else []
        after += [f"remedy: {self.remedy}"] if self.remedy and self.remedy != NOTHING else []
        return "\n".join([f"{self.severity}: {self.code}: {text}", *(f"    {line}" for line in after)])


FAULTS: Final[Mapping[str, Fault]] = {
    # the 1024 bytes
    "not-mrc": Fault("error", "{problem}", "check that the file is MRC or MRCZ, and copied in binary mode"),
    "not-opened": Fault("error", "{problem}", "copy the file again, or " + _FROM_SOURCE),
    "noted": Fault("note", "{note}", NOTHING),
    "no-map": Fault(
        "warning",
        "no `MAP ` at byte 208: strict readers (mrcfile without permissive=True) refuse the file",
        REWRITE,
        "c-mrcz, and programs older than MRC2000",
    ),
    "stamp-odd": Fault("note", "the machine stamp is {stamp}, none of 44 44, 44 41 and 11 11", _HEADER_ONLY),
    "stamp-wrong": Fault(
        "warning",
        "the machine stamp {stamp} says the other byte order than MODE and the shape",
        REWRITE,
        "programs that copy a header in one byte order into a file in the other",
    ),
    "axes": Fault("warning", "MAPC, MAPR, MAPS are {axes}, no permutation of 1 2 3: taken as 1 2 3", REWRITE),
    "axes-permuted": Fault(
        "warning",
        "MAPC, MAPR, MAPS are {axes}: columns, rows and sections are not x, y and z, and are not turned here",
        "turn the axes with .transpose() before you compare it with other maps",
    ),
    "ispg": Fault("note", "ISPG is {ispg}: neither a space group nor a stack of images (0) or volumes (401..630)"),
    "volume-stack": Fault(
        "error",
        "ISPG {ispg} says a stack of volumes, but MZ = {mz} does not divide NZ = {nz}",
        "the frames are read as one stack; " + _FROM_SOURCE + " with the right MZ",
    ),
    "nversion": Fault("note", "NVERSION is {nversion}, not 20140 or 20141: the file is older than MRC2014"),
    "label-count": Fault(
        "warning",
        "NLABL is {nlabl}, {filled} of 10 labels hold text",
        REWRITE,
        "python-mrcz before 0.6 in big-endian files (16777216); c-mrcz leaves 0",
    ),
    "label-not-utf8": Fault(
        "warning",
        "the first label is not UTF-8 ({label!r}): python-mrcz <= 0.6 stops with UnicodeDecodeError",
        REWRITE,
        "programs that write labels in Latin-1",
    ),
    "label-not-ascii": Fault("note", "label {number} is not ASCII: {label!r}", NOTHING, "programs that write Latin-1"),
    "shifted-start": Fault(
        "warning",
        "NXSTART..MZ stand 4 bytes too late: MX, MY, MZ are 0, NX, NY = {m}; CELLA / M is not the pixel size",
        REWRITE,
        "python-mrcz <= 0.4.1, compressed files",
    ),
    "mx-my-zero": Fault(
        "note",
        "MX = MY = 0: mrcfile, IMOD and others find no pixel size (here it is CELLA / N)",
        REWRITE,
        "python-mrcz >= 0.5.0",
    ),
    "mz-list": Fault(
        "note",
        "MZ = {mz} and no MRCZ label: python-mrcz takes MZ for slices and returns a list of {n} arrays, not one",
        "read with python-mrcz's slices=0, or " + REWRITE,
        "python-mrcz <= 0.6 on files of other writers",
    ),
    "mz-loses-frames": Fault(
        "warning",
        "MZ = {mz} does not divide NZ = {nz}: python-mrcz silently leaves out the last {lost} frames",
        "read with python-mrcz's slices=0, or " + REWRITE,
        "python-mrcz <= 0.6 as reader",
    ),
    "pixel-size-missing": Fault("note", "no pixel size: CELLA is {cella}, M is {m}", "set it when you write the file"),
    "pixel-size-micrometre": Fault(
        "note",
        "the pixel is {size:g} angstrom: python-mrcz <= 0.6 with pixelunits='\\mum' returns a tenth of it, and writes "
        "a tenth of it when it appends",
        "read it in angstrom",
        "python-mrcz <= 0.6",
    ),
    "pixel-size-tenfold": Fault(
        "warning",
        "the header says {size:g} angstrom a pixel, the JSON {said:g} {unit}: ten times more",
        "trust the JSON: movie.attrs['pixel_size_angstrom'] = ..., then write_mrcz",
        "python-mrcz <= 0.6, append with pixelunits='\\mum'",
    ),
    "sign-ambiguous": Fault(
        "note",
        "mode 0 without a word on its sign: MRC2014 says signed, IMOD unsigned; no pixel is above 127, so both agree",
        NOTHING,
        "programs without IMOD stamp and MRCZ label",
    ),
    "sign-unknown": Fault(
        "warning",
        "mode 0 without a word on its sign: bytes above 127 are negative in MRC2014 and here, 128..255 in IMOD",
        "open_movie(..., signed=False) reads 0..255",
        "programs without IMOD stamp and MRCZ label",
    ),
    "imod-signed": Fault(
        "note",
        "signed bytes of IMOD, which hold the pixel less 128: read as 0..255, mrcfile reads -128..127",
        NOTHING,
        "IMOD",
    ),
    "odd-4bit": Fault(
        "note", "4-bit lines of NX = {nx} pixels end in half a byte: python-mrcz cannot read odd NX", NOTHING
    ),
    # the extended header
    "nsymbt": Fault("error", "{problem}", _FROM_SOURCE),
    "nsymbt-stale": Fault(
        "warning",
        "NSYMBT says {nsymbt} bytes of extended header, the file ends as if it had none: read from byte 1024",
        REWRITE,
        "programs that write the header of another file over their own pixels",
    ),
    "nsymbt-unsure": Fault(
        "error",
        "{problem}",
        "copy the file again; NSYMBT = 0 at byte 92 where it never had an extended header",
    ),
    "exttyp": Fault("note", "the extended header of {nsymbt} bytes is of type {exttyp!r}, which is not known"),
    "extended-lost": Fault(
        "warning",
        "NSYMBT = {nsymbt} bytes of zeros without EXTTYP: the metadata of the source are lost",
        "take the metadata from the source: write_mrcz(movie, copy, metadata=...)",
        "c-mrcz, which keeps NSYMBT and writes neither EXTTYP nor JSON",
    ),
    "extended-unread": Fault("warning", "{note}", "the pixels are not touched by it"),
    "json-corrupt": Fault(
        "warning", "{note}: python-mrcz cannot open the file", "write_mrcz(open_movie(file), copy, metadata=...)"
    ),
    # chunks
    "compressor": Fault(
        "error", "{problem}", "convert the file with python-mrcz >= 0.6", "python-mrcz 0.6 with blosc2"
    ),
    "header-lie": Fault("error", "{problem}", _FROM_SOURCE),
    "dropped-frames": Fault(
        "error",
        "the header says {nz} frames, {found} are there and the file ends with the last of them: frames that Blosc "
        "does not make smaller were not written",
        _FROM_SOURCE + ", with another writer; a frame may be missing anywhere, so the order is not known either",
        "c-mrcz",
    ),
    "truncated": Fault(
        "error",
        "{problem}",
        'open_movie(..., truncated="readable") gives the whole frames; copy the file again',
        "a copy that was cut, or a program that still writes",
    ),
    "not-a-chunk": Fault(
        "error", "{problem}", "the frames before are good: open_movie(..., truncated='readable')", "a damaged file"
    ),
    "chunk-nbytes": Fault("error", "{problem}", "open_movie(..., truncated='readable') gives the frames before it"),
    "chunk-cbytes": Fault("error", "{problem}", "open_movie(..., truncated='readable') gives the frames before it"),
    "memcpy-length": Fault(
        "warning",
        "a stored chunk of {nbytes} bytes says it has {cbytes} with its header: the bytes behind are not pixels",
        REWRITE,
    ),
    "version-5": Fault(
        "warning",
        "{n} of {nz} chunks are of Blosc version 5: python-mrcz < 0.6 and numcodecs cannot read them, c-mrcz decodes "
        "them into wrong pixels without an error",
        REWRITE + ", which writes version 2",
        "python-mrcz 0.6 with backend='blosc2'",
    ),
    "codec-mismatch": Fault(
        "warning", "MODE says {said}, the chunk was packed by {codec}: the chunk is right", REWRITE
    ),
    "lz4hc-as-lz4": Fault(
        "note",
        "MODE says lz4; lz4hc is written as lz4 too: which of the two cannot be told, readers need not know",
        NOTHING,
        "python-mrcz <= 0.5.10",
    ),
    "packed-bytes": Fault(
        "note", "packedBytes is {said}, the chunks have {actual} bytes", NOTHING, "c-mrcz (0); appending programs"
    ),
    "frame-corrupt": Fault("error", "{problem}", "open_movie(file).isel(frame=...) reads the other frames"),
    # behind the last frame
    "footer-corrupt": Fault(
        "warning", "the frame index at the end does not match its checksum and is not used", "mrczdask index FILE"
    ),
    "footer-stale": Fault(
        "warning",
        "the frame index at the end lists {listed} frames and is not used: {why}",
        "mrczdask index FILE",
        "a program that appends to MRCZ without knowing the index",
    ),
    "sidecar-stale": Fault("warning", "{name} is not used: {why}", "mrczdask index FILE --sidecar"),
    "append-unfinished": Fault(
        "note",
        "{trailing} bytes behind the last frame begin with a frame: an append was interrupted, the old movie is whole",
        "append again",
    ),
    "trailing-bytes": Fault("note", "{trailing} bytes behind the last frame belong to no frame", NOTHING),
    # pixels
    "append-json": Fault(
        "error",
        "the file is short by exactly NSYMBT = {nsymbt} bytes: frames were appended that many bytes too early, over "
        "the end of the old ones",
        "the frames before the append are good but for their last {nsymbt} bytes; " + _FROM_SOURCE,
        "python-mrcz 0.6, append (idx=) to a file with JSON metadata",
    ),
    "append-json-gap": Fault(
        "warning",
        "the last {gap} bytes before this frame are zeros and no other frame ends so: the frames before it stand about "
        "as many bytes too late, their first bytes were overwritten by longer metadata",
        _FROM_SOURCE,
        "python-mrcz 0.6, append (idx=) with JSON metadata of another length",
    ),
    "append-json-rest": Fault(
        "warning",
        "the first {length} bytes of the pixels are the end of a JSON text: the frames stand that many bytes too early",
        _FROM_SOURCE,
        "python-mrcz 0.6, append (idx=) with shorter JSON metadata",
    ),
    "statistics-unset": Fault("note", "the statistics are not set", NOTHING),
    "statistics-first-frame": Fault(
        "note",
        "the statistics are those of the first frame only: {said}; of all frames they are {actual}",
        "do not scale images by them",
        "python-mrcz (quickStats)",
    ),
    "statistics-wrong": Fault("warning", "the statistics are {said}, the pixels have {actual}", REWRITE),
    "not-finite": Fault("warning", "{n} pixels of {frames} frames are NaN or infinite", "mask them before you average"),
    # archives
    "archive-metadata": Fault("error", "the metadata of the archive are corrupt: {problem}", _FROM_SOURCE),
    "shard-lost": Fault(
        "error",
        "{n} of {total} shards of {array} were written and are missing: {listed}",
        "write_archive(..., resume=True) writes them again",
    ),
    "shard-unwritten": Fault(
        "error",
        "{n} of {total} shards of {array} are not written: {listed}",
        "write_archive(..., resume=True) goes on",
        "a writer that was interrupted, or still writes",
    ),
    "shard-missing": Fault(
        "error",
        "{n} of {total} shards of {array} are missing, lost or not yet written: {listed}",
        "the verb that wrote the archive (mrczdask correct, process_session), called again, writes them",
    ),
    "shard-half-written": Fault(
        "warning",
        "{n} of {total} shards of {array} are there and not marked as whole: {listed}",
        "write_archive(..., resume=True) writes them again",
        "a writer that was interrupted, or still writes",
    ),
    "shard-corrupt": Fault(
        "error",
        "{array}: the shard {shard}: {problem}",
        "delete the shard; write_archive(..., resume=True) writes it again",
    ),
    "shards-absent": Fault(
        "note", "{n} of {total} shards of {array} are not stored: they read as {fill}", NOTHING, "writers of Zarr"
    ),
    "partial-files": Fault(
        "note", "{n} files of {array} were left by a killed writer", "write_archive(..., resume=True) removes them"
    ),
    # readers that trip over sound files
    "rosettasciio-sign": Fault(
        "note", "negative pixels in mode 0: RosettaSciIO reads them as uint8", NOTHING, "RosettaSciIO as reader"
    ),
    "no-json": Fault(
        "note", "an MRCZ without JSON: RosettaSciIO stops with an error", REWRITE, "RosettaSciIO as reader"
    ),
    "big-endian": Fault(
        "note",
        "big-endian pixels: RosettaSciIO and python-mrcz < 0.6 read them in the wrong byte order",
        REWRITE,
        "python-mrcz 0.6 with endian='be'; microscopes of the 1990s",
    ),
    "compressed-mrc": Fault(
        "note",
        "compressed frames in a file named {suffix}: mrcfile, IMOD and others have no compressed modes",
        "name it .mrcz, or write_mrcz(..., codec=None)",
    ),
}
"""Every fault by its code. The faults of writers were met in their files; those of readers by reading such files."""


def find(code: str, *, byte: int | None = None, frame: int | None = None, **values: Any) -> Finding:
    """A finding of the fault `code`, its text filled with `values`."""
    fault = FAULTS[code]
    text = fault.text.format(**values)
    return Finding(fault.severity, code, text, fault.writer, fault.remedy.format(**values), byte, frame)
