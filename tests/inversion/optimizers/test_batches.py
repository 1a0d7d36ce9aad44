"""Batches are spread over the survey, visit every shot equally often, and depend on the seed alone."""

from collections import Counter
from itertools import islice, pairwise

import numpy as np
import pytest

from hpcfwi.inversion.optimizers.batches import Batches, spread


def batches(shots, size, count, seed=0):
    return list(islice(Batches(shots, size, seed), count))


@pytest.mark.parametrize(("shots", "size"), [(16, 4), (12, 1), (9, 3), (5, 5)])
def test_an_epoch_has_every_shot_once(shots, size):
    epoch = shots // size
    found = batches(shots, size, 3 * epoch)
    for start in range(0, len(found), epoch):
        assert sorted(shot for batch in found[start : start + epoch] for shot in batch) == list(range(shots))


@pytest.mark.parametrize(("shots", "size"), [(16, 4), (17, 4), (101, 7), (10, 9), (3, 2)])
def test_each_batch_has_one_shot_of_each_part_of_the_survey(shots, size):
    groups = np.array_split(np.arange(shots), size)
    for batch in batches(shots, size, 50):
        assert list(batch) == sorted(set(batch))
        assert all(shot in group for shot, group in zip(batch, groups, strict=True))


@pytest.mark.parametrize(("shots", "size"), [(17, 4), (101, 7), (10, 9)])
def test_where_the_size_does_not_divide_the_shots_of_a_group_still_come_equally_often(shots, size):
    found = batches(shots, size, 60)
    counts = Counter(shot for batch in found for shot in batch)
    for group in np.array_split(np.arange(shots), size):
        often = [counts[shot] for shot in group]
        assert max(often) - min(often) <= 1
        assert sum(often) == 60


@pytest.mark.parametrize(("shots", "size"), [(16, 4), (8, 4), (17, 8)])
def test_no_shot_is_in_two_batches_in_a_row(shots, size):
    for first, second in pairwise(batches(shots, size, 200)):
        assert not set(first) & set(second)


def test_the_seed_decides():
    assert batches(40, 8, 20) == batches(40, 8, 20)
    assert batches(40, 8, 20) != batches(40, 8, 20, seed=1)


def test_the_order_of_a_seed_is_that_of_sorted_numbers_of_its_stream():
    """NumPy promises the stream of a bit generator: a run goes on with another version of NumPy."""
    numbers = np.random.PCG64(7).random_raw(6)
    assert [batch[0] for batch in batches(6, 1, 6, seed=7)] == np.argsort(numbers)[::-1].tolist()


def test_a_part_of_a_batch_is_spread_over_it():
    bits, chosen = np.random.PCG64(0), Counter()
    for _ in range(100):
        part = spread((1, 4, 8, 13, 17, 22), 2, bits)
        assert part[0] in (1, 4, 8)
        assert part[1] in (13, 17, 22)
        chosen.update(part)
    assert len(chosen) == 6
    assert spread((3, 5), 2, bits) == (3, 5)
