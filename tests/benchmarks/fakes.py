"""A cluster of light workers on this machine, its scheduler and workers in processes of their own that report their costs.

For driver_at_scale.py, in a module that tasks and spawned processes can import by name.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import resource
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import dask
import numpy as np
from distributed import Scheduler, SpecCluster, Worker
from distributed.diagnostics.plugin import SchedulerPlugin
from numpy.typing import NDArray
from tornado.iostream import IOStream

from hpcfwi.artifacts import StagedFile
from hpcfwi.cluster.network import scheduler_options
from hpcfwi.cluster.pool import POOL_SETTINGS, SCHEDULER_SETTINGS
from hpcfwi.config.site import NetworkSection
from hpcfwi.events.types import ShotDone
from hpcfwi.execution.shot_worker import ShotContext
from hpcfwi.execution.tasks import log_event, save_part, task
from hpcfwi.inversion.functional_gradient import FunctionalGradient
from hpcfwi.model.grid import TimeAxis

HOST = "127.0.0.1"
# Values of a gradient that are drawn; they are repeated over it, so that what a sum should be is known at little cost.
DRAWN = 1021
# Seconds that a fake shot takes, in a worker's process.
shot_seconds = 0.0

# Workers without monitoring: 500 of them in two processes would spend all their time on it.
LIGHT = {
    **SCHEDULER_SETTINGS,
    **POOL_SETTINGS,
    "distributed.admin.system-monitor.interval": "60s",
    "distributed.worker.profile.enabled": False,
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": False,
}


def drawn(name: str) -> FunctionalGradient:
    """Misfit of a fake shot, and the values that its gradient repeats."""
    random = np.random.default_rng(int(name))
    return FunctionalGradient(float(random.normal()), random.normal(size=DRAWN))


@task
def fake_shot(
    context: ShotContext,
    name: str,
    model: StagedFile,  # noqa: ARG001 - the arguments of a real one
    shot: StagedFile,  # noqa: ARG001
    axis: TimeAxis,  # noqa: ARG001
    evaluation: int,
    keep: Path | None = None,
) -> FunctionalGradient:
    """A shot of the size that the context's grid has, which costs nothing (a task)."""
    started = time.perf_counter()
    values = drawn(name)
    result = FunctionalGradient(values.f, np.resize(values.g, context.spec.domain.shape))
    time.sleep(shot_seconds)
    log_event(
        ShotDone,
        shot=name,
        evaluation=evaluation,
        misfit=result.f,
        seconds=time.perf_counter() - started,
        kernel_seconds=shot_seconds,
        peak_memory=0,
    )
    return save_part(result, keep)


@dataclass
class _Traffic:
    """Bytes that went through this process's sockets."""

    sent: int = 0
    received: int = 0


traffic = _Traffic()


def count_traffic() -> None:
    """Count what Dask sends and receives in this process from now on."""
    read, write = IOStream.read_from_fd, IOStream.write_to_fd

    def counted_read(self: IOStream, buffer: Any) -> int | None:
        size = read(self, buffer)
        traffic.received += size or 0
        return size

    def counted_write(self: IOStream, data: memoryview) -> int:
        size = write(self, data)
        traffic.sent += size
        return size

    IOStream.read_from_fd, IOStream.write_to_fd = counted_read, counted_write


def forget_peak() -> None:
    """Let the peak of this process's memory begin with what it has now."""
    Path("/proc/self/clear_refs").write_text("5")


def memory(pid: int | str = "self", what: str = "VmRSS") -> int:
    """Memory of a process, bytes, now (``VmRSS``) or at its peak (``VmHWM``)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(what):
            return int(line.split()[1]) * 1024
    return 0


def costs() -> dict[str, int | float]:
    """What this process has cost so far: CPU seconds, bytes of memory, bytes sent and received."""
    return {
        "cpu": time.process_time(),
        "memory": memory(),
        "peak": memory(what="VmHWM"),
        "sent": traffic.sent,
        "received": traffic.received,
    }


class Held(SchedulerPlugin):
    """Counts the parts that workers hold, gradients of shots and sums; copies on their way to a sum are not counted."""

    name = "held"

    def __init__(self) -> None:
        self.held = self.most = 0

    def transition(self, key: Any, start: str, finish: str, *_: Any, **facts: Any) -> None:  # noqa: ARG002
        """Dask's hook."""
        self.held += (finish == "memory") - (start == "memory")
        self.most = max(self.most, self.held)


def _answer(connection: Connection, **answers: Callable[[], Any]) -> None:
    """Answer questions until the connection is closed; then end the process at once."""
    with suppress(EOFError, OSError):
        while True:
            connection.send(answers[connection.recv()]())
    os._exit(0)


def _in_background(connection: Connection, **answers: Callable[[], Any]) -> None:
    every = {"costs": costs, "forget peak": forget_peak, **answers}
    threading.Thread(target=_answer, args=(connection,), kwargs=every, daemon=True).start()


def serve_scheduler(connection: Connection) -> None:
    """Run a scheduler; send its address first."""
    count_traffic()

    async def serve() -> None:
        async with Scheduler(**scheduler_options(NetworkSection(), HOST)) as scheduler:
            held = Held()
            connection.send(scheduler.address)
            _in_background(
                connection,
                held=lambda: held.most,
                hold=lambda: scheduler.loop.add_callback(scheduler.add_plugin, held),
            )
            await scheduler.finished()

    with dask.config.set(LIGHT):
        asyncio.run(serve())


def serve_workers(connection: Connection, address: str, count: int, seconds: float, folder: str) -> None:
    """Run workers of one thread each in one event loop; send their number when all are there."""
    global shot_seconds
    shot_seconds = seconds

    async def serve() -> None:
        async with AsyncExitStack() as stack:
            workers = [
                Worker(address, nthreads=1, memory_limit=0, dashboard=False, local_directory=folder, host=HOST)
                for _ in range(count)
            ]
            for worker in workers:  # one after the other: how many can start at once is not measured here
                await stack.enter_async_context(worker)
            connection.send(count)
            _in_background(connection)
            await asyncio.gather(*(worker.finished() for worker in workers))

    with dask.config.set(LIGHT):
        asyncio.run(serve())


def serve_watch(connection: Connection, pids: list[int]) -> None:
    """Watch the memory of processes; answer with the most that they had together."""
    together = {"most": 0, "now": 0}

    def most() -> int:
        found, together["most"] = together["most"], together["now"]
        return found

    connection.send(len(pids))
    _in_background(connection, most=most)
    statm = [Path(f"/proc/{pid}/statm") for pid in pids]
    page = resource.getpagesize()
    while True:
        together["now"] = sum(int(path.read_text().split()[1]) for path in statm) * page
        together["most"] = max(together["most"], together["now"])
        time.sleep(0.01)


class Served:
    """One of these processes, with a pipe for questions.

    Parameters
    ----------
    serve
        Function that the process runs.
    arguments
        Arguments of that function after the connection.

    Attributes
    ----------
    ready
        The first message of the process.
    """

    def __init__(self, serve: Callable[..., None], *arguments: Any) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._connection, other = spawn.Pipe()
        self.process = spawn.Process(target=serve, args=(other, *arguments), daemon=True)
        self.process.start()
        other.close()
        self.ready: Any = None

    def wait(self) -> Any:
        """Wait until it is ready; return its first message."""
        self.ready = self._connection.recv()
        return self.ready

    def ask(self, what: str) -> Any:
        """Ask for ``costs``, or another of its answers."""
        self._connection.send(what)
        return self._connection.recv()

    def close(self) -> None:
        """End it."""
        self._connection.close()
        self.process.join(5)
        self.process.kill()


@dataclass
class FakeCluster:
    """A scheduler's address, its process unless it is in this one, processes with workers, and one that watches these."""

    address: str
    scheduler: Served | None
    workers: list[Served]
    watch: Served


@contextmanager
def fake_cluster(workers: int, processes: int, seconds: float, together: bool, folder: Path) -> Iterator[FakeCluster]:
    """Start a scheduler (here, if it is to be ``together`` with the driver) and workers; end them at the end."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        stack.enter_context(dask.config.set(LIGHT))

        def started(*what: Any) -> Served:
            served = Served(*what)
            stack.callback(served.close)
            return served

        if together:
            options = scheduler_options(NetworkSection(), HOST)
            cluster = stack.enter_context(SpecCluster(workers={}, scheduler={"cls": Scheduler, "options": options}))
            scheduler, address = None, cluster.scheduler_address
        else:
            scheduler = started(serve_scheduler)
            address = scheduler.wait()
        counts = [len(part) for part in np.array_split(np.arange(workers), processes)]
        those = [started(serve_workers, address, count, seconds, str(folder)) for count in counts]
        for served in those:
            served.wait()
        watch = started(serve_watch, [served.process.pid for served in those])
        watch.wait()
        yield FakeCluster(address, scheduler, those, watch)


def oracle(shots: int, block: int) -> tuple[float, NDArray[np.float64]]:
    """What the sum should be, to the byte: plain NumPy, ``block`` parts at a time, from left to right."""
    values = [drawn(str(i)) for i in range(shots)]
    f, g = np.array([value.f for value in values]), np.array([value.g for value in values])
    while len(f) > 1:
        starts = range(0, len(f), block)
        f = np.array([np.add.accumulate(f[start : start + block])[-1] for start in starts])
        g = np.array([np.add.accumulate(g[start : start + block])[-1] for start in starts])
    return float(f[0]), g[0]
