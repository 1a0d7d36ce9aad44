"""Source wavelets, and their files."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpcfwi.config.run import RickerSection, WaveletFileSection
from hpcfwi.errors import InputError
from hpcfwi.model.grid import TimeAxis
from hpcfwi.model.processing.filters import BandPass
from hpcfwi.model.wavelet import (
    RickerWavelet,
    SampledWavelet,
    band_passed,
    build_wavelet,
    highest_frequency,
    peak_amplitude,
    peak_frequency,
    read_wavelet,
)

WAVELET = [0.0, 1.0, -2.0, 1.0, 0.0]


def test_frequencies_of_a_ricker_and_of_its_samples_agree():
    ricker = RickerWavelet(0.010, 150.0)
    axis = TimeAxis(2.0, 200)
    sampled = SampledWavelet(tuple(ricker.sample(axis)), 2.0)
    assert peak_frequency(sampled) == pytest.approx(0.010, rel=0.05)
    assert highest_frequency(ricker) == pytest.approx(0.0276, rel=0.01)
    assert highest_frequency(sampled) == pytest.approx(highest_frequency(ricker), rel=0.05)
    finer = TimeAxis(0.7, 700)
    np.testing.assert_allclose(sampled.sample(finer)[:500], ricker.sample(finer)[:500], atol=2e-3)
    assert not sampled.sample(finer)[575:].any()


def test_a_ricker_peaks_after_one_period_unless_the_configuration_says_when():
    assert build_wavelet(RickerSection(kind="ricker", peak_frequency=10.0)) == RickerWavelet(0.010, 100.0, 1.0)
    assert build_wavelet(RickerSection(kind="ricker", peak_frequency=10.0, delay=0.0)).delay == 0.0


@pytest.fixture
def wavelet(tmp_path):
    def write(content, name="w.txt"):
        path = tmp_path / name
        if isinstance(content, (str, bytes)):
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        else:
            np.save(path, content)
        return path

    return write


def test_wavelets_are_read_from_text_and_npy(wavelet):
    text = "\ufeff# a comment\n0\n1.0\n\n-2  # the trough\n1e0\n0.0\n"
    assert read_wavelet(wavelet(text)) == tuple(WAVELET)
    assert read_wavelet(wavelet(np.array(WAVELET), "w.npy")) == tuple(WAVELET)
    path = wavelet(np.array(WAVELET, dtype=">f4")[:, None], "w.npy")
    section = WaveletFileSection(kind="file", file=path, sample_interval=2.0)
    assert build_wavelet(section) == SampledWavelet(tuple(WAVELET), 2.0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("0\n1\nx\n0\n", ", line 3: is 'x'; it should be one number a line"),
        ("0.0 1.0\n4.0 2.0\n", ", line 1: is '0.0 1.0'; it should be one number a line"),
        (b"\xff\xfe\x00", ": cannot be read ("),
        ("1\n2\n3\n", ": has the shape (3,); a wavelet has one axis of at least 4 samples"),
        ("", ": has the shape (0,); a wavelet has one axis"),
        ("0\n1\nnan\n0\n", ": sample 3 is nan, not a finite number"),
        ("0\n0\n0\n0\n", ": has a largest amplitude of 0; it should be between 1e-18 and 1e+18"),
        ("0\n1e300\n0\n0\n", ": has a largest amplitude of 1e+300; it should be between 1e-18 and 1e+18"),
        (np.ones((4, 2)), ": has the shape (4, 2); a wavelet has one axis"),
    ],
)
def test_unusable_wavelets_are_refused_with_file_and_line(wavelet, content, message):
    path = wavelet(content, "w.npy" if isinstance(content, np.ndarray) else "w.txt")
    with pytest.raises(InputError) as caught:
        read_wavelet(path)
    assert str(caught.value).startswith(f"wavelet.file: {path}{message}")


def test_a_missing_wavelet_is_refused_with_its_name(tmp_path):
    for name in ("none.txt", "none.npy"):
        with pytest.raises(InputError, match=rf"wavelet\.file: .*{name}.*(n|N)o such file"):
            read_wavelet(tmp_path / name)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.binary(max_size=100)
    | st.lists(st.floats(allow_subnormal=False).map(str), max_size=8).map("\n".join).map(str.encode)
)
def test_any_bytes_are_a_wavelet_or_refused_with_their_name(tmp_path, content):
    for name in ("w.txt", "w.npy"):
        path = tmp_path / name
        path.write_bytes(content)
        try:
            values = read_wavelet(path)
        except InputError as error:
            message = str(error)
        else:
            message = str(path)
            assert np.isfinite(values).all()
            assert len(values) >= 4
        assert str(path) in message


BANDS = [
    BandPass(0.003, 0.012, 4, "zero"),
    BandPass(None, 0.012, 8, "zero"),
    BandPass(0.003, None, 2, "zero"),
    BandPass(0.003, 0.012, 4, "causal"),
]


@pytest.mark.parametrize("band", BANDS)
def test_a_band_passed_wavelet_is_the_filtered_wavelet_that_begins_earlier(band):
    raw = RickerWavelet(0.01, 100.0)
    found = band_passed(raw, (band,))
    assert (found.lead > 0) == (band.phase == "zero")
    axis = TimeAxis(2.0, 1500)
    late = RickerWavelet(0.01, 100.0 + found.lead).sample(axis)[:, None]
    expected = band.build(None, axis).apply(late)[:, 0]
    np.testing.assert_allclose(found.sample(axis), expected, atol=2e-3 * np.abs(expected).max())
    assert abs(found.sample(axis)[0]) < 2e-3 * np.abs(expected).max()
    coarse = TimeAxis(8.0, 375)
    np.testing.assert_allclose(found.sample(coarse), found.sample(axis)[::4], atol=1e-3)


def test_a_low_pass_lowers_the_highest_frequency_of_a_wavelet():
    raw = SampledWavelet(tuple(RickerWavelet(0.02, 80.0).sample(TimeAxis(1.0, 300))), 1.0)
    low = band_passed(raw, (BandPass(None, 0.008, 8),))
    assert highest_frequency(low) < 0.5 * highest_frequency(raw)
    assert peak_frequency(low) < 0.01
    assert 0 < peak_amplitude(low) < peak_amplitude(raw)
    assert band_passed(raw, ()) is raw


def test_a_band_passed_wavelet_may_be_sampled_below_the_nyquist_frequency_of_the_raw_one():
    low = band_passed(RickerWavelet(0.05, 40.0), (BandPass(None, 0.006, 8),))
    coarse = TimeAxis(12.0, 100)  # 42 Hz; the Ricker wavelet reaches 138 Hz
    fine = low.sample(TimeAxis(1.0, 1189))[::12]
    np.testing.assert_allclose(low.sample(coarse), fine, atol=1e-3 * np.abs(fine).max())
