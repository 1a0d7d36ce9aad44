"""Events of workers, of Dask and of the executor are logged, printed and acted upon."""

from __future__ import annotations

import pytest

from hpcfwi.events import types as events
from hpcfwi.events.log import EventLog, read_events
from hpcfwi.run.worker_events import WorkerEvents

WORKER = "tls://10.0.0.7:4000"


class Executor:
    """Records the calls that it gets."""

    def __init__(self):
        self.seconds, self.silent, self.woken, self.blameless = [], [], 0, {WORKER}

    def wake(self):
        self.woken += 1

    def record_unresponsive(self, workers):
        self.silent += workers


class Affinity:
    def forget(self, worker):
        pass


@pytest.fixture
def reported(tmp_path):
    """Worker events with one worker, and the lines that are printed."""
    log = EventLog(tmp_path / "events.jsonl")
    lines = []
    found = WorkerEvents(log, lines.append, Affinity(), Executor(), lambda _: None, 2 * 10**9)
    found.lines = lines
    found(events.WorkerJoined(worker=WORKER, host="node7", name="job-3", pid=17).line())
    yield found
    log.close()


def last(reported, kind):
    return [event for event in read_events(reported.log.path) if isinstance(event, kind)][-1]


def test_a_worker_out_of_memory_is_reported_with_its_limit(reported):
    reported.out_of_memory(WORKER)
    reported.worker_died(WORKER, "node7", "killed by signal 15 (SIGTERM)")
    death = last(reported, events.WorkerDied)
    assert death.reason == "out of memory: it came too close to its limit of 2 GB (site.worker.memory)"
    assert (death.host, death.pid) == ("node7", 17)
    assert reported.exit_reason(WORKER) == death.reason


def test_the_exit_of_a_worker_that_is_restarted_is_not_a_separate_event(reported):
    reported.record(events.WorkerRestarted(worker=WORKER, host="10.0.0.7"))
    reported.worker_died(WORKER, "node7", "killed by signal 9")
    assert reported.exit_reason(WORKER) == "it hung and was restarted"
    assert last(reported, events.WorkerRestarted).host == "node7"
    assert not [event for event in read_events(reported.log.path) if isinstance(event, events.WorkerDied)]


def test_hosts_are_shown_by_name_instead_of_address(reported):
    reported.record(events.HostExcluded(host="10.0.0.7", failed_shots=["1", "2", "3"]))
    assert last(reported, events.HostExcluded).host == "node7"
    assert "node7" in reported.lines[-1]


def test_a_worker_that_leaves_is_logged_with_its_name_and_wakes_the_executor(reported):
    reported.worker_left(WORKER)
    gone = last(reported, events.WorkerLeft)
    assert (gone.host, gone.name) == ("node7", "job-3")
    assert reported.tasks.woken == 2


def test_workers_without_heartbeats_are_logged_and_reported_to_the_executor(reported):
    reported.record_unresponsive([WORKER], 60.0)
    assert reported.tasks.silent == [WORKER]
    assert last(reported, events.WorkerUnresponsive).seconds == 60.0


def test_a_restarted_worker_with_the_same_address_is_another_worker(reported):
    reported.record(events.WorkerRestarted(worker=WORKER, host="10.0.0.7"))
    reported.tasks.blameless.add(WORKER)
    reported(events.WorkerJoined(worker=WORKER, host="node7", name="job-3", pid=18).line())
    assert not reported.tasks.blameless
    reported.worker_died(WORKER, "node7", "killed by signal 11 (SIGSEGV)")
    death = last(reported, events.WorkerDied)
    assert (death.pid, death.reason) == (18, "killed by signal 11 (SIGSEGV)")
    assert reported.exit_reason(WORKER) == death.reason
