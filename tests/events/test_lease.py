"""One driver at a time works on a run folder; a dead one is recognised, and a later start of its job takes over."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace

import pytest

import hpcfwi.events.lease as lease_module
from hpcfwi.errors import InputError, RunError
from hpcfwi.events.lease import Holder, Lease


@pytest.fixture(autouse=True)
def fast_heartbeats(monkeypatch):
    """Heartbeats come and are missed sooner."""
    monkeypatch.setattr(lease_module, "HEARTBEAT_INTERVAL_S", 0.05)
    monkeypatch.setattr(lease_module, "DEAD_AFTER_S", 1.0)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "driver.json"


@pytest.fixture
def held(path):
    lease = Lease(path)
    lease.acquire()
    yield lease
    lease.release()


def write(path, holder):
    aside = path.with_name("aside")
    aside.write_text(json.dumps(asdict(holder)))
    aside.replace(path)


def elsewhere():
    return replace(Holder.current(), token="theirs", host="node7", machine="node7 of another start", pid=1)


def test_a_second_driver_is_refused_and_the_first_is_named(held, path):
    with pytest.raises(InputError, match=rf"another hpcfwi is at work .*\(process {os.getpid()} on "):
        Lease(path).acquire()
    held.verify()


def test_a_released_lease_can_be_taken_again(path):
    for _ in range(2):
        lease = Lease(path)
        assert lease.acquire() is None
        lease.release()
        assert not path.exists()


def test_the_lease_of_a_killed_driver_is_free_at_once(path):
    program = f"""
import os, signal
from pathlib import Path
from hpcfwi.events.lease import Lease
Lease(Path({str(path)!r})).acquire()
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -signal.SIGKILL
    lease, began = Lease(path), time.monotonic()
    assert lease.acquire() is not None
    assert time.monotonic() - began < 0.9  # without waiting for a heartbeat
    lease.verify()
    lease.release()


def test_another_process_with_the_same_number_is_not_the_driver(path):
    write(path, replace(Holder.current(), started=1.0))
    lease = Lease(path)
    assert lease.acquire() is not None
    lease.release()


def test_a_driver_on_another_host_is_alive_while_its_heartbeat_continues(path):
    holder, stop = elsewhere(), threading.Event()
    write(path, holder)

    def beat():
        count = 0
        while not stop.wait(0.2):
            count += 1
            write(path, replace(holder, heartbeats=count))

    thread = threading.Thread(target=beat)
    thread.start()
    lines = []
    try:
        with pytest.raises(InputError, match=r"process 1 on node7"):
            Lease(path, lines.append).acquire()
    finally:
        stop.set()
        thread.join()
    assert "process 1 on node7 used it last; waiting" in lines[0]


def test_a_driver_on_another_host_without_a_heartbeat_is_dead(path):
    write(path, elsewhere())
    lease = Lease(path)
    holder = lease.acquire()
    assert holder is not None
    assert holder.host == "node7"
    lease.verify()
    lease.release()


def test_a_later_start_of_the_same_job_takes_over_and_the_earlier_one_stops(path):
    first = Lease(path, job="41")
    first.acquire()
    second, began = Lease(path, job="41", restarts=1), time.monotonic()
    second.acquire()
    assert time.monotonic() - began < 0.9
    with pytest.raises(RunError, match=r"another driver \(process \d+ on \S+, job 41\) has taken over this run"):
        first.verify()
    time.sleep(0.3)
    second.verify()  # the first one's heartbeat has not overwritten it
    first.release()
    second.verify()
    assert path.exists()
    second.release()


def test_a_start_of_another_job_does_not_take_over(path):
    first = Lease(path, job="41")
    first.acquire()
    with pytest.raises(InputError, match="job 41"):
        Lease(path, job="42", restarts=3).acquire()
    first.release()


def test_a_lease_has_a_heartbeat(held, path):
    time.sleep(0.5)
    assert json.loads(path.read_text())["heartbeats"] >= 3
    held.verify()


def test_the_heartbeat_continues_after_its_file_was_removed(held, path):
    path.unlink()
    for _ in range(100):
        if path.exists():
            break
        time.sleep(0.05)
    held.verify()
    with pytest.raises(InputError, match="another hpcfwi is at work"):
        Lease(path).acquire()


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"token": 1}', b"\xff\xfe", b"[" * 100_000])
def test_a_malformed_lease_has_no_holder(path, content):
    path.write_bytes(content)
    lease = Lease(path)
    assert lease.acquire() is None
    lease.release()
