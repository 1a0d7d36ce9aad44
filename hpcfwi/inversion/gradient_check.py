"""Dot-product and Taylor tests of the gradient, with the objects that a run uses."""

from dataclasses import replace

import numpy as np
import psutil
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from hpcfwi.errors import InputError
from hpcfwi.inversion.accuracy import error_budget
from hpcfwi.inversion.check_report import CheckReport, report_of
from hpcfwi.inversion.conditioning.change_of_variables import variables_of
from hpcfwi.inversion.conditioning.regularisation import Regularisation
from hpcfwi.inversion.functional_gradient import FunctionalGradient
from hpcfwi.inversion.misfits.registry import MisfitSpec, load_misfit
from hpcfwi.inversion.misfits.shot import ShotMisfit
from hpcfwi.inversion.parametrisation import Parametrisation
from hpcfwi.model.grid import TimeAxis, courant_limit, critical_step
from hpcfwi.model.problem import Problem
from hpcfwi.model.processing.operators import Chain, Operator
from hpcfwi.model.source_estimate import (
    SourceFilter,
    at_recorded_samples,
    comparison_for_estimate,
    estimate_filter,
)
from hpcfwi.model.survey import Shot
from hpcfwi.model.traces import UsableTraces
from hpcfwi.model.velocity import squared_slowness
from hpcfwi.model.windows import cut, embed
from hpcfwi.solver.engine import DevitoEngine
from hpcfwi.solver.operators import Propagator, quiet_devito
from hpcfwi.solver.spec import SolverSpec
from hpcfwi.solver.strategies import strategies

# Taylor test: longest step (relative standard deviation of the squared slowness), and number of halvings.
LONGEST_STEP, HALVINGS = 0.02, 13
# Steps of the differences along the optimiser's vector, and of a misfit whose wavelet is estimated in each model.
DERIVATIVE_STEPS = LONGEST_STEP * 0.5 ** np.arange(8, 13)
# Share of the free memory that the test may use.
MEMORY_SHARE = 0.9


@quiet_devito()
def check_gradient(problem: Problem, shot: str | None = None) -> CheckReport:
    """Test the adjoint against the Born operator, and the gradient against the misfit.

    The exact tests use the misfit and the processing of the run, in double precision with every step kept in memory. Another
    test compares the gradient of the run itself, with its storage and precision.

    Parameters
    ----------
    problem
        The problem; the gradient is tested at its initial model.
    shot
        Name of the shot; the middle one by default.

    Returns
    -------
    CheckReport

    Raises
    ------
    InputError
        If there is no such shot, or the exact gradient does not fit into memory.

    Notes
    -----
    With F the Born operator (derivative of the record with respect to m) and P the derivative of the processing, the
    dot-product test compares ``<P F dm, y>`` with ``<dm, F^T P^T y>`` for random dm, y. With g the gradient the Taylor
    remainder ``|f(m + h dm) - f(m) - h <g, dm>|`` falls with h^2 if and only if g is exact. Where g is wrong by little, that
    shows at small steps only; so ``<g, dm>`` is also compared with differences of f that are extrapolated to h = 0 (Richardson
    1911). dm is smoothed noise that does not vanish at the edges.

    The optimiser's own gradient is that of misfit and regularisation with respect to its vector x. It is right if the two are
    right and the Jacobian ``dm/dx`` is: a dot-product test compares ``<dm/dx dx, g>`` with ``<dx, pull_back(g)>``, and
    the derivative of the whole along dx is compared with extrapolated differences.
    """
    recorded = _recorded(problem, _shot(problem, shot))
    chosen = _shot(problem, shot) if recorded is None else recorded.shot
    axis, spec = _fixed_axis(problem), strategies(problem)[0].spec
    spec = replace(spec, receivers=len(chosen.receivers), time_samples=axis.samples)
    treatment = problem.config.solver.boundary_gradient
    whole = replace(spec, storage="snapshots", segment_snapshots=0, checkpoints=0)
    exact = replace(whole, dtype="float64", snapshot_every=1, layer_gradient=treatment != "frozen")
    _check_memory(exact)
    rng = np.random.default_rng(20240229)
    variables = variables_of(problem)
    m = variables.to_model(variables.to_vector(squared_slowness(problem.initial_velocity)))
    noise = gaussian_filter(rng.standard_normal(m.shape), 2.0, mode="reflect")
    direction = m * (noise / noise.std())
    edges = m if treatment == "frozen" else None
    engine = DevitoEngine(Propagator(exact), problem.source_signal, edges, problem.windows)
    traces = recorded or _modelled(problem, chosen, axis, engine)
    engine.set_model(m)
    source = _estimated_source(problem, traces, axis, engine)
    misfit = _shot_misfit(problem, traces, axis, "float64", source)
    predicted = engine.record(chosen, axis).copy()
    operator = misfit.processing.linearise(predicted)[1]
    processing = transpose_error(operator, predicted, rng)
    dots = {"float64": dot_product_error(engine, chosen, axis, operator, direction, rng)}
    at_zero, gradient = engine.misfit_and_gradient(chosen, axis, misfit)
    exact_own = engine.model_gradient() if treatment == "crop" else gradient
    steps = LONGEST_STEP * 0.5 ** np.arange(HALVINGS + 1)
    inside = cut(direction, engine.window(chosen), gradient.shape)
    slope = float((gradient * inside).sum())
    remainders = np.empty(len(steps))
    for i, h in enumerate(steps):
        engine.set_model(m + h * direction)
        remainders[i] = misfit(engine.record(chosen, axis))[0] - at_zero - h * slope
    derivative = abs(extrapolate(remainders / steps)) / max(abs(slope), np.finfo(float).tiny)
    jacobian = jacobian_error(variables, variables.to_vector(m), rng)
    at_m = FunctionalGradient(at_zero, embed(gradient, engine.window(chosen), m.shape))
    vector_derivative = _vector_error(problem, variables, engine, chosen, axis, misfit, m, at_m, direction)
    estimation = None
    if problem.config.wavelet.kind == "estimate" and problem.config.wavelet.every == "evaluation":
        estimation = _estimation_error(problem, traces, axis, engine, m, direction, slope)
    del engine  # one wavefield in memory at a time
    if spec.dtype == "float32":
        single = DevitoEngine(Propagator(replace(exact, dtype="float32")), problem.source_signal, None, problem.windows)
        single.set_model(m)
        dots["float32"] = dot_product_error(single, chosen, axis, operator, direction, rng)
        del single
    production = DevitoEngine(Propagator(spec), problem.source_signal, edges, problem.windows)
    production.set_model(m)
    compare = _shot_misfit(problem, traces, axis, spec.dtype, source)
    own = production.misfit_and_gradient(chosen, axis, compare)[1]
    approximated = None if treatment != "crop" and production.propagator.storage.exact else own
    storage = float(np.linalg.norm(own - exact_own) / max(np.linalg.norm(exact_own), np.finfo(float).tiny))
    del production
    budget, window = error_budget(problem, chosen, axis), _window_error(problem, chosen, recorded, axis, edges, source)
    return report_of(
        problem,
        chosen,
        axis,
        (dots, processing, jacobian, derivative, vector_derivative, storage),
        window,
        estimation,
        budget,
        steps,
        np.abs(remainders),
        gradient,
        approximated,
        inside,
    )


def _window_error(
    problem: Problem,
    shot: Shot,
    traces: UsableTraces | None,
    axis: TimeAxis,
    edges: NDArray | None,
    source: SourceFilter | None,
) -> float | None:
    """Relative difference of the gradient in the shot's window from that in the whole model; None without windows.

    Both compare predictions with the same observed data; modelled ones are those of the whole model.
    """
    if problem.windows is None:
        return None
    gradients = []
    for windows in (None, problem.windows):
        spec = SolverSpec.from_problem(problem, whole=windows is None)
        spec = replace(spec, receivers=len(shot.receivers), time_samples=axis.samples)
        _check_memory(spec)
        engine = DevitoEngine(Propagator(spec), problem.source_signal, edges, windows)
        traces = traces or _modelled(problem, shot, axis, engine)
        compare = _shot_misfit(problem, traces, axis, spec.dtype, source)
        engine.set_model(squared_slowness(problem.initial_velocity))
        gradient = engine.misfit_and_gradient(shot, axis, compare)[1]
        gradients.append(embed(gradient, engine.window(shot), problem.domain.shape))
        del engine  # one wavefield in memory at a time
    whole, windowed = gradients
    return float(np.linalg.norm(windowed - whole) / max(np.linalg.norm(whole), np.finfo(float).tiny))


def _estimated_source(
    problem: Problem, traces: UsableTraces, axis: TimeAxis, engine: DevitoEngine
) -> SourceFilter | None:
    """The filter of the wavelet, estimated from this shot alone in the engine's model; None if it is not estimated."""
    section, sampling = problem.config.wavelet, problem.sampling
    if section.kind != "estimate":
        return None
    traces = replace(traces, record=sampling.observed(traces.record, axis, "float64"))
    predicted = sampling.operator(axis, "float64").apply(engine.record(traces.shot, axis))
    compared = comparison_for_estimate(traces, predicted, problem.processing, sampling, "float64", section.max_offset)
    return estimate_filter(compared, section.damping)


def _estimation_error(
    problem: Problem,
    traces: UsableTraces,
    axis: TimeAxis,
    engine: DevitoEngine,
    m: NDArray,
    direction: NDArray,
    slope: float,
) -> float:
    """Relative difference of ``<g, dm>`` from the derivative of the misfit whose wavelet is estimated in each model."""

    def value(h: float) -> float:
        engine.set_model(m + h * direction)
        misfit = _shot_misfit(problem, traces, axis, "float64", _estimated_source(problem, traces, axis, engine))
        return misfit(engine.record(traces.shot, axis))[0]

    differences = np.array([(value(h) - value(-h)) / (2 * h) - slope for h in DERIVATIVE_STEPS])
    return abs(extrapolate(differences)) / max(abs(slope), np.finfo(float).tiny)


def _shot_misfit(
    problem: Problem, traces: UsableTraces, axis: TimeAxis, dtype: str, source: SourceFilter | None
) -> ShotMisfit:
    """The run's misfit of observed traces, for predictions on a time axis."""
    sampling = problem.sampling
    processing = traces.processing(problem.processing, sampling.compared(axis), dtype)
    observed = processing.observed.apply(sampling.observed(traces.record, axis, dtype))
    chain = Chain((at_recorded_samples(sampling, source, axis, dtype), *processing.predicted.transforms))
    spec = MisfitSpec.from_config(problem.config.inversion.misfit)
    return ShotMisfit(traces.shot.name, spec.kind, load_misfit(spec), chain, observed, processing.axis)


def transpose_error(operator: Operator, predicted: NDArray, rng: np.random.Generator) -> float:
    """Relative difference of ``<P d, y>`` and ``<d, P^T y>`` for random gathers d, of the shape of a predicted one, and y."""
    gather = rng.standard_normal(predicted.shape)
    processed = operator.apply(gather)
    data = rng.standard_normal(processed.shape) * processed.std() + processed
    left, right = float((processed * data).sum()), float((gather * operator.transpose(data)).sum())
    return abs(left - right) / max(abs(left), abs(right), np.finfo(float).tiny)


def dot_product_error(
    engine: DevitoEngine, shot: Shot, axis: TimeAxis, processing: Operator, direction: NDArray, rng: np.random.Generator
) -> float:
    """Relative difference of ``<P F dm, y>`` and ``<dm, F^T P^T y>`` in the engine's model, for a random y."""
    scattered = processing.apply(engine.born(shot, axis, direction)).astype(np.float64)
    data = rng.standard_normal(scattered.shape) * scattered.std() + scattered
    _, back = engine.misfit_and_gradient(shot, axis, lambda _: (0.0, processing.transpose(data)))
    inside = cut(direction, engine.window(shot), back.shape)
    left, right = float((scattered * data).sum()), float((inside * back).sum())
    return abs(left - right) / max(abs(left), abs(right), np.finfo(float).tiny)


def jacobian_error(parametrisation: Parametrisation, x: NDArray, rng: np.random.Generator) -> float:
    """Relative difference of ``<dm/dx dx, g>`` and ``<dx, pull_back(g)>`` for random dx and g, at a vector x."""
    m = parametrisation.to_model(x)
    low, high = parametrisation.bounds
    step = np.where(low < high, rng.standard_normal(x.shape), 0.0)
    # dm = -2 v^-3 dv
    change = -2 * m.ravel() ** 1.5 * parametrisation.velocity_change(x, step).ravel()
    gradient = rng.standard_normal(m.size) * change.std() + change
    left, right = (
        float((change * gradient).sum()),
        float((step * parametrisation.pull_back(x, gradient.reshape(m.shape))).sum()),
    )
    return abs(left - right) / max(abs(left), abs(right), np.finfo(float).tiny)


def _vector_error(
    problem: Problem,
    variables: Parametrisation,
    engine: DevitoEngine,
    shot: Shot,
    axis: TimeAxis,
    misfit: ShotMisfit,
    m: NDArray,
    at_m: FunctionalGradient,
    direction: NDArray,
) -> float:
    """Relative error of the derivative of misfit and regularisation along a direction of the optimiser's vector.

    ``at_m`` is the misfit of the model m, with its gradient on the grid; ``direction`` is a change of the model.
    """
    regularisation, x = Regularisation.from_problem(problem), variables.to_vector(m)
    low, high = variables.bounds
    unit = np.abs(variables.velocity_change(x, np.ones(x.shape))).max()  # km/s for a step of 1
    step = np.where(low < high, 0.5 * (m**-1.5 * direction).ravel() / unit, 0.0)

    def whole(y: NDArray, pair: FunctionalGradient) -> FunctionalGradient:
        return regularisation.add(pair, variables, y, at_m.f)

    def value(h: float) -> float:
        y = x + h * step
        engine.set_model(variables.to_model(y))
        return whole(y, FunctionalGradient(misfit(engine.record(shot, axis))[0], x)).f

    slope = float((whole(x, FunctionalGradient(at_m.f, variables.pull_back(x, at_m.g))).g * step).sum())
    differences = np.array([(value(h) - value(-h)) / (2 * h) - slope for h in DERIVATIVE_STEPS])
    return abs(extrapolate(differences)) / max(abs(slope), np.finfo(float).tiny)


def extrapolate(values: NDArray) -> float:
    """The limit for h -> 0 of a smooth function of h, from its values at steps that halve (Richardson extrapolation).

    Rounding spoils the smallest steps: the limit is taken where two extrapolations in a row agree best.
    """
    linear = 2 * values[1:] - values[:-1]
    quadratic = (4 * linear[1:] - linear[:-1]) / 3
    return float(quadratic[np.argmin(np.abs(np.diff(quadratic))) + 1])


def _shot(problem: Problem, name: str | None) -> Shot:
    shots = problem.survey.shots
    if name is None:
        return shots[len(shots) // 2]
    found = next((shot for shot in shots if shot.name == name), None)
    if found is None:
        raise InputError(f"--shot {name}: there is no such shot; there are {shots[0].name} to {shots[-1].name}")
    return found


def _fixed_axis(problem: Problem) -> TimeAxis:
    """The problem's time axis; if it follows the model, one that is stable for all models of the test, and the true one."""
    if problem.fixed_step is not None:
        return problem.time_axis(problem.initial_velocity)
    fastest = 1.1 * float(problem.initial_velocity.max())
    if problem.true_velocity is not None:
        fastest = max(fastest, float(problem.true_velocity.max()))
    step = critical_step(problem.domain, problem.config.solver.space_order, fastest)
    return problem.axis_with_step(step)


def _check_memory(spec: SolverSpec) -> None:
    available = psutil.virtual_memory().available
    # the Born operator has a scattered wavefield, with variables in the layer
    needed = spec.nbytes + 2 * spec.state_bytes
    if needed > MEMORY_SHARE * available:
        raise InputError(
            f"the exact gradient in double precision needs {needed / 1e9:.1f} GB, {available / 1e9:.1f} GB are free: "
            "check a smaller problem, for instance with --set data.recording_time=T and a smaller T"
        )


def _recorded(problem: Problem, shot: Shot) -> UsableTraces | None:
    """The shot's observed traces as they were recorded; None if they are modelled."""
    observations = problem.observations
    if observations.recordings is None:
        return None
    gather = observations.shot_data(shot.name).read(shot, problem.recording)
    return UsableTraces.of(shot, {"record": gather.record, **gather.partial(problem.recording.samples)})


def _modelled(problem: Problem, shot: Shot, axis: TimeAxis, engine: DevitoEngine) -> UsableTraces:
    """The shot's observed traces, modelled in the true model if the time axis is stable for that, else zero."""
    assert problem.true_velocity is not None
    fastest = float(problem.true_velocity.max())
    if courant_limit(problem.domain, problem.config.solver.space_order, fastest) < axis.step:
        record = np.zeros((problem.recording.samples, len(shot.receivers)))
    else:
        engine.set_model(squared_slowness(problem.true_velocity), own_edges=True)
        record = problem.sampling.synthetic(engine.record(shot, axis), axis, "float64")
    return UsableTraces.of(shot, {"record": record})
