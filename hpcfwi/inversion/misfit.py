"""Misfits between predicted and observed gathers."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hpcfwi.errors import InputError, RunError
from hpcfwi.model.grid import TimeAxis
from hpcfwi.model.processing.operators import Transform

# Group of entry points with the misfits of other packages.
ENTRY_POINTS = "hpcfwi.misfits"


class Misfit(Protocol):
    """A function of one shot's predicted and observed gathers."""

    def evaluate(self, predicted: NDArray, observed: NDArray, axis: TimeAxis) -> tuple[float, NDArray]:
        """Compare two gathers.

        Parameters
        ----------
        predicted, observed
            Shape (samples, receivers), the same for both; neither may be changed.
        axis
            Time axis of the gathers.

        Returns
        -------
        float, ndarray
            The misfit, and its derivative with respect to ``predicted`` (the adjoint source), of the same shape.
        """


class LeastSquares:
    """The L2 misfit ``0.5 sum (predicted - observed)^2`` (Tarantola 1984, doi:10.1190/1.1441754), without the factor dt."""

    def evaluate(self, predicted: NDArray, observed: NDArray, axis: TimeAxis) -> tuple[float, NDArray]:  # noqa: ARG002
        """Return half the sum of squared residuals, summed in float64, and the residuals."""
        residual = predicted - observed
        return 0.5 * float(np.square(residual, dtype=np.float64).sum()), residual


# Misfits by their names in ``inversion.misfit``; other packages register an entry point.
MISFITS: dict[str, Callable[[], Misfit]] = {"l2": LeastSquares}


def load_misfit(name: str) -> Misfit:
    """Make the misfit that ``inversion.misfit`` names.

    ``name`` is in :data:`MISFITS`, an entry point of the group ``hpcfwi.misfits``, or ``module:name``; the last two name a
    class or a function that makes a misfit and takes no arguments. Raises InputError if there is no such misfit, or it cannot
    be imported.
    """
    point = _entry_point(name)
    try:
        found: Callable[[], Any] | None = MISFITS.get(name) or (point.load() if point is not None else None)
        misfit = None if found is None else found()
    except Exception as error:  # a foreign module can raise anything
        raise InputError(
            f'inversion.misfit: "{name}" cannot be loaded ({type(error).__name__}: {error}); is its module installed in this '
            "environment, or on PYTHONPATH?"
        ) from error
    if misfit is None:
        known = ", ".join(f'"{known}"' for known in sorted({*MISFITS, *entry_points(group=ENTRY_POINTS).names}))
        raise InputError(f'inversion.misfit: is "{name}"; it should be one of {known}, or "module:name"')
    if not hasattr(misfit, "evaluate"):
        raise InputError(f'inversion.misfit: "{name}" makes a {type(misfit).__name__}, which has no method evaluate')
    return misfit


def misfit_identity(name: str) -> dict[str, str]:
    """What identifies the code of another package's misfit: package, version, and digest of the package's Python files.

    Raises InputError as :func:`load_misfit` does.
    """
    load_misfit(name)
    point = _entry_point(name)
    if name in MISFITS or point is None:
        return {}
    package = f"{point.dist.name} {point.dist.version}" if point.dist is not None else point.module
    module = import_module(point.module)
    parent = sys.modules.get((module.__package__ or "").partition(".")[0])
    files = [Path(module.__file__)] if module.__file__ is not None else []
    if parent is not None and parent.__file__ is not None:  # else a plain folder, which may hold anything
        files = sorted(file for file in Path(parent.__file__).parent.rglob("*.py") if file.is_file())
    digest = hashlib.blake2b(b"".join(file.read_bytes() for file in files), digest_size=10)
    return {"misfit code": f"{package}, {digest.hexdigest()}"}


def _entry_point(name: str) -> EntryPoint | None:
    """Find the entry point with this name; for ``module:name``, make one. None if it is neither."""
    points = entry_points(group=ENTRY_POINTS)
    if name in points.names:
        return points[name]
    return EntryPoint(name, name, ENTRY_POINTS) if ":" in name else None


@dataclass(frozen=True, eq=False)
class ShotMisfit:
    """The misfit of one shot as a function of its predicted gather d: value ``J(T(d))``, adjoint source ``T'(d)^T dJ/dT``."""

    misfit: Misfit  # J, which compares the processed gathers
    processing: Transform  # T
    observed: NDArray  # the observed gather, processed
    axis: TimeAxis  # of the processed gathers

    def __call__(self, predicted: NDArray) -> tuple[float, NDArray]:
        """Misfit and adjoint source of a predicted gather, shape (samples, receivers)."""
        processed, derivative = self.processing.linearise(predicted)
        value, source = self.misfit.evaluate(processed, self.observed, self.axis)
        if not np.isfinite(value):
            raise RunError(self._reason(value, predicted))
        if np.shape(source) != processed.shape:
            raise RunError(
                f"the misfit {type(self.misfit).__name__} returned an adjoint source of shape {np.shape(source)} for a gather "
                f"of shape {processed.shape}: evaluate() must return (value, derivative with respect to predicted)"
            )
        return float(value), derivative.transpose(source)

    def _reason(self, value: float, predicted: NDArray) -> str:
        """Why the misfit is not a finite number."""
        if not np.isfinite(predicted).all():
            return (
                f"the misfit is {value}: the wavefield has grown without bounds. Check the model and solver.time_step"
            )
        if not np.isfinite(self.observed).all():
            return f"the misfit is {value}: the observed gather is not finite"
        return f"the misfit {type(self.misfit).__name__} is {value} for a finite gather, whose largest value is " + (
            f"{np.abs(predicted).max():.3g}; the largest observed one is {np.abs(self.observed).max():.3g}"
        )
