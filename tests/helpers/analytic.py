"""Problems with a known answer for optimisers: each looks like a survey, whose misfit is a sum over shots."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hpcfwi.config.inversion import InversionSection

__all__ = ["Box", "Quadratics", "Recorded", "rosenbrock", "section"]


def section(**settings: object) -> InversionSection:
    """A section ``[inversion]``; its bounds are those of a :class:`Box`, not of velocities."""
    return InversionSection(bounds=(1.0, 2.0), **settings)


class Box:
    """A parametrisation by velocities between bounds, which may be anything."""

    def __init__(self, low: Sequence[float] | NDArray, high: Sequence[float] | NDArray) -> None:
        self.bounds = np.asarray(low, dtype=float), np.asarray(high, dtype=float)

    def velocity_change(self, x: NDArray, step: NDArray) -> NDArray:  # noqa: ARG002
        return step


class Quadratics:
    """``f_i(x) = 1/2 (x - c_i)^T A_i (x - c_i)`` with diagonal A_i; the minimum of the sum is known.

    ``spread`` is the distance of the centres c_i from each other: with 0 all shots want the same model.
    """

    def __init__(self, shots: int, size: int, spread: float, seed: int = 0, factor: float = 1.0) -> None:
        rng = np.random.default_rng(seed)
        self.shot_count, self.factor = shots, factor
        self.weights = np.geomspace(1, 30, size) * rng.uniform(0.5, 1.5, (shots, size))
        common = rng.uniform(-0.5, 0.5, size)
        self.centres = common + spread * rng.normal(size=(shots, size))
        self.minimum = (self.weights * self.centres).sum(axis=0) / self.weights.sum(axis=0)

    def __call__(self, x: NDArray, shots: Sequence[int] | None = None) -> tuple[float, NDArray]:
        chosen = list(range(self.shot_count) if shots is None else shots)
        share = self.factor * self.shot_count / len(chosen)
        off = x - self.centres[chosen]
        return 0.5 * share * float((self.weights[chosen] * off**2).sum()), share * (self.weights[chosen] * off).sum(0)


class Recorded:
    """An objective that remembers what it was asked and what it answered."""

    def __init__(self, objective: Quadratics) -> None:
        self.objective, self.shot_count = objective, objective.shot_count
        self.asked: list[tuple[NDArray, Sequence[int] | None]] = []
        self.answers: list[tuple[float, NDArray]] = []

    def __call__(self, x: NDArray, shots: Sequence[int] | None = None) -> tuple[float, NDArray]:
        self.asked.append((x.copy(), shots))
        self.answers.append(self.objective(x, shots))
        return self.answers[-1]

    def replay(self) -> Recorded:
        """The same questions get the recorded answers; another question fails."""
        asked, answers = iter(self.asked), iter(self.answers)

        def answer(x: NDArray, shots: Sequence[int] | None = None) -> tuple[float, NDArray]:
            expected, subset = next(asked)
            np.testing.assert_array_equal(x, expected)
            assert shots == subset
            return next(answers)

        answer.shot_count = self.shot_count  # type: ignore[attr-defined]
        return Recorded(answer)  # type: ignore[arg-type]


def rosenbrock(x: NDArray, shots: Sequence[int] | None = None) -> tuple[float, NDArray]:  # noqa: ARG001
    """The function of Rosenbrock (1960), with its minimum 0 at (1, ..., 1); every shot has the same share of it."""
    from scipy.optimize import rosen, rosen_der

    return float(rosen(x)), rosen_der(x)


rosenbrock.shot_count = 4  # type: ignore[attr-defined]
