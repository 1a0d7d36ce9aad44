"""The needs of a run before it starts: grid, time steps, memory, disk, and how many workers fit on a site."""

import math
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from rich.filesize import decimal

from hpcfwi.batch.registry import site_batch_system
from hpcfwi.cluster.layout import Choice, ResourceRequest, jobs_layout
from hpcfwi.config.models import FileModel
from hpcfwi.config.site import Site
from hpcfwi.inversion.journal import Partials
from hpcfwi.model.checks import MIN_POINTS_PER_WAVELENGTH, choose_time_steps
from hpcfwi.model.grid import courant_limit
from hpcfwi.model.problem import Problem
from hpcfwi.model.wavelet import highest_frequency, peak_frequency
from hpcfwi.solver.strategies import STRATEGIES, Strategy, find_strategy, forward_runs, strategies


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
    """

    rows: tuple[tuple[str, str], ...]
    shot_bytes: int
    disk_bytes: int


def make_plan(problem: Problem, site: Site | None = None, nodes: int | None = None) -> Plan:
    """Compute the resources that a problem needs.

    Parameters
    ----------
    problem
        The problem.
    site
        Where it will run; the plan then has a row about the workers.
    nodes
        Nodes, or worker jobs, of the site; by default those of a run.

    Returns
    -------
    Plan

    Raises
    ------
    InputError
        If a shot does not fit on a node of the site, with settings that fit, or the site has fewer nodes.
    """
    ways = strategies(problem)
    domain, spec, config = problem.domain, ways[0].spec, problem.config
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
    stable = f"stable up to {limit:.4g} ms at {velocity:.4g} km/s"
    parts = (
        f"observed data {decimal(data_bytes)}, journal {decimal(journal_bytes)}, sums of an unfinished evaluation "
        f"{decimal(partial_bytes)}, other files {decimal(disk - data_bytes - journal_bytes - partial_bytes)}"
    )
    kept = describe(ways[0])
    if config.solver.wavefield == "auto":
        kept += "; checkpointed if memory is short"
    every = [find_strategy(problem, name) for name in STRATEGIES]
    memory = ", ".join(f"{way.name} {decimal(way.spec.nbytes)}" for way in every)
    lowest, largest = config.inversion.bounds
    frozen, cells = int(problem.frozen.sum()), problem.frozen.size
    rows: tuple[tuple[str, str], ...] = (
        ("grid", f"{shape} points, {padded}"),
        ("extent", f"{extent} km"),
        ("survey", f"{len(problem.survey)} shots, {traces} traces of {problem.recording.samples} samples"),
        ("wavelet", f"peak {peak:.3g} Hz, up to {highest:.3g} Hz"),
        ("time axis", f"{axis.samples} samples of {axis.step:.4g} ms ({config.solver.time_step}; {stable})"),
        ("dispersion", f"{points:.3g} grid points per shortest wavelength, whose speed is off by {100 * error:+.1f} %"),
        ("forward wavefield", kept),
        ("memory per worker", f"{memory}; and about 0.4 GB for Python"),
        ("disk", f"about {decimal(disk)}: {parts}"),
        ("unknowns", f"{cells - frozen} cells, {frozen} frozen; velocities {lowest:g} to {largest:g} km/s"),
    )
    if site is not None:
        rows += (("workers", _workers(problem, site, nodes)),)
    return Plan(rows, spec.nbytes, disk)


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


def _workers(problem: Problem, site: Site, nodes: int | None) -> str:
    """How many workers a run has on ``nodes`` nodes, or worker jobs, of a site."""
    from hpcfwi.cluster.local import local_layout  # imports Dask, which is slow

    request = resource_request(problem)
    if site_batch_system(site) is None:
        found, count, where = local_layout(site.config.worker, request, nodes), 1, "this machine"
    else:
        found, count = jobs_layout(site, request, nodes)
        where = f"{count} node{'s' if count > 1 else ''} of {site.name}"
    rounds = math.ceil(len(problem.survey) / (count * found.processes))
    shots = f"{rounds} round{'s' if rounds > 1 else ''} of shots an evaluation"
    kept = f", the wavefield {found.choice.name}" if found.choice is not None else ""
    return f"{count * found.processes} on {where}, each node with {found}{kept}; {shots}"


def resource_request(problem: Problem) -> ResourceRequest:
    """What a run of a problem requires of its workers."""
    choices = tuple(Choice(each.name, each.spec.nbytes, each.time) for each in strategies(problem))
    return ResourceRequest(len(problem.survey), choices[-1].shot_bytes, partial(_memory_savings, problem), choices)


def _least_bytes(problem: Problem) -> int:
    return min(each.spec.nbytes for each in strategies(problem))


def _memory_savings(problem: Problem) -> Iterator[tuple[str, int]]:
    """Settings that need less memory, and the bytes of a shot with each, the best first."""
    config, domain = problem.config, problem.domain
    for changes in ({"wavefield": "auto"}, {"dtype": "float32"}, {"wavefield": "auto", "dtype": "float32"}):
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
        size = _least_bytes(replace(problem, domain=coarser, time_steps=steps))
        settings = shlex.join(["--set", f"grid.shape={[*shape]}", "--set", f"grid.spacing={[*spacing]}"])
        yield settings + (" and the model files resampled to this grid" if files else ""), size
