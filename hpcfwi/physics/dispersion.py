"""Numerical dispersion: how wrong the speed of the shortest waves is on this grid."""

from __future__ import annotations

import math

from hpcfwi.physics.timeaxis import second_derivative_weights

__all__ = ["phase_error", "points_per_wavelength"]


def points_per_wavelength(velocity: float, frequency: float, spacing: float) -> float:
    """Grid points per wavelength; velocity in km/s, frequency in kHz, spacing in m."""
    return velocity / (frequency * spacing)


def phase_error(points: float, space_order: int, courant: float) -> float:
    """Relative error of the phase velocity of a plane wave along a grid axis.

    Parameters
    ----------
    points
        Grid points per wavelength, above 2.
    space_order
        Order of the finite differences.
    courant
        velocity x time step / spacing.

    Notes
    -----
    From the dispersion relation of the leap-frog scheme, ``sin(w dt / 2) = (c dt / 2) K`` with ``K^2`` the negative
    symbol of the stencil at the wavenumber k (Alford, Kelly and Boore 1974, doi:10.1190/1.1440470).
    """
    kh = 2 * math.pi / points
    weights = second_derivative_weights(space_order)
    symbol = -(weights[0] + 2 * sum(a * math.cos(j * kh) for j, a in enumerate(weights) if j))
    inner = 0.5 * courant * math.sqrt(symbol)
    return 2 * math.asin(min(inner, 1.0)) / (courant * kh) - 1
