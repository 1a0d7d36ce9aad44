"""Misfits between predicted and observed gathers, and the pair of misfit and gradient that is summed over shots."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from hpcfwi.errors import InputError, RunError
from hpcfwi.model.grid import TimeAxis
from hpcfwi.model.processing.operators import Transform
from hpcfwi.model.windows import cut, embed

# Group of entry points with the misfits of other packages.
ENTRY_POINTS = "hpcfwi.misfits"
# Parts that one node of the summation tree adds. The shape of the tree, and so the last bits of the sum, depend only on this
# number and on the order of the shots.
BLOCK = 8

T = TypeVar("T")


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


@dataclass(frozen=True, eq=False)
class FunctionalGradient:
    """Misfit and gradient of a shot, or of several; pairs add up with ``+`` and :func:`sum`.

    Parameters
    ----------
    f
        Misfit.
    g
        Gradient, float64: of a shot with respect to the squared slowness, on the grid or a block of it; of an evaluation with
        respect to the optimiser's vector, shape (n,).
    start
        Index of the block's first cell in the whole grid; empty if g is not a block.
    """

    f: float
    g: NDArray[np.float64]
    start: tuple[int, ...] = ()

    def __add__(self, other: FunctionalGradient) -> FunctionalGradient:
        if not isinstance(other, FunctionalGradient):
            return NotImplemented
        return total([self, other])

    def __radd__(self, other: object) -> FunctionalGradient:
        """Let ``sum`` begin with its 0."""
        if isinstance(other, int) and other == 0:
            return self
        return NotImplemented


def total(parts: Iterable[FunctionalGradient]) -> FunctionalGradient:
    """Add at least one part from left to right, to the same bytes as ``sum``, in place.

    The sum of blocks is the smallest block that holds them.
    """
    coming = iter(parts)
    first = next(coming)
    f, g, start = first.f, first.g.copy(), first.start
    for part in coming:
        f += part.f
        if part.start != start or part.g.shape != g.shape:
            g, start = _enlarge(g, start, part)
        cut(g, tuple(a - b for a, b in zip(part.start, start, strict=True)), part.g.shape)[...] += part.g
    return FunctionalGradient(f, g, start)


def _enlarge(
    g: NDArray[np.float64], start: tuple[int, ...], part: FunctionalGradient
) -> tuple[NDArray[np.float64], tuple[int, ...]]:
    """A block with the values of another one, large enough to hold a part; zero elsewhere."""
    if not start or not part.start:
        raise ValueError(f"gradients of shape {g.shape} and {part.g.shape} cannot be added: one of them is not a block")
    first = np.minimum(start, part.start)
    last = np.maximum(np.add(start, g.shape), np.add(part.start, part.g.shape))
    within = tuple(int(i) for i in np.subtract(start, first))
    return embed(g, within, tuple(int(n) for n in last - first)), tuple(int(i) for i in first)


def blocks(parts: Sequence[T]) -> Iterator[Sequence[T]]:
    """Cut one level of the summation tree into the parts of each node."""
    for start in range(0, len(parts), BLOCK):
        yield parts[start : start + BLOCK]
