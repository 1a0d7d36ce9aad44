"""The source signature: known filters come back from gathers, as an independent least-squares solver finds them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import hilbert

from hpcfwi.model.grid import TimeAxis
from hpcfwi.model.source_estimate import (
    GatherComparison,
    SourceFilter,
    SourceFilters,
    estimate_filter,
    shown_part,
    total_comparison,
    transform_length,
)
from hpcfwi.model.wavelet import RickerWavelet

RECORDING = TimeAxis(4.0, 76)
AXIS = TimeAxis(4.0, 101)
FREQUENCIES = transform_length(AXIS) // 2 + 1


def gather(seed: int = 0, traces: int = 7) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(RECORDING.samples, traces))


def compared(*seeds: int) -> GatherComparison:
    """Unrelated gathers of some shots, compared."""
    return total_comparison(GatherComparison.of(gather(seed + 100), gather(seed), AXIS) for seed in seeds)


def padded(values: np.ndarray) -> np.ndarray:
    """The spectrum of each trace at the frequencies of the estimate."""
    return np.fft.rfft(values, transform_length(AXIS), axis=0)


def delayed(values: np.ndarray, samples: int) -> np.ndarray:
    """Traces that are zero first and end later."""
    return np.concatenate([np.zeros((samples, values.shape[1])), values])


def known_filter(seed: int = 3) -> SourceFilter:
    response = np.random.default_rng(seed).normal(size=(2, FREQUENCIES))
    return SourceFilter(response[0] + 1j * response[1], AXIS, 1.0, 1.0)


def test_a_known_filter_comes_back_from_random_gathers():
    taps = np.random.default_rng(5).normal(size=12)
    predicted = gather()
    observed = np.stack([np.convolve(trace, taps) for trace in predicted.T], axis=1)
    found = estimate_filter(GatherComparison.of(observed, predicted, AXIS), 0.0)
    np.testing.assert_allclose(found.response, np.fft.rfft(taps, transform_length(AXIS)), atol=1e-9)
    assert found.explained == pytest.approx(1)


def test_a_rotation_by_90_degrees_and_a_factor_come_back():
    count = transform_length(AXIS)
    predicted = np.zeros((AXIS.samples, 1))
    predicted[40:60, 0] = np.random.default_rng(1).normal(size=20)
    observed = -1e5 * np.imag(hilbert(predicted, count, axis=0))
    spectra = np.fft.rfft(observed, axis=0)[:, 0], np.fft.rfft(predicted, count, axis=0)[:, 0]
    power = np.abs(spectra[1]) ** 2
    found = estimate_filter(GatherComparison(spectra[0] * spectra[1].conj(), power, 1e10 * power, AXIS, 1), 0.0)
    np.testing.assert_allclose(found.response[1:-1], 1e5j, rtol=1e-9)


@pytest.mark.parametrize("damping", [0.0, 1e-4, 0.3])
def test_the_filter_is_that_of_a_least_squares_solver_at_each_frequency(damping):
    pairs = [(gather(seed + 100), gather(seed)) for seed in range(3)]
    d, p = (np.concatenate([padded(pair[which]) for pair in pairs], axis=1) for which in (0, 1))
    root = np.sqrt(damping * (np.abs(p) ** 2).sum(axis=1).mean())
    expected = [
        np.linalg.lstsq(np.append(left, root)[:, None], np.append(right, 0), rcond=None)[0][0]
        for left, right in zip(p, d, strict=True)
    ]
    found = estimate_filter(total_comparison(GatherComparison.of(*pair, AXIS) for pair in pairs), damping)
    np.testing.assert_allclose(found.response, expected, rtol=1e-9)


def test_explained_is_the_energy_that_filtered_predictions_share_with_observed_gathers():
    observed, predicted = gather(1), gather(0)
    found = estimate_filter(GatherComparison.of(observed, predicted, AXIS), 1e-4)
    count = transform_length(AXIS)
    left = np.fft.irfft(padded(observed) - found.response[:, None] * padded(predicted), count, axis=0)
    assert found.explained == pytest.approx(1 - (left**2).sum() / (observed**2).sum())


def test_more_damping_makes_a_smaller_filter_that_explains_less():
    found = [estimate_filter(compared(0), damping) for damping in (0.0, 1e-2, 1.0)]
    sizes = [np.linalg.norm(each.response) for each in found]
    assert sizes == sorted(sizes, reverse=True)
    explained = [each.explained for each in found]
    assert explained == sorted(explained, reverse=True)


def test_damping_does_not_depend_on_the_unit_of_the_data():
    first = estimate_filter(GatherComparison.of(gather(1), gather(0), AXIS), 1e-2)
    other = estimate_filter(GatherComparison.of(1e5 * gather(1), 1e-3 * gather(0), AXIS), 1e-2)
    np.testing.assert_allclose(other.response, 1e8 * first.response, rtol=1e-9)


def test_where_nothing_is_predicted_the_filter_is_zero():
    found = estimate_filter(GatherComparison.of(gather(), np.zeros_like(gather()), AXIS), 0.0)
    assert not found.response.any()
    assert (found.explained, found.condition) == (0.0, 1.0)


def test_sums_over_shots_do_not_depend_on_their_grouping():
    whole = compared(0, 1, 2, 3)
    grouped = compared(0, 1) + compared(2, 3)
    together = GatherComparison.of(
        np.concatenate([gather(seed + 100) for seed in range(4)], axis=1),
        np.concatenate([gather(seed) for seed in range(4)], axis=1),
        AXIS,
    )
    for other in (grouped, together):
        assert other.traces == whole.traces == 28
        for name in ("cross", "predicted", "observed"):
            np.testing.assert_allclose(getattr(other, name), getattr(whole, name), rtol=1e-10)


@pytest.mark.parametrize("samples", [-9, 0, 9], ids=["early", "in time", "late"])
@pytest.mark.parametrize("sign", [1.0, -1.0], ids=["same polarity", "other polarity"])
def test_the_correlation_finds_polarity_and_shift(sign, samples):
    wave = gather()[:40]
    observed, predicted = delayed(wave, 15 + samples), delayed(wave, 15)
    lags, correlation = GatherComparison.of(2.5 * sign * observed, predicted, AXIS).correlation()
    place = int(np.argmax(np.abs(correlation)))
    assert lags[place] == samples * AXIS.step
    assert correlation[place] == pytest.approx(sign)
    assert np.abs(lags).max() <= 0.25 * AXIS.times[-1]


def test_the_correlation_is_that_of_numpy():
    observed, predicted = gather(1), gather(0)
    lags, correlation = GatherComparison.of(observed, predicted, AXIS).correlation()
    pairs = zip(observed.T, predicted.T, strict=True)
    expected = sum(np.correlate(d, p, "full") for d, p in pairs) / np.sqrt((observed**2).sum() * (predicted**2).sum())
    places = np.rint(lags / AXIS.step).astype(int) + RECORDING.samples - 1
    np.testing.assert_allclose(correlation, expected[places], atol=1e-12)


def test_the_scale_is_the_ratio_of_root_mean_squares():
    observed, predicted = 300 * gather(1), gather(0)
    assert GatherComparison.of(observed, predicted, AXIS).scale == pytest.approx(
        np.sqrt((observed**2).mean() / (predicted**2).mean())
    )
    assert GatherComparison.of(observed, 0 * predicted, AXIS).scale == np.inf
    assert not GatherComparison.of(0 * observed, predicted, AXIS).correlation()[1].any()


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_transpose_of_the_operators_is_exact(dtype):
    rng = np.random.default_rng(7)
    filtered, tail = known_filter().operators(RECORDING)
    d = rng.normal(size=(AXIS.samples, 5)).astype(dtype)
    y = rng.normal(size=(RECORDING.samples, 5)).astype(dtype)
    left = np.vdot(tail.apply(filtered.apply(d)).astype(float), y)
    right = np.vdot(d.astype(float), filtered.transpose(tail.transpose(y)))
    assert left == pytest.approx(right, rel=1e-12 if dtype == "float64" else 1e-4)
    assert filtered.apply(d).dtype == dtype


def test_the_operators_do_to_a_gather_what_the_filter_does_to_its_wavelet():
    wavelet, taps = RickerWavelet(0.02, 60.0), np.random.default_rng(2).normal(size=9)
    found = SourceFilter(np.fft.rfft(taps, transform_length(AXIS)), AXIS, 1.0, 1.0)
    times, before, after = found.apply_to(wavelet)
    inside = (times >= 0) & (times <= AXIS.times[-1])
    signal = wavelet.sample(AXIS)
    np.testing.assert_allclose(before[inside], signal, atol=1e-12)
    np.testing.assert_allclose(after[inside], np.convolve(signal, taps)[: AXIS.samples], atol=1e-12)
    filtered, tail = found.operators(RECORDING)
    here = tail.apply(filtered.apply(signal[:, None]))[:, 0]
    np.testing.assert_allclose(here, np.convolve(signal, taps)[: RECORDING.samples], atol=1e-12)


def test_a_filter_that_moves_the_wavelet_before_time_zero_shows_it_there():
    frequencies = np.fft.rfftfreq(transform_length(AXIS), AXIS.step)
    found = SourceFilter(np.exp(2j * np.pi * frequencies * 100.0), AXIS, 1.0, 1.0)
    times, before, after = found.apply_to(RickerWavelet(0.02, 60.0))
    assert times[np.argmax(before)] == 60.0
    assert times[np.argmax(after)] == -40.0


def test_the_shown_part_has_every_signal_and_no_silence():
    first, second = np.zeros(50), np.zeros(50)
    first[10:13], second[30] = 1, -1e-9
    assert shown_part([first, second]) == slice(10, 31)
    assert shown_part([np.zeros(50)]) == slice(0, 1)


def test_a_shot_has_its_own_filter_or_that_of_the_survey():
    one, other = known_filter(1), known_filter(2)
    assert SourceFilters(one).of("7") is one
    assert list(SourceFilters(one).all()) == [one]
    own = SourceFilters(None, {"7": one, "8": other})
    assert own.of("8") is other
    assert own.of("9") is None
    assert list(own.all()) == [one, other]
    assert SourceFilters().of("7") is None
