"""What Slurm rejects stops the run with Slurm's message and the line of the site file that it is about."""

from __future__ import annotations

import time

import pytest

SITE = """
[scheduler]
kind = "slurm"
jobs = 1
{}

[worker]
processes = 1
threads = 1
memory = {}
"""


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


def refused(shell, scheduler="", memory="2.0", *options):
    (shell.folder / "mine.toml").write_text(SITE.format(scheduler, memory))
    began = time.monotonic()
    done = shell("run", "fwi.toml", "--site", "./mine.toml", "--run-dir", "run", *options)
    assert "Traceback" not in done.stderr
    return done, time.monotonic() - began


@pytest.mark.parametrize(
    ("scheduler", "memory", "line", "said"),
    [
        ('queue = "nope"', "2.0", 'line 5: queue = "nope"', "Invalid partition name specified"),
        slow("", "9000.0", "line 10: memory = 9000.0", "Memory specification can not be satisfied"),
        slow('directives = ["--constraint=gpu"]', "2.0", 'line 5: directives = ["--constraint=gpu"]', "feature"),
        slow('directives = ["--tpyo"]', "2.0", 'line 5: directives = ["--tpyo"]', "unrecognized option"),
    ],
)
def test_a_rejected_job_stops_the_run_with_the_line_of_the_site_file(on_login, scheduler, memory, line, said):
    done, seconds = refused(on_login, scheduler, memory)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Slurm rejected a worker job:\n  sbatch " in done.stderr
    assert "exit code " in done.stderr
    assert said in done.stderr
    assert f"mine.toml, {line}" in done.stderr
    assert seconds < 20


def test_a_job_that_slurm_accepts_but_never_starts_stops_the_run(lab, on_login):
    done, seconds = refused(on_login, 'directives = ["--cpus-per-task=64"]')
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Slurm will never start worker job" in done.stderr
    assert "PartitionConfig" in done.stderr
    assert seconds < 30
    assert lab.jobs() == []


@pytest.fixture(scope="module", params=[slow("NO"), slow("ALL")])
def choosy(request, new_lab):
    """A lab whose partition is for one account only, and whether sbatch asks for that."""
    with new_lab() as lab:
        lab.up(1, PARTITION="debug Default=YES AllowAccounts=geo", CONF=f"EnforcePartLimits={request.param}")
        lab.refuses = request.param == "ALL"
        yield lab


def test_an_account_that_may_not_use_the_partition_stops_the_run(choosy, hpcfwi):
    hpcfwi.prefix = choosy.command()
    done, seconds = refused(hpcfwi, 'account = "nobody"')
    assert done.returncode == 2, done.stdout + done.stderr
    if choosy.refuses:
        assert "Invalid account or account/partition combination specified" in done.stderr
    else:
        assert "Slurm will never start worker job" in done.stderr
        assert "Job's account not" in done.stderr
    assert 'mine.toml, line 5: account = "nobody"' in done.stderr
    assert seconds < 30
    assert choosy.jobs() == []


def test_a_run_shows_why_its_jobs_wait_and_stops_after_the_given_minutes(lab, on_login):
    done, seconds = refused(on_login, 'directives = ["--begin=now+1hour"]', "2.0", "--wait", "0.05")
    assert done.returncode == 3, done.stdout + done.stderr
    assert "no worker yet; jobs: 1 waiting (BeginTime)" in done.stdout
    assert "no worker has connected for 0.05 minutes (--wait); jobs: 1 waiting (BeginTime)" in done.stderr
    assert seconds < 30
    assert lab.jobs() == []


@pytest.mark.slow
def test_jobs_that_end_before_a_worker_connects_stop_the_run_with_their_output(lab, on_login):
    site = 'directives = ["--begin=now"]\n\n[environment]\ncommands = ["echo no such module", "exit 7"]\n\n[filesystem]'
    done, _ = refused(on_login, site)
    assert done.returncode == 3, done.stdout + done.stderr
    assert "the last 3 worker jobs have ended without a worker" in done.stderr
    assert "no such module" in done.stderr
    assert lab.jobs() == []


def test_without_slurm_a_slurm_site_is_refused(hpcfwi):
    hpcfwi.environment["PATH"] = "/nowhere"
    done = hpcfwi("run", "fwi.toml", "--site", "generic-slurm")
    assert done.returncode == 2
    assert "sbatch: no such command here, so no Slurm job can be submitted" in done.stderr
