"""The misfit of one shot: processing, misfit, adjoint source, and the errors of a misfit that does not keep its promises."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hpcfwi.errors import DataError, HpcfwiError, RunError
from hpcfwi.inversion.misfits.base import Misfit, UndefinedMisfit
from hpcfwi.model.grid import TimeAxis
from hpcfwi.model.processing.operators import Transform


@dataclass(frozen=True, eq=False)
class ShotMisfit:
    """The misfit of one shot as a function of its predicted gather d: value ``J(T(d))``, adjoint source ``T'(d)^T dJ/dT``."""

    shot: str  # name
    kind: str  # inversion.misfit.kind, for messages
    misfit: Misfit  # J, which compares the processed gathers
    processing: Transform  # T
    observed: NDArray  # the observed gather, processed
    axis: TimeAxis  # of the processed gathers

    def __call__(self, predicted: NDArray) -> tuple[float, NDArray]:
        """Misfit and adjoint source of a predicted gather, shape (samples, receivers).

        Raises
        ------
        DataError
            If the misfit is undefined for this shot.
        RunError
            If the wavefield or the misfit is not finite, or the misfit fails.
        """
        processed, derivative = self.processing.linearise(predicted)
        value, source = self._evaluate(processed)
        if not np.isfinite(value):
            raise RunError(self._reason(value, predicted))
        if source.shape != processed.shape:
            raise RunError(
                f"the misfit {self.kind} returned an adjoint source of shape {source.shape} for a gather of shape "
                f"{processed.shape}: evaluate() must return (value, derivative with respect to predicted)"
            )
        broken = np.argwhere(~np.isfinite(source))
        if len(broken):
            sample, trace = broken[0] + 1
            raise RunError(
                f"the misfit {self.kind} is {value:.6g}, but {len(broken)} of {source.size} values of its adjoint source are "
                f"not finite; the first is {source[sample - 1, trace - 1]}, in sample {sample} of trace {trace}"
            )
        return value, derivative.transpose(source)

    def _evaluate(self, processed: NDArray) -> tuple[float, NDArray]:
        """Call the misfit; its errors become one line."""
        try:
            value, source = self.misfit.evaluate(processed, self.observed, self.axis)
            return float(value), np.asarray(source)
        except HpcfwiError:
            raise
        except UndefinedMisfit as error:
            raise DataError(
                self.shot,
                f"the misfit {self.kind} is undefined for it: {error}. Change the processing, leave the shot out "
                "(data.exclude), or take another misfit (inversion.misfit)",
            ) from None
        except Exception as error:  # a foreign misfit can raise anything
            place = traceback.extract_tb(error.__traceback__)[-1]
            raise RunError(
                f"the misfit {self.kind} fails with {type(error).__name__}: {error} ({Path(place.filename).name}, line "
                f"{place.lineno})"
            ) from error

    def _reason(self, value: float, predicted: NDArray) -> str:
        """Why the misfit is not a finite number."""
        if not np.isfinite(predicted).all():
            return (
                f"the misfit is {value}: the wavefield has grown without bounds. Check the model and solver.time_step"
            )
        if not np.isfinite(self.observed).all():
            return f"the misfit is {value}: the observed gather is not finite"
        return f"the misfit {self.kind} is {value} for a finite gather, whose largest value is " + (
            f"{np.abs(predicted).max():.3g}; the largest observed one is {np.abs(self.observed).max():.3g}"
        )
