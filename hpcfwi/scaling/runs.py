"""A ladder of runs over node counts: each rung is a whole run of its own, and what is done stays done.

The folder of a study has ``study.json``, which says what is studied, and in ``rungs/`` a run folder for each rung with the
file ``measured.json`` once it has come to its end.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from distributed import Client

from hpcfwi.batch.registry import current_start
from hpcfwi.cluster.layout import Layout
from hpcfwi.cluster.local import LocalWorkers
from hpcfwi.cluster.pool import Workload
from hpcfwi.errors import InputError, Interrupted, RunError
from hpcfwi.events.lease import Lease
from hpcfwi.events.log import EventLog, read_events
from hpcfwi.events.types import ShotDone, parse_event
from hpcfwi.execution.affinity import PRELOAD_MODULES
from hpcfwi.execution.batching import TaskOverhead
from hpcfwi.execution.executor import DaskExecutor
from hpcfwi.execution.tasks import EVENT_TOPIC, log_event
from hpcfwi.inversion.misfit import FunctionalGradient
from hpcfwi.io import make_private, parse_json, require_regular_file, shortened, write_atomic
from hpcfwi.process import interrupted, received_signal
from hpcfwi.scaling.time_breakdown import EvaluationTimes, TimeBreakdown, time_breakdown

__all__ = ["MeasuredRun", "RunPoint", "Study", "StudyRuns", "empty_shot", "measure_overhead"]

STUDY, MEASURED, HANDLING, OUTPUT = "study.json", "measured.json", "handling.json", "output.txt"
# Lines of a failed rung's output that are shown.
TAIL = 12
# Seconds that a rung has to end after a signal.
PATIENCE = 60.0


@dataclass(frozen=True)
class RunPoint:
    """One run of the ladder.

    Parameters
    ----------
    nodes
        Worker jobs, nodes of the allocation, or worker processes of this machine.
    repeat
        1, 2, ...
    """

    nodes: int
    repeat: int

    def __str__(self) -> str:
        return f"n{self.nodes:04d}-r{self.repeat}"


@dataclass(frozen=True)
class Study:
    """What is studied.

    Parameters
    ----------
    problem
        Digest of the problem with all shots.
    site
        Name of the site.
    way
        ``"local"``, ``"jobs"`` or ``"allocation"``; locally a node stands for a worker process.
    grows_to
        Nodes that have all shots, where these grow with the nodes; 0 where each rung has all.
    iterations
        Of each run.
    stand_in
        What stands in for the kernels, as it is typed; or nothing.
    settings
        Changes of the configuration and of the site, as they are typed.
    """

    problem: str
    site: str
    way: str
    grows_to: int
    iterations: int
    stand_in: str = ""
    settings: tuple[str, ...] = ()


@dataclass(frozen=True)
class MeasuredRun:
    """A rung that has come to its end.

    Parameters
    ----------
    rung
        Which one.
    account
        Where its time went.
    """

    rung: RunPoint
    account: TimeBreakdown


@dataclass
class StudyRuns:
    """The rungs of a study, run one after the other.

    Parameters
    ----------
    folder
        Of the study; made if it is not there.
    study
        What is studied.
    config
        The configuration's file.
    shots
        Names of all shots of the survey, in its order.
    say
        Takes a line for the user.
    """

    folder: Path
    study: Study
    config: Path
    shots: Sequence[str]
    say: Callable[[str], None]
    done: list[MeasuredRun] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Make the folder this study's, or see that it is.

        Raises
        ------
        InputError
            If it is another one's.
        """
        if self.folder.exists() and not (self.folder / STUDY).exists() and any(self.folder.iterdir()):
            raise InputError(
                f"{self.folder}: is not empty, and no folder of a study; choose another one with --study-dir"
            )
        make_private(self.folder)
        self.lease = Lease(self.folder / "driver.json", self.say, *current_start())
        wanted = json.loads(json.dumps(asdict(self.study)))
        path = self.folder / STUDY
        known = _read(path)
        if known is None:
            write_atomic(path, lambda file: file.write(json.dumps(wanted, indent=1).encode()))
        elif known != wanted:
            differ = "\n".join(
                f"  {name}: {shortened(str(known.get(name)))} there, {shortened(str(value))} now"
                for name, value in wanted.items()
                if known.get(name) != value
            )
            raise InputError(
                f"{self.folder}: holds another study:\n{differ}\n  Choose another folder with --study-dir, or remove this one."
            )

    def climb(self, nodes: Sequence[int], repeat: int) -> Iterator[MeasuredRun]:
        """Run the rungs that are missing; all of them are returned, each as soon as it is there.

        Repetitions come one after the other with all node counts in each, so that what changes with time of day meets all.

        Raises
        ------
        RunError
            If a run has failed.
        Interrupted
            If it is stopped; the same command goes on.
        """
        try:
            self.lease.acquire()
        except InputError:
            raise InputError(
                f"{self.folder}: somebody is at this study ({_who(self.folder)}); wait for it, or choose another folder with "
                "--study-dir"
            ) from None
        try:
            for number in range(1, repeat + 1):
                for count in nodes:
                    rung = RunPoint(count, number)
                    found = self._known(rung)
                    if found is None:
                        found = self._run(rung)
                    self.done.append(found)
                    yield found
        finally:
            self.lease.release()

    def handling(self) -> TaskOverhead:
        """Seconds of the driver for each shot, measured once in the life of a study."""
        path = self.folder / HANDLING
        known = _read(path) or {}
        if all(isinstance(known.get(one.name), float) for one in fields(TaskOverhead)):
            return TaskOverhead(**known)

        found = measure_overhead()
        write_atomic(path, lambda file: file.write(json.dumps(asdict(found)).encode()))
        return found

    def _place(self, rung: RunPoint) -> Path:
        return self.folder / "rungs" / str(rung)

    def _known(self, rung: RunPoint) -> MeasuredRun | None:
        told = _read(self._place(rung) / MEASURED)
        if told is None:
            return None
        try:
            times = [EvaluationTimes(**facts) for facts in told.pop("times")]
            return MeasuredRun(rung, TimeBreakdown(**told, times=times))
        except (KeyError, TypeError) as error:
            raise InputError(
                f"{self._place(rung) / MEASURED}: is none of ours ({error}); remove it and type the same command again"
            ) from None

    def left_out(self, rung: RunPoint) -> list[str]:
        """Shots that a rung of a weak ladder does without: the others are spread evenly over the survey."""
        if not self.study.grows_to:
            return []
        count = self._weak_shots(rung.nodes)
        kept = {round((i + 0.5) * len(self.shots) / count - 0.5) for i in range(count)}
        return [name for i, name in enumerate(self.shots) if i not in kept]

    def _weak_shots(self, nodes: int) -> int:
        return max(1, len(self.shots) * nodes // self.study.grows_to)

    def command(self, rung: RunPoint) -> list[str]:
        """What is run."""
        study = self.study
        settings = [
            *study.settings,
            f"inversion.iterations={study.iterations}",
            "inversion.ftol=0.0",
            "inversion.gtol=0.0",
            "output.figures=false",
            "output.report=false",
        ]
        out = self.left_out(rung)
        if out:
            settings.append(f"data.exclude={json.dumps(out)}")
        place = ["--launch", study.way]
        if study.way == "local":
            settings.append(f"site.worker.processes={rung.nodes}")
        else:
            place += ["--nodes", str(rung.nodes)]
        return [
            *(sys.executable, "-m", "hpcfwi", "run", str(self.config), "--site", study.site),
            *("--run-dir", str(self._place(rung)), *place),
            *(["--stand-in", study.stand_in] if study.stand_in else []),
            *(word for setting in settings for word in ("--set", setting)),
        ]

    def _stopped(self, rung: RunPoint) -> Interrupted:
        return Interrupted(
            f"stopped at rung {rung}; the same command goes on with it ({self.folder})", received_signal()
        )

    def _clear(self, place: Path) -> None:
        """Remove what a study that was killed has left of a rung: its times are no times."""
        if place.exists():
            lease = Lease(place / "driver.json", self.say, *current_start())
            try:
                lease.acquire()
            except InputError:
                raise InputError(
                    f"{place}: is still at work for an earlier start of this study ({_who(place)}); wait until it has ended, "
                    "or end it there with kill, and type the same command again"
                ) from None
            shutil.rmtree(place, ignore_errors=True)
            lease.release()

    def _run(self, rung: RunPoint) -> MeasuredRun:
        place = self._place(rung)
        self._clear(place)
        output = self.folder / "rungs" / f"{rung}-{OUTPUT}"
        output.parent.mkdir(exist_ok=True, mode=0o700)
        with output.open("wb") as out:
            began = time.time()
            # in a session of its own: a terminal's signals are for us, who pass them on
            process = subprocess.Popen(
                self.command(rung), stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
            )
            try:
                code = process.wait()
            except BaseException:
                _end(process)
                if interrupted():
                    raise self._stopped(rung) from None
                raise
            ended = time.time()
        if code == 75:
            raise self._stopped(rung)
        if code:
            lines = output.read_text(errors="replace").splitlines()[-TAIL:]
            told = "".join(f"\n  {line}" for line in lines)
            raise (InputError if code == 2 else RunError)(
                f"rung {rung} has ended with status {code}:{told}\n  What is measured is kept; the same command goes on."
            )
        times = time_breakdown(read_events(place / "events.jsonl"), began, ended)
        found = MeasuredRun(rung, replace(times, nodes=rung.nodes))
        text = json.dumps(asdict(found.account), indent=1).encode()
        write_atomic(place / MEASURED, lambda file: file.write(text))
        return found


def _end(process: subprocess.Popen[bytes]) -> None:
    """Let a run end by itself, and its workers with it; after a while it is killed."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is None:
            os.kill(process.pid, number) if number == signal.SIGTERM else os.killpg(process.pid, number)
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                continue
            return


def _who(folder: Path) -> str:
    """Who has a folder, in words."""
    told = _read(folder / "driver.json") or {}
    return shortened(f"process {told.get('pid')} on {told.get('host')}")


def _read(path: Path) -> dict[str, Any] | None:
    """A small file of facts; None where there is none, or it was torn when the machine died."""
    try:
        found = parse_json(require_regular_file(path).read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); remove it and type the same command again") from None
    return found if isinstance(found, dict) else None


# Shots that are compared, in turn, and how often; light workers that they run on.
FEW, MANY, TIMES, WORKERS = 200, 1000, 3, 2
# Bytes that each of them may use.
MEMORY = 1_000_000_000


def empty_shot(name: str) -> FunctionalGradient:
    """A shot without anything in it, of which all that is usual is told (a task)."""
    log_event(ShotDone, shot=name, evaluation=1, misfit=0.0, seconds=0.0, kernel_seconds=0.0, peak_memory=0)
    return FunctionalGradient(0.0, np.zeros(1))


def measure_overhead() -> TaskOverhead:
    """CPU seconds of the driver's process, in which the scheduler is, for each shot more; takes some seconds.

    Start, end and what goes on all the time are in few shots as well as in many, and are not counted.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hpcfwi-handling-")))
        workers = stack.enter_context(LocalWorkers(Layout(WORKERS, 1, MEMORY), workload=Workload(PRELOAD_MODULES)))
        client = stack.enter_context(Client(workers.cluster(), set_as_default=False))
        log = EventLog(folder / "events.jsonl")
        stack.callback(log.close)
        client.subscribe_topic(EVENT_TOPIC, lambda event: _write_event(log, event[1]))
        tasks = DaskExecutor(client)
        _cost(tasks, FEW, "first", bundled=False)  # what is imported or made at the first
        return TaskOverhead(_each(tasks, bundled=False), _each(tasks, bundled=True))


def _write_event(log: EventLog, line: bytes) -> None:
    event = parse_event(line)
    assert event is not None, line
    log.write(event)


def _each(tasks: DaskExecutor, bundled: bool) -> float:
    """Seconds of a shot, in a task of its own or with others."""
    spent = [(_cost(tasks, FEW, f"{i}-few", bundled), _cost(tasks, MANY, f"{i}-many", bundled)) for i in range(TIMES)]
    return max(0.0, median(many - few for few, many in spent) / (MANY - FEW))


def _cost(tasks: DaskExecutor, shots: int, run: str, bundled: bool) -> float:
    names = [f"{run}-{bundled}-{i}" for i in range(shots)]
    began = time.process_time()
    tasks.sum(empty_shot, names, [(name,) for name in names], names, small=True, batched=bundled)
    return time.process_time() - began
