"""The threads that really compute, and the cores that they may really use: seen by the operating system, not promised."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ThreadUse", "numbers", "observed_threads", "ranges"]

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
