"""Decode 100 000 mutated streams of both codecs: python tests/fuzz/fuzz_codecs.py [--count N] [--seed N].

Each must be refused with a CodecError or decode to the shape it announces, in less than ten seconds. Run it once with
NUMBA_BOUNDSCHECK=1 (and an empty NUMBA_CACHE_DIR) to see accesses outside arrays as well.
"""

from __future__ import annotations

import argparse
import collections
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.codecs.mutations import decode, mutations, valid_streams

MOST_BYTES = 1 << 20
SLOW_SECONDS = 10.0


def main(argv: list[str] | None = None) -> int:
    """Run the mutations; exit status 1 when a decoder did anything else than refuse or decode."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, nargs="*", help="numbers of the streams to mutate")
    options = parser.parse_args(argv)
    rng = np.random.default_rng(options.seed)
    streams = valid_streams(options.only)
    outcomes: collections.Counter[str] = collections.Counter()
    for codec, stream in streams:
        decode(codec, stream, MOST_BYTES)  # compiles, untimed
        for mutant in mutations(stream, -(-options.count // len(streams)), rng):
            start = time.perf_counter()
            try:
                outcomes[decode(codec, mutant, MOST_BYTES)] += 1
            except Exception as error:
                outcomes["failed"] += 1
                print(f"{codec}: {type(error).__name__}: {error}: {mutant.hex()}")
            if time.perf_counter() - start > SLOW_SECONDS:
                outcomes["slow"] += 1
                print(f"{codec}: {time.perf_counter() - start:.1f} s: {mutant.hex()}")
    print(f"{sum(outcomes.values())} mutated streams: {dict(outcomes)}")
    return 1 if outcomes["failed"] or outcomes["slow"] else 0


if __name__ == "__main__":
    sys.exit(main())
