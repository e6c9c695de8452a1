from __future__ import annotations

import bz2
import gzip
import io
import lzma
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numcodecs import zstd

import mrczdask as md
from mrczdask.errors import MrcFormatError
from mrczdask.formats.first_bytes import is_tiff, kind_of
from tests.mrc_bytes import counts, mrc_bytes

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 26215424\n"


def tiff(**options: object) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, np.zeros((40, 40), "u1"), photometric="minisblack", **options)
    return file.getvalue()


KINDS = {
    "Git LFS": POINTER,
    "an HTML page": b"\xef\xbb\xbf\n <!DOCTYPE HTML><html><head><title>Sign in</title>" + b" " * 1200,
    "an XML text": b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>" + b" " * 1200,
    "a TIFF file": tiff(),
    "a BigTIFF file": tiff(bigtiff=True),
    "gzip": gzip.compress(counts((1200,), "u1").tobytes()),
    "bzip2": bz2.compress(counts((9000,), "u1").tobytes()),
    "xz": lzma.compress(counts((9000,), "u1").tobytes()),
    "Zstandard": bytes(zstd.compress(counts((9000,), "u1").tobytes(), 3)),
    "an HDF5 file": b"\x89HDF\r\n\x1a\n" + bytes(2000),
    "a JSON text": b'{"shape": [1, 2], "why": "' + b"x" * 1200 + b'"}',
    "zeros from its first byte on": bytes(2000),
    "a text": b"PixelSpacing = 1.5\n" * 100,
}


@pytest.mark.parametrize("what", list(KINDS))
def test_a_file_under_the_name_of_an_mrc_is_named_by_its_first_bytes(tmp_path: Path, what: str) -> None:
    assert what in str(kind_of(KINDS[what]))
    path = tmp_path / "movie.mrc"
    path.write_bytes(KINDS[what])
    with pytest.raises(MrcFormatError, match=what):
        md.open_movie(path)
    report = md.validate(path)
    assert (report.codes, report.ok) == (("not-mrc",), False)
    assert what in report.findings[0].text


def test_an_empty_file_and_bytes_that_tell_nothing() -> None:
    assert str(kind_of(b"")).startswith("empty")
    assert kind_of(np.random.default_rng(0).integers(0, 256, 2000).astype("u1").tobytes()) is None
    assert kind_of(mrc_bytes(counts((1, 8, 8), "i2"), 1)) is None
    assert is_tiff(tiff(byteorder=">"))
    assert not is_tiff(b"II")


@pytest.mark.parametrize("name", ["movie.tif", "movie.eer"])
@pytest.mark.parametrize("what", ["Git LFS", "an HTML page"])
def test_under_the_names_of_other_formats_too(tmp_path: Path, name: str, what: str) -> None:
    (tmp_path / name).write_bytes(KINDS[what])
    with pytest.raises(MrcFormatError, match=what):
        md.open_movie(tmp_path / name)
    assert md.validate(tmp_path / name).codes == ("not-opened",)
