#!/usr/bin/env bash
# imagecodecs 2026.3.6, eer_decode: the grid may be asked finer than the stream knows, and no error says so.
#
# An EER stream of compression 65002 tells in its tags how many bits place an electron inside its pixel. A stream of
# 1 + 1 bits decodes rightly on the grid of twice the pixels (superres=1). Asked for four times (superres=2), one would
# expect a refusal, as for a shape that does not fit: the electron is given all the same, in a place of the wrong
# quarter of its pixel. With 3 + 3 bits superres=1 is wrong too, though the stream knows more than is asked for.
# Seen: "1+1 bits, superres 1: right", "1+1 bits, superres 2: wrong", "3+3 bits, superres 1: wrong".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q imagecodecs==2026.3.6 numpy
"$folder/venv/bin/python" - <<'PY'
import imagecodecs
import numpy as np

assert imagecodecs.__version__ == "2026.3.6", imagecodecs.__version__
SIDE, PIXEL = 8, 19


def stream(bits, x, y):
    """One electron: 7 bits of skipped pixels, then x and y inside the pixel, the first bit of each inverted."""
    out = []
    for value, n in ((PIXEL, 7), (x ^ 1 << bits - 1, bits), (y ^ 1 << bits - 1, bits), (SIDE * SIDE - PIXEL - 1, 7)):
        out += [value >> k & 1 for k in range(n)]
    out += [1] * (-len(out) % 16)
    return np.packbits(np.array(out, "u1"), bitorder="little").tobytes()


def right(bits, superres):
    """Whether every place inside the pixel is drawn in the right part of it."""
    for x in range(1 << bits):
        for y in range(1 << bits):
            out = np.zeros((SIDE << superres, SIDE << superres), bool)
            imagecodecs.eer_decode(stream(bits, x, y), out.shape, 7, bits, bits, superres=superres, out=out)
            shift = bits - superres
            row, col = (v >> shift if shift >= 0 else v << -shift for v in (y, x))
            size = 1 << max(-shift, 0)
            top, left = ((PIXEL // SIDE) << superres) + row, ((PIXEL % SIDE) << superres) + col
            if out.sum() != 1 or not out[top : top + size, left : left + size].any():
                return False
    return True


found = [(bits, superres, right(bits, superres)) for bits, superres in ((1, 1), (2, 1), (2, 2), (1, 2), (3, 1))]
for bits, superres, is_right in found:
    print(f"{bits}+{bits} bits, superres {superres}: {'right' if is_right else 'wrong'}")
assert [is_right for *_, is_right in found] == [True, True, True, False, False], "the behaviour has changed"
PY
