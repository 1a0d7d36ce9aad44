"""Gives each worker process of a node cores of its own; a preload script of Dask workers.

OpenMP takes its places from the process's affinity when its library is loaded, so this has to come before any kernel.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcfwi.cluster.environment import PROCESSES_VARIABLE, THREADS_VARIABLE

if TYPE_CHECKING:  # workers do not need pydantic
    from hpcfwi.config.site import Site

__all__ = [
    "PRELOAD_MODULES",
    "AffinityCheck",
    "ThreadUse",
    "assigned_cores",
    "cores_of",
    "dask_setup",
    "numbers",
    "observed_threads",
    "ranges",
]

# Modules that each Dask worker imports when it starts (Dask calls them preloads): cores first, then what shots need.
PRELOAD_MODULES = (__name__, f"{__package__}.preload")
BINDING = ("OMP_PROC_BIND", "OMP_PLACES")
SIBLINGS = Path("/sys/devices/system/cpu")


def dask_setup(worker: Any) -> None:
    """Called by Dask in the worker process, before its first task."""
    if PROCESSES_VARIABLE not in os.environ:
        return
    processes, threads = (int(os.environ.get(name, "0")) for name in (PROCESSES_VARIABLE, THREADS_VARIABLE))
    # of one process the name is that of the job or node, of several it ends in their numbers
    number = re.search(r"-(\d+)$", str(worker.name)) if processes > 1 else None
    index = int(number[1]) if number else 0
    mine = assigned_cores(cores_of(os.sched_getaffinity(0)), processes, threads, index)
    if mine:
        with suppress(OSError):
            os.sched_setaffinity(0, {cpu for core in mine for cpu in core})
    else:
        # every process on the node would bind its threads to the same first cores
        for name in BINDING:
            os.environ.pop(name, None)


def cores_of(cpus: Collection[int]) -> list[tuple[int, ...]]:
    """The cores that these CPUs (hardware threads) belong to, in order, each as its CPUs among them."""
    cores: dict[str, list[int]] = {}
    for cpu in sorted(cpus):
        try:
            siblings = (SIBLINGS / f"cpu{cpu}" / "topology" / "thread_siblings_list").read_text().strip()
        except OSError:
            siblings = str(cpu)
        cores.setdefault(siblings, []).append(cpu)
    return [tuple(found) for found in cores.values()]


def assigned_cores(cores: list[tuple[int, ...]], processes: int, threads: int, index: int) -> list[tuple[int, ...]]:
    """The cores of one process out of several; empty where they had better not be pinned.

    Without a mask of its own a job sees all cores of a node and cannot know which of them others use: it takes fixed ones
    only where more than half of them are its own, so that no second job of its kind can be there. Where there are more
    cores than threads the processes are spread out, for the sake of their memory's bandwidth.
    """
    wanted = processes * threads
    if not 0 < wanted <= len(cores) or 2 * wanted <= len(cores):
        return []
    stride = len(cores) // processes
    return cores[index * stride : index * stride + threads]


class AffinityCheck:
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


TASKS = Path("/proc/self/task")
# A thread that had less of the time than this share of the calling one's was not computing.
BUSY = 0.2


@dataclass
class ThreadUse:
    """What was seen while kernels ran.

    Parameters
    ----------
    threads
        Threads that computed; 0 where it cannot be seen.
    cpus
        CPUs (hardware threads) that any of them may use.
    """

    threads: int = 0
    cpus: frozenset[int] = frozenset()


@contextmanager
def observed_threads() -> Iterator[ThreadUse]:
    """Watch this process's threads; what is yielded is filled in at the end.

    The thread that enters is taken for the one that calls the kernels. Python's other threads (a worker's connections,
    its heartbeat) run none, however busy they were.
    """
    use = ThreadUse()
    caller = threading.get_native_id()
    before = _run_times()
    yield use
    spent = {task: time - before.get(task, 0) for task, time in _run_times().items()}
    # the thread that called the kernels computed in any case; it is the measure for the others
    most = spent.pop(caller, 0)
    of_python = {thread.native_id for thread in threading.enumerate()}
    busy = [caller, *(task for task, time in spent.items() if time > BUSY * most and task not in of_python)]
    masks = [mask for mask in map(_affinity, busy) if mask]
    if most > 0 and masks:
        use.threads = len(busy)
        use.cpus = frozenset().union(*masks)


def _run_times() -> dict[int, int]:
    """Nanoseconds on a CPU of each thread of this process."""
    found = {}
    for folder in TASKS.iterdir() if TASKS.is_dir() else ():
        try:
            found[int(folder.name)] = int((folder / "schedstat").read_text().split()[0])
        except (OSError, ValueError, IndexError):
            continue  # a thread that has just ended
    return found


def _affinity(task: int) -> set[int]:
    try:
        return os.sched_getaffinity(task)
    except (OSError, AttributeError):
        return set()


def ranges(numbers: Iterable[int]) -> str:
    """Numbers as ``0-3,8``."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and parts[-1][1] == number - 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)


def numbers(text: str) -> frozenset[int]:
    """The numbers of :func:`ranges`."""
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return frozenset(found)
