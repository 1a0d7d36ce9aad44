"""Dask's dashboard: it answers where the run says it is, nowhere else, and costs nothing before the first request."""

from __future__ import annotations

import json
import re
import signal
import socket
import urllib.request
from importlib.metadata import PackageNotFoundError
from types import SimpleNamespace
from urllib.error import HTTPError

import pytest

from hpcfwi.cluster import dashboard, dask_internals
from hpcfwi.cluster.dashboard import dashboard_address, reach_dashboard
from hpcfwi.cluster.dask_internals import missing_dashboard_requirements
from hpcfwi.cluster.network import interfaces
from hpcfwi.config.site import load_site
from hpcfwi.errors import InputError
from hpcfwi.run.session import Session

LOGIN = {"SLURM_SUBMIT_HOST": "login1", "SLURM_JOB_ID": "7"}
SHOWN = re.compile(
    r"Dask's dashboard: (http://127\.0\.0\.1:(\d+)/status); from your own machine: "
    r"(ssh -N -L \2:127\.0\.0\.1:\2 \S+@\S+)$"
)


@pytest.fixture
def here(monkeypatch):
    """A compute node, and a user."""
    monkeypatch.setattr(dashboard, "_full_host_name", lambda: "node7.cluster.org")
    monkeypatch.setattr(socket, "gethostname", lambda: "node7")
    monkeypatch.setattr(dashboard, "_user", lambda: "me")


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("environment", "command"),
    [
        ({}, "ssh -N -L 8787:127.0.0.1:8787 me@node7.cluster.org"),
        (LOGIN, "ssh -N -L 8787:127.0.0.1:8787 -J me@login1 me@node7.cluster.org"),
        (
            {"PBS_JOBID": "7.pbs", "PBS_O_HOST": "login2.cluster.org"},
            "ssh -N -L 8787:127.0.0.1:8787 -J me@login2.cluster.org me@node7.cluster.org",
        ),
        # salloc has left the shell where it was typed
        ({**LOGIN, "SLURM_SUBMIT_HOST": "node7.cluster.org"}, "ssh -N -L 8787:127.0.0.1:8787 me@node7.cluster.org"),
        ({"SLURM_SUBMIT_HOST": "login1"}, "ssh -N -L 8787:127.0.0.1:8787 me@node7.cluster.org"),
    ],
    ids=["outside of jobs", "in a job of Slurm", "in a job of PBS", "salloc on a login node", "what a job has left"],
)
def test_the_tunnel_to_a_compute_node_goes_through_the_host_that_submitted_the_job(environment, command):
    way = reach_dashboard("127.0.0.1", 8787, environment)
    assert (way.address, way.command) == ("http://127.0.0.1:8787/status", command)


@pytest.mark.usefixtures("here")
def test_a_dashboard_on_all_interfaces_is_shown_with_the_name_of_its_host():
    way = reach_dashboard("0.0.0.0", 9000, {})
    assert way.address == "http://node7.cluster.org:9000/status"
    assert way.command.endswith("-L 9000:127.0.0.1:9000 me@node7.cluster.org")


def test_the_dashboard_does_not_wait_for_an_unresponsive_name_service(monkeypatch):
    ever = dashboard.threading.Event()
    monkeypatch.setattr(socket, "gethostname", lambda: "a-host-without-a-domain")
    monkeypatch.setattr(socket, "getfqdn", lambda _: ever.wait(60))
    monkeypatch.setattr(dashboard, "NAME_SERVICE_TIMEOUT_S", 0.01)
    assert dashboard._full_host_name() == "a-host-without-a-domain"
    ever.set()


def test_a_port_in_use_is_replaced_by_any_free_one():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert dashboard_address(f"127.0.0.1:{port}") == "127.0.0.1:0"
    assert dashboard_address(f"127.0.0.1:{port}") == f"127.0.0.1:{port}"
    assert dashboard_address("off") == "127.0.0.1:0"


def test_an_address_of_another_host_is_refused_with_valid_ones():
    with pytest.raises(
        InputError, match=r"site\.network\.dashboard: is \"192\.0\.2\.1:9000\".*may be \"127\.0\.0\.1:8787\""
    ):
        dashboard_address("192.0.2.1:9000")
    with pytest.raises(InputError, match=r'should be address:port, for example "127\.0\.0\.1:8787", or "off"'):
        load_site("workstation", ["network.dashboard=nowhere"])


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (None, "needs Bokeh, which is not installed: pip install 'bokeh"),
        ("2.4", "does not work with Bokeh 2.4: pip install"),
    ],
)
def test_without_bokeh_the_run_says_how_to_install_it_and_shows_no_address(monkeypatch, found, message):
    def version(_):
        if found is None:
            raise PackageNotFoundError
        return found

    monkeypatch.setattr(dask_internals, "version", version)
    assert missing_dashboard_requirements().startswith(message)
    said: list[str] = []
    session = SimpleNamespace(print_line=said.append, log=None)
    Session._open_dashboard(session, None, load_site("workstation"))
    assert len(said) == 1
    assert said[0].startswith(f"Dask's dashboard {message}")
    Session._open_dashboard(session, None, load_site("workstation", ["network.dashboard=off"]))
    assert len(said) == 1


def test_the_dashboard_of_a_local_run_answers_where_the_run_says_and_nowhere_else(hpcfwi):
    from bokeh.client import pull_session

    words = [word for key in ("iterations=5000", "ftol=0", "gtol=0") for word in ("--set", f"inversion.{key}")]
    process = hpcfwi.start("run", "fwi.toml", "--run-dir", "run", *words)
    try:
        shown = next(found for line in process.stdout if (found := SHOWN.search(line.rstrip("\n"))))
        address, port, command = shown.groups()
        for _ in range(2):  # the first one makes it
            with urllib.request.urlopen(address, timeout=60) as answer:
                page = answer.read().decode()
                assert answer.status == 200
            assert "<title>Dask" in page
            assert "bokeh" in page
        with urllib.request.urlopen(address.replace("/status", ""), timeout=60) as answer:
            assert answer.url == address
        with pytest.raises(HTTPError, match="404"):
            urllib.request.urlopen(address.replace("/status", "/nothing"), timeout=60)
        # the page's own way, a websocket
        session = pull_session(url=address)
        assert len(session.document.roots) > 3
        session.close()
        for elsewhere in interfaces().values():
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection((elsewhere, int(port)), timeout=5)
        shown = json.loads(hpcfwi("status", "run", "--json").stdout)
        assert (shown["dashboard"], shown["dashboard_command"]) == (address, command)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=300)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 75
    assert re.fullmatch(r"hpcfwi: stopped; the same command continues the run .*\n", err)
    assert json.loads(hpcfwi("status", "run", "--json").stdout)["dashboard"] is None
