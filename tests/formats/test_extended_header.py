from __future__ import annotations

import json
import struct
from pathlib import Path

import mrcfile
import mrcfile.dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrczdask.formats.extended_header import parse_extended_header
from mrczdask.formats.fei_header import _MASKS, FEI_BYTES, FEI_FIELDS
from mrczdask.formats.section_header import serialem_float

# mrcfile 1.5 sets the dtype of an array, which numpy 2.5 deprecates
pytestmark = pytest.mark.filterwarnings("ignore:Setting the dtype:DeprecationWarning")

MRCFILE_NAMES = {
    "timestamp": "Timestamp",
    "microscope": "Microscope type",
    "application": "Application",
    "application_version": "Application version",
    "high_tension": "HT",
    "dose": "Dose",
    "alpha_tilt": "Alpha tilt",
    "tilt_axis_angle": "Tilt axis angle",
    "pixel_size_x": "Pixel size X",
    "pixel_size_y": "Pixel size Y",
    "defocus": "Defocus",
    "magnification": "Magnification",
    "integration_time": "Integration time",
    "camera": "Camera name",
    "electron_counting": "Direct detector electron counting",
    "stem_detector": "STEM Detector name",
    "dwell_time": "Dwell time",
    "frame_time": "Frame time",
    "input_stack": "Input stack filename",
}
ALL_BITS = 2**32 - 1


def fei_records(kind: str, n: int, order: str = "<", **fields: object) -> np.ndarray:
    dtype = mrcfile.dtypes.get_ext_header_dtype(kind.encode(), order)
    records = np.zeros(n, dtype)
    records["Metadata size"] = dtype.itemsize
    for k in range(1, 5):
        records[f"Bitmask {k}"] = ALL_BITS
    for name, value in fields.items():
        records[MRCFILE_NAMES[name]] = value
    return records


@pytest.mark.parametrize("kind", ["FEI1", "FEI2"])
def test_fei_table_agrees_with_mrcfile(kind: str) -> None:
    theirs = mrcfile.dtypes.get_ext_header_dtype(kind.encode(), "<")
    assert theirs.itemsize == FEI_BYTES[kind]
    assert [theirs.fields[f"Bitmask {k + 1}"][1] for k in range(4)] == list(_MASKS)
    for name, form, offset, *_ in FEI_FIELDS:
        assert theirs.fields[MRCFILE_NAMES[name]] == (np.dtype(form), offset)


def test_fei_bit_counts_the_fields_behind_its_mask() -> None:
    """Bit b of mask m stands for field b behind it; 48 unused bytes of mask 1 take the six bits 16 to 21."""
    names = list(mrcfile.dtypes.get_ext_header_dtype(b"FEI1", "<").names)
    bits: dict[str, tuple[int, int]] = {}
    for k in range(4):
        first = names.index(f"Bitmask {k + 1}") + 1
        last = names.index(f"Bitmask {k + 2}") if k < 3 else len(names)
        bit = 0
        for name in names[first:last]:
            bits[name] = (k, bit)
            bit += 6 if name == "Unused range" else 1
    assert {name: (mask, bit) for name, _, _, mask, bit in FEI_FIELDS} == {
        ours: bits[theirs] for ours, theirs in MRCFILE_NAMES.items()
    }


@pytest.mark.parametrize("kind", ["FEI1", "FEI2"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_fei_along_frames(kind: str, order: str) -> None:
    day = 44_000.0  # 2020-06-18
    records = fei_records(
        kind,
        4,
        order,
        timestamp=day + np.array([30, 10, 20, 0]) / 86_400,
        dose=np.array([3.0, 2.0, 1.0, 0.5]) * 1e20,
        alpha_tilt=[30.0, 10.0, -10.0, 0.0],
        high_tension=300_000.0,
        pixel_size_x=1.5e-10,
        pixel_size_y=1.5e-10,
        camera=b"BM-Falcon",
        electron_counting=True,
    )
    facts = parse_extended_header(kind, records.tobytes() + bytes(1000), order, 4)
    assert facts.notes == ()
    np.testing.assert_allclose(facts.per_frame["time"], [30, 10, 20, 0], atol=1e-4)
    # received in the order 3, 1, 2, 0: what each image itself gave is included
    np.testing.assert_allclose(facts.per_frame["dose"], [6.5, 2.5, 3.5, 0.5])
    np.testing.assert_array_equal(facts.per_frame["tilt"], [30, 10, -10, 0])
    assert facts.attrs["voltage_kv"] == 300
    assert facts.attrs["pixel_size_angstrom"] == pytest.approx(1.5)
    assert facts.attrs["camera"] == "BM-Falcon"
    assert facts.attrs["electron_counting"] is True
    assert facts.acquired == np.datetime64("2020-06-18", "us")


def test_fei_fields_without_their_bit_are_not_read() -> None:
    records = fei_records("FEI1", 2, dose=1e20, alpha_tilt=5.0, high_tension=2e5)
    records["Bitmask 1"] = 1 << 5
    records["Bitmask 2"] = records["Bitmask 3"] = records["Bitmask 4"] = 0
    facts = parse_extended_header("FEI1", records.tobytes(), "<", 2)
    assert facts.per_frame == {}
    assert facts.attrs == {"voltage_kv": 200.0}


def test_fei_absurd_values_are_left_out() -> None:
    records = fei_records(
        "FEI2", 3, timestamp=[np.nan, 1e300, -1], dose=[1e20, np.inf, 1e20], alpha_tilt=[1.0, np.nan, 1e9]
    )
    records["HT"] = -np.inf
    records["Pixel size X"] = 0
    facts = parse_extended_header(b"FEI2", records.tobytes(), "<", 3)
    assert set(facts.per_frame) == {"tilt"}
    np.testing.assert_array_equal(facts.per_frame["tilt"], [1.0, np.nan, np.nan])
    assert facts.acquired is None
    assert not {"voltage_kv", "pixel_size_angstrom"} & set(facts.attrs)


def test_fei_with_too_few_records_keeps_the_attributes() -> None:
    facts = parse_extended_header("FEI1", fei_records("FEI1", 2, high_tension=3e5).tobytes(), "<", 5)
    assert facts.per_frame == {}
    assert facts.attrs["voltage_kv"] == 300
    assert "2 records for 5 frames" in facts.notes[0]


def test_fei_that_mrcfile_wrote(tmp_path: Path) -> None:
    with mrcfile.new(tmp_path / "fei.mrc") as mrc:
        mrc.set_data(np.zeros((3, 4, 5), np.float32))
        mrc.set_extended_header(fei_records("FEI1", 3, alpha_tilt=[1.0, 2.0, 3.0], high_tension=2e5))
        mrc.header.exttyp = b"FEI1"
        raw = mrc.extended_header.tobytes()
    facts = parse_extended_header("FEI1", raw, "<", 3)
    np.testing.assert_array_equal(facts.per_frame["tilt"], [1, 2, 3])


@pytest.mark.real_data
def test_real_velox_file(data_dir: Path) -> None:
    path = data_dir / "real" / "mrc" / "HAADFscan.mrc"
    with mrcfile.open(path) as mrc:
        record = mrc.indexed_extended_header[0]
        facts = parse_extended_header(mrc.header.exttyp.item(), mrc.extended_header.tobytes(), "<", int(mrc.header.nz))
        header_pixel = float(mrc.voxel_size.x)
    assert facts.per_frame["tilt"] == [record["Alpha tilt"]]
    assert facts.attrs["voltage_kv"] * 1000 == record["HT"]
    assert facts.attrs["pixel_size_angstrom"] == pytest.approx(header_pixel, rel=1e-4)
    assert facts.attrs["stem_detector"] == "HAADF"
    assert facts.acquired.astype("M8[D]") == np.datetime64("2022-12-05")


@pytest.mark.real_data
def test_real_symmetry_records(data_dir: Path) -> None:
    with mrcfile.open(data_dir / "real" / "mrc" / "EMD-3001.map") as mrc:
        facts = parse_extended_header(mrc.header.exttyp.item(), mrc.extended_header.tobytes(), "<", int(mrc.header.nz))
    assert facts.attrs["symmetry"] == ["X,  Y,  Z", "-X,  Y+1/2,  -Z"]


def test_json() -> None:
    document = {"camera": "K2", "acquired": "2019-05-01T10:11:12.5", "nested": {"a": [1, 2]}}
    raw = json.dumps(document).encode()
    facts = parse_extended_header("json", raw + b" " * 7 + bytes(9), "<", 3)
    assert facts.metadata == document
    assert facts.acquired == np.datetime64("2019-05-01T10:11:12.500000")
    assert parse_extended_header("json", '{"a": "Å"}'.encode("latin-1"), "<", 1).metadata == {"a": "Å"}
    assert parse_extended_header("json", b"[1, 2]", "<", 1).metadata == {"json": [1, 2]}


@pytest.mark.parametrize(
    ("value", "moment"),
    [
        ("08-Oct-21  07:47:29", "2021-10-08T07:47:29"),
        ("30-Nov-95  15:21:38", "1995-11-30T15:21:38"),
        ("2024-May-15 16:56:54", "2024-05-15T16:56:54"),
        ("2025-03-14T17:40:48.4829081+01:00", "2025-03-14T17:40:48.482908"),
        (1_700_000_000, "2023-11-14T22:13:20"),
    ],
)
def test_times_of_acquisition(value: object, moment: str) -> None:
    raw = json.dumps({"Date_Time": value}).encode()
    assert parse_extended_header("json", raw, "<", 1).acquired == np.datetime64(moment)


@pytest.mark.parametrize("value", ["31-Feb-21 00:00:00", "soon", 3.5, True, None, [1], "9999-01-01", 1e300])
def test_no_times_of_acquisition(value: object) -> None:
    facts = parse_extended_header("json", json.dumps({"timestamp": value}).encode(), "<", 1)
    assert facts.acquired is None
    assert facts.metadata == {"timestamp": value}


@pytest.mark.parametrize("raw", [b'{"a": ', b"\xff\xfe{", b"[" * 100_000, b'{"a": ' + b"9" * 10_000 + b"}"])
def test_json_that_does_not_parse_gives_a_note(raw: bytes) -> None:
    facts = parse_extended_header("json", raw, "<", 3)
    assert facts.metadata is None
    assert "does not parse" in facts.notes[0]


def serialem_shorts(value: float) -> tuple[int, int]:
    """The two shorts of a float >= 1, by the formula read backwards: 24 bits of mantissa, a power of two."""
    mantissa, exponent = np.frexp(value)
    whole, exponent = round(mantissa * 2**22), exponent - 22
    high, rest = divmod(whole, 256)
    low = 256 * abs(exponent) + rest
    return high, int(np.copysign(low, exponent))


@given(st.floats(0.01, 1e5))
def test_serialem_float(value: float) -> None:
    high, low = serialem_shorts(value)
    got = serialem_float(np.array([high], float), np.array([low], float))[0]
    assert got == pytest.approx(value, rel=2**-21)


@pytest.mark.parametrize("order", ["<", ">"])
def test_seri(order: str) -> None:
    flags = 1 | 4 | 8 | 32
    raw = b"".join(
        struct.pack(f"{order}hhhhhh", round(100 * tilt), 25 * k, -25, 330, *serialem_shorts(dose))
        for k, (tilt, dose) in enumerate([(-3.0, 1.5), (0.0, 1.5), (3.01, 2.0)])
    )
    facts = parse_extended_header("SERI", raw + bytes(1024 - len(raw)), order, 3, nint=12, nreal=flags)
    np.testing.assert_allclose(facts.per_frame["tilt"], [-3, 0, 3.01])
    np.testing.assert_allclose(facts.per_frame["dose"], [1.5, 3, 5])
    np.testing.assert_allclose(facts.per_frame["stage_x_um"], [0, 1, 2])
    np.testing.assert_allclose(facts.per_frame["stage_y_um"], -1)
    assert facts.attrs == {"magnification": 33_000.0}


@pytest.mark.parametrize(("nint", "nreal"), [(0, 0), (12, 1), (-2, 1), (2, -1)])
def test_seri_with_a_layout_that_does_not_add_up(nint: int, nreal: int) -> None:
    facts = parse_extended_header("SERI", b"\x01" * 64, "<", 3, nint=nint, nreal=nreal)
    assert facts.per_frame == {}
    assert "NINT" in facts.notes[0]


def test_agar() -> None:
    records = np.zeros((1024, 32), "<f4")
    records[:5, 0] = [-2, -1, 0, 1, 2]
    records[:, 10], records[:, 11], records[:, 13] = -85.5, 5.4e-10, 3e5
    facts = parse_extended_header("AGAR", records.tobytes(), "<", 5)
    np.testing.assert_array_equal(facts.per_frame["tilt"], [-2, -1, 0, 1, 2])
    assert facts.attrs["pixel_size_angstrom"] == pytest.approx(5.4)
    assert facts.attrs["voltage_kv"] == pytest.approx(300)
    assert facts.attrs["tilt_axis_angle_deg"] == -85.5
    with_ints = np.concatenate([np.full((1024, 2), 7, "<i4").view("<f4"), records], axis=1)
    again = parse_extended_header("AGAR", with_ints.tobytes(), "<", 5, nint=2, nreal=32)
    np.testing.assert_array_equal(again.per_frame["tilt"], [-2, -1, 0, 1, 2])


def test_unknown_and_empty() -> None:
    assert "'HDF5'" in parse_extended_header("HDF5", b"\x01" * 100, "<", 3).notes[0]
    assert parse_extended_header("FEI1", bytes(4096), "<", 3).notes == ()
    assert parse_extended_header("json", b"", "<", 3).metadata is None
    assert "no text" in parse_extended_header("CCP4", b"\xff" * 80, "<", 1).notes[0]


@settings(max_examples=300, deadline=None)
@given(
    kind=st.sampled_from(["json", "FEI1", "FEI2", "SERI", "AGAR", "CCP4", "MRCO", "", "what"]),
    raw=st.binary(max_size=4096) | st.binary(max_size=8).map(lambda part: part * 300),
    order=st.sampled_from("<>"),
    n_frames=st.integers(-1, 40) | st.just(2**31 - 1),
    nint=st.integers(-(2**15), 2**15 - 1) | st.integers(0, 24),
    nreal=st.integers(-(2**15), 2**15 - 1) | st.integers(0, 63),
)
def test_any_bytes_give_facts(kind: str, raw: bytes, order: str, n_frames: int, nint: int, nreal: int) -> None:
    facts = parse_extended_header(kind, raw, order, n_frames, nint=nint, nreal=nreal)
    for values in facts.per_frame.values():
        assert values.shape == (n_frames,)
        assert not np.isinf(values).any()


@settings(max_examples=200, deadline=None)
@given(where=st.integers(0, 767), what=st.integers(0, 255), order=st.sampled_from("<>"))
def test_any_byte_of_an_fei_record_may_be_wrong(where: int, what: int, order: str) -> None:
    records = fei_records("FEI1", 3, order, timestamp=[44_000, 44_001, 44_002], dose=1e20, alpha_tilt=[1, 2, 3])
    raw = bytearray(records.tobytes())
    raw[where] = what
    facts = parse_extended_header("FEI1", bytes(raw), order, 3)
    assert all(values.shape == (3,) and not np.isinf(values).any() for values in facts.per_frame.values())


SHORTS = {1: 1, 2: 3, 4: 2, 8: 1, 16: 1, 32: 2, 64: 1, 128: 2, 256: 1, 512: 2, 1024: 1}


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("room", [0, 24, 1024])
def test_records_of_serialem_without_exttyp(order: str, room: int) -> None:
    tilts = [-60, -58, -56, -54, -52]
    records = b"".join(struct.pack(order + "4h", t * 100, 25 * k, 50, 290) for k, t in enumerate(tilts))
    facts = parse_extended_header("", records.ljust(room, b"\0"), order, 5, nint=8, nreal=1 | 4 | 8)
    np.testing.assert_array_equal(facts.per_frame["tilt"], tilts)
    np.testing.assert_allclose(facts.per_frame["stage_x_um"], [0, 1, 2, 3, 4])
    assert facts.attrs == {"magnification": 29000.0}
    for nint, nreal in ((8, 1 | 4), (6, 13), (8, 13 | 2048), (-8, 13), (0, 0)):  # not the bytes that the bits take
        assert "tilt" not in parse_extended_header("", records, order, 5, nint=nint, nreal=nreal).per_frame
    assert "tilt" not in parse_extended_header("", records[:-8], order, 5, nint=8, nreal=13).per_frame


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("nreal", [0, 32])
def test_floats_of_fei_without_exttyp(order: str, nreal: int) -> None:
    table = np.zeros((1024, 32), order + "f4")
    table[:3, 0] = -60, 0, 60
    table[:3, 8:14] = 1.5, 100, 84.5, 2.5e-10, 50_000, 300_000
    facts = parse_extended_header("", table.tobytes(), order, 3, nint=0, nreal=nreal)
    np.testing.assert_array_equal(facts.per_frame["tilt"], [-60, 0, 60])
    assert facts.attrs["pixel_size_angstrom"] == pytest.approx(2.5, rel=1e-6)
    assert facts.attrs["voltage_kv"] == pytest.approx(300)
    assert facts.attrs["tilt_axis_angle_deg"] == pytest.approx(84.5)
    other = np.random.default_rng(0).normal(0, 1e20, (8, 32)).astype(order + "f4").tobytes()
    assert parse_extended_header("", other, order, 3, nint=0, nreal=nreal).per_frame == {}


@given(nreal=st.integers(1, 2047), n=st.integers(1, 4))
def test_every_choice_of_serialem_is_known_by_its_bytes(nreal: int, n: int) -> None:
    nint = 2 * sum(count for bit, count in SHORTS.items() if nreal & bit)
    raw = np.full(n * nint // 2, 100, "<i2").tobytes()
    facts = parse_extended_header("", raw, "<", n, nint=nint, nreal=nreal)
    assert facts.notes == ()
    assert ("tilt" in facts.per_frame) == bool(nreal & 1)
