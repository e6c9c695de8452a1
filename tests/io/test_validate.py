"""Every fault of the table in a file made to have it, real faults made by the very programs, and sound files."""

from __future__ import annotations

import gzip
import json
import tempfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import mrcfile
import mrcz
import numpy as np
import pytest

import mrczdask as md
from mrczdask.errors import MrcFormatError
from mrczdask.formats.faults import FAULTS
from mrczdask.formats.frame_index import pack_footer
from mrczdask.formats.mrcz import FrameTable
from mrczdask.io.index import write_index
from mrczdask.io.validate import ValidationReport
from tests.mrc_bytes import blosc1, blosc2_chunks, counts, header_bytes, mrc_bytes

pytestmark = pytest.mark.filterwarnings(
    "ignore:Setting the dtype on a NumPy array:DeprecationWarning"
)  # mrcfile 1.5 with NumPy >= 2.5

FRAMES = counts((4, 32, 20), "i2")
LABEL = (b"MRCZ0.6.0",)
META: dict[str, Any] = {"extended": b'{"a": 1}', "exttyp": b"json"}
STATS = (FRAMES.min(), FRAMES.max(), FRAMES.mean(), FRAMES.std())
CELL = {"cella": (20.0, 32.0, 4.0)}


def compressed(frames: np.ndarray = FRAMES, mode: int = 1, **options: Any) -> bytes:
    """A sound MRCZ file, but for what `options` change."""
    sound: dict[str, Any] = {"chunk": blosc1(), "compressor": 6, "labels": LABEL, "m": (20, 32, 0)}
    sound |= {"stats": STATS, **CELL, **META}
    return mrc_bytes(frames, mode, **(sound | options))


def plain(frames: np.ndarray = FRAMES, mode: int = 1, **options: Any) -> bytes:
    """A sound MRC file, but for what `options` change."""
    sound: dict[str, Any] = {"labels": LABEL, "m": (20, 32, 0), "stats": STATS, **CELL, **META}
    return mrc_bytes(frames, mode, **(sound | options))


def patched(raw: bytes, place: int, value: int, size: int = 4) -> bytes:
    return raw[:place] + value.to_bytes(size, "little", signed=value < 0) + raw[place + size :]


def chunk_start(raw: bytes, frame: int) -> int:
    position = 1024 + int.from_bytes(raw[92:96], "little")
    for _ in range(frame):
        position += int.from_bytes(raw[position + 12 : position + 16], "little")
    return position


def footer(raw: bytes, frames: int, shift: int = 0) -> bytes:
    starts = np.array([chunk_start(raw, k) + shift for k in range(frames + 1)], np.uint64)
    return pack_footer(FrameTable(starts[:-1], np.diff(starts)))


def lying_chunk(frame: int, place: int, value: int, size: int = 4) -> bytes:
    raw = compressed()
    return patched(raw, chunk_start(raw, frame) + place, value, size)


def after_append(meta_before: Any, meta_after: Any) -> bytes:
    """What python-mrcz makes of a plain file when frames are appended with other metadata."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/a.mrc"
        bright = counts((3, 32, 20), "i2", mean=900)
        mrcz.writeMRC(bright, path, meta=meta_before)
        mrcz.writeMRC(bright[:2], path, meta=meta_after, idx=3)
        return Path(path).read_bytes()


def corrupt_frame(frame: int) -> bytes:
    raw = bytearray(compressed())
    start, end = chunk_start(bytes(raw), frame), chunk_start(bytes(raw), frame + 1)
    raw[start + 30 : end] = bytes(255 - byte for byte in raw[start + 30 : end])
    return bytes(raw)


def dropped(frames: int, **options: Any) -> bytes:
    """As c-mrcz leaves a movie of which only some frames were compressible: no label, no MAP, no EXTTYP."""
    raw = mrc_bytes(FRAMES[:frames], 1, chunk=blosc1(), compressor=6, map_id=b"", stats=STATS, **options)
    return patched(raw, 8, 4)


def stored_and_more(raw: bytes, itemsize: int) -> bytes:
    """A stored chunk that says it is four bytes longer than it can be."""
    chunk = blosc1(level=0)(raw, itemsize) + b"more"
    return patched(chunk, 12, len(chunk))


def quick_statistics() -> tuple[float, ...]:
    """As python-mrcz takes them: of the first frame, with the middle of the range for the mean."""
    low, high = float(FRAMES[0].min()), float(FRAMES[0].max())
    return low, high, (low + high) / 2, 0.0


BYTES = counts((4, 32, 20), "u1")
SIGNED = {"stats": (0, -1, -2, -1), "labels": ()}
CASES: dict[str, Callable[[], bytes]] = {
    "not-mrc": lambda: b"no such thing " * 100,
    "no-map": lambda: compressed(map_id=b""),
    "stamp-odd": lambda: compressed(stamp=b"\x44\x20\x20\x20"),
    "stamp-wrong": lambda: compressed(stamp=b"\x11\x11\x00\x00"),
    "axes": lambda: plain(axes=(1, 1, 3)),
    "axes-permuted": lambda: plain(axes=(3, 1, 2)),
    "ispg": lambda: plain(ispg=400),
    "volume-stack": lambda: plain(ispg=401, m=(20, 32, 3), labels=()),
    "nversion": lambda: plain(nversion=0, labels=()),
    "label-count": lambda: plain(nlabl=16777216),
    "label-not-utf8": lambda: plain(labels=("Größe".encode("latin-1"),)),
    "label-not-ascii": lambda: plain(labels=(*LABEL, "5 Å".encode("latin-1"))),
    "shifted-start": lambda: compressed(labels=(b"MRCZ0.4.1",), m=(0, 20, 32)),
    "mx-my-zero": lambda: compressed(m=(0, 0, 0)),
    "mz-list": lambda: plain(labels=(), m=(20, 32, 4)),
    "mz-loses-frames": lambda: plain(m=(20, 32, 3)),
    "pixel-size-missing": lambda: plain(cella=(0, 0, 0)),
    "pixel-size-micrometre": lambda: plain(cella=(20 * 5e3, 32 * 5e3, 1)),
    "pixel-size-tenfold": lambda: plain(extended=b'{"pixelsize": [1, 1e-3, 1e-3], "pixelunits": "\\\\mum"}'),
    "sign-ambiguous": lambda: plain(BYTES, 0, **SIGNED),
    "sign-unknown": lambda: plain(BYTES + np.uint8(130), 0, **SIGNED),
    "odd-4bit": lambda: plain(counts((2, 32, 19), "u1"), 101),
    "nsymbt": lambda: patched(compressed(), 92, 10**6),
    "nsymbt-stale": lambda: patched(plain(extended=b"", exttyp=b"FEI1"), 92, 768),
    "nsymbt-unsure": lambda: patched(plain(extended=b"", exttyp=b""), 92, 1280)[:-1280],
    "imod-signed": lambda: plain((BYTES - 128).astype("i1"), 0, imod_flags=1, stats=(-128, -110, -126, 1), labels=()),
    "exttyp": lambda: plain(exttyp=b"ABCD"),
    "extended-lost": lambda: compressed(exttyp=b"", extended=bytes(64)),
    "extended-unread": lambda: plain(exttyp=b"SERI", extended=b"\x07" * 40),
    "json-corrupt": lambda: plain(extended=b'{"a": 1'),
    "compressor": lambda: compressed(compressor=14),
    "header-lie": lambda: patched(patched(compressed(), 0, 2**30), 4, 2**30),
    "dropped-frames": lambda: dropped(3),
    "truncated": lambda: compressed()[:-1],
    "not-a-chunk": lambda: lying_chunk(2, 0, 99, 1),
    "chunk-nbytes": lambda: lying_chunk(2, 4, 1281),
    "chunk-cbytes": lambda: lying_chunk(2, 12, 3),
    "memcpy-length": lambda: compressed(chunk=stored_and_more),
    "version-5": lambda: compressed(chunk=blosc2_chunks()),
    "codec-mismatch": lambda: compressed(compressor=5),
    "lz4hc-as-lz4": lambda: compressed(chunk=blosc1("lz4hc"), compressor=2, labels=(b"MRCZ0.5.7",)),
    "packed-bytes": lambda: compressed(packed_bytes=0),
    "frame-corrupt": lambda: corrupt_frame(1),
    "footer-corrupt": lambda: compressed(tail=bytes(16 * 4 + 4)),
    "footer-stale": lambda: compressed(tail=footer(compressed(), 4, shift=1)),
    "append-unfinished": lambda: compressed(tail=blosc1()(FRAMES[0].tobytes(), 2)),
    "trailing-bytes": lambda: compressed(tail=b"anything"),
    "append-json": lambda: after_append({"a": 1}, None),
    "append-json-gap": lambda: after_append({"a": 1}, {"a": "a longer text than before"}),
    "append-json-rest": lambda: after_append({"a": "a longer text than after"}, {"a": 1}),
    "statistics-unset": lambda: plain(stats=(0, -1, -2, -1)),
    "statistics-first-frame": lambda: plain(stats=quick_statistics()),
    "statistics-wrong": lambda: plain(stats=(-3, 17, 5, 0)),
    "not-finite": lambda: plain(np.full((2, 32, 20), np.nan, "f4"), 2),
    "rosettasciio-sign": lambda: plain(counts((2, 32, 20), "i1"), 0),
    "no-json": lambda: compressed(extended=b"", exttyp=b""),
    "big-endian": lambda: compressed(order=">"),
    "compressed-mrc": lambda: compressed(),
}  # fmt: skip
NAMES = {"compressed-mrc": "a.mrc"}


def report_on(folder: Path, raw: bytes, name: str = "a.mrcz", **options: Any) -> ValidationReport:
    (folder / name).write_bytes(raw)
    return md.validate(folder / name, **options)


@pytest.mark.parametrize("code", list(CASES))
def test_each_fault_is_found_and_named(tmp_path: Path, code: str) -> None:
    report = report_on(tmp_path, CASES[code](), NAMES.get(code, "a.mrcz"))
    found = {finding.code: finding for finding in report.findings}
    assert code in found, str(report)
    finding, fault = found[code], FAULTS[code]
    assert (finding.severity, finding.writer) == (fault.severity, fault.writer)
    assert "{" not in finding.text
    assert finding.text in str(report)
    assert report.ok == (not any(FAULTS[other].severity == "error" for other in found))
    document = json.loads(report.to_json())
    assert document["ok"] == report.ok
    assert [entry["code"] for entry in document["findings"]] == list(report.codes)


def test_the_sidecar_too(tmp_path: Path) -> None:
    (tmp_path / "a.mrcz").write_bytes(compressed())
    write_index(tmp_path / "a.mrcz", sidecar=True)
    assert md.validate(tmp_path / "a.mrcz").codes == ()
    report = report_on(tmp_path, compressed() + b"x")
    assert "sidecar-stale" in report.codes
    assert "a.mrcz.index.json is not used: the file has changed since" in str(report)


OF_OTHER_FILES = ("not-opened", "noted")
"""Faults of test_frame_check.py."""
OF_ARCHIVES = ("archive-metadata", "shard-", "shards-absent", "partial-files")
"""Faults of test_archive_check.py."""


def test_no_fault_of_the_table_is_left_out() -> None:
    assert {code for code in FAULTS if not code.startswith(OF_ARCHIVES)} == {*CASES, *OF_OTHER_FILES, "sidecar-stale"}


@pytest.mark.parametrize("pixels", [True, False])
@pytest.mark.parametrize("make", [plain, compressed])
def test_a_sound_file_has_no_finding(tmp_path: Path, make: Callable[[], bytes], pixels: bool) -> None:
    report = report_on(tmp_path, make(), pixels=pixels)
    assert report.findings == ()
    assert report.ok
    assert (report.n_frames, report.pixels) == (4, pixels)
    said = "pixels" if pixels else "headers"
    assert str(report) == f"{tmp_path}/a.mrcz: nothing found ({said} of 4 frames read)"


@pytest.mark.parametrize("codec", [None, "zstd", "lz4hc"])
@pytest.mark.parametrize("dtype", ["u1", "i2", "f4", "c8"])
def test_files_written_here_are_sound(tmp_path: Path, codec: Any, dtype: str) -> None:
    md.write_mrcz(counts((4, 32, 20), dtype), tmp_path / "a.mrcz", codec=codec)
    report = md.validate(tmp_path / "a.mrcz")
    assert report.ok
    assert set(report.codes) <= {"pixel-size-missing"} | ({"statistics-unset"} if dtype == "c8" else set())


WRITERS = {
    "py031": {"shifted-start", "lz4hc-as-lz4", "statistics-first-frame", "odd-4bit", "no-json"},
    "py057": {"mx-my-zero", "lz4hc-as-lz4", "statistics-first-frame", "no-json"},
    "py060": {"mx-my-zero", "statistics-first-frame", "version-5", "big-endian", "no-json"},
}


def test_golden_files_have_just_the_faults_of_their_writers(golden: Path) -> None:
    seen: dict[str, set[str]] = {writer: set() for writer in WRITERS}
    for path in sorted(golden.glob("*.mrc*")):
        report = md.validate(path)
        assert report.ok, str(report)
        writer = path.name[:5]
        assert set(report.codes) <= WRITERS[writer], str(report)
        seen[writer] |= set(report.codes)
    assert {"shifted-start", "lz4hc-as-lz4", "statistics-first-frame"} <= seen["py031"]
    assert {"mx-my-zero", "lz4hc-as-lz4"} <= seen["py057"]
    assert {"version-5", "big-endian"} <= seen["py060"]


@pytest.mark.parametrize("before", [None, {"a": 1}, {"a": "a text"}])
@pytest.mark.parametrize("after", [None, {"a": 1}, {"a": "a text"}])
def test_append_of_python_mrcz(tmp_path: Path, before: Any, after: Any) -> None:
    """Appends that keep the pixels are not blamed, those that spoil them are found."""
    raw = after_append(before, after)
    report = report_on(tmp_path, raw, "a.mrc")
    blamed = {code for code in report.codes if code.startswith("append-json")}
    bright = counts((3, 32, 20), "i2", mean=900)
    try:
        spoiled = not np.array_equal(md.open_movie(tmp_path / "a.mrc").values, np.concatenate([bright, bright[:2]]))
    except MrcFormatError:
        spoiled = True
    assert bool(blamed) == spoiled


def test_micrometres_of_python_mrcz(tmp_path: Path) -> None:
    """The reader divides by ten once too often, and an append writes what it read."""
    path = str(tmp_path / "a.mrc")
    meta = {"pixelsize": [1.0, 0.5, 0.5], "pixelunits": "\\mum"}
    mrcz.writeMRC(FRAMES, path, pixelsize=[1.0, 0.5, 0.5], pixelunits="\\mum", meta=meta)
    assert md.open_movie(path).attrs["pixel_size_angstrom"] == 5000.0
    assert "pixel-size-micrometre" in md.validate(path).codes
    np.testing.assert_allclose(mrcz.readMRC(path, pixelunits="\\mum")[1]["pixelsize"][1:], 0.05)
    mrcz.writeMRC(FRAMES[:1], path, idx=4, pixelunits="\\mum", meta=meta)
    assert "pixel-size-tenfold" in md.validate(path).codes


@pytest.mark.parametrize("label", [b"MRCZ0.6.0", b""])
@pytest.mark.parametrize("mz", [0, 1, 2, 3, 4, 9])
def test_what_python_mrcz_makes_of_mz(tmp_path: Path, mz: int, label: bytes) -> None:
    raw = plain(m=(20, 32, mz), labels=(label,) if label else (), extended=b"", exttyp=b"")
    report = report_on(tmp_path, raw, "a.mrc")
    theirs, _ = mrcz.readMRC(str(tmp_path / "a.mrc"))
    n = sum(1 if np.ndim(part) == 2 else len(part) for part in theirs)
    assert ("mz-loses-frames" in report.codes) == (n < 4)
    assert ("mz-list" in report.codes) == (isinstance(theirs, list) and n == 4 and not label)
    for finding in report.findings:
        if finding.code == "mz-loses-frames":
            assert f"the last {4 - n} frames" in finding.text


def test_labels_that_stop_python_mrcz(tmp_path: Path) -> None:
    report = report_on(tmp_path, CASES["label-not-utf8"](), "a.mrc")
    assert "label-not-utf8" in report.codes
    with pytest.raises(UnicodeDecodeError):
        mrcz.readMRC(str(tmp_path / "a.mrc"))
    report_on(tmp_path, CASES["label-not-ascii"](), "b.mrc")
    mrcz.readMRC(str(tmp_path / "b.mrc"))


@pytest.mark.parametrize("found", [0, 1, 3])
def test_frames_that_c_mrcz_did_not_write(tmp_path: Path, found: int) -> None:
    report = report_on(tmp_path, dropped(found))
    assert not report.ok
    finding = next(finding for finding in report.findings if finding.code == "dropped-frames")
    assert finding.writer == "c-mrcz"
    assert f"4 frames, {found} are there" in finding.text
    assert report.n_frames == found
    empty = patched(dropped(0, extended=bytes(99))[:1024], 92, 99)  # the seek behind NSYMBT writes nothing
    assert "dropped-frames" in report_on(tmp_path, empty).codes


@pytest.mark.parametrize("make", [plain, compressed])
def test_truncated_files_at_any_byte(tmp_path: Path, make: Callable[[], bytes]) -> None:
    raw = make()
    for size in range(0, len(raw), 211):
        report = report_on(tmp_path, raw[:size])
        assert not report.ok
        assert {"truncated", "not-mrc", "nsymbt"} & set(report.codes), str(report)
        if size > 1100:
            lost = next(finding for finding in report.findings if finding.code == "truncated")
            assert (lost.frame, report.n_frames) == (report.n_frames, lost.frame)


def test_every_corrupt_frame_is_listed(tmp_path: Path) -> None:
    raw = bytearray(compressed())
    for frame in (0, 2):
        start, end = chunk_start(bytes(raw), frame), chunk_start(bytes(raw), frame + 1)
        raw[start + 30 : end] = bytes(255 - byte for byte in raw[start + 30 : end])
    report = report_on(tmp_path, bytes(raw))
    corrupt = [finding for finding in report.findings if finding.code == "frame-corrupt"]
    assert [finding.frame for finding in corrupt] == [0, 2]
    assert [finding.byte for finding in corrupt] == [chunk_start(bytes(raw), 0), chunk_start(bytes(raw), 2)]
    assert "statistics-wrong" not in report.codes  # they are not known of a movie with lost frames
    assert report_on(tmp_path, bytes(raw), pixels=False).ok


def test_headers_alone_read_no_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mrczdask.io.pixel_scan.run_regions", None)
    (tmp_path / "a.mrcz").write_bytes(compressed(chunk=blosc2_chunks(), packed_bytes=0))
    assert set(md.validate(tmp_path / "a.mrcz", pixels=False).codes) == {"version-5", "packed-bytes"}


@pytest.mark.parametrize("place", ["gz", "memory"])
def test_wrapped_and_remote_files(tmp_path: Path, place: str) -> None:
    raw = compressed(packed_bytes=0)
    if place == "gz":
        url = str(tmp_path / "a.mrcz.gz")
        Path(url).write_bytes(gzip.compress(raw))
    else:
        url = "memory://validate/a.mrcz"
        fsspec.filesystem("memory").pipe(url, raw)
    assert md.validate(url).codes == ("packed-bytes",)
    if place == "gz":
        Path(url).write_bytes(gzip.compress(raw)[:-40])
        assert not md.validate(url).ok


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        md.validate(tmp_path / "none.mrcz")


def test_memory_does_not_grow_with_the_movie(tmp_path: Path) -> None:
    frame = counts((256, 256), "i2")
    raw = mrc_bytes(np.broadcast_to(frame, (400, 256, 256)), 1)  # 52 MB
    (tmp_path / "a.mrc").write_bytes(raw)
    del raw
    md.validate(tmp_path / "a.mrc", pixels=False)
    tracemalloc.start()
    try:
        report = md.validate(tmp_path / "a.mrc")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert report.n_frames == 400
    assert peak < 12 << 20


def test_progress(tmp_path: Path) -> None:
    (tmp_path / "a.mrcz").write_bytes(compressed())
    said: list[tuple[int, int, str]] = []
    md.validate(tmp_path / "a.mrcz", progress=lambda *args: said.append(args))
    assert said == [(0, 1, "a.mrcz"), (1, 1, "a.mrcz")]


@pytest.mark.real_data
def test_real_files_against_the_validator_of_mrcfile(data_dir: Path) -> None:
    for path in sorted((data_dir / "real" / "mrc").glob("*")):
        if path.suffix in (".mdoc", ".txt"):
            assert not md.validate(path).ok
            continue
        report = md.validate(path)
        assert report.ok, str(report)
        with mrcfile.open(path, permissive=True) as mrc:
            assert report.n_frames == (1 if mrc.data.ndim == 2 else len(mrc.data))


def test_header_bytes_alone(tmp_path: Path) -> None:
    assert "truncated" in report_on(tmp_path, header_bytes(4, 4, 2, 1)).codes
