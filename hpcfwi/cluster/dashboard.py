"""Dask's dashboard: where it is, and the way there from another machine.

It is drawn by Bokeh, whose import takes half a second of the driver's time: it is imported when somebody opens the first page.
"""

from __future__ import annotations

import asyncio
import errno
import getpass
import os
import socket
import threading
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from ipaddress import ip_address
from typing import Any

from distributed.versions import BOKEH_REQUIREMENT
from tornado.httputil import HTTPServerRequest
from tornado.web import Application, RequestHandler

from hpcfwi.errors import InputError

__all__ = ["OFF", "Dashboard", "address_for_dashboard", "missing_requirements", "open_dashboard", "way_to"]

# The port is Dask's own, which people know.
OFF, HERE, PORT = "off", "127.0.0.1", 8787
# Seconds that the name service has for this host's full name.
NAME_SERVICE_TIMEOUT_S = 1.0


@dataclass(frozen=True)
class Dashboard:
    """A dashboard that can be looked at.

    Parameters
    ----------
    address
        Of its page, in a browser on the driver's host.
    command
        What makes that address lead there from another machine; empty where it does already.
    """

    address: str
    command: str = ""

    def __str__(self) -> str:
        return f"{self.address}{f'; from your own machine: {self.command}' if self.command else ''}"


def address_for_dashboard(asked: str) -> str:
    """Address and port for Dask's web server; any port where the one that is asked for is in use.

    Raises
    ------
    InputError
        If this host cannot listen there.
    """
    if asked == OFF:  # Dask has its web server all the same
        return f"{HERE}:0"
    _asking(socket.gethostname())  # which takes its time
    host, _, port = asked.rpartition(":")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, int(port)))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise InputError(
                    f'site.network.dashboard: is "{asked}", where this host cannot listen ({error.strerror or error}); it '
                    f'may be "{HERE}:{PORT}", another address and port of the driver\'s host, or "{OFF}"'
                ) from None
            return f"{host}:0"
    # another run may take it before Dask does, which then takes any other; the one that is told is the right one
    warnings.filterwarnings("ignore", r"Port \d+ is already in use")
    return asked


def missing_requirements() -> str:
    """What has to be done to get one, in words; empty where all is there."""
    try:
        found = version(BOKEH_REQUIREMENT.name)
    except PackageNotFoundError:
        return f"needs Bokeh, which is not installed: pip install '{BOKEH_REQUIREMENT}'"
    if not BOKEH_REQUIREMENT.specifier.contains(found, prereleases=True):
        return f"needs another Bokeh than {found}: pip install '{BOKEH_REQUIREMENT}'"
    return ""


def open_dashboard(scheduler: Any) -> Dashboard:
    """Let a scheduler of this process show its dashboard to whoever asks for it, and tell where.

    To be called once, in any thread; Bokeh has to be there (:func:`missing_requirements`).
    """
    scheduler.http_application.add_application(_LazyDashboard(scheduler))
    server = scheduler.http_server
    return way_to(server.address, server.port)


class _LazyDashboard(Application):
    """Stands where the dashboard will be, and makes it when the first page of it is asked for."""

    def __init__(self, scheduler: Any) -> None:
        super().__init__()
        self.scheduler = scheduler
        self._opening: asyncio.Task[None] | None = None
        self.add_handlers(r".*", [(r"/.*", _FirstRequest)])

    async def open(self) -> None:
        """Make it, once, whoever is waiting."""
        if self._opening is None:
            self._opening = asyncio.ensure_future(self._open())
        await asyncio.shield(self._opening)

    async def _open(self) -> None:
        await asyncio.get_running_loop().run_in_executor(None, _import_bokeh)
        from distributed.dashboard.scheduler import connect

        routes = self.scheduler.http_application
        routes.applications.remove(self)
        connect(routes, self.scheduler.http_server, self.scheduler)


def _import_bokeh() -> None:
    import distributed.dashboard.scheduler  # noqa: F401


class _FirstRequest(RequestHandler):
    """A request that came before there was a dashboard."""

    application: _LazyDashboard
    request: HTTPServerRequest

    async def get(self) -> None:
        await self.application.open()
        # of two slashes a browser would make another host
        self.redirect(f"/{(self.request.uri or '').lstrip('/')}")


def way_to(host: str, port: int, environment: Mapping[str, str] = os.environ) -> Dashboard:
    """Where the web server at an address of this host is found, from here and from elsewhere.

    On a compute node, which can be reached from a login node only, the way leads over the one where the job was submitted.

    Parameters
    ----------
    host, port
        What it listens on.
    environment
        Variables that tell of the batch job that we are in.
    """
    user, here = _user(), _full_name()
    with suppress(ValueError):
        if ip_address(host).is_unspecified:  # all of this host's addresses
            return Dashboard(
                f"http://{here}:{port}/status", f"ssh -N -L {port}:{HERE}:{port} {_over(environment)}{user}@{here}"
            )
    command = f"ssh -N -L {port}:{host}:{port} {_over(environment)}{user}@{here}"
    return Dashboard(f"http://{host}:{port}/status", command)


def _over(environment: Mapping[str, str]) -> str:
    """The option of ssh that leads over the host where our job was submitted, if that is another one."""
    job = environment.get("SLURM_JOB_ID") or environment.get("PBS_JOBID")
    login = environment.get("SLURM_SUBMIT_HOST") or environment.get("PBS_O_HOST")
    if not job or not login or _short(login) == _short(socket.gethostname()):
        return ""
    return f"-J {_user()}@{login} "


def _short(host: str) -> str:
    return host.partition(".")[0]


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a number without a name, in a container
        return str(os.getuid())


def _full_name() -> str:
    """This host's name as other machines may know it."""
    name = socket.gethostname()
    if "." in name:
        return name
    asking, found = _asking(name)
    asking.join(NAME_SERVICE_TIMEOUT_S)
    full = found[-1]
    return full if full.startswith(f"{name}.") and not full.startswith("localhost") else name


@cache
def _asking(name: str) -> tuple[threading.Thread, list[str]]:
    """Ask the name service, which may not answer, for a host's full name."""
    found = [name]
    asking = threading.Thread(target=lambda: found.append(socket.getfqdn(name)), daemon=True)
    asking.start()
    return asking, found
