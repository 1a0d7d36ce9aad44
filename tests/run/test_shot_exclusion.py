"""Shots that are left out on purpose, and runs that begin anew."""

from __future__ import annotations

import csv
import json
import shlex
import shutil

import numpy as np
import pytest
from watching import logged_events, options

from hpcfwi.artifacts import StagedFile, load, read_header


def first_misfit(run_dir):
    with (run_dir / "history.csv").open() as file:
        return float(next(csv.DictReader(file))["misfit"])


def test_an_excluded_shot_is_missing_from_the_misfit_and_named_in_the_results(hpcfwi, first_run):
    done = hpcfwi.run("run", "inversion.iterations=0", 'data.exclude=["1"]')
    shown = "without 1 of its 3 shots (data.exclude: 1)"
    assert f"warning: the survey is used {shown}" in done.stdout
    assert f"%, {shown}\n" in done.stdout
    summary = json.loads((hpcfwi.folder / "run" / "result.json").read_text())["summary"]
    assert summary["left_out"] == shown
    assert not (hpcfwi.folder / "run" / "staged" / "shots" / "1.pkl").exists()
    shots = [event for event in logged_events(first_run[2], "shot") if event["evaluation"] == 1]
    assert {event["shot"] for event in shots} == {"0", "1", "2"}
    others = sum(event["misfit"] for event in shots if event["shot"] != "1")
    assert first_misfit(hpcfwi.folder / "run") == pytest.approx(others, rel=1e-9)


@pytest.mark.parametrize(
    ("exclude", "shown"),
    [
        ('["7"]', "data.exclude: there is no shot '7'; the shots are 0, 1, 2"),
        ('["0", "1", "2"]', "data.exclude: leaves no shot of the survey"),
        ("[3]", "data.exclude"),
    ],
)
def test_unknown_shot_names_are_reported(hpcfwi, exclude, shown):
    done = hpcfwi("plan", "fwi.toml", "--set", f"data.exclude={exclude}")
    assert done.returncode == 2
    assert shown in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_excluding_a_shot_makes_another_problem_that_needs_a_fresh_run(hpcfwi, first_run):
    shutil.copytree(first_run[2], hpcfwi.folder / "run")
    words = ["run", "fwi.toml", "--run-dir", "run", "--set", 'data.exclude=["1"]', "--set", "inversion.iterations=0"]
    done = hpcfwi(*words)
    assert done.returncode == 2
    assert "data.exclude: None there, ['1'] now" in done.stderr
    assert "--fresh" in done.stderr
    before = (hpcfwi.folder / "run" / "model.npy").read_bytes()
    hpcfwi.environment["SLURM_JOB_ID"] = "77"
    for number in (2, 3):
        done = hpcfwi(*words, "--fresh")
        assert done.returncode == 0, done.stderr
        assert (hpcfwi.folder / f"run-{number}" / "model.npy").exists()
    assert (hpcfwi.folder / "run" / "model.npy").read_bytes() == before
    # a batch job that is started again goes on where it was
    hpcfwi.environment["SLURM_RESTART_COUNT"] = "1"
    done = hpcfwi(*words, "--fresh")
    assert "run-2: this run is already done" in done.stdout  # the first folder of job 77
    assert not (hpcfwi.folder / "run-4").exists()


@pytest.fixture
def broken(hpcfwi, first_run):
    """Options of a run with the first run's data as files, of which the second is broken."""
    (hpcfwi.folder / "gathers").mkdir()
    for path in (first_run[2] / "staged" / "shots").iterdir():
        record = load(StagedFile(str(path), read_header(path)["digest"]), "shot")["record"]
        if path.stem == "1":
            record[7, 3:] = np.inf
        np.save(hpcfwi.folder / "gathers" / f"{path.stem}.npy", record)
    return options("data.file=gathers", "site.worker.threads=1")


def test_a_broken_record_stops_the_run_with_the_ways_out(hpcfwi, broken):
    done = hpcfwi("run", "fwi.toml", "--run-dir", "run", *broken)
    assert done.returncode == 2
    assert (
        "shot 1: only 3 of its 20 traces can be used (not finite: 4-20), and data.traces.minimum asks for 0.5"
        in done.stderr
    )
    assert "Traceback" not in done.stderr
    quorum, anew = (shlex.split(line.rpartition(": ")[2]) for line in done.stderr.strip().splitlines()[-2:])
    assert quorum == ["--set", "data.quorum=0.666"]
    assert anew == ["--fresh", "--set", 'data.exclude=["1"]']
    for way, where in ((quorum, "run"), (anew, "run-2")):
        done = hpcfwi("run", "fwi.toml", "--run-dir", "run", *broken, *way)
        assert done.returncode == 0, done.stderr
        assert (hpcfwi.folder / where / "model.npy").exists()


def test_the_advice_keeps_shots_that_are_already_excluded(hpcfwi, broken):
    done = hpcfwi("run", "fwi.toml", "--run-dir", "run", *broken, "--set", 'data.exclude=["0"]')
    assert done.returncode == 2
    assert """--fresh --set 'data.exclude=["0", "1"]'""" in done.stderr


@pytest.mark.slow
def test_with_a_quorum_the_inversion_restarts_without_failing_shots(hpcfwi, broken):
    run_dir = hpcfwi.folder / "run"
    words = ["run", "fwi.toml", "--run-dir", "run", *broken]
    done = hpcfwi(*words, "--set", "data.quorum=0.7")
    assert done.returncode == 2
    assert "--set data.quorum=0.666" in done.stderr
    done = hpcfwi(*words, "--set", "data.quorum=0.6")
    assert done.returncode == 0, done.stderr
    shown = "without 1 of its 3 shots (failed: 1)"
    assert f"the inversion starts over, {shown}" in done.stdout
    assert f"%, {shown}\n" in done.stdout
    assert json.loads((run_dir / "result.json").read_text())["summary"]["left_out"] == shown
    # as if it had never been there
    hpcfwi.run("without", "data.file=gathers", 'data.exclude=["1"]')
    assert (run_dir / "model.npy").read_bytes() == (hpcfwi.folder / "without" / "model.npy").read_bytes()
    assert first_misfit(run_dir) == first_misfit(hpcfwi.folder / "without")
    # the next start knows
    done = hpcfwi(*words, "--set", "data.quorum=0.6", "--set", "inversion.iterations=3")
    assert done.returncode == 0, done.stderr
    assert f"warning: the survey is used {shown}" in done.stdout
    done = hpcfwi(*words, "--set", "inversion.iterations=4")
    assert done.returncode == 2
    assert "data.quorum: is 1, but 2 of 3 shots can be used, since 1 failed earlier" in done.stderr


@pytest.mark.parametrize(
    "content",
    [
        '{"shots": ["1"]}',
        pytest.param('{"shots": {"7": "x"}}', marks=pytest.mark.slow),
        pytest.param('{"shots": {"0": 1, "1": 1, "2": 1}}', marks=pytest.mark.slow),
    ],
)
def test_a_malformed_record_of_excluded_shots_is_ignored(hpcfwi, first_run, content):
    shutil.copytree(first_run[2], hpcfwi.folder / "run")
    (hpcfwi.folder / "run" / "excluded-shots.json").write_text(content)
    done = hpcfwi.run("run", "inversion.iterations=3")
    assert "the survey is used" not in done.stdout
