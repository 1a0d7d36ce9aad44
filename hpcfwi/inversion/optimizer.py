"""The optimiser: scipy's L-BFGS-B in float64 over the squared slowness."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, OptimizeResult, minimize
from threadpoolctl import threadpool_limits

from hpcfwi.config.run import InversionSection

__all__ = ["minimise"]


def minimise(
    objective: Callable[[NDArray[np.float64]], tuple[float, NDArray[np.float64]]],
    x0: NDArray[np.float64],
    bounds: tuple[NDArray[np.float64], NDArray[np.float64]],
    limits: InversionSection,
    on_iteration: Callable[[NDArray[np.float64], float], None],
) -> OptimizeResult:
    """Minimise from ``x0`` within ``bounds``.

    The iterates are a pure function of x0, bounds, options and the objective's answers, so an interrupted minimisation is
    continued by giving it the same answers again. BLAS runs on one thread, since its sums depend on their number.

    Parameters
    ----------
    objective
        Returns misfit and gradient, float64, flat.
    x0
        First squared slowness, (s/km)^2, flat.
    bounds
        Lowest and highest values, flat.
    limits
        The configuration's ``[inversion]``.
    on_iteration
        Called with x and misfit after each iteration.

    Returns
    -------
    OptimizeResult
        With ``x`` the squared slowness.

    Notes
    -----
    L-BFGS-B begins with the projected step ``x - g`` (Byrd et al. 1995, doi:10.1137/0916069), whatever the units of the
    misfit; where g is large that is a jump to the bounds. So it sees ``c x`` with the gradient ``g / c``, whose first step
    is ``x - g / c^2``. c is a power of two, by which x is multiplied and divided without rounding.
    """
    start = np.clip(x0, *bounds)
    answer = objective(start)
    if limits.iterations == 0:  # scipy makes one all the same
        return OptimizeResult(
            x=start, fun=answer[0], jac=answer[1], nit=0, nfev=1, message="no iteration was asked for"
        )
    scale = 1.0 if limits.first_step == "unscaled" else _scale(start, answer[1], bounds, limits.first_step)
    first: list[tuple[float, NDArray[np.float64]]] = [answer]

    def scaled(y: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        f, g = first.pop() if first else objective(y / scale)
        return f, g / scale

    def callback(intermediate_result: OptimizeResult) -> None:
        on_iteration(intermediate_result.x / scale, float(intermediate_result.fun))

    with threadpool_limits(limits=1, user_api="blas"):
        result = minimize(
            scaled,
            start * scale,
            jac=True,
            method="L-BFGS-B",
            bounds=Bounds(bounds[0] * scale, bounds[1] * scale),
            callback=callback,
            options={
                "maxiter": limits.iterations,
                "maxfun": limits.evaluations,
                "ftol": limits.ftol,
                "gtol": limits.gtol / scale,
                "maxcor": limits.corrections,
                "maxls": limits.line_search_steps,
            },
        )
    result.x = result.x / scale
    result.jac = result.jac * scale
    return result


def _scale(x: NDArray[np.float64], g: NDArray[np.float64], bounds: tuple[NDArray, NDArray], first_step: float) -> float:
    """The power of two for which the largest change of velocity, ``v^3 / 2 |g| / c^2``, is about ``first_step``."""
    free = bounds[0] < bounds[1]
    # a handful of cells at sources and edges may have gradients far above all others: they are not asked
    change = np.quantile(np.abs(0.5 * x[free] ** -1.5 * g[free]), 0.99)
    if not change > 0:
        return 1.0
    return float(2.0 ** round(0.5 * math.log2(change / first_step)))
