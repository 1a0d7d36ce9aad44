"""A clock that nobody sets, for Dask and Tornado, which take the time of day to measure with.

Where that is set back by an hour while a run is on, what a worker has to say in two milliseconds would wait for an hour, and
where it is set forward all workers would seem to have been silent for as long.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from typing import Any

import distributed.batched
import distributed.metrics
from distributed import Client, Future
from distributed.core import Status
from tornado.ioloop import IOLoop

__all__ = ["cancel_tasks", "cancel_unstarted", "monotonic_time", "stop_assigning_tasks", "use_monotonic_clock"]

_set_at_the_start = time.time() - time.monotonic()
_time_of_day = distributed.metrics.time


def monotonic_time() -> float:
    """Seconds since 1970 as they were when this process began, and since then: goes on as the time of day should have."""
    return _set_at_the_start + time.monotonic()


def use_monotonic_clock() -> None:
    """Give that clock to everything of Dask and Tornado in this process; at any time, since it begins where theirs is."""
    IOLoop.time = lambda _: monotonic_time()  # type: ignore[method-assign, assignment]
    for name, module in list(sys.modules.items()):
        if name.startswith("distributed.") and vars(module).get("time") is _time_of_day:
            module.time = monotonic_time  # type: ignore[attr-defined]


# States of a task of Dask's that a worker has in hand, or that is done.
BEGUN = frozenset({"processing", "memory", "erred"})


def cancel_tasks(client: Client, futures: Iterable[Future]) -> None:
    """Take tasks back. What a worker is at goes on there to its end, but its result is let go."""
    _take_back(client, [list(futures)], frozenset())


def cancel_unstarted(client: Client, groups: Iterable[list[Future]]) -> None:
    """Take back those groups of tasks of which no worker has any, or had; none begins while it is looked."""
    _take_back(client, list(groups), BEGUN)


def _take_back(client: Client, groups: list[list[Future]], but: frozenset[str]) -> None:
    name, keys = client.id, [[future.key for future in group] for group in groups]

    def take_back(dask_scheduler: Any) -> list[int]:
        tasks = dask_scheduler.tasks
        taken = [
            i for i, group in enumerate(keys) if not any(key in tasks and tasks[key].state in but for key in group)
        ]
        dask_scheduler.client_releases_keys(
            [key for i in taken for key in keys[i]], client=name, stimulus_id=f"hpcfwi-withdraw-{time.time()}"
        )
        return taken

    taken = client.run_on_scheduler(take_back)
    # the scheduler does not know them any more; those who wait for them have to hear of it
    client.cancel([future for i in taken for future in groups[i]], force=True)


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
