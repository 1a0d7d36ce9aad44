"""How much of the driver's own batch job is left, as the schedulers tell it."""

from __future__ import annotations

import os

import pytest

from hpcfwi.cluster.ownjob import pbs_seconds_left, seconds_left, slurm_seconds_left


@pytest.mark.parametrize(
    ("text", "seconds"),
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
def test_slurms_words(text, seconds):
    assert slurm_seconds_left(text) == seconds


def test_pbss_words():
    asked = "Job Id: 7.server\n    Resource_List.ncpus = 2\n    Resource_List.walltime = 01:00:00\n"
    assert pbs_seconds_left(asked) == 3600
    assert pbs_seconds_left(asked + "    resources_used.walltime = 00:10:30\n") == 2970
    assert pbs_seconds_left("Job Id: 7.server\n    Resource_List.ncpus = 2\n") is None


def test_without_a_job_or_without_an_answer_nothing_is_known(tmp_path):
    assert seconds_left({}) is None
    assert seconds_left({"SLURM_JOB_ID": "1", "PATH": str(tmp_path)}) is None


@pytest.mark.parametrize(("answer", "seconds"), [("echo 3:20", 200), ("exit 1", None)])
def test_the_scheduler_is_asked_for_this_very_job(tmp_path, answer, seconds, monkeypatch):
    squeue = tmp_path / "squeue"
    squeue.write_text(f'#!/bin/sh\ncase "$*" in *"--jobs 41") {answer} ;; *) exit 3 ;; esac\n')
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert seconds_left({**os.environ, "SLURM_JOB_ID": "41"}) == seconds
