"""References read entry by entry are those that the json module reads, and what is no JSON is refused as it does."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrczdask.io.virtual_json import read_entries

RANGES = st.tuples(st.sampled_from(["a.mrcz", "s3://b/\u00e9.mrc"]), st.integers(0, 2**63 - 1), st.integers(0, 9)).map(
    list
)
ODD = st.none() | st.integers(-3, 2**70) | st.text(max_size=5) | st.lists(st.integers(-1, 3), max_size=3) | st.just({})
VALUES = RANGES | ODD | st.tuples(st.text(max_size=2), st.sampled_from([-1, 2**63, True, 1.5]), st.just(1)).map(list)
REFS = st.dictionaries(st.text(max_size=4), VALUES, max_size=6)


@settings(max_examples=100, deadline=None)
@given(refs=REFS, top=st.dictionaries(st.text(max_size=3), VALUES, max_size=3), indent=st.sampled_from([None, 1]))
def test_the_entries_are_those_of_the_json(refs: dict[str, Any], top: dict[str, Any], indent: int | None) -> None:
    raw = json.dumps({**top, "refs": refs}, indent=indent).encode()
    outer, inner = read_entries(raw)
    assert inner is not None
    assert {key: inner.get(key) for key in inner} == refs
    assert {key: outer.get(key) for key in outer} == {k: v for k, v in top.items() if k != "refs"}
    assert inner.get("not there") is None


def test_the_last_of_two_entries_counts() -> None:
    _, refs = read_entries(b'{"refs": {"a": ["u", 1, 2], "b": 3, "a": 4, "b": ["v", 5, 6]}}')
    assert refs is not None
    assert {key: refs.get(key) for key in refs} == {"a": 4, "b": ["v", 5, 6]}


@pytest.mark.parametrize("cut", range(len('{"refs": {"a": ["u", 1, 2]}}')))
def test_half_a_document_is_refused(cut: int) -> None:
    whole = b'{"refs": {"a": ["u", 1, 2]}}'
    read_entries(whole)
    with pytest.raises(ValueError, match=r"."):
        read_entries(whole[:cut])
    for odd in (b"[1]", whole + b"1", b"{1: 2}", b'{"a": 1,}', b'{"a" 1}', b"\xff"):
        with pytest.raises(ValueError, match=r"."):
            read_entries(odd)
