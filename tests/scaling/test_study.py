"""``hpcfwi scale``: whole studies on this machine, stopped, killed and continued ones, and wrong input."""

from __future__ import annotations

import csv
import json
import os
import signal
import time
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from hpcfwi.scaling.runs import RunPoint, Study, StudyRuns

QUICK = ["--stand-in", "0.05", "--iterations", "1", "--set", "site.worker.threads=1"]


def wait_until(true, process, seconds=120):
    deadline = time.monotonic() + seconds
    while not true():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def left_of(folder):
    """Processes of a command that was typed in a folder."""
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


def test_a_study_tells_where_the_time_went_and_what_to_expect(hpcfwi):
    done = scale(hpcfwi)
    assert done.returncode == 0, done.stdout + done.stderr
    study = hpcfwi.folder / "study"
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
        # three shots of a twentieth of a second, in two evaluations at least
        assert parts["kernels_seconds"] * int(row["workers"]) >= 0.05 * 3 * 2
    told = json.loads((study / "scaling.json").read_text())
    assert told["provenance"]["stand_in"] == "shots that sleep for 0.05 s"
    assert told["provenance"]["versions"]["devito"]
    assert told["provenance"]["hosts"]
    assert [forecast["predictions"][0]["efficiency"] for forecast in told["forecasts"]] == [1, 1, 1, 1]
    assert max(p["nodes"] for p in told["forecasts"][1]["predictions"]) == 4096
    for name in ("scaling.png", "parts.png", "forecast.png"):
        assert (study / name).read_bytes()[:4] == b"\x89PNG"
    assert "shots that sleep for 0.05 s stand in for the kernels" in done.stdout
    assert "a node stands for a worker process" in done.stdout
    assert "fitted without the rung of 2 nodes" in done.stdout
    assert "the simulator replays the 2 runs" in done.stdout


def test_a_killed_study_goes_on_with_the_missing_rungs(hpcfwi):
    study = hpcfwi.folder / "study"
    words = ["scale", "fwi.toml", "--nodes", "1,2", "--repeat", 1, "--study-dir", "study", *QUICK]
    process = hpcfwi.start(*words)
    wait_until((study / "rungs" / "n0002-r1" / "events.jsonl").exists, process)
    process.kill()
    process.wait()
    first = (study / "rungs" / "n0001-r1" / "measured.json").read_bytes()
    # its run goes on, and nobody takes its folder away from under it
    again = hpcfwi(*words)
    if again.returncode:
        assert again.returncode == 2
        assert "is still at work for an earlier start of this study" in again.stderr
        for left in left_of(hpcfwi.folder):
            left.kill()
        psutil.wait_procs(left_of(hpcfwi.folder), timeout=10)
        again = hpcfwi(*words)
    assert again.returncode == 0, again.stderr
    assert (study / "rungs" / "n0001-r1" / "measured.json").read_bytes() == first
    assert len(list((study / "rungs").glob("*/measured.json"))) == 2


def test_ctrl_c_ends_the_run_too_and_the_same_command_goes_on(hpcfwi):
    study = hpcfwi.folder / "study"
    process = hpcfwi.start("scale", "fwi.toml", "--nodes", "1", "--repeat", 1, "--study-dir", "study", "--stand-in", 30)
    wait_until((study / "rungs" / "n0001-r1" / "events.jsonl").exists, process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=90)
    assert process.returncode == 75, out + err
    assert err == f"hpcfwi: stopped at rung n0001-r1; the same command goes on with it ({Path('study')})\n"
    wait_for = time.monotonic() + 20
    while left_of(hpcfwi.folder) and time.monotonic() < wait_for:
        time.sleep(0.1)
    assert not left_of(hpcfwi.folder)


def test_a_run_that_fails_is_shown(hpcfwi):
    done = scale(hpcfwi, "--set", "site.worker.memory=0.001", nodes="1")
    assert done.returncode == 2
    assert "rung n0001-r1 has ended with status 2" in done.stderr
    assert "one shot needs" in done.stderr
    assert "Traceback" not in done.stderr


def test_another_study_does_not_get_into_the_folder(hpcfwi):
    assert scale(hpcfwi, nodes="1").returncode == 0
    done = scale(hpcfwi, "--weak", nodes="1")
    assert done.returncode == 2
    assert "holds another study:\n  grows_to: 0 there, 1 now\n" in done.stderr
    # more rungs and more repetitions are the same study
    assert scale(hpcfwi, nodes="1", repeat=2).returncode == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--nodes", "0,1"], "--nodes 0,1: should be node counts from 1 on"),
        (["--nodes", "one"], "--nodes one: should be node counts from 1 on"),
        (["--nodes", "1,4"], "--nodes 4: the survey of fwi.toml has 3 shots"),
        (["--stand-in", "long"], "--stand-in long: should be the mean duration of a shot in seconds"),
        (["--stand-in", "nan"], "--stand-in nan"),
        (["--stand-in", "1:-1"], "--stand-in 1:-1"),
        (["--site", "nowhere"], "nowhere"),
        (["--launch", "allocation", "--nodes", "1"], "this is not inside a job"),
        (["--launch", "jobs", "--nodes", "1"], "has no batch system"),
        (["--set", "inversion.iteration=3"], "iteration"),
        (["--study-dir", ".", "--nodes", "1"], "is not empty, and no folder of a study"),
    ],
)
def test_what_cannot_be_studied_is_told_before_anything_runs(hpcfwi, words, told):
    done = hpcfwi("scale", "fwi.toml", *words)
    assert done.returncode == 2, done.stdout
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert not (hpcfwi.folder / "scaling").exists()


@pytest.mark.parametrize(("nodes", "kept"), [(1, 5), (2, 10), (4, 20), (8, 40)])
def test_shots_of_a_weak_ladder_are_spread_over_the_survey(tmp_path, nodes, kept):
    names = [str(i) for i in range(40)]
    study = Study("problem", "site", "local", grows_to=8, iterations=1)
    ladder = StudyRuns(tmp_path / "study", study, tmp_path / "fwi.toml", names, print)
    out = ladder.left_out(RunPoint(nodes, 1))
    there = [int(name) for name in names if name not in out]
    assert len(there) == kept
    gaps = {b - a for a, b in pairwise(there)}
    assert max(gaps) - min(gaps) <= 1
