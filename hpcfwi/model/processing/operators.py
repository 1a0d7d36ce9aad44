"""What a processing step does to a gather: linear operators, transforms with a derivative, and chains of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from hpcfwi.model.grid import TimeAxis
from hpcfwi.model.survey import Shot, Survey


class Transform(Protocol):
    """A function T of a gather d, shape (samples, receivers), linear or not; it keeps the precision of the gather.

    The misfit compares ``T(d)`` with the observed gather, which is processed, too. The adjoint source is ``T'(d)^T dJ/dT``.
    """

    def linearise(self, gather: NDArray) -> tuple[NDArray, Operator]:
        """Return ``T(gather)`` and the derivative ``T'(gather)``; the argument stays as it is."""
        ...


class Operator(Protocol):
    """A linear transform P: its own derivative."""

    def apply(self, gather: NDArray) -> NDArray:
        """Return ``P gather``; the argument stays as it is."""
        ...

    def transpose(self, gather: NDArray) -> NDArray:
        """Return ``P^T gather``; the argument stays as it is."""
        ...

    def linearise(self, gather: NDArray) -> tuple[NDArray, Operator]:
        """Return ``P gather``, and the operator itself."""
        return self.apply(gather), self


@dataclass(frozen=True, eq=False)
class Weights(Operator):
    """Multiply each sample of a gather by a weight."""

    values: NDArray  # shape (samples, receivers), or with one of them 1

    def apply(self, gather: NDArray) -> NDArray:
        """Return the weighted gather."""
        return np.multiply(gather, self.values, dtype=gather.dtype)

    def transpose(self, gather: NDArray) -> NDArray:
        """Return the weighted gather, too: the operator is symmetric."""
        return self.apply(gather)


@dataclass(frozen=True, eq=False)
class Composition(Operator):
    """Linear operators, applied one after the other."""

    operators: tuple[Operator, ...]

    def apply(self, gather: NDArray) -> NDArray:
        """Apply the operators in their order."""
        for operator in self.operators:
            gather = operator.apply(gather)
        return gather

    def transpose(self, gather: NDArray) -> NDArray:
        """Apply the transposes, the last one first."""
        for operator in reversed(self.operators):
            gather = operator.transpose(gather)
        return gather


@dataclass(frozen=True, eq=False)
class Chain:
    """Transforms, applied one after the other."""

    transforms: tuple[Transform, ...] = ()

    @property
    def nbytes(self) -> int:
        """Bytes of the weights; other transforms are small, or shared by all shots."""
        return sum(each.values.nbytes for each in self.transforms if isinstance(each, Weights))

    @property
    def operator(self) -> Composition | None:
        """The chain as one operator, its own derivative; None if it is not linear."""
        linear = all(hasattr(each, "transpose") for each in self.transforms)
        return Composition(cast(tuple[Operator, ...], self.transforms)) if linear else None

    def apply(self, gather: NDArray) -> NDArray:
        """Return the processed gather."""
        return self.linearise(gather)[0]

    def linearise(self, gather: NDArray) -> tuple[NDArray, Operator]:
        """Return the processed gather, and the derivative by the chain rule."""
        derivatives = []
        for transform in self.transforms:
            gather, derivative = transform.linearise(gather)
            derivatives.append(derivative)
        return gather, Composition(tuple(derivatives))


class Step(Protocol):
    """A processing step of a run, as a user writes it; :meth:`build` makes the transform of a shot."""

    kind: ClassVar[str]  # as in ``processing.kind``
    observed_only: ClassVar[bool] = False  # whether predicted gathers stay as they are

    def build(self, shot: Shot, axis: TimeAxis) -> Transform:
        """The transform of a shot's gathers on a time axis."""
        ...

    def axis_after(self, axis: TimeAxis) -> TimeAxis:
        """Time axis after the step."""
        return axis

    def check(self, key: str, axis: TimeAxis, survey: Survey, highest: float) -> tuple[str, ...]:  # noqa: ARG002
        """Warnings about the step, which messages call ``key``, for gathers of a survey on a time axis.

        ``highest`` is the highest frequency of the wavelet, kHz. Raises InputError if the step does not fit.
        """
        return ()


def ramp(distance: NDArray, length: float) -> NDArray[np.float64]:
    """Cosine taper: 0 below distance 0, 1 above ``length``; with length 0, a step."""
    if length == 0:
        return np.where(distance >= 0, 1.0, 0.0)
    return 0.5 - 0.5 * np.cos(np.pi * np.clip(distance / length, 0.0, 1.0))
