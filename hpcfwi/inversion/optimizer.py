"""The optimiser: scipy's L-BFGS-B in float64."""

import math
from collections.abc import Callable

import numpy as np
from scipy.optimize import Bounds, OptimizeResult, minimize
from threadpoolctl import threadpool_limits

from hpcfwi.config.run import InversionSection
from hpcfwi.inversion.parametrisation import Parametrisation, Vector

# A few cells at sources and edges have far larger gradients than all others; this quantile sets the first step.
FIRST_STEP_QUANTILE = 0.99


def minimise(
    objective: Callable[[Vector], tuple[float, Vector]],
    x0: Vector,
    parametrisation: Parametrisation,
    section: InversionSection,
    on_iteration: Callable[[Vector, float], None],
) -> OptimizeResult:
    """Minimise from ``x0`` within the parametrisation's bounds.

    The iterates are a pure function of x0, bounds, options and what the objective returns, so an interrupted minimisation
    continues when it gets the same misfits and gradients again. BLAS has one thread: its sums depend on their number.

    Parameters
    ----------
    objective
        Returns misfit and gradient, float64.
    x0
        The first vector.
    parametrisation
        Bounds, and the change of velocity that a step causes.
    section
        The configuration's ``[inversion]``.
    on_iteration
        Called with x and misfit after each iteration.

    Returns
    -------
    OptimizeResult
        scipy's; x, fun and jac are those of the objective.

    Notes
    -----
    L-BFGS-B first tries ``x - g``, projected onto the bounds (Byrd et al. 1995, doi:10.1137/0916069), whatever the units of
    the misfit; where g is large that is a jump to the bounds. It stops early if the misfit is far below 1. So it gets ``f / s``
    as a function of ``c x``, with s about the first misfit, and first tries ``x - g / (c^2 s)``. c and s are powers of two:
    scaling causes no rounding.
    """
    bounds = parametrisation.bounds
    start = np.clip(x0, *bounds)
    with threadpool_limits(limits=1, user_api="blas"):
        f, g = objective(start)
        if section.iterations == 0:  # scipy would make one
            return OptimizeResult(x=start, fun=f, jac=g, nit=0, nfev=1, message="inversion.iterations is 0")
        scale = unit = steepest = 1.0
        if section.first_step != "unscaled":
            # a misfit of another package may be negative
            unit = float(2.0 ** round(math.log2(abs(f)))) if f else 1.0
            steepest = float(np.abs(g).max())
            free = bounds[0] < bounds[1]
            changes = np.abs(parametrisation.velocity_change(start, g)[free])
            change = float(np.quantile(changes, FIRST_STEP_QUANTILE))
            if change > 0:
                # the power of two for which change / (scale^2 unit) is about the first step
                scale = float(2.0 ** round(0.5 * math.log2(change / (unit * section.first_step))))
        unused = [(f, g)]  # scipy asks for it again

        def scaled(y: Vector) -> tuple[float, Vector]:
            f, g = unused.pop() if unused else objective(y / scale)
            return f / unit, g / (scale * unit)

        def callback(intermediate_result: OptimizeResult) -> None:
            on_iteration(intermediate_result.x / scale, unit * float(intermediate_result.fun))

        result = minimize(
            scaled,
            start * scale,
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
        result.x = result.x / scale
        result.fun = result.fun * unit
        result.jac = result.jac * (scale * unit)
        return result
