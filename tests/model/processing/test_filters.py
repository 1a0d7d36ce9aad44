"""Filters: Butterworth responses as scipy has them, transposes, the ends of gathers, and anti-alias resampling."""

import numpy as np
import pytest
from scipy import signal

from hpcfwi.model.grid import TimeAxis
from hpcfwi.model.processing.filters import END_EFFECT, BandPass, Resample, end_effect, end_taper
from hpcfwi.model.survey import Shot
from hpcfwi.model.wavelet import RickerWavelet

SHOT = Shot("1", np.zeros(2), np.array([[100.0, 0.0], [200.0, 0.0], [300.0, 0.0]]))
AXIS = TimeAxis(4.0, 301)
BANDS = [
    BandPass(0.004, 0.020, 4, "zero"),
    BandPass(0.004, 0.020, 4, "causal"),
    BandPass(0.003, None, 2, "zero"),
    BandPass(None, 0.030, 8, "causal"),
]


@pytest.mark.parametrize("order", [2, 4, 8])
def test_a_causal_band_pass_is_scipys_analog_butterworth_filter_at_each_corner(order):
    frequencies = np.linspace(0.0, 0.2, 401)
    expected = np.ones(401, dtype=complex)
    for corner, kind in ((0.005, "highpass"), (0.02, "lowpass")):
        zpk = signal.butter(order, 2 * np.pi * corner, kind, analog=True, output="zpk")
        expected *= signal.freqs_zpk(*zpk, 2 * np.pi * frequencies)[1]
    np.testing.assert_allclose(BandPass(0.005, 0.02, order, "causal").response(frequencies), expected, atol=1e-12)
    zero_phase = BandPass(0.005, 0.02, order, "zero").response(frequencies)
    np.testing.assert_allclose(zero_phase, np.abs(expected), atol=1e-12)


@pytest.mark.parametrize("band", BANDS)
def test_the_transpose_of_a_band_pass_passes_the_dot_product_test(band):
    operator = band.build(SHOT, AXIS)
    x, y = np.random.default_rng(2).standard_normal((2, 301, 3))
    assert (operator.apply(x) * y).sum() == pytest.approx((x * operator.transpose(y)).sum(), rel=1e-12)
    assert operator.apply(x.astype(np.float32)).dtype == np.float32


@pytest.mark.parametrize("band", BANDS)
def test_a_band_passed_gather_depends_neither_on_the_sample_interval_nor_on_the_padding(band):
    found = []
    for step, samples in ((4.0, 301), (1.0, 1201), (4.0, 3001)):
        axis = TimeAxis(step, samples)
        gather = RickerWavelet(0.01, 600.0).sample(axis)[:, None]
        found.append(band.build(SHOT, axis).apply(gather)[:: round(4 / step)][:301])
    coarse, fine, long = found
    np.testing.assert_allclose(fine, coarse, atol=1e-6)
    np.testing.assert_allclose(long, coarse, atol=1e-6)


def test_a_causal_band_pass_moves_nothing_to_earlier_times():
    gather = RickerWavelet(0.01, 600.0).sample(AXIS)[:, None]
    causal, zero = (
        BandPass(0.004, 0.02, 4, phase).build(SHOT, AXIS).apply(gather)[:, 0] for phase in ("causal", "zero")
    )
    assert np.abs(causal[:100]).max() < 1e-6  # the Ricker wavelet begins at about 450 ms
    assert np.abs(zero[50:100]).max() > 1e-3
    np.testing.assert_allclose(zero, zero[::-1], atol=1e-9)


@pytest.mark.parametrize("order", [2, 4, 8])
def test_the_response_falls_to_a_share_within_its_duration(order):
    axis = TimeAxis(2.0, 4001)
    spike = RickerWavelet(0.02, 4000.0).sample(axis)[:, None]
    for phase in ("zero", "causal"):
        band = BandPass(0.004, 0.03, order, phase)
        response = np.abs(band.build(SHOT, axis).apply(spike)[:, 0])
        after = response[axis.times > 4000.0 + band.duration(1e-4)]
        assert after.max() < 2e-4 * response.max()


def test_the_end_of_gathers_is_tapered_where_a_filter_of_zero_phase_lacks_what_comes_after_it():
    bands = [BandPass(None, 0.02, 4, "zero"), BandPass(0.01, None, 4, "causal")]
    reach = end_effect(bands)
    assert reach == bands[0].duration(END_EFFECT)
    taper = end_taper(bands, AXIS)
    assert taper.values[-1] == 0
    np.testing.assert_array_equal(taper.values[AXIS.times <= 1200 - reach], 1)
    assert end_taper([bands[1]], AXIS) is None


@pytest.mark.parametrize("band", [BandPass(0.004, 0.014, order) for order in (2, 4, 8)] + [BandPass(None, 0.012)])
def test_tapered_ends_of_filtered_gathers_hardly_depend_on_what_comes_after_them(band):
    wavelet, noise = RickerWavelet(0.01, 200.0).sample(AXIS), np.random.default_rng(8).standard_normal((1501, 20))
    long = signal.fftconvolve(noise, wavelet[:101, None], "same", axes=0)
    ended = TimeAxis(4.0, 501)
    with_rest = band.build(SHOT, TimeAxis(4.0, 1501)).apply(long)[:501]
    without = band.build(SHOT, ended).apply(long[:501])
    taper = end_taper([band], ended)
    error = taper.apply(without - with_rest)
    assert np.linalg.norm(error) < 0.007 * np.linalg.norm(taper.apply(with_rest))
    assert np.linalg.norm(without - with_rest) > 0.02 * np.linalg.norm(with_rest)


@pytest.mark.parametrize(("step", "interval"), [(0.5, 2.0), (4.0, 6.5), (4.0, 3.0)])
def test_resampling_passes_what_the_new_interval_carries_and_folds_nothing_back(step, interval):
    axis, resample = TimeAxis.covering(1000.0, step), Resample(interval)
    after, operator = resample.axis_after(axis), resample.build(SHOT, axis)
    assert after == TimeAxis(interval, int(1000 / interval) + 1)
    passed = resample.passed(axis)
    inside = (after.times > 250) & (after.times < 750)
    low, high = (lambda t, f=f: np.sin(2 * np.pi * f * t) for f in (passed, 0.98 / (2 * max(interval, step))))
    found = operator.apply(np.stack([low(axis.times), high(axis.times)], axis=1))
    np.testing.assert_allclose(found[inside, 0], low(after.times[inside]), atol=1e-3)
    if interval > step:
        assert np.abs(found[inside, 1]).max() < 1e-3
    x, y = np.random.default_rng(3).standard_normal((axis.samples, 2)), found[::-1]
    assert (operator.apply(x) * y).sum() == pytest.approx((x * operator.transpose(y)).sum(), rel=1e-12)
    assert operator.apply(x.astype(np.float32)).dtype == np.float32
