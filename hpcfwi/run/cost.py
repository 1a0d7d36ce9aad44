"""What a run costs with each wavefield strategy: memory of a worker, scratch disk, time and core-hours."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from hpcfwi.batch.registry import site_batch_system
from hpcfwi.cluster.layout import (
    BASE_MEMORY_BYTES,
    USABLE_SHARE,
    Choice,
    Layout,
    ResourceRequest,
    ShotTooLarge,
    jobs_layout,
)
from hpcfwi.config.inversion import InversionSection
from hpcfwi.config.site import Site
from hpcfwi.inversion.functional_gradient import BLOCK
from hpcfwi.model.problem import Problem
from hpcfwi.model.stages import problems_of, stages_of
from hpcfwi.run.throughput import Throughput
from hpcfwi.solver.strategies import FORWARD_SHARE, STRATEGIES, Strategy, find_strategy, strategies

# Memory of a worker process with Python, numpy, Devito and Dask, but without models, data and wavefields; measured.
WORKER_BYTES = 157e6
# An optimiser needs about so many evaluations, of all shots or of a batch, for an iteration, and one more.
EVALUATIONS_PER_ITERATION = {"lbfgs": 1.15, "adam": 1.0, "lbfgs-batch": 2.15}
# Time of an evaluation besides its shots, and the part of it for each cell of the model; of a shot besides its kernels; and of
# a start besides the kernels' compilation, s.
EVALUATION_S, CELL_S, SHOT_S, START_S = 0.03, 1e-7, 0.005, 4.0

# The layout of a node and the number of nodes for a request; raises ShotTooLarge if a shot does not fit.
Place = Callable[[ResourceRequest], tuple[Layout, int]]


@dataclass(frozen=True)
class Cost:
    """What a run takes with one wavefield strategy.

    Parameters
    ----------
    strategy
        The strategy, with the segments and checkpoints that it would have.
    memory_bytes
        Peak memory of a worker process.
    layout, nodes
        How nodes are divided, and their number; None and 0 if a shot does not fit.
    shot_s, evaluation_s, run_s
        Wall time of a shot's gradient, an evaluation and the run; NaN if they are unknown.
    """

    strategy: Strategy
    memory_bytes: int
    layout: Layout | None = None
    nodes: int = 0
    shot_s: float = math.nan
    evaluation_s: float = math.nan
    run_s: float = math.nan

    @property
    def workers(self) -> int:
        """Number of worker processes."""
        return 0 if self.layout is None else self.nodes * self.layout.processes

    def core_hours(self, seconds: float) -> float:
        """Core-hours of all workers."""
        return math.nan if self.layout is None else self.nodes * self.layout.cores * seconds / 3600


def work(problem: Problem) -> float:
    """What a shot of a problem costs: grid points, those of the absorbing layer included, times time steps."""
    spec = strategies(problem)[0].spec
    return math.prod(spec.boundary.padded_shape) * problem.time_axis(problem.initial_velocity).samples


def site_place(site: Site, nodes: int | None) -> Place:
    """Where the workers of a site run: on this machine, or in ``nodes`` of its jobs."""
    from hpcfwi.cluster.local import local_layout  # imports Dask, which is slow

    if site_batch_system(site) is None:
        return lambda request: (local_layout(site.config.worker, request, nodes), 1)
    return partial(jobs_layout, site, nodes=nodes)


def strategy_costs(problem: Problem, place: Place, throughput: Throughput | None) -> tuple[Cost, ...]:
    """The cost of a run with each strategy, in the order of :data:`STRATEGIES`."""
    found, problems = [], problems_of(problem)
    largest = max(problems, key=held_bytes)
    for name in STRATEGIES:
        ways = strategies(largest, name)
        try:
            layout, nodes = place(request_for(largest, ways))
        except ShotTooLarge:
            found.append(Cost(ways[-1], worker_bytes(largest, ways[-1])))
            continue
        cost = _cost(largest, chosen_strategy(largest, layout), layout, nodes, throughput)
        if throughput is not None:
            cost = replace(cost, run_s=_run_seconds(problem, layout, nodes, throughput))
        found.append(cost)
    return tuple(found)


def request_for(problem: Problem, ways: list[Strategy]) -> ResourceRequest:
    """What shots require that may be computed in several ways."""
    held = held_bytes(problem)
    choices = tuple(Choice(each.name, held + each.spec.nbytes, each.time) for each in ways)
    shots = len(problem.survey)
    at_a_time = problem.config.inversion.shots_at_a_time(shots)
    # each worker gets other shots of each batch, and keeps as many as it computes in an evaluation of all
    data = -(-gather_bytes(problem) * shots // at_a_time)
    return ResourceRequest(at_a_time, choices[-1].shot_bytes, data_bytes=data, choices=choices)


def chosen_strategy(problem: Problem, layout: Layout) -> Strategy:
    """The strategy that a layout has chosen, as fast as its memory allows."""
    assert layout.choice is not None  # a problem has at least one
    memory = max(layout.choice.shot_bytes, layout.wavefield_bytes) - held_bytes(problem)
    return find_strategy(problem, layout.choice.name, memory)


def gather_bytes(problem: Problem) -> int:
    """Memory of the observed data of a shot, and of the weights that its processing has, at most."""
    traces = int(problem.survey.receiver_counts.max())
    arrays = 2 if problem.processing.steps else 1
    return arrays * _compared_samples(problem) * traces * np.dtype(problem.config.solver.dtype).itemsize


def _compared_samples(problem: Problem) -> int:
    return problem.sampling.compared(problem.axis_with_step(problem.time_steps[0])).samples


def data_cache_bytes(problem: Problem, layout: Layout, strategy: Strategy) -> int:
    """Memory of a worker for observed data: what is reserved, or more if there is more."""
    spare = USABLE_SHARE * layout.memory - BASE_MEMORY_BYTES - held_bytes(problem) - strategy.spec.nbytes
    return max(layout.cache_bytes, int(min(layout.memory // 8, spare)))


def held_bytes(problem: Problem, shots: int | None = None) -> int:
    """Memory of a worker, which computes so many of the shots, for models, gradients and the gathers of a shot."""
    itemsize = np.dtype(problem.config.solver.dtype).itemsize
    cells, window = (math.prod(domain.shape) for domain in (problem.domain, problem.solver_domain))
    # a model as it is read, the edge values, and with windows the model from which they are cut
    models = (8 + itemsize * (2 if window < cells else 1)) * cells
    # gradients wait until those of a block can be added to a sum
    gradients = 8 * (min(shots or len(problem.survey), BLOCK) * window + cells)
    # observed, processed and residual, and the largest of the residual's square and the adjoint source
    ratio = problem.time_samples / _compared_samples(problem)
    gathers = 3 + max(2.0, ratio)
    if problem.linearised:  # a direction, and the derivative of a gather before and after the processing
        models, gathers = models + 8 * cells, gathers + 1 + ratio
    return int(models + gradients + gathers * gather_bytes(problem))


def worker_bytes(problem: Problem, strategy: Strategy, shots: int = 1, cache_bytes: float = math.inf) -> int:
    """Peak memory of a worker process that computes some shots and keeps their observed data."""
    data = min(cache_bytes, (shots - 1) * gather_bytes(problem))
    return int(WORKER_BYTES + held_bytes(problem, shots) + strategy.spec.touched_bytes + data)


def expected_evaluations(section: InversionSection) -> int:
    """Evaluations, of all shots or of a batch, that the iterations need."""
    return 1 + round(EVALUATIONS_PER_ITERATION[section.optimizer] * section.iterations)


def _cost(problem: Problem, strategy: Strategy, layout: Layout, nodes: int, throughput: Throughput | None) -> Cost:
    workers, section = nodes * layout.processes, problem.config.inversion
    rounds, of_batch = (
        math.ceil(shots / workers) for shots in (len(problem.survey), section.shots_at_a_time(len(problem.survey)))
    )
    memory = worker_bytes(problem, strategy, rounds, data_cache_bytes(problem, layout, strategy))
    if throughput is None:
        return Cost(strategy, memory, layout, nodes)
    shot = strategy.time * _sampled_seconds(problem, strategy, layout, throughput) + SHOT_S
    evaluation = of_batch * shot + EVALUATION_S + CELL_S * math.prod(problem.domain.shape)
    evaluations = min(section.evaluations, expected_evaluations(section))
    run = evaluations * evaluation
    if section.full_misfit_every:
        run += (2 + section.iterations // section.full_misfit_every) * (rounds - of_batch) * shot
    return Cost(strategy, memory, layout, nodes, shot, evaluation, run)


def _run_seconds(problem: Problem, layout: Layout, nodes: int, throughput: Throughput) -> float:
    """Wall time of a run: start, observed data, and the stages."""
    seconds = START_S
    for stage in stages_of(problem):
        own = stage.first
        seconds += throughput.build_s + _cost(own, chosen_strategy(own, layout), layout, nodes, throughput).run_s
    if problem.config.data.file is None:
        rounds = math.ceil(len(problem.survey) / (nodes * layout.processes))
        sampled = _sampled_seconds(problem, chosen_strategy(problem, layout), layout, throughput)
        seconds += FORWARD_SHARE * rounds * sampled
    return seconds


def _sampled_seconds(problem: Problem, strategy: Strategy, layout: Layout, throughput: Throughput) -> float:
    """Wall time of a shot's gradient with the strategy "sampled"."""
    samples = problem.time_axis(problem.initial_velocity).samples
    return throughput.shot_seconds(strategy.spec, samples, layout.threads)
