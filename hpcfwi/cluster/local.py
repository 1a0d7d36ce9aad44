"""Workers as processes of this machine."""

from __future__ import annotations

import math
import os
import shutil
import signal
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from pathlib import Path
from tempfile import gettempdir, mkdtemp

import dask
import psutil
from dask.system import CPU_COUNT
from distributed import LocalCluster
from distributed.system import MEMORY_LIMIT
from filelock import FileLock, Timeout

from hpcfwi.cluster.environment import worker_environment
from hpcfwi.config.site import WorkerSection
from hpcfwi.errors import InputError

__all__ = ["Layout", "local_cluster", "local_layout", "local_workers", "scratch_folder"]

# What a worker process needs besides its wavefields: Python, Devito, Dask, and observed data.
BASE_MEMORY = 400e6
# Temporary folders of ours, the file in them that is locked while they are in use, and the age, in seconds, from which on
# one without that lock is nobody's (and not of somebody who is about to lock it).
SCRATCH, IN_USE, SCRATCH_AGE = "hpcfwi-", "in-use", 60
TERMINAL_SIGNALS = {signal.SIGINT, signal.SIGHUP}


@dataclass(frozen=True)
class Layout:
    """How a node is divided.

    Parameters
    ----------
    processes
        Worker processes.
    threads
        OpenMP threads of each.
    memory
        Bytes that each may use.
    """

    processes: int
    threads: int
    memory: int

    @property
    def cache_bytes(self) -> int:
        """Memory for observed data that a worker keeps between evaluations."""
        return self.memory // 8

    def __str__(self) -> str:
        processes = "1 process" if self.processes == 1 else f"{self.processes} processes"
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        return f"{processes} of {threads}, {self.memory / 1e9:.1f} GB each"


def local_layout(worker: WorkerSection, shots: int, shot_bytes: int) -> Layout:
    """Divide this machine: one thread per process, unless memory or too few shots forbid it.

    Parameters
    ----------
    worker
        The site's wishes.
    shots
        How many shots there are to share out.
    shot_bytes
        Memory of one worker's wavefields.

    Raises
    ------
    InputError
        If not even one process fits.
    """
    cores, memory = CPU_COUNT, MEMORY_LIMIT or psutil.virtual_memory().total
    need = shot_bytes + BASE_MEMORY
    limit = None if worker.memory == "auto" else worker.memory * 1e9
    available = 0.9 * memory if limit is None else limit
    if need > available:
        where = "this machine has" if limit is None else f"site.worker.memory = {worker.memory:g} gives"
        raise InputError(
            f"one shot needs {need / 1e9:.2f} GB, {where} {available / 1e9:.2f} GB: take "
            'solver.strategy = "sampled", a coarser grid or a larger machine'
        )
    if worker.processes == "auto":
        threads = 1 if worker.threads == "auto" else worker.threads
        processes = max(1, min(cores // threads, shots, math.floor(0.9 * memory / need)))
    else:
        processes = worker.processes
    threads = max(1, cores // processes) if worker.threads == "auto" else worker.threads
    share = int(0.9 * memory / processes) if limit is None else int(limit)
    if need > share:
        raise InputError(
            f"site.worker.processes: is {processes}, each of which needs {need / 1e9:.2f} GB; of this machine's memory "
            f"{share / 1e9:.2f} GB fall to each: take at most {math.floor(0.9 * memory / need)}"
        )
    return Layout(processes, threads, share)


@contextmanager
def local_workers(layout: Layout) -> Iterator[Future[LocalCluster]]:
    """Workers of this machine, which come up while other things are done, and are gone at the end, whatever happens."""
    with scratch_folder() as scratch, ThreadPoolExecutor(1) as pool:
        coming = pool.submit(_deaf_cluster, layout, scratch)
        try:
            yield coming
        finally:
            with suppress(Exception):  # why they could not be started is told by whoever asked for them
                coming.result().close()


def _deaf_cluster(layout: Layout, scratch: Path) -> LocalCluster:
    """Start workers that do not hear what a terminal sends to all of its processes: the driver ends them."""
    # Threads and processes inherit the mask.
    signal.pthread_sigmask(signal.SIG_BLOCK, TERMINAL_SIGNALS)
    resource_tracker.ensure_running()  # needs the mask, too, and lifts it when it starts
    signal.pthread_sigmask(signal.SIG_BLOCK, TERMINAL_SIGNALS)
    return local_cluster(layout, scratch)


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A temporary folder for workers; those that killed drivers have left behind are removed."""
    for left in Path(gettempdir()).glob(f"{SCRATCH}*"):
        with suppress(OSError, Timeout, NotImplementedError):
            mark = left / IN_USE
            if mark.stat().st_uid == os.geteuid() and time.time() - mark.stat().st_mtime > SCRATCH_AGE:
                with FileLock(mark).acquire(timeout=0):
                    shutil.rmtree(left)
    folder = Path(mkdtemp(prefix=SCRATCH))
    lock = FileLock(folder / IN_USE)
    try:
        with suppress(OSError, NotImplementedError):
            lock.acquire(timeout=0)
        yield folder
    finally:
        lock.release()
        shutil.rmtree(folder, ignore_errors=True)


def local_cluster(layout: Layout, scratch: Path) -> LocalCluster:
    """Start workers on this machine, each with one Dask thread and the layout's OpenMP threads."""
    settings = {
        "distributed.nanny.pre-spawn-environ": worker_environment(layout.threads),
        # nothing of ours can be spilled, and what a paused worker waits for would never come
        "distributed.worker.memory.target": False,
        "distributed.worker.memory.spill": False,
        "distributed.worker.memory.pause": False,
    }
    with dask.config.set(settings):
        return LocalCluster(
            n_workers=layout.processes,
            threads_per_worker=1,
            processes=True,
            memory_limit=layout.memory,
            host="127.0.0.1",
            # no dashboard; the small HTTP server that Dask starts all the same takes any free port
            dashboard_address=None,
            scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
            local_directory=str(scratch),
            preload=["hpcfwi.inversion.shot"],
            silence_logs=False,
        )
