"""A short run of the fuzzer of MRC files, and proofs that it would notice what it looks for."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.fuzz.mrc_mutations import corpus, mutate

HERE = Path(__file__).parent


def test_three_thousand_mutated_files() -> None:
    """In a process of its own: it forks, and this one may have threads."""
    command = [sys.executable, str(HERE / "fuzz_mrc.py"), "--count", "3000", "--seed", "7"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    said = re.search(r"3000 mutated files in \d+ s: (.*)", done.stdout)
    assert said is not None
    assert re.search(r"'read': [1-9]\d\d", said.group(1))
    assert re.search(r"'refused': [1-9]\d\d", said.group(1))


BAD_CASES = """
import os, signal, sys, time
sys.path.insert(0, {root!r})
from tests.fuzz import forks
forks.SLOW_SECONDS = 1.0

def case(number):
    if number == 3:
        os.kill(os.getpid(), signal.SIGSEGV)
    if number == 5:
        time.sleep(60)
    if number == 8:
        bytearray(4 << 30)
    if number == 11:
        raise KeyError("a")
    return "fine"

tally = forks.run_forked(case, range(20), 2)
print(dict(tally.outcomes))
for number, why in sorted(tally.failures):
    print(number, why)
"""


def test_crashes_hangs_memory_and_exceptions_are_noticed() -> None:
    root = str(HERE.parents[1])
    done = subprocess.run(
        [sys.executable, "-c", BAD_CASES.format(root=root)], capture_output=True, text=True, timeout=60, check=True
    )
    outcomes, *failures = done.stdout.splitlines()
    assert eval(outcomes) == {"fine": 16, "failed": 4}
    assert [line.split(" (")[0] for line in failures] == [
        "3 ended its process with signal SIGSEGV",
        "5 took more than 1 s",
        "8 MemoryError: ",
        "11 KeyError: 'a'",
    ]


def test_a_case_can_be_repeated() -> None:
    seeds = corpus()
    for number in range(50):
        first, again = (mutate(seeds, np.random.default_rng([3, number])) for _ in range(2))
        assert first == again
    assert len({mutate(seeds, np.random.default_rng([3, number])).raw for number in range(50)}) > 45


def test_seeds_are_not_changed_by_mutation() -> None:
    seeds = corpus()
    before = [seed.raw for seed in seeds]
    rng = np.random.default_rng(0)
    for _ in range(500):
        mutate(seeds, rng)
    assert [seed.raw for seed in seeds] == before
    assert len(seeds) > 90


@pytest.mark.parametrize("path", sorted(HERE.glob("fuzz_*.py")), ids=lambda path: path.stem)
def test_every_fuzzer_takes_a_count_and_a_seed(path: Path) -> None:
    done = subprocess.run([sys.executable, str(path), "--help"], capture_output=True, text=True, timeout=60, check=True)
    assert "--count" in done.stdout
    assert "--seed" in done.stdout


def test_the_driver_runs_a_fuzzer() -> None:
    command = [sys.executable, str(HERE / "run.py"), "--only", "mrc", "--count", "20"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "20 mutated files" in done.stdout
    assert "1 fuzzers, nothing failed" in done.stdout


def test_a_fuzzer_that_is_not_there() -> None:
    command = [sys.executable, str(HERE / "run.py"), "--only", "nothing"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "there are" in done.stderr
