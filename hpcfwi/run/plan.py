"""What a run will need, known before it starts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hpcfwi.inversion.journal import Partials
from hpcfwi.model.discretization import courant_limit
from hpcfwi.model.problem import Problem
from hpcfwi.model.wavelet import highest_frequency, peak_frequency
from hpcfwi.solver.spec import SolverSpec

__all__ = ["Plan", "make_plan"]


@dataclass(frozen=True)
class Plan:
    """Numbers about a problem, each as (what, value) in the order in which they are told."""

    rows: tuple[tuple[str, str], ...]
    shot_bytes: int
    disk_bytes: int


def make_plan(problem: Problem) -> Plan:
    """Work out grid, steps, memory and disk."""
    domain, spec, config = problem.domain, SolverSpec.from_problem(problem), problem.config
    traces = sum(len(shot.receivers) for shot in problem.survey.shots)
    itemsize = np.dtype(spec.dtype).itemsize
    model_bytes = 8 * int(np.prod(domain.shape))
    # observed data; one journal entry (gradient and model) an evaluation, a few more evaluations than iterations; models; the
    # solver
    data_bytes = traces * problem.recording.samples * itemsize
    journal_bytes = round(1.3 * config.inversion.iterations + 2) * 2 * model_bytes
    # while an evaluation is under way, the sums of its shots
    partial_bytes = Partials(Path(), config.journal.shots_per_sum).count(len(problem.survey)) * model_bytes
    disk = data_bytes + journal_bytes + partial_bytes + 6 * model_bytes + 2_000_000
    surface = "free surface on top" if config.solver.free_surface else "absorbing on all sides"
    velocity = max(config.inversion.bounds[1], float(problem.initial_velocity.max()))
    if problem.true_velocity is not None:
        velocity = max(velocity, float(problem.true_velocity.max()))
    axis = problem.time_axis(problem.initial_velocity)
    limit = courant_limit(domain, spec.space_order, velocity)
    points, error = problem.dispersion
    kept = "every step" if spec.snapshot_every == 1 else f"every {_ordinal(spec.snapshot_every)} step"
    rows = (
        (
            "grid",
            f"{_times(domain.shape)} points, "
            f"{_times(spec.boundary.padded_shape)} with {spec.boundary.cells} cells of sponge, {surface}",
        ),
        (
            "extent",
            " x ".join(f"{(b - a) / 1000:g}" for a, b in zip(domain.origin, domain.last, strict=True)) + " km",
        ),
        ("survey", f"{len(problem.survey)} shots, {traces} traces of {problem.recording.samples} samples"),
        (
            "wavelet",
            f"peak {1000 * peak_frequency(problem.wavelet):.3g} Hz, up to {1000 * highest_frequency(problem.wavelet):.3g} Hz",
        ),
        (
            "time axis",
            f"{axis.samples} steps of {axis.step:.4g} ms ({config.solver.time_step}; stable up to {limit:.4g} ms "
            f"at {velocity:.4g} km/s)",
        ),
        ("dispersion", f"{points:.3g} grid points per shortest wavelength, whose speed is off by {100 * error:+.1f} %"),
        ("forward wavefield", f"kept at {kept}: {spec.snapshots} levels"),
        ("memory per worker", f"{_bytes(spec.nbytes)} for a shot, and about 0.4 GB for Python"),
        (
            "disk",
            f"about {_bytes(disk)}: observed data {_bytes(data_bytes)}, journal {_bytes(journal_bytes)}, sums of "
            f"an unfinished evaluation {_bytes(partial_bytes)}",
        ),
        (
            "unknowns",
            f"{int((~problem.frozen).sum())} cells, {int(problem.frozen.sum())} frozen; velocities "
            f"{config.inversion.bounds[0]:g} to {config.inversion.bounds[1]:g} km/s",
        ),
    )
    return Plan(rows, spec.nbytes, disk)


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _ordinal(number: int) -> str:
    ending = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th") if number // 10 % 10 != 1 else "th"
    return f"{number}{ending}"


def _bytes(number: float) -> str:
    for unit in ("B", "kB", "MB"):
        if number < 999.5:  # what is rounded to three digits stays below 1000
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} GB"
