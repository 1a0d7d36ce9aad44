"""L-BFGS-B on all shots: scipy's, in float64."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy.optimize import Bounds, OptimizeResult, minimize
from threadpoolctl import threadpool_limits

from hpcfwi.config.inversion import InversionSection
from hpcfwi.inversion.optimizers.base import Iterate, SurveyFunction, limit_message, step_size
from hpcfwi.inversion.parametrisation import Parametrisation, Vector

# Values of scipy's OptimizeResult.status.
CONVERGED, LIMIT_REACHED, ABNORMAL = 0, 1, 2
NO_BETTER_POINT = "the line search found no better point: this is the best model so far"


class Lbfgs:
    """L-BFGS-B (Byrd et al. 1995, doi:10.1137/0916069).

    It first tries ``x - g``, projected onto the bounds, whatever the units of the misfit; where g is large that is a jump to
    the bounds. It stops early if the misfit is far below 1. So it gets ``f / s`` as a function of ``c x``, with s about the
    first misfit, and first tries ``x - g / (c^2 s)``. c and s are powers of two: scaling causes no rounding.
    """

    def minimise(
        self,
        objective: SurveyFunction,
        x0: Vector,
        parametrisation: Parametrisation,
        section: InversionSection,
        on_iteration: Callable[[Iterate], str | None],
    ) -> OptimizeResult:
        """See :class:`hpcfwi.inversion.optimizers.base.Optimizer`. BLAS has one thread: its sums depend on their number."""
        with threadpool_limits(limits=1, user_api="blas"):
            start = np.clip(x0, *parametrisation.bounds)
            first = Iterate(start, *objective(start))
            reason = on_iteration(first)
            if not reason and section.iterations == 0:  # scipy would make one
                reason = limit_message("iterations")
            if reason:
                return first.result(0, reason)
            return _minimise(objective, first, parametrisation, section, on_iteration)


def _minimise(
    objective: SurveyFunction,
    first: Iterate,
    parametrisation: Parametrisation,
    section: InversionSection,
    on_iteration: Callable[[Iterate], str | None],
) -> OptimizeResult:
    bounds, (scale, unit) = parametrisation.bounds, _scales(first, parametrisation, section)
    steepest = 1.0 if section.first_step == "unscaled" else float(np.abs(first.gradient).max())
    unused, best, last = [first], first, first  # scipy asks for the first one again
    reason: str | None = None

    def scaled(y: Vector) -> tuple[float, Vector]:
        nonlocal best, last
        x = y / scale
        last = unused.pop() if unused else Iterate(x, *objective(x))
        best = last if last.misfit < best.misfit else best
        return last.misfit / unit, last.gradient / (scale * unit)

    def callback(intermediate_result: OptimizeResult) -> None:
        nonlocal reason
        x, f = intermediate_result.x / scale, unit * float(intermediate_result.fun)
        reason = on_iteration(Iterate(x, f, last.gradient))
        if reason:
            raise StopIteration

    result = minimize(
        scaled,
        first.x * scale,
        jac=True,
        method="L-BFGS-B",
        bounds=Bounds(bounds[0] * scale, bounds[1] * scale),
        callback=callback,
        options={
            "maxiter": section.iterations,
            "maxfun": section.evaluations,
            "ftol": section.ftol,
            "gtol": section.gtol * steepest / (scale * unit),
            "maxcor": section.corrections,
            "maxls": section.line_search_steps,
        },
    )
    result.x, result.fun, result.jac = result.x / scale, result.fun * unit, result.jac * (scale * unit)
    result.message = reason or _message(result, section)
    if result.status == ABNORMAL and best.misfit < result.fun:  # a point that it did not accept
        on_iteration(best)
        return best.result(result.nit + 1, result.message)
    return result


def _message(result: OptimizeResult, section: InversionSection) -> str:
    """Why scipy has stopped."""
    if result.status == LIMIT_REACHED:
        return limit_message("iterations" if result.nit >= section.iterations else "evaluations")
    if result.status == CONVERGED:
        if "PROJECTED GRADIENT" in result.message:
            return "the gradient is small (inversion.gtol)"
        return "the misfit falls no further (inversion.ftol)"
    return NO_BETTER_POINT if result.status == ABNORMAL else str(result.message)


def _scales(first: Iterate, parametrisation: Parametrisation, section: InversionSection) -> tuple[float, float]:
    """The factors c of the variables and s of the misfit."""
    if section.first_step == "unscaled":
        return 1.0, 1.0
    # a misfit of another package may be negative
    unit = float(2.0 ** round(math.log2(abs(first.misfit)))) if first.misfit else 1.0
    change = step_size(parametrisation, first.x, first.gradient)
    if not change > 0:
        return 1.0, unit
    # the power of two for which change / (scale^2 unit) is about the first step
    return float(2.0 ** round(0.5 * math.log2(change / (unit * section.first_step)))), unit
