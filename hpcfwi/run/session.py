"""A driver's session in a run folder: starts workers and solver, stages observed data, and closes everything again."""

from __future__ import annotations

import gc
import os
import platform
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from traceback import format_exc
from typing import TYPE_CHECKING, Any

from rich.console import Console

from hpcfwi.batch.registry import current_start
from hpcfwi.cluster.environment import apply_environment, restore_environment, silence_dask
from hpcfwi.config.site import LaunchOptions, Site
from hpcfwi.errors import HpcfwiError, InputError, Interrupted, RunError
from hpcfwi.events import types as events
from hpcfwi.events.log import EventLog
from hpcfwi.execution.window import Window
from hpcfwi.model.problem import Problem
from hpcfwi.model.stages import problems_of, stages_of
from hpcfwi.process import command_start, defer_interrupts, gc_paused, ignoring_signals_at_exit, interrupted
from hpcfwi.reporting.progress import Progress
from hpcfwi.run.cost import chosen_strategy
from hpcfwi.run.folder import RunFolder
from hpcfwi.run.plan import describe, disk_needs, idle_workers, resource_request
from hpcfwi.run.reproducibility import Reproducibility
from hpcfwi.run.stopping import StopConditions, signal_reason
from hpcfwi.run.worker_events import WorkerEvents, failure_summary
from hpcfwi.solver.engine import SleepingShots
from hpcfwi.solver.strategies import Strategy
from hpcfwi.version import __version__

if TYPE_CHECKING:  # importing Dask is too slow for the command line
    from hpcfwi.cluster.pool import WorkerPool
    from hpcfwi.inversion.objective import ShotOperations

# Libraries that the results and the speed of a run depend on.
LIBRARIES = ("dask", "dask-jobqueue", "devito", "distributed", "numpy", "scipy")


@contextmanager
def session(
    problem: Problem,
    site: Site,
    options: LaunchOptions,
    folder: RunFolder,
    console: Console,
    stand_in: SleepingShots | None = None,
) -> Iterator[Session]:
    """Start everything that a run needs, and close it again: log, display, workers, scratch folders.

    Raises
    ------
    Interrupted
        If a signal or a time limit ends the run; the message says how to continue it.
    """
    began, command_began = time.perf_counter(), command_start()
    with ExitStack() as stack:
        stack.enter_context(restore_environment())
        stack.callback(gc.unfreeze)  # let a Python caller collect the run's objects
        ignore_signals = stack.enter_context(ignoring_signals_at_exit())
        log = EventLog(folder.events)
        stack.callback(log.close)
        stack.callback(_log_closed, log, began)
        display = stack.enter_context(Progress(console, log.state))
        log.on_event = display.on_event
        stop = StopConditions()
        failures_before = log.state.failures.copy()
        try:
            current = Session(problem, folder, log, display.print_line, stop, stand_in)
            try:
                with gc_paused():  # while Dask and Devito are imported and the solver is built
                    current.bring_up(site, options, command_began, stack)
                yield current
            finally:
                for line in failure_summary(log.state.failures - failures_before):
                    display.print_line(line)
        except BaseException as error:
            if isinstance(error, (KeyboardInterrupt, Interrupted)) or interrupted():
                reason = str(error) if isinstance(error, Interrupted) else signal_reason()
                with suppress(RunError):
                    log.write(events.RunInterrupted(reason=reason))
                why = f"stopped: {reason}" if reason else "stopped"
                same = "program" if problem.linearised else "command"
                message = f"{why}; the same {same} continues the run ({folder.path})"
                by_user = isinstance(error, KeyboardInterrupt) and not interrupted()  # Python callers have no handlers
                raise Interrupted(message, reason, stop.time_is_up and not by_user) from None
            with suppress(RunError):  # the disk may be full, as the error being raised reports
                traceback = None if isinstance(error, HpcfwiError) else format_exc()
                log.write(events.RunFailed(error=type(error).__name__, message=str(error), traceback=traceback))
            if isinstance(error, HpcfwiError):
                folder.verify()  # if the folder is lost, that is the cause
            raise
        finally:
            ignore_signals()


def _log_closed(log: EventLog, began: float) -> None:
    with suppress(RunError):
        core_hours = round(log.state.core_hours(time.time()), 6)
        log.write(events.RunClosed(seconds=time.perf_counter() - began, core_hours=core_hours))


@dataclass(eq=False)
class Session:
    """The context of a run's steps: problem, folder, log, the operations on a shot, and their executor ``tasks``."""

    problem: Problem
    folder: RunFolder
    log: EventLog
    print_line: Callable[[str], None]
    stop: StopConditions
    stand_in: SleepingShots | None = None

    def __post_init__(self) -> None:
        self._log_error: RunError | None = None
        self._prepared: tuple[str, ShotOperations] | None = None  # the last ones, by the digest of their problem
        self.started = time.perf_counter()
        self.reproducibility = Reproducibility(self.folder, self.warn)

    def _log_in_background(self, event: events.Event) -> None:
        """Log an event in a thread that has to go on; :meth:`_check_stop` raises an error later, in the driver's thread."""
        try:
            self.log.write(event)
        except RunError as error:
            self._log_error = error

    def warn(self, message: str, traceback: str | None = None) -> None:
        """Log a warning and print it."""
        self.log.write(events.RunWarning(message=message, traceback=traceback))
        self.print_line(f"warning: {message}")

    def bring_up(self, site: Site, options: LaunchOptions, began: float, stack: ExitStack) -> None:
        """Start the workers and meanwhile build the solver, as both take seconds; ``stack`` closes them at the end."""
        silence_dask()
        from hpcfwi.cluster.pool import Listener, Workload, launch
        from hpcfwi.execution.affinity import PRELOAD_MODULES

        problems = problems_of(self.problem)
        self._check_disk(sum(disk_needs(self.problem).values()))
        excluded = [f"the survey is used {self.problem.exclusion_note}"] if self.problem.failed_shots else []
        for warning in [*self.problem.warnings, *excluded]:
            self.warn(warning)
        self.print_line(f"run folder {self.folder.path}")
        for note in self.problem.observations.notes:
            self.print_line(f"data: {note}")
        if self.stand_in is not None:
            self.print_line(f"{self.stand_in} replace the kernels: a scaling study, not an inversion")
        window = Window()
        pool = launch(
            site,
            resource_request(self.problem),
            self.folder.path,
            options,
            Listener(self.print_line, self._log_in_background),
            Workload(PRELOAD_MODULES, lambda: window.longest_task_s, lambda: window.excluded, window.drain),
        )
        if idle := idle_workers(self.problem, pool.planned_workers):
            self.warn(idle)
        apply_environment(site.config, pool.threads)
        self.layout = pool.layout
        strategy = self._strategy(problems[0])
        scratch = max(chosen_strategy(each, pool.layout).spec.disk_bytes for each in problems)
        if pool.mode == "local" and scratch:
            self._check_scratch(site, pool.layout.processes * scratch)
        self.log.write(self._start_event(site, options, pool, began, strategy.name))
        self._print_reproducibility(pool.threads)
        with defer_interrupts():  # else a folder or process could be left behind
            stack.enter_context(pool)
        self.operations = self.prepare(problems[0])
        self._open_dashboard(pool, site)
        self._connect(pool, window, site, stack)

    def _strategy(self, problem: Problem) -> Strategy:
        """The wavefield strategy of a problem, which is printed."""
        strategy = chosen_strategy(problem, self.layout)
        automatic = ""
        if problem.config.solver.wavefield == "auto":
            automatic = f" (the fastest lossless one for {self.layout.memory / 1e9:.1f} GB a worker)"
        self.print_line(f"forward wavefield {describe(strategy)}{automatic}")
        return strategy

    def _check_scratch(self, site: Site, needed: int) -> None:
        """Raise InputError if this machine's scratch folder has no room for the wavefields of its workers."""
        folder = Path(os.path.expandvars(site.config.filesystem.scratch or tempfile.gettempdir()))
        free = needed
        with suppress(OSError, StopIteration):  # the workers say what is wrong with the folder
            free = shutil.disk_usage(next(each for each in (folder, *folder.absolute().parents) if each.exists())).free
        if needed > free:
            raise InputError(
                f'solver.wavefield: is "disk", which needs {needed / 1e9:.3g} GB in the scratch folder {folder}, but '
                f"{free / 1e9:.3g} GB are free; free some space, choose another one with --set site.filesystem.scratch=FOLDER, "
                "or take --set solver.wavefield=checkpointed"
            )

    def _check_disk(self, needed: int) -> None:
        free = shutil.disk_usage(self.folder.path).free
        for path in self.folder.path.rglob("*"):
            with suppress(OSError):  # a worker of an earlier start may still be renaming a file
                needed -= path.stat().st_size if path.is_file() else 0
        if needed > free:
            raise InputError(
                f"{self.folder.path}: the run needs about {needed / 1e6:.1f} MB of disk, but {free / 1e6:.1f} MB are free; "
                "free some space or choose another folder with --run-dir"
            )

    def _start_event(
        self, site: Site, options: LaunchOptions, pool: WorkerPool, began: float, wavefield: str
    ) -> events.RunStarted:
        words = [word for setting in site.settings for word in ("--set", f"site.{setting}")]
        opened = self.problem.linearised
        given = (("--launch", options.mode), ("--nodes", options.nodes), ("--wait", options.wait_minutes))
        return events.RunStarted(
            version=__version__,
            versions={name: version(name) for name in LIBRARIES} | {"python": platform.python_version()},
            problem=self.problem.digest,
            site=site.name,
            launch=pool.mode,
            layout=str(pool.layout),
            threads=pool.threads,
            cores=pool.layout.cores,
            wavefield=wavefield,
            workers_planned=pool.planned_workers,
            nodes_planned=pool.planned_nodes,
            shots=len(self.problem.survey),
            iterations=0 if opened else sum(stage.optimisation.iterations for stage in stages_of(self.problem)),
            opened=opened or None,
            host=socket.gethostname().partition(".")[0],
            pid=os.getpid(),
            command_start=began,
            job=current_start()[0] or None,
            stand_in=None if self.stand_in is None else str(self.stand_in),
            options=words + [str(word) for name, value in given if value is not None for word in (name, value)],
        )

    def _print_reproducibility(self, threads: int) -> None:
        if threads > 1:
            self.reproducibility.add_reason("several threads per shot")
        if self.folder.other_versions:
            self.reproducibility.add_reason("it began with other versions of hpcfwi or devito")
        reasons = self.reproducibility.reasons
        if reasons:
            self.print_line(f"the last bits may differ from run to run: {reasons}")
        else:
            self.print_line("one thread per shot: the same bytes whatever the number of workers")

    def prepare(self, problem: Problem, name: str = "") -> ShotOperations:
        """Stage what the shots of a problem need; ``name`` tells the files of a stage from those of others."""
        from hpcfwi.run.preparation import prepare_shots

        if self._prepared is None or self._prepared[0] != problem.digest:
            self._prepared = problem.digest, prepare_shots(self, problem, name)
        return self._prepared[1]

    def _open_dashboard(self, pool: WorkerPool, site: Site) -> None:
        from hpcfwi.cluster.dashboard import OFF, reach_dashboard
        from hpcfwi.cluster.dask_internals import add_lazy_dashboard, missing_dashboard_requirements

        if site.config.network.dashboard == OFF:
            return
        missing = missing_dashboard_requirements()
        if missing:
            self.print_line(f"Dask's dashboard {missing}")
            return
        dashboard = reach_dashboard(*add_lazy_dashboard(pool.cluster().scheduler))
        self.log.write(dashboard)
        self.print_line(f"Dask's dashboard: {dashboard.address}; from your own machine: {dashboard.command}")

    def _connect(self, pool: WorkerPool, window: Window, site: Site, stack: ExitStack) -> None:
        """Connect to the scheduler and wait for the first worker."""
        from distributed import Client

        from hpcfwi.cluster.dask_internals import unsubscribe
        from hpcfwi.execution.affinity import AffinityCheck
        from hpcfwi.execution.executor import DaskExecutor
        from hpcfwi.execution.plugins import WorkerExitPlugin, WorkerInfoPlugin
        from hpcfwi.execution.tasks import EVENT_TOPIC

        client = stack.enter_context(Client(pool.cluster(), set_as_default=False))
        self.tasks = DaskExecutor(
            client,
            window,
            pool.check,
            self._exit_reason,
            self._check_stop,
            lambda event: self.worker_events.record(event),
            lambda: pool.expected,
        )
        self._log_tail = pool.log_tail
        self.worker_events = WorkerEvents(
            self.log,
            self.print_line,
            AffinityCheck(site, pool.threads_on),
            self.tasks,
            lambda machine: self.reproducibility.add_machine("workers", machine),
            pool.layout.memory,
        )
        for topic, handle in _topics(self.worker_events).items():
            _subscribe(client, topic, handle)
            stack.callback(unsubscribe, client, topic)
        client.register_plugin(WorkerInfoPlugin(EVENT_TOPIC))
        client.register_plugin(WorkerExitPlugin())
        self.tasks.wait_for_worker()
        self.log.write(events.FirstWorkers(count=len(self.tasks.workers()), scheduler=client.scheduler.address))

    def _exit_reason(self, worker: str) -> str:
        return self.worker_events.exit_reason(worker) + self._log_tail(self.worker_events.name(worker))

    def _check_stop(self, needed_s: float) -> tuple[str, float] | None:
        self.on_shots()
        return self.stop.check(needed_s)

    def on_shots(self, *_: int) -> None:
        """Raise an error found while handling events: a full disk, or, on a strict site, threads on wrong cores."""
        if self._log_error is not None:
            raise self._log_error
        self.worker_events.raise_error()


def _topics(worker_events: WorkerEvents) -> dict[str, Callable[[Any], None]]:
    """The handler of messages under each Dask topic."""
    from hpcfwi.cluster.dask_internals import ALL_TOPIC, MEMORY_TOPIC, SCHEDULER_TOPIC
    from hpcfwi.execution.plugins import EXIT_TOPIC
    from hpcfwi.execution.tasks import EVENT_TOPIC

    def dask_event(message: Any) -> None:
        match message:
            case {"action": "remove-worker", "worker": worker}:
                worker_events.worker_left(worker)
            case {"action": "worker-ttl-timed-out", "workers": workers, "ttl": timeout_s}:
                worker_events.record_unresponsive(list(workers), timeout_s)

    return {
        EVENT_TOPIC: worker_events,
        ALL_TOPIC: dask_event,
        SCHEDULER_TOPIC: dask_event,
        MEMORY_TOPIC: lambda message: worker_events.out_of_memory(message["worker"]),
        EXIT_TOPIC: lambda message: worker_events.worker_died(**message),
    }


def _subscribe(client: Any, topic: str, handle: Callable[[Any], None]) -> None:
    """Call ``handle`` with each message under a topic.

    Dask's client returns before the scheduler knows the subscription, so wait until a test message arrives.
    """
    hello, subscribed = b"hello", threading.Event()
    client.subscribe_topic(topic, lambda event: subscribed.set() if event[1] == hello else handle(event[1]))
    while not subscribed.is_set():
        client.log_event(topic, hello)
        subscribed.wait(0.01)
