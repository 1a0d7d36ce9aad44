"""The Born operator of a survey for PyLops, an optional dependency."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hpcfwi.errors import InputError

try:
    from pylops import LinearOperator
except ImportError:
    raise InputError(
        "linear_operator: needs PyLops, which is not installed; type: pip install 'hpcfwi[pylops]', or pip install pylops"
    ) from None

if TYPE_CHECKING:
    from hpcfwi.run.survey_objective import SurveyObjective


class BornOperator(LinearOperator):
    """J at one model, from flat changes of the model to the samples of all gathers, one shot after the other.

    Parameters
    ----------
    objective
        The objective, which has to stay open.
    m
        The model, (s/km)^2.
    shots
        Indices of shots; None for all.
    shapes
        Shapes of their gathers.
    """

    def __init__(
        self,
        objective: SurveyObjective,
        m: NDArray[np.float64],
        shots: Sequence[int] | None,
        shapes: Sequence[tuple[int, ...]],
    ) -> None:
        self.objective, self.m, self.shots, self.shapes = objective, m, shots, shapes
        super().__init__(dtype=objective.dtype, dims=objective.shape, dimsd=(sum(map(math.prod, shapes)),))

    def join(self, gathers: Sequence[NDArray]) -> NDArray:
        """Gathers as one flat array."""
        return np.concatenate([np.ravel(gather) for gather in gathers])

    def split(self, d: NDArray) -> list[NDArray]:
        """The gathers in a flat array."""
        if np.shape(d) != self.dimsd:
            raise InputError(f"d: has the shape {np.shape(d)}; it should be {self.dimsd}: the samples of all gathers")
        ends = np.cumsum([math.prod(shape) for shape in self.shapes])
        return [part.reshape(shape) for part, shape in zip(np.split(d, ends[:-1]), self.shapes, strict=True)]

    def _matvec(self, x: NDArray) -> NDArray:
        # scipy's solvers also pass columns
        return self.join(self.objective.born(x.ravel(), self.m, self.shots))

    def _rmatvec(self, x: NDArray) -> NDArray:
        return self.objective.born_adjoint(self.split(x.ravel()), self.m, self.shots).ravel().astype(self.dtype)
