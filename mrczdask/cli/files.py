"""Commands about files: info, validate, convert, index."""

from __future__ import annotations

import os
import sys
import warnings
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from mrczdask import schema
from mrczdask.cli import FAILED, OK
from mrczdask.cli.options import AsJson, FramesPerFraction, Quiet, Scheduler, Upsampling, eer_options
from mrczdask.cli.output import megabytes, print_json, print_table
from mrczdask.errors import MrczdaskWarning
from mrczdask.io.source import is_remote


def info(*files: str, as_json: AsJson = False) -> int:
    """Show shape, dtype, header and compression of movies, without reading a pixel.

    Parameters
    ----------
    files
        Files or patterns.
    """
    from mrczdask.errors import MrcFormatError
    from mrczdask.io.session import expand_urls

    described, failed = [], OK
    for url in expand_urls(files):
        try:
            described.append(_describe(url))
        except FileNotFoundError:
            print(f"{url}: there is no such file", file=sys.stderr)
            failed = FAILED
        except (MrcFormatError, OSError) as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            failed = FAILED
    if as_json:
        print_json(described)
    else:
        for one in described:
            print_table((one.pop("file"), ""), one.items())
    return failed


def _describe(url: str) -> dict[str, Any]:
    from mrczdask.io.convert import open_any

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MrczdaskWarning)  # the notes are printed below
        movie = open_any(url)
    header = movie.encoding.get(schema.MRC_HEADER)
    about: dict[str, Any] = {"file": url, **{str(dim): size for dim, size in movie.sizes.items()}}
    about |= {"dtype": movie.dtype.name, "pixels": megabytes(movie.nbytes)}
    if not url.rstrip("/").endswith(".zarr") and os.path.exists(url):
        about |= {"file size": megabytes(os.path.getsize(url))}
        about |= {"bits per pixel": round(8 * os.path.getsize(url) / movie.size, 3)}
    if header is not None:
        about |= {"mode": header.mode, "layout": header.layout, "byte order": header.byte_order}
        about |= {"labels": list(header.labels)}
    if header is not None and header.layout == "blosc":
        about |= _chunk(url, header.data_offset)
    attrs = {k: v for k, v in movie.attrs.items() if k not in (schema.PROVENANCE, schema.METADATA)}
    coords = {name: _range(c) for name, c in movie.coords.items() if c.dims == (schema.FRAME,) and name != schema.FRAME}
    notes = movie.encoding.get(schema.NOTES)
    said = {"notes": list(notes)} if notes else {}
    from mrczdask.io.plain_attrs import metadata_of

    return about | attrs | coords | said | ({schema.METADATA: held} if (held := metadata_of(movie.attrs)) else {})


def _chunk(url: str, offset: int) -> dict[str, Any]:
    """Codec, filter and block size of the first chunk, and where the frames were found."""
    from mrczdask.formats.blosc_frame import HEADER_BYTES, parse_chunk_header
    from mrczdask.io.index import frame_index
    from mrczdask.io.source import open_source

    with open_source(url) as source:
        chunk = parse_chunk_header(source.read_at(offset, HEADER_BYTES))
    return {
        "codec": chunk.codec,
        "filter": chunk.filter,
        "block": megabytes(chunk.blocksize),
        "Blosc version": 2 if chunk.version == 5 else 1,
        "index": frame_index(url).attrs["source"],
    }


def _range(coord: Any) -> str:
    values = coord.values
    return f"{values[0]} .. {values[-1]} {coord.attrs.get('units', '')}".rstrip()


def validate(*files: str, as_json: AsJson = False, headers_only: bool = False, quiet: Quiet = False) -> int:
    """Check files for every known fault of their writers, archives for lost shards; exit status 1 on an error.

    Parameters
    ----------
    files
        Files or patterns.
    headers_only
        Do not unpack the pixels.
    """
    from mrczdask.io.session import expand_urls
    from mrczdask.io.validate import validate as validate_file

    reports = [validate_file(url, pixels=not headers_only, progress=_bar(quiet)) for url in expand_urls(files)]
    if as_json:
        print_json([report.to_dict() for report in reports])
    else:
        for report in reports:
            print(report)
    return OK if all(report.ok for report in reports) else FAILED


def _bar(quiet: bool) -> Literal[True] | None:
    """A bar for a person only: what is quick for one file leaves no trace in a log."""
    return True if sys.stderr.isatty() and not quiet else None


def convert(
    source: str,
    target: str,
    /,
    *,
    codec: str | None = None,
    level: int = 1,
    mode: int | None = None,
    signed: bool | None = None,
    readable: Annotated[bool, Parameter(negative="")] = False,
    upsampling: Upsampling = 1,
    frames_per_fraction: FramesPerFraction = None,
    resume: Annotated[bool, Parameter(negative="")] = False,
    scheduler: Scheduler = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> int:
    """Convert a movie; the suffixes name the formats: .mrc, .mrcz, .zarr, .tif.

    MRC begins with the lowest row of the picture, TIFF and EER with the highest: between them the rows are turned over,
    so that every program shows the same picture. In Python write_mrcz does the same.

    Parameters
    ----------
    source
        MRC, MRCZ, TIFF, EER or Zarr.
    target
        .mrc (not compressed), .mrcz, .zarr or .tif. An existing file is replaced when the new one is whole.
    codec
        zstd, zlib, lz4, lz4hc, blosclz for .mrcz; auto, zstd, pixel_histogram, b3d, none for .zarr.
    level
        Compression level, 0 to 9.
    mode
        MRC mode of the target; by the dtype where not given.
    signed
        Read mode 0 as int8 (--signed) or uint8 (--no-signed).
    readable
        Take the whole frames of a truncated file.
    resume
        Go on with a .zarr whose writing was interrupted.
    """
    from mrczdask.execution.schedulers import use_scheduler
    from mrczdask.io.convert import convert as convert_movie

    rendered: dict[str, Any] = eer_options([source], upsampling, frames_per_fraction)
    rendered = {} if source.rstrip("/").endswith(".zarr") else rendered
    with use_scheduler(scheduler):
        written = convert_movie(
            source,
            target,
            codec=codec,
            level=level,
            mode=mode,
            resume=resume,
            progress=None if quiet else True,
            signed=signed,
            truncated="readable" if readable else "error",
            **rendered,
        )
    size = disk_size(target)
    about = {"file": target, "shape": list(written.shape), "dtype": written.dtype.name, "bytes": size}
    if as_json:
        print_json(about)
    else:
        shape = " x ".join(map(str, written.shape))
        print(f"{target}: {shape} {written.dtype}, {megabytes(size)}, {8 * size / written.size:.2f} bits/pixel")
    return OK


def disk_size(path: str) -> int:
    """Bytes of a file, or of all files in a folder."""
    if is_remote(path):
        from fsspec.core import url_to_fs

        fs, place = url_to_fs(path)
        return int(fs.du(place))
    if os.path.isfile(path):
        return os.path.getsize(path)
    return sum(os.path.getsize(os.path.join(folder, name)) for folder, _, names in os.walk(path) for name in names)


def virtualize(
    *files: str,
    to: str,
    order: Literal["time", "name", "given"] = "time",
    resume: Annotated[bool, Parameter(negative="")] = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> int:
    """Make one Zarr array (movie, frame, y, x) of MRC, MRCZ or HDF5 files; no pixel is copied.

    Parameters
    ----------
    files
        Files or patterns.
    to
        What to write: .json or .parquet (references of kerchunk), .icechunk.
    order
        Of the movies: time of acquisition, name, or as given.
    resume
        Keep what is known of each file in TO.files until all are indexed, and go on with what is there.
    """
    from mrczdask.io.virtual import virtualize as virtualize_files

    cube = virtualize_files(list(files), to, order=order, resume=resume, progress=_bar(quiet))
    images = cube[schema.IMAGES]
    size = disk_size(to)
    about = {"file": to, "shape": list(images.shape), "dtype": images.dtype.name, "bytes": size}
    if as_json:
        print_json(about | {"pixels_bytes": images.nbytes})
    else:
        shape = " x ".join(map(str, images.shape))
        print(f"{to}: {shape} {images.dtype}, {megabytes(images.nbytes)} of pixels by {megabytes(size)} of references")
    return OK


def index(
    *files: str,
    footer: Annotated[bool, Parameter(negative="")] = False,
    sidecar: Annotated[bool, Parameter(negative="")] = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> int:
    """Add the frame index to MRCZ files: the Zarr v3 shard footer, or a sidecar beside each.

    Parameters
    ----------
    files
        Files or patterns.
    footer
        Write the index behind the last frame, in place (the default): the file is then a valid Zarr v3 shard too.
    sidecar
        Write FILE.index.json and leave the file as it is.
    """
    from mrczdask.execution.progress import track
    from mrczdask.io.index import frame_index, write_index
    from mrczdask.io.session import expand_urls

    if footer and sidecar:
        raise ValueError("--footer and --sidecar exclude each other: choose one")
    urls, done = expand_urls(files), []
    with track(_bar(quiet), len(urls), "index") as advance:
        for url in urls:
            written = write_index(url, sidecar=sidecar)
            done.append({"file": url, "index": written, "frames": frame_index(url).sizes[schema.FRAME]})
            advance()
    if as_json:
        print_json(done)
    else:
        for one in done:
            print(f"{one['index']}: index of {one['frames']} frames")
    return OK
