"""Run every fuzzer of this folder: python tests/fuzz/run.py [--count N] [--seed N] [--only NAME ...]."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
COUNT = 100_000


def fuzzers() -> list[Path]:
    """The programs `fuzz_*.py` beside this one; each takes --count and --seed, and ends with status 0 or 1."""
    return sorted(HERE.glob("fuzz_*.py"))


def main(argv: list[str] | None = None) -> int:
    """Run them one after another; exit status 1 when any found a failure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=COUNT, help="mutated inputs of each fuzzer")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", help="names such as mrc or codecs")
    options = parser.parse_args(argv)
    chosen = [path for path in fuzzers() if not options.only or path.stem.removeprefix("fuzz_") in options.only]
    if not chosen:
        parser.error(f"no such fuzzer; there are {', '.join(path.stem.removeprefix('fuzz_') for path in fuzzers())}")
    failed = []
    for path in chosen:
        print(f"== {path.stem}", flush=True)
        command = [sys.executable, str(path), "--count", str(options.count), "--seed", str(options.seed)]
        if subprocess.run(command, check=False).returncode:
            failed.append(path.stem)
    print(f"failed: {', '.join(failed)}" if failed else f"{len(chosen)} fuzzers, nothing failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
