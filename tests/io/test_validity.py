"""The rule of special numbers against its words, one number after the other."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mrczdask.io.validity import Panel, Validity, counts_in, dtype_rule, judge, validity_of
from mrczdask.kernels.valid import is_count

DTYPES = [np.dtype(name) for name in ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8")]
EXACT = 2**24
"""Integers up to here are float32 numbers."""
ends = st.one_of(st.integers(-300, 300), st.sampled_from([-(2**30), 2**16 - 2, 2**16, 2**31 - 3, 2**32 - 3]))
intervals = st.tuples(ends, st.integers(0, 3)).map(lambda pair: (pair[0], pair[0] + pair[1]))


@st.composite
def rules(draw: Any) -> Validity:
    low = draw(st.one_of(st.just(-math.inf), ends))
    high = draw(st.one_of(st.just(math.inf), ends))
    return Validity(low, high, tuple(draw(st.lists(intervals, max_size=3))))


def numbers_around(rule: Validity, dtype: np.dtype[Any]) -> NDArray[Any]:
    """The ends of a rule and their neighbours, the ends of a dtype, and zero."""
    limits: Any = np.iinfo(dtype) if dtype.kind != "f" else None
    near = [0, 1]
    for end in (rule.lowest, rule.highest, *(end for hole in rule.holes for end in hole)):
        near += [] if math.isinf(end) else [end - 1, end, end + 1]
    if limits is not None:
        near += [limits.min, limits.min + 1, limits.max - 1, limits.max]
        near = [number for number in near if limits.min <= number <= limits.max]
    return np.array(sorted(set(near)), dtype)


@settings(max_examples=200, deadline=None)
@given(rule=rules(), dtype=st.sampled_from(DTYPES))
def test_a_number_counts_where_the_words_of_the_rule_say_so(rule: Validity, dtype: np.dtype[Any]) -> None:
    numbers = numbers_around(rule, dtype)
    found = counts_in(rule, numbers[None])[0]
    for number, counts in zip(numbers.tolist(), found.tolist(), strict=True):
        wanted = rule.lowest <= number <= rule.highest and not any(low <= number <= high for low, high in rule.holes)
        if abs(number) < EXACT:
            assert counts == wanted, number
        elif dtype.kind != "f":  # numbers that float32 does not tell from one that is no count are none
            assert not counts or wanted, number


@settings(max_examples=60, deadline=None)
@given(rule=rules(), dtype=st.sampled_from(DTYPES))
def test_kernels_and_arrays_agree(rule: Validity, dtype: np.dtype[Any]) -> None:
    numbers = numbers_around(rule, dtype)[None]
    ready = judge(rule, dtype, numbers.shape)
    plain = ready.plain(numbers)
    with np.errstate(over="ignore"):
        seen = [is_count(np.float32(number), ready.bounds) for number in plain[0]]
    assert seen == counts_in(rule, numbers)[0].tolist() == ready.counts(plain)[0].tolist()


@settings(max_examples=60, deadline=None)
@given(one=rules(), other=rules(), dtype=st.sampled_from(DTYPES))
def test_rules_add_up_and_survive_as_attributes(one: Validity, other: Validity, dtype: np.dtype[Any]) -> None:
    both = one.merged(other)
    numbers = np.concatenate([numbers_around(rule, dtype) for rule in (one, other)])[None]
    np.testing.assert_array_equal(counts_in(both, numbers), counts_in(one, numbers) & counts_in(other, numbers))
    again = validity_of(json.loads(json.dumps(both.attrs())))
    np.testing.assert_array_equal(counts_in(again, numbers), counts_in(both, numbers))


def test_panels_have_rules_of_their_own() -> None:
    frame = np.array([[-5, 5, 50], [-5, 5, 50]], np.int32)
    rule = Validity(
        highest=60, panels=(Panel((0, 1, 0, 2), Validity(lowest=0)), Panel((1, 2, 0, 3), Validity(highest=9)))
    )
    again = validity_of(json.loads(json.dumps(rule.attrs())))
    wanted = [[False, True, True], [True, True, False]]
    assert counts_in(again, frame).tolist() == wanted
    ready = judge(again, frame.dtype, frame.shape)
    assert not ready.is_plain
    assert np.isfinite(ready.plain(frame)).tolist() == wanted


@pytest.mark.parametrize(
    ("dtype", "marks", "counts"),
    [
        ("u4", [2**32 - 1, 2**32 - 2], [0, 2**32 - 1000]),
        ("i4", [-(2**31), -(2**30), 2**31 - 1], [-(2**29), 0, 2**30]),
        ("u8", [2**64 - 1, 2**32 - 1, 2**32 - 2], [0, 2**31]),
        ("u2", [], [0, 2**16 - 1]),
        ("u1", [], [0, 255]),
    ],
)
def test_ends_of_wide_integers_never_count(dtype: str, marks: list[int], counts: list[int]) -> None:
    rule = dtype_rule(np.dtype(dtype))
    assert not counts_in(rule, np.array([marks], dtype)).any()
    assert counts_in(rule, np.array([counts], dtype)).all()


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_nan_and_infinity_never_count(dtype: str) -> None:
    frame = np.array([[np.nan, np.inf, -np.inf, 0.0, -7.5, 1e30]], dtype)
    assert counts_in(Validity(), frame).tolist() == [[False, False, False, True, True, True]]
