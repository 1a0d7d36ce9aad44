"""Of shots that were on a dead worker together only the one that ends workers fails again and again."""

from __future__ import annotations

import random

from hpcfwi.execution.retries import Suspects


def test_of_those_on_one_worker_one_is_tried_at_a_time():
    suspects = Suspects()
    suspects.add(1, "A")
    assert suspects.next(set()) == [1]
    suspects.add(2, "A")
    assert suspects.next(set()) == []
    assert suspects.next({1}) == [2]
    assert suspects.next({1, 2}) == []


def test_one_that_dies_again_waits_until_the_others_were_tried():
    suspects = Suspects()
    suspects.add(1, "A")
    suspects.next(set())
    suspects.add(2, "A")
    suspects.add(1, "B")
    assert suspects.next(set()) == [2]
    suspects.add(3, "B")
    assert suspects.next(set()) == []
    assert suspects.next({2}) == [1]
    assert suspects.next({2, 1}) == [3]


def test_those_of_different_workers_do_not_wait_for_each_other():
    suspects = Suspects()
    for shot in range(8):
        suspects.add(shot, f"worker {shot // 2}")
    assert suspects.next(set()) == [0, 2, 4, 6]
    assert suspects.next({0, 6}) == [1, 7]


def test_whatever_the_order_the_one_that_ends_workers_fails_most_often():
    """Workers of two shots each, of which every one that has a certain shot dies."""
    for seed in range(200):
        generator = random.Random(seed)
        suspects, done, deaths = Suspects(), set(), dict.fromkeys(range(12), 0)
        to_do, culprit, name = list(deaths), generator.randrange(12), 0
        while deaths[culprit] < 4:
            generator.shuffle(to_do)
            on_worker, to_do, name = to_do[:2], to_do[2:], name + 1
            assert on_worker
            if culprit in on_worker:
                for shot in on_worker:
                    deaths[shot] += 1
                    suspects.add(shot, str(name))
                    to_do += suspects.next(done)
            else:
                done |= set(on_worker)
                to_do += suspects.next(done)
        assert all(count <= 1 for shot, count in deaths.items() if shot != culprit)
