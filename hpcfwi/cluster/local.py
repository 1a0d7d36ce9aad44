"""Workers as processes of this machine."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import dask
import psutil
from dask.system import CPU_COUNT
from distributed import LocalCluster
from distributed.system import MEMORY_LIMIT

from hpcfwi.cluster.environment import worker_environment
from hpcfwi.config.site import WorkerSection
from hpcfwi.errors import InputError

__all__ = ["Layout", "local_cluster", "local_layout"]

# What a worker process needs besides its wavefields: Python, Devito, Dask, and observed data.
BASE_MEMORY = 400e6


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
    return Layout(processes, threads, share)


def local_cluster(layout: Layout, scratch: Path) -> LocalCluster:
    """Start workers on this machine, each with one Dask thread and the layout's OpenMP threads."""
    settings = {
        "distributed.nanny.pre-spawn-environ": worker_environment(layout.threads),
        # a worker that comes near its limit is in trouble already: nothing of ours can be spilled
        "distributed.worker.memory.target": False,
        "distributed.worker.memory.spill": False,
    }
    with dask.config.set(settings):
        return LocalCluster(
            n_workers=layout.processes,
            threads_per_worker=1,
            processes=True,
            memory_limit=layout.memory,
            host="127.0.0.1",
            dashboard_address=None,
            local_directory=str(scratch),
            preload=["hpcfwi.inversion.shot"],
            silence_logs=False,
        )
