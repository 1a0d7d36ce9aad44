"""Which hosts get no more shots; the scheduler is its workers' addresses here."""

from __future__ import annotations

import pytest

from hpcfwi.execution.plugins import host_exclusion as hosts
from hpcfwi.execution.plugins.host_exclusion import HostExclusion, host_of


class Scheduler:
    """As much of Dask's as is asked for its workers."""

    def __init__(self, *addresses):
        self.workers = dict.fromkeys(addresses)


@pytest.fixture
def bad(monkeypatch):
    """Workers on two hosts, and what is set for them."""
    plugin = HostExclusion("topic")
    plugin.scheduler = Scheduler("tls://10.0.0.1:1", "tls://10.0.0.1:2", "tls://10.0.0.2:1")
    monkeypatch.setattr(plugin, "_set", lambda _: None)
    monkeypatch.setattr(plugin, "_tell", lambda *_: None)
    return plugin


def test_the_host_of_an_address():
    assert host_of("tls://10.0.0.1:4242") == "10.0.0.1"
    assert host_of("tcp://[fe80::1]:4242") == "[fe80::1]"


def test_three_different_shots_make_a_host_bad_and_one_shot_does_not(bad):
    for _ in range(5):
        bad.failed("tls://10.0.0.1:1", "a")
    assert not bad.excluded
    bad.failed("tls://10.0.0.1:2", "b")
    assert not bad.excluded
    bad.failed("tls://10.0.0.1:1", "c")
    assert bad.excluded == {"10.0.0.1"}


def test_a_failure_now_and_then_makes_none_bad(bad, monkeypatch):
    for number in range(5):
        monkeypatch.setattr(hosts.time, "monotonic", lambda now=2000.0 * number: now)
        bad.failed("tls://10.0.0.1:1", str(number))
    assert not bad.excluded


def test_the_only_host_is_never_excluded(bad):
    for worker in ("tls://10.0.0.1:1", "tls://10.0.0.2:1"):
        for shot in "abcd":
            bad.failed(worker, shot)
    assert bad.excluded == {"10.0.0.1"}
