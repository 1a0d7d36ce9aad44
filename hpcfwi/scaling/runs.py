"""The runs of a scaling study: each is an ``hpcfwi run`` command whose measurements are kept.

A study folder has ``study.json`` (:class:`Study`), ``overhead.json`` (:func:`measure_overhead`) and ``runs/``, with the
folder and the output of each run. A complete run has ``measured.json`` in its folder.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import TypeVar

import numpy as np
from distributed import Client
from pydantic import TypeAdapter, ValidationError

from hpcfwi.batch.registry import current_start
from hpcfwi.cluster.layout import Layout
from hpcfwi.cluster.local import LocalWorkers
from hpcfwi.cluster.pool import Workload
from hpcfwi.errors import InputError, Interrupted, RunError
from hpcfwi.events.lease import Lease
from hpcfwi.events.log import EventLog, read_events
from hpcfwi.events.types import ShotDone, parse_event
from hpcfwi.execution.affinity import PRELOAD_MODULES
from hpcfwi.execution.executor import DaskExecutor
from hpcfwi.execution.tasks import EVENT_TOPIC, log_event
from hpcfwi.execution.window import TaskOverhead
from hpcfwi.inversion.functional_gradient import FunctionalGradient
from hpcfwi.io import make_private, require_regular_file, shortened, write_json
from hpcfwi.process import interrupted, received_signal
from hpcfwi.scaling.time_breakdown import TimeBreakdown, time_breakdown

T = TypeVar("T")
OUTPUT_LINES_SHOWN = 12
# A run may take this long to end after SIGTERM.
STOP_TIMEOUT_S = 60.0
# The difference between many and few shots excludes start and end; the overhead is the median of some measurements.
FEW_SHOTS, MANY_SHOTS, MEASUREMENTS = 200, 1000, 3
OVERHEAD_LAYOUT = Layout(processes=2, threads=1, memory=10**9)


@dataclass(frozen=True)
class RunPoint:
    """A run of a study: the number of nodes (worker jobs, nodes of an allocation or local processes) and the repetition."""

    nodes: int
    repeat: int

    def __str__(self) -> str:
        return f"n{self.nodes:04d}-r{self.repeat}"


@dataclass(frozen=True)
class MeasuredRun:
    """A complete run and its times."""

    point: RunPoint
    times: TimeBreakdown


@dataclass(frozen=True)
class Study:
    """What a study measures; a folder holds one study."""

    problem: str  # digest of the problem with all shots
    site: str
    launch: str  # "local" (a node stands for a worker process), "jobs" or "allocation"
    weak_nodes: int  # in weak scaling, the number of nodes that computes all shots; else 0
    iterations: int
    stand_in: str = ""  # the value of --stand-in
    settings: tuple[str, ...] = ()  # the values of --set
    excluded: tuple[str, ...] = ()  # shots that the configuration excludes

    def excluded_shots(self, nodes: int, shots: Sequence[str]) -> list[str]:
        """Return the shots that a run of weak scaling excludes; the others are spread evenly over the survey."""
        if not self.weak_nodes:
            return []
        count = max(1, len(shots) * nodes // self.weak_nodes)
        kept = {round((i + 0.5) * len(shots) / count - 0.5) for i in range(count)}
        return [*self.excluded, *(name for i, name in enumerate(shots) if i not in kept)]


class StudyRuns:
    """The runs of a study of ``config`` with its ``shots``; raises InputError if the folder cannot hold them."""

    def __init__(
        self, folder: Path, study: Study, config: Path, shots: Sequence[str], print_line: Callable[[str], None]
    ) -> None:
        self.folder, self.study, self.config, self.shots, self.print_line = folder, study, config, shots, print_line
        path = folder / "study.json"
        if folder.exists() and not path.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InputError(
                f"{folder}: is neither empty nor the folder of a study; choose another one with --study-dir"
            )
        make_private(folder, "--study-dir")
        known = _read(path, Study)
        if known is None:
            write_json(path, asdict(study))
        elif known != study:
            differences = "".join(
                f"  {name}: {shortened(str(there))} there, {shortened(str(vars(study)[name]))} now\n"
                for name, there in vars(known).items()
                if there != vars(study)[name]
            )
            advice = "Choose another folder with --study-dir, or remove this one."
            raise InputError(f"{folder}: holds another study:\n{differences}  {advice}")

    def measure(self, nodes: Sequence[int], repeats: int) -> Iterator[MeasuredRun]:
        """Yield all runs, measured now or before.

        A repetition covers all numbers of nodes before the next begins, so that changes of the machine affect all alike.
        """
        with ExitStack() as stack:
            self._lock(stack, self.folder, "another process runs this study", "use another --study-dir")
            for repeat in range(1, repeats + 1):
                for count in nodes:
                    point = RunPoint(count, repeat)
                    known = _read(self._folder(point) / "measured.json", TimeBreakdown)
                    yield MeasuredRun(point, self._run(point) if known is None else known)

    def overhead(self) -> TaskOverhead:
        """Return the time of driver and scheduler for a shot, measured once in a study."""
        path = self.folder / "overhead.json"
        known = _read(path, TaskOverhead)
        if known is None:
            known = measure_overhead()
            write_json(path, asdict(known))
        return known

    def command(self, point: RunPoint) -> list[str]:
        """Return the command line of a run."""
        study = self.study
        # with these tolerances an inversion never ends before its last iteration
        fixed = ("inversion.ftol=0.0", "inversion.gtol=0.0", "output.figures=false", "output.report=false")
        # all runs of a study keep the wavefield in the same way
        settings = ["solver.wavefield=sampled", *study.settings, f"inversion.iterations={study.iterations}", *fixed]
        excluded = study.excluded_shots(point.nodes, self.shots)
        if excluded:
            settings.append(f"data.exclude={json.dumps(excluded)}")
        if study.launch == "local":
            settings.append(f"site.worker.processes={point.nodes}")
        return [
            *(sys.executable, "-m", "hpcfwi", "run", str(self.config), "--site", study.site, "--launch", study.launch),
            *("--run-dir", str(self._folder(point))),
            *(["--nodes", str(point.nodes)] if study.launch != "local" else []),
            *(["--stand-in", study.stand_in] if study.stand_in else []),
            *(word for setting in settings for word in ("--set", setting)),
        ]

    def _folder(self, point: RunPoint) -> Path:
        return self.folder / "runs" / str(point)

    def _lock(self, stack: ExitStack, folder: Path, used: str, other: str) -> None:
        """Hold the lease of a folder, or raise an InputError that names the process that holds it."""
        lease = Lease(folder / "driver.json", self.print_line, *current_start())
        lease.acquire(used, other)
        stack.callback(lease.release)

    def _run(self, point: RunPoint) -> TimeBreakdown:
        folder, output = self._folder(point), self.folder / "runs" / f"{point}-output.txt"
        if folder.exists():  # an incomplete run, whose times are useless
            advice = "end that process with kill, and type the same command again"
            with ExitStack() as stack:
                self._lock(stack, folder, "a run that an earlier start of this study began is still active", advice)
                shutil.rmtree(folder, ignore_errors=True)
        output.parent.mkdir(exist_ok=True, mode=0o700)
        with output.open("wb") as file:
            began = time.time()
            # in a new session, signals of the terminal arrive only here; _terminate passes them on
            process = subprocess.Popen(
                self.command(point), stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
            )
            try:
                code = process.wait()
            except BaseException:
                _terminate(process)
                if not interrupted():
                    raise
                code = Interrupted.exit_code
            ended = time.time()
        if code == Interrupted.exit_code:
            raise Interrupted(
                f"stopped in run {point}; the same command continues the study ({self.folder})", received_signal()
            )
        if code:
            lines = output.read_text(errors="replace").splitlines()[-OUTPUT_LINES_SHOWN:]
            shown = "".join(f"\n  {line}" for line in lines)
            advice = "The same command continues the study with this run; other options need another --study-dir."
            kind = InputError if code == InputError.exit_code else RunError
            raise kind(f"run {point} ended with exit code {code}:{shown}\n  {advice}")
        times = time_breakdown(read_events(folder / "events.jsonl"), began, ended)
        times.nodes = point.nodes  # the events of a local run have one node
        write_json(folder / "measured.json", asdict(times))
        return times


def _terminate(process: subprocess.Popen[bytes]) -> None:
    """Terminate a run, and kill it after a timeout."""
    with suppress(ProcessLookupError):
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_TIMEOUT_S)
            return
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(STOP_TIMEOUT_S)


def _read(path: Path, kind: type[T]) -> T | None:
    """Read a file of the study; None if it does not exist."""
    try:
        return TypeAdapter(kind).validate_json(require_regular_file(path).read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        reason = "it is malformed" if isinstance(error, ValidationError) else error.strerror
        what = path.parent if kind is Study else path
        raise InputError(f"{path}: cannot be read ({reason}); remove {what} and type the same command again") from None


def measure_overhead() -> TaskOverhead:
    """Measure the CPU time of the driver with its scheduler for an additional shot; takes some seconds."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hpcfwi-overhead-")))
        workers = stack.enter_context(LocalWorkers(OVERHEAD_LAYOUT, workload=Workload(PRELOAD_MODULES)))
        client = stack.enter_context(Client(workers.cluster(), set_as_default=False))
        log = EventLog(folder / "events.jsonl")
        stack.callback(log.close)

        def write_event(message: tuple[float, bytes]) -> None:
            event = parse_event(message[1])
            assert event is not None, message
            log.write(event)

        client.subscribe_topic(EVENT_TOPIC, write_event)
        executor = DaskExecutor(client)
        _cpu_seconds(executor, FEW_SHOTS, batched=False)  # imports and other first-time costs

        def per_shot(batched: bool) -> float:
            differences = [
                _cpu_seconds(executor, MANY_SHOTS, batched) - _cpu_seconds(executor, FEW_SHOTS, batched)
                for _ in range(MEASUREMENTS)
            ]
            return max(0.0, median(differences) / (MANY_SHOTS - FEW_SHOTS))

        return TaskOverhead(per_shot(batched=False), per_shot(batched=True))


def _cpu_seconds(executor: DaskExecutor, shots: int, batched: bool) -> float:
    """CPU time of this process for a sum of empty shots, s."""
    run = time.monotonic_ns()  # Dask reuses results with the same key
    names = [f"{run}-{i}" for i in range(shots)]
    began = time.process_time()
    executor.sum(empty_shot, names, [(name,) for name in names], names, small=True, batched=batched)
    return time.process_time() - began


def empty_shot(name: str) -> FunctionalGradient:
    """A task that only logs the event of a shot."""
    log_event(ShotDone, shot=name, evaluation=1, misfit=0.0, seconds=0.0, kernel_seconds=0.0, peak_memory=0)
    return FunctionalGradient(0.0, np.zeros(1))
