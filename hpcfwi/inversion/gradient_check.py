"""Is the gradient right, on this very problem: dot-product and Taylor tests, and what approximations cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import psutil
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from hpcfwi.errors import InputError
from hpcfwi.model.discretization import TimeAxis, critical_step
from hpcfwi.model.gathers import read_gather
from hpcfwi.model.problem import Problem
from hpcfwi.model.processing import resample
from hpcfwi.model.survey import Shot
from hpcfwi.model.velocity import squared_slowness
from hpcfwi.solver.equations import Propagator
from hpcfwi.solver.fields import Wavefields
from hpcfwi.solver.spec import SolverSpec

__all__ = ["CheckReport", "check_gradient", "dot_product_error", "taylor_remainders"]

TOLERANCE = {"float64": 1e-10, "float32": 1e-4}
HALVINGS = 10
# Slopes of the second-order remainder that count, and how many of them in a row are asked for.
SLOPES, RUN = (1.9, 2.1), 4
# Relative standard deviation of the squared slowness in the longest step of the Taylor test.
LONGEST_STEP = 0.02


@dataclass(frozen=True)
class CheckReport:
    """What the tests found.

    Parameters
    ----------
    dot_product
        Relative error of the dot-product test by precision.
    steps, remainders, slopes
        Taylor test: step lengths, second-order remainders, slope from each step to the next.
    approximation
        Relative difference of the run's own gradient (sampled, cropped) from the exact one; None where it is exact.
    visible_from
        Step length below which that difference dominates the Taylor remainder; None where there is none.
    passed
        The verdict.
    text
        All of it as a table.
    """

    dot_product: dict[str, float]
    steps: NDArray
    remainders: NDArray
    slopes: NDArray
    approximation: float | None
    visible_from: float | None
    passed: bool
    text: str


class _Bench:
    """One shot of the problem, with operators of one precision, on a frozen time axis."""

    def __init__(self, problem: Problem, spec: SolverSpec, shot: Shot, axis: TimeAxis, linearised: bool) -> None:
        self.fields = Wavefields(Propagator(spec, linearised=linearised))
        self.arguments = (shot.source, shot.receivers, problem.wavelet.sample(axis), axis.step, axis.samples)
        self.boundary = spec.boundary

    def record(self, m: NDArray) -> NDArray:
        self.fields.set_model(m)
        return self.fields.forward(*self.arguments).copy()

    def misfit(self, m: NDArray, observed: NDArray) -> float:
        return 0.5 * float(np.square(self.residual(m, observed), dtype=np.float64).sum())

    def residual(self, m: NDArray, observed: NDArray) -> NDArray:
        residual = self.record(m)
        residual[: len(observed)] -= observed
        residual[len(observed) :] = 0
        return residual

    def gradient(self, residual: NDArray, crop: bool = False) -> NDArray:
        """Gradient for the model of the last record."""
        padded = self.fields.gradient(residual)
        return self.boundary.crop(padded) if crop else self.boundary.extend_transpose(padded)


def check_gradient(problem: Problem, shot: str | None = None) -> CheckReport:
    """Test the linearised operator against the gradient, and the gradient against the misfit.

    Parameters
    ----------
    problem
        The problem; its initial model is where the gradient is tested.
    shot
        Name of the shot; the middle one by default.

    Returns
    -------
    CheckReport

    Raises
    ------
    InputError
        If there is no such shot, or the exact gradient, for which every step is kept, does not fit into memory.

    Notes
    -----
    With J the linearised operator (record with respect to m) the dot-product test compares ``<J dm, y>`` with
    ``<dm, J^T y>`` for random dm, y. With g the gradient the Taylor remainder ``|f(m + h dm) - f(m) - h <g, dm>|`` falls
    with h^2 if and only if g is exact. dm is smoothed noise that does not vanish at the edges.
    """
    chosen = _shot(problem, shot)
    axis = _frozen_axis(problem)
    spec = SolverSpec.from_problem(problem)
    exact = replace(spec, dtype="float64", snapshot_every=1, receivers=len(chosen.receivers), time_samples=axis.samples)
    available = psutil.virtual_memory().available
    if exact.nbytes > 0.9 * available:
        raise InputError(
            f"the exact gradient in double precision needs {exact.nbytes / 1e9:.1f} GB, {available / 1e9:.1f} GB are "
            "free: check a smaller problem, for instance with a shorter data.recording_time"
        )
    rng = np.random.default_rng(20240229)
    m = squared_slowness(problem.initial_velocity)
    direction = m * _smooth_noise(rng, m.shape)
    crop = problem.config.solver.boundary_gradient == "crop"
    found = _exact_tests(problem, exact, chosen, axis, m, direction, rng)
    dots, own = {"float64": found.dot_product}, found.cropped if crop else None
    if spec.dtype == "float32":
        single = _Bench(problem, replace(exact, dtype="float32"), chosen, axis, linearised=True)
        dots["float32"] = dot_product_error(single.fields, m, direction, single.arguments, rng)
        del single  # frees its wavefield before the next one is made
    if spec.snapshot_every > 1:
        spec = replace(spec, receivers=len(chosen.receivers), time_samples=axis.samples)
        sampled = _Bench(problem, spec, chosen, axis, linearised=False)
        own = sampled.gradient(sampled.residual(m, found.observed), crop)
    return _report(problem, chosen, axis, dots, found, own, direction)


@dataclass(frozen=True, eq=False)
class _Exact:
    """What the tests with every step kept, in double precision, gave."""

    dot_product: float
    observed: NDArray
    gradient: NDArray
    cropped: NDArray
    steps: NDArray
    remainders: NDArray


def _exact_tests(
    problem: Problem,
    spec: SolverSpec,
    shot: Shot,
    axis: TimeAxis,
    m: NDArray,
    direction: NDArray,
    rng: np.random.Generator,
) -> _Exact:
    bench = _Bench(problem, spec, shot, axis, linearised=True)
    dot_product = dot_product_error(bench.fields, m, direction, bench.arguments, rng)
    observed = _observed(problem, shot, axis, bench)
    residual = bench.residual(m, observed)
    misfit = 0.5 * float(np.square(residual).sum())
    padded = bench.fields.gradient(residual)
    gradient, cropped = bench.boundary.extend_transpose(padded), bench.boundary.crop(padded)
    steps = LONGEST_STEP * 0.5 ** np.arange(HALVINGS + 1)
    slope = float((gradient * direction).sum())
    remainders = taylor_remainders(lambda h: bench.misfit(m + h * direction, observed), misfit, slope, steps)
    return _Exact(dot_product, observed, gradient, cropped, steps, remainders)


def dot_product_error(
    fields: Wavefields, m: NDArray, direction: NDArray, arguments: tuple, rng: np.random.Generator
) -> float:
    """Relative difference of ``<J dm, y>`` and ``<dm, J^T y>``."""
    fields.set_model(m)
    scattered = fields.linearised(direction, *arguments).astype(np.float64)
    data = rng.standard_normal(scattered.shape) * scattered.std() + scattered
    fields.forward(*arguments)
    back = fields.boundary.extend_transpose(fields.gradient(data))
    left, right = float((scattered * data).sum()), float((direction * back).sum())
    return abs(left - right) / max(abs(left), abs(right), np.finfo(float).tiny)


def taylor_remainders(misfit: Callable[[float], float], at_zero: float, slope: float, steps: NDArray) -> NDArray:
    """``|f(h) - f(0) - h f'(0)|`` for each step h."""
    return np.array([abs(misfit(h) - at_zero - h * slope) for h in steps])


def _shot(problem: Problem, name: str | None) -> Shot:
    shots = problem.survey.shots
    if name is None:
        return shots[len(shots) // 2]
    found = next((shot for shot in shots if shot.name == name), None)
    if found is None:
        raise InputError(f"--shot {name}: there is no such shot; there are {shots[0].name} to {shots[-1].name}")
    return found


def _frozen_axis(problem: Problem) -> TimeAxis:
    """The problem's time axis; where it would follow the model, one that is stable for all models of the test."""
    if problem.fixed_step is not None:
        return problem.time_axis(problem.initial_velocity)
    fastest = 1.1 * float(problem.initial_velocity.max())
    step = critical_step(problem.domain, problem.config.solver.space_order, fastest)
    return TimeAxis.covering(problem.config.data.recording_time, step)


def _observed(problem: Problem, shot: Shot, axis: TimeAxis, bench: _Bench) -> NDArray:
    data = problem.config.data
    if data.file is not None:
        record = read_gather(data.file, shot, problem.recording)
        return resample(record, data.sample_interval, axis, "float64")
    assert problem.true_velocity is not None
    fastest = float(problem.true_velocity.max())
    if critical_step(problem.domain, problem.config.solver.space_order, fastest) < axis.step:
        return np.zeros((axis.samples, len(shot.receivers)))
    return bench.record(squared_slowness(problem.true_velocity))


def _smooth_noise(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray:
    noise = gaussian_filter(rng.standard_normal(shape), 2.0, mode="reflect")
    return noise / noise.std()


def _report(
    problem: Problem,
    shot: Shot,
    axis: TimeAxis,
    dots: dict[str, float],
    found: _Exact,
    own: NDArray | None,
    direction: NDArray,
) -> CheckReport:
    solver = problem.config.solver
    steps, remainders, gradient = found.steps, found.remainders, found.gradient
    with np.errstate(divide="ignore", invalid="ignore"):
        slopes = np.log2(remainders[:-1] / remainders[1:])
    good = (slopes >= SLOPES[0]) & (slopes <= SLOPES[1])
    longest = max((len(run) for run in "".join("x" if ok else " " for ok in good).split()), default=0)
    verdicts = [
        (f"dot product, {name}", error, TOLERANCE[name], error <= TOLERANCE[name]) for name, error in dots.items()
    ]
    passed = longest >= RUN and all(ok for *_, ok in verdicts)
    frozen = "" if problem.fixed_step is not None else " (frozen for the test)"
    lines = [
        f"shot {shot.name}, {len(shot.receivers)} receivers, {axis.samples} steps of {axis.step:g} ms{frozen}, "
        f"space order {solver.space_order}, {'free surface' if solver.free_surface else 'no free surface'}",
        "",
        f"{'test':24}{'found':>12}{'limit':>12}",
        *(f"{name:24}{error:12.2e}{limit:12.0e}   {_word(ok)}" for name, error, limit, ok in verdicts),
        f"{'Taylor slope 2.0 +- 0.1':24}{f'{longest} halvings':>12}{f'{RUN}':>12}   {_word(longest >= RUN)}",
        "",
        "Taylor test, every step kept, float64; the step is relative to the squared slowness (standard deviation)",
        f"{'step':>12}{'remainder':>14}{'slope':>8}",
        *(
            f"{h:12.3e}{r:14.4e}" + (f"{s:8.3f}" if np.isfinite(s) else "")
            for h, r, s in zip(steps, remainders, [np.nan, *slopes], strict=True)
        ),
    ]
    approximation = visible = None
    if own is not None:
        approximation = float(np.linalg.norm(own - gradient) / np.linalg.norm(gradient))
        # with c h^2 the exact remainder and d = <g' - g, dm>, the approximation's is c h^2 + d h: equal at h = d / c
        curvature = float(np.median((remainders / steps**2)[:-1][good])) if good.any() else np.nan
        visible = float(abs(((own - gradient) * direction).sum()) / curvature)
        lines += ["", *_approximation(problem, approximation, visible)]
    lines += ["", "verdict: the gradient is right" if passed else "verdict: FAILED, the gradient is not the misfit's"]
    return CheckReport(dots, steps, remainders, slopes, approximation, visible, passed, "\n".join(lines))


def _approximation(problem: Problem, difference: float, visible: float) -> list[str]:
    k = SolverSpec.from_problem(problem).snapshot_every
    what = [f"every {k} steps of the wavefield kept"] if k > 1 else []
    if problem.config.solver.boundary_gradient == "crop":
        what.append("the sponge's part dropped")
    return [
        f"this run's gradient is an approximation ({' and '.join(what)}):",
        f"  relative difference from the exact one {difference:.2e}; its Taylor remainder shows it from steps below "
        f"{visible:.1e} on",
    ]


def _word(ok: bool) -> str:
    return "ok" if ok else "FAILED"
