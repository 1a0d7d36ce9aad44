"""Jobs, nodes and links that go away under a run: it goes on with others, and nothing of it outlives the driver."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from contextlib import suppress

import psutil
import pytest
from watching import logged_events, options, shots_for, wait_until

# Slow enough not to come to its end before the faults do.
SLOW = ("grid.shape=[201, 201]", "grid.spacing=[3.0, 3.0]", "acquisition.sources.count=12")
LONG = options(*SLOW, "inversion.iterations=5000", "inversion.ftol=0", "inversion.gtol=0")
# Seconds that a run takes two workers which comes to its own end after the faults.
WHOLE_S, ITERATIONS = 40.0, 7


class Run:
    """A run, by default a long one, with two worker jobs, on different nodes."""

    def __init__(self, lab, shell, driver_of, *allocation, words=LONG):
        self.lab, self.shell, self.find = lab, shell, driver_of
        shell.prefix += allocation
        site = ("--site", "generic-slurm", "--set", 'site.scheduler.directives=["--exclusive"]')
        self.process = shell.start("run", "fwi.toml", *site, "--run-dir", "run", *words, stdout=subprocess.DEVNULL)

    def events(self, *kinds):
        return logged_events(self.shell.folder / "run", *kinds)

    def wait(self, condition, seconds=180.0):
        wait_until(condition, self.process, seconds, every=0.05)

    def wait_for_work_on(self, count, since=0, seconds=180.0):
        """Until so many nodes have worked on shots since an event; returns their names."""
        found: set[str] = set()

        def true():
            found.clear()
            found.update(event["host"] for event in self.events("shot")[since:])
            return len(found) >= count

        self.wait(true, seconds)
        return sorted(found)

    def shots(self):
        return len(self.events("shot"))

    @property
    def driver(self):
        return self.find(self.process)

    def end(self):
        """Leave nothing of it."""
        if self.process.poll() is None:
            with suppress(psutil.Error, ValueError):
                self.driver.kill()
            self.process.kill()
            self.process.communicate()

    def stop(self):
        """End it as a user would, and see that it ends well."""
        self.driver.send_signal(signal.SIGINT)
        _, err = self.process.communicate(timeout=300)
        assert self.process.returncode == 75, self.process.returncode
        assert "stopped; the same command continues the run" in err, err
        assert "Traceback" not in err
        self.lab.until(lambda: self.lab.jobs() == [], 30)

    def finish(self):
        """Let it come to its own end."""
        _, err = self.process.communicate(timeout=500)
        assert self.process.returncode == 0, err
        assert not err

    def assert_same(self, undisturbed):
        """It has ended with the bytes of a run that was never disturbed."""
        assert (self.shell.folder / "run" / "model.npy").read_bytes() == undisturbed

    def assert_nothing_lost(self, undisturbed):
        """Continued on this machine, it ends with the bytes of a run that was never disturbed."""
        shell = self.shell
        shell.prefix = []
        shell.run("run", *SLOW)
        assert (shell.folder / "run" / "model.npy").read_bytes() == undisturbed


@pytest.fixture(scope="module")
def run_undisturbed(first_run, tmp_path_factory):
    """Compute with these settings on two workers of this machine; return the run folder."""

    def run(*settings):
        shell = type(first_run[0])(tmp_path_factory.mktemp("undisturbed"))
        shell.run("run", "site.worker.processes=2", *settings)
        return shell.folder / "run"

    return run


@pytest.fixture(scope="module")
def short(run_undisturbed):
    return run_undisturbed(*SLOW)


@pytest.fixture(scope="module")
def undisturbed(short):
    """Bytes of the model that an undisturbed run ends with."""
    return (short / "model.npy").read_bytes()


@pytest.fixture
def run(lab, on_login, driver_of):
    running = Run(lab, on_login, driver_of)
    yield running
    running.end()


def test_a_job_that_is_cancelled_is_replaced(run, undisturbed):
    run.wait_for_work_on(2)
    victim = run.events("job")[0]["job"]
    run.lab.run("scancel", victim)
    run.wait(lambda: run.events("job lost"))
    (lost,) = run.events("job lost")
    assert lost["job"] == victim
    assert lost["had_worker"]
    assert "CANCELLED" in lost["reason"]
    run.wait_for_work_on(2, run.shots())
    run.stop()
    run.assert_nothing_lost(undisturbed)


@pytest.mark.slow
def test_a_replacement_that_is_rejected_is_submitted_again(run, undisturbed):
    run.wait_for_work_on(2)
    run.lab.run("scontrol", "update", "partitionname=debug", "state=drain")
    try:
        run.lab.run("scancel", run.events("job")[0]["job"])
        run.wait(lambda: run.events("job rejected"))
        (refused,) = run.events("job rejected")
        assert "Required partition not available" in refused["message"]
        done = run.shots()
        run.wait(lambda: run.shots() > done + 10)
        assert {event["host"] for event in run.events("shot")[done:]} != {"node1", "node2"}
    finally:
        run.lab.run("scontrol", "update", "partitionname=debug", "state=up")
    run.wait_for_work_on(2, run.shots())
    run.stop()
    run.assert_nothing_lost(undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["down", "off"])
def test_a_node_that_dies_costs_only_its_workers(run, undisturbed, fault):
    nodes = run.wait_for_work_on(2)
    if fault == "down":
        run.lab.run("scontrol", "update", f"nodename={nodes[0]}", "state=down", "reason=test")
    else:
        run.lab.power(nodes[0], "off")
    run.wait(lambda: run.events("job lost"))
    others = run.wait_for_work_on(2, run.shots())
    assert nodes[0] not in others
    if fault == "down":
        run.lab.run("scontrol", "update", f"nodename={nodes[0]}", "state=resume")
    else:
        run.lab.power(nodes[0], "on")
    run.stop()
    run.assert_nothing_lost(undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [20, 1000], ids=["for 20 s", "for good"])
def test_a_run_survives_a_link_that_is_cut(run, undisturbed, seconds):
    nodes = run.wait_for_work_on(2)
    run.lab.link(nodes[0], "down")
    cut = run.shots()
    if seconds < 100:
        time.sleep(seconds)
        run.lab.link(nodes[0], "up")
        assert set(run.wait_for_work_on(2, run.shots())) <= {"node1", "node2", "node3"}
    else:
        others = run.wait_for_work_on(2, cut + 1)
        assert nodes[0] not in others
    run.stop()
    run.lab.link(nodes[0], "up")
    run.assert_nothing_lost(undisturbed)


@pytest.fixture
def run_in_allocation(lab, on_login, driver_of):
    """A long run on the three nodes of an allocation."""
    words = ("salloc", "--quiet", "--no-kill", "-N3", "--ntasks-per-node=1", "--cpus-per-task=1", "--mem=2000M")
    running = Run(lab, on_login, driver_of, *words)
    yield running
    running.end()


def workers_on(lab, node):
    """Numbers of Dask's worker processes on a node, the newest last."""
    return lab.run("pgrep", "-f", "multiprocessing.spawn", host=node, check=False).split()


@pytest.mark.slow
def test_in_an_allocation_a_worker_that_dies_is_started_again(run_in_allocation, undisturbed):
    run = run_in_allocation
    nodes = run.wait_for_work_on(3)
    run.lab.run("kill", "-KILL", *workers_on(run.lab, nodes[0]), host=nodes[0])
    run.wait(lambda: run.events("worker left"))
    run.wait(lambda: len(run.events("worker joined")) > 3)
    assert run.wait_for_work_on(3, run.shots()) == nodes
    run.stop()
    run.assert_nothing_lost(undisturbed)


@pytest.mark.slow
def test_in_an_allocation_the_command_that_starts_the_workers_of_a_node_is_started_again(
    run_in_allocation, undisturbed
):
    run = run_in_allocation
    nodes = run.wait_for_work_on(3)
    run.lab.run("pkill", "-KILL", "-f", "distributed.cli.dask_worker", host=nodes[0])
    run.wait(lambda: any(event["restarted"] for event in run.events("node lost")))
    assert run.wait_for_work_on(3, run.shots()) == nodes
    run.stop()
    run.assert_nothing_lost(undisturbed)


@pytest.mark.slow
def test_in_an_allocation_a_node_that_dies_costs_only_its_workers(run_in_allocation, undisturbed):
    run = run_in_allocation
    nodes = run.wait_for_work_on(3)
    run.lab.power(nodes[2], "off")
    run.wait(lambda: any(not event["restarted"] for event in run.events("node lost")))
    assert run.wait_for_work_on(2, run.shots()) == nodes[:2]
    run.stop()
    run.lab.power(nodes[2], "on")
    run.assert_nothing_lost(undisturbed)


@pytest.mark.slow
def test_the_workers_of_a_killed_driver_end_within_a_minute(run, undisturbed):
    run.wait_for_work_on(2)
    run.driver.kill()
    run.process.communicate()
    run.lab.until(lambda: run.lab.jobs() == [], 60)
    run.assert_nothing_lost(undisturbed)


@pytest.mark.slow
def test_the_next_driver_lists_the_queued_jobs_of_a_killed_one_and_they_end_when_they_start(lab, on_login, driver_of):
    waiting = ("--site", "generic-slurm", "--run-dir", "run", "--set", 'site.scheduler.directives=["--begin=now+20"]')
    process = on_login.start("run", "fwi.toml", *waiting, stdout=subprocess.DEVNULL)
    events = on_login.folder / "run" / "events.jsonl"
    lab.until(lambda: events.exists() and events.read_text().count('"submitted"') == 2)
    driver_of(process).kill()
    process.communicate()
    left = sorted(lab.jobs())
    done = on_login("run", "fwi.toml", "--site", "generic-slurm", "--run-dir", "run")
    assert done.returncode == 0, done.stderr
    assert "jobs of an earlier driver of this run are still there" in done.stdout
    assert f"to cancel them now: scancel {' '.join(left)}" in done.stdout
    lab.until(lambda: not lab.jobs())


@pytest.mark.slow
def test_a_run_survives_a_slurm_that_does_not_answer_for_a_while(run, undisturbed):
    run.wait_for_work_on(2)
    run.lab.run("pkill", "-STOP", "slurmctld")
    run.wait(lambda: any("squeue does not answer" in e["message"] for e in run.events("warning")))
    done = run.shots()
    run.wait(lambda: run.shots() > done + 10)
    run.lab.run("pkill", "-CONT", "slurmctld")
    run.stop()
    run.assert_nothing_lost(undisturbed)


@pytest.fixture(scope="module")
def whole(short, run_undisturbed):
    """Settings of a run that comes to its own end after the faults, and the bytes of its model."""
    shots = shots_for(short, WHOLE_S, ITERATIONS)
    settings = (*SLOW, f"acquisition.sources.count={shots}", f"inversion.iterations={ITERATIONS}", "inversion.ftol=0")
    return settings, (run_undisturbed(*settings) / "model.npy").read_bytes()


@pytest.fixture
def undisturbed_whole(whole):
    return whole[1]


@pytest.fixture
def start_whole(lab, on_login, driver_of, whole):
    """Starts a run that comes to its own end."""
    started = []

    def start(*words):
        started.append(Run(lab, on_login, driver_of, words=(*options(*whole[0]), *words)))
        return started[-1]

    yield start
    for running in started:
        running.end()


@pytest.mark.slow
def test_a_restarted_controller_finds_the_jobs_again(start_whole, undisturbed_whole):
    run = start_whole()
    lab = run.lab
    run.wait_for_work_on(2)
    jobs = lab.jobs()
    lab.run("pkill", "-TERM", "-x", "slurmctld")
    lab.until(lambda: not lab.run("pgrep", "-x", "slurmctld", check=False))
    done = run.shots()
    run.wait(lambda: run.shots() > done + 20)
    lab.run("slurmctld")
    run.wait(lab.healthy)
    assert lab.jobs() == jobs
    run.finish()
    run.assert_same(undisturbed_whole)
    assert not run.events("job lost", "retry", "worker died")
    lab.until(lambda: not lab.jobs())


@pytest.mark.slow
def test_a_node_whose_slurmd_is_killed_computes_its_shots_and_is_left_clean(new_lab, hpcfwi, driver_of, whole):
    """Slurm takes the node for dead, after a while, and its job for lost, but can end no process there."""
    settings, undisturbed = whole
    with new_lab() as lab:
        lab.up(2, TIMEOUT="3")
        hpcfwi.prefix = lab.command()
        run = Run(lab, hpcfwi, driver_of, words=options(*settings))
        try:
            node, _ = run.wait_for_work_on(2)
            lab.run("pkill", "-KILL", "-x", "slurmd", host=node)
            run.wait(lambda: "down" in lab.run("sinfo", "--noheader", "--nodes", node, "--format=%T"))
            run.wait_for_work_on(1, run.shots())
            run.finish()
            run.assert_same(undisturbed)
        finally:
            run.end()
        lab.until(lambda: not lab.run("pgrep", "-f", "dask_worker", host=node, check=False))
        lab.until(lambda: not lab.jobs())


@pytest.mark.slow
def test_a_run_survives_nodes_whose_clocks_differ_by_hours(start_whole, undisturbed_whole, faketime):
    faked = " ".join(f"{name}={value}" for name, value in faketime.items())
    clock = "case $(hostname) in node1) export FAKETIME=-3h;; *) export FAKETIME=+5h;; esac"
    run = start_whole("--set", f"site.environment.commands={json.dumps([clock, f'export {faked}'])}")
    run.wait_for_work_on(2)
    run.finish()
    run.assert_same(undisturbed_whole)
    differ = {round((event["time"] - time.time()) / 3600) for event in run.events("shot")}
    assert differ == {-3, 5}
    assert not run.events("job lost", "retry", "worker died", "task overdue")


@pytest.mark.slow
@pytest.mark.parametrize("offset", [-7, 5])
def test_a_run_survives_a_clock_of_the_driver_that_jumps_by_hours(
    set_clock, faketime, on_login, start_whole, whole, offset
):
    """Set back, it may make the run pause for as long, and the advice of the warning then helps."""
    settings, undisturbed = whole
    # not for the shell that leads to the login host
    faked = [f"{name}={on_login.environment.pop(name)}" for name in (*faketime, "FAKETIME_TIMESTAMP_FILE")]
    on_login.prefix = [*on_login.prefix, "env", *faked]
    # libfaketime does not know how to sleep until a time of the clock that it leaves alone, which is Python's way
    patched = "import select, time\ntime.sleep = lambda seconds: select.select([], [], [], seconds)\n"
    (on_login.folder / "patched").mkdir()
    (on_login.folder / "patched" / "sitecustomize.py").write_text(patched)
    on_login.environment["PYTHONPATH"] = str(on_login.folder / "patched")
    run = start_whole("--set", 'site.environment.commands=["unset LD_PRELOAD"]')
    run.wait_for_work_on(2)
    set_clock(f"{offset:+}h")

    def hours():
        return {round((event["time"] - time.time()) / 3600) for event in run.events("evaluation", "shot")}

    with suppress(AssertionError):
        run.wait(lambda: offset in hours(), 60)
    if offset < 0 and offset not in hours():
        assert any("was set back" in event["message"] for event in run.events("warning"))
        run.stop()
        run.shell.prefix = []
        run.shell.run("run", *settings)
        run.assert_same(undisturbed)
        return
    run.finish()
    run.assert_same(undisturbed)
    assert hours() == {0, offset}
    assert {round((event["time"] - time.time()) / 3600) for event in run.events("shot")} == {0}
    assert not run.events("job lost", "retry", "worker died", "task overdue")


@pytest.mark.slow
def test_a_second_driver_on_another_host_waits_until_the_first_is_dead(lab, hpcfwi, whole):
    settings, undisturbed = whole
    words = ("run", "fwi.toml", "--run-dir", "run", *options("site.worker.threads=1", *settings))
    hpcfwi.prefix = lab.command(host="node1")
    first = hpcfwi.start(*words)
    try:
        journal = hpcfwi.folder / "run" / "journal"
        lab.until(lambda: first.poll() is not None or list(journal.glob("partial-*/*.bin")), every=0.02)
        assert first.poll() is None, first.communicate()
        hpcfwi.prefix = lab.command(host="node2")
        refused = hpcfwi(*words)
        assert refused.returncode == 2, refused.stdout
        assert re.search(r"another hpcfwi is at work on this run folder \(process \d+ on node1\)", refused.stderr)
        assert first.poll() is None, first.communicate()
    finally:
        lab.power("node1", "off")
        first.communicate(timeout=300)
    try:
        done = hpcfwi(*words)
    finally:
        lab.power("node1", "on")
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    assert re.search(r"process \d+ on node1 used it last; waiting 30 s", done.stdout)
    assert (hpcfwi.folder / "run" / "model.npy").read_bytes() == undisturbed
