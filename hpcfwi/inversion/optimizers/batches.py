"""Batches of shots: spread over the survey, in a random order that a seed decides."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from hpcfwi.inversion.optimizers.base import Subset


class Batches(Iterator[Subset]):
    """Endless batches of ``size`` of the ``shots`` of a survey, each spread over it.

    The shots, in survey order, are cut into ``size`` groups of consecutive shots, whose sizes differ by one at most. Each batch
    has one shot of each group. A group is passed through in a random order, then in another one, so that its shots come equally
    often; a shot never comes twice in a row unless it is alone in its group. If ``size`` divides ``shots``, each epoch of
    ``shots / size`` batches has every shot once.

    The orders sort numbers of PCG64 (O'Neill 2014), whose stream NumPy keeps for a seed; those of ``Generator.permutation`` may
    change with its version.
    """

    def __init__(self, shots: int, size: int, seed: int) -> None:
        self._bits = np.random.PCG64(seed)
        self._groups = np.array_split(np.arange(shots), size)
        self._waiting: list[list[int]] = [[] for _ in self._groups]  # of each group, the next shot last
        self._last = [-1] * size

    def __next__(self) -> Subset:
        """The next batch, in survey order."""
        return tuple(self._draw(number) for number in range(len(self._groups)))

    def _draw(self, number: int) -> int:
        waiting = self._waiting[number]
        if not waiting:
            group = self._groups[number]
            order = group[np.argsort(self._bits.random_raw(len(group)), kind="stable")].tolist()
            if order[-1] == self._last[number]:
                order.insert(0, order.pop())
            waiting.extend(order)
        self._last[number] = waiting.pop()
        return self._last[number]


def spread(shots: Subset, size: int, bits: np.random.PCG64) -> Subset:
    """Choose ``size`` of some shots at random: one of each of as many groups of consecutive ones."""
    groups = np.array_split(np.array(shots, dtype=int), size)
    return tuple(int(group[bits.random_raw() % len(group)]) for group in groups if len(group))
