"""How much of the driver's own batch job is left, as the schedulers tell it."""

from __future__ import annotations

import asyncio
import math
import time

import pytest

from hpcfwi.batch.base import PBS, JobState, job_facts, seconds
from hpcfwi.batch.current_job import CurrentJob


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("59:30\n", 3570),
        ("0:07", 7),
        ("1:02:03", 3723),
        ("2-00:00:01\n", 172_801),
        ("UNLIMITED\n", None),
        ("INVALID", None),
        ("NOT_SET", None),
        ("", None),
    ],
)
def test_words_for_a_time(text, wanted):
    assert seconds(text) == wanted


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Makes a scheduler's command."""
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    def make(name, body):
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)

    return make


def left_of(command, *lines):
    told = "\n".join(["Job Id: 7.server", "    job_state = R", *(f"    {line}" for line in lines)])
    command("qstat", f"cat <<'END'\n{told}\nEND")
    return asyncio.run(PBS().states(["7.server"]))["7.server"].left


def test_pbss_words(command):
    asked = "Resource_List.walltime = 01:00:00"
    assert left_of(command, "Resource_List.ncpus = 2", asked) == 3600
    assert left_of(command, asked, "resources_used.walltime = 00:10:30") == 2970
    assert left_of(command, "Resource_List.ncpus = 2") is None
    # what was used is told only every few minutes: the time of the start is better
    began = time.strftime("%a %b %d %H:%M:%S %Y", time.localtime(time.time() - 1800))
    assert left_of(command, asked, "resources_used.walltime = 00:10:30", f"stime = {began}") == pytest.approx(
        1800, abs=3
    )
    assert left_of(command, asked, "stime = yesterday") == 3600


def test_that_time_passes_is_no_change_of_a_jobs_state():
    """Or the event log would have a line of every job every two seconds."""
    assert JobState("running", "R", nodes="node1", left=9.0) == JobState("running", "R", nodes="node1", left=7.0)


def test_a_long_value_goes_on_in_the_next_line():
    assert job_facts("    Output_Path = node1:/a/very/\n\tlong/path\n")["Output_Path"] == "node1:/a/very/long/path"


def test_without_a_job_or_without_an_answer_there_is_no_end(tmp_path, monkeypatch):
    assert CurrentJob().left() == math.inf
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert CurrentJob().left() == math.inf


@pytest.mark.parametrize(("answer", "wanted"), [("echo '41|RUNNING|None|node1|3:20'", 200), ("exit 1", math.inf)])
def test_the_scheduler_is_asked_for_this_very_job(command, answer, wanted, monkeypatch):
    command("squeue", f'case "$*" in *"--jobs=41") {answer} ;; *) exit 3 ;; esac')
    monkeypatch.setenv("SLURM_JOB_ID", "41")
    assert CurrentJob().left() == pytest.approx(wanted, abs=5)


def test_a_limit_that_was_moved_is_heard_of(command, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "41")
    command("squeue", "echo '41|RUNNING|None|node1|0:20'")
    end = CurrentJob()
    command("squeue", "echo '41|RUNNING|None|node1|1:00:20'")
    assert end.ask() == pytest.approx(3620, abs=5)
    command("squeue", "exit 1")
    assert end.ask() == pytest.approx(3620, abs=5)


def test_a_caller_with_an_event_loop_of_its_own_can_ask(command, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "41")
    command("squeue", "echo '41|RUNNING|None|node1|3:20'")

    async def caller():
        return CurrentJob().left()

    assert asyncio.run(caller()) == pytest.approx(200, abs=5)
