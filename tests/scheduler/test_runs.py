"""The same inversion, to the same bytes, however its workers are started: jobs, allocations, and from within a job."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from watching import logged_events
from watching import options as set_options

ROOT = Path(__file__).parents[2]
ALLOCATION = ("--ntasks-per-node=1", "--cpus-per-task=1", "--mem=2000M")
BATCH = f"#!/bin/bash\nexec '{sys.executable}' -m hpcfwi run fwi.toml --site generic-slurm --run-dir 'a run' "


def hosts(shell):
    return {event["host"] for event in logged_events(shell.folder / "a run", "shot")}


def assert_same(shell, first_run):
    assert (shell.folder / "a run" / "model.npy").read_bytes() == (first_run[2] / "model.npy").read_bytes()
    assert not (shell.folder / "a run" / "tls").exists()


@pytest.mark.parametrize(
    ("settings", "options", "count"),
    [
        ([], [], 2),
        pytest.param([], ["--nodes", "3"], 3, marks=pytest.mark.slow),
        pytest.param(["scheduler.jobs=1", "worker.processes=2"], [], 1, marks=pytest.mark.slow),
        pytest.param(["scheduler.jobs=[1, 3]"], [], 3, marks=pytest.mark.slow),
        pytest.param(["network.tls=false"], [], 2, marks=pytest.mark.slow),
    ],
    ids=["two jobs", "three jobs", "one job of two processes", "one to three jobs", "without TLS"],
)
def test_worker_jobs_give_the_bytes_of_a_local_run(lab, on_login, first_run, settings, options, count):
    words = [*options, *set_options(*(f"site.{setting}" for setting in settings))]
    done = on_login("run", "fwi.toml", "--site", "generic-slurm", "--run-dir", "a run", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "of Slurm (generic-slurm), each" in done.stdout
    assert_same(on_login, first_run)
    assert hosts(on_login) <= {"node1", "node2", "node3"}
    jobs = logged_events(on_login.folder / "a run", "job")
    assert sum(job["state"] == "submitted" for job in jobs) == count
    (address,) = {event["scheduler"] for event in logged_events(on_login.folder / "a run", "first workers")}
    assert "127.0.0.1" not in address
    lab.until(lambda: not lab.jobs(), 30)  # they may be ending still; by themselves they would only after 45 s


def test_workers_in_an_salloc_allocation_give_the_bytes_of_a_local_run(on_login, first_run):
    on_login.prefix += ["salloc", "--quiet", "-N2", *ALLOCATION]
    done = on_login("run", "fwi.toml", "--site", "generic-slurm", "--run-dir", "a run")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "workers on 2 nodes of job" in done.stdout
    assert_same(on_login, first_run)
    assert set() < hosts(on_login) <= {"node1", "node2"}  # it may be done before the second one has come


@pytest.mark.slow
def test_a_run_may_use_a_part_of_an_allocation_with_nodes_of_different_size(on_login, first_run):
    on_login.prefix += ["salloc", "--quiet", "-N3", "-n4"]
    settings = ("--nodes", "2", "--set", "site.worker.processes=auto", "--set", "inversion.iterations=2")
    done = on_login("run", "fwi.toml", "--site", "generic-slurm", "--run-dir", "a run", *settings)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "workers on 2 nodes of job" in done.stdout
    assert "2 processes of 1 thread, 2.0 GB each or 1 process of 1 thread, 2.0 GB each" in done.stdout
    assert_same(on_login, first_run)


@pytest.mark.slow
def test_more_nodes_than_the_allocation_has_are_refused(on_login):
    on_login.prefix += ["salloc", "--quiet", "-N2", *ALLOCATION]
    done = on_login("run", "fwi.toml", "--site", "generic-slurm", "--nodes", "3")
    assert done.returncode == 2
    assert "--nodes 3: job" in done.stderr
    assert "has only 2" in done.stderr


@pytest.mark.slow
def test_the_job_script_under_sbatch_uses_all_nodes_of_its_allocation(lab, on_login, first_run):
    script = (ROOT / "jobs" / "fwi.sh", "fwi.toml", "--site", "generic-slurm", "--run-dir", "a run")
    output = lab.submit(on_login.folder, "-N3", *ALLOCATION, f"--export=ALL,HPCFWI_ROOT={ROOT}", *script)
    assert "workers on 3 nodes of job" in output, output
    assert_same(on_login, first_run)


@pytest.mark.slow
def test_a_driver_in_a_job_may_submit_worker_jobs(lab, on_login, first_run):
    (on_login.folder / "job.sh").write_text(f"{BATCH} --launch jobs\n")
    output = lab.submit(on_login.folder, "-N1", "--cpus-per-task=2", "--export=ALL,SLURM_CPU_BIND=verbose", "job.sh")
    assert "workers in 2 jobs of Slurm" in output, output
    assert_same(on_login, first_run)


@pytest.mark.slow
@pytest.mark.skipif(
    any(str(path).startswith("/tmp/") for path in (ROOT, sys.prefix, sys.base_prefix)),
    reason="hpcfwi or its Python is in /tmp, which the nodes of this test do not share",
)
def test_nodes_share_nothing_but_the_run_folder(new_lab, hpcfwi, first_run):
    """Each node has a /tmp of its own, so no JIT cache, and nothing that the driver wrote there, is seen by another."""
    with new_lab() as lab:
        lab.up(2, PRIVATE_TMP="1")
        shell = type(hpcfwi)(lab.folder / "work")
        shell.prefix = lab.command()
        done = shell(
            "run", "fwi.toml", "--site", "generic-slurm", "--run-dir", "a run", "--set", "site.scheduler.jobs=2"
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert_same(shell, first_run)
        assert list((lab.folder / "tmp-node1").glob("devito-jitcache*"))
