"""Workers on the nodes of the driver's own batch job."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import sys
import time
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

import dask
from distributed import Scheduler
from distributed.deploy.spec import ProcessInterface, SpecCluster
from distributed.security import Security

from hpcfwi.batch.base import BatchSystem, Node
from hpcfwi.batch.registry import current_batch_system
from hpcfwi.cluster.environment import DEATH_TIMEOUT_S, script_lines, worker_arguments
from hpcfwi.cluster.layout import ResourceRequest, allocated_layout
from hpcfwi.cluster.network import network_options
from hpcfwi.cluster.pool import (
    KEEP_LOST_WORKERS,
    NOT_IN_A_JOB,
    SCHEDULER_SETTINGS,
    START_AGAIN,
    Listener,
    WorkerPool,
    Workload,
    log_tail,
    prepare_run_dir,
)
from hpcfwi.config.site import Site
from hpcfwi.errors import InputError, RunError
from hpcfwi.events.types import NodeLost

# The command that runs the workers of a node is restarted at most this often in a row, after this pause. The count starts over
# once the command has run for STEADY_S.
MAX_RESTARTS, RESTART_PAUSE_S, STEADY_S = 3, 2.0, 600.0
TERMINATE_TIMEOUT_S = 5.0  # for workers to end by themselves after SIGTERM


def allocated_nodes() -> tuple[BatchSystem, list[Node]]:
    """Return the batch system and the nodes of the job that this process runs in.

    Raises InputError outside a job, and RunError if the nodes are unknown.
    """
    batch = current_batch_system()
    if batch is None:
        raise InputError(NOT_IN_A_JOB)
    return batch, batch.nodes()


class NodeWorkers(ProcessInterface):
    """The workers of one node: the command that runs them, restarted if it ends too early."""

    def __init__(self, scheduler: str, name: str, node: Node, pool: AllocatedWorkers) -> None:
        super().__init__(scheduler=scheduler, name=name)
        self.scheduler, self.name, self.node, self.pool = scheduler, name, node, pool
        self.log = pool.run_dir / "logs" / f"{name}.log"
        self._process: asyncio.subprocess.Process | None = None
        self._watching: asyncio.Task[None] | None = None

    async def start(self) -> None:
        script = self.log.with_suffix(".sh")
        script.write_text(self.pool.worker_script(self.node, self.scheduler, self.name, self.log))
        self._command, self._environment = self.pool.batch.start_command(self.node, script)
        self.log.write_bytes(b"")
        self._process = await self._spawn()
        self._watching = asyncio.ensure_future(self._watch(self._process))
        await super().start()

    async def _spawn(self) -> asyncio.subprocess.Process:
        with self.log.open("ab") as log:
            return await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=True,  # Ctrl-C only reaches the driver, which ends the workers
            )

    async def _watch(self, process: asyncio.subprocess.Process) -> None:
        """Restart the command when it ends, a few times: on a dead node it ends every time."""
        restarts = 0
        while restarts <= MAX_RESTARTS:
            started = time.monotonic()
            code = await process.wait()
            restarts = 1 if time.monotonic() - started > STEADY_S else restarts + 1
            self.pool.on_workers_ended(self, code, again=restarts <= MAX_RESTARTS)
            if restarts <= MAX_RESTARTS:
                await asyncio.sleep(RESTART_PAUSE_S)
                process = self._process = await self._spawn()

    async def close(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
        if self._process is not None and self._process.returncode is None:
            for number in (signal.SIGTERM, signal.SIGKILL):
                with suppress(ProcessLookupError):
                    os.killpg(self._process.pid, number)
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._process.wait(), TERMINATE_TIMEOUT_S)
                    break
        await super().close()


class AllocatedWorkers(WorkerPool):
    """Workers on the first ``count`` nodes (all by default) of this process's job; nodes may differ.

    Raises InputError outside a job, if the job has fewer nodes, or if a shot does not fit on a node.
    """

    mode = "allocation"
    no_worker_timeout_s = 300.0

    def __init__(
        self,
        site: Site,
        request: ResourceRequest,
        run_dir: Path,
        listener: Listener = Listener(),
        workload: Workload = Workload(),
        count: int | None = None,
    ) -> None:
        self.batch, nodes = allocated_nodes()
        if count is not None and count > len(nodes):
            raise InputError(f"--nodes {count}: job {self.batch.job_id} has only {len(nodes)}")
        nodes = nodes[:count]
        share = request.share(len(nodes))
        self._layouts = {node: allocated_layout(site, node, share) for node in nodes}
        smallest = min(self._layouts.values(), key=lambda layout: layout.memory)
        if smallest.choice is not None:  # all workers compute shots in the same way
            share = replace(share, shot_bytes=smallest.choice.shot_bytes, choices=(smallest.choice,))
            self._layouts = {node: allocated_layout(site, node, share) for node in nodes}
            smallest = min(self._layouts.values(), key=lambda layout: layout.memory)
        super().__init__(smallest, listener, workload, len(nodes))
        self.threads = max(layout.threads for layout in self._layouts.values())
        self.planned_workers = sum(layout.processes for layout in self._layouts.values())
        self.layouts = {node.name.partition(".")[0]: layout for node, layout in self._layouts.items()}
        self.site, self.run_dir = site, run_dir
        self._security: Security | None = None
        self._lost: dict[str, str] = {}

    @property
    def expected(self) -> tuple[int, int]:
        left = [layout.processes for node, layout in self._layouts.items() if node.name not in self._lost]
        return len(left), sum(left)

    def threads_on(self, host: str) -> int:
        layout = self.layouts.get(host.partition(".")[0])
        return layout.threads if layout is not None else self.threads

    def __str__(self) -> str:
        names = [node.name for node in self._layouts]
        listed = ", ".join(names if len(names) <= 4 else [*names[:3], f"... {names[-1]}"])
        kinds = " or ".join(dict.fromkeys(map(str, self._layouts.values())))
        plural = "s" if len(names) > 1 else ""
        return f"workers on {len(names)} node{plural} of job {self.batch.job_id} ({listed}), {kinds}"

    def worker_script(self, node: Node, scheduler: str, name: str, log: Path) -> str:
        """Return the script that starts a node's workers and writes their log, since not every start command does."""
        site, layout = self.site.config, self._layouts[node]
        interface = site.network.worker_interface or site.network.interface
        python = site.environment.python or shlex.quote(sys.executable)
        words = [
            f"exec {python} -m distributed.cli.dask_worker {scheduler}",
            f"--name {name} --nthreads 1 --nworkers {layout.processes} --memory-limit {layout.memory} --nanny",
            f'--death-timeout {DEATH_TIMEOUT_S} --local-directory "$TMPDIR"',
            f"--protocol {'tls' if self._security else 'tcp'}://",
            *worker_arguments(site, self.workload.preload),
            *(["--interface", interface] if interface else []),
        ]
        shebang = "#!/bin/bash -l" if site.environment.modules else "#!/bin/bash"
        own_log = f"exec >>{shlex.quote(str(log))} 2>&1"
        return "\n".join([shebang, own_log, *script_lines(site, layout, self._security), " ".join(words), ""])

    def _prepare(self, stack: ExitStack) -> None:
        stack.enter_context(dask.config.set(KEEP_LOST_WORKERS))
        self._security = prepare_run_dir(self.site, self.run_dir, stack)

    def _start(self) -> SpecCluster:
        workers = {}
        for number, (node, layout) in enumerate(self._layouts.items()):
            group = {"group": [f"-{i}" for i in range(layout.processes)]} if layout.processes > 1 else {}
            workers[f"hpcfwi-{number}"] = {"cls": NodeWorkers, "options": {"node": node, "pool": self}, **group}
        scheduler = {"cls": Scheduler, "options": network_options(self.site.config.network, self._security)}
        with dask.config.set(SCHEDULER_SETTINGS):
            return SpecCluster(workers, scheduler, security=self._security, name="hpcfwi", silence_logs=False)

    def log_tail(self, worker: str) -> str:
        path = self.run_dir / "logs" / f"{worker}.log"
        if not path.exists():  # several workers on a node share a log; each has a number in its name
            path = path.with_name(f"{worker.rpartition('-')[0]}.log")
        return log_tail(path)

    def on_workers_ended(self, workers: NodeWorkers, code: int, again: bool) -> None:
        """Report that the workers of a node have ended; unless they are restarted, the node is lost."""
        node, tail = workers.node.name, log_tail(workers.log)
        ended = f"the workers of node {node} have ended (exit code {code})"
        self.listener.log_event(NodeLost(node=node, exit_code=code, restarted=again, log=tail))
        self.listener.show(f"{ended}{'; restarting them' if again else '; the node is no longer used'}{tail}")
        if not again:
            self._lost[node] = f"{ended}{tail}"

    def check(self, idle_s: float) -> None:
        if len(self._lost) == len(self._layouts):
            last = list(self._lost.values())[-1]
            problem = f"all nodes of the allocation have lost their workers; the last one:\n  {last}"
            raise RunError(f"{problem}\n  {START_AGAIN}.")
        super().check(idle_s)
