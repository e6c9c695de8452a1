from __future__ import annotations

from dataclasses import replace

import mrcfile
import mrcz
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mrczdask.errors import MrcFormatError
from mrczdask.formats.mrc import MrcHeader, Statistics, build_header, parse_header
from mrczdask.formats.mrc_fields import COMPRESSORS, MODE_DTYPES
from tests.mrc_bytes import header_bytes

pytestmark = pytest.mark.filterwarnings(
    "ignore:Setting the dtype on a NumPy array:DeprecationWarning"
)  # mrcfile 1.5 with NumPy >= 2.5


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("stamp", [None, b"\x00\x00\x00\x00", b"\x44\x20\x20\x20", b"\xff\x00\x00\x00"])
def test_byte_order_by_stamp_then_by_what_is_plausible(order: str, stamp: bytes | None) -> None:
    header = parse_header(header_bytes(60, 48, 5, 1, order=order, stamp=stamp))
    assert header.byte_order == order
    assert header.shape == (5, 48, 60)
    assert header.stored == np.dtype(order + "i2")


@pytest.mark.parametrize("order", "<>")
def test_wrong_stamp_is_overruled(order: str) -> None:
    lying = b"\x11\x11\x00\x00" if order == "<" else b"\x44\x44\x00\x00"
    assert parse_header(header_bytes(60, 48, 5, 2, order=order, stamp=lying)).byte_order == order


@pytest.mark.parametrize("mode", sorted(MODE_DTYPES))
@pytest.mark.parametrize("compressor", [0, 1, 6])
def test_every_mode(mode: int, compressor: int) -> None:
    header = parse_header(header_bytes(7, 5, 3, mode + 1000 * compressor))
    assert (header.mode, header.compressor) == (mode, compressor)
    line = 4 if mode == 101 else 7 * {3: 4, 16: 3}.get(mode, MODE_DTYPES[mode].itemsize)
    assert header.line_bytes == line
    assert header.frame_bytes == 5 * line
    assert header.layout == ("blosc" if compressor else "packed4" if mode == 101 else "raw")


LABEL = b"MRCZ0.6.0"
SIGNS = [
    # stamp flags, statistics, labels, signed, known
    (1, (0, 200, 50, 1), (), True, True),
    (1, (-3, 100, 5, 1), (), True, True),
    (1, (0, 100, 5, 1), (), True, False),
    (1, (0, -1, -2, -1), (), True, False),
    (1, (-128, 20, -120, 1), (), True, True),
    (0, (-3, 100, 50, 1), (), False, True),
    (None, (-3, 100, 5, 1), (), True, True),
    (None, (0, 128, 5, 1), (), False, True),
    (None, (0, 127, 5, 1), (), True, False),
    (None, (0, -1, -2, -1), (), True, False),
    (None, (0, 128, 5, 1), (LABEL,), True, True),
    (None, (-3, 200, 5, 1), (), True, False),
]


@pytest.mark.parametrize(("flags", "stats", "labels", "signed", "known"), SIGNS)
def test_sign_of_mode_0(
    flags: int | None, stats: tuple[float, ...], labels: tuple[bytes, ...], signed: bool, known: bool
) -> None:
    raw = header_bytes(4, 4, 1, 0, imod_flags=flags, stats=stats, labels=labels)
    header = parse_header(raw)
    assert header.stored == (np.int8 if signed else np.uint8)
    assert header.signed_known is known
    for asked in (True, False):
        assert parse_header(raw, signed=asked).stored == (np.int8 if asked else np.uint8)
        assert parse_header(raw, signed=asked).signed_known


@pytest.mark.parametrize(
    ("nx", "ny"), [(3838, 7420), (3710, 7676), (3840, 7424), (3712, 7680), (11520, 4092), (4092, 11520), (5760, 8184)]
)
def test_packed_mode_0_by_label_and_size(nx: int, ny: int) -> None:
    for dx, dy in ((0, 0), (2, -2)):
        cella = ((nx + dx) * 0.5, ny * 0.5, 1.0)
        raw = header_bytes(nx + dx, ny + dy, 1, 0, labels=(b"SerialEM: 4 bits packed",), cella=cella)
        header = parse_header(raw)
        assert header.shape == (1, ny + dy, 2 * (nx + dx))
        assert header.packed4
        assert header.stored == np.uint8
        assert header.line_bytes == nx + dx
        assert header.pixel_size is not None
        assert header.pixel_size[0] == pytest.approx(0.5)
    assert not parse_header(header_bytes(nx + 3, ny, 1, 0, labels=(b"4 bits packed",))).packed4
    assert not parse_header(header_bytes(nx, ny, 1, 0, labels=(b"four bits",))).packed4


def test_packed_mode_0_by_flag() -> None:
    header = parse_header(header_bytes(8, 6, 2, 0, imod_flags=16))
    assert header.shape == (2, 6, 16)
    assert header.layout == "packed4"


@pytest.mark.parametrize(
    ("label", "ispg", "mz", "slices"),
    [
        (LABEL, 0, 0, 1),
        (LABEL, 0, 1, 1),
        (LABEL, 0, 2, 2),
        (LABEL, 0, 4, 1),  # 4 does not divide 6
        (LABEL, 0, 7, 1),  # more than NZ
        (LABEL, 0, -2, 1),
        (b"MRCZ0.4.1", 0, 2, 1),  # wrote NY there
        (b"", 401, 3, 3),
        (b"", 630, 2, 2),
        (b"", 401, 4, 1),
        (b"", 1, 3, 1),
        (b"", 0, 3, 1),
    ],
)
def test_slices(label: bytes, ispg: int, mz: int, slices: int) -> None:
    raw = header_bytes(4, 4, 6, 1, labels=(label,) if label else (), ispg=ispg, m=(4, 4, mz))
    assert parse_header(raw).slices == slices


def test_pixel_size_by_m_or_by_n() -> None:
    plain = parse_header(header_bytes(10, 20, 2, 1, m=(5, 10, 1), cella=(12.5, 25.0, 3.0)))
    assert plain.pixel_size == (2.5, 2.5, 3.0)
    labelled = parse_header(header_bytes(10, 20, 2, 1, m=(0, 0, 0), cella=(12.5, 25.0, 3.0), labels=(LABEL,)))
    assert labelled.pixel_size == (1.25, 1.25, 1.5)
    assert parse_header(header_bytes(10, 20, 2, 1, m=(0, 0, 0), cella=(12.5, 25.0, 3.0))).pixel_size is None
    assert parse_header(header_bytes(10, 20, 2, 1, cella=(float("nan"), 25.0, 3.0))).pixel_size is None


def test_optics_only_of_labelled_files() -> None:
    optics = (300.0, 2.7, 7.5)
    labelled = parse_header(header_bytes(4, 4, 1, 1, optics=optics, labels=(LABEL,)))
    assert (labelled.voltage_kv, labelled.spherical_aberration_mm, labelled.counts_per_electron) == optics
    plain = parse_header(header_bytes(4, 4, 1, 1, optics=optics))
    assert (plain.voltage_kv, plain.spherical_aberration_mm, plain.counts_per_electron) == (None, None, None)
    odd = parse_header(header_bytes(4, 4, 1, 1, optics=(float("inf"), -1.0, 0.0), labels=(LABEL,)))
    assert (odd.voltage_kv, odd.spherical_aberration_mm, odd.counts_per_electron) == (None, None, None)


def test_statistics_and_what_unset_looks_like() -> None:
    assert parse_header(header_bytes(4, 4, 1, 1, stats=(1, 9, 4, 2))).statistics == Statistics(1, 9, 4, 2)
    for unset in ((0, -1, -2, -1), (1, 9, 0, 1), (0, 0, 0, 0), (float("nan"), 1, 1, 1)):
        assert parse_header(header_bytes(4, 4, 1, 1, stats=unset)).statistics is None


def test_labels_need_not_be_utf8_nor_counted() -> None:
    header = parse_header(header_bytes(4, 4, 1, 1, labels=("Größe Å".encode("latin-1"), b"second"), nlabl=2))
    assert header.labels == ("Größe Å", "second")
    assert parse_header(header_bytes(4, 4, 1, 1, labels=(b"c-mrcz",), nlabl=0)).labels == ("c-mrcz",)
    assert parse_header(header_bytes(4, 4, 1, 1, labels=(b"a",), nlabl=16777216)).labels == ("a",)
    assert parse_header(header_bytes(4, 4, 1, 1, labels=(b"a",), nlabl=-5)).labels == ("a",)


@pytest.mark.parametrize(
    ("label", "version"),
    [(b"MRCZ0.3.1", (0, 3, 1)), (b"MRCZ0.5", (0, 5, 0)), (b"MRCZ12.0.7rc1", (12, 0, 7)), (b"MRC 0.1", None)],
)
def test_mrcz_version(label: bytes, version: tuple[int, int, int] | None) -> None:
    assert parse_header(header_bytes(4, 4, 1, 1, labels=(label,))).mrcz_version == version


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"mode": 5}, "no MRC or MRCZ"),
        ({"mode": 1000 * 16}, "no MRC or MRCZ"),
        ({"mode": -1}, "no MRC or MRCZ"),
        ({"nz": 0}, "at least one pixel"),
        ({"nx": 0}, "no MRC or MRCZ"),
        ({"ny": -1}, "no MRC or MRCZ"),
        ({"nsymbt": -1}, "NSYMBT"),
        ({"nsymbt": 2**31 - 1}, "NSYMBT"),
    ],
)
def test_impossible_headers_are_refused(change: dict[str, int], said: str) -> None:
    values = {"nx": 4, "ny": 4, "nz": 1, "mode": 1, "nsymbt": 0} | change
    with pytest.raises(MrcFormatError, match=said):
        parse_header(header_bytes(values.pop("nx"), values.pop("ny"), values.pop("nz"), values.pop("mode"), **values))  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [0, 1, 1023])
def test_short_files_are_refused(size: int) -> None:
    with pytest.raises(MrcFormatError, match=f"1024 bytes, the file has {size}"):
        parse_header(bytes(size))


def test_text_is_no_mrc() -> None:
    with pytest.raises(MrcFormatError, match="no MRC or MRCZ"):
        parse_header(b"[T = SerialEM: a movie]\r\n" * 100)


texts = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=80)
positive = st.floats(0.5, 1e6, width=32)


@given(
    shape=st.tuples(*[st.integers(1, 2**31 - 1)] * 3),
    mode=st.sampled_from(sorted(MODE_DTYPES)),
    compressor=st.sampled_from(sorted(COMPRESSORS)),
    nsymbt=st.integers(0, 1 << 30),
    optics=st.tuples(positive, positive, positive),
    stats=st.tuples(st.floats(-1e3, 0, width=32), st.floats(1, 1e3, width=32), st.floats(0.125, 1, width=32)),
    labels=st.lists(texts, max_size=9),
)
def test_what_is_written_is_read(
    shape: tuple[int, int, int],
    mode: int,
    compressor: int,
    nsymbt: int,
    optics: tuple[float, float, float],
    stats: tuple[float, float, float],
    labels: list[str],
) -> None:
    written = MrcHeader(
        shape=shape,
        mode=mode,
        compressor=compressor,
        nsymbt=nsymbt,
        exttyp="json",
        voltage_kv=optics[0],
        spherical_aberration_mm=optics[1],
        counts_per_electron=optics[2],
        statistics=Statistics(*stats, 1.0),
        labels=("MRCZ0.6.0", *labels),
        packed_bytes=2**40,
        origin=(1.0, 2.0, 3.0),
    )
    header = parse_header(build_header(written))
    assert header.shape == shape
    assert (header.mode, header.compressor, header.nsymbt, header.exttyp) == (mode, compressor, nsymbt, "json")
    assert header.voltage_kv == pytest.approx(optics[0], rel=1e-6)
    assert header.spherical_aberration_mm == pytest.approx(optics[1], rel=1e-6)
    assert header.counts_per_electron == pytest.approx(optics[2], rel=1e-6)
    assert header.statistics == Statistics(*stats, 1.0)
    assert header.labels == ("MRCZ0.6.0", *labels)
    assert (header.packed_bytes, header.origin, header.has_map) == (2**40, (1.0, 2.0, 3.0), True)


def test_other_readers_understand_the_header(tmp_path) -> None:  # type: ignore[no-untyped-def]
    written = MrcHeader(
        shape=(3, 4, 6),
        mode=1,
        pixel_size=(1.5, 1.25, 2.0),
        voltage_kv=300.0,
        statistics=Statistics(0, 7, 3, 1),
        labels=("MRCZ0.6.0", "second"),
        m=(6, 4, 1),
    )
    path = tmp_path / "a.mrc"
    path.write_bytes(build_header(written) + bytes(3 * 4 * 6 * 2))
    with mrcfile.open(path) as mrc:
        assert mrc.data.shape == (3, 4, 6)
        assert mrc.voxel_size.tolist() == (1.5, 1.25, 2.0)
        assert [str(label) for label in mrc.get_labels()] == ["MRCZ0.6.0", "second"]
        assert mrc.header.nversion == 20141
    _, meta = mrcz.readMRC(str(path))
    assert (meta["voltage"], meta["maxImage"]) == (300.0, 7.0)
    np.testing.assert_allclose(meta["pixelsize"][1:], [1.25, 1.5])  # it divides the depth by NZ, not by MZ
    path.write_bytes(build_header(replace(written, m=(6, 4, 0))) + bytes(3 * 4 * 6 * 2))
    np.testing.assert_allclose(mrcz.readMRC(str(path))[1]["pixelsize"], [2.0, 1.25, 1.5])
