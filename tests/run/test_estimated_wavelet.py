"""Runs that estimate the wavelet: data of a wavelet that is rotated by 90 degrees and 1e5 times as large are inverted."""

from __future__ import annotations

import csv
import shutil
import signal

import numpy as np
import pytest
from scipy.signal import hilbert
from watching import history, logged_events, options, wait_until

SECTION = 'kind = "ricker"\npeak_frequency = 10.0\n'
WORDS = ("site.worker.threads=1", "site.worker.processes=1")


def rotated_ricker() -> np.ndarray:
    """A Ricker wavelet of 10 Hz with its peak at 150 ms, rotated by 90 degrees and 1e5 times as large, every ms."""
    times = np.arange(-4000.0, 4000.0)  # so long that the transform does not wrap around
    squares = (np.pi * 0.01 * times) ** 2
    rotated = 1e5 * np.imag(hilbert((1 - 2 * squares) * np.exp(-squares)))
    start = np.clip((times + 150) / 50, 0, 1)
    return (rotated * start)[3850:4250]


@pytest.fixture(scope="module")
def modelled(tmp_path_factory, first_run):
    """A folder with the data that the true wavelet makes, and configurations that know and that estimate it."""
    shell = type(first_run[0])(tmp_path_factory.mktemp("rotated"))
    np.save(shell.folder / "w.npy", rotated_ricker())
    text = (shell.folder / "fwi.toml").read_text()
    assert SECTION in text
    text = text.replace("recording_time = 300.0", "recording_time = 600.0")  # the wavelet arrives after some 400 ms
    known = text.replace(SECTION, 'kind = "file"\nfile = "w.npy"\nsample_interval = 1.0\n')
    (shell.folder / "known.toml").write_text(known)
    done = shell("model", "known.toml", "--run-dir", "true", *options(*WORDS))
    assert done.returncode == 0, done.stderr
    shutil.move(shell.folder / "true" / "data", shell.folder / "data")
    with_data = text.replace("[data]\n", '[data]\nfile = "data"\n')
    (shell.folder / "fwi.toml").write_text(with_data.replace('"ricker"', '"estimate"'))
    return shell


@pytest.fixture(scope="module")
def invert(modelled):
    """Run with settings, in a new folder or one that holds a run; returns the folder and what was printed."""

    def run(name: str, *settings: str):
        done = modelled("run", "fwi.toml", "--run-dir", name, *options(*WORDS, *settings))
        assert done.returncode == 0, done.stderr
        return modelled.folder / name, done.stdout

    return run


@pytest.fixture(scope="module")
def undisturbed(invert):
    """A run with a new estimate at each iteration, on one worker."""
    return invert("undisturbed", "wavelet.every=1", "inversion.iterations=3")


def content(run_dir) -> list:
    """What has to be the same bytes, and the numbers of the history."""
    return [*((run_dir / name).read_bytes() for name in ("model.npy", "wavelet.csv")), history(run_dir)]


def table(run_dir) -> tuple[list[str], np.ndarray]:
    with (run_dir / "wavelet.csv").open() as file:
        titles, *rows = csv.reader(file)
    return titles, np.array(rows, float)


def test_a_run_estimates_the_wavelet_at_each_iteration_and_inverts(undisturbed):
    run_dir, shown = undisturbed
    estimates = logged_events(run_dir, "source estimated")
    assert [(one["estimate"], one["filters"]) for one in estimates] == [(1, 1), (2, 1), (3, 1)]
    explained = [one["explained"] for one in estimates]
    assert explained == sorted(explained)
    assert shown.count("wavelet estimated for the survey: filtered predictions explain ") == 3
    assert "data.file: observed data" not in shown  # neither the unit nor the polarity is wrong any more
    misfits = [float(misfit) for _, _, misfit in history(run_dir)]
    assert len(misfits) == 4
    assert misfits == sorted(misfits, reverse=True)


def test_the_estimate_has_the_phase_and_the_size_of_the_true_wavelet(undisturbed):
    titles, rows = table(undisturbed[0])
    assert titles == ["time_ms", "before", "estimated"]
    times, before, estimated = rows.T
    true = np.interp(times, np.arange(400.0), rotated_ricker(), left=0, right=0)
    assert np.abs(before).max() == pytest.approx(1, abs=0.02)
    assert np.corrcoef(estimated, true)[0, 1] > 0.9
    assert 0.5 < np.abs(estimated).max() / np.abs(true).max() < 2


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param("before the first", marks=pytest.mark.slow),
        pytest.param("before the second", marks=pytest.mark.slow),
        "after the second",
    ],
)
def test_a_run_that_is_killed_between_estimates_ends_with_the_same_bytes(modelled, invert, undisturbed, moment):
    name = moment.replace(" ", "-")
    run_dir = modelled.folder / name
    settings = ("wavelet.every=1", "inversion.iterations=3")
    process = modelled.start("run", "fwi.toml", "--run-dir", name, *options(*WORDS, *settings))
    kind, count = {
        "before the first": ("data staged", 1),
        "before the second": ("evaluation", 1),
        "after the second": ("source estimated", 2),
    }[moment]
    wait_until(lambda: len(logged_events(run_dir, kind)) >= count, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (run_dir / "model.npy").exists()
    again, _ = invert(name, *settings)
    assert content(again) == content(undisturbed[0])
    if moment == "after the second":
        staged = [one.get("staged_before", False) for one in logged_events(again, "source estimated")]
        assert staged == [False, False, True, True, False]


def test_two_workers_give_the_same_bytes(invert, undisturbed):
    settings = ("wavelet.every=1", "inversion.iterations=3", "site.worker.processes=2")
    assert content(invert("two", *settings)[0]) == content(undisturbed[0])


@pytest.fixture(scope="module")
def in_each_model(invert):
    """A run with a new estimate in each model, on one worker."""
    return invert("in-each-model", "wavelet.every=evaluation", "inversion.iterations=2")


def test_a_run_estimates_the_wavelet_in_each_model(in_each_model):
    run_dir, shown = in_each_model
    # those of the initial and of the final model are shown
    assert [one["estimate"] for one in logged_events(run_dir, "source estimated")] == [1, 2]
    assert shown.count("wavelet estimated for the survey: filtered predictions explain ") == 2
    evaluations = logged_events(run_dir, "evaluation")
    assert len(evaluations) >= 3
    assert all(one["source_seconds"] > 0 for one in evaluations)
    misfits = [float(misfit) for _, _, misfit in history(run_dir)]
    assert misfits == sorted(misfits, reverse=True)
    assert sorted(file.name for file in (run_dir / "staged").glob("source-*")) == ["source-1.pkl", "source-2.pkl"]


def test_with_estimates_in_each_model_two_workers_give_the_same_bytes(invert, in_each_model):
    settings = ("wavelet.every=evaluation", "inversion.iterations=2", "site.worker.processes=2")
    assert content(invert("two-in-each-model", *settings)[0]) == content(in_each_model[0])


@pytest.mark.slow
@pytest.mark.parametrize("evaluations", [1, 2, 3])
def test_a_run_that_is_killed_ends_with_the_same_estimates_in_each_model(modelled, invert, in_each_model, evaluations):
    name, settings = f"killed-{evaluations}", ("wavelet.every=evaluation", "inversion.iterations=2")
    process = modelled.start("run", "fwi.toml", "--run-dir", name, *options(*WORDS, *settings))
    wait_until(lambda: len(logged_events(modelled.folder / name, "evaluation")) >= evaluations, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    again, _ = invert(name, *settings)
    assert content(again) == content(in_each_model[0])


@pytest.mark.slow
def test_more_iterations_continue_a_finished_run(invert, undisturbed):
    whole, _ = undisturbed
    invert("longer", "wavelet.every=1", "inversion.iterations=2")
    longer, _ = invert("longer", "wavelet.every=1", "inversion.iterations=3")
    assert content(longer) == content(whole)


def test_each_shot_may_have_its_own_wavelet(invert):
    run_dir, shown = invert("per-shot", "wavelet.per_shot=true", "inversion.iterations=1", "output.figures=true")
    assert "wavelet estimated for each shot: " in shown
    (event,) = logged_events(run_dir, "source estimated")
    assert event["filters"] == 3
    titles, rows = table(run_dir)
    assert titles == ["time_ms", "before", "0", "1", "2"]
    assert rows.shape[1] == 5
    assert (run_dir / "figures" / "wavelet.png").exists()
    assert "Estimated wavelet" in (run_dir / "report.html").read_text()


def test_offsets_without_a_trace_are_refused_with_the_key(modelled):
    done = modelled("run", "fwi.toml", "--run-dir", "far", *options(*WORDS, "wavelet.max_offset=20"))
    assert done.returncode == 2
    assert "Traceback" not in done.stdout + done.stderr
    assert "wavelet.kind: the wavelet cannot be estimated" in done.stderr
    assert "up to 20 m (wavelet.max_offset)" in done.stderr


def test_modelled_data_have_a_known_wavelet(hpcfwi):
    config = hpcfwi.folder / "fwi.toml"
    config.write_text(config.read_text().replace('"ricker"', '"estimate"'))
    done = hpcfwi("run", "fwi.toml")
    assert done.returncode == 2
    assert 'wavelet.kind: is "estimate", which needs observed data (data.file)' in done.stderr


# sources and receivers at the surface: most traces see the circle's reflections behind a strong direct wave
SURFACE = """
[acquisition.sources]
first = [60.0, 20.0]
last = [540.0, 20.0]
count = 4

[acquisition.receivers]
first = [20.0, 20.0]
last = [580.0, 20.0]
count = 29

[[processing]]
kind = "offset_window"
minimum = 120.0

"""


@pytest.mark.slow
@pytest.mark.parametrize("setting", ["damping = 1e-8\n", 'every = "evaluation"\n'], ids=["once", "in-each-model"])
def test_after_an_estimate_the_misfit_falls_to_nearly_that_of_the_right_wavelet(hpcfwi, setting):
    """To within 1.1 times; once that takes as little damping as noise-free data allow."""
    np.save(hpcfwi.folder / "w.npy", rotated_ricker())
    text = (hpcfwi.folder / "fwi.toml").read_text().replace("recording_time = 300.0", "recording_time = 600.0")
    begin, end = text.index("[acquisition.sources]"), text.index("[data]")
    text = text[:begin] + SURFACE + text[end:]
    known = text.replace(SECTION, 'kind = "file"\nfile = "w.npy"\nsample_interval = 1.0\n')
    estimated = SECTION.replace("ricker", "estimate") + setting
    final = {}
    (hpcfwi.folder / "fwi.toml").write_text(known)
    done = hpcfwi("model", "fwi.toml", "--run-dir", "true", *options(*WORDS))
    assert done.returncode == 0, done.stderr
    for name, content in (("right", known), ("estimated", text.replace(SECTION, estimated))):
        (hpcfwi.folder / "fwi.toml").write_text(content)
        hpcfwi.run(name, *WORDS, "data.file=true/data", "inversion.iterations=6")
        final[name] = float(history(hpcfwi.folder / name)[-1][2])
    assert final["estimated"] < 1.1 * final["right"]
