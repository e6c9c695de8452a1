from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mrczdask.formats.pixels import pixels, unpack_lines
from tests.mrc_bytes import frame_bytes


@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 7), st.integers(1, 9)), elements=st.integers(0, 15)))
def test_4_bit_lines_low_nibble_first(frame: np.ndarray) -> None:
    rows, nx = frame.shape
    raw = np.frombuffer(frame_bytes(frame, 101), np.uint8).reshape(rows, (nx + 1) // 2)
    np.testing.assert_array_equal(unpack_lines(raw, nx), frame)


def test_pixels_are_a_view_of_the_bytes() -> None:
    raw = np.arange(24, dtype=">i2").tobytes()
    view = pixels(raw, np.dtype(">i2"), 4, 6)
    np.testing.assert_array_equal(view, np.arange(24).reshape(4, 6))
    assert not view.flags.writeable
    assert pixels(raw, np.dtype((">i2", (2,))), 4, 3).shape == (4, 3, 2)
