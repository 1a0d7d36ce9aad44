"""``hpcfwi plan --site``: whether a shot fits on a node, how many workers there are, and advice that is true."""

from __future__ import annotations

import re
import shlex

import pytest

from hpcfwi.cli.main import command
from hpcfwi.run.plan import idle_workers, resource_request

SITE = """
[scheduler]
kind = "slurm"
walltime = "01:00:00"
jobs = 3

[node]
cores = 8
memory = {memory}

[worker]
processes = "auto"
threads = "auto"
memory = "auto"
"""


@pytest.fixture
def plan(fwi_toml, tmp_path, capsys):
    """Plan the small problem on nodes of so much memory (GB); returns exit code, output and errors."""

    def run(memory, *words):
        (tmp_path / "site.toml").write_text(SITE.format(memory=memory))
        code = command(["plan", str(fwi_toml), "--no-measure", "--site", str(tmp_path / "site.toml"), *words])
        shown = capsys.readouterr()
        # a long path of the site may break the line
        return code, re.sub(r"\s+", " ", shown.out), shown.err

    return run


def test_a_plan_has_as_many_workers_as_fit_and_are_useful(plan):
    code, out, _ = plan(32)
    assert code == 0
    assert re.search(
        r"workers +3 on 3 nodes of .*site\.toml, each node with 1 process of 8 threads, .*; 1 rounds? of shots", out
    )
    code, out, _ = plan(32, "--nodes", "1")
    assert re.search(r"workers +3 on 1 node of .*site.toml, each node with 3 processes of 2 threads", out)


LARGE = ("--set", "grid.shape=[1201, 1201]", "--set", "grid.spacing=[7.0, 7.0]", "--set", "data.recording_time=3000")


@pytest.mark.parametrize("strategy", ["full", "sampled", "auto"])
@pytest.mark.parametrize("memory", [8, 3, 1, 0.5])
def test_a_problem_fits_with_the_settings_that_the_message_advises(plan, strategy, memory):
    words = (*LARGE, "--set", f"solver.wavefield={strategy}")
    code, _, err = plan(memory, *words)
    if code:
        assert code == 2
        assert "one shot needs" in err
        assert strategy != "auto" or "solver.wavefield=auto" not in err
        (advice,) = re.findall(r"It fits with (--set .*)$", err, re.MULTILINE)
        code, _, err = plan(memory, *words, *shlex.split(advice))
    assert code == 0, err


def test_the_plan_advises_more_memory_if_nothing_else_helps(plan):
    code, _, err = plan(0.2)
    assert code == 2
    assert "one shot needs" in err
    assert "It fits with" not in err
    assert "It needs a machine with more memory" in err


def test_a_grid_that_would_be_too_coarse_for_the_wavelet_is_not_advised(plan):
    code, _, err = plan(0.3, *LARGE, "--set", "wavelet.peak_frequency=40")
    assert code == 2
    assert "grid.shape" not in err


@pytest.mark.parametrize("words", [(), ("--set", "solver.wavefield=full")])
def test_a_limit_of_the_site_file_can_be_raised_as_the_message_advises(plan, words):
    limit = ("--set", "site.worker.memory=0.26")
    code, _, err = plan(32, *LARGE, *words, *limit)
    assert code == 2
    assert "site.worker.memory = 0.26 gives a worker on a node" in err
    for advice in re.findall(r"It fits with (--set .*)$", err, re.MULTILINE):
        assert plan(32, *LARGE, *words, *limit, *shlex.split(advice))[0] == 0, advice


def test_the_plan_counts_the_workers_that_a_run_starts(plan):
    words = ("--set", "site.scheduler.jobs=[1, 8]", "--set", "site.worker.processes=1")
    _, out, _ = plan(32, *words)
    assert re.search(r"workers +3 on 3 nodes of .*; 1 round of shots", out)  # it has three shots
    code, _, err = plan(32, "--nodes", "5", "--set", "site.scheduler.max_jobs=4")
    assert code == 2
    assert "allows 4 jobs at a time (scheduler.max_jobs)" in err


def test_more_than_one_node_of_this_machine_is_refused(fwi_toml, capsys):
    for words in ((), ("--site", "workstation")):
        assert command(["plan", str(fwi_toml), "--no-measure", "--nodes", "3", *words]) == 2
        assert "--nodes 3: the workers are processes of this machine" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "workers", "warning"),
    [
        (("optimizer=adam", "batch=2"), 2, ""),
        (("optimizer=lbfgs", "iterations=1"), 50, ""),
        (
            ("optimizer=adam", "batch=2"),
            5,
            "inversion.batch: 5 workers are planned, but only 2 shots are computed at a time: 3 of the workers wait; take a "
            "larger batch, or fewer workers",
        ),
        (
            ("optimizer=lbfgs-batch", "batch=2"),
            3,
            "inversion.batch: 3 workers are planned, but of the 2 shots of a batch, 1 shot is computed at a time: 2 of the "
            "workers wait; take a larger batch, or fewer workers",
        ),
    ],
)
def test_more_workers_than_shots_of_a_batch(make_problem, settings, workers, warning):
    assert idle_workers(make_problem(*(f"inversion.{setting}" for setting in settings)), workers) == warning


def test_a_node_has_no_more_processes_than_a_batch_has_shots(make_problem):
    batches = resource_request(make_problem("inversion.optimizer=adam", "inversion.batch=2"))
    whole = resource_request(make_problem())
    assert (batches.shots, whole.shots) == (2, 3)
    # memory for the observed data of all shots
    assert batches.shots * batches.data_bytes >= whole.shots * whole.data_bytes
