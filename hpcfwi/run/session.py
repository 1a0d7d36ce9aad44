"""One driver at work on a run folder: workers and solver brought up together, observed data staged, all of it closed again."""

from __future__ import annotations

import gc
import math
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from traceback import format_exc
from typing import TYPE_CHECKING, Any

from rich.console import Console

from hpcfwi.artifacts import StagedFile, read_header
from hpcfwi.batch.registry import CurrentJob
from hpcfwi.cluster.environment import apply_environment, restore_environment, silence_dask
from hpcfwi.config.site import LaunchOptions, Site
from hpcfwi.errors import DataError, HpcfwiError, InputError, Interrupted, RunError, ShotFailed
from hpcfwi.events.log import EventLog
from hpcfwi.events.types import (
    Dashboard,
    DataStaged,
    EvaluationStarted,
    FirstWorkers,
    RunClosed,
    RunFailed,
    RunInterrupted,
    RunWarning,
    ShotExcluded,
    ShotRetried,
    Solver,
    StagingData,
    SumsFound,
)
from hpcfwi.model.problem import Problem
from hpcfwi.process import (
    defer_interrupts,
    gc_paused,
    ignoring_signals_at_exit,
    interrupted,
    received_signal,
    stop_requested,
)
from hpcfwi.reporting.progress import Progress
from hpcfwi.run.folder import RunFolder
from hpcfwi.run.plan import make_plan
from hpcfwi.run.reproducibility import DRIVERS, WORKERS, Reproducibility, start_event
from hpcfwi.run.worker_events import Failures, WorkerEvents
from hpcfwi.solver.engine import SleepingShots
from hpcfwi.solver.spec import SolverSpec

if TYPE_CHECKING:  # imports Dask, for which the command line has no time
    from hpcfwi.cluster.pool import WorkerPool

__all__ = ["Session", "session"]

# Seconds for the shots in hand after a signal (schedulers kill after 30 by default), and to end workers and the driver.
LAST_SHOTS, CLOSING = 20.0, 10.0
# A SIGTERM that comes so many seconds before the job's end, at most, is the scheduler's; an earlier one is somebody's scancel.
WITH_THE_END = 60.0


@contextmanager
def session(
    problem: Problem,
    site: Site,
    options: LaunchOptions,
    folder: RunFolder,
    console: Console,
    stand_in: SleepingShots | None = None,
) -> Iterator[Session]:
    """Everything that has to be closed again: workers, event log, display, scratch."""
    with ExitStack() as stack:
        stack.enter_context(restore_environment())
        stack.callback(gc.unfreeze)  # of a caller from Python: what is garbage after the run has to go
        deafen = stack.enter_context(ignoring_signals_at_exit())
        began = time.perf_counter()
        log = EventLog(folder.events)
        stack.callback(log.close)
        stack.callback(_tell_closed, log, began)
        progress = stack.enter_context(Progress(console, log.state))
        log.on_event = progress.on_event
        end = CurrentJob()
        try:
            ready = Session(problem, site, options, folder, log, progress, end, stack, stand_in)
            try:
                yield ready
            finally:
                ready.failures.sum_up()
        except BaseException as error:
            if isinstance(error, (KeyboardInterrupt, Interrupted)) or interrupted():
                reason = str(error) if isinstance(error, Interrupted) else _signal()
                with suppress(RunError):
                    log.write(RunInterrupted(reason=reason))
                told = f"stopped: {reason}" if reason else "stopped"
                raise Interrupted(
                    f"{told}; the same command goes on where it was ({folder.path})", reason, _time_is_up(end)
                ) from None
            with suppress(RunError):  # a full disk, say, which is the error that is on its way
                where = None if isinstance(error, HpcfwiError) else format_exc()
                log.write(RunFailed(error=type(error).__name__, message=str(error), traceback=where))
            if isinstance(error, HpcfwiError):
                folder.verify()  # whose loss explains the error
            raise
        finally:
            deafen()


def _tell_closed(log: EventLog, began: float) -> None:
    """The last word, when all workers are gone."""
    with suppress(RunError):
        core_hours = round(log.state.core_hours(time.time()), 6)
        log.write(RunClosed(seconds=time.perf_counter() - began, core_hours=core_hours))


def _signal() -> str:
    """What was heard, unless it was Ctrl-C, of which nobody needs to be told."""
    return "" if received_signal() in ("", "SIGINT") else f"{received_signal()} was received"


def grace(signal: str, left: float) -> float:
    """Seconds for the shots in hand after a signal, where the batch job has so many left.

    A warning that comes in good time before a limit is no hurry; after other signals the process is killed soon.
    """
    until_the_end = max(0.0, left - CLOSING)
    unhurried = signal == "SIGUSR1" and math.isfinite(left)
    return until_the_end if unhurried else min(LAST_SHOTS, until_the_end)


def _time_is_up(end: CurrentJob) -> bool:
    """Whether a run stops for want of time: no signal, the warning of a limit that was asked for, or the limit itself."""
    return received_signal() in ("", "SIGUSR1") or (
        received_signal() == "SIGTERM" and end.seconds_left() < WITH_THE_END
    )


def _subscribe(client: Any, topic: str, take: Callable[[bytes], None]) -> None:
    """Have ``take`` called with what is told under a topic from now on.

    Dask's client returns before the scheduler knows of it, and what is told meanwhile would be lost.
    """
    hello, known = b"hello", threading.Event()
    client.subscribe_topic(topic, lambda event: known.set() if event[1] == hello else take(event[1]))
    while not known.is_set():
        client.log_event(topic, hello)
        known.wait(0.01)


def _unsubscribe(client: Any, topic: str) -> None:
    """Or the scheduler writes to a client that is gone, and complains."""
    name = client.id
    with suppress(Exception):
        client.run_on_scheduler(lambda dask_scheduler: dask_scheduler.unsubscribe_topic(topic, name))


class Session:
    """One driver at work on a run folder.

    Attributes
    ----------
    operations
        What is run for each shot.
    tasks
        Where they run.
    """

    def __init__(
        self,
        problem: Problem,
        site: Site,
        options: LaunchOptions,
        folder: RunFolder,
        log: EventLog,
        progress: Progress,
        end: CurrentJob,
        stack: ExitStack,
        stand_in: SleepingShots | None = None,
    ) -> None:
        self.problem, self.folder, self.log, self.progress, self.end = problem, folder, log, progress, end
        self.config, self.stand_in = problem.config, stand_in
        self.started = time.perf_counter()
        self.failures = Failures(progress.print_line)
        self.reproducibility = Reproducibility(folder)
        with gc_paused():  # while Dask and Devito are imported and the solver is built
            self._start(site, options, stack)

    def _start(self, site: Site, options: LaunchOptions, stack: ExitStack) -> None:
        """Bring up workers and solver, at the same time: both take seconds."""
        silence_dask()
        from hpcfwi.cluster.layout import ResourceRequest
        from hpcfwi.cluster.pool import Listener, Workload, launch
        from hpcfwi.execution.affinity import PRELOAD_MODULES, AffinityCheck
        from hpcfwi.execution.plugins.host_exclusion import excluded_hosts
        from hpcfwi.execution.plugins.stragglers import longest_task

        plan = make_plan(self.problem)
        self._check_disk(plan.disk_bytes)
        lost = [f"the survey is used {self.problem.exclusion_note}"] if self.problem.failed_shots else []
        for warning in [*self.problem.warnings, *lost]:
            self.progress.print_line(f"warning: {warning}")
            self.log.write(RunWarning(message=warning))
        self.progress.print_line(f"run folder {self.folder.path}")
        if self.stand_in is not None:
            self.progress.print_line(
                f"{self.stand_in} stand in for the kernels: a study of all the rest, and no inversion"
            )
        need = ResourceRequest(len(self.problem.survey), plan.shot_bytes, self.config.solver.strategy == "sampled")
        workforce = launch(
            site,
            need,
            self.folder.path,
            options,
            Listener(self.progress.print_line, self.log.write),
            Workload(PRELOAD_MODULES, longest_task, excluded_hosts),
        )
        layout = workforce.layout
        apply_environment(site.config, workforce.threads)
        self.log.write(start_event(self.problem, site, workforce, self.stand_in))
        self._tell_reproducibility(workforce.threads)
        self._promise = AffinityCheck(site, workforce.threads_on)
        with defer_interrupts():  # or a folder or a process of theirs would be left that nobody knows of
            stack.enter_context(workforce)
        self._stage_solver(layout.cache_bytes)
        self._connect(workforce, site, stack)

    def _tell_reproducibility(self, threads: int) -> None:
        if threads > 1:
            self.reproducibility.because("several threads per shot")
        if self.folder.other_versions:
            self.reproducibility.because("other versions of hpcfwi or devito began it")
        against = self.reproducibility.against
        if against:
            self.progress.print_line(f"the last bits may differ from run to run: {against}")
        else:
            self.progress.print_line("one thread per shot: the same bytes whatever the number of workers")

    def differs_because(self, reason: str) -> None:
        """Tell, once in the life of a run, what speaks against the same bytes."""
        if self.reproducibility.because(reason):
            self._warn_of_difference(reason)

    def _warn_of_difference(self, reason: str) -> None:
        message = f"the same bytes cannot be promised any more: {reason}"
        self.log.write(RunWarning(message=message))
        self.progress.print_line(f"warning: {message}")

    def _machine(self, role: str, described: dict[str, str]) -> None:
        reason = self.reproducibility.machine(role, described)
        if reason:
            self._warn_of_difference(reason)

    def _check_disk(self, needed: int) -> None:
        free = shutil.disk_usage(self.folder.path).free
        for path in self.folder.path.rglob("*"):
            with suppress(OSError):  # a worker of an earlier start may still give a file its name
                needed -= path.stat().st_size if path.is_file() else 0
        if needed > free:
            raise InputError(
                f"{self.folder.path}: the run needs about {needed / 1e6:.1f} MB of disk, {free / 1e6:.1f} MB are free there; "
                "make room or choose another folder with --run-dir"
            )

    def _stage_solver(self, cache_bytes: int) -> None:
        from hpcfwi.execution.tasks import ShotContext, shot_operations
        from hpcfwi.solver.operators import result_fingerprint, stage_solver

        started, spec = time.perf_counter(), SolverSpec.from_problem(self.problem)
        solver, built = stage_solver(self.folder.staged, spec)
        seconds = time.perf_counter() - started
        self.log.write(Solver(built=built, seconds=seconds, source="driver", digest=solver.digest))
        self.progress.print_line(
            f"solver {'built and compiled' if built else 'found in the run folder'} ({seconds:.1f} s)"
        )
        self._machine(DRIVERS, result_fingerprint())
        context = ShotContext(
            solver,
            spec,
            self.problem.wavelet,
            self.config.solver.boundary_gradient,
            self.config.data.tail,
            cache_bytes,
            self.config.inversion.misfit,
            self.stand_in,
        )
        self.operations = shot_operations(context)

    def _connect(self, workforce: WorkerPool, site: Site, stack: ExitStack) -> None:
        from distributed import Client

        from hpcfwi.execution.batching import BATCH_KEY
        from hpcfwi.execution.executor import DaskExecutor
        from hpcfwi.execution.plugins.heartbeats import HeartbeatMonitor
        from hpcfwi.execution.plugins.host_exclusion import HostExclusion
        from hpcfwi.execution.plugins.queue_depth import QueueDepth
        from hpcfwi.execution.plugins.stragglers import StragglerMonitor
        from hpcfwi.execution.plugins.worker_exit import WorkerExitPlugin
        from hpcfwi.execution.plugins.worker_info import WorkerInfoPlugin
        from hpcfwi.execution.reduction import KINDS
        from hpcfwi.execution.tasks import EVENT_TOPIC, evaluate_shot, observe_shot, predict_shot

        self._tell_dashboard(workforce, site)
        client = stack.enter_context(Client(workforce.cluster(), set_as_default=False))
        self.tasks = DaskExecutor(
            client,
            self._on_retry,
            workforce.check,
            self._on_found,
            lambda worker: self.news.why(worker) + workforce.log_tail(self.news.name(worker)),
            self._pressing,
        )
        self.news = WorkerEvents(
            self.log,
            self.progress.print_line,
            self.failures,
            self._promise,
            self.tasks,
            partial(self._machine, WORKERS),
        )
        _subscribe(client, EVENT_TOPIC, self.news)
        stack.callback(_unsubscribe, client, EVENT_TOPIC)
        client.register_plugin(WorkerInfoPlugin(EVENT_TOPIC))
        client.register_plugin(WorkerExitPlugin(EVENT_TOPIC))
        client.register_plugin(HostExclusion(EVENT_TOPIC))
        shots = [*(function.__name__ for function in (evaluate_shot, observe_shot, predict_shot)), BATCH_KEY]
        client.register_plugin(StragglerMonitor(EVENT_TOPIC, shots, KINDS))
        client.register_plugin(QueueDepth(shots))
        client.register_plugin(HeartbeatMonitor(EVENT_TOPIC))
        self.tasks.wait_for_worker()
        self.log.write(FirstWorkers(count=len(self.tasks.workers()), scheduler=client.scheduler.address))

    def _tell_dashboard(self, workforce: WorkerPool, site: Site) -> None:
        from hpcfwi.cluster.dashboard import OFF, open_dashboard
        from hpcfwi.cluster.dask_internals import missing_dashboard_requirements

        if site.config.network.dashboard == OFF:
            return
        wanting = missing_dashboard_requirements()
        if wanting:
            self.progress.print_line(f"Dask's dashboard {wanting}")
            return
        dashboard = open_dashboard(workforce.cluster().scheduler)
        self.log.write(Dashboard(address=dashboard.address, command=dashboard.command))
        self.progress.print_line(f"Dask's dashboard: {dashboard}")

    def on_shots(self, *_: int) -> None:
        """Called when shots of an evaluation are done.

        Raises
        ------
        RunError
            If threads are not as promised and the site is strict, or events cannot be written.
        """
        self.news.raise_broken()

    def _on_retry(self, shot: str, worker: str, reason: str) -> None:
        self.log.write(ShotRetried(shot=shot, worker=worker, reason=reason))
        self.failures.add(f"shot {shot} is started again on another worker: {reason}")
        if worker:
            from hpcfwi.execution.plugins.host_exclusion import record_failure

            record_failure(self.tasks.client, worker, shot)

    def _pressing(self, needed: float) -> tuple[str, float] | None:
        """Why no more shots should be begun, and the seconds that there are to finish those in hand."""
        left = self.end.seconds_left()
        self.news.raise_broken()
        if stop_requested():
            return _signal(), grace(received_signal(), left)
        if left < needed + CLOSING and (left := self.end.refresh()) < needed + CLOSING:
            return f"the batch job ends in {left:.0f} s", max(0.0, left - CLOSING)
        return None

    def on_evaluating(self, number: int) -> None:
        """The shots of an evaluation begin."""
        self.log.write(EvaluationStarted(evaluation=number, shots=len(self.problem.survey)))

    def _on_found(self, shots: int, total: int) -> None:
        self.log.write(SumsFound(shots=shots, shots_total=total))
        self.progress.print_line(f"sums of {shots} of {total} shots of this evaluation are in the journal already")

    def begin_anew(self, problem: Problem, error: DataError | ShotFailed) -> None:
        """Go on with the problem that is left without a shot that has failed."""
        self.problem = problem
        self.log.write(ShotExcluded(shot=error.shot, reason=error.problem))
        self.progress.print_line(f"{error}")
        self.progress.print_line(f"the inversion begins anew, {problem.exclusion_note}")

    def observe(self) -> list[StagedFile]:
        """Stage the observed data; returns the shots in the order of the survey."""
        from hpcfwi.inversion.objective import observe

        started = time.perf_counter()
        self.log.write(StagingData(shots=len(self.problem.survey)))
        shots = observe(self.problem, self.operations, self.tasks, self.folder.staged)
        if self.config.data.file is not None:
            self._claim_data(shots)
        seconds = time.perf_counter() - started
        self.log.write(DataStaged(shots=len(shots), seconds=seconds))
        made = "modelled in the true model" if self.config.data.file is None else f"read from {self.config.data.file}"
        self.progress.print_line(f"observed data of {len(shots)} shots {made} ({seconds:.1f} s)")
        return shots

    def _claim_data(self, shots: list[StagedFile]) -> None:
        """The journal's answers are those to the records that were read at the first start."""
        headers = [read_header(Path(shot.path)) or {} for shot in shots]
        self.folder.claim_data({str(header.get("shot")): str(header.get("record")) for header in headers})
