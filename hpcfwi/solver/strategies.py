"""Wavefield strategies: ways to have the forward wavefield in reverse order, and what each takes."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING

from hpcfwi.solver.spec import SolverSpec

if TYPE_CHECKING:
    from hpcfwi.model.problem import Problem

# By their names in solver.wavefield: the storage, and the time of a gradient over that of "sampled"; for "checkpointed" without
# the steps that are repeated. tests/benchmarks/physics.py measures them.
STRATEGIES = {
    "sampled": ("snapshots", 1.0),
    "compressed": ("compressed", 1.1),
    "disk": ("disk", 1.1),
    "checkpointed": ("checkpointed", 1.0),
    "full": ("snapshots", 1.15),
}
# "auto" takes one of these: their results have the same bytes, and a disk's space is not known beforehand.
AUTOMATIC = ("sampled", "checkpointed")
# The forward steps' share of a gradient's time.
FORWARD_SHARE = 0.5
# A segment has about this share of all snapshots, and at least 4.
BUFFER_SHARE = 1 / 48
MAX_SEGMENTS = 60
# Checkpoints in memory that take the place of a disk if it fails.
EMERGENCY_CHECKPOINTS = 3


@dataclass(frozen=True)
class Strategy:
    """A wavefield strategy for a problem."""

    name: str  # in solver.wavefield
    spec: SolverSpec
    time: float  # of a gradient, over that of "sampled"; an estimate


def strategies(problem: Problem, wanted: str = "") -> list[Strategy]:
    """The strategies that a run may take, the fastest first: one, or several if ``solver.wavefield`` is ``"auto"``.

    ``wanted`` takes the place of ``solver.wavefield``.
    """
    wanted = wanted or problem.config.solver.wavefield
    found = [find_strategy(problem, name) for name in (AUTOMATIC if wanted == "auto" else (wanted,))]
    if found[-1].name == "checkpointed":
        spec = found[-1].spec
        with_less = spec.nbytes - (spec.nbytes - spec.fixed_bytes) // 2
        smaller = find_strategy(problem, "checkpointed", with_less)
        if smaller.spec.nbytes <= with_less:
            found.append(smaller)
    return found


def find_strategy(problem: Problem, name: str, memory: int | None = None) -> Strategy:
    """A strategy by its name; ``"checkpointed"`` is as fast as ``memory``, bytes of a worker, allows.

    Without ``memory``, it takes as little as it can if no step is computed more than twice.
    """
    storage, time = STRATEGIES[name]
    spec = divided(SolverSpec.from_problem(problem, every_step=name == "full"), storage, memory)
    if storage == "checkpointed":
        time += FORWARD_SHARE * (forward_runs(spec.segments, spec.checkpoints) - 1)
    return Strategy(name, spec, time)


def divided(spec: SolverSpec, storage: str, memory: int | None = None) -> SolverSpec:
    """A specification with another storage, and the segments and checkpoints that it needs."""
    spec = replace(spec, storage=storage)
    if storage == "checkpointed":
        return _with_checkpoints(spec, memory)
    if storage != "snapshots":
        spec = replace(spec, segment_snapshots=4 * max(1, math.floor(spec.snapshots * BUFFER_SHARE / 4)))
    return replace(spec, checkpoints=EMERGENCY_CHECKPOINTS) if storage == "disk" else spec


def _with_checkpoints(spec: SolverSpec, memory: int | None) -> SolverSpec:
    """The fastest number of segments and checkpoints that fits; if none does, the smallest."""
    found = []
    for wanted in range(2, min(MAX_SEGMENTS, spec.snapshots) + 1):
        divided = replace(spec, segment_snapshots=math.ceil(spec.snapshots / wanted), checkpoints=0)
        if divided.segments < 2:
            continue
        enough = divided.segments - 1
        if memory is None:
            found.append(replace(divided, checkpoints=enough))
        else:
            fitting = (memory - divided.nbytes) // divided.state_bytes
            found.append(replace(divided, checkpoints=max(1, min(enough, fitting))))
    if not found:  # a record of a few steps
        return spec
    if memory is None:
        return min(found, key=lambda each: each.nbytes)
    fits = [each for each in found if each.nbytes <= memory]
    return min(
        fits or found, key=lambda each: (forward_runs(each.segments, each.checkpoints) if fits else 0, each.nbytes)
    )


@cache
def forward_runs(segments: int, checkpoints: int) -> float:
    """How often the average forward step is computed."""
    from checkpoint_schedules import EndReverse, Forward, Revolve

    if segments == 1:
        return 1.0
    steps = 0
    for action in Revolve(segments, min(checkpoints, segments - 1)):
        if isinstance(action, EndReverse):
            break
        if isinstance(action, Forward):
            steps += min(action.n1, segments) - action.n0
    return steps / segments
