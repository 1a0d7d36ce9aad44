"""Checks of amplitude, polarity and time before the first iteration: advice of messages is followed here, word for word."""

from __future__ import annotations

import numpy as np
import pytest
from field_files import advised
from watching import logged_events, options

from hpcfwi.config.run import load_run_config
from hpcfwi.model.grid import TimeAxis
from hpcfwi.model.source_estimate import GatherComparison
from hpcfwi.model.wavelet import RickerWavelet, build_wavelet, peak_frequency
from hpcfwi.run.source_signature import source_problems

AXIS = TimeAxis(4.0, 251)
ARRIVALS = (100.0, 140.0, 180.0)  # ms


def gather(wavelet) -> np.ndarray:
    """Arrivals of a wavelet at three receivers."""
    fine = TimeAxis(1.0, 1001)
    values = wavelet.sample(fine)
    return np.stack([np.interp(AXIS.times - arrival, fine.times, values, left=0) for arrival in ARRIVALS], axis=1)


@pytest.fixture
def problems(fwi_toml):
    """What is wrong with predictions of a configuration, compared with arrivals of another wavelet."""

    def find(observed: np.ndarray, *settings: str) -> list[tuple[str, bool]]:
        config = load_run_config(fwi_toml, settings)
        wavelet = build_wavelet(config.wavelet)
        compared = GatherComparison.of(observed, gather(wavelet), AXIS)
        return source_problems(compared, config, peak_frequency(wavelet))

    return find


@pytest.mark.parametrize("factor", [0.2, 1.0, 9.0])
def test_data_that_fit_roughly_have_no_problem(problems, factor):
    assert problems(gather(RickerWavelet(0.01, 130.0, factor))) == []


@pytest.mark.parametrize("factor", [1e5, -1e5, 1e-7, -0.5, -20.0])
def test_another_unit_or_polarity_is_serious_and_the_advice_mends_it(problems, factor):
    observed = gather(RickerWavelet(0.01, 100.0, factor))
    ((told, serious),) = problems(observed)
    assert serious
    words = "have the other polarity than predicted ones" if factor == -0.5 else "times as large as predicted ones"
    assert words in told
    (setting,) = advised(told)
    assert problems(observed, setting) == []


def test_an_amplitude_that_is_set_already_is_multiplied(problems):
    observed = gather(RickerWavelet(0.01, 100.0, -2e6))
    ((told, _),) = problems(observed, "wavelet.amplitude=50")
    assert advised(told) == ["wavelet.amplitude=-2e+06"]


@pytest.mark.parametrize("delay", [300.0, 190.0, 20.0])
def test_a_shift_is_a_warning_and_the_advice_mends_it(problems, delay):
    observed = gather(RickerWavelet(0.01, delay))
    ((told, serious),) = problems(observed)
    assert not serious
    assert ("later" if delay > 100 else "earlier") in told
    (setting,) = advised(told)
    assert setting.startswith("wavelet.delay=")
    assert problems(observed, setting) == []


def test_unit_polarity_and_shift_are_mended_together(problems):
    observed = gather(RickerWavelet(0.01, 260.0, -3e4))
    told = problems(observed)
    assert [serious for _, serious in told] == [True, False]
    settings = [setting for text, _ in told for setting in advised(text)]
    assert problems(observed, *settings) == []


def test_data_that_come_before_the_wavelet_need_another_time_of_their_first_sample(problems, fwi_toml):
    text = fwi_toml.read_text()
    early = np.concatenate([gather(RickerWavelet(0.01, 50.0))[25:], np.zeros((25, 3))])
    ((told, _),) = problems(early, "wavelet.delay=50")
    assert told.endswith("move the observed samples")
    begin, end = text.index("[acquisition.sources]"), text.index("[data]")
    fwi_toml.write_text(text[:begin] + text[end:].replace("[data]", '[data]\nfile = "a.sgy"'))
    ((told, _),) = problems(early, "wavelet.delay=50")
    assert "come 100 ms earlier" in told
    assert advised(told) == ["data.headers.delay=100"]
    ((told, _),) = problems(early, "wavelet.delay=50", "data.headers.delay=-20")
    assert advised(told) == ["data.headers.delay=80"]


def test_a_rotation_by_90_degrees_alone_is_neither_polarity_nor_shift(problems):
    spectrum = np.fft.rfft(gather(RickerWavelet(0.01, 100.0)), 1000, axis=0)
    assert problems(np.fft.irfft(1j * spectrum, axis=0)[: AXIS.samples]) == []


def test_a_model_in_which_nothing_is_predicted_is_told(fwi_toml):
    compared = GatherComparison.of(gather(RickerWavelet(0.01, 100.0)), np.zeros((AXIS.samples, 3)), AXIS)
    told = source_problems(compared, load_run_config(fwi_toml), 0.01)
    assert told == [("cannot be compared: nothing is predicted in the initial model", False)]


def test_after_an_estimate_the_advice_is_not_to_estimate(problems, fwi_toml):
    text = fwi_toml.read_text()
    fwi_toml.write_text(text.replace('"ricker"', '"estimate"').replace("[data]", '[data]\nfile = "gathers"'))
    ((told, serious),) = problems(gather(RickerWavelet(0.01, 100.0, 1e5)))
    assert serious
    assert "the estimated wavelet explains almost nothing of them" in told
    assert problems(gather(RickerWavelet(0.01, 190.0))) == []


def test_of_a_wavelet_in_a_file_the_advice_is_an_estimate(problems, fwi_toml, tmp_path):
    np.save(tmp_path / "w.npy", RickerWavelet(0.01, 100.0).sample(TimeAxis(2.0, 151)))
    section = "kind = 'file'\nfile = 'w.npy'\nsample_interval = 2.0\n"
    fwi_toml.write_text(fwi_toml.read_text().replace('kind = "ricker"\npeak_frequency = 10.0\n', section))
    told = problems(gather(RickerWavelet(0.01, 200.0, -1e5)))
    assert 'wavelet.kind = "estimate", wavelet.peak_frequency = 10' in told[0][0]
    assert "move the samples of the wavelet" in told[1][0]
    assert advised(told[0][0]) == []


# --- as a user meets them


@pytest.fixture
def loud(hpcfwi):
    """The small survey, with data in other units and of the other polarity."""
    done = hpcfwi("model", "fwi.toml", "--run-dir", "true", *options("site.worker.threads=1", "wavelet.amplitude=-1e5"))
    assert done.returncode == 0, done.stderr
    return hpcfwi


def run(shell, *settings: str, fresh: bool = False):
    chosen = options("site.worker.threads=1", "data.file=true/data", "inversion.iterations=1", *settings)
    return shell("run", "fwi.toml", "--run-dir", "run", *chosen, *(["--fresh"] if fresh else []))


def test_a_run_refuses_data_in_another_unit_and_its_advice_lets_it_go_on(loud):
    done = run(loud)
    assert done.returncode == 2
    assert "Traceback" not in done.stdout + done.stderr
    assert "data.file: observed data of shots 0, 1, 2 are" in done.stderr
    mended, warned = advised(done.stderr)
    assert (mended[:19], warned) == ("wavelet.amplitude=-", "data.mismatch=warn")
    assert not (loud.folder / "run" / "model.npy").exists()

    done = run(loud, warned)
    assert done.returncode == 0, done.stderr
    assert "warning: data.file: observed data of shots 0, 1, 2 are" in done.stdout
    told = [event["message"] for event in logged_events(loud.folder / "run", "warning")]
    assert any("times as large as predicted ones" in message for message in told)

    done = run(loud, mended, fresh=True)
    assert done.returncode == 0, done.stderr
    assert "data.file: observed data of shot" not in done.stdout
