"""Threads and cores of workers on nodes whose scheduler binds jobs to cores."""

from __future__ import annotations

import os

import pytest
from watching import logged_events, options

from hpcfwi.execution.affinity import format_ranges

pytestmark = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="this machine has one CPU")
AFFINITY = {"CPUS": "2", "CONF": "TaskPlugin=task/affinity"}


@pytest.fixture(scope="module")
def binding_lab(new_lab):
    """A lab whose one node has two CPUs, to which its Slurm binds jobs."""
    with new_lab() as lab:
        lab.up(1, **AFFINITY)
        yield lab


@pytest.fixture
def bound(binding_lab, hpcfwi):
    """The command on the login host of that lab."""
    hpcfwi.prefix = binding_lab.command()
    yield hpcfwi
    binding_lab.until(lambda: not binding_lab.jobs())


def run(shell, *settings):
    words = options(*(f"site.{setting}" for setting in settings))
    done = shell("run", "fwi.toml", "--site", "generic-slurm", "--run-dir", "run", "--nodes", "1", *words)
    threads = logged_events(shell.folder / "run", "threads")
    return done, [(event["threads"], event["cpus"]) for event in threads]


@pytest.mark.slow
def test_processes_of_one_node_have_separate_cores(bound):
    done, threads = run(bound, "worker.processes=2", "worker.memory=1.0")
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(threads) == [(1, "0"), (1, "1")]
    assert "warning: on" not in done.stdout


@pytest.mark.slow
def test_threads_of_a_process_have_the_cores_of_the_job(bound):
    done, threads = run(bound, "worker.threads=2", 'openmp.places="cores"', 'openmp.bind="close"')
    assert done.returncode == 0, done.stdout + done.stderr
    assert threads == [(2, "0-1")]


@pytest.mark.slow
def test_a_job_with_fewer_cores_than_threads_is_a_warning(bound):
    done, threads = run(bound, "worker.threads=2", 'scheduler.directives=["--cpus-per-task=1"]')
    assert done.returncode == 0, done.stdout + done.stderr
    assert threads == [(2, "0")]
    assert "warning: on node1 the 2 threads of a worker share CPU 0" in done.stdout


@pytest.mark.slow
def test_a_strict_site_stops_the_run(bound):
    done, threads = run(bound, "worker.threads=2", "openmp.strict=true", 'openmp.variables.OMP_THREAD_LIMIT="1"')
    assert done.returncode == 3, done.stdout + done.stderr
    assert threads == [(1, "0-1")]
    assert "on node1 the kernel thread count is 1, not 2 (worker.threads)" in done.stderr
    assert "openmp.strict = true" in done.stderr


@pytest.mark.slow
def test_threads_are_not_bound_to_cores_that_other_jobs_may_use(on_login):
    """Jobs of a Slurm that binds none of them see the whole node: bound, they would all be on its first core."""
    done, threads = run(on_login, 'openmp.places="cores"', 'openmp.bind="close"')
    assert done.returncode == 0, done.stdout + done.stderr
    every = format_ranges(os.sched_getaffinity(0))
    assert threads == [(1, every)]
