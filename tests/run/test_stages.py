"""Runs in stages: each on its own grid, continued after a kill at any moment, with the same bytes."""

from __future__ import annotations

import json
import shutil
import signal

import numpy as np
import pytest
from watching import history, logged_events, options, wait_until

STAGES = """
[[stage]]
name = "coarse"
high = 5.0
spacing = [40.0, 40.0]
iterations = 2

[[stage]]
high = 12.0
iterations = 1
shots = 2

[[stage]]
name = "all"
"""
WORDS = ("site.worker.threads=1", "site.worker.processes=1")


@pytest.fixture(scope="module")
def shell(tmp_path_factory, first_run):
    """A folder with a configuration of three stages, in which commands run."""
    shell = type(first_run[0])(tmp_path_factory.mktemp("stages"))
    config = shell.folder / "fwi.toml"
    config.write_text(config.read_text() + STAGES)
    return shell


@pytest.fixture(scope="module")
def run(shell):
    """Run with settings, in a new folder or one that holds a run; returns the folder and what was printed."""

    def run(name: str, *settings: str, words: tuple[str, ...] = WORDS):
        done = shell("run", "fwi.toml", "--run-dir", name, *options(*words, *settings))
        assert done.returncode == 0, done.stderr
        return shell.folder / name, done.stdout

    return run


@pytest.fixture(scope="module")
def undisturbed(run):
    return run("undisturbed", "output.figures=true", "output.report=true")


def content(run_dir) -> list:
    """What has to be the same bytes, and the numbers of the history."""
    models = sorted((run_dir / "models").iterdir())
    return [(path.name, path.read_bytes()) for path in (run_dir / "model.npy", *models)] + [history(run_dir)]


def test_each_stage_has_its_grid_its_shots_and_its_iterations(undisturbed):
    run_dir, shown = undisturbed
    begun = logged_events(run_dir, "stage started")
    assert [(one["stage"], one["title"], one["shots"], one["iterations"]) for one in begun] == [
        (1, "coarse", 3, 2),
        (2, "up to 12 Hz", 2, 1),
        (3, "all", 3, 2),
    ]
    assert [one["grid"] for one in begun] == ["24 x 24 points of 40 x 40 m", *["31 x 31 points of 20 x 20 m"] * 2]
    assert "stage 2 of 3, up to 12 Hz: 31 x 31 points of 20 x 20 m, 2 shots, misfit l2, at most 1 iteration" in shown
    ended = logged_events(run_dir, "stage done")
    assert [one["iterations"] for one in ended] == [2, 1, 2]
    assert all(one["misfit"] < one["initial_misfit"] for one in ended)
    assert sum(one["evaluations"] for one in ended) == len(logged_events(run_dir, "evaluation"))


def test_history_and_models_say_how_the_stages_went(undisturbed):
    run_dir, _ = undisturbed
    rows = (run_dir / "history.csv").read_text().splitlines()
    assert rows[0].endswith(",stage,batch")
    assert [row.split(",")[-2] for row in rows[1:]] == ["1", "1", "1", "2", "3", "3"]
    models = [np.load(path) for path in sorted((run_dir / "models").iterdir())]
    assert [model.shape for model in models] == [(31, 31)] * 6
    np.testing.assert_array_equal(models[-1], np.load(run_dir / "model.npy"))
    assert np.load(run_dir / "gradient.npy").shape == (31, 31)
    for name in ("models", "convergence", "gather", "gradient", "processing"):
        assert (run_dir / "figures" / f"{name}.png").exists() == (name != "processing"), name


def test_status_and_report_say_the_stage(shell, undisturbed):
    run_dir, _ = undisturbed
    status = json.loads(shell("status", run_dir, "--json").stdout)
    assert (status["stage"], status["stages"], status["state"]) == ("3, all", 3, "done")
    report = (run_dir / "report.html").read_text()
    assert "Relative to the first one of its stage: " in report
    assert " % of the first one of stage 3" in report
    assert "Iteration 3, stage 2: misfit " in report


@pytest.mark.slow
def test_two_workers_give_the_same_bytes(run, undisturbed):
    two, _ = run("two", words=("site.worker.threads=1", "site.worker.processes=2"))
    assert content(two) == content(undisturbed[0])


def test_a_run_of_one_stage_that_changes_nothing_is_the_run_without_stages(run, shell):
    config = shell.folder / "fwi.toml"
    text = config.read_text()
    try:
        config.write_text(text.replace(STAGES, '\n[[stage]]\nname = "all"\n'))
        one, _ = run("one")
        config.write_text(text.replace(STAGES, ""))
        none, _ = run("none")
    finally:
        config.write_text(text)
    assert content(one) == content(none)


@pytest.mark.parametrize(
    "evaluations",
    [pytest.param(1, marks=pytest.mark.slow), 3, *(pytest.param(n, marks=pytest.mark.slow) for n in (4, 5, 6, 7))],
)
def test_a_run_that_is_killed_in_or_between_stages_ends_with_the_same_bytes(shell, run, undisturbed, evaluations):
    name = f"killed-{evaluations}"
    process = shell.start("run", "fwi.toml", "--run-dir", name, *options(*WORDS))
    wait_until(lambda: len(logged_events(shell.folder / name, "evaluation")) >= evaluations, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    again, _ = run(name)
    assert content(again) == content(undisturbed[0])


@pytest.mark.slow
def test_more_iterations_of_the_last_stage_continue_a_finished_run(run):
    shorter, _ = run("longer", "stage.3.iterations=1")
    assert (shorter / "model.npy").exists()
    longer, _ = run("longer", "stage.3.iterations=2")
    assert content(longer) == content(run("whole", "stage.3.iterations=2")[0])


@pytest.mark.slow
def test_check_tests_the_gradient_of_a_stage(shell):
    done = shell("check", "fwi.toml", "--stage", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("stage 2 of 3, up to 12 Hz\n")
    assert "the gradient is right" in done.stdout


def test_check_refuses_a_stage_that_is_not_there(shell):
    done = shell("check", "fwi.toml", "--stage", "4")
    assert done.returncode == 2
    assert "--stage 4: there is no such stage; fwi.toml has 3" in done.stderr


def test_plan_says_what_a_stage_costs(shell):
    done = shell("plan", "fwi.toml", "--no-measure")
    assert done.returncode == 0, done.stderr
    (row,) = (line for line in done.stdout.splitlines() if line.startswith("stage 1"))
    assert "coarse: 24 x 24 points of 40 x 40 m" in row
    assert "of one on the grid of the run" in row


def test_recorded_data_are_inverted_in_stages_without_a_solver_of_the_whole_band(run, shell):
    done = shell("model", "fwi.toml", "--run-dir", "true", *options(*WORDS))
    assert done.returncode == 0, done.stderr
    shutil.move(shell.folder / "true" / "data", shell.folder / "data")
    recorded, _ = run("recorded", "data.file=data", "stage.3.spacing=[24.0, 24.0]")
    built = [event for event in logged_events(recorded, "solver") if event.get("source") == "driver"]
    assert len(built) == 3
    misfits = [one["misfit"] / one["initial_misfit"] for one in logged_events(recorded, "stage done")]
    assert max(misfits) < 0.8
