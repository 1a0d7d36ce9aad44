"""Runs with batches of shots: the same bytes however often they are killed, and reasons to stop."""

from __future__ import annotations

import json
import re
import signal

import numpy as np
import pytest
from watching import history, logged_events, options, wait_until

ADAM = ("inversion.optimizer=adam", "inversion.batch=2", "inversion.full_misfit_every=4", "inversion.iterations=6")
BATCH = ("inversion.optimizer=lbfgs-batch", "inversion.batch=4", "inversion.iterations=4")
WORDS = ("site.worker.threads=1", "acquisition.sources.count=7", "output.report=false")
WAYS = {"adam": ADAM, "lbfgs-batch": BATCH}


@pytest.fixture(scope="module")
def shell(first_run, tmp_path_factory):
    return type(first_run[0])(tmp_path_factory.mktemp("batches"))


@pytest.fixture(scope="module")
def invert(shell):
    """Run with settings, in a new folder or one that holds a run; returns the folder and what was printed."""

    def run(name: str, *settings: str):
        done = shell("run", "fwi.toml", "--run-dir", name, *options(*WORDS, *settings))
        assert done.returncode == 0, done.stdout + done.stderr
        return shell.folder / name, done.stdout

    return run


@pytest.fixture(scope="module")
def undisturbed(invert):
    """Runs on one worker by their optimisers, each made once."""
    made = {}

    def run(optimizer):
        if optimizer not in made:
            made[optimizer] = invert(optimizer, "site.worker.processes=1", *WAYS[optimizer])
        return made[optimizer]

    return run


def content(run_dir):
    """What has to be the same bytes, and the numbers of the history."""
    return (run_dir / "model.npy").read_bytes(), history(run_dir)


def message(run_dir):
    return json.loads((run_dir / "result.json").read_text())["summary"]["message"]


def test_adam_lowers_the_misfit_and_says_which_misfits_are_of_all_shots(undisturbed):
    run_dir, shown = undisturbed("adam")
    evaluations = logged_events(run_dir, "evaluation")
    assert [one.get("batch") for one in evaluations] == [None, 2, 2, 2, None, 2, None]
    begun = logged_events(run_dir, "evaluation started")
    assert [one["shots"] for one in begun] == [7, 2, 2, 2, 7, 2, 7]
    misfits = [float(misfit) for _, _, misfit in history(run_dir)]
    assert max(misfits[4], misfits[6]) < 0.2 * misfits[0]
    assert len(re.findall(r"iteration \d/6: misfit [\d.e-]+ by 2 shots", shown)) == 4
    assert "\nstopped because inversion.iterations is reached\n" in shown
    shots = logged_events(run_dir, "shot")
    for one in evaluations:
        found = [shot["misfit"] for shot in shots if shot["evaluation"] == one["evaluation"]]
        assert one["misfit"] == pytest.approx(7 / len(found) * sum(found), rel=1e-9)


def test_lbfgs_on_batches_lowers_the_misfit(undisturbed):
    run_dir, _ = undisturbed("lbfgs-batch")
    misfits = [float(misfit) for _, _, misfit in history(run_dir)]
    assert len(misfits) == 5
    assert misfits[-1] < 0.5 * misfits[0]
    assert {one["batch"] for one in logged_events(run_dir, "evaluation")} == {2}


def test_the_status_counts_the_shots_of_the_batch(shell, undisturbed):
    run_dir, _ = undisturbed("adam")
    last = logged_events(run_dir, "evaluation started")[-1]["shots"]
    status = json.loads(shell("status", run_dir, "--json").stdout)
    assert status["shots_done"] == status["shots_total"] == last
    assert status["initial_misfit"] == float(history(run_dir)[0][2])


@pytest.mark.parametrize("optimizer", ["adam", pytest.param("lbfgs-batch", marks=pytest.mark.slow)])
def test_two_workers_give_the_same_bytes(invert, undisturbed, optimizer):
    run_dir, _ = invert(f"two-{optimizer}", "site.worker.processes=2", *WAYS[optimizer])
    assert content(run_dir) == content(undisturbed(optimizer)[0])


@pytest.mark.parametrize(
    ("optimizer", "evaluations"),
    [
        ("adam", 3),
        pytest.param("adam", 1, marks=pytest.mark.slow),
        pytest.param("adam", 5, marks=pytest.mark.slow),
        pytest.param("lbfgs-batch", 2, marks=pytest.mark.slow),
        pytest.param("lbfgs-batch", 5, marks=pytest.mark.slow),
    ],
)
def test_a_run_that_is_killed_in_a_batch_ends_with_the_same_bytes(shell, invert, undisturbed, optimizer, evaluations):
    name = f"killed-{optimizer}-{evaluations}"
    run_dir, settings = shell.folder / name, ("site.worker.processes=1", *WAYS[optimizer])
    expected = content(undisturbed(optimizer)[0])
    process = shell.start("run", "fwi.toml", "--run-dir", name, *options(*WORDS, *settings))

    def amid_an_evaluation():
        done = {one["evaluation"] for one in logged_events(run_dir, "evaluation")}
        return (
            any(shot["evaluation"] > evaluations for shot in logged_events(run_dir, "shot")) or len(done) > evaluations
        )

    wait_until(amid_an_evaluation, process, every=0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (run_dir / "model.npy").exists()
    again, _ = invert(name, *settings)
    assert content(again) == expected
    replayed = sum(one["replayed"] for one in logged_events(again, "evaluation"))
    assert replayed >= evaluations


@pytest.mark.slow
def test_more_iterations_of_a_constant_step_continue_a_finished_run(invert):
    settings = ("inversion.optimizer=adam", "inversion.batch=2", "inversion.schedule=constant")
    settings += ("inversion.full_misfit_every=3",)
    whole, _ = invert("whole", *settings, "inversion.iterations=5")
    invert("longer", *settings, "inversion.iterations=2")
    longer, _ = invert("longer", *settings, "inversion.iterations=5")
    assert content(longer) == content(whole)
    again = logged_events(longer, "evaluation")[3:]
    assert [one["replayed"] for one in again[:2]] == [True, True]


def test_the_length_of_a_cosine_cannot_be_changed(shell, undisturbed):
    run_dir, _ = undisturbed("adam")
    longer = options(*WORDS, *ADAM[:-1], "inversion.iterations=8")
    done = shell("run", "fwi.toml", "--run-dir", run_dir, *longer)
    assert done.returncode == 2
    assert "inversion.iterations: 6 there, 8 now" in done.stderr


@pytest.mark.slow
def test_batches_of_a_run_that_leaves_out_a_shot_are_those_of_the_smaller_survey(shell, invert):
    done = shell("model", "fwi.toml", "--run-dir", "data", *options(*WORDS))
    assert done.returncode == 0, done.stderr
    path = shell.folder / "data" / "data" / "3.npy"
    settings = ("data.file=data/data", *ADAM, "inversion.batch=3")
    expected, _ = invert("excluded", *settings, 'data.exclude=["3"]')
    broken = np.load(path)
    broken[7, 3:] = np.inf  # all but three traces
    np.save(path, broken)
    found, shown = invert("lost", *settings, "data.quorum=0.5")
    assert "without 1 of its 7 shots" in shown
    assert content(found) == content(expected)


@pytest.mark.slow
def test_more_workers_than_shots_of_a_batch_are_named(invert):
    _, shown = invert("idle", "site.worker.processes=2", "inversion.optimizer=adam", "inversion.batch=1",
                      "inversion.iterations=0")  # fmt: skip
    assert (
        "warning: inversion.batch: 2 workers are planned, but only 1 shot is computed at a time: 1 of the workers wait"
        in shown
    )


def test_a_batch_larger_than_the_survey_is_refused(shell):
    done = shell("run", "fwi.toml", "--run-dir", "large", *options(*WORDS, *ADAM, "inversion.batch=8"))
    assert done.returncode == 2
    assert done.stderr == "hpcfwi: inversion.batch: is 8, but the survey has 7 shots; it should be at most 7\n"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (("inversion.misfit_share=0.5",), "the misfit is at most 0.5 of the first one (inversion.misfit_share)"),
        pytest.param(
            ("inversion.noise_level=0.05",),
            "the residuals have at most 0.05 of the energy of the observed data (inversion.noise_level)",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_criterion_ends_the_run_and_a_run_that_is_made_again_ends_there_too(invert, settings, expected):
    run_dir, shown = invert(settings[0].partition("=")[0], "inversion.iterations=8", *settings)
    assert message(run_dir) == expected
    assert f"\nstopped because {expected}\n" in shown
    rows = history(run_dir)
    assert 1 < len(rows) < 9
    if "misfit_share" in settings[0]:
        assert float(rows[-1][2]) <= 0.5 * float(rows[0][2]) < float(rows[-2][2])


@pytest.mark.slow
def test_a_budget_ends_the_run_after_an_iteration_and_again_there(invert):
    settings = ("inversion.budget_hours=1e-5", "inversion.iterations=200", "inversion.ftol=0")
    run_dir, _ = invert("budget", *settings)
    assert message(run_dir).endswith("of 1e-05 hours (inversion.budget_hours)")
    expected = content(run_dir)
    (run_dir / "result.json").unlink()
    assert content(invert("budget", *settings)[0]) == expected
    longer, _ = invert("budget", *settings[1:], "inversion.budget_hours=2e-5")
    assert len(history(longer)) >= len(expected[1])
    assert history(longer)[: len(expected[1])] == expected[1]
