"""Looks after the worker jobs of a cluster: tells what becomes of them, and replaces those that have ended."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distributed.diagnostics.plugin import SchedulerPlugin

from hpcfwi.batch.base import BatchSystem, JobState, SubmissionError
from hpcfwi.cluster.draining import Draining, jobs_of
from hpcfwi.cluster.job_script import WorkerJob
from hpcfwi.cluster.pool import Listener, Workload, tail_of
from hpcfwi.errors import RunError
from hpcfwi.events.types import JobDrained, JobDraining, JobLost, JobRejected, JobStateChanged, RunWarning

__all__ = ["JobMonitor"]

# Seconds between two looks at the queue.
POLL_INTERVAL_S = 2.0
# Seconds after which a job that runs without a worker of ours has failed.
SILENT_JOB_TIMEOUT_S = 120.0
# Jobs in a row that end before their worker has come, after which it is no accident.
FALSE_STARTS = 3
# Such jobs on one node, not all in a row, after which it is the node.
FALSE_ON_A_NODE = 2
HOUR = 3600.0
# Seconds after which a job that was refused, while others were there, is submitted again.
RESUBMIT_DELAY_S = 60.0


@dataclass
class _Known:
    """What was seen of a job last."""

    state: JobState
    had_worker: bool = False
    silent_since: float | None = None
    running_since: float | None = None
    hopeless: bool = False


class _Arrivals(SchedulerPlugin):
    """Names of all jobs from which a worker has ever come, however short it stayed."""

    name = "hpcfwi-arrivals"

    def __init__(self) -> None:
        self.jobs: set[str] = set()

    def add_worker(self, scheduler: Any, worker: str) -> None:
        self.jobs |= jobs_of(scheduler.workers[worker].name)


@dataclass
class JobMonitor:
    """Looks at the queue every two seconds, in the cluster's own event loop.

    Parameters
    ----------
    cluster
        A cluster of :class:`hpcfwi.cluster.job_script.WorkerJob`.
    batch
        Its batch system.
    target
        Jobs that there should be; None where Dask adapts their number.
    replacements
        At most so many in an hour.
    logs
        Folder of the jobs' output.
    listener
        Who hears about the workers.
    workload
        What they compute.
    avoid
        Nodes that new jobs are not to be on, shared with who submits them.
    """

    cluster: Any
    batch: BatchSystem
    target: int | None
    replacements: int
    logs: Path
    listener: Listener = field(default_factory=Listener)
    workload: Workload = field(default_factory=Workload)
    avoid: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.jobs: dict[str, _Known] = {}
        self.refusal: SubmissionError | None = None
        self.never: tuple[str, JobState] | None = None
        self.trouble: str | None = None
        self._false_starts = 0
        self._false_on: Counter[str] = Counter()
        self._replaced: deque[float] = deque()
        self._spent = False
        self._unanswered: str | None = None
        self._task: asyncio.Task[None] | None = None
        self._numbers: dict[str, str] = {}
        self._again_at = 0.0
        self._arrivals = _Arrivals()
        self._draining = Draining(self.cluster.scheduler, self.workload)

    def start(self) -> None:
        """Begin; to be called in the cluster's event loop."""
        self.cluster.scheduler.add_plugin(self._arrivals)
        self._task = asyncio.ensure_future(self._watch())

    async def stop(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        await self._draining.close()

    async def _watch(self) -> None:
        while True:
            try:
                await self.look()
                self._unanswered = None
            except RunError as error:
                self._warn(str(error))  # a controller that is restarted; workers go on without it
            except Exception as error:
                self._warn(f"worker jobs are not looked after: {type(error).__name__}: {error}")
            await asyncio.sleep(POLL_INTERVAL_S)

    def _warn(self, message: str) -> None:
        """Once, until it goes well again."""
        if self._unanswered is None:
            self.listener.log_event(RunWarning(message=message))
            self.listener.show(f"warning: {message}")
        self._unanswered = message

    async def look(self) -> None:
        """Compare what there is with what there should be."""
        jobs: dict[str, WorkerJob] = dict(self.cluster.workers)
        states = await self.batch.states([job.job_id for job in jobs.values() if job.job_id])
        working = self._working()
        # a job whose worker has been out of reach for a while is ended, and forgotten, by Dask itself
        lost = [name for name in self.cluster.worker_spec if name not in jobs and name in self._numbers]
        for name in lost:
            self._tell_lost(self._numbers[name], "has a worker that is out of reach", self.jobs[self._numbers[name]])
        for name, job in jobs.items():
            if job.refusal is not None:
                self._refused(name, job.refusal)
            elif (
                name in self.cluster.worker_spec
                and job.job_id
                and self._ended(name, job.job_id, states[job.job_id], name in working)
            ):
                lost.append(name)
            elif job.job_id and name in self.cluster.worker_spec and name in working:
                self._drain(name, job, states[job.job_id])
        for job_id in await self._draining.look():
            self.listener.log_event(JobDrained(job=job_id))
        self._numbers.update({name: job.job_id for name, job in jobs.items() if job.job_id})
        for name in lost:
            await self._replace(name)
        self._try_again()

    def _working(self) -> set[str]:
        """Names of jobs that have a worker; one of several processes has a name with a number after it."""
        return {job for worker in self.cluster.scheduler.workers.values() for job in jobs_of(worker.name)}

    def _ended(self, name: str, job_id: str, state: JobState, has_worker: bool) -> bool:
        """Note a job's state; tell whether it has to be replaced."""
        now = time.monotonic()
        known = self.jobs.get(job_id)
        if known is None or known.state != state:
            self.listener.log_event(
                JobStateChanged(
                    job=job_id,
                    worker=name,
                    state=state.state,
                    native_state=state.word,
                    reason=state.reason,
                    nodes=state.nodes,
                )
            )
        if known is None:
            known = self.jobs[job_id] = _Known(state)
        known.state = state
        if name in self._arrivals.jobs:
            known.had_worker = True
            self._false_starts = 0
        if has_worker:
            known.silent_since = None
        if self.batch.hopeless(state):
            # to be seen twice: a reason may be left over from the moment before
            if known.hopeless and self.avoid:
                self.avoid.clear()  # there are no others
                return True
            if known.hopeless:
                self.never = (job_id, state)
            known.hopeless = True
        else:
            known.hopeless = False
        if has_worker or state.state == "pending":
            return False
        if state.state == "running":
            known.silent_since = known.silent_since or now
            if now - known.silent_since < SILENT_JOB_TIMEOUT_S:
                return False
            what = f"has been running for {SILENT_JOB_TIMEOUT_S:g} s without a worker"
        else:
            what = f"has ended ({state})"
        if not known.had_worker:
            self._false_starts += 1
            self._false_on[state.nodes or known.state.nodes] += 1
            what += ", and no worker has come from it"
        self._tell_lost(job_id, what, known)
        return True

    def _drain(self, name: str, job: WorkerJob, state: JobState) -> None:
        """Let another job take the place of one whose time will soon be up, before it is."""
        job_id = str(job.job_id)
        known, now = self.jobs[job_id], time.monotonic()
        known.running_since = known.running_since or now
        unwanted = self._draining.unwanted(name)
        if not unwanted and not self._draining.due(state.left):
            return
        self._draining.begin(name, job)
        self.listener.log_event(JobDraining(job=job_id, seconds_left=state.left, nodes=state.nodes, excluded=unwanted))
        if unwanted:
            self.avoid.add(state.nodes)
        why = f"is on {state.nodes}, where shots fail again and again" if unwanted else f"ends in {state.left:.0f} s"
        self.listener.show(f"worker job {job_id} {why}: it gets no more shots, another one follows")
        self._forget(name)
        known.state = JobState("ended", state.word)
        # one that has lived most of its time is no fault, and does not come too often
        self._submit_another(counts=unwanted or state.left is None or now - known.running_since < state.left)

    def _tell_lost(self, job_id: str, what: str, known: _Known) -> None:
        # it is no longer among those that a worker may come from
        known.state = JobState("ended", known.state.word)
        tail = "" if known.had_worker else self._tail(job_id)
        self.listener.show(f"worker job {job_id} {what}{tail}")
        self.listener.log_event(JobLost(job=job_id, reason=what, had_worker=known.had_worker, log=tail))
        self.avoid |= {node for node, times in self._false_on.items() if node and times >= FALSE_ON_A_NODE}
        if self._false_starts >= FALSE_STARTS:
            self.trouble = (
                f"the last {self._false_starts} worker jobs have ended without a worker; the last of them:\n  job {job_id} "
                f"{what}{tail}"
            )

    def tail_of(self, worker: str) -> str:
        """The end of the output of the job that a worker of this name has come from."""
        return next((self._tail(self._numbers[job]) for job in jobs_of(worker) if job in self._numbers), "")

    def _tail(self, job_id: str) -> str:
        """The end of a job's output, where there is one."""
        return tail_of(self.logs / f"{job_id.partition('.')[0]}.log")

    def _refused(self, name: str, refusal: SubmissionError) -> None:
        """Note a refusal; while other jobs are there the run goes on, and it is tried again later."""
        if self.refusal != refusal:
            self.listener.log_event(
                JobRejected(worker=name, command=refusal.command, exit_code=refusal.code, message=refusal.message)
            )
        self.refusal = refusal
        self.avoid.clear()  # perhaps there are no other nodes
        self._again_at = time.monotonic() + RESUBMIT_DELAY_S
        self.cluster.workers.pop(name, None)
        self.cluster.worker_spec.pop(name, None)

    def _try_again(self) -> None:
        """Submit what was refused a while ago."""
        if self.refusal is not None and time.monotonic() > self._again_at and self.target is not None:
            self.refusal = None
            self.cluster.scale(jobs=self.target)

    @property
    def alive(self) -> bool:
        """Whether any job runs or waits."""
        return any(known.state.state != "ended" for known in self.jobs.values())

    def _forget(self, name: str) -> WorkerJob | None:
        """Take a job out of Dask's hands."""
        self._arrivals.jobs.discard(name)
        self.cluster.worker_spec.pop(name, None)
        job: WorkerJob | None = self.cluster.workers.pop(name, None)
        return job

    async def _replace(self, name: str) -> None:
        """Let another job take the place of one that has ended."""
        job = self._forget(name)
        if job is not None:
            await job.close()  # in case it still stands in the queue
        self._submit_another()

    def _submit_another(self, counts: bool = True) -> None:
        """Submit a job in place of another, unless there were too many that count."""
        now = time.monotonic()
        while self._replaced and now - self._replaced[0] > HOUR:
            self._replaced.popleft()
        if counts and len(self._replaced) >= self.replacements:
            if not self._spent:
                self.listener.show(
                    f"no more than {self.replacements} worker jobs are replaced in an hour (scheduler.replacements): the run "
                    "goes on with those that are left"
                )
            self._spent = True
            if self.target is not None:
                self.target = len(self.cluster.worker_spec)
            return
        if counts:
            self._spent = False
            self._replaced.append(now)
        if self.target is not None and self.trouble is None:
            self.cluster.scale(jobs=self.target)

    def waiting(self) -> str:
        """The queue in one line."""
        states = [known.state for known in self.jobs.values() if known.state.state != "ended"]
        running = sum(state.state == "running" for state in states)
        reasons: dict[str, int] = {}
        for state in states:
            if state.state == "pending":
                reasons[state.reason or state.word] = reasons.get(state.reason or state.word, 0) + 1
        told = [f"{count} waiting ({reason})" for reason, count in reasons.items()]
        return ", ".join([*told, *([f"{running} running"] if running else [])]) or "none in the queue"

    def hopeless(self) -> str | None:
        """Why no worker will come, or None."""
        if self.trouble is not None:
            return self.trouble
        if self.alive or not self._spent:
            return None
        return (
            f"all worker jobs have ended, and {self.replacements} were replaced within an hour (scheduler.replacements)"
        )
