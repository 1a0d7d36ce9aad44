"""Shots that are left out on purpose, and runs that begin anew."""

from __future__ import annotations

import csv
import json
import shutil

import pytest


def first_misfit(run_dir):
    with (run_dir / "history.csv").open() as file:
        return float(next(csv.DictReader(file))["misfit"])


def test_a_shot_that_is_left_out_is_missing_in_the_misfit_and_the_results_say_so(hpcfwi):
    hpcfwi.run("all", "inversion.iterations=0")
    without = []
    for shot in "012":
        done = hpcfwi.run(f"without-{shot}", "inversion.iterations=0", f'data.exclude=["{shot}"]')
        told = f"without 1 of its 3 shots (data.exclude: {shot})"
        assert f"warning: the survey is used {told}" in done.stdout
        assert f"%, {told}\n" in done.stdout
        summary = json.loads((hpcfwi.folder / f"without-{shot}" / "result.json").read_text())["summary"]
        assert summary["left_out"] == told
        assert not (hpcfwi.folder / f"without-{shot}" / "staged" / "shots" / f"{shot}.pkl").exists()
        without.append(first_misfit(hpcfwi.folder / f"without-{shot}"))
    assert sum(without) == pytest.approx(2 * first_misfit(hpcfwi.folder / "all"), rel=1e-9)


@pytest.mark.parametrize(
    ("exclude", "told"),
    [
        ('["7"]', "data.exclude: there is no shot '7'; there are 0, 1, 2"),
        ('["0", "1", "2"]', "data.exclude: leaves no shot of the survey"),
        ("[3]", "data.exclude"),
    ],
)
def test_names_that_mean_nothing_are_told(hpcfwi, exclude, told):
    done = hpcfwi("plan", "fwi.toml", "--set", f"data.exclude={exclude}")
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_what_is_left_out_makes_it_another_problem_which_can_begin_anew(hpcfwi, first_run):
    shutil.copytree(first_run[2], hpcfwi.folder / "run")
    words = ["run", "fwi.toml", "--run-dir", "run", "--set", 'data.exclude=["1"]', "--set", "inversion.iterations=0"]
    done = hpcfwi(*words)
    assert done.returncode == 2
    assert "data.exclude: None there, ['1'] now" in done.stderr
    assert "--fresh" in done.stderr
    before = (hpcfwi.folder / "run" / "model.npy").read_bytes()
    for number in (2, 3):
        done = hpcfwi(*words, "--fresh")
        assert done.returncode == 0, done.stderr
        assert (hpcfwi.folder / f"run-{number}" / "model.npy").exists()
    assert (hpcfwi.folder / "run" / "model.npy").read_bytes() == before
    # a batch job that is started again goes on where it was
    hpcfwi.environment["SLURM_RESTART_COUNT"] = "1"
    done = hpcfwi(*words, "--fresh")
    assert "run-3: this run is done already" in done.stdout
    assert not (hpcfwi.folder / "run-4").exists()
