"""The helpers every benchmark measures and writes with."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks.common import Table, Timings, arguments, in_child, interleaved, machine, report, write_section


def test_a_table_is_markdown_with_numbers_to_the_right() -> None:
    table = Table("Sizes", ["codec", "MB", "of raw"], note="One movie.")
    table.add("zstd", 1234.4, 0.51234)
    table.add("a|b", None, True)
    assert table.markdown().splitlines() == [
        "### Sizes",
        "",
        "One movie.",
        "",
        "| codec |    MB | of raw |",
        "| ----- | ----: | ------ |",
        "| zstd  | 1,234 | 0.512  |",
        "| a\\|b  |     - | yes    |",
    ]


def test_a_row_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Sizes: 1 cells for the columns \['codec', 'MB'\]"):
        Table("Sizes", ["codec", "MB"]).add("zstd")


def test_interleaved_runs_in_turns_of_changing_order() -> None:
    calls: list[str] = []
    timings = interleaved(
        {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")},
        repeats=3,
        warmups=1,
        before=lambda: calls.append("-"),
    )
    assert "".join(calls) == "-b-a" + "-a-b" + "-b-a" + "-a-b"
    assert {name: len(seconds) for name, seconds in timings.seconds.items()} == {"a": 3, "b": 3}


def test_interleaved_measures_the_run_and_not_what_comes_before() -> None:
    timings = interleaved({"sleep": lambda: time.sleep(0.02)}, repeats=1, warmups=0, before=lambda: time.sleep(0.3))
    assert 0.02 <= timings.medians["sleep"] < 0.3


def test_times_faster_is_the_median_of_the_ratios_of_each_round() -> None:
    timings = Timings({"ours": [1.0, 10.0, 2.0], "peer": [3.0, 30.0, 2.0]})
    assert timings.times_faster("ours", than="peer") == 3.0
    assert timings.medians == {"ours": 2.0, "peer": 3.0}


def _fill(megabytes: int) -> tuple[int, int]:
    return int(np.ones(megabytes * 1_000_000, np.uint8).sum()), os.getpid()


def _fail() -> None:
    raise KeyError("no such codec")


def test_a_child_reports_value_time_and_its_own_memory() -> None:
    parent = np.ones(400_000_000, np.uint8)
    run = in_child(_fill, 200)
    total, pid = run.value
    assert total == 200_000_000
    assert pid != os.getpid()
    assert 195 < run.growth_mb < 300
    assert run.peak_mb < parent.nbytes / 1e6 + run.growth_mb
    assert run.seconds > 0


def test_a_child_hands_its_exception_on() -> None:
    with pytest.raises(KeyError, match="no such codec"):
        in_child(_fail)


def test_a_child_that_dies_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="_exit ended with exit status 3"):
        in_child(os._exit, 3)


def test_the_machine_is_named() -> None:
    line = machine()
    assert "cores" in line
    assert f"numpy {np.__version__}" in line


def test_a_section_is_replaced_and_the_others_stay(tmp_path: Path) -> None:
    document = tmp_path / "benchmarks.md"
    document.write_text("# Benchmarks\n\nHow.\n")
    write_section(document, "io", "first")
    write_section(document, "codecs", "second")
    write_section(document, "io", "third")
    assert document.read_text() == (
        "# Benchmarks\n\nHow.\n\n<!-- begin io -->\nthird\n<!-- end io -->\n\n"
        "<!-- begin codecs -->\nsecond\n<!-- end codecs -->\n"
    )


def test_a_section_that_is_not_closed_is_refused(tmp_path: Path) -> None:
    document = tmp_path / "benchmarks.md"
    document.write_text("<!-- begin io -->\nsomeone's text\n")
    with pytest.raises(ValueError, match="opened and not closed"):
        write_section(document, "io", "new")
    assert document.read_text() == "<!-- begin io -->\nsomeone's text\n"


def test_a_report_is_printed_and_kept_unless_quick(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = tmp_path / "benchmarks.md"
    table = Table("Sizes", ["codec", "MB"])
    table.add("zstd", 2)
    assert report("io", "Movies", [table], arguments("x", ["--quick", "--document", str(document)])) == 0
    assert "| zstd  |   2 |" in capsys.readouterr().out
    assert not document.exists()
    report("io", "Movies", [table], arguments("x", ["--document", str(document)]), pictures={"a.png": "Sizes"})
    kept = document.read_text()
    assert "| zstd  |   2 |" in kept
    assert "![Sizes](images/a.png)" in kept
    assert machine() in kept
