"""Workers on the nodes of the allocation that we are in: a SpecCluster with one entry for each node."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import dask
from distributed import Scheduler
from distributed.deploy.spec import ProcessInterface, SpecCluster
from distributed.security import Security

from hpcfwi.batch.nodes import Allocation, Node, find_allocation
from hpcfwi.cluster.job_script import worker_script
from hpcfwi.cluster.layout import Layout, ResourceRequest, divide
from hpcfwi.cluster.network import driver_address, private_security, scheduler_options
from hpcfwi.cluster.pool import REMOTE, Listener, WorkerPool, Workload, tail_of
from hpcfwi.config.site import Site
from hpcfwi.errors import InputError, RunError
from hpcfwi.events.types import NodeLost
from hpcfwi.io import make_private

__all__ = ["AllocatedWorkers", "NodeWorkers"]

# How often, one after the other, the workers of a node are started again when the command that holds them ends; the seconds
# between, and those after which they count as having worked.
RESTARTS, PAUSE, STEADY = 3, 2.0, 600.0
# Seconds that a node's workers have for ending by themselves.
GRACE = 5.0


class NodeWorkers(ProcessInterface):
    """The workers of one node: a command that holds them, started again when it ends before its time.

    Parameters
    ----------
    scheduler
        Address of the scheduler.
    name
        Name of the workers.
    node
        The node.
    workers
        Whose they are.
    """

    def __init__(self, scheduler: str, name: str, node: Node, workers: AllocatedWorkers) -> None:
        super().__init__(scheduler=scheduler, name=name)
        self.scheduler, self.name, self.node, self.owner = scheduler, name, node, workers
        self.process: asyncio.subprocess.Process | None = None
        self._watching: asyncio.Task[None] | None = None
        self.gone = False

    async def start(self) -> None:
        layout = self.owner.layouts[self.node.name]
        folder = self.owner.run_dir / "logs"
        script, self.log = folder / f"{self.name}.sh", folder / f"{self.name}.log"
        text = worker_script(
            self.owner.site,
            layout,
            self.owner.security,
            self.owner.workload.preload,
            self.scheduler,
            self.name,
            self.log,
        )
        script.write_text(text)
        self.command = self.owner.allocation.command(self.node, script)
        self.log.write_bytes(b"")
        await self._spawn()
        self._watching = asyncio.ensure_future(self._watch())
        await super().start()

    async def _spawn(self) -> None:
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *self.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.owner.allocation.variables(),
                start_new_session=True,  # a terminal's Ctrl-C is for the driver, which ends the workers
            )

    async def _watch(self) -> None:
        """Start the command again when it ends; on a node that is gone it ends every time."""
        restarts = 0
        while not self.gone:
            assert self.process is not None
            began = time.monotonic()
            code = await self.process.wait()
            restarts = 1 if time.monotonic() - began > STEADY else restarts + 1
            self.gone = restarts > RESTARTS
            self.owner.tell_ended(self, code, again=not self.gone)
            if not self.gone:
                await asyncio.sleep(PAUSE)
                await self._spawn()

    async def close(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
        if self.process is not None and self.process.returncode is None:
            for number in (signal.SIGTERM, signal.SIGKILL):
                with suppress(ProcessLookupError):
                    os.killpg(self.process.pid, number)
                with suppress(TimeoutError):
                    await asyncio.wait_for(self.process.wait(), GRACE)
                    break
        await super().close()

    def tail(self) -> str:
        """The end of what the command has said."""
        return tail_of(self.log)


class AllocatedWorkers(WorkerPool):
    """Workers on the nodes of an allocation.

    Parameters
    ----------
    site
        The machine.
    allocation
        The job that we are in.
    layouts
        How each node is divided, by its name; nodes may differ.
    run_dir
        The run folder, which all nodes see.
    listener
        Who hears about the workers.
    workload
        What they compute.
    """

    mode = "allocation"
    no_worker_timeout_s = 300.0

    def __init__(
        self,
        site: Site,
        allocation: Allocation,
        layouts: dict[str, Layout],
        nodes: list[Node],
        run_dir: Path,
        listener: Listener = Listener(),  # noqa: B008 - immutable
        workload: Workload = Workload(),  # noqa: B008 - immutable
    ) -> None:
        super().__init__(min(layouts.values(), key=lambda layout: layout.memory), listener, workload)
        self.site, self.allocation, self.layouts, self.nodes, self.run_dir = site, allocation, layouts, nodes, run_dir
        self.security: Security | None = None
        self.trouble: dict[str, str] = {}

    @classmethod
    def from_environment(
        cls,
        site: Site,
        need: ResourceRequest,
        run_dir: Path,
        listener: Listener = Listener(),  # noqa: B008 - immutable
        workload: Workload = Workload(),  # noqa: B008 - immutable
        count: int | None = None,
    ) -> AllocatedWorkers:
        """Find the allocation, take its first ``count`` nodes (all by default), and divide each of them.

        Raises
        ------
        InputError
            If we are in no allocation, it has fewer nodes, or a shot does not fit on one of them.
        """
        allocation = find_allocation()
        nodes = allocation.nodes()
        if count is not None and count > len(nodes):
            raise InputError(f"--nodes {count}: job {allocation.job} has {len(nodes)}; take at most that many")
        nodes = nodes[:count]
        share = ResourceRequest(-(-need.shots // len(nodes)), need.shot_bytes)
        layouts = {node.name: _layout(site, node, share) for node in nodes}
        return cls(site, allocation, layouts, nodes, run_dir, listener, workload)

    @property
    def threads(self) -> int:
        return max(layout.threads for layout in self.layouts.values())

    @property
    def planned_workers(self) -> int:
        return sum(layout.processes for layout in self.layouts.values())

    @property
    def planned_nodes(self) -> int:
        return len(self.nodes)

    def threads_on(self, host: str) -> int:
        short = host.partition(".")[0]
        return next((x.threads for name, x in self.layouts.items() if name.partition(".")[0] == short), self.threads)

    def __str__(self) -> str:
        names = [node.name for node in self.nodes]
        told = ", ".join(names if len(names) <= 4 else [*names[:3], f"... {names[-1]}"])
        kinds = dict.fromkeys(map(str, self.layouts.values()))
        plural = "s" if len(names) > 1 else ""
        return f"workers on {len(names)} node{plural} of job {self.allocation.job} ({told}), {' or '.join(kinds)}"

    def _prepare(self, stack: ExitStack) -> None:
        make_private(self.run_dir / "logs")
        if self.site.config.network.tls:
            self.security = stack.enter_context(private_security(self.run_dir / "tls"))

    def _start(self) -> SpecCluster:
        network = self.site.config.network
        protocol = "tls://" if self.security else "tcp://"
        options = scheduler_options(network, driver_address(network.interface)) | {
            "security": self.security,
            "protocol": protocol,
        }
        workers = {}
        for number, node in enumerate(self.nodes):
            name = f"hpcfwi-{number}"
            processes = self.layouts[node.name].processes
            group = {"group": [f"-{i}" for i in range(processes)]} if processes > 1 else {}
            workers[name] = {"cls": NodeWorkers, "options": {"node": node, "workers": self}, **group}
        with dask.config.set(REMOTE):
            return _NodeCluster(
                workers=workers,
                scheduler={"cls": Scheduler, "options": options},
                security=self.security,
                name="hpcfwi",
                silence_logs=False,
            )

    def log_tail(self, worker: str) -> str:
        path = self.run_dir / "logs" / f"{worker}.log"
        if not path.exists():  # of several processes each has the node's name and a number after it
            path = path.with_name(f"{worker.rpartition('-')[0]}.log")
        return tail_of(path)

    def tell_ended(self, workers: NodeWorkers, code: int, again: bool) -> None:
        """Note that the command which holds a node's workers has ended."""
        what = f"the workers of node {workers.node.name} have ended (exit code {code})"
        tail = workers.tail()
        self.listener.log_event(NodeLost(node=workers.node.name, exit_code=code, restarted=again, log=tail))
        self.listener.show(f"{what}{'; they are started again' if again else '; the node is given up'}{tail}")
        if not again:
            self.trouble[workers.node.name] = f"{what}{tail}"

    def check(self, idle: float) -> None:
        if len(self.trouble) == len(self.nodes):
            raise RunError(
                "no node of the allocation has workers any more; the last of them:\n  "
                f"{list(self.trouble.values())[-1]}\n  What was finished is kept: start the same command again."
            )
        super().check(idle)


class _NodeCluster(SpecCluster):
    """A cluster whose nodes look after their workers themselves."""

    def _update_worker_status(self, op: str, msg: Any) -> None:
        """Dask would close a node whose worker has been away for a while; it may come again."""
        super(SpecCluster, self)._update_worker_status(op, msg)


def _layout(site: Site, node: Node, need: ResourceRequest) -> Layout:
    config = site.config
    cores = max(1, node.cpus // config.node.hardware_threads)
    memory = node.memory
    if memory is None and config.node.memory is not None:
        memory = int(config.node.memory * 1e9)
    if memory is None:
        if config.worker.memory == "auto":
            raise InputError(
                f"{site.path or site.name}: the batch system does not tell the memory of {node.name}; set node.memory or "
                "worker.memory"
            )
        memory = int(config.worker.memory * 1e9) * cores
    layout = divide(config.worker, need, cores, memory, f"node {node.name}")
    if layout.cores > cores:
        raise InputError(
            f"site.worker.processes: {layout.processes} processes of {layout.threads} threads need {layout.cores} cores, the "
            f"job has {cores} on {node.name}"
        )
    return layout
