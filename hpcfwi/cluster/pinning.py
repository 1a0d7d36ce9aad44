"""Gives each worker process of a node cores of its own; a preload script of Dask workers.

OpenMP takes its places from the process's affinity when its library is loaded, so this has to come before any kernel.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

__all__ = ["PROCESSES", "THREADS", "cores_of", "dask_setup", "share"]

# Variables by which a job tells its processes how the node is divided.
PROCESSES, THREADS = "HPCFWI_PROCESSES", "HPCFWI_THREADS"
BINDING = ("OMP_PROC_BIND", "OMP_PLACES")
SIBLINGS = Path("/sys/devices/system/cpu")


def dask_setup(worker: Any) -> None:
    """Called by Dask in the worker process, before its first task."""
    if PROCESSES not in os.environ:
        return
    processes, threads = (int(os.environ.get(name, "0")) for name in (PROCESSES, THREADS))
    # of one process the name is that of the job or node, of several it ends in their numbers
    number = re.search(r"-(\d+)$", str(worker.name)) if processes > 1 else None
    index = int(number[1]) if number else 0
    mine = share(cores_of(os.sched_getaffinity(0)), processes, threads, index)
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


def share(cores: list[tuple[int, ...]], processes: int, threads: int, index: int) -> list[tuple[int, ...]]:
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
