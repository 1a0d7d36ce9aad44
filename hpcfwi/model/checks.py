"""Whether grid and samples carry the waves: Nyquist, points per wavelength, dispersion; with the change that would mend it."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from hpcfwi.config.run import RunConfig
from hpcfwi.errors import DataError, InputError
from hpcfwi.model.discretization import critical_step, second_derivative_weights
from hpcfwi.model.grid import Domain
from hpcfwi.model.survey import Survey
from hpcfwi.model.wavelet import RickerWavelet, Wavelet, highest_frequency

__all__ = ["at_most", "check_positions", "check_sampling", "dispersion", "phase_error", "points_per_wavelength"]

# Fewer points per shortest wavelength than this is an error; a larger phase error than this is worth a warning.
FEWEST_POINTS, PHASE_ERROR_WARNING = 2.5, 0.01
# With more points than this the phase error is far below any that matters, and its formula loses all digits.
MOST_POINTS = 1000


def check_sampling(
    config: RunConfig,
    domain: Domain,
    wavelet: Wavelet,
    space_order: int,
    velocities: tuple[float, float],
    step: float | None,
) -> tuple[str, ...]:
    """Nyquist is an error, dispersion a warning (an error where the grid does not carry the waves at all)."""
    highest = highest_frequency(wavelet)
    # A time step within the Courant limit, on a grid with enough points, is always below Nyquist.
    interval = config.data.sample_interval
    if interval > 1 / (2 * highest):
        raise InputError(
            f"data.sample_interval: {interval:g} ms resolves frequencies up to {500 / interval:.4g} Hz (Nyquist), but the "
            f"wavelet reaches {1000 * highest:.4g} Hz; take at most {at_most(1 / (2 * highest))} ms, or "
            f"{_lower_frequency(wavelet, 1 / (2 * highest * interval))}"
        )
    points, error = dispersion(domain, wavelet, space_order, velocities, step)
    told = (
        f"{points:.2f} grid points per shortest wavelength ({velocities[0]:.4g} km/s at {1000 * highest:.4g} Hz on "
        f"{max(domain.spacing):g} m)"
    )
    if points < FEWEST_POINTS:
        raise InputError(
            f"grid.spacing: {told}; at least {FEWEST_POINTS} are needed: take a spacing of at most "
            f"{at_most(velocities[0] / (FEWEST_POINTS * highest))} m, or {_lower_frequency(wavelet, points / FEWEST_POINTS)}"
        )
    if abs(error) < PHASE_ERROR_WARNING:
        return ()
    if error > 0:
        advice = "a shorter solver.time_step"
    else:
        advice = "a finer grid" + ("" if space_order >= 12 else " or a higher solver.space_order")
    return (f"dispersion: {told}: their speed is off by about {100 * error:+.1f} %; {advice} would mend it",)


def dispersion(
    domain: Domain, wavelet: Wavelet, space_order: int, velocities: tuple[float, float], step: float | None
) -> tuple[float, float]:
    """Grid points per shortest wavelength, and the relative error of its speed."""
    spacing = max(domain.spacing)
    points = points_per_wavelength(velocities[0], highest_frequency(wavelet), spacing)
    if not 2 < points < MOST_POINTS:
        return points, 0.0
    shortest = step or critical_step(domain, space_order, velocities[1])
    return points, phase_error(points, space_order, velocities[0] * shortest / spacing)


def _lower_frequency(wavelet: Wavelet, factor: float) -> str:
    """How the wavelet would have to change for its highest frequency to become ``factor`` times what it is."""
    if isinstance(wavelet, RickerWavelet):
        return f"a wavelet.peak_frequency of at most {at_most(1000 * wavelet.frequency * factor)} Hz"
    return f"a wavelet without frequencies above {at_most(1000 * highest_frequency(wavelet) * factor)} Hz"


def at_most(value: float) -> str:
    """A limit to four digits, rounded down, so that what is read there keeps to it."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 3)
    return f"{math.floor(value / unit) * unit:.4g}"


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


def check_positions(survey: Survey, domain: Domain) -> None:
    """Raise unless every source and receiver lies inside the grid.

    Raises
    ------
    DataError
        Naming the shot, the position and the limits of the grid.
    InputError
        If the survey has no shot.
    """
    if not survey.shots:
        raise InputError("the survey is empty: it has no shot")
    outside = ~domain.contains(np.stack([shot.source for shot in survey.shots]))
    checked = None
    for shot, source_outside in zip(survey.shots, outside, strict=True):
        if source_outside:
            raise _outside(shot.name, "source", shot.source[None], domain)
        if len(shot.receivers) == 0:
            raise DataError(shot.name, "has no receivers")
        if shot.receivers is checked:
            continue  # shots of a fixed spread share one array
        checked = shot.receivers
        if not domain.contains(checked).all():
            raise _outside(shot.name, "receiver", checked, domain)


def _outside(shot: str, what: str, positions: NDArray[np.float64], domain: Domain) -> DataError:
    outside = np.flatnonzero(~domain.contains(positions))
    number = f" {outside[0] + 1}" if what == "receiver" else ""
    position = ", ".join(f"{value:g}" for value in positions[outside[0]])
    more = f" (and {outside.size - 1} more)" if outside.size > 1 else ""
    limits = ", ".join(
        f"{axis} {low:g} to {high:g} m" for axis, low, high in zip(domain.axes, domain.origin, domain.last, strict=True)
    )
    return DataError(shot, f"{what}{number} at ({position}) m{more} is outside the model, which covers {limits}")
