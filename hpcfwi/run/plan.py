"""The needs of a run before it starts: grid, time steps, memory, disk, workers, time and core-hours."""

import math
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from rich.filesize import decimal

from hpcfwi.batch.registry import batch_commands, current_batch_system, site_batch_system
from hpcfwi.cluster.layout import THREADS_POWER, Layout, ResourceRequest, ShotTooLarge
from hpcfwi.config.models import FileModel
from hpcfwi.config.site import Site
from hpcfwi.errors import RunError
from hpcfwi.inversion.journal import Partials
from hpcfwi.model.checks import MIN_POINTS_PER_WAVELENGTH, choose_time_steps
from hpcfwi.model.grid import courant_limit
from hpcfwi.model.problem import Problem
from hpcfwi.model.stages import Stage, problems_of, stages_of
from hpcfwi.model.wavelet import highest_frequency, peak_frequency
from hpcfwi.reporting.formatting import counted, number, rough_time
from hpcfwi.run.cost import (
    Cost,
    chosen_strategy,
    expected_evaluations,
    held_bytes,
    request_for,
    site_place,
    strategy_costs,
    work,
)
from hpcfwi.run.throughput import Throughput, measure
from hpcfwi.solver.strategies import Strategy, forward_runs, strategies


@dataclass(frozen=True)
class Plan:
    """The resources that a problem needs.

    Parameters
    ----------
    rows
        (name, value) of each quantity, as text, in display order.
    shot_bytes
        Memory of a worker for a shot, besides Python's.
    disk_bytes
        Disk space of the run folder.
    costs
        Memory, time and core-hours with each wavefield strategy.
    chosen
        Name of the strategy that a run takes; empty if a shot does not fit.
    """

    rows: tuple[tuple[str, str], ...]
    shot_bytes: int
    disk_bytes: int
    costs: tuple[Cost, ...] = ()
    chosen: str = ""


def make_plan(
    problem: Problem,
    site: Site | None = None,
    nodes: int | None = None,
    run_kernels: bool = False,
    must_fit: bool = True,
) -> Plan:
    """Compute the resources that a problem needs.

    Parameters
    ----------
    problem
        The problem.
    site
        Where it will run; by default on this machine.
    nodes
        Nodes, or worker jobs, of the site; by default those of a run.
    run_kernels
        Whether to measure the speed of this machine, which takes some seconds, if the site file does not state it. Without a
        speed the plan has no times.
    must_fit
        Whether a shot that does not fit is an error; else the plan says so.

    Returns
    -------
    Plan

    Raises
    ------
    InputError
        If a shot does not fit on a node of the site, with settings that fit (a :class:`ShotTooLarge`), or the site has
        fewer nodes.
    """
    ways = strategies(problem)
    domain, spec, config = problem.domain, ways[0].spec, problem.config
    traces = int(problem.survey.receiver_counts.sum())
    disk = disk_needs(problem)
    surface = "free surface on top" if config.solver.free_surface else "absorbing on all sides"
    velocity = problem.velocity_range[1]
    axis = problem.time_axis(problem.initial_velocity)
    limit = courant_limit(domain, spec.space_order, velocity)
    points, error = problem.dispersion
    shape, padded_shape = (" x ".join(map(str, each)) for each in (domain.shape, spec.boundary.padded_shape))
    if problem.windows is not None:
        shape += f", in windows of {' x '.join(map(str, spec.domain.shape))}"
    padded = f"{padded_shape} with {spec.boundary.cells} cells of {spec.boundary.name}, {surface}"
    extent = " x ".join(f"{(b - a) / 1000:g}" for a, b in zip(domain.origin, domain.last, strict=True))
    peak, highest = 1000 * peak_frequency(problem.wavelet), 1000 * highest_frequency(problem.wavelet)
    lead = f", begins {problem.wavelet.lead:g} ms before time zero" if problem.wavelet.lead else ""
    stable = f"stable up to {limit:.4g} ms at {velocity:.4g} km/s"
    parts = ", ".join(f"{name} {decimal(size)}" for name, size in disk.items())
    kept = describe(ways[0])
    if config.solver.wavefield == "auto":
        kept += "; checkpointed if memory is short"
    lowest, largest = config.inversion.bounds
    frozen, cells = int(problem.frozen.sum()), problem.frozen.size
    rows: tuple[tuple[str, str], ...] = (
        ("grid", f"{shape} points, {padded}"),
        ("extent", f"{extent} km"),
        ("survey", f"{len(problem.survey)} shots, {traces} traces of {problem.recording.samples} samples"),
        ("wavelet", f"peak {peak:.3g} Hz, up to {highest:.3g} Hz{lead}"),
        ("processing", problem.processing.names),
        ("time axis", f"{axis.samples} samples of {axis.step:.4g} ms ({config.solver.time_step}; {stable})"),
        ("dispersion", f"{points:.3g} grid points per shortest wavelength, whose speed is off by {100 * error:+.1f} %"),
        ("forward wavefield", kept),
        ("disk", f"about {decimal(sum(disk.values()))}: {parts}"),
        *_stage_rows(problem),
        ("unknowns", f"{cells - frozen} cells, {frozen} frozen; velocities {lowest:g} to {largest:g} km/s"),
    )
    site = site or Site()
    place, throughput, chosen = site_place(site, nodes), None, ""
    try:
        layout, nodes = place(resource_request(problem))
    except ShotTooLarge as error:
        if must_fit:
            raise
        rows += (("workers", f"none: {str(error).partition(chr(10))[0]}; --site plans for another machine"),)
    else:
        rows += (("workers", _workers(problem, layout, nodes, site)),)
        chosen = chosen_strategy(problem, layout).name
        throughput, speed = _throughput(problem, site, layout, run_kernels)
        rows += (("speed", speed),)
    return Plan(rows, spec.nbytes, sum(disk.values()), strategy_costs(problem, place, throughput), chosen)


def _stage_rows(problem: Problem) -> Iterator[tuple[str, str]]:
    """A row for each stage: its grid and time axis, and what a shot costs there."""
    whole = work(problem)
    for stage in stages_of(problem):
        if stage.section is None:
            return
        own = stage.first
        axis, shots = own.time_axis(own.initial_velocity), counted(len(own.survey), "shot")
        yield (
            f"stage {stage.number}",
            f"{stage.name}: {own.domain.description}, {axis.samples} samples of {axis.step:.4g} ms, {shots}, at most "
            f"{counted(own.config.inversion.iterations, 'iteration')}; a shot costs {number(work(own) / whole, 2)} of one on "
            "the grid of the run",
        )


def disk_needs(problem: Problem) -> dict[str, int]:
    """Bytes of the files in a run folder, by what they are."""
    model_bytes = 8 * math.prod(problem.domain.shape)
    traces = int(problem.survey.receiver_counts.sum())
    itemsize = np.dtype(problem.config.solver.dtype).itemsize
    sums = Partials(Path(), problem.config.journal.shots_per_sum).count(len(problem.survey))
    return {
        "observed data": 0 if problem.observations.in_place else traces * problem.recording.samples * itemsize,
        "journal": sum(map(_journal_bytes, stages_of(problem))),
        "sums of an unfinished evaluation": sums * model_bytes,
        "models": (1 + sum(stage.optimisation.iterations for stage in stages_of(problem))) * model_bytes // 2,
        "other files": 6 * model_bytes + 2_000_000,
    }


def _journal_bytes(stage: Stage) -> int:
    """Gradient and model of each evaluation."""
    cells = math.prod(stage.first.domain.shape)
    return round(1.1 * expected_evaluations(stage.optimisation) + 1) * 2 * 8 * cells


COST_TITLES = ("wavefield", "memory", "scratch", "shots", "a shot", "evaluation", "run", "core-hours")
COST_LEGEND = "memory and scratch disk of each worker; shots at a time; *: what a run takes"


def cost_rows(plan: Plan) -> list[tuple[str, ...]]:
    """The costs of a plan as text, a row for each strategy, below :data:`COST_TITLES`."""
    rows = list[tuple[str, ...]]()
    for cost in plan.costs:
        disk = cost.strategy.spec.disk_bytes
        hours = cost.core_hours(cost.run_s)
        rows.append(
            (
                cost.strategy.name + "*" * (cost.strategy.name == plan.chosen),
                decimal(cost.memory_bytes),
                decimal(disk) if disk else "-",
                str(cost.workers) if cost.workers else "none fits",
                *(rough_time(each) for each in (cost.shot_s, cost.evaluation_s, cost.run_s)),
                f"{hours:.0f}" if hours >= 100 else number(hours, 3),
            )
        )
    return rows


def _throughput(problem: Problem, site: Site, layout: Layout, measured: bool) -> tuple[Throughput | None, str]:
    """How fast the nodes of a site are, and that in words."""
    from hpcfwi.cluster.dask_internals import CPUS  # imports Dask, which is slow

    system, key, node = site_batch_system(site), "node.throughput", site.config.node
    if node.throughput is not None:
        cores = CPUS if system is None else node.cores or layout.cores
        found = Throughput(1e6 * node.throughput, cores, 1, f"{site.name}, {key}")
        return found, str(found)
    if not measured:
        return None, f"unknown; the site file may state it ({key})"
    # a front end is shared: one core shows how fast it is, though not how cores share the memory of a node
    front_end = (system is not None or batch_commands()) and current_batch_system() is None
    here = max(1, CPUS // node.hardware_threads)
    threads = 1 if front_end else min(layout.threads, here)
    try:
        found = measure(problem, site, 1 if front_end else here // threads, threads)
    except RunError as error:
        return None, f"unknown: {error}"
    if front_end:
        where = f"a node of {site.name}" if system is not None else "a compute node"
        return found, f"{found}; better run this command in a job on {where}"
    if system is None:
        return found, str(found)
    if here < (node.cores or here):
        return found, f"{found}; this job has {here} of the {node.cores} cores of a node"
    whole = found.points_per_s / (found.processes * threads**THREADS_POWER) * here / 1e6
    return found, f"{found}; put {key} = {whole:.0f} into the file of {site.name}"


def describe(way: Strategy) -> str:
    """A wavefield strategy in a few words."""
    spec = way.spec
    kept = "every step" if spec.snapshot_every == 1 else f"every {spec.snapshot_every} steps"
    what = f"{way.name}: {spec.snapshots} snapshots, {kept}"
    if way.name == "checkpointed":
        repeated = forward_runs(spec.segments, spec.checkpoints) - 1
        return f"{what}, from {spec.checkpoints} checkpoints ({100 * repeated:.0f} % of the forward steps are repeated)"
    places = {"compressed": ", 8 bits a value", "disk": f", {decimal(spec.disk_bytes)} on the scratch disk"}
    return what + places.get(way.name, "")


def _workers(problem: Problem, found: Layout, nodes: int, site: Site) -> str:
    """How many workers a run has, and where."""
    where = (
        "this machine" if site_batch_system(site) is None else f"{nodes} node{'s' if nodes > 1 else ''} of {site.name}"
    )
    workers, at_a_time = nodes * found.processes, problem.config.inversion.shots_at_a_time(len(problem.survey))
    rounds = math.ceil(at_a_time / workers)
    shots = f"{rounds} round{'s' if rounds > 1 else ''} of shots an evaluation"
    if problem.config.inversion.in_batches:
        shots += f" of {at_a_time} shots{', which leaves workers idle' if workers > at_a_time else ''}"
    kept = f", the wavefield {found.choice.name}" if found.choice is not None else ""
    return f"{workers} on {where}, each node with {found}{kept}; {shots}"


def idle_workers(problem: Problem, workers: int) -> str:
    """A warning if an evaluation of a batch has fewer shots than there are workers; else empty."""
    section, shots = problem.config.inversion, len(problem.survey)
    at_a_time = section.shots_at_a_time(shots)
    if not section.in_batches or workers <= at_a_time or shots <= at_a_time:
        return ""
    part = f"of the {section.batch_size(shots)} shots of a batch, " if section.optimizer == "lbfgs-batch" else "only "
    return (
        f"inversion.batch: {workers} workers are planned, but {part}{counted(at_a_time, 'shot')} "
        f"{'is' if at_a_time == 1 else 'are'} computed at a time: {workers - at_a_time} of the workers wait; take a larger "
        "batch, or fewer workers"
    )


def resource_request(problem: Problem) -> ResourceRequest:
    """What a run of a problem requires of its workers: that of its largest stage."""
    largest = max(problems_of(problem), key=_least_bytes)
    return replace(request_for(largest, strategies(largest)), savings=partial(_memory_savings, largest))


def _least_bytes(problem: Problem) -> int:
    return held_bytes(problem) + min(each.spec.nbytes for each in strategies(problem))


def _memory_savings(problem: Problem) -> Iterator[tuple[str, int]]:
    """Settings that need less memory, and the bytes of a shot with each, the best first."""
    config, domain = problem.config, problem.domain
    auto, disk, single = {"wavefield": "auto"}, {"wavefield": "disk"}, {"dtype": "float32"}
    for changes in (auto, single, auto | single, disk, disk | single):
        changed = config.model_copy(update={"solver": config.solver.model_copy(update=changes)})
        settings = " ".join(f"--set solver.{key}={value}" for key, value in changes.items())
        yield settings, _least_bytes(replace(problem, config=changed))
    files = config.inversion.frozen.mask_file or FileModel in map(type, (config.model, config.initial))
    coarsest = min(problem.dispersion[0] / MIN_POINTS_PER_WAVELENGTH, max(domain.shape))
    for factor in np.arange(1.1, coarsest, 0.1):
        shape = tuple(1 + math.ceil((n - 1) / factor) for n in domain.shape)
        # as long as before, or some mm longer
        lengths = zip(domain.spacing, domain.shape, shape, strict=True)
        spacing = tuple(math.ceil(round(1000 * h * (n - 1) / (fewer - 1), 6)) / 1000 for h, n, fewer in lengths)
        if max(spacing) > coarsest * max(domain.spacing):
            return
        coarser = replace(domain, shape=shape, spacing=spacing)
        steps = choose_time_steps(config, coarser, problem.velocity_range)
        words = ["--set", f"grid.shape={[*shape]}", "--set", f"grid.spacing={[*spacing]}"]
        changed = config
        if config.solver.wavefield in ("sampled", "full"):
            words += ["--set", "solver.wavefield=auto"]
            changed = config.model_copy(update={"solver": config.solver.model_copy(update=auto)})
        size = _least_bytes(replace(problem, config=changed, domain=coarser, time_steps=steps))
        settings = shlex.join(words)
        yield settings + (" and the model files resampled to this grid" if files else ""), size
