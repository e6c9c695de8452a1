"""Shots are matched by file and event: streams in any order, against the truth of who is who."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mrczdask as md
from mrczdask.errors import MrczdaskError, MrczdaskWarning
from mrczdask.io.peak_table import FLOATS, PEAKS, peaks_table

Frame = tuple[str, str]
"""A file, and the event as CrystFEL writes it."""


def write_stream(path: Path, frames: list[tuple[Frame, float, bool]]) -> Any:
    """A stream of frames with one peak each, at a place that tells it from the others."""
    lines = ["CrystFEL stream format 2.3"]
    for (image, event), place, indexed in frames:
        lines += ["----- Begin chunk -----", f"Image filename: {image}", *([f"Event: {event}"] if event else [])]
        lines += [f"indexed_by = {'xgandalf' if indexed else 'none'}", "Peaks from peak search", "  fs/px ss/px"]
        lines += [f"{place + 0.5:.2f} 8.50 1.0 100.0 p0", "End of peak list", "----- End chunk -----"]
    path.write_text("\n".join(lines) + "\n")
    return md.open_peaks(path)


def table(n: int, **coords: Any) -> xr.Dataset:
    """Peaks of n shots, one a shot: at x = 10 times its place."""
    columns: dict[str, Any] = {name: np.ones(n, np.float32) for name in FLOATS}
    columns |= {"x": np.arange(n, dtype=np.float32) * 10, "y": np.full(n, 8, np.float32)}
    columns |= {name: np.zeros(n, PEAKS.columns[name]) for name in ("n_pixels", "index")}
    attrs = {name: coords.pop(name) for name in list(coords) if isinstance(coords[name], str)}
    return peaks_table(np.ones(n, np.int64), columns, {"shot": np.arange(n)} | coords, attrs)


def recalled(ours: Any, stream: Any) -> float:
    return float(
        md.compare_peaks(ours, stream, shells=[0, 1e9], geometry=md.Geometry.flat((400, 400)), unit="pixel").recalled[0]
    )


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    folders=st.booleans(),
    alone=st.booleans(),
    seed=st.integers(0, 99),
)
def test_streams_in_any_order_are_matched(
    tmp_path: Path, sizes: list[int], folders: bool, alone: bool, seed: int
) -> None:
    draw = random.Random(seed)
    ours = [(f"r{k}/run_{k if folders else 2 * k}.h5", m) for k, size in enumerate(sizes) for m in range(size)]
    if folders:  # files of one name are told apart by their folders
        ours = [(f"/data/{name.split('/')[0]}/run.h5", m) for name, m in ours]
    named = {name: sum(1 for other, _ in ours if other == name) for name, _ in ours}
    frames: list[tuple[Frame, float, bool]] = []
    for k, (name, m) in enumerate(ours):
        is_alone = alone and named[name] == 1
        frames.append(
            ((f"/elsewhere{name}" if folders else name, "" if is_alone else f"entry//{m}"), 10 * k, k % 2 == 0)
        )
    draw.shuffle(frames)
    stream = write_stream(tmp_path / "run.stream", frames)
    known = {"image": ("shot", [name for name, _ in ours]), "event": ("shot", [m for _, m in ours])}
    order = draw.sample(range(len(ours)), len(ours))
    peaks = table(len(ours), **known)
    assert recalled(peaks, stream) == 1
    want = [k % 2 == 0 for k in range(len(ours))]
    assert md.veto(peaks, indexed=stream).indexed.values.tolist() == want
    taken = md.veto(peaks, indexed=xr.DataArray(want, {"shot": range(len(ours))}, ("shot",)).isel(shot=order))
    assert taken.indexed.values.tolist() == want
    again = write_stream(tmp_path / "again.stream", draw.sample(frames, len(frames)))
    assert recalled(again, stream) == 1
    unnamed = write_stream(tmp_path / "run.stream", frames)
    if not folders:  # shots that do not say their files are in natural order of the names
        assert recalled(table(len(ours)), unnamed) == 1


def test_events_that_are_names(tmp_path: Path) -> None:
    tags = [(("run.h5", f"tag-{2 * k}//"), 10.0 * k, k == 2) for k in (2, 0, 11, 1)]
    one, other = write_stream(tmp_path / "a.stream", tags), write_stream(tmp_path / "b.stream", tags[::-1])
    assert one.event.values.tolist() == [-1] * 4
    assert recalled(one, other) == 1
    shifted = [
        ((image, event), 10.0 * k, k == 2) for k, ((image, event), _, _) in enumerate(sorted(tags, key=lambda t: t[1]))
    ]
    stream = write_stream(tmp_path / "c.stream", shifted[::-1])
    assert md.veto(table(4), indexed=stream).indexed.values.tolist() == [False, False, True, False]


def test_shots_that_only_one_list_has_are_left_out(tmp_path: Path) -> None:
    stream = write_stream(tmp_path / "run.stream", [(("run.cxi", f"//{k}"), 10.0 * k, True) for k in (4, 1)])
    found = md.compare_peaks(table(6), stream, shells=[0, 1e9], geometry=md.Geometry.flat((400, 400)), unit="pixel")
    assert (int(found.n_peaks[0]), int(found.n_reference[0]), int(found.n_matched[0])) == (2, 2, 2)
    assert found.matched.values.tolist() == [False, True, False, False, True, False]


def test_what_cannot_be_matched_is_said(tmp_path: Path) -> None:
    def stream(*frames: Frame) -> Any:
        return write_stream(tmp_path / "run.stream", [(frame, 0.0, True) for frame in frames])

    with pytest.raises(MrczdaskError, match=r"run.cxi //1 twice"):
        md.veto(table(3), indexed=stream(("run.cxi", "//1"), ("run.cxi", "//1")))
    with pytest.raises(MrczdaskError, match=r"event 3 of run.cxi, which is none of the 3 shots"):
        md.veto(table(3, peak_file="/there/run.cxi"), indexed=stream(("run.cxi", "//3")))
    with pytest.raises(MrczdaskError, match=r"are one shot: run.h5 a//1, run.h5 b//1"):
        md.veto(table(3), indexed=stream(("run.h5", "a//1"), ("run.h5", "b//1")))
    with pytest.raises(MrczdaskError, match=r"2 frames of a.h5 and 1 more, the peaks 3 shots that do not say"):
        md.veto(table(3), indexed=stream(("a.h5", "//0"), ("b.h5", "//0")))
    with pytest.raises(MrczdaskError, match=r"is of a.h5 and 1 more, the peaks are of run_master.h5"):
        md.veto(table(3, image="run_master.h5"), indexed=stream(("a.h5", "//0"), ("b.h5", "//0")))
    with pytest.warns(MrczdaskWarning, match=r"of other.cxi, the peaks are of run_master.h5"):
        md.veto(table(3, image="run_master.h5"), indexed=stream(("other.cxi", "//0")))
    subset = table(3, image="run_master.h5").assign_coords(shot=[0, 2, 4])
    with pytest.raises(MrczdaskError, match=r"of other.cxi, the peaks are of run_master.h5: give"):
        md.veto(subset, indexed=stream(("other.cxi", "//0")))
    assert md.veto(subset, indexed=stream(("run.cxi", "//4"))).indexed.values.tolist() == [False, False, True]
    with pytest.raises(MrczdaskError, match="other labels"):
        md.compare_peaks(table(3), table(3).assign_coords(shot=[0, 1, 3]))
    with pytest.raises(MrczdaskError, match="other labels"):
        md.veto(table(3), indexed=xr.DataArray([True] * 3, {"shot": [0, 1, 3]}, ("shot",)))
    backwards = table(3).assign_coords(shot=[2, 1, 0])
    found = md.compare_peaks(table(3), backwards, shells=[0, 2])
    assert int(found.n_matched[0]) == 1  # the labels say who is who, and only the middle one has its peak in place
