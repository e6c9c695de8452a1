"""NSYMBT that is of another file, and signed bytes of IMOD: pixels are never shifted, in place or in value."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mrczdask as md
from mrczdask.errors import AmbiguousFileWarning, MrcFormatError, MrczdaskWarning
from tests.mrc_bytes import blosc1, counts, header_bytes, mrc_bytes

# mrcfile 1.5 sets the dtype of an array, which numpy 2.5 deprecates
pytestmark = pytest.mark.filterwarnings("ignore:Setting the dtype:DeprecationWarning")

FRAMES = counts((5, 24, 32), "i2")
NOTED = pytest.warns(MrczdaskWarning, match="NSYMBT says")


def stale(nsymbt: int, frames: np.ndarray = FRAMES, keep: int | None = None, **header: Any) -> bytes:
    """A file whose NSYMBT counts bytes that are not there; of its pixels the first `keep` bytes."""
    raw = bytearray(mrc_bytes(frames, 1, **header))
    raw[92:96] = nsymbt.to_bytes(4, "big" if header.get("order") == ">" else "little", signed=True)
    return bytes(raw) if keep is None else bytes(raw[: 1024 + keep])


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("nsymbt", [768 * 5, 1024, 1, 2**31 - 1, -4])
@pytest.mark.parametrize("exttyp", [b"FEI1", b"json", b"CCP4", b"SERI", b"", b"ABCD"])
def test_the_pixels_follow_the_header(tmp_path: Path, order: str, nsymbt: int, exttyp: bytes) -> None:
    path = tmp_path / "a.mrc"
    path.write_bytes(stale(nsymbt, order=order, exttyp=exttyp))
    with NOTED:
        movie = md.open_movie(path)
    np.testing.assert_array_equal(movie.values, FRAMES)
    report = md.validate(path)
    assert "nsymbt-stale" in report.codes
    assert report.ok
    assert md.frame_index(path).attrs["data_offset"] == 1024


def test_a_file_that_is_still_written(tmp_path: Path) -> None:
    path = tmp_path / "a.mrc"
    path.write_bytes(stale(768 * 5, keep=3 * 24 * 32 * 2))
    with pytest.raises(MrcFormatError, match='truncated="readable"'):
        md.open_movie(path)
    with NOTED:
        movie = md.open_movie(path, truncated="readable")
    np.testing.assert_array_equal(movie.values, FRAMES[:3])


def test_what_cannot_be_decided_is_refused_without_advice_that_shifts_pixels(tmp_path: Path) -> None:
    frame = 24 * 32 * 2
    path = tmp_path / "a.mrc"
    path.write_bytes(stale(2 * frame, keep=3 * frame))  # 3 frames, or 1 behind an extended header
    for truncated in ("error", "readable"):
        with pytest.raises(MrcFormatError, match="a wrong choice shifts the pixels") as error:
            md.open_movie(path, truncated=truncated)
        assert "readable" not in str(error.value)
    assert "nsymbt-unsure" in md.validate(path).codes
    raw = bytearray(path.read_bytes())
    raw[92:96] = bytes(4)  # as the message says
    path.write_bytes(raw)
    np.testing.assert_array_equal(md.open_movie(path, truncated="readable").values, FRAMES[:3])


@pytest.mark.parametrize(("exttyp", "head"), [(b"json", b'{"a": 1}'), (b"FEI1", (768).to_bytes(4, "little"))])
def test_a_true_extended_header_is_believed(tmp_path: Path, exttyp: bytes, head: bytes) -> None:
    """The file is short by just its extended header: what is there begins with one."""
    extended = head.ljust(768, b" ")
    path = tmp_path / "a.mrc"
    path.write_bytes(mrc_bytes(FRAMES, 1, extended=extended, exttyp=exttyp)[:-768])
    with pytest.raises(MrcFormatError, match="truncated"):
        md.open_movie(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MrczdaskWarning)
        movie = md.open_movie(path, truncated="readable")
    np.testing.assert_array_equal(movie.values, FRAMES[:4])


def test_a_chunk_where_the_extended_header_should_be(tmp_path: Path) -> None:
    raw = bytearray(mrc_bytes(FRAMES, 1, chunk=blosc1(), compressor=6, labels=(b"MRCZ0.6.0",)))
    raw[92:96] = (3840).to_bytes(4, "little")
    (tmp_path / "a.mrcz").write_bytes(raw)
    with NOTED:
        movie = md.open_movie(tmp_path / "a.mrcz")
    np.testing.assert_array_equal(movie.values, FRAMES)


@settings(max_examples=120, deadline=None)
@given(
    nsymbt=st.sampled_from([0, 1, 80, 768, 1024, 1536, 3072, 3840]),
    there=st.booleans(),
    cut=st.integers(0, 4000),
    tail=st.sampled_from([0, 0, 1, 80, 1024]),
    mz=st.integers(0, 6),
    ispg=st.sampled_from([0, 1, 401]),
    shape=st.sampled_from([(5, 24, 32), (3, 16, 32), (4, 5, 7)]),
)
def test_no_choice_of_sizes_shifts_a_pixel(
    nsymbt: int, there: bool, cut: int, tail: int, mz: int, ispg: int, shape: tuple[int, int, int]
) -> None:
    """Whatever is given of a file, whole or cut, with an extended header or only the word of one, is where it was."""
    frames = counts(shape, "i2", seed=cut) + np.int16(40)  # no pixel is 0, as the bytes of the extended header are
    header = header_bytes(shape[2], shape[1], shape[0], 1, nsymbt=nsymbt, m=(shape[2], shape[1], mz), ispg=ispg)
    raw = header + bytes(nsymbt if there else 0) + frames.tobytes()
    raw = raw[: max(len(raw) - cut, 1024)] if cut % 3 else raw + bytes(tail)
    if not there and len(raw) >= 1024 + nsymbt + frames.nbytes:
        return  # as long as its header says: no program could tell
    if there and nsymbt and (len(raw) - 1024) % frames[0].nbytes == 0:
        return  # cut to the byte at which it is as long as a file without an extended header: neither could any
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", MrczdaskWarning)
        path = Path(folder) / "a.mrc"
        path.write_bytes(raw)
        for truncated in ("error", "readable"):
            try:
                movie = md.open_movie(path, truncated=truncated).values
            except MrcFormatError as error:
                if "readable" in str(error):
                    assert truncated == "error"
                continue
            if there or nsymbt == 0 or len(raw) == 1024 + frames.nbytes or frames[0].nbytes >= 1024:
                exact = (movie == frames[: len(movie)]).all()
                # a cut file without any word of the truth but its size may be refused, never shifted
                assert exact or (not there and (len(raw) - 1024) % frames[0].nbytes), (len(raw), nsymbt)


# ---- signed bytes of IMOD

COUNTS = np.random.default_rng(2).poisson(1.2, (6, 16, 20)).astype("i2")


def shifted(values: np.ndarray, stats: tuple[float, ...] | None = None, flags: int = 1, **header: Any) -> bytes:
    stored = (values - 128).astype("i1")
    own = (float(stored.min()), float(stored.max()), float(stored.mean()), 1.0)
    return mrc_bytes(stored, 0, imod_flags=flags, stats=own if stats is None else stats, **header)


@pytest.mark.parametrize("order", ["<", ">"])
def test_counts_that_imod_wrote_as_signed_bytes(tmp_path: Path, order: str) -> None:
    path = tmp_path / "a.mrc"
    path.write_bytes(shifted(COUNTS, order=order))
    with pytest.warns(MrczdaskWarning, match="signed bytes of IMOD"):
        movie = md.open_movie(path)
    assert movie.dtype == np.uint8
    np.testing.assert_array_equal(movie.values, COUNTS)
    np.testing.assert_array_equal(movie[1:4, 3:9, 5:7].values, COUNTS[1:4, 3:9, 5:7])
    with mrcfile.open(path, permissive=True) as file:
        np.testing.assert_array_equal(md.open_movie(path, signed=True).values, file.data)
        np.testing.assert_array_equal(md.open_movie(path, signed=False).values, file.data.view("u1"))
    report = md.validate(path)
    assert report.ok
    assert "imod-signed" in report.codes
    assert not {"statistics-wrong", "sign-unknown"} & set(report.codes)


@settings(max_examples=60, deadline=None)
@given(low=st.integers(0, 255), spread=st.integers(0, 80), counted=st.booleans(), seed=st.integers(0, 9))
def test_bytes_are_counts_or_signed_or_warned_of(low: int, spread: int, counted: bool, seed: int) -> None:
    """Of any unsigned bytes that IMOD wrote with any statistics: as IMOD shows them, as they stand, or with a word."""
    values = np.random.default_rng(seed).integers(low, min(low + spread, 255) + 1, (2, 6, 7))
    own = (float(values.min()), float(values.max()), float(values.mean()), 1.0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.mrc"
        path.write_bytes(shifted(values, own if counted else None))
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            found = md.open_movie(path).values
    if found.dtype == np.uint8:
        np.testing.assert_array_equal(found, values)
        assert any("signed bytes of IMOD" in str(one.message) for one in said)
    else:
        np.testing.assert_array_equal(found, values - 128)
        ambiguous = any(issubclass(one.category, AmbiguousFileWarning) for one in said)
        assert ambiguous or values.min() >= 64 or not counted
        if not counted:
            assert values.min() > 0
            assert values.mean() >= 64


def test_signed_pixels_under_a_header_of_imod_stay_signed(tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(-40, 41, (3, 8, 9)).astype("i1")
    stats = (float(pixels.min()), float(pixels.max()), float(pixels.mean()), 1.0)
    (tmp_path / "a.mrc").write_bytes(mrc_bytes(pixels, 0, imod_flags=1, stats=stats))
    np.testing.assert_array_equal(md.open_movie(tmp_path / "a.mrc").values, pixels)


def test_no_reference_of_zarr_to_shifted_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.mrc"
    path.write_bytes(shifted(COUNTS))
    with pytest.raises(MrcFormatError, match="signed bytes of IMOD have no data type in Zarr"):
        md.virtualize([str(path)], str(tmp_path / "a.json"))
