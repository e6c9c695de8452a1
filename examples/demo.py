"""The main job of every capability on generated data, in under three minutes: `make demo`.

Writes files and pictures to the folder given by --out and prints what it did and what it proved.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from demo_steps import archive, blind_gain, counting_codecs, formats, normalisation, outliers, peaks, sparse_diffraction

STEPS = (
    ("Open, convert and prove equal: MRC, MRCZ, Zarr", formats.run),
    ("Find outlier pixels and fill them", outliers.run),
    ("Correct a session: gain, outliers, KOMA", normalisation.run),
    ("Estimate the gain from the movies alone", blind_gain.run),
    ("A session as one archive: lose nothing", archive.run),
    ("Two codecs for counting detectors, in Zarr", counting_codecs.run),
    ("Keep the Bragg peaks of diffraction frames, and make frames again", sparse_diffraction.run),
    ("Find Bragg peaks, tell hits from blanks, write them for CrystFEL", peaks.run),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("demo"))
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    begin = time.perf_counter()
    for number, (title, run) in enumerate(STEPS, 1):
        print(f"\n{number}. {title}")
        run(out)
    print(f"\ndone in {time.perf_counter() - begin:.0f} s; look into {out.resolve()}:")
    for picture in sorted(out.glob("*.png")):
        print(f"  {picture.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
