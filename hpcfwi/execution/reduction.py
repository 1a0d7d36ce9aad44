"""The sum over shots, without Dask: a tree whose shape depends only on their order and whose lower nodes may be on disk."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hpcfwi.errors import RunError
from hpcfwi.inversion.functional_gradient import BLOCK, FunctionalGradient, blocks, total
from hpcfwi.inversion.journal import Partials
from hpcfwi.inversion.objective import task_key

MAX_SUM_FAILURES = 4  # the run stops after this many failures of one sum
Node = tuple[int, int]  # level and position; the shots are level 0


class SumTree:
    """The summation tree of one evaluation: collects finished parts block by block, and returns the blocks ready to be added.

    A part is a handle to a remote result, such as a Dask future; its ``status`` is "error" or "cancelled" if it failed.
    ``keys`` are digests of everything that the shots' gradients depend on, in survey order. If gradients are ``small``, the
    driver adds the last block. ``partials`` keeps the sums of one level on disk under the name of the ``evaluation``.
    """

    def __init__(
        self, keys: Sequence[str], small: bool = False, partials: Partials | None = None, evaluation: str = ""
    ) -> None:
        self.small, self.partials = small, partials
        self.root: Any = None  # the sum of all shots, once it is known
        self.keys = [list(keys)]
        while len(self.keys[-1]) > 1:
            # the key includes the place in the tree: blocks of equal shots are different tasks
            level = len(self.keys)
            self.keys.append([task_key("sum", level, i, *block) for i, block in enumerate(blocks(self.keys[-1]))])
        self._parts: list[dict[int, Any]] = [{} for _ in self.keys]
        self._adding: dict[Node, dict[int, Any]] = {}
        self._fetched: dict[int, FunctionalGradient] = {}
        self._failures: dict[Node, int] = {}
        wanted = partials.level(len(keys)) if partials is not None else None
        # the journal keeps the root
        self.kept_level = None if wanted is None or len(self.keys) < 2 else min(wanted, len(self.keys) - 2)
        self.kept_shots = BLOCK ** (self.kept_level or 0)  # in a sum that is kept on disk; 1 if no sums are kept
        self._known = partials.begin(evaluation) if partials is not None else set()

    def file_of(self, node: Node) -> Path | None:
        """The file of a node; None if the node is not kept on disk."""
        if self.partials is None or node[0] != self.kept_level:
            return None
        # nodes of equal shots may share a file: their sums are equal
        return self.partials.path(self.keys[node[0]][node[1]])

    def nodes_on_disk(self) -> dict[Node, range]:
        """Nodes that an earlier start has left on disk, with their shots."""
        if self.kept_level is None:
            return {}
        found = [(self.kept_level, i) for i, key in enumerate(self.keys[self.kept_level]) if key in self._known]
        return {node: self.shots(node) for node in found}

    def key(self, node: Node) -> str:
        """The key of a node; a new one after each failure."""
        times = self._failures.get(node, 0)
        return f"{self.keys[node[0]][node[1]]}{f'-again{times}' if times else ''}"

    def batches(self, missing: Sequence[int]) -> list[range]:
        """Blocks whose shots are all missing."""
        wanted = set(missing)
        every = [self.shots((1, i)) for i in range(len(self.keys[1]) if len(self.keys) > 1 else 0)]
        return [shots for shots in every if wanted.issuperset(shots)]

    def shots(self, node: Node) -> range:
        """Indices of the shots in a node."""
        level, position = node
        return range(position * BLOCK**level, min((position + 1) * BLOCK**level, len(self.keys[0])))

    def is_fetched(self, node: Node) -> bool:
        """Whether the driver fetches a node: the root, or the parts of a root that the driver adds itself."""
        above = len(self.keys) - 1 - node[0]
        return above == 0 or (above == 1 and self.small)

    def add(self, node: Node, part: Any) -> Node | None:
        """Add a finished part; return the node above it if all parts of that node are now finished."""
        level, position = node
        self._adding.pop(node, None)  # the parts of a finished sum are no longer needed
        parts, above = self._parts[level], position // BLOCK
        parts[position] = part
        members = range(above * BLOCK, min((above + 1) * BLOCK, len(self.keys[level])))
        if not all(member in parts for member in members):
            return None
        self._adding[level + 1, above] = {member: parts.pop(member) for member in members}
        return level + 1, above

    def parts_of(self, node: Node) -> list[Any]:
        """The parts of a sum in progress, in survey order."""
        return list(self._adding[node].values())

    def add_fetched(self, node: Node, value: FunctionalGradient) -> None:
        """Add the value of a node that the driver has fetched."""
        level, position = node
        self._adding.pop(node, None)
        if len(self.keys[level]) == 1:
            self.root = value
            return
        self._fetched[position] = value
        if len(self._fetched) == len(self.keys[level]):
            self.root = total([self._fetched[i] for i in range(len(self._fetched))])

    def repair(self, node: Node, reason: str) -> tuple[dict[int, Any], list[int]]:
        """Return what a failed sum or file needs: its failed shots, with their parts, and lost shots to compute again.

        If both are empty, all parts exist, and only the sum has to be repeated. Otherwise, parts were lost with their workers
        and failed when Dask computed them again. Raises RunError if the same sum has failed too often.
        """
        parts = self._adding.get(node)
        if parts is None:
            return {}, list(self.shots(node))
        level = node[0]
        broken = {place: part for place, part in parts.items() if part.status in ("error", "cancelled")}
        if not broken:
            times = self._failures[node] = self._failures.get(node, 0) + 1
            if times >= MAX_SUM_FAILURES:
                raise RunError(f"a sum of gradients failed {times} times, the last time with: {reason}")
            return {}, []
        del self._adding[node]
        self._parts[level - 1].update({place: part for place, part in parts.items() if place not in broken})
        if level == 1:
            return broken, []
        return {}, [shot for place in broken for shot in self.shots((level - 1, place))]
