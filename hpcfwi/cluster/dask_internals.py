"""Every undocumented name of Dask and its web server that hpcfwi uses; ``tests/cluster/test_dask_internals.py`` tests each."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from dask.system import CPU_COUNT
from distributed import Client
from distributed.system import MEMORY_LIMIT
from distributed.versions import BOKEH_REQUIREMENT
from tornado.web import Application, RequestHandler

# CPUs and bytes of memory that this process may use.
CPUS, MEMORY_BYTES = CPU_COUNT, MEMORY_LIMIT
# Topics of Dask's own events: workers that leave, workers without heartbeats, workers out of memory.
ALL_TOPIC, SCHEDULER_TOPIC, MEMORY_TOPIC = "all", "scheduler", "worker-restart-memory"


def watch_worker_exit(nanny: Any, callback: Callable[[int], None]) -> None:
    """Call ``callback`` with the exit code of each worker process of a nanny, including processes it starts later."""
    usual = nanny._on_worker_exit_sync

    def on_exit(code: int) -> None:
        callback(code)
        usual(code)

    nanny._on_worker_exit_sync = on_exit  # for processes that are started later
    if nanny.process is not None:
        nanny.process.on_exit = on_exit


def worker_infos(client: Client) -> dict[str, dict[str, Any]]:
    """Return what the scheduler knows of each worker, by address.

    ``Client.scheduler_info()`` may return no workers while another thread of the client uses it.
    """
    return dict(client.sync(client.scheduler.identity, n_workers=-1)["workers"])


def unsubscribe(client: Client, topic: str) -> None:
    """Keep the scheduler from writing events to a client that is about to close."""
    name = client.id
    with suppress(Exception):  # the scheduler may be gone
        client.run_on_scheduler(lambda dask_scheduler: dask_scheduler.unsubscribe_topic(topic, name))


def run_stranded_tasks(client: Client) -> None:
    """Let tasks that lost their worker, the last one, run on any worker.

    Dask sets such tasks aside, and does not give them to workers that join later if they prefer another one.
    """

    def release(dask_scheduler: Any) -> None:
        stranded = [task.key for task in dask_scheduler.unrunnable]
        if stranded and dask_scheduler.running:
            dask_scheduler.set_restrictions(dict.fromkeys(stranded))
            dask_scheduler.transitions(dict.fromkeys(stranded, "processing"), f"hpcfwi-stranded-{time.time()}")

    client.run_on_scheduler(release)


def missing_dashboard_requirements() -> str:
    """Return what Dask's dashboard lacks and how to install it; empty if nothing is missing."""
    advice = f"pip install '{BOKEH_REQUIREMENT}'"
    try:
        found = version(BOKEH_REQUIREMENT.name)
    except PackageNotFoundError:
        return f"needs Bokeh, which is not installed: {advice}"
    fits = BOKEH_REQUIREMENT.specifier.contains(found, prereleases=True)
    return "" if fits else f"does not work with Bokeh {found}: {advice}"


def add_lazy_dashboard(scheduler: Any) -> tuple[str, int]:
    """Add the dashboard to a scheduler's web server once the first page is requested; return its address and port.

    Call this once, and only if Bokeh is installed.
    """
    routes, server = scheduler.http_application, scheduler.http_server
    loading: list[asyncio.Task[None]] = []

    async def load() -> None:
        dashboard = await asyncio.to_thread(import_module, "distributed.dashboard.scheduler")
        routes.applications.remove(placeholder)
        dashboard.connect(routes, server, scheduler)

    class FirstRequest(RequestHandler):
        async def get(self) -> None:
            if not loading:
                loading.append(asyncio.ensure_future(load()))
            await asyncio.shield(loading[0])
            # a browser takes a path that begins with two slashes for another host
            self.redirect(f"/{(self.request.uri or '').lstrip('/')}")

    placeholder = Application([(r"/.*", FirstRequest)])
    routes.add_application(placeholder)
    return server.address, server.port
