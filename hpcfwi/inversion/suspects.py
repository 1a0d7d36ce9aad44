"""Shots whose worker died, and which of them may be tried again now."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field

__all__ = ["Suspects"]


@dataclass
class _Group:
    """Shots of which one may have ended their workers, and the one that is being tried again."""

    workers: set[str] = field(default_factory=set)
    waiting: deque[int] = field(default_factory=deque)
    tried: int | None = None


class Suspects:
    """Tries shots that were on a dead worker together one at a time.

    A worker has two shots or more in hand. Where one of them ends it, all of them have failed; started again together, they
    would fail together until the run stops with the name of the wrong one.
    """

    def __init__(self) -> None:
        self._groups: list[_Group] = []

    def add(self, shot: int, worker: str) -> None:
        """Note that a shot was on a worker that has died."""
        all_of_them = _Group({worker})
        for group in [group for group in self._groups if worker in group.workers or group.tried == shot]:
            self._groups.remove(group)
            all_of_them.workers |= group.workers
            all_of_them.waiting += group.waiting
            if group.tried != shot:
                all_of_them.tried = group.tried
        all_of_them.waiting.append(shot)
        self._groups.append(all_of_them)

    def next(self, done: Collection[int]) -> list[int]:
        """Shots to be started now, given those that are done."""
        started = []
        for group in self._groups:
            if group.tried in done:
                group.tried = None
            if group.tried is None and group.waiting:
                group.tried = group.waiting.popleft()
                started.append(group.tried)
        self._groups = [group for group in self._groups if group.tried is not None]
        return started
