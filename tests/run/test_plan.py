"""``hpcfwi plan --site``: whether a shot fits on a node, how many workers there are, and advice that is true."""

from __future__ import annotations

import re
import shlex

import pytest

from hpcfwi.cli.main import command

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
        code = command(["plan", str(fwi_toml), "--site", str(tmp_path / "site.toml"), *words])
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return run


def test_a_plan_has_as_many_workers_as_fit_and_are_useful(plan):
    code, out, _ = plan(32)
    assert code == 0
    assert re.search(
        r"workers +3 on 3 nodes of .*site\.toml, each node with 1 process of 8 threads, .*; 1 rounds? of shots", out
    )
    code, out, _ = plan(32, "--nodes", "1")
    assert re.search(r"workers +3 on 1 node of .*site.toml, each node with 3 processes of 2 threads", out)
    assert "workers" not in plan_without_a_site(out)


def plan_without_a_site(out):
    return "\n".join(line for line in out.splitlines() if not line.startswith("workers"))


LARGE = ("--set", "grid.shape=[1201, 1201]", "--set", "data.recording_time=3000")


@pytest.mark.parametrize("strategy", ["full", "sampled"])
@pytest.mark.parametrize("memory", [1.5, 1, 0.7, 0.5])
def test_a_problem_fits_with_the_settings_that_the_message_advises(plan, strategy, memory):
    words = (*LARGE, "--set", f"solver.strategy={strategy}")
    code, _, err = plan(memory, *words)
    for _ in range(2):
        if code == 0:
            return
        assert code == 2
        assert "one shot needs" in err
        assert strategy == "full" or "solver.strategy" not in err
        advice = re.search(r"It fits with (--set .*)$", err, re.MULTILINE)
        grid = re.search(r"It fits with a grid of (\d+) x (\d+) points", err)
        if advice is not None:
            more = shlex.split(advice[1])
        else:
            assert grid is not None, err
            more = ["--set", f"grid.shape=[{grid[1]}, {grid[2]}]"]
        code, _, err = plan(memory, *words, *more)
    assert code == 0


def test_the_plan_advises_more_memory_if_nothing_else_helps(plan):
    code, _, err = plan(0.3)
    assert code == 2
    assert "one shot needs" in err
    assert "It fits with" not in err
