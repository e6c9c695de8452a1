"""Run all benchmarks, or those named, each in a process of its own; their tables go to docs/benchmarks.md."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence

from benchmarks.common import KEEP_MEMORY, ROOT

DRIVERS = {"common", "run"}


def available() -> list[str]:
    """Return the names of the benchmarks: every module of this folder that defines `main`."""
    files = sorted((ROOT / "benchmarks").glob("*.py"))
    return [file.stem for file in files if file.stem not in DRIVERS and "\ndef main(" in file.read_text("utf-8")]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmarks in turn; return 1 when one of them failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {', '.join(available()) or 'none yet'}; default all"
    )
    parser.add_argument("--quick", action="store_true", help="small inputs, a few seconds each, nothing kept")
    options = parser.parse_args(argv)
    unknown = sorted(set(options.names) - set(available()))
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}: there are {', '.join(available())}")
    failed = []
    for name in options.names or available():
        print(f"== {name}", flush=True)
        command = [sys.executable, "-m", f"benchmarks.{name}", *(["--quick"] if options.quick else [])]
        if subprocess.run(command, cwd=ROOT, env=os.environ | KEEP_MEMORY, check=False).returncode:
            failed.append(name)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
