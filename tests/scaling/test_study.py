"""``hpcfwi scale`` on this machine: complete studies, stopped, killed and continued ones, and wrong input."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import time
from pathlib import Path

import psutil
import pytest

QUICK = ["--stand-in", "0.05", "--iterations", "1"]


def wait_until(condition, process, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def processes_in(folder):
    """Other processes whose current folder is this one."""
    found = []
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()).is_relative_to(folder) and process.pid != os.getpid():
                found.append(process)
        except psutil.Error:
            continue
    return found


def scale(hpcfwi, *words, nodes="1,2", repeat=1):
    return hpcfwi("scale", "fwi.toml", "--nodes", nodes, "--repeat", repeat, "--study-dir", "study", *QUICK, *words)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, first_run):
    """A finished study on one and two workers: its folder, and what the command printed."""
    shell = type(first_run[0])(tmp_path_factory.mktemp("study"))
    done = scale(shell)
    assert done.returncode == 0, done.stdout + done.stderr
    return shell.folder / "study", done.stdout


def test_a_study_shows_where_the_time_goes_and_predicts(finished):
    study, printed = finished
    with (study / "scaling.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["nodes"], row["workers"], row["scaling"]) for row in rows] == [
        ("1", "1", "strong"),
        ("2", "2", "strong"),
    ]
    for row in rows:
        assert float(row["core_hours"]) > 0
        parts = {name: float(value) for name, value in row.items() if name.endswith("_seconds")}
        wall = parts.pop("wall_seconds")
        del parts["evaluation_seconds"]
        assert sum(parts.values()) == pytest.approx(wall, abs=0.01)
        assert abs(parts["unexplained_seconds"]) < 0.03 * wall
        # three shots of 0.05 s in at least two evaluations
        assert parts["kernels_seconds"] * int(row["workers"]) >= 0.05 * 3 * 2
    results = json.loads((study / "scaling.json").read_text())
    assert results["provenance"]["stand_in"] == "shots that sleep for 0.05 s"
    assert results["provenance"]["versions"]["devito"]
    assert results["provenance"]["hosts"]
    assert [forecast["predictions"][0]["efficiency"] for forecast in results["forecasts"]] == [1, 1, 1, 1]
    assert max(p["nodes"] for p in results["forecasts"][1]["predictions"]) == 4096
    for name in ("scaling.png", "parts.png", "forecast.png"):
        assert (study / name).read_bytes()[:4] == b"\x89PNG"
    assert "the kernels are replaced by shots that sleep for 0.05 s" in printed
    assert "a node stands for a worker process" in printed
    assert "runs on 2 nodes are predicted from the other runs with errors of " in printed
    assert "the wall time of a run, computed from its measured shots, is wrong by at most " in printed


@pytest.mark.slow
def test_a_killed_study_continues_with_the_missing_runs(hpcfwi):
    study = hpcfwi.folder / "study"
    words = ["scale", "fwi.toml", "--nodes", "1,2", "--repeat", 1, "--study-dir", "study", *QUICK]
    process = hpcfwi.start(*words)
    wait_until((study / "runs" / "n0002-r1" / "events.jsonl").exists, process)
    process.kill()
    process.wait()
    first = (study / "runs" / "n0001-r1" / "measured.json").read_bytes()
    # a run survives its study, and holds the lease of its folder
    again = hpcfwi(*words)
    if again.returncode:
        assert again.returncode == 2
        assert "a run that an earlier start of this study began is still active (process " in again.stderr
        for process in processes_in(hpcfwi.folder):
            process.kill()
        psutil.wait_procs(processes_in(hpcfwi.folder), timeout=10)
        again = hpcfwi(*words)
    assert again.returncode == 0, again.stderr
    assert (study / "runs" / "n0001-r1" / "measured.json").read_bytes() == first
    assert len(list((study / "runs").glob("*/measured.json"))) == 2


def test_ctrl_c_also_ends_the_run_and_the_same_command_continues_the_study(hpcfwi):
    study = hpcfwi.folder / "study"
    process = hpcfwi.start("scale", "fwi.toml", "--nodes", "1", "--repeat", 1, "--study-dir", "study", "--stand-in", 30)
    wait_until((study / "runs" / "n0001-r1" / "events.jsonl").exists, process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 75, out + err
    assert err == "hpcfwi: stopped in run n0001-r1; the same command continues the study (study)\n"
    wait_for = time.monotonic() + 20
    while processes_in(hpcfwi.folder) and time.monotonic() < wait_for:
        time.sleep(0.1)
    assert not processes_in(hpcfwi.folder)


def test_the_output_of_a_failed_run_is_shown(hpcfwi):
    done = scale(hpcfwi, "--set", "site.worker.memory=0.001", nodes="1")
    assert done.returncode == 2
    assert "run n0001-r1 ended with exit code 2" in done.stderr
    assert "one shot needs" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_holds_one_study(hpcfwi, finished):
    shutil.copytree(finished[0], hpcfwi.folder / "study")
    done = scale(hpcfwi, "--weak", nodes="1")
    assert done.returncode == 2
    assert "holds another study:\n  weak_nodes: 0 there, 1 now\n" in done.stderr


def test_a_study_keeps_its_runs_when_more_are_added(hpcfwi, finished):
    shutil.copytree(finished[0], hpcfwi.folder / "study")
    done = scale(hpcfwi, nodes="1", repeat=2)
    assert done.returncode == 0, done.stderr
    runs = hpcfwi.folder / "study" / "runs"
    assert (runs / "n0001-r2" / "measured.json").exists()
    kept = Path("n0001-r1", "measured.json")
    assert (runs / kept).read_bytes() == (finished[0] / "runs" / kept).read_bytes()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--nodes", "0,1"], "--nodes 0,1: should be whole numbers, 1 or more"),
        (["--nodes", "one"], "--nodes one: should be whole numbers, 1 or more"),
        (["--nodes", "1,4"], "--nodes 4: the survey of fwi.toml has only 3 shots"),
        (["--stand-in", "long"], "--stand-in long: should be the mean duration of a shot in seconds"),
        (["--stand-in", "nan"], "--stand-in nan"),
        (["--stand-in", "1:-1"], "--stand-in 1:-1"),
        (["--site", "nowhere"], "nowhere"),
        (["--launch", "allocation", "--nodes", "1"], "this process does not run in a job"),
        (["--launch", "jobs", "--nodes", "1"], "has no batch system"),
        (["--set", "inversion.iteration=3"], "iteration"),
        (["--set", "inversion.optimizer=adam"], 'inversion.optimizer: is "adam", but a study measures evaluations'),
        (["--study-dir", ".", "--nodes", "1"], "is neither empty nor the folder of a study"),
    ],
)
def test_bad_input_is_refused_before_anything_runs(hpcfwi, words, message):
    done = hpcfwi("scale", "fwi.toml", *words)
    assert done.returncode == 2, done.stdout
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (hpcfwi.folder / "scaling").exists()
