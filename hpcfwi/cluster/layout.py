"""How a node is divided into worker processes and their OpenMP threads."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hpcfwi.config.site import NodeSection, Site, WorkerSection
from hpcfwi.errors import InputError

__all__ = ["Layout", "ResourceRequest", "divide", "node_layout"]

# What a worker process needs besides its wavefields: Python, Devito, Dask, and observed data.
BASE_MEMORY = 400e6


@dataclass(frozen=True)
class ResourceRequest:
    """What a run asks of its workers.

    Parameters
    ----------
    shots
        How many shots there are to share out.
    shot_bytes
        Memory of one worker's wavefields.
    """

    shots: int
    shot_bytes: int

    @property
    def worker_bytes(self) -> int:
        """Memory that a worker process needs at least."""
        return int(self.shot_bytes + BASE_MEMORY)


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

    @property
    def cores(self) -> int:
        """Cores of all processes."""
        return self.processes * self.threads

    def __str__(self) -> str:
        processes = "1 process" if self.processes == 1 else f"{self.processes} processes"
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        return f"{processes} of {threads}, {self.memory / 1e9:.1f} GB each"


def divide(worker: WorkerSection, need: ResourceRequest, cores: int, memory: float, place: str) -> Layout:
    """Divide a node: one thread per process, unless memory or too few shots forbid it.

    Parameters
    ----------
    worker
        The site's wishes.
    need
        What the run asks for; its shots are those that this node may have to itself.
    cores
        Cores of the node.
    memory
        Bytes that all its processes together may use.
    place
        The node, for messages.

    Raises
    ------
    InputError
        If not even one process fits.
    """
    each = need.worker_bytes
    limit = None if worker.memory == "auto" else worker.memory * 1e9
    available = memory if limit is None else limit
    if each > available:
        where = f"{place} has" if limit is None else f"site.worker.memory = {worker.memory:g} gives a worker on {place}"
        raise InputError(
            f"one shot needs {each / 1e9:.2f} GB, {where} {available / 1e9:.2f} GB: take "
            'solver.strategy = "sampled", a coarser grid or a larger machine'
        )
    if worker.processes == "auto":
        threads = 1 if worker.threads == "auto" else worker.threads
        processes = max(1, min(cores // threads, need.shots, math.floor(memory / max(each, limit or 0))))
    else:
        processes = worker.processes
    threads = max(1, cores // processes) if worker.threads == "auto" else worker.threads
    share = int(memory / processes) if limit is None else int(limit)
    if each > share:
        raise InputError(
            f"site.worker.processes: is {processes}, each of which needs {each / 1e9:.2f} GB; of the memory of {place} "
            f"{share / 1e9:.2f} GB fall to each: take at most {math.floor(memory / each)}"
        )
    return Layout(processes, threads, share)


def node_layout(site: Site, need: ResourceRequest, jobs: int) -> Layout:
    """Divide a node as the site file describes it; the shots are shared out over as many nodes as there are jobs.

    Raises
    ------
    InputError
        If something does not fit, or the file says too little.
    """
    worker, node = site.config.worker, site.config.node
    _check_known(site, worker, node)
    share = ResourceRequest(-(-need.shots // jobs), need.shot_bytes)
    if node.cores is None or node.memory is None:
        assert worker.processes != "auto"
        assert worker.threads != "auto"
        cores = node.cores or worker.processes * worker.threads
        memory = node.memory or worker.processes * float(worker.memory)
    else:
        cores, memory = node.cores, node.memory
    layout = divide(worker, share, cores, memory * 1e9, f"a node of {site.name}")
    if layout.cores > cores:
        raise InputError(
            f"site.worker.processes: {layout.processes} processes of {layout.threads} threads need {layout.cores} cores, "
            f"{site.name} has {cores} on a node (node.cores)"
        )
    return layout


def _check_known(site: Site, worker: WorkerSection, node: NodeSection) -> None:
    """What is not said of the node has to be said of the workers."""
    unknown = [name for name in ("cores", "memory") if getattr(node, name) is None]
    wanted = [name for name in ("processes", "threads", "memory") if getattr(worker, name) == "auto"]
    if unknown and wanted:
        raise InputError(
            f'{site.path or site.name}: worker.{wanted[0]}: is "auto", but node.{unknown[0]} is not set; give a number, or '
            "say what a node has"
        )
