"""Holds what workers tell of their threads and cores against what the site file promises."""

from __future__ import annotations

from collections.abc import Callable

from hpcfwi.config.site import Site
from hpcfwi.physics.threads import numbers, ranges

__all__ = ["ThreadPromise"]


class ThreadPromise:
    """What was promised, and every breach of it, once for each host.

    Parameters
    ----------
    site
        The machine.
    threads_on
        Gives the OpenMP threads that each worker on a host should have.
    """

    def __init__(self, site: Site, threads_on: Callable[[str], int]) -> None:
        self.site, self.threads_on = site, threads_on
        self._workers: dict[str, dict[str, frozenset[int]]] = {}
        self._told: set[tuple[str, str]] = set()

    def forget(self, worker: str) -> None:
        """A worker has gone; its cores are free."""
        for here in self._workers.values():
            here.pop(worker, None)

    def breaches(self, host: str, worker: str, threads: int, cpus: str) -> list[str]:
        """What is not as promised, now that a worker has told how many threads its kernels ran on, and on which CPUs.

        Parameters
        ----------
        host, worker
            Who tells.
        threads
            Threads that computed; 0 where that could not be seen.
        cpus
            CPUs that they may use, as ``0-3,8``.
        """
        if threads == 0:
            return []
        promised = self.threads_on(host)
        mask = numbers(cpus)
        here = self._workers.setdefault(host, {})
        here[worker] = mask
        together = frozenset().union(*here.values())
        found = {}
        if threads != promised:
            found["threads"] = (
                f"on {host} kernels run on {threads} threads instead of {promised} (worker.threads): something there sets "
                "OMP_NUM_THREADS or OMP_THREAD_LIMIT, see environment.commands, environment.modules and openmp.variables"
            )
        if len(mask) < promised:
            found["cores"] = (
                f"on {host} the {promised} threads of a worker share CPU {cpus}: openmp.bind and openmp.places bind them "
                "there, or the job was given fewer CPUs than worker.processes x worker.threads"
            )
        elif len(together) < promised * len(here):
            found["node"] = (
                f"on {host} {len(here)} workers of {promised} threads share CPU {ranges(together)}: the job was given "
                "fewer CPUs than worker.processes x worker.threads, or another job of this run is on the same node"
            )
        new = {kind: text for kind, text in found.items() if (host, kind) not in self._told}
        self._told |= {(host, kind) for kind in new}
        return list(new.values())
