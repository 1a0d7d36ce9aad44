"""Operators on gathers: resampling with and without time dispersion, the tail, and their transposes."""

import numpy as np
import pytest
from scipy.interpolate import splev, splrep

from hpcfwi.model.grid import TimeAxis
from hpcfwi.model.processing.operators import Operator
from hpcfwi.model.processing.sampling import RecordSampling, Tail, resample
from hpcfwi.model.wavelet import RickerWavelet, SampledWavelet, disperse, highest_frequency

AXIS = TimeAxis(1.75, 600)
WAVELET = RickerWavelet(0.010, 100.0)
SAMPLING = RecordSampling(TimeAxis(4.0, 251), highest_frequency(WAVELET))


def test_resampling_is_scipys_cubic_spline_trace_by_trace():
    rng = np.random.default_rng(3)
    record = rng.standard_normal((51, 4))
    axis = TimeAxis.covering(200.0, 1.7)
    resampled = resample(record, 4.0, axis, "float64")
    known = 4.0 * np.arange(51)
    times = axis.times[axis.times <= 200.0]
    expected = np.stack([splev(times, splrep(known, record[:, i], k=3)) for i in range(4)], axis=1)
    np.testing.assert_allclose(resampled, expected, rtol=1e-10, atol=1e-12)


def test_resampling_ends_with_the_record_unless_it_extrapolates():
    record = np.ones((11, 1))
    axis = TimeAxis(3.0, 20)
    assert len(resample(record, 4.0, axis, "float32")) == 14  # 0 to 39 ms of the record's 40
    assert len(resample(record, 4.0, axis, "float32", extrapolate=True)) == 20
    assert resample(record, 4.0, TimeAxis(4.0, 11), "float32") == pytest.approx(record)


@pytest.mark.parametrize("operator", [Tail(9, 7), Tail(9, 9), Tail(9, 9, zero_last=True), Tail(9, 7, zero_last=True)])
def test_a_transpose_passes_the_dot_product_test_and_changes_no_argument(operator: Operator):
    rng = np.random.default_rng(5)
    predicted, compared = rng.standard_normal((9, 3)), rng.standard_normal((operator.observed, 3))
    before = predicted.copy(), compared.copy()
    forward, backward = operator.apply(predicted), operator.transpose(compared)
    assert (forward * compared).sum() == pytest.approx((predicted * backward).sum(), rel=1e-12)
    np.testing.assert_array_equal(predicted, before[0])
    np.testing.assert_array_equal(compared, before[1])


def leap_frog(step, samples, frequencies, source):
    """Oscillators ``u_tt + (2 pi f)^2 u = s(t)``, stepped as the wave equation is; shape (samples, frequencies)."""
    u = np.zeros((samples + 1, len(frequencies)))
    for n in range(1, samples):
        u[n + 1] = 2 * u[n] - u[n - 1] + step**2 * (source[n] - (2 * np.pi * frequencies) ** 2 * u[n])
    return u[:samples]


def test_oscillators_of_a_long_time_step_have_the_samples_of_a_short_one():
    frequencies = np.array([0.002, 0.01, 0.02, 0.027])
    duration = SAMPLING.recording.times[-1]
    found = []
    for step in (5.0, 0.05):
        axis = TimeAxis.covering(duration + SAMPLING.margin(step), step)
        record = leap_frog(step, axis.samples, frequencies, disperse(WAVELET, axis))
        found.append(SAMPLING.operator(axis, "float64").apply(record))
    long, short = (each / np.abs(found[1]).max(axis=0) for each in found)
    np.testing.assert_allclose(long, short, atol=2e-3)
    axis = TimeAxis.covering(duration, 5.0)
    raw = leap_frog(5.0, axis.samples, frequencies, WAVELET.sample(axis))
    uncorrected = resample(raw, 5.0, SAMPLING.recording, "float64") / np.abs(found[1]).max(axis=0)
    assert np.abs(uncorrected - short).max() > 0.5


@pytest.mark.parametrize("corrected", [False, True])
@pytest.mark.parametrize("interval", [0.5, 4.0, 17.0])
def test_predicted_gathers_at_observed_samples_pass_the_dot_product_test(corrected, interval):
    sampling = RecordSampling(TimeAxis.covering(1000.0, interval), 0.028, corrected)
    operator = sampling.operator(AXIS, "float64")
    rng = np.random.default_rng(7)
    predicted, compared = rng.standard_normal((AXIS.samples, 3)), rng.standard_normal((sampling.recording.samples, 3))
    left, right = (operator.apply(predicted) * compared).sum(), (predicted * operator.transpose(compared)).sum()
    assert left == pytest.approx(right, rel=1e-12)


@pytest.mark.parametrize("interval", [0.5, 1.75, 4.0, 17.0])
def test_without_correction_a_signal_is_only_interpolated(interval):
    sampling = RecordSampling(TimeAxis.covering(1000.0, interval), highest_frequency(WAVELET), corrected=False)
    axis = TimeAxis.covering(1000.0 + sampling.margin(AXIS.step), AXIS.step)
    late = RickerWavelet(0.010, 950.0)  # close to the end of the record
    for wavelet in (RickerWavelet(0.010, 130.0), late):
        found = sampling.operator(axis, "float64").apply(wavelet.sample(axis)[:, None])[:, 0]
        np.testing.assert_allclose(
            found, wavelet.sample(sampling.recording), atol=5e-3 if interval > 16 else 1e-3
        )  # 29 Hz can be sampled


def test_extrapolated_gathers_are_compared_at_the_samples_of_the_solver():
    sampling = RecordSampling(TimeAxis(4.0, 263), 0.028, corrected=False, extrapolate=True)
    observed = np.random.default_rng(1).standard_normal((263, 2))
    assert sampling.compared(AXIS) == AXIS
    assert sampling.observed(observed, AXIS, "float32").shape == (600, 2)
    assert sampling.operator(AXIS, "float32") == Tail(600, 600, zero_last=True)


def test_a_dispersed_wavelet_has_the_spectrum_of_the_true_frequencies():
    axis = TimeAxis(5.0, 400)
    values = disperse(WAVELET, axis)
    spectrum = np.fft.rfft(values) * axis.step
    moved = np.fft.rfftfreq(axis.samples, axis.step)
    true = np.sin(np.pi * moved * axis.step) / (np.pi * axis.step)
    ratio = (true / WAVELET.frequency) ** 2
    expected = 2 / (np.sqrt(np.pi) * WAVELET.frequency) * ratio * np.exp(-ratio)
    np.testing.assert_allclose(np.abs(spectrum), expected, atol=1e-3 * expected.max())
    fine = SampledWavelet(tuple(WAVELET.sample(TimeAxis(1.0, 400))), 1.0)
    np.testing.assert_allclose(disperse(fine, axis), values, atol=1e-3)
    np.testing.assert_array_equal(disperse(SampledWavelet((0.0,) * 8, 1.0), axis), 0)


def test_the_tail_of_an_observed_gather_is_the_gather_itself():
    observed = np.ones((7, 3))
    np.testing.assert_array_equal(Tail(9, 7).apply(observed), observed)


def test_a_last_step_that_is_not_modelled_counts_as_zero():
    tail = Tail(9, 9, zero_last=True)
    assert tail.apply(np.ones((9, 1)))[-1] == 0
    assert tail.transpose(np.ones((9, 1)))[-1] == 0
