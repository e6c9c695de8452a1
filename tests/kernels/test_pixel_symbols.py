"""Pixels as symbols: joint tables against probabilities, the kind of class, and stacks that come back."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import poisson

from mrczdask.kernels import class_tables as tables
from mrczdask.kernels import pixel_symbols as symbols
from mrczdask.kernels import rans


@pytest.mark.parametrize(("kind", "values", "per"), [(tables.QUAD, 4, 4), (tables.PAIR, 16, 2)])
@pytest.mark.parametrize("mean", [0.05, 0.3, 1.0])
def test_joint_tables_are_products(kind: int, values: int, per: int, mean: float) -> None:
    counts = np.zeros(256, np.int64)
    counts[:values] = np.rint(1e6 * poisson.pmf(np.arange(values), mean))
    single = rans.normalise(counts)
    joint = np.empty(256, np.uint16)
    assert tables.joint_table(single, kind, joint)
    assert joint.sum() == 4096
    p = single / 4096
    parts = [(np.arange(256) >> (8 // per * k)) & (values - 1) for k in range(per)]
    product = np.prod([p[part] for part in parts], axis=0)
    coded = joint > 0
    assert product[~coded].max(initial=0) < 768 / 2**24 + 1e-9
    rest = np.arange(256) != product.argmax()
    np.testing.assert_allclose(joint[coded & rest], np.maximum(product[coded & rest] * 4096, 1), atol=0.51)


@pytest.mark.parametrize(
    ("mean", "kind"), [(0.1, tables.QUAD), (1.0, tables.PAIR), (30.0, tables.DIRECT), (5000.0, tables.TOKEN)]
)
def test_the_kind_follows_the_mean(mean: float, kind: int) -> None:
    from mrczdask.kernels.bits import token_of

    values = np.random.default_rng(0).poisson(mean, 100_000)
    values -= values.min()
    direct = np.bincount(values[values < 256], minlength=256)
    tokens = np.bincount([token_of(v)[0] for v in values], minlength=256)
    chosen, _, bits = tables.choose_kind(direct, tokens)
    assert chosen == kind
    law = poisson.entropy(mean) / np.log(2) if mean < 1000 else 0.5 * np.log2(2 * np.pi * np.e * mean)
    assert bits == pytest.approx(float(law), rel=0.02)


@pytest.mark.parametrize("rows", [4, 5, 6, 7, 8])
@pytest.mark.parametrize("block", [4, 8])
def test_rows_that_fill_no_group(rows: int, block: int) -> None:
    rng = np.random.default_rng(0)
    stack = np.zeros((8, 50), np.uint16)
    stack[:rows] = rng.poisson(0.5, (rows, 50))
    stack[:, 20:] += rng.poisson(40, (8, 30)).astype(np.uint16)
    class_of = (np.arange(50) >= 20).astype(np.uint8)
    members, bases = np.bincount(class_of), np.array([0, 5])
    kinds = np.array([tables.PAIR, tables.TOKEN])
    flat = np.full((2, 256), 16, np.uint16)
    order = symbols.order_by_class(class_of, members)
    ok, coded, extra, n_bits, patches = symbols.symbolise(stack, rows, 0, block, order, members, kinds, bases, flat)
    assert ok
    assert coded.size == 20 * -(-rows // 2) + 30 * rows
    back = np.zeros_like(stack)
    padded = np.append(extra, np.zeros(2, np.uint64))
    assert symbols.pixels_of(coded, back, rows, 0, block, order, members, kinds, bases, padded, n_bits)
    assert patches.size == 0
    np.testing.assert_array_equal(back[:rows], stack[:rows])


def test_patches_outside_the_stack_are_refused() -> None:
    values, class_of, bases = np.zeros(100, np.uint8), np.zeros(0, np.uint8), np.array([3])
    assert symbols.apply_patches(values, 1, 10, class_of, bases, np.array([[7, 2], [92, 0]]))
    assert (values[7], values[99]) == (6, 4)
    assert not symbols.apply_patches(values, 1, 10, class_of, bases, np.array([[7, 2], [93, 0]]))
    assert not symbols.apply_patches(values, 1, 10, class_of, bases, np.array([[1 << 55, 0]]))
