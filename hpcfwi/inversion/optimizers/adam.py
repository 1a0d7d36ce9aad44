"""Adam on batches of shots."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy.optimize import OptimizeResult

from hpcfwi.config.inversion import InversionSection
from hpcfwi.inversion.optimizers.base import Iterate, SurveyFunction, limit_message
from hpcfwi.inversion.optimizers.batches import Batches
from hpcfwi.inversion.parametrisation import Parametrisation, Vector

# Decay of the mean of the gradients and of the mean of their squares in an iteration.
BETA1, BETA2 = 0.9, 0.999


class Adam:
    """Adam (Kingma and Ba 2015, arXiv:1412.6980) with projection onto the bounds.

    x is the velocity, km/s, so that the step is one, too. In iteration k, with the gradient g of a batch::

        m = b1 m + (1 - b1) g            v = b2 v + (1 - b2) g^2
        m^ = m / (1 - b1^(k + 1))        v^ = v / (1 - b2^(k + 1))
        x = x - a_k m^ / (sqrt(v^) + e max(sqrt(v^)))

    The paper adds ``e = 1e-8`` to each root; here e is ``inversion.epsilon`` times the largest root, so that the unit of
    the misfit does not matter. The step ``a_k`` is constant or decays as ``a (1 + cos(pi k / iterations)) / 2``; it grows over
    the first ``inversion.warmup`` iterations.
    """

    def minimise(
        self,
        objective: SurveyFunction,
        x0: Vector,
        parametrisation: Parametrisation,
        section: InversionSection,
        on_iteration: Callable[[Iterate], str | None],
    ) -> OptimizeResult:
        """See :class:`hpcfwi.inversion.optimizers.base.Optimizer`."""
        bounds, shots, every = parametrisation.bounds, objective.shot_count, section.full_misfit_every
        batches = Batches(shots, section.batch_size(shots), section.seed)
        x = np.clip(x0, *bounds)
        moments = Moments(x.size, section.epsilon)
        last = min(section.iterations, section.evaluations - 1)
        limit = limit_message("iterations" if last == section.iterations else "evaluations")
        for k in range(last + 1):
            batch = None if every and (k % every == 0 or k == last) else next(batches)
            f, g = objective(x, batch)
            count = None if batch is None or len(batch) == shots else len(batch)
            iterate = Iterate(x, f, g, count)
            reason = on_iteration(iterate) or (limit if k == last else None)
            if reason:
                return iterate.result(k, reason)
            # after few gradients, the mean of noise is as large as its root mean square
            step = section.step * min(1.0, (k + 1) / (section.warmup + 1))
            if section.schedule == "cosine":
                step *= 0.5 * (1 + math.cos(math.pi * k / section.iterations))
            x = np.clip(x - step * moments.direction(g), *bounds)
        raise AssertionError("the last iteration has a reason to stop")


class Moments:
    """Mean and mean square of the gradients so far, of ``size`` entries; ``epsilon`` is a share of the largest root."""

    def __init__(self, size: int, epsilon: float) -> None:
        self._epsilon = epsilon
        self._mean, self._square = np.zeros(size), np.zeros(size)
        self._count = 0
        self._unit = 0.0

    def direction(self, g: Vector) -> Vector:
        """Add a gradient; return the step for a step length of 1."""
        # the squares of gradients in a large or small unit would not be numbers; a power of two causes no rounding
        self._unit = self._unit or _power_of_two(g)
        if not self._unit:
            return np.zeros_like(g)
        g = g / self._unit
        self._count += 1
        self._mean = BETA1 * self._mean + (1 - BETA1) * g
        self._square = BETA2 * self._square + (1 - BETA2) * g**2
        mean = self._mean / (1 - BETA1**self._count)
        root = np.sqrt(self._square / (1 - BETA2**self._count))
        return np.asarray(mean / (root + self._epsilon * root.max()))


def _power_of_two(g: Vector) -> float:
    """The power of two next to the largest entry; 0 if all are 0."""
    largest = float(np.abs(g).max())
    return float(2.0 ** round(math.log2(largest))) if largest else 0.0
