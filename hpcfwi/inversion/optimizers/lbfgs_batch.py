"""L-BFGS on batches of shots that have a part in common."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import OptimizeResult
from threadpoolctl import threadpool_limits

from hpcfwi.config.inversion import InversionSection
from hpcfwi.inversion.optimizers.base import Iterate, Subset, SurveyFunction, limit_message, step_size
from hpcfwi.inversion.optimizers.batches import Batches, spread
from hpcfwi.inversion.parametrisation import Parametrisation, Vector

# A step is accepted if it lowers the misfit by this share of what the gradient promises (Nocedal and Wright 2006, section 3.1).
ARMIJO = 1e-4
# A rejected step is multiplied by a number in this range.
SHORTEST, LONGEST = 0.1, 0.5
# Steps may grow to so many times inversion.first_step.
MAX_GROWTH = 6.0
# A pair is damped if its curvature is below this share of what is expected (Powell 1978).
LEAST_CURVATURE = 0.2


class BatchLbfgs:
    """Multi-batch L-BFGS (Berahas, Nocedal and Takáč 2016, arXiv:1605.06049).

    The batch of iteration k has the shots ``O_k``, which were in the batch before, and new ones; some of the new ones are
    ``O_(k+1)``. The direction is ``d = -H g`` with the gradient of the batch. A trial step is evaluated with ``O_(k+1)`` alone
    and shortened until it lowers the misfit of these shots, so that misfits and gradients of the same shots are compared::

        s = x_new - x,    y = g_O(x_new) - g_O(x),    O = O_(k+1)

    The new shots of the next batch are evaluated in the accepted model only. If ``g_O d >= 0``, the direction is ``-H g_O``.
    Cells at a bound that d would leave are held, others are projected onto the bounds.
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
            return _Minimisation(objective, parametrisation, section, on_iteration).run(x0)


@dataclass(frozen=True, eq=False)
class _Batch:
    """An iterate, and what the shots say of it that the next batch has, too."""

    iterate: Iterate
    common: Subset
    misfit: float  # of the common shots, as an estimate of that of all
    gradient: Vector


class _Minimisation:
    def __init__(
        self,
        objective: SurveyFunction,
        parametrisation: Parametrisation,
        section: InversionSection,
        on_iteration: Callable[[Iterate], str | None],
    ) -> None:
        self.objective, self.parametrisation, self.section = objective, parametrisation, section
        self.on_iteration, self.bounds = on_iteration, parametrisation.bounds
        shots = objective.shot_count
        self.overlap = section.overlap_size(shots)
        self.batches = Batches(shots, section.batch_size(shots) - self.overlap, section.seed)
        self.bits = np.random.PCG64([section.seed, 1])
        self.curvature = Curvature(section.corrections)
        assert not isinstance(section.first_step, str)
        self.first_step = self.largest_step = section.first_step
        self.evaluations = 0

    def run(self, x0: Vector) -> OptimizeResult:
        batch, iteration = self._batch(np.clip(x0, *self.bounds), 0), 0
        while True:
            reason = self.on_iteration(batch.iterate) or self._limit(iteration)
            if reason:
                return batch.iterate.result(iteration, reason)
            found = self._line_search(batch)
            if found is None and self.curvature.pairs:
                self.curvature = Curvature(self.section.corrections)
                found = self._line_search(batch)
            if found is None:
                message = "the line search found no better point for the shots in common with the next batch"
                return batch.iterate.result(iteration, message)
            self.curvature.add(found.x - batch.iterate.x, found.gradient - batch.gradient)
            iteration += 1
            batch = self._batch(found.x, iteration, batch.common, found)

    def _limit(self, iteration: int) -> str:
        for key, count in (("iterations", iteration), ("evaluations", self.evaluations)):
            if count >= getattr(self.section, key):
                return limit_message(key)
        return ""

    def _evaluate(self, x: Vector, shots: Subset) -> Iterate:
        self.evaluations += 1
        return Iterate(x, *self.objective(x, shots), len(shots))

    def _batch(self, x: Vector, iteration: int, common: Subset = (), known: Iterate | None = None) -> _Batch:
        """Evaluate the batch of an iteration at x, of which the shots ``common`` are ``known``."""
        total, every = self.objective.shot_count, self.section.full_misfit_every
        new = tuple(shot for shot in next(self.batches) if shot not in common)
        following = spread(new, min(self.overlap, len(new)), self.bits)
        if every and (iteration % every == 0 or iteration == self.section.iterations):
            new = tuple(shot for shot in range(total) if shot not in common)
        next_part = self._evaluate(x, following)
        rest = tuple(shot for shot in new if shot not in following)
        parts = [part for part in (known, next_part, self._evaluate(x, rest) if rest else None) if part is not None]
        count = sum(part.shots or 0 for part in parts)
        weights = [(part.shots or 0) / count for part in parts]
        misfit = sum(weight * part.misfit for weight, part in zip(weights, parts, strict=True))
        gradient = sum(weight * part.gradient for weight, part in zip(weights, parts, strict=True))
        iterate = Iterate(x, misfit, np.asarray(gradient), None if count == total else count)
        return _Batch(iterate, following, next_part.misfit, next_part.gradient)

    def _line_search(self, batch: _Batch) -> Iterate | None:
        """Find a step that lowers the misfit of the common shots; None if there is none. Evaluates these shots only."""
        x = batch.iterate.x
        d = self._direction(x, batch.iterate.gradient)
        if not batch.gradient @ d < 0:  # the other shots want another direction
            d = self._direction(x, batch.gradient)
        size = step_size(self.parametrisation, x, d)
        if not size > 0:
            return None
        # only the curvature knows how long a step should be
        factor = self.largest_step / size if not self.curvature.pairs else min(1.0, self.largest_step / size)
        for trial in range(self.section.line_search_steps):
            there = np.clip(x + factor * d, *self.bounds)
            slope = float(batch.gradient @ (there - x))
            found = self._evaluate(there, batch.common)
            if slope < 0 and found.misfit <= batch.misfit + ARMIJO * slope:
                grown = 2 * self.largest_step if trial == 0 else factor * size
                self.largest_step = min(grown, MAX_GROWTH * self.first_step)
                return found
            rise = found.misfit - batch.misfit - slope
            # the minimum of the parabola through both misfits and the slope
            best = -0.5 * slope / rise if slope < 0 < rise else LONGEST
            factor *= min(LONGEST, max(SHORTEST, best))
        return None

    def _direction(self, x: Vector, g: Vector) -> Vector:
        low, high = self.bounds
        held = ((x <= low) & (g > 0)) | ((x >= high) & (g < 0))
        return np.where(held, 0.0, -self.curvature.multiply(np.where(held, 0.0, g)))


class Curvature:
    """The last pairs (s, y), and the inverse Hessian H that they stand for: L-BFGS (Nocedal 1980), damped.

    ``H_0 = s.y / y.y``. A pair with ``s.y < 0.2 s.s / H_0`` is bent towards the Hessian that is expected, ``1 / H_0`` (Powell
    1978; for L-BFGS, Wang, Ma, Goldfarb and Liu 2017, doi:10.1137/15M1053141), so that H stays positive definite.
    """

    def __init__(self, corrections: int) -> None:
        self.pairs: deque[tuple[Vector, Vector]] = deque(maxlen=corrections)
        self._scale = 1.0  # H_0

    def add(self, s: Vector, y: Vector) -> None:
        """Add a pair; a first one without positive curvature is left out."""
        curvature = float(s @ y)
        if self.pairs:
            expected = float(s @ s) / self._scale
            if curvature < LEAST_CURVATURE * expected:
                share = (1 - LEAST_CURVATURE) * expected / (expected - curvature)
                y = share * y + (1 - share) * s / self._scale
                curvature = float(s @ y)
        if curvature > 0:
            self.pairs.append((s, y))
            self._scale = curvature / float(y @ y)

    def multiply(self, g: Vector) -> Vector:
        """``H g``, by the two loops of Nocedal (1980), doi:10.1090/S0025-5718-1980-0572855-7."""
        q, factors = g.copy(), []
        for s, y in reversed(self.pairs):
            factors.append(float(s @ q) / float(s @ y))
            q -= factors[-1] * y
        q *= self._scale
        for (s, y), factor in zip(self.pairs, reversed(factors), strict=True):
            q += (factor - float(y @ q) / float(s @ y)) * s
        return q
