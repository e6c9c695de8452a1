from __future__ import annotations

import json

import google_crc32c
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mrczdask.formats.frame_index import footer_bytes, pack_footer, pack_sidecar, parse_footer, parse_sidecar
from mrczdask.formats.mrcz import FrameTable

lengths = st.lists(st.integers(1, 2**31 - 1), min_size=1, max_size=50)


def table_of(first: int, sizes: list[int]) -> FrameTable:
    ends = np.cumsum([first, *sizes], dtype=np.uint64)
    return FrameTable(ends[:-1], np.array(sizes, np.uint64))


@given(first=st.integers(0, 2**40), sizes=lengths)
def test_footer_and_sidecar_keep_the_table(first: int, sizes: list[int]) -> None:
    table = table_of(first, sizes)
    footer = pack_footer(table)
    assert len(footer) == footer_bytes(len(sizes)) == 16 * len(sizes) + 4
    again = parse_footer(footer)
    assert again is not None
    np.testing.assert_array_equal(again.offsets, table.offsets)
    np.testing.assert_array_equal(again.lengths, table.lengths)
    parsed = parse_sidecar(pack_sidecar(table, {"size": 7}))
    assert parsed is not None
    beside, fingerprint = parsed
    assert fingerprint == {"size": 7}
    assert beside.offsets.dtype == np.uint64
    np.testing.assert_array_equal(beside.offsets, table.offsets)
    np.testing.assert_array_equal(beside.lengths, table.lengths)


def test_footer_is_the_shard_index_of_zarr() -> None:
    footer = pack_footer(table_of(1040, [100, 50]))
    entries = np.frombuffer(footer[:32], "<u8").reshape(2, 2)
    np.testing.assert_array_equal(entries, [[1040, 100], [1140, 50]])
    assert int.from_bytes(footer[32:], "little") == google_crc32c.value(footer[:32])


@given(sizes=lengths, place=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_a_footer_with_one_bit_wrong_is_none(sizes: list[int], place: int, bit: int) -> None:
    footer = bytearray(pack_footer(table_of(1024, sizes)))
    footer[place % len(footer)] ^= 1 << bit
    assert parse_footer(bytes(footer)) is None


@pytest.mark.parametrize("raw", [b"", b"\x00" * 3, b"\x00" * 4, b"\x00" * 20, b"\x00" * 21])
def test_other_bytes_are_no_footer(raw: bytes) -> None:
    table = parse_footer(raw)
    assert table is None or len(table) == 0


GOOD = {"mrczdask_index": 1, "file": {"size": 3}, "first": 1024, "lengths": [10, 20]}


@pytest.mark.parametrize(
    "change",
    [
        {"mrczdask_index": 2},
        {"lengths": "ten"},
        {"lengths": [-1]},
        {"lengths": [[1, 2]]},
        {"lengths": 5},
        {"lengths": [10, None]},
        {"lengths": [2**70]},
        {"first": -1},
        {"first": None},
        {"first": 2**80},
        {"file": 5},
        {"file": None},
    ],
)
def test_broken_sidecars_are_none(change: dict[str, object]) -> None:
    assert parse_sidecar(json.dumps(GOOD).encode()) is not None
    assert parse_sidecar(json.dumps({**GOOD, **change}).encode()) is None


@pytest.mark.parametrize("raw", [b"", b"\xff\xfe", b"[]", b"null", b"5", b"{}", b"[" * 100_000])
def test_other_files_are_no_sidecar(raw: bytes) -> None:
    assert parse_sidecar(raw) is None
