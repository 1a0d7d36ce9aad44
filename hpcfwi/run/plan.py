"""The needs of a run before it starts: grid, time steps, memory, disk, and how many workers fit on a site."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.filesize import decimal

from hpcfwi.batch.registry import site_batch_system
from hpcfwi.config.site import Site
from hpcfwi.errors import InputError
from hpcfwi.inversion.journal import Partials
from hpcfwi.model.grid import courant_limit
from hpcfwi.model.problem import Problem
from hpcfwi.model.wavelet import highest_frequency, peak_frequency
from hpcfwi.solver.boundary import SolverSpec


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
    sampled
        Whether ``solver.strategy`` already saves memory.
    """

    rows: tuple[tuple[str, str], ...]
    shot_bytes: int
    disk_bytes: int
    sampled: bool


def make_plan(problem: Problem) -> Plan:
    """Compute the resources that a problem needs."""
    domain, spec, config = problem.domain, SolverSpec.from_problem(problem), problem.config
    traces = sum(len(shot.receivers) for shot in problem.survey.shots)
    itemsize = np.dtype(spec.dtype).itemsize
    model_bytes = 8 * int(np.prod(domain.shape))
    # a journal entry holds gradient and model; evaluations outnumber iterations slightly
    data_bytes = traces * problem.recording.samples * itemsize
    journal_bytes = round(1.3 * config.inversion.iterations + 2) * 2 * model_bytes
    # sums of shots during an evaluation
    partial_bytes = Partials(Path(), config.journal.shots_per_sum).count(len(problem.survey)) * model_bytes
    disk = data_bytes + journal_bytes + partial_bytes + 6 * model_bytes + 2_000_000
    surface = "free surface on top" if config.solver.free_surface else "absorbing on all sides"
    velocity = max(config.inversion.bounds[1], float(problem.initial_velocity.max()))
    if problem.true_velocity is not None:
        velocity = max(velocity, float(problem.true_velocity.max()))
    axis = problem.time_axis(problem.initial_velocity)
    limit = courant_limit(domain, spec.space_order, velocity)
    points, error = problem.dispersion
    kept = "every step" if spec.snapshot_every == 1 else f"every {spec.snapshot_every} steps"
    padded = f"{_times(spec.boundary.padded_shape)} with {spec.boundary.cells} cells of sponge, {surface}"
    extent = " x ".join(f"{(b - a) / 1000:g}" for a, b in zip(domain.origin, domain.last, strict=True))
    peak, highest = 1000 * peak_frequency(problem.wavelet), 1000 * highest_frequency(problem.wavelet)
    stable = f"stable up to {limit:.4g} ms at {velocity:.4g} km/s"
    parts = (
        f"observed data {decimal(data_bytes)}, journal {decimal(journal_bytes)}, sums of an unfinished evaluation "
        f"{decimal(partial_bytes)}, other files {decimal(disk - data_bytes - journal_bytes - partial_bytes)}"
    )
    lowest, largest = config.inversion.bounds
    frozen, cells = int(problem.frozen.sum()), problem.frozen.size
    rows = (
        ("grid", f"{_times(domain.shape)} points, {padded}"),
        ("extent", f"{extent} km"),
        ("survey", f"{len(problem.survey)} shots, {traces} traces of {problem.recording.samples} samples"),
        ("wavelet", f"peak {peak:.3g} Hz, up to {highest:.3g} Hz"),
        ("time axis", f"{axis.samples} samples of {axis.step:.4g} ms ({config.solver.time_step}; {stable})"),
        ("dispersion", f"{points:.3g} grid points per shortest wavelength, whose speed is off by {100 * error:+.1f} %"),
        ("forward wavefield", f"kept {kept}: {spec.snapshots} snapshots"),
        ("memory per worker", f"{decimal(spec.nbytes)} for a shot, and about 0.4 GB for Python"),
        ("disk", f"about {decimal(disk)}: {parts}"),
        ("unknowns", f"{cells - frozen} cells, {frozen} frozen; velocities {lowest:g} to {largest:g} km/s"),
    )
    return Plan(rows, spec.nbytes, disk, config.solver.strategy == "sampled")


def plan_workers(problem: Problem, plan: Plan, site: Site, nodes: int | None = None) -> tuple[str, str]:
    """Compute how many workers a run has on ``nodes`` nodes, or worker jobs, of a site; another row of the plan.

    Raises InputError if a shot does not fit on a node; the message suggests changes that fit.
    """
    from hpcfwi.cluster.layout import Layout, ResourceRequest, node_layout
    from hpcfwi.cluster.local import local_layout

    local = site_batch_system(site) is None
    count = 1 if local else nodes or site.config.scheduler.job_limit

    def layout(shot_bytes: int) -> Layout:
        # no general advice to save memory: _what_fits() finds what helps
        request = ResourceRequest(len(problem.survey), shot_bytes, sampled=True)
        return local_layout(site.config.worker, request) if local else node_layout(site, request, count)

    def fits(shot_bytes: int) -> bool:
        try:
            layout(shot_bytes)
        except InputError:
            return False
        return True

    try:
        found = layout(plan.shot_bytes)
    except InputError as error:
        if not fits(0):  # not even a shot without wavefields
            raise
        raise InputError(f"{error}\n  {_what_fits(problem, fits)}") from None
    where = "this machine" if local else f"{count} node{'s' if count > 1 else ''} of {site.name}"
    rounds = math.ceil(len(problem.survey) / (count * found.processes))
    shots = f"{rounds} round{'s' if rounds > 1 else ''} of shots an evaluation"
    return "workers", f"{count * found.processes} on {where}, each node with {found}; {shots}"


def _what_fits(problem: Problem, fits: Callable[[int], bool]) -> str:
    """Try changes of the problem that save memory, and return advice with the first one that fits."""
    spec, solver = SolverSpec.from_problem(problem), problem.config.solver
    more_memory = "more memory for a worker (site.worker.memory, or a larger node)"
    for changes in ({"strategy": "sampled"}, {"dtype": "float32"}, {"strategy": "sampled", "dtype": "float32"}):
        config = problem.config.model_copy(update={"solver": solver.model_copy(update=changes)})
        if fits(SolverSpec.from_problem(replace(problem, config=config)).nbytes):
            return "It fits with " + " ".join(f"--set solver.{key}={value}" for key, value in changes.items())
    for percent in range(110, 2000, 10):
        shape = tuple(max(2, math.ceil(100 * points / percent)) for points in problem.domain.shape)
        domain = replace(problem.domain, shape=shape)
        if fits(replace(spec, boundary=replace(spec.boundary, domain=domain)).nbytes):
            grid = f"a grid of {_times(shape)} points, {percent / 100:g} times as coarse"
            return f"It fits with {grid}, or with {more_memory}"
    return f"It fits only with {more_memory}"


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
