"""Tasks that nobody needs any more are taken back from Dask, or those of them that no worker has begun.

``Client.cancel`` goes through all keys once for each of them, which keeps a scheduler that has 100,000 busy for minutes; and
between a look at who is at what and its arrival further tasks begin, whose results would be lost.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from distributed import Client, Future

__all__ = ["withdraw", "withdraw_unbegun"]

# States of a task of Dask's that a worker has in hand, or that is done.
BEGUN = frozenset({"processing", "memory", "erred"})


def withdraw(client: Client, futures: Iterable[Future]) -> None:
    """Take tasks back. What a worker is at goes on there to its end, but its result is let go."""
    _take_back(client, [list(futures)], frozenset())


def withdraw_unbegun(client: Client, groups: Iterable[list[Future]]) -> None:
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
