"""Smoothing by implicit diffusion: an average over neighbours that frozen cells neither enter nor receive."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.lapack import dpttrf, dpttrs

# Steps of diffusion. One gives an exponential, many a Gaussian: the excess kurtosis of the S S^T of an axis is 3 / (2 STEPS).
STEPS = 4


@dataclass(frozen=True, eq=False)
class Diffusion:
    """The smoothing S of a grid with frozen cells; the standard deviation of S S^T is the length that was asked for.

    Parameters
    ----------
    shape
        Shape of the grid.
    factors
        For each axis the diagonals of D and L in ``A = L D L^T``, all lines along the axis one after the other.

    Notes
    -----
    ``A = 1 + B^T k B`` along an axis, with differences B between neighbours and ``k = length^2 / (4 STEPS h^2)`` between them,
    zero next to a frozen cell. ``S = (A_z^-1 A_x^-1)^STEPS`` (in 3-D with y). Each ``A^-1`` is symmetric and positive, and its
    rows and columns add up to 1: S keeps constants, and loses nothing. On any spacing, the variance of S is ``length^2 / 2``
    (Mirouze and Weaver 2010, doi:10.1002/qj.643).
    """

    shape: tuple[int, ...]
    factors: tuple[tuple[NDArray[np.float64], NDArray[np.float64]], ...]

    @classmethod
    def of(
        cls, lengths: Sequence[float | NDArray[np.float64]], spacing: Sequence[float], frozen: NDArray[np.bool_]
    ) -> Diffusion:
        """The smoothing for lengths along each axis, m: numbers, or arrays on the grid."""
        factors = []
        for axis, (length, h) in enumerate(zip(lengths, spacing, strict=True)):
            squared = np.moveaxis(np.broadcast_to(np.square(length) / (4 * STEPS * h**2), frozen.shape), axis, -1)
            free = np.moveaxis(~frozen, axis, -1)
            coupling = np.zeros(squared.shape)
            coupling[..., :-1] = np.where(
                free[..., :-1] & free[..., 1:], (squared[..., :-1] + squared[..., 1:]) / 2, 0.0
            )
            below = coupling.ravel()
            diagonal = 1 + below
            diagonal[1:] += below[:-1]
            d, e, _ = dpttrf(diagonal, -below[:-1], overwrite_d=1, overwrite_e=1)
            factors.append((d, e))
        return cls(frozen.shape, tuple(factors))

    def apply(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """``S values``, on the grid."""
        return self._solve(values, range(len(self.shape)))

    def transpose(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """``S^T values``, on the grid."""
        return self._solve(values, range(len(self.shape) - 1, -1, -1))

    def _solve(self, values: NDArray[np.float64], axes: range) -> NDArray[np.float64]:
        for _ in range(STEPS):
            for axis in axes:
                lines = np.moveaxis(values, axis, -1)
                solved, _ = dpttrs(*self.factors[axis], np.ascontiguousarray(lines).ravel())
                values = np.moveaxis(solved.reshape(lines.shape), -1, axis)
        return np.ascontiguousarray(values)
