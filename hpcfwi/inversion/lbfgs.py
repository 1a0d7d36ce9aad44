"""The optimiser: scipy's L-BFGS-B in float64 over the squared slowness."""

from __future__ import annotations

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
    """

    def callback(intermediate_result: OptimizeResult) -> None:
        on_iteration(intermediate_result.x, float(intermediate_result.fun))

    with threadpool_limits(limits=1, user_api="blas"):
        return minimize(
            objective,
            np.clip(x0, *bounds),
            jac=True,
            method="L-BFGS-B",
            bounds=Bounds(*bounds),
            callback=callback,
            options={
                "maxiter": limits.iterations,
                "maxfun": limits.evaluations,
                "ftol": limits.ftol,
                "gtol": limits.gtol,
                "maxcor": limits.corrections,
                "maxls": limits.line_search_steps,
            },
        )
