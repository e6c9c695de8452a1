"""Ragged tables: split, select and join give the rows that NumPy gives."""

from __future__ import annotations

import dask
import numpy as np
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from mrczdask.io.ragged import Layout, split

LAYOUT = Layout("row", "row_ptr", "n_rows", {"value": np.dtype(np.int32)})


def table_of(counts: list[int]) -> xr.Dataset:
    pointer = np.concatenate([[0], np.cumsum(counts)]).astype(np.uint64)
    values = np.arange(pointer[-1], dtype=np.int32)
    return xr.Dataset(
        {"row_ptr": ("shot_edge", pointer), "value": ("row", values)}, {"shot": np.arange(len(counts)) * 10}
    )


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 4), max_size=9), st.integers(1, 5), st.data())
def test_selected_rows_are_those_of_their_shots(counts: list[int], shots: int, data: st.DataObject) -> None:
    table = table_of([int(c) for c in counts])
    ragged = split(table, LAYOUT, shots)
    places = st.integers(-len(counts), len(counts) - 1)
    wanted = data.draw(st.lists(places, max_size=6)) if counts else []
    found = ragged.isel(shot=np.array(wanted, int)).compute(scheduler="sync")
    edges = table.row_ptr.values.astype(int)
    rows = [table.value.values[edges[k % len(counts)] : edges[k % len(counts) + 1]] for k in wanted]
    np.testing.assert_array_equal(found.value, np.concatenate([np.empty(0, np.int32), *rows]))
    assert found.n_rows.values.tolist() == [counts[k] for k in wanted]
    assert found.shot.values.tolist() == [10 * (k % len(counts)) for k in wanted]


def test_a_table_comes_back_as_it_was(no_compute: None) -> None:
    table = table_of([3, 0, 2, 7])
    ragged = split(table, LAYOUT, 3)
    assert (len(ragged), ragged.chunks) == (4, (3, 1))
    assert ragged.isel(shot=2).shot.item() == 20
    with dask.config.set(scheduler="sync"):
        again = ragged.compute()
        assert ragged.n_rows.values.tolist() == [3, 0, 2, 7]
    xr.testing.assert_identical(again.drop_vars("n_rows"), table)
