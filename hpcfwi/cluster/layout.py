"""The layout of a node: its worker processes and their OpenMP threads."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import islice

from hpcfwi.batch.base import Node
from hpcfwi.config.site import Site, WorkerSection
from hpcfwi.errors import InputError

# A worker is planned to take this share of its memory; at 95 % Dask ends it.
USABLE_SHARE = 0.92
BASE_MEMORY_BYTES = 220e6  # of a worker process besides shots and observed data: Python, Devito and Dask


class ShotTooLarge(InputError):
    """A shot does not fit into the memory of a worker."""


@dataclass(frozen=True)
class Choice:
    """One of several ways to compute a shot."""

    name: str
    shot_bytes: int  # memory of a shot's wavefields, and of models
    time: float = 1.0  # relative to the other ways


@dataclass(frozen=True)
class ResourceRequest:
    """What a run requires of its workers."""

    shots: int
    shot_bytes: int  # memory of a shot's wavefields, and of models, at least
    # yields settings that save memory, and the bytes of a shot with each, for errors
    savings: Callable[[], Iterable[tuple[str, int]]] = tuple
    data_bytes: int = 0  # observed data of a shot
    choices: tuple[Choice, ...] = ()  # several ways to compute a shot; the last one needs least memory: ``shot_bytes``

    def share(self, nodes: int) -> ResourceRequest:
        """Return the part of the request for one of several nodes."""
        return replace(self, shots=-(-self.shots // nodes))


# Several threads on one shot are worth this power of their number.
THREADS_POWER = 0.5
# More shots than any node has cores, so that workers fill a node.
WHOLE_NODES = ResourceRequest(shots=100_000, shot_bytes=1)


@dataclass(frozen=True)
class Layout:
    """How a node is divided: worker processes, and the OpenMP threads and bytes of each."""

    processes: int
    threads: int
    memory: int
    choice: Choice | None = None  # of the request: how shots are computed
    data_bytes: int = 0  # observed data of all shots of a process

    @property
    def speed(self) -> float:
        """Shots at a time, relative to the time of each."""
        return self.processes * self.threads**THREADS_POWER / (self.choice.time if self.choice is not None else 1.0)

    @property
    def wavefield_bytes(self) -> int:
        """Memory of a worker for its wavefields and models."""
        return int(USABLE_SHARE * self.memory - self.cache_bytes - BASE_MEMORY_BYTES)

    @property
    def cache_bytes(self) -> int:
        """Memory that is reserved for observed data, which a worker keeps between evaluations."""
        shot_bytes = self.choice.shot_bytes if self.choice is not None else 0
        spare = int(USABLE_SHARE * self.memory - BASE_MEMORY_BYTES - shot_bytes)
        return max(0, min(self.memory // 8, self.data_bytes, spare))

    @property
    def cores(self) -> int:
        """Cores of all processes."""
        return self.processes * self.threads

    def __str__(self) -> str:
        processes = "1 process" if self.processes == 1 else f"{self.processes} processes"
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        return f"{processes} of {threads}, {self.memory / 1e9:.1f} GB each"


def divide(
    worker: WorkerSection, request: ResourceRequest, cores: int, memory: float, place: str, limit_of_cores: str = ""
) -> Layout:
    """Divide a node with this number of cores, and bytes of memory for all processes together.

    By default, a process has one thread, or more if memory or the number of shots limits the processes. Of the request's
    choices, the fastest one is taken. Raises InputError, which calls the node ``place``, if a shot does not fit; and if there
    are more threads than cores and ``limit_of_cores``, the rest of the message, is not empty.
    """
    layouts, failure = [], None
    ways = [replace(request, shot_bytes=choice.shot_bytes, choices=(choice,)) for choice in request.choices]
    for way in ways or [request]:
        try:
            layouts.append(_divide(worker, way, cores, memory, place, limit_of_cores))
        except InputError as error:
            failure = error
    if not layouts and failure is not None:
        raise failure  # of the way that needs least memory
    return max(layouts, key=lambda layout: layout.speed)  # the first one of several


def worker_memory(shot_bytes: int) -> int:
    """Memory of a worker process that computes such shots."""
    return int((shot_bytes + BASE_MEMORY_BYTES) / USABLE_SHARE)


def _divide(
    worker: WorkerSection, request: ResourceRequest, cores: int, memory: float, place: str, limit_of_cores: str
) -> Layout:
    """Divide a node for a request with one choice, or none."""
    each = worker_memory(request.shot_bytes)
    limit = None if worker.memory == "auto" else worker.memory * 1e9
    available = memory if limit is None else limit
    if each > available:
        where = f"{place} has" if limit is None else f"site.worker.memory = {worker.memory:g} gives a worker on {place}"
        fitting = (settings for settings, size in request.savings() if worker_memory(size) <= available)
        larger = [f"--set site.worker.memory={math.ceil(each / 1e7) / 100:g}"] if limit and each <= memory else []
        advice = [f"It fits with {settings}" for settings in (*larger, *islice(fitting, 1))]
        problem = f"one shot needs {each / 1e9:.2f} GB, {where} {available / 1e9:.2f} GB"
        raise ShotTooLarge("\n  ".join([problem, *(advice or ["It needs a machine with more memory"])]))
    if worker.processes == "auto":
        threads = 1 if worker.threads == "auto" else worker.threads
        processes = max(1, min(cores // threads, request.shots, math.floor(memory / max(each, limit or 0))))
    else:
        processes = worker.processes
    threads = max(1, cores // processes) if worker.threads == "auto" else worker.threads
    share = int(memory / processes) if limit is None else int(limit)
    if each > share:
        raise ShotTooLarge(
            f"site.worker.processes: is {processes}; each needs {each / 1e9:.2f} GB, but gets {share / 1e9:.2f} GB of the "
            f"memory of {place}: take at most {math.floor(memory / each)}"
        )
    data_bytes = math.ceil(request.shots / processes) * request.data_bytes
    layout = Layout(processes, threads, share, request.choices[-1] if request.choices else None, data_bytes)
    if limit_of_cores and layout.cores > cores:
        key = "threads" if worker.processes == "auto" else "processes"
        needed = f"{str(layout).partition(',')[0]} need{'s' if processes == 1 else ''} {layout.cores} cores"
        raise InputError(f"site.worker.{key}: {needed}, {limit_of_cores}")
    return layout


def jobs_layout(site: Site, request: ResourceRequest, nodes: int | None) -> tuple[Layout, int]:
    """Layout of the worker jobs, one on each node, and how many the request needs; ``nodes`` overrides the site's number.

    Raises InputError if the request does not fit on a node, or the site does not allow so many jobs.
    """
    section = site.config.scheduler
    if nodes is not None and section.max_jobs is not None and nodes > section.max_jobs:
        limit = f"{section.max_jobs} jobs at a time (scheduler.max_jobs)"
        raise InputError(f"--nodes {nodes}: {site.name} allows {limit}")
    layout = node_layout(site, request, nodes or section.job_limit)
    return layout, nodes or section.job_count(request.shots, layout.processes)


def node_layout(site: Site, request: ResourceRequest, jobs: int) -> Layout:
    """Divide a node as the site file describes it; the request is for all ``jobs`` together, one node each.

    Raises InputError if the request does not fit, or the site file describes neither the node nor its workers.
    """
    worker, node = site.config.worker, site.config.node
    unknown = [name for name in ("cores", "memory") if getattr(node, name) is None]
    auto = [name for name in ("processes", "threads", "memory") if getattr(worker, name) == "auto"]
    if unknown and auto:
        missing = f"node.{unknown[0]}"
        key = f"{site.path or site.name}: worker.{auto[0]}"
        raise InputError(f'{key}: is "auto", but {missing} is not set; give a number, or set {missing}')
    cores = node.cores or int(worker.processes) * int(worker.threads)
    memory = node.memory or int(worker.processes) * float(worker.memory)
    limit = f"{site.name} has {cores} on a node (node.cores)"
    return divide(worker, request.share(jobs), cores, memory * 1e9, f"a node of {site.name}", limit)


def allocated_layout(site: Site, node: Node, request: ResourceRequest) -> Layout:
    """Divide the part of an allocated node that belongs to the job; the request is for this node.

    Raises InputError if the request does not fit, or the memory of the node is unknown.
    """
    config = site.config
    cores = max(1, node.cpus // config.node.hardware_threads)
    if node.memory is not None:
        memory: float = node.memory
    elif config.node.memory is not None:
        memory = config.node.memory * 1e9
    elif config.worker.memory != "auto":
        memory = config.worker.memory * 1e9 * cores
    else:
        unknown = f"the batch system does not report the memory of {node.name}"
        raise InputError(f"{site.path or site.name}: {unknown}; set node.memory or worker.memory")
    limit = f"the job has {cores} on {node.name}"
    return divide(config.worker, request, cores, memory, f"node {node.name}", limit)
