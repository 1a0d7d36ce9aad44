"""Checks of a problem before it runs: stability, sampling in space and time, positions."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from hpcfwi.config.run import RunConfig
from hpcfwi.errors import DataError, InputError
from hpcfwi.model.grid import (
    EDGE_TOLERANCE,
    Domain,
    TimeAxis,
    courant_limit,
    critical_step,
    phase_error,
    round_down,
    safe_step,
)
from hpcfwi.model.processing.sampling import RecordSampling
from hpcfwi.model.survey import Survey
from hpcfwi.model.wavelet import BandPassedWavelet, RickerWavelet, Wavelet, highest_frequency, peak_amplitude

MIN_POINTS_PER_WAVELENGTH, MAX_PHASE_ERROR = 2.5, 0.015
# With more points the phase error is negligible, and cancellation makes its formula useless.
MAX_POINTS_PER_WAVELENGTH = 1000
MAX_TIME_SAMPLES = 1_000_000
# A wavelet may begin with this share of its peak.
MAX_START = 0.01


def critical_time_step(config: RunConfig, domain: Domain, velocity: float) -> float:
    """Time step, ms, that follows the model: of one whose highest velocity, km/s, is ``velocity``."""
    nearest = config.data.tail == "extrapolate"  # as in Devito's tutorials
    return critical_step(domain, config.solver.space_order, velocity, nearest)


def choose_time_steps(config: RunConfig, domain: Domain, velocities: tuple[float, float]) -> tuple[float, float]:
    """Shortest and longest time step, ms, of models between the lowest and the highest velocity, km/s.

    Raises InputError if ``solver.time_step`` is unstable, or the time axis has too many samples.
    """
    order, rule = config.solver.space_order, config.solver.time_step
    fixed = safe_step(domain, order, velocities[1])
    if rule == "fixed":
        steps = fixed, fixed
    elif rule == "critical":
        low, high = velocities
        steps = critical_time_step(config, domain, high), critical_time_step(config, domain, low)
    else:
        steps, limit = (float(rule), float(rule)), courant_limit(domain, order, velocities[1])
        if steps[0] > limit:
            raise InputError(
                f"solver.time_step: {rule:g} ms is unstable (Courant): for {velocities[1]:.4g} km/s, a spacing of "
                f"{min(domain.spacing):g} m and space order {order} it may be at most {round_down(limit):.4g} ms; "
                f'"fixed" would take {fixed:.4g} ms'
            )
    duration = config.data.duration
    for key, step in (("solver.time_step", steps[0]), ("data.sample_interval", config.data.interval)):
        if duration / step > MAX_TIME_SAMPLES:
            raise InputError(
                f"data.recording_time: {duration:g} ms are {duration / step:.3g} samples of {step:.3g} ms ({key}); at most "
                f"{MAX_TIME_SAMPLES} are possible"
            )
    return steps


def check_sampling(
    config: RunConfig, domain: Domain, wavelet: Wavelet, velocities: tuple[float, float], steps: tuple[float, float]
) -> tuple[str, ...]:
    """Check Nyquist and dispersion; returns a warning if the phase error on the grid is large.

    Raises InputError if the sample interval or the grid does not carry the highest frequency of the wavelet.
    """
    highest, interval = highest_frequency(wavelet), config.data.interval
    # A stable time step on a grid with enough points is always below Nyquist.
    if interval > 1 / (2 * highest):
        raise InputError(
            f"data.sample_interval: {interval:g} ms resolves frequencies up to {500 / interval:.4g} Hz (Nyquist), but the "
            f"wavelet reaches {1000 * highest:.4g} Hz; take at most {round_down(1 / (2 * highest)):.4g} ms, or "
            f"{_lower_frequency(wavelet, 1 / (2 * highest * interval))}"
        )
    points, error = dispersion(config, domain, wavelet, velocities, steps)
    sampling = (
        f"{points:.2f} grid points per shortest wavelength ({velocities[0]:.4g} km/s at {1000 * highest:.4g} Hz on "
        f"{max(domain.spacing):g} m)"
    )
    if points < MIN_POINTS_PER_WAVELENGTH:
        spacing = velocities[0] / (MIN_POINTS_PER_WAVELENGTH * highest)
        raise InputError(
            f"grid.spacing: {sampling}; at least {MIN_POINTS_PER_WAVELENGTH} are needed: take a spacing of at most "
            f"{round_down(spacing):.4g} m, or {_lower_frequency(wavelet, points / MIN_POINTS_PER_WAVELENGTH)}"
        )
    if abs(error) < MAX_PHASE_ERROR:
        return ()
    if error > 0:
        advice = "a shorter solver.time_step"
    else:
        advice = "a finer grid" + ("" if config.solver.space_order >= 12 else " or a higher solver.space_order")
    return (
        f"dispersion: {sampling}: the speed of these waves is off by about {100 * error:+.1f} %; {advice} would reduce it",
    )


def check_records(sampling: RecordSampling, wavelet: Wavelet, axis: TimeAxis) -> tuple[str, ...]:
    """Warn if records at the samples of the observed data lose a part of the wavelet, or the record does."""
    warnings = []
    highest, interval = sampling.highest_frequency, sampling.recording.step
    passed = sampling.band(axis.step)[0]
    if passed < highest and not sampling.extrapolate:
        warnings.append(
            f"data.sample_interval: at {interval:g} ms, predicted records are complete up to {1000 * passed:.3g} Hz, but the "
            f"wavelet reaches {1000 * highest:.3g} Hz; {round_down(interval * passed / highest):.4g} ms would keep all of it"
        )
    if isinstance(wavelet, BandPassedWavelet):
        wavelet = wavelet.raw
    values = np.abs(wavelet.sample(axis))
    peak = peak_amplitude(wavelet)
    if values[0] > MAX_START * peak:
        warnings.append(
            f"wavelet: begins with {100 * values[0] / peak:.2g} % of its peak at once, which makes waves of all frequencies; a "
            "later wavelet.delay, or a taper, would avoid that"
        )
    if values.max() < 0.9 * peak:  # a coarse axis may miss the peak itself by some percent
        warnings.append("wavelet: its peak comes after the end of the record (data.recording_time)")
    return tuple(warnings)


def check_weights(config: RunConfig, weights: Mapping[str, NDArray[np.float32]]) -> tuple[str, ...]:
    """Warn if the misfit does not see weights of traces, by shot, because it normalises traces."""
    misfit = config.inversion.misfit
    graded = any(((values != 0) & (values != 1)).any() for values in weights.values())
    if not graded or getattr(misfit, "amplitude_power", None) != 0:
        return ()
    return (
        f'data.traces.weights: the misfit "{misfit.kind}" normalises traces, so that of these weights only 0 matters; with '
        "inversion.misfit.amplitude_power = 2 they count as in l2",
    )


def dispersion(
    config: RunConfig, domain: Domain, wavelet: Wavelet, velocities: tuple[float, float], steps: tuple[float, float]
) -> tuple[float, float]:
    """Grid points per shortest wavelength, and the relative error of its speed."""
    spacing, order = max(domain.spacing), config.solver.space_order
    points = velocities[0] / (highest_frequency(wavelet) * spacing)
    if not 2 < points < MAX_POINTS_PER_WAVELENGTH:
        return points, 0.0
    corrected = config.solver.time_dispersion == "corrected"
    return points, phase_error(points, order, 0.0 if corrected else velocities[0] * steps[0] / spacing)


def check_layer(config: RunConfig, domain: Domain) -> None:
    """Raise InputError if the absorbing layer is wider than the model, or the windows in which shots are computed."""
    cells, shortest = config.solver.layer_cells, min(domain.shape)
    if cells > shortest:
        axis = domain.axes[domain.shape.index(shortest)]
        what = "model" if config.acquisition.aperture is None else "window of a shot"
        default = "" if config.solver.layer else " (the default)"
        raise InputError(
            f"solver.layer: {cells} cells{default} are more than the {shortest} grid points of the {what} along {axis}; take "
            f"at most {shortest}, or a finer grid. Does [grid] have the right shape?"
        )


def check_positions(survey: Survey, domain: Domain, free_surface: bool) -> None:
    """Check that sources and receivers are in the model and, where its top is a free surface, below it.

    Raises DataError if one is not, or a shot has no receivers, and InputError if there is no shot.
    """
    if not survey.shots:
        raise InputError("the survey is empty: it has no shot")
    inside = domain.contains(np.stack([shot.source for shot in survey.shots]))
    checked = None
    for shot, source_inside in zip(survey.shots, inside, strict=True):
        if not source_inside:
            raise _outside(shot.name, "source", shot.source[None], domain)
        if free_surface:
            _check_below_surface(shot.name, "source", shot.source[None], domain)
        if len(shot.receivers) == 0:
            raise DataError(shot.name, "has no receivers")
        if shot.receivers is checked:
            continue  # shots of a fixed spread share one array
        checked = shot.receivers
        if not domain.contains(checked).all():
            raise _outside(shot.name, "receiver", checked, domain)
        if free_surface:
            _check_below_surface(shot.name, "receiver", checked, domain)


def _check_below_surface(shot: str, what: str, positions: NDArray[np.float64], domain: Domain) -> None:
    """Raise DataError if a position is on a free surface, where the pressure is zero."""
    top, spacing = domain.origin[-1], domain.spacing[-1]
    on_surface = np.flatnonzero(positions[:, -1] <= top + EDGE_TOLERANCE * spacing)
    if on_surface.size:
        number = f" {on_surface[0] + 1}" if what == "receiver" else ""
        more = f" (and {on_surface.size - 1} more)" if on_surface.size > 1 else ""
        raise DataError(
            shot,
            f"{what}{number}{more} is on the free surface (z = {top:g} m), where the pressure is always zero; take its real "
            f"depth, or have all that are above z = {top + 0.5 * spacing:g} m moved there: "
            f"--set acquisition.minimum_depth={top + 0.5 * spacing:g}",
        )


def _outside(shot: str, what: str, positions: NDArray[np.float64], domain: Domain) -> DataError:
    outside = np.flatnonzero(~domain.contains(positions))
    number = f" {outside[0] + 1}" if what == "receiver" else ""
    position = ", ".join(f"{value:g}" for value in positions[outside[0]])
    more = f" (and {outside.size - 1} more)" if outside.size > 1 else ""
    limits = ", ".join(
        f"{axis} {low:g} to {high:g} m" for axis, low, high in zip(domain.axes, domain.origin, domain.last, strict=True)
    )
    return DataError(shot, f"{what}{number} at ({position}) m{more} is outside the model, which covers {limits}")


def _lower_frequency(wavelet: Wavelet, factor: float) -> str:
    """The change of the wavelet that multiplies its highest frequency by ``factor``."""
    if isinstance(wavelet, RickerWavelet):
        return f"a wavelet.peak_frequency of at most {round_down(1000 * wavelet.frequency * factor):.4g} Hz"
    if isinstance(wavelet, BandPassedWavelet):
        return f"a band-pass (processing) to below {round_down(1000 * highest_frequency(wavelet) * factor):.4g} Hz"
    return f"a wavelet without frequencies above {round_down(1000 * highest_frequency(wavelet) * factor):.4g} Hz"
