"""The error budget of a record: what the grid, the time step, the absorbing layer and interpolation change."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hpcfwi.model.checks import MAX_POINTS_PER_WAVELENGTH
from hpcfwi.model.grid import TimeAxis, phase_error
from hpcfwi.model.problem import Problem
from hpcfwi.model.survey import Shot
from hpcfwi.model.velocity import squared_slowness
from hpcfwi.model.wavelet import delayed, spectrum
from hpcfwi.solver.boundary import Cpml
from hpcfwi.solver.engine import DevitoEngine
from hpcfwi.solver.interpolation import stencils
from hpcfwi.solver.operators import Propagator
from hpcfwi.solver.spec import SolverSpec

# The absorbing layer is compared with one of CPML of so many cells, or of twice its own.
WIDE_LAYER = 30
# Waves of fewer grid points per wavelength do not travel at all; their error is that of a wave of this many.
FEWEST_POINTS = 2.01
# Amplitudes below this share of the largest one do not matter.
QUIETEST = 1e-3
# When the wave of the time error arrives, as a share of the recording time: all of the wavelet should be recorded.
ARRIVAL = 0.7


@dataclass(frozen=True)
class ErrorBudget:
    """Errors of a shot's record, as norm of the difference over norm of the record.

    Parameters
    ----------
    space
        Finite differences in space, for a wave that travels through the slowest cells of the initial model along an axis, as
        long as the record lasts: an upper limit.
    time
        Time step, for a wave that arrives at the end of the record.
    edges
        Absorbing layer: the record in the initial model compared with that of a layer of CPML of 30 cells.
    interpolation
        Source and receivers between grid points, for waves through the slowest cells along the worst axis.
    text
        The budget as a table.
    """

    space: float
    time: float
    edges: float
    interpolation: float
    text: str


def error_budget(problem: Problem, shot: Shot, axis: TimeAxis) -> ErrorBudget:
    """Estimate the errors of a shot's record in the initial model; those of the edges are measured."""
    spec = SolverSpec.from_problem(problem)
    # no wavefield is kept
    spec = replace(spec, receivers=len(shot.receivers), time_samples=axis.samples, snapshot_every=axis.samples)
    slowest, solver = float(problem.initial_velocity.min()), problem.config.solver
    space, time = _space(problem, slowest), _time(problem, axis)
    edges, interpolation = _edges(problem, spec, shot, axis), _interpolation(problem, spec, shot, slowest)
    duration, spacing = problem.config.data.duration, max(problem.domain.spacing)
    layer = f"{spec.boundary.cells} cells of {spec.boundary.name}, measured against {_wide(spec)} of CPML"
    points = f"from {spec.interpolation_points} points along each axis"
    rows = [
        (
            "space",
            space,
            f"at most; order {solver.space_order} on {spacing:g} m, {duration:g} ms at {slowest:.4g} km/s",
        ),
        (
            "time",
            time,
            f"{axis.step:.4g} ms, time dispersion {solver.time_dispersion}, after {ARRIVAL * duration:g} ms",
        ),
        ("edges", edges, layer),
        ("interpolation", interpolation, points if interpolation else "all positions are grid points"),
    ]
    text = "\n".join(f"{name:15}{100 * error:8.3f} %   {what}" for name, error, what in rows)
    return ErrorBudget(space, time, edges, interpolation, text)


def _wide(spec: SolverSpec) -> int:
    return max(WIDE_LAYER, 2 * spec.boundary.cells) if isinstance(spec.boundary, Cpml) else WIDE_LAYER


def _relative(found: NDArray, expected: NDArray) -> float:
    return float(np.linalg.norm(found - expected) / max(np.linalg.norm(expected), np.finfo(float).tiny))


def _audible(problem: Problem) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Some hundred frequencies of the wavelet, kHz, and their amplitudes relative to the norm of all."""
    frequencies, amplitudes = spectrum(problem.wavelet)
    chosen = np.flatnonzero(amplitudes > QUIETEST * amplitudes.max())
    chosen = chosen[:: math.ceil(len(chosen) / 200)]
    return frequencies[chosen], amplitudes[chosen] / np.linalg.norm(amplitudes[chosen])


def _space(problem: Problem, slowest: float) -> float:
    spacing, order = max(problem.domain.spacing), problem.config.solver.space_order
    frequencies, amplitudes = _audible(problem)
    points = np.clip(slowest / (np.maximum(frequencies, 1e-12) * spacing), FEWEST_POINTS, MAX_POINTS_PER_WAVELENGTH)
    speeds = np.array([phase_error(float(each), order) for each in points])
    phases = 2 * np.pi * frequencies * problem.config.data.duration * speeds
    return float(np.linalg.norm(amplitudes * (np.exp(1j * phases) - 1)))


def _time(problem: Problem, axis: TimeAxis) -> float:
    sampling, corrected = problem.sampling, problem.config.solver.time_dispersion == "corrected"
    travelled = ARRIVAL * problem.config.data.duration
    arriving = delayed(problem.wavelet, axis, travelled, dispersed=corrected)
    true = delayed(problem.wavelet, axis, travelled, dispersed=False, leap_frog=False)
    exact = replace(sampling, corrected=False)
    found, expected = (
        each.synthetic(trace[:, None], axis, "float64") for each, trace in ((sampling, arriving), (exact, true))
    )
    return _relative(found, expected)


def _edges(problem: Problem, spec: SolverSpec, shot: Shot, axis: TimeAxis) -> float:
    boundary, cells = spec.boundary, _wide(spec)
    wide = Cpml(boundary.domain, cells, boundary.free_surface, velocity=problem.edge_velocity)
    if isinstance(boundary, Cpml):
        wide = replace(boundary, cells=cells)
    records = []
    for layer in (boundary, wide):
        propagator = Propagator(replace(spec, boundary=layer, layer_gradient=False))
        engine = DevitoEngine(propagator, problem.source_signal, windows=problem.windows)
        engine.set_model(squared_slowness(problem.initial_velocity))
        records.append(engine.record(shot, axis).astype(np.float64))
        del engine, propagator  # one wavefield in memory at a time
    return _relative(*records)


def _interpolation(problem: Problem, spec: SolverSpec, shot: Shot, slowest: float) -> float:
    boundary, worst = spec.boundary, 0.0
    start = np.zeros(boundary.domain.ndim) if problem.windows is None else np.array(problem.windows.start(shot))
    shift = start * boundary.domain.spacing
    frequencies, amplitudes = _audible(problem)
    for place, axis in enumerate(boundary.memory_order):
        spacing = boundary.domain.spacing[axis]
        wavenumbers = 2 * np.pi * frequencies / slowest * spacing  # per cell
        odd = boundary.free_surface and axis == boundary.domain.ndim - 1
        square = 0.0
        for positions in (shot.source[None] - shift, shot.receivers - shift):
            first, weights = stencils(boundary, positions, spec.interpolation_points)
            index = first[:, place, None] + np.arange(spec.interpolation_points)
            cells = (positions[:, axis] - boundary.padded_origin[axis]) / spacing
            errors = np.empty((len(positions), len(wavenumbers)))
            for i, k in enumerate(wavenumbers):
                found, wave = (np.sin(k * at) if odd else np.exp(1j * k * at) for at in (index, cells))
                errors[:, i] = np.abs((weights[:, place] * found).sum(axis=1) - wave)
            square += float((np.mean(errors**2, axis=0) * amplitudes**2).sum())
        worst = max(worst, math.sqrt(square))
    return worst
