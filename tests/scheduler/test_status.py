"""``hpcfwi status`` and Dask's dashboard on a cluster: seen from other hosts than the driver's, alive, done and dead."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import psutil
import pytest
from watching import options

SLOW = ("grid.shape=[201, 201]", "grid.spacing=[3.0, 3.0]", "acquisition.sources.count=12")
LONG = ("inversion.iterations=5000", "inversion.ftol=0", "inversion.gtol=0")
WORDS = options(*SLOW, *LONG)
RUN = ("run", "fwi.toml", "--site", "generic-slurm", "--run-dir", "run")
EXCLUSIVE = ("--set", 'site.scheduler.directives=["--exclusive"]')
# Another host considers a driver dead after half a minute without heartbeats; one reading takes six seconds.
DEAD = 90.0

LOOK = """
import sys, urllib.request
with urllib.request.urlopen(sys.argv[1], timeout=60) as answer:
    print(answer.status, answer.read().decode())
"""
KNOCK = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=5)"


@pytest.fixture
def status(lab, on_login):
    """Asks on one of the hosts how the run stands."""

    def ask(host):
        words = lab.command(sys.executable, "-m", "hpcfwi", "status", on_login.folder / "run", "--json", host=host)
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
        # while the driver starts, the folder is missing or still empty
        assert not done.stderr or "no such run folder" in done.stderr or "is not a run folder" in done.stderr, (
            done.stderr
        )
        return json.loads(done.stdout) if done.returncode == 0 else {"state": None, "shots_done": 0, "evaluations": 0}

    return ask


@pytest.fixture
def running(lab, on_login, status):
    """A run on worker jobs of two nodes, amid its work."""
    process = on_login.start(*RUN, *EXCLUSIVE, *WORDS, stdout=subprocess.DEVNULL)
    try:
        lab.until(lambda: (now := status("node3"))["evaluations"] > 1 and len(now["workers"]) == 2)
        yield process
    finally:
        end(process)


def end(process):
    for child in psutil.Process(process.pid).children(recursive=True) if process.poll() is None else ():
        child.kill()
    process.kill()
    process.communicate()


@pytest.mark.usefixtures("running")
def test_any_host_sees_a_run_on_worker_jobs(lab, status):
    started = time.monotonic()
    seen = status("node3")
    assert time.monotonic() - started < 4  # it waits for nothing
    assert (seen["state"], seen["phase"], seen["host"]) == ("running", "inverting", "login")
    assert (seen["site"], seen["launch"]) == ("generic-slurm", "jobs")
    assert len({worker["host"] for worker in seen["workers"]}) == 2
    assert sum(host["shots"] for host in seen["hosts"]) >= 12
    assert all(state.startswith("running") for state in seen["jobs"].values())
    assert seen["misfit"] <= seen["initial_misfit"]
    assert_dashboard(lab, seen)


@pytest.mark.slow
def test_any_host_sees_the_end_of_a_driver_that_was_killed(lab, on_login, driver_of, running, status):
    words = lab.command(sys.executable, "-m", "hpcfwi", "status", "run", "--watch", host="node3")
    watching = subprocess.Popen(words, cwd=on_login.folder, stdout=subprocess.PIPE, text=True)
    try:
        assert status("node3")["state"] == "running"
        driver_of(running).kill()
        running.wait()
        assert status("login")["state"] == "killed"
        lab.until(lambda: status("node3")["state"] == "killed", DEAD)
        last = status("node3")
        assert (last["phase"], last["workers"]) == ("inverting", [])
        assert last["resume_command"].startswith("hpcfwi run ")
        out, _ = watching.communicate(timeout=DEAD)
        assert watching.returncode == 0
        assert "killed: its driver died" in out.splitlines()[-1]
    finally:
        end(watching)


def assert_dashboard(lab, seen):
    """It answers on the driver's host, at the address that the run shows, and on none of its other addresses."""
    address = seen["dashboard"]
    port = int(address.rpartition(":")[2].partition("/")[0])
    assert address == f"http://127.0.0.1:{port}/status"
    assert seen["dashboard_command"] == f"ssh -N -L {port}:127.0.0.1:{port} root@login"
    page = lab.run(sys.executable, "-c", LOOK, address)
    assert page.startswith("200 ")
    assert "<title>Dask" in page
    for host in ("login", "node1"):
        words = lab.command(sys.executable, "-c", KNOCK, "10.231.0.254", port, host=host)
        refused = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
        assert "ConnectionRefusedError" in refused.stderr


@pytest.mark.slow
def test_a_finished_run_is_done_on_every_host(on_login, status):
    done = on_login(*RUN)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Dask's dashboard: http://127.0.0.1:" in done.stdout
    for host in ("login", "node2"):
        seen = status(host)
        assert (seen["state"], seen["iteration"], seen["dashboard"]) == ("done", 2, None)
        assert {one["host"] for one in seen["hosts"]} <= {"node1", "node2", "node3"}


@pytest.mark.slow
def test_status_notices_that_the_node_of_the_driver_has_lost_power(lab, on_login, status):
    """And the way to its dashboard leads over the login host."""
    script = on_login.folder / "job.sh"
    words = " ".join(f"'{word}'" for word in (*RUN, *WORDS))
    script.write_text(f"#!/bin/bash\nexec '{sys.executable}' -m hpcfwi {words}\n")
    command = lab.command(
        "sbatch", "--no-requeue", "--output=job.log", "-N1", "--cpus-per-task=2", "--mem=4000M", script
    )
    subprocess.run(command, cwd=on_login.folder, check=True, stdout=subprocess.DEVNULL)
    lab.until(lambda: status("login")["evaluations"] > 1)
    seen = status("login")
    assert (seen["state"], seen["launch"]) == ("running", "allocation")
    assert seen["job"] in lab.jobs()
    assert f"-J root@login root@{seen['host']}" in seen["dashboard_command"]
    try:
        lab.power(seen["host"], "off")
        states = []
        lab.until(lambda: (states.append(status("login")["state"]) or states[-1]) == "killed", DEAD)
        assert set(states) <= {"running", "unresponsive", "killed"}
        assert states == sorted(states, key=["running", "unresponsive", "killed"].index)
    finally:
        lab.power(seen["host"], "on")
    # a second driver continues the run
    again = on_login.start(*RUN, *EXCLUSIVE, *WORDS, stdout=subprocess.DEVNULL)
    try:
        lab.until(lambda: (now := status("login"))["state"] == "running" and now["starts"] == 2)
    finally:
        for child in psutil.Process(again.pid).children(recursive=True):
            if "hpcfwi" in child.cmdline():
                child.send_signal(signal.SIGINT)
        again.communicate(timeout=300)
    assert status("node2")["state"] == "stopped"
