"""The pair of misfit and gradient, and the shape of its sum."""

import numpy as np

from hpcfwi.inversion.functional_gradient import BLOCK, FunctionalGradient, blocks, total


def pairs(count):
    rng = np.random.default_rng(0)
    return [FunctionalGradient(rng.random(), rng.standard_normal((4, 5))) for _ in range(count)]


def same(a, b):
    return a.f == b.f and np.array_equal(a.g, b.g)


def test_pairs_add_with_plus_and_with_sum():
    a, b, c = pairs(3)
    added = a + b
    assert added.f == a.f + b.f
    np.testing.assert_array_equal(added.g, a.g + b.g)
    assert same(sum([a, b, c]), a + b + c)


def test_total_is_sum_to_the_byte_and_leaves_its_parts_alone():
    parts = pairs(BLOCK)
    before = [part.g.copy() for part in parts]
    assert same(total(parts), sum(parts))
    assert all(np.array_equal(part.g, old) for part, old in zip(parts, before, strict=True))


def test_blocks_keep_the_order_and_lose_nothing():
    for count in (1, BLOCK, BLOCK + 1, 10 * BLOCK - 3):
        cut = list(blocks(range(count)))
        assert [i for block in cut for i in block] == list(range(count))
        assert max(len(block) for block in cut) <= BLOCK
