"""The sum over shots: a tree whose shape depends on their order alone, and whose lower nodes may be on disk already."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from distributed import Client, Future

from hpcfwi.errors import RunError
from hpcfwi.execution.batching import BATCH_KEY
from hpcfwi.execution.tasks import add_parts, load_part
from hpcfwi.inversion.journal import Partials
from hpcfwi.inversion.misfit import BLOCK, FunctionalGradient, blocks, total
from hpcfwi.inversion.objective import task_key

__all__ = ["KINDS", "SumTree", "task_key"]

# What the keys of its tasks begin with, up to a hyphen.
KINDS = ADDING, READING = "sum", "load"
# Failures of one sum after which the run stops.
ATTEMPTS = 4


class SumTree:
    """Adds finished parts block by block; a block is submitted when the last of its parts is there.

    Parameters
    ----------
    client
        Where sums are made.
    keys
        Of the shots, in their order: digests of all that their gradients depend on.
    small
        Whether the last sum is made here.
    partials, evaluation
        Where sums of one level are kept, and the name of the evaluation.
    fetch
        Brings a finished sum here.
    """

    def __init__(
        self,
        client: Client,
        keys: Sequence[str],
        small: bool = False,
        partials: Partials | None = None,
        evaluation: str = "",
        fetch: Callable[[Future], Any] = Future.result,
    ) -> None:
        self.client = client
        self.fetch = fetch
        self.small = small
        self.root: Any = None
        self.fetched: dict[int, FunctionalGradient] = {}
        self.keys = [list(keys)]
        while len(self.keys[-1]) > 1:
            # the place in the tree is part of the name: blocks of equal shots are not the same task
            level = len(self.keys)
            self.keys.append([task_key("sum", level, i, *block) for i, block in enumerate(blocks(self.keys[-1]))])
        self.parts: list[dict[int, Future]] = [{} for _ in self.keys]
        # where a sum that is being made, or a part that is being read, belongs, by its key; and the parts of sums
        self.places: dict[str, tuple[int, int]] = {}
        self.adding: dict[tuple[int, int], dict[int, Future]] = {}
        self.failures: dict[tuple[int, int], int] = {}
        self.partials = partials
        wanted = partials.level(len(keys)) if partials is not None else None
        # the root itself is for the journal to keep
        self.kept_level = None if wanted is None or len(self.keys) < 2 else min(wanted, len(self.keys) - 2)
        self.known = partials.begin(evaluation) if partials is not None and self.kept_level is not None else set()

    @property
    def kept_shots(self) -> int:
        """Shots in a sum that is kept; 1 where none are."""
        return BLOCK ** (self.kept_level or 0)

    def kept_at(self, level: int, position: int) -> Path | None:
        """Where a node is kept, if it is one of those that are."""
        if self.partials is None or level != self.kept_level:
            return None
        # equal shots have equal keys, but their gradients are equal, too
        return self.partials.path(self.keys[level][position])

    def load(self) -> tuple[list[Future], set[int]]:
        """Start to read the nodes that are on disk; tell which shots are in them."""
        futures: list[Future] = []
        covered: set[int] = set()
        if self.kept_level is None:
            return futures, covered
        for position, name in enumerate(self.keys[self.kept_level]):
            if name in self.known:
                key = f"{READING}-{name}-{position}"
                self.places[key] = (self.kept_level, position)
                path = self.kept_at(self.kept_level, position)
                futures.append(self.client.submit(load_part, path, key=key, pure=False, priority=10))
                covered.update(self._shots(self.kept_level, position))
        return futures, covered

    def bundles(self, missing: Sequence[int]) -> dict[str, range]:
        """Blocks whose shots are all missing, by the keys of the tasks that compute them in one go."""
        if len(self.keys) < 2:
            return {}
        wanted = set(missing)
        named = {f"{BATCH_KEY}-{name}": self._shots(1, position) for position, name in enumerate(self.keys[1])}
        return {key: shots for key, shots in named.items() if wanted.issuperset(shots)}

    def _shots(self, level: int, position: int) -> range:
        """Indices of the shots that are in a node."""
        return range(position * BLOCK**level, min((position + 1) * BLOCK**level, len(self.keys[0])))

    def failed(self, future: Future) -> tuple[Future | None, dict[int, Future], list[int]]:
        """What is to be done about a sum that failed, or a node that could not be read.

        Returns
        -------
        tuple
            The sum, made once more; shots that have failed after they had been finished (they were lost with their worker
            and computed anew), with their tasks; shots that are to be computed again. In the last two cases the sum will
            be made when all of its parts are there again.

        Raises
        ------
        RunError
            If the same sum has failed too often.
        """
        level, position = self.places.pop(future.key)
        parts = self.adding.pop((level, position), None)
        if parts is None:
            return None, {}, list(self._shots(level, position))
        broken = {place: part for place, part in parts.items() if part.status in ("error", "cancelled")}
        if not broken:
            times = self.failures[level, position] = self.failures.get((level, position), 0) + 1
            if times >= ATTEMPTS:
                raise RunError(f"a sum of gradients failed {times} times, the last time so: {future.exception()}")
            return self._add(level, position, parts, f"-again{times}"), {}, []
        self.parts[level - 1].update({place: part for place, part in parts.items() if place not in broken})
        if level == 1:
            return None, broken, []
        return None, {}, [shot for place in broken for shot in self._shots(level - 1, place)]

    def take(self, place: tuple[int, int] | None, future: Future) -> Future | None:
        """Put a finished part in its place, level and position; returns the sum that can now be made, if any.

        The place of what was started here, a sum or a node that is read, is known; for those it is None.
        """
        level, position = place or self.places[future.key]
        if len(self.keys[level]) == 1:
            self.root = self.fetch(future)
            self.adding.clear()
            return None
        if self.small and len(self.keys[level + 1]) == 1:
            self.fetched[position] = self.fetch(future)
            self._made(future, level, position)
            if len(self.fetched) == len(self.keys[level]):
                self.root = total([self.fetched[i] for i in range(len(self.fetched))])
            return None
        self._made(future, level, position)
        parts, above = self.parts[level], position // BLOCK
        parts[position] = future
        members = range(above * BLOCK, min((above + 1) * BLOCK, len(self.keys[level])))
        if not all(member in parts for member in members):
            return None
        return self._add(level + 1, above, {member: parts.pop(member) for member in members})

    def _made(self, future: Future, level: int, position: int) -> None:
        """Let the parts of a sum go that is there."""
        self.places.pop(future.key, None)
        self.adding.pop((level, position), None)

    def _add(self, level: int, position: int, parts: dict[int, Future], again: str = "") -> Future:
        """Start a sum; its parts are let go when it is there."""
        key = f"{ADDING}-{self.keys[level][position]}{again}"
        self.places[key] = (level, position)
        self.adding[level, position] = parts
        kept = self.kept_at(level, position)
        # sums go before shots, since they free memory
        return self.client.submit(add_parts, list(parts.values()), kept, key=key, pure=False, priority=10)
