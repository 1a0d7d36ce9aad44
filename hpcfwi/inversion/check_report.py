"""The results of the tests of a gradient, and their verdict."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hpcfwi.inversion.accuracy import ErrorBudget
from hpcfwi.inversion.misfits.registry import MisfitSpec
from hpcfwi.model.grid import TimeAxis
from hpcfwi.model.problem import Problem
from hpcfwi.model.survey import Shot
from hpcfwi.solver.strategies import strategies

# Relative error of the dot-product test.
TOLERANCE = {"float64": 1e-12, "float32": 1e-4}
# Taylor test: slopes of the second-order remainder that pass, and how many of them are needed in a row.
RIGHT_SLOPES, ENOUGH_SLOPES = (1.99, 2.01), 4
# Relative error of the derivative along the test's direction.
DERIVATIVE_TOLERANCE = 1e-5
# Relative difference that the run's wavefield storage and precision may make to the gradient.
STORAGE_TOLERANCE = 0.1


@dataclass(frozen=True)
class CheckReport:
    """Results of the tests.

    Parameters
    ----------
    dot_product
        Relative error of the dot-product test by precision.
    processing
        Relative error of the dot-product test of the processing alone.
    jacobian
        Relative error of the dot-product test of the change of variables from the optimiser's vector to the model.
    derivative
        Relative error of ``<g, dm>``, compared with finite differences of the misfit.
    vector_derivative
        The same for misfit and regularisation as a function of the optimiser's vector.
    steps, remainders, slopes
        Taylor test: step lengths and second-order remainders, shape (14,); slope from each step to the next, shape (13,).
    storage
        Relative difference that the run's wavefield storage and precision make to the gradient.
    approximation
        Relative difference of the run's own gradient (sampled, cropped) from the exact one; None if it is exact.
    visible_below
        Step length below which that difference dominates the Taylor remainder; None without a difference.
    window
        Relative difference of the gradient in the shot's window from that in the whole model; None without windows.
    estimation
        Relative difference of ``<g, dm>`` from the derivative of the misfit with the wavelet that is estimated in each model:
        the gradient leaves out how the estimate changes. None if the wavelet does not follow the model.
    errors
        Errors of the shot's record.
    passed
        Whether all tests passed.
    text
        The results as a table.
    """

    dot_product: dict[str, float]
    processing: float
    jacobian: float
    derivative: float
    vector_derivative: float
    steps: NDArray
    remainders: NDArray
    slopes: NDArray
    storage: float
    approximation: float | None
    visible_below: float | None
    window: float | None
    estimation: float | None
    errors: ErrorBudget
    passed: bool
    text: str


def report_of(
    problem: Problem,
    shot: Shot,
    axis: TimeAxis,
    errors: tuple[dict[str, float], float, float, float, float, float],
    window: float | None,
    estimation: float | None,
    budget: ErrorBudget,
    steps: NDArray,
    remainders: NDArray,
    gradient: NDArray,
    own: NDArray | None,
    direction: NDArray,
) -> CheckReport:
    """Judge the results; ``errors`` are in the order of the report, that of the storage last."""
    dots, processing, jacobian, derivative, vector_derivative, storage = errors
    with np.errstate(divide="ignore", invalid="ignore"):
        slopes = np.log2(remainders[:-1] / remainders[1:])
    good = (slopes >= RIGHT_SLOPES[0]) & (slopes <= RIGHT_SLOPES[1])
    longest = max((len(run) for run in "".join("x" if ok else " " for ok in good).split()), default=0)
    limits = [(f"dot product, {name}", error, TOLERANCE[name]) for name, error in dots.items()]
    limits.append(("dot product, processing", processing, TOLERANCE["float64"]))
    limits.append(("dot product, variables", jacobian, TOLERANCE["float64"]))
    limits.append(("directional derivative", derivative, DERIVATIVE_TOLERANCE))
    limits.append(("derivative, optimiser's x", vector_derivative, DERIVATIVE_TOLERANCE))
    limits.append(("wavefield storage", storage, STORAGE_TOLERANCE))
    passed = longest >= ENOUGH_SLOPES and all(error <= limit for _, error, limit in limits)
    words = {True: "ok", False: "FAILED"}
    solver, fixed = problem.config.solver, "" if problem.fixed_step is not None else " (fixed for the test)"
    lines = [
        f"shot {shot.name}, {len(shot.receivers)} receivers, {axis.samples} samples of {axis.step:g} ms{fixed}, space order "
        f"{solver.space_order}, {'free surface' if solver.free_surface else 'no free surface'}, misfit "
        f"{MisfitSpec.from_config(problem.config.inversion.misfit)}",
        *(["with a wavelet that is estimated from this shot"] if problem.config.wavelet.kind == "estimate" else []),
        "",
        f"{'test':26}{'found':>12}{'limit':>12}",
        *(f"{name:26}{error:12.2e}{limit:12.0e}   {words[error <= limit]}" for name, error, limit in limits),
        f"{'Taylor slope 2.00 +- 0.01':26}{f'{longest} halvings':>12}{f'{ENOUGH_SLOPES}':>12}   "
        f"{words[longest >= ENOUGH_SLOPES]}",
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
        kept = strategies(problem)[0]
        what = [f"every {kept.spec.snapshot_every} steps of the wavefield kept"] if kept.spec.snapshot_every > 1 else []
        if kept.name == "compressed":
            what.append("8 bits a value")
        if solver.boundary_gradient == "crop":
            what.append("the layer's part dropped")
        lines += [
            "",
            f"this run's gradient is an approximation ({' and '.join(what)}):",
            f"  relative difference from the exact one {approximation:.2e}; it dominates the remainder of steps below "
            f"{visible:.1e}",
        ]
    if window is not None:
        assert problem.windows is not None
        size = " x ".join(map(str, problem.windows.shape))
        lines += [
            "",
            f"the gradient in the shot's window of {size} points differs by {window:.2e} from that in the whole model",
        ]
    if estimation is not None:
        lines += [
            "",
            "the wavelet is estimated in each model; the gradient leaves out how the estimate changes:",
            f"  relative difference of the derivative in the direction of the test {estimation:.2e}",
        ]
    verdict = "the gradient is right" if passed else "FAILED, the gradient is not that of the misfit"
    title = "errors of this shot's record in the initial model, as shares of it:"
    text = "\n".join([*lines, "", title, budget.text, "", f"verdict: {verdict}"])
    return CheckReport(
        dots,
        processing,
        jacobian,
        derivative,
        vector_derivative,
        steps,
        remainders,
        slopes,
        storage,
        approximation,
        visible,
        window,
        estimation,
        budget,
        passed,
        text,
    )
