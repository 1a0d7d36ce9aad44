"""Snapshots of the wavefield that are computed again, from checkpoints."""

from __future__ import annotations

from typing import Any

import numpy as np
from checkpoint_schedules import Copy, EndForward, EndReverse, Forward, Move, Reverse, Revolve
from devito import Grid, SubDomain
from numpy.typing import NDArray

from hpcfwi.solver.spec import SolverSpec
from hpcfwi.solver.storage import SnapshotStorage, TimeLoop


class CheckpointedStorage(SnapshotStorage):
    """Keeps the state of the forward wavefield at the start of some segments, and computes their snapshots again.

    The schedule is the one with the fewest steps for a number of checkpoints (Revolve; Griewank and Walther 2000,
    doi:10.1145/347837.347846).
    """

    def __init__(self, kept: Grid | SubDomain, spec: SolverSpec) -> None:
        super().__init__(kept, spec)
        self._slots: list[tuple[NDArray, ...]] = []  # memory for checkpoints
        self._free: list[tuple[NDArray, ...]] = []
        self._kept: dict[int, tuple[NDArray, ...]] = {}  # by the segment that a checkpoint starts
        self._actions: Any = iter(())

    @property
    def nbytes(self) -> int:
        """Memory of the buffer and of the checkpoints, bytes."""
        return super().nbytes + self.spec.checkpoints * self.spec.state_bytes

    def forward(self, loop: TimeLoop) -> None:
        """Run all segments, and save the state before those that the schedule names."""
        self._first(loop, loop.segments, self.spec.checkpoints)

    def backward(self, loop: TimeLoop) -> None:
        """Run all segments back; run those forward again whose snapshots are not in the buffer."""
        self._follow(loop, EndReverse)

    def _first(self, loop: TimeLoop, segments: int, checkpoints: int) -> None:
        """Run the first segments forward, for :meth:`_follow` to run them back."""
        self._free = list(self._slots)
        self._kept.clear()
        if segments == 1:
            loop.forward(0)
            self._actions = iter((Reverse(1, 0, True), EndReverse()))
        else:
            self._actions = iter(Revolve(segments, min(checkpoints, segments - 1)))
            self._follow(loop, EndForward)

    def _follow(self, loop: TimeLoop, end: type) -> None:
        for action in self._actions:
            if isinstance(action, end):
                return
            if isinstance(action, Forward):
                if action.write_ics:
                    self._save(action.n0, loop.state())
                for segment in range(action.n0, action.n1):
                    loop.forward(segment)
            elif isinstance(action, Reverse):
                loop.adjoint(action.n0)
            elif isinstance(action, Copy | Move):
                for array, saved in zip(loop.state(), self._kept[action.n], strict=True):
                    array[:] = saved
                if isinstance(action, Move):
                    self._free.append(self._kept.pop(action.n))

    def _save(self, segment: int, state: tuple[NDArray, ...]) -> None:
        if not self._free:
            self._slots.append(tuple(np.empty_like(array) for array in state))
            self._free.append(self._slots[-1])
        slot = self._kept[segment] = self._free.pop()
        for array, saved in zip(state, slot, strict=True):
            saved[:] = array
