"""The job monitor: watches the worker jobs of a cluster, replaces those that end, and drains those that end soon."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distributed.diagnostics.plugin import SchedulerPlugin

from hpcfwi.batch.base import CommandResult, JobState
from hpcfwi.cluster.jobqueue_internals import WorkerJob, forget_job
from hpcfwi.cluster.pool import log_tail
from hpcfwi.errors import RunError
from hpcfwi.events.types import JobDrained, JobDraining, JobLost, JobRejected, JobStateChanged, RunWarning

if TYPE_CHECKING:
    from hpcfwi.cluster.jobs import WorkerJobs

POLL_INTERVAL_S, HOUR_S = 2.0, 3600.0
NO_WORKER_TIMEOUT_S = 120.0  # a job that runs this long without a connected worker has failed
# A start fails if the job ends, or runs for NO_WORKER_TIMEOUT_S, before a worker connects. After this many failed starts
# while no job has had a worker, no more jobs are submitted; after this many on one node, new jobs avoid that node.
MAX_FAILED_STARTS, MAX_FAILED_STARTS_ON_NODE = 3, 2
RESUBMIT_DELAY_S = 60.0  # after which a job that was rejected while others run is submitted again
# A job is drained when it ends within this multiple of the longest recent task plus the time to hand over results.
DRAIN_SAFETY_FACTOR, HANDOVER_S = 1.2, 15.0


def job_names(worker: object) -> set[str]:
    """Return the possible names of a worker's job: with several workers, each has the job's name and a number."""
    return {str(worker), str(worker).rpartition("-")[0]}


@dataclass
class _Job:
    """The monitor's record of a worker job."""

    number: str
    state: JobState
    no_worker_since: float | None = None
    worker_since: float | None = None
    stuck: bool = False  # whether its last state means that it will never start


class _ConnectionRecorder(SchedulerPlugin):
    """Records the jobs from which a worker has ever connected, however briefly."""

    name = "hpcfwi-connections"

    def __init__(self) -> None:
        self.jobs: set[str] = set()

    def add_worker(self, scheduler: Any, worker: str) -> None:
        self.jobs |= job_names(scheduler.workers[worker].name)


class JobMonitor:
    """Compares the worker jobs of a pool with the queue every two seconds, in the event loop of their ``cluster``."""

    def __init__(self, pool: WorkerJobs, cluster: Any) -> None:
        self.pool, self.cluster, self.batch, self.listener = pool, cluster, pool.batch, pool.listener
        self.excluded_nodes = pool.excluded_nodes
        self.max_replacements = pool.site.config.scheduler.replacements
        self.target = pool.planned_nodes  # number of jobs to keep running
        self.jobs: dict[str, _Job] = {}
        self.rejection: CommandResult | None = None  # the last one, unless a job has run since
        self.stuck: tuple[str, JobState] | None = None  # number and state of a job that will never start
        self._failure: str | None = None  # why no more jobs are submitted
        self._failed_starts = 0  # since a job that is still there had a worker
        self._last_lost = ""  # description of the last lost job
        self._failed_starts_on: Counter[str] = Counter()  # by node
        self._replacements: deque[float] = deque()  # when jobs were replaced within the last hour
        self._exhausted = False  # whether the limit of replacements is reached
        self._resubmit_at: float | None = None  # when rejected jobs are submitted again
        self._draining: dict[str, tuple[WorkerJob, float]] = {}  # jobs that get no more tasks, and when draining began
        self._connections = _ConnectionRecorder()
        self._warned = False
        self._task: asyncio.Task[None] | None = None

    @property
    def alive(self) -> bool:
        """Whether any job is running or waiting."""
        return any(job.state.state != "ended" for job in self.jobs.values())

    def queue_summary(self) -> str:
        """Return the states of all jobs in one line."""
        states = [job.state for job in self.jobs.values()]
        waiting = Counter(state.reason or state.word for state in states if state.state == "pending")
        running = sum(state.state == "running" for state in states)
        parts = [f"{count} waiting ({reason})" for reason, count in waiting.items()]
        return ", ".join([*parts, *([f"{running} running"] if running else [])]) or "none in the queue"

    def failure(self) -> str | None:
        """Return why no more workers will come, or None."""
        if self._failure is not None or self.alive or not self._exhausted:
            return self._failure
        replaced = f"{self.max_replacements} were replaced within an hour (scheduler.replacements)"
        return f"all worker jobs have ended, and {replaced}"

    def log_tail(self, worker: str) -> str:
        """Return the last lines of the output of a worker's job, each after a line feed."""
        job = next((self.jobs[name] for name in job_names(worker) if name in self.jobs), None)
        return log_tail(self.pool.run_dir / "logs" / f"{job.number}.log") if job is not None else ""

    def start(self) -> None:
        """Start to watch; call this in the event loop of the cluster."""
        self.cluster.scheduler.add_plugin(self._connections)
        self._task = asyncio.ensure_future(self._watch())

    async def stop(self) -> None:
        """Stop watching, and end the jobs that are drained."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        for job, _ in self._draining.values():
            await job.close()

    async def _watch(self) -> None:
        while True:
            try:
                await self.poll()
                self._warned = False
            except RunError as error:
                self._warn(str(error))  # workers keep running while Slurm's controller restarts
            except Exception as error:
                self._warn(f"the state of the worker jobs is unknown: {type(error).__name__}: {error}")
            await asyncio.sleep(POLL_INTERVAL_S)

    def _warn(self, message: str) -> None:
        """Show a warning, unless the last poll failed as well."""
        if not self._warned:
            self.listener.log_event(RunWarning(message=message))
            self.listener.show(f"warning: {message}")
        self._warned = True

    async def poll(self) -> None:
        """Compare the jobs with the queue once; replace lost jobs and drain those that end soon."""
        jobs: dict[str, WorkerJob] = dict(self.cluster.workers)
        numbers = [job.job_id for job in jobs.values() if job.job_id]
        states = await asyncio.to_thread(self.batch.states, numbers)
        planned = self.cluster.worker_spec
        for name in self.jobs.keys() - jobs.keys() - self._draining.keys():
            self._note_end(name)
        connected = {name for worker in self.cluster.scheduler.workers.values() for name in job_names(worker.name)}
        # Dask itself ends and forgets a job whose worker does not answer for a while
        lost = [name for name in planned if name not in jobs and name in self.jobs]
        for name in lost:
            self._report_lost(name, "has a worker that does not answer")
        for name, job in jobs.items():
            if job.rejection is not None:
                self._note_rejection(name, job.rejection)
            elif job.job_id and name in planned:
                if self._is_lost(name, job, states[job.job_id], name in connected):
                    lost.append(name)
                elif name in connected:
                    self._drain_if_due(name, job, states[job.job_id])
        if any(job.state.state == "running" for job in self.jobs.values()):
            self.rejection = self.stuck = None
        self._judge_starts(name for name in {*jobs, *self._draining} if name not in lost)
        await self._end_drained()
        for name in lost:
            ended = forget_job(self.cluster, name)
            if ended is not None:
                await ended.close()  # it may still be in the queue
            self._replace()
        if self._resubmit_at is not None and time.monotonic() > self._resubmit_at:
            self.rejection = self._resubmit_at = None
            self.cluster.scale(jobs=self.target)

    def _is_lost(self, name: str, worker_job: WorkerJob, state: JobState, connected: bool) -> bool:
        """Record the state of a job; return whether it has to be replaced."""
        job, number, now = self.jobs.get(name), str(worker_job.job_id), time.monotonic()
        if job is None or job.state != state:
            event = JobStateChanged(job=number, worker=name, state=state.state, native_state=state.word)
            event.reason, event.nodes = state.reason, state.nodes
            self.listener.log_event(event)
        job = self.jobs.setdefault(name, _Job(number, state))
        job.state = state
        if connected:
            job.no_worker_since = None
        stuck_before, job.stuck = job.stuck, self.batch.will_never_start(state)
        if job.stuck and stuck_before:  # in two polls, since the first reason may be outdated
            if worker_job.excludes_nodes:
                self.excluded_nodes.clear()  # perhaps no other nodes exist
                return True
            self.stuck = (number, state)
        if connected or state.state == "pending":
            return False
        if state.state == "running":
            job.no_worker_since = job.no_worker_since or now
            if now - job.no_worker_since < NO_WORKER_TIMEOUT_S:
                return False
            what = f"has been running for {NO_WORKER_TIMEOUT_S:g} s without a worker"
        else:
            what = f"has ended ({state})"
        if name not in self._connections.jobs:
            self._failed_starts += 1
            self._failed_starts_on[state.nodes] += 1
            what += ", and none of its workers ever connected"
        self._report_lost(name, what)
        return True

    def _report_lost(self, name: str, what: str) -> None:
        job, had_worker = self.jobs[name], name in self._connections.jobs
        tail = "" if had_worker else self.log_tail(name)
        self.listener.show(f"worker job {job.number} {what}{tail}")
        self.listener.log_event(JobLost(job=job.number, reason=what, had_worker=had_worker, log=tail))
        failed = self._failed_starts_on.items()
        self.excluded_nodes |= {node for node, count in failed if node and count >= MAX_FAILED_STARTS_ON_NODE}
        self._last_lost = f"job {job.number} {what}{tail}"

    def _judge_starts(self, jobs: Iterable[str]) -> None:
        """Decide whether more jobs may be submitted: not after several failed starts while none of ``jobs`` had a worker."""
        if not self._connections.jobs.isdisjoint(jobs):
            self._failed_starts, self._failure = 0, None
        elif self._failed_starts >= MAX_FAILED_STARTS:
            lost = f"the last {self._failed_starts} worker jobs have ended without a worker; the last one"
            self._failure = f"{lost}:\n  {self._last_lost}"

    def _note_end(self, name: str) -> None:
        """Record that a job is no longer a part of the cluster."""
        job = self.jobs[name]
        if job.state.state != "ended":
            job.state = JobState("ended", job.state.word)
            event = JobStateChanged(job=job.number, worker=name, state="ended", native_state=job.state.word)
            self.listener.log_event(event)

    def _note_rejection(self, name: str, rejection: CommandResult) -> None:
        """Drop a rejected job for now; the run continues with the others."""
        if self.rejection is None or self.rejection.message != rejection.message:
            command, code, message = rejection.command, rejection.code, rejection.message
            self.listener.log_event(JobRejected(worker=name, command=command, exit_code=code, message=message))
        self.rejection = rejection
        self.excluded_nodes.clear()  # perhaps no other nodes exist
        self._resubmit_at = time.monotonic() + RESUBMIT_DELAY_S
        forget_job(self.cluster, name)

    def _replace(self, counts: bool = True) -> None:
        """Replace an ended job, unless too many replacements were counted within an hour."""
        now = time.monotonic()
        while self._replacements and now - self._replacements[0] > HOUR_S:
            self._replacements.popleft()
        if counts and len(self._replacements) >= self.max_replacements:
            if not self._exhausted and self.max_replacements:
                limit = f"at most {self.max_replacements} worker jobs are replaced within an hour"
                self.listener.show(f"{limit} (scheduler.replacements): the run continues with the remaining ones")
            self._exhausted = True
            self.target = len(self.cluster.worker_spec)
            return
        if counts:
            self._exhausted = False
            self._replacements.append(now)
        if self._failure is None:
            self.cluster.scale(jobs=self.target)

    def _workers(self, name: str) -> list[Any]:
        """Return Dask's states of the workers of a job."""
        return [worker for worker in self.cluster.scheduler.workers.values() if name in job_names(worker.name)]

    def _drain_if_due(self, name: str, job: WorkerJob, state: JobState) -> None:
        """Give no more tasks to a job that ends soon, or whose host is excluded, and submit another in its place.

        Dask's own ``--lifetime`` ignores task durations, and kills the running task.
        """
        record, now = self.jobs[name], time.monotonic()
        left_s = None if state.left_s == math.inf else state.left_s
        record.worker_since = record.worker_since or now
        excluded_hosts = self.pool.workload.excluded_hosts()
        excluded = any(worker.host in excluded_hosts for worker in self._workers(name))
        needed = DRAIN_SAFETY_FACTOR * self.pool.workload.longest_task_s() + HANDOVER_S
        if not excluded and (left_s is None or left_s >= needed):
            return
        # where jobs cannot avoid nodes, the job holds its node, so that no replacement starts there
        holds = excluded and not self.batch.exclude_directives([state.nodes])
        self._draining[name] = (job, math.inf if holds else now)
        self.pool.workload.drain([worker.address for worker in self._workers(name)])
        if excluded:
            self.excluded_nodes |= {state.nodes} - {""}
            why = f"is on {state.nodes}, where shots fail repeatedly"
        else:
            why = f"ends in {left_s:.0f} s"
        event = JobDraining(job=record.number, seconds_left=left_s, nodes=state.nodes, excluded=excluded)
        self.listener.log_event(event)
        self.listener.show(f"worker job {record.number} {why}: it gets no more shots, and another job replaces it")
        forget_job(self.cluster, name)
        # a job that has used most of its time is no failure
        self._replace(counts=excluded or left_s is None or now - record.worker_since < left_s)

    async def _end_drained(self) -> None:
        """End the drained jobs whose workers have finished their tasks."""
        scheduler = self.cluster.scheduler
        for name, (job, since) in list(self._draining.items()):
            workers = self._workers(name)
            # a task that was assigned just before may not have arrived yet
            if time.monotonic() - since < POLL_INTERVAL_S or any(worker.processing for worker in workers):
                continue
            addresses = [worker.address for worker in workers]
            retired = await scheduler.retire_workers(addresses) if addresses else {}
            if len(retired) == len(addresses):  # else no other worker can take over their results yet
                del self._draining[name]
                await job.close()
                self.listener.log_event(JobDrained(job=str(job.job_id)))
