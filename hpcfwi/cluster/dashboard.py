"""Dask's dashboard: where it listens, and how to reach it from another machine.

It needs Bokeh, whose import takes the driver half a second; so Bokeh is imported at the first request for a page.
"""

import errno
import getpass
import os
import socket
import threading
import warnings
from collections.abc import Mapping
from functools import cache

from hpcfwi.batch.registry import current_batch_system
from hpcfwi.errors import InputError
from hpcfwi.events.types import Dashboard

OFF, LOOPBACK, DASK_PORT = "off", "127.0.0.1", 8787
NAME_SERVICE_TIMEOUT_S = 1.0


def dashboard_address(configured: str) -> str:
    """Return where Dask's web server should listen: at ``network.dashboard``, or on any free port if that is in use."""
    if configured == OFF:  # Dask starts its web server even then
        return f"{LOOPBACK}:0"
    _lookup(socket.gethostname())  # started early: reach_dashboard() needs the answer
    host, _, port = configured.rpartition(":")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, int(port)))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise InputError(
                    f'site.network.dashboard: is "{configured}", where this host cannot listen ({error.strerror or error}); it '
                    f'may be "{LOOPBACK}:{DASK_PORT}", another address and port of the driver\'s host, or "{OFF}"'
                ) from None
            return f"{host}:0"
    # if another run takes the port before Dask does, Dask takes any other one
    warnings.filterwarnings("ignore", r"Port \d+ is already in use")
    return configured


def reach_dashboard(host: str, port: int, environment: Mapping[str, str] = os.environ) -> Dashboard:
    """Return the address of a web server on this host for a browser here, and a command that makes it reachable elsewhere."""
    user, this_host = _user(), _full_host_name()
    system = current_batch_system(environment)
    submit_host = system.variable("submit_host") if system is not None else ""
    here = socket.gethostname().partition(".")[0]
    # a compute node is often reachable only from a login node, such as the host that submitted the job
    jump = f"-J {user}@{submit_host} " if submit_host.partition(".")[0] not in ("", here) else ""
    everywhere = host in ("", "0.0.0.0", "::")
    target = LOOPBACK if everywhere else host
    command = f"ssh -N -L {port}:{target}:{port} {jump}{user}@{this_host}"
    return Dashboard(address=f"http://{this_host if everywhere else host}:{port}/status", command=command)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, in a container
        return str(os.getuid())


def _full_host_name() -> str:
    """Return this host's name as other machines may know it."""
    name = socket.gethostname()
    if "." in name:
        return name
    lookup, found = _lookup(name)
    lookup.join(NAME_SERVICE_TIMEOUT_S)
    return found[-1] if found[-1].startswith(f"{name}.") and not found[-1].startswith("localhost") else name


@cache
def _lookup(name: str) -> tuple[threading.Thread, list[str]]:
    """Ask the name service, which may never answer, for the full name of a host."""
    found = [name]
    lookup = threading.Thread(target=lambda: found.append(socket.getfqdn(name)), daemon=True)
    lookup.start()
    return lookup, found
