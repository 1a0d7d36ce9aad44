"""Every private or undocumented name of Dask (and its web server, Tornado) that hpcfwi uses.

``tests/cluster/test_dask_internals.py`` has a test for each, which says what Dask must still do.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterable
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import distributed.batched
import distributed.metrics
from distributed import Client, Future
from distributed.core import Status
from distributed.versions import BOKEH_REQUIREMENT
from tornado.ioloop import IOLoop
from tornado.web import Application, RequestHandler

__all__ = [
    "add_lazy_dashboard",
    "cancel_tasks",
    "cancel_unstarted",
    "missing_dashboard_requirements",
    "monotonic_time",
    "stop_assigning_tasks",
    "use_monotonic_clock",
]

_clock_offset = time.time() - time.monotonic()
_dask_time = distributed.metrics.time


def monotonic_time() -> float:
    """Return seconds since 1970 by a clock that runs on steadily when the time of day is set."""
    return _clock_offset + time.monotonic()


def use_monotonic_clock() -> None:
    """Make Dask and Tornado in this process measure time by :func:`monotonic_time`; possible at any moment.

    They measure by the time of day. When that is set back by an hour, messages to workers wait for an hour; when it is set
    forward, all workers seem to have been silent for an hour.
    """
    IOLoop.time = lambda _: monotonic_time()  # type: ignore[method-assign, assignment]
    for name, module in list(sys.modules.items()):
        if name.startswith("distributed.") and vars(module).get("time") is _dask_time:
            module.time = monotonic_time  # type: ignore[attr-defined]


# States of a task that a worker has received, or that is done.
STARTED_STATES = frozenset({"processing", "memory", "erred"})


def cancel_tasks(client: Client, futures: Iterable[Future]) -> None:
    """Cancel tasks. A running one goes on to its end on its worker, but its result is dropped."""
    _cancel(client, [list(futures)], frozenset())


def cancel_unstarted(client: Client, groups: Iterable[list[Future]]) -> None:
    """Cancel the groups of tasks of which no worker has received any; none starts meanwhile."""
    _cancel(client, list(groups), STARTED_STATES)


def _cancel(client: Client, groups: list[list[Future]], unless: frozenset[str]) -> None:
    name, keys = client.id, [[future.key for future in group] for group in groups]

    def release(dask_scheduler: Any) -> list[int]:
        tasks = dask_scheduler.tasks
        released = [
            i for i, group in enumerate(keys) if not any(key in tasks and tasks[key].state in unless for key in group)
        ]
        dask_scheduler.client_releases_keys(
            [key for i in released for key in keys[i]], client=name, stimulus_id=f"hpcfwi-cancel-{time.time()}"
        )
        return released

    released = client.run_on_scheduler(release)
    # the scheduler has forgotten them; code that waits for them here has to notice
    client.cancel([future for i in released for future in groups[i]], force=True)


def stop_assigning_tasks(scheduler: Any, worker: Any, status: Status = Status.closing_gracefully) -> None:
    """Let a worker finish its running tasks and start no others; ``Status.running`` undoes that.

    This is the first half of Dask's ``Scheduler.retire_workers``, which does not wait for running tasks.

    Parameters
    ----------
    scheduler
        Dask's scheduler; call this in its event loop.
    worker
        The scheduler's state of the worker.
    status
        The worker's new status.
    """
    stimulus = f"hpcfwi-{status.name}-{time.time()}"
    scheduler.handle_worker_status_change(status, worker, stimulus)
    scheduler.stream_comms[worker.address].send(
        {"op": "worker-status-change", "status": status.name, "stimulus_id": stimulus}
    )


def missing_dashboard_requirements() -> str:
    """Return what Dask's dashboard lacks and how to install it; empty if it lacks nothing."""
    advice = f"pip install '{BOKEH_REQUIREMENT}'"
    try:
        found = version(BOKEH_REQUIREMENT.name)
    except PackageNotFoundError:
        return f"needs Bokeh, which is not installed: {advice}"
    fits = BOKEH_REQUIREMENT.specifier.contains(found, prereleases=True)
    return "" if fits else f"needs another Bokeh than {found}: {advice}"


def add_lazy_dashboard(scheduler: Any) -> tuple[str, int]:
    """Add the dashboard to a scheduler's web server once the first page is requested; return its address and port."""
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
            # to a browser a path that begins with two slashes is another host
            self.redirect(f"/{(self.request.uri or '').lstrip('/')}")

    placeholder = Application([(r"/.*", FirstRequest)])
    routes.add_application(placeholder)
    return server.address, server.port
