"""The cores of worker processes, and the threads and CPUs that their kernels use; a preload module of Dask workers.

OpenMP derives its places from the process's affinity when its library is loaded, so the cores are chosen before that.
"""

from __future__ import annotations

import gc
import os
import re
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcfwi.cluster.environment import PROCESSES_VARIABLE, THREADS_VARIABLE
from hpcfwi.io import format_ranges
from hpcfwi.process import gc_paused

if TYPE_CHECKING:  # workers do not need pydantic
    from hpcfwi.config.site import Site

PRELOAD_MODULES = (__name__,)  # each Dask worker imports these when it starts
CPU_FOLDER, TASK_FOLDER = Path("/sys/devices/system/cpu"), Path("/proc/self/task")
BUSY_SHARE = 0.2  # a thread counts as busy with more than this share of the calling thread's CPU time


def dask_setup(worker: Any) -> None:
    """Choose the cores of a worker process, and import the tasks' modules while the driver still builds the solver."""
    if PROCESSES_VARIABLE in os.environ:
        _set_affinity(worker)
    with gc_paused():
        import hpcfwi.execution.tasks  # noqa: F401


def dask_teardown(_: Any) -> None:
    """Skip the last garbage collection of a worker that ends."""
    gc.freeze()


def _set_affinity(worker: Any) -> None:
    processes, threads = (int(os.environ.get(name, "0")) for name in (PROCESSES_VARIABLE, THREADS_VARIABLE))
    # if a node has several workers, their names end in a number
    number = re.search(r"-(\d+)$", str(worker.name)) if processes > 1 else None
    cores = assigned_cores(cores_of(os.sched_getaffinity(0)), processes, threads, int(number[1]) if number else 0)
    if cores:
        with suppress(OSError):
            os.sched_setaffinity(0, {cpu for core in cores for cpu in core})
    else:
        # unpinned processes must not bind their threads: all would take the same first cores
        for name in ("OMP_PROC_BIND", "OMP_PLACES"):
            os.environ.pop(name, None)


def cores_of(cpus: Collection[int]) -> list[tuple[int, ...]]:
    """Group CPUs (hardware threads) by the core that they belong to, in order."""
    cores: dict[str, list[int]] = {}
    for cpu in sorted(cpus):
        try:
            siblings = (CPU_FOLDER / f"cpu{cpu}" / "topology" / "thread_siblings_list").read_text().strip()
        except OSError:
            siblings = str(cpu)
        cores.setdefault(siblings, []).append(cpu)
    return [tuple(found) for found in cores.values()]


def assigned_cores(cores: list[tuple[int, ...]], processes: int, threads: int, index: int) -> list[tuple[int, ...]]:
    """Choose the cores of one of several processes; an empty list if the process should not be pinned.

    A job without a CPU mask sees all cores of a node and cannot know which of them other jobs use. Its processes are pinned
    only if they need more than half of the cores, so that no second job of this kind fits. Spare cores lie between the
    processes, which spreads them over the memory channels.
    """
    wanted = processes * threads
    if not 0 < wanted <= len(cores) or 2 * wanted <= len(cores):
        return []
    stride = len(cores) // processes
    return cores[index * stride : index * stride + threads]


class AffinityCheck:
    """Compares threads and cores of workers with the site's configuration; reports each kind of mismatch once for each host.

    ``threads_on`` returns the OpenMP threads that each worker on a host should have.
    """

    def __init__(self, site: Site, threads_on: Callable[[str], int]) -> None:
        self.site, self.threads_on = site, threads_on
        self._workers: dict[str, dict[str, frozenset[int]]] = {}  # CPUs of each worker, by host
        self._reported: set[tuple[str, str]] = set()

    def forget(self, worker: str) -> None:
        """Record that a worker has left and its cores are free."""
        for here in self._workers.values():
            here.pop(worker, None)

    def mismatches(self, host: str, worker: str, threads: int, cpus: str) -> list[str]:
        """Return a message for each new mismatch.

        A worker's kernels ran on ``threads`` threads (0: could not be observed), which may use ``cpus``, such as ``0-3,8``.
        """
        if threads == 0:
            return []
        expected = self.threads_on(host)
        here = self._workers.setdefault(host, {})
        here[worker] = mask = parse_ranges(cpus)
        together = frozenset().union(*here.values())
        found = {}
        if threads != expected:
            found["threads"] = (
                f"on {host} the kernel thread count is {threads}, not {expected} (worker.threads): OMP_NUM_THREADS or "
                "OMP_THREAD_LIMIT is set there; see environment.commands, environment.modules and openmp.variables"
            )
        if len(mask) < expected:
            found["cores"] = (
                f"on {host} the {expected} threads of a worker share CPU {cpus}: openmp.bind and openmp.places bind them "
                "there, or the job was given fewer CPUs than worker.processes x worker.threads"
            )
        elif len(together) < expected * len(here):
            found["node"] = (
                f"on {host} {len(here)} workers whose thread count is {expected} share CPU {format_ranges(together)}: the job "
                "was given fewer CPUs than worker.processes x worker.threads, or another job of this run is on the same node"
            )
        new = {kind: text for kind, text in found.items() if (host, kind) not in self._reported}
        self._reported |= {(host, kind) for kind in new}
        return list(new.values())


@dataclass
class ThreadUse:
    """Threads and CPUs that kernels used."""

    threads: int = 0  # busy ones; 0 if they cannot be observed
    cpus: frozenset[int] = frozenset()  # hardware threads that they may use


@contextmanager
def observed_threads() -> Iterator[ThreadUse]:
    """Observe this process's threads; the yielded object is filled in at the end.

    The calling thread calls the kernels. Other Python threads (connections, heartbeat) run no kernels and are not counted,
    however busy they are.
    """
    use = ThreadUse()
    caller = threading.get_native_id()
    before = _run_times()
    yield use
    spent = {task: time - before.get(task, 0) for task, time in _run_times().items()}
    # the calling thread certainly computed; the others are compared with it
    most = spent.pop(caller, 0)
    of_python = {thread.native_id for thread in threading.enumerate()}
    busy = [caller, *(task for task, time in spent.items() if time > BUSY_SHARE * most and task not in of_python)]
    if most > 0:
        for task in busy:
            with suppress(OSError):  # a thread that has just ended
                use.cpus |= os.sched_getaffinity(task)
        use.threads = len(busy) if use.cpus else 0


def _run_times() -> dict[int, int]:
    """CPU time of each thread of this process, ns."""
    found = {}
    for folder in TASK_FOLDER.iterdir():
        with suppress(OSError, IndexError):  # a thread that has just ended, or a Linux kernel without these statistics
            found[int(folder.name)] = int((folder / "schedstat").read_text().split()[0])
    return found


def parse_ranges(text: str) -> frozenset[int]:
    """Parse numbers such as ``0-3,8``."""
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return frozenset(found)
