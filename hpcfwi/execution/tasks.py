"""What workers run: functions that compute a shot or add up results, with an engine that stays for a worker's life."""

from __future__ import annotations

import functools
import os
import resource
import socket
import threading
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
from distributed import get_worker
from numpy.typing import NDArray

from hpcfwi.artifacts import StagedFile, digest, find_staged, load, stage
from hpcfwi.errors import DataError, HpcfwiError, RunError, StagingError
from hpcfwi.events.types import Event, RunWarning, ShotDone, ShotStaged, Solver, TaskFailed, ThreadPlacement
from hpcfwi.execution.affinity import observed_threads, ranges
from hpcfwi.inversion.journal import read_partial, write_partial
from hpcfwi.inversion.misfit import FunctionalGradient, ShotMisfit, load_misfit, total
from hpcfwi.model.discretization import TimeAxis
from hpcfwi.model.processing import Tail, resample
from hpcfwi.model.survey import Shot
from hpcfwi.model.wavelet import Wavelet
from hpcfwi.process import gc_paused
from hpcfwi.solver.engine import SleepingShots, open_engine
from hpcfwi.solver.operators import obtain_solver
from hpcfwi.solver.spec import SolverSpec

if TYPE_CHECKING:
    from hpcfwi.inversion.objective import ShotOperations

__all__ = [
    "EVENT_TOPIC",
    "ShotContext",
    "ShotWorker",
    "TaskFailure",
    "add_parts",
    "add_shots",
    "evaluate_shot",
    "load_part",
    "log_event",
    "observe_shot",
    "predict_shot",
    "shot_operations",
    "task",
]

# Dask topic of the events that workers send.
EVENT_TOPIC = "hpcfwi"

Task = TypeVar("Task", bound=Callable[..., Any])


class TaskFailure(RunError):
    """A task failed, perhaps because of its ``worker`` (a Dask address); ``place`` is the shot's position in a batch."""

    def __init__(self, worker: str, reason: str) -> None:
        super().__init__(worker, reason)
        self.worker, self.reason = worker, reason
        self.place: int | None = None

    def __str__(self) -> str:
        return self.reason


def task(function: Task) -> Task:
    """Let errors of a task name its host in one line, and their tracebacks go to the event log."""

    @functools.wraps(function)
    def run(*args: Any) -> Any:
        try:
            return function(*args)
        except DataError as error:
            failure: HpcfwiError = DataError(error.shot, error.problem)
        except TaskFailure as error:
            failure = error  # of a task inside this one
        except Exception as error:
            log_event(TaskFailed, task=function.__name__, traceback=traceback.format_exc())
            text = str(error) if isinstance(error, HpcfwiError) else f"{type(error).__name__}: {error}"
            failure = TaskFailure(_address(), f"on {_host()}: {text.partition(chr(10))[0]}")
        raise failure  # outside the handler: without the original error, which may not be picklable

    return cast(Task, run)


def log_event(kind: Callable[..., Event], **facts: Any) -> None:
    """Send an event of a kind (see :mod:`hpcfwi.events.types`) to the driver; does nothing outside of a Dask worker."""
    address = _address()
    if address:
        get_worker().log_event(EVENT_TOPIC, kind(worker=address, host=_host(), pid=os.getpid(), **facts).line())


def _host() -> str:
    return socket.gethostname().partition(".")[0]


def _address() -> str:
    """Dask address of this worker; empty outside of one."""
    try:
        return str(get_worker().address)
    except ValueError:
        return ""


@dataclass(frozen=True)
class ShotContext:
    """What all shots of a run share; ``boundary_gradient``, ``tail`` and ``misfit`` are the configuration's.

    Parameters
    ----------
    solver, spec
        The staged solver, and what it was built for: a worker on another kind of machine builds its own.
    cache_bytes
        Memory of a worker for observed data.
    stand_in
        How long shots sleep, in a study without kernels.
    """

    solver: StagedFile
    spec: SolverSpec
    wavelet: Wavelet
    boundary_gradient: str
    tail: str
    cache_bytes: int
    misfit: str = "l2"
    stand_in: SleepingShots | None = None


@dataclass(frozen=True, eq=False)
class _ObservedShot:
    """A shot as a worker keeps it: its gather on the time axis of the solver."""

    shot: Shot
    axis: TimeAxis
    gather: NDArray


class ShotWorker:
    """Engine, model and recently used shots of one worker process, and the seconds it took to load them."""

    def __init__(self, context: ShotContext) -> None:
        self.context = context
        started = time.perf_counter()
        with gc_paused():
            propagator, facts = obtain_solver(context.solver, context.spec)
            self.engine = open_engine(propagator, context.wavelet, context.boundary_gradient, context.stand_in)
        self.misfit = load_misfit(context.misfit)
        self._model_digest = ""
        self._shots: OrderedDict[str, _ObservedShot] = OrderedDict()
        self._threads_unknown = self.engine.runs_kernels
        self.model_seconds = self.data_seconds = 0.0
        self.solver_seconds = time.perf_counter() - started
        log_event(Solver, seconds=self.solver_seconds, **facts)

    def use_model(self, model: StagedFile) -> None:
        """Load a staged squared slowness unless it is the one in use."""
        if model.digest != self._model_digest:
            started = time.perf_counter()
            self._model_digest = ""  # in case loading fails half-way
            self.engine.set_model(load(model, "model"))
            self._model_digest = model.digest
            self.model_seconds += time.perf_counter() - started

    def observed(self, name: str, shot: StagedFile, axis: TimeAxis) -> _ObservedShot:
        """A staged shot on the time axis: kept from the last evaluation, or read and resampled."""
        known = self._shots.get(shot.digest)
        if known is not None and known.axis == axis:
            self._shots.move_to_end(shot.digest)
            return known
        started = time.perf_counter()
        content = load(shot, "shot")
        extrapolate, dtype = self.context.tail == "extrapolate", self.context.spec.dtype
        gather = resample(content["record"], content["sample_interval"], axis, dtype, extrapolate)
        found = _ObservedShot(Shot(name, content["source"], content["receivers"]), axis, gather)
        self._shots[shot.digest] = found
        kept_bytes = sum(kept.gather.nbytes for kept in self._shots.values())
        while len(self._shots) > 1 and kept_bytes > self.context.cache_bytes:
            kept_bytes -= self._shots.popitem(last=False)[1].gather.nbytes
        self.data_seconds += time.perf_counter() - started
        return found

    def record(self, shot: Shot, axis: TimeAxis, samples: int) -> NDArray:
        """Model the first ``samples`` of a gather in the model in use; the next call may overwrite them."""
        return self._tail(axis, samples).apply(self.engine.record(shot, axis))

    def evaluate(self, name: str, model: StagedFile, shot: StagedFile, axis: TimeAxis) -> FunctionalGradient:
        """Misfit and gradient of a shot; the first call reports how many threads computed, and on which CPUs."""
        with observed_threads() if self._threads_unknown else nullcontext() as use:
            self.use_model(model)
            observed = self.observed(name, shot, axis)
            compare = ShotMisfit(self.misfit, self._tail(axis, len(observed.gather)), observed.gather, axis)
            f, g = self.engine.misfit_and_gradient(observed.shot, axis, compare)
        if not np.isfinite(f):
            raise RunError(
                f"shot {name}: its misfit is {f}; the wavefield has grown without bounds. Check the model and "
                "solver.time_step"
            )
        if use is not None:
            self._threads_unknown = False
            log_event(ThreadPlacement, threads=use.threads, cpus=ranges(use.cpus), shot=name)
        return FunctionalGradient(f, g)

    def _tail(self, axis: TimeAxis, observed: int) -> Tail:
        return Tail(axis.samples, observed, zero_last=self.context.tail == "extrapolate")


_worker: ShotWorker | None = None
_one_at_a_time = threading.Lock()


def _resident(context: ShotContext) -> tuple[ShotWorker, float]:
    """This process's worker, made at its first shot, and the seconds that making it took now."""
    global _worker
    if _worker is not None and _worker.context == context:
        return _worker, 0.0
    if _worker is not None:
        _worker.engine.close()
    _worker = None
    _worker = ShotWorker(context)
    return _worker, _worker.solver_seconds


@task
def evaluate_shot(
    context: ShotContext,
    name: str,
    model: StagedFile,
    shot: StagedFile,
    axis: TimeAxis,
    evaluation: int,
    keep: Path | None = None,
) -> FunctionalGradient:
    """Misfit and gradient of one shot, which also go to the file ``keep`` if one is named (a task)."""
    with _one_at_a_time:
        started = time.perf_counter()
        worker, solver_seconds = _resident(context)
        kernels, models, data = worker.engine.kernel_seconds, worker.model_seconds, worker.data_seconds
        result = worker.evaluate(name, model, shot, axis)
        log_event(
            ShotDone,
            shot=name,
            evaluation=evaluation,
            misfit=result.f,
            seconds=time.perf_counter() - started,
            kernel_seconds=worker.engine.kernel_seconds - kernels,
            model_seconds=worker.model_seconds - models,
            data_seconds=worker.data_seconds - data,
            solver_seconds=solver_seconds,
            peak_memory=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        )
        return _kept(result, keep)


@task
def add_parts(parts: list[FunctionalGradient], keep: Path | None = None) -> FunctionalGradient:
    """One node of the summation tree, which also goes to the file ``keep`` if one is named (a task)."""
    return _kept(total(parts), keep)


@task
def add_shots(
    function: Callable[..., FunctionalGradient], arguments: Sequence[tuple[Any, ...]], keep: Path | None = None
) -> FunctionalGradient:
    """The sum of the tasks ``function(*arguments[i])``, run one after the other (a task)."""

    def one_by_one() -> Iterator[FunctionalGradient]:
        for place, each in enumerate(arguments):
            try:
                yield function(*each)
            except TaskFailure as failure:
                failure.place = place
                raise

    return _kept(total(one_by_one()), keep)


@task
def load_part(path: Path) -> FunctionalGradient:
    """One node of the summation tree, from the file that an earlier start left (a task)."""
    return read_partial(path)


def _kept(part: FunctionalGradient, path: Path | None) -> FunctionalGradient:
    """Write a part of the sum; a failure to write is only a warning."""
    if path is not None:
        try:
            write_partial(path, part)
        except StagingError as error:
            log_event(RunWarning, message=str(error))
    return part


@task
def observe_shot(
    context: ShotContext,
    shot: Shot,
    folder: Path,
    origin: str,
    recording: TimeAxis,
    file: Path | None,
    model: StagedFile | None,
    axis: TimeAxis | None,
) -> StagedFile:
    """Stage a shot's observed data, read from a file or modelled in the true model (a task)."""
    started, solver_seconds, name = time.perf_counter(), 0.0, f"{shot.file_name}.pkl"
    if file is None:
        known = find_staged(folder / name, "shot", origin)
        if known is not None:
            log_event(ShotStaged, shot=shot.name, seconds=time.perf_counter() - started, staged_before=True)
            return known
        assert model is not None
        assert axis is not None
        with _one_at_a_time:
            worker, solver_seconds = _resident(context)
            worker.use_model(model)
            modelled = worker.record(shot, axis, axis.samples)
            record = resample(modelled, axis.step, recording, context.spec.dtype, context.tail == "extrapolate")
    else:
        from hpcfwi.model.gathers import read_gather  # with libraries that few workers need

        record = read_gather(file, shot, recording)
    if not np.isfinite(record).all():
        raise DataError(shot.name, "its modelled gather is not finite; check the model and solver.time_step")
    positions = {"source": shot.source, "receivers": shot.receivers}
    content = {"record": record, **positions, "sample_interval": recording.step}
    record_digest = digest(np.ascontiguousarray(record).data)
    staged = stage(folder, "shot", content, name=name, shot=shot.name, record=record_digest, origin=origin)
    log_event(ShotStaged, shot=shot.name, seconds=time.perf_counter() - started, solver_seconds=solver_seconds)
    return staged


@task
def predict_shot(
    context: ShotContext, name: str, model: StagedFile, shot: StagedFile, axis: TimeAxis
) -> tuple[NDArray, NDArray]:
    """Observed and predicted gather of a staged shot, both on the time axis (a task)."""
    with _one_at_a_time:
        worker, _ = _resident(context)
        worker.use_model(model)
        observed = worker.observed(name, shot, axis)
        return observed.gather, worker.record(observed.shot, axis, len(observed.gather)).copy()


def shot_operations(context: ShotContext) -> ShotOperations:
    """The tasks that an objective runs, for one context."""
    from hpcfwi.inversion.objective import ShotOperations, task_key  # with pydantic, which workers do not need

    key = task_key(context.solver.digest, context.boundary_gradient, context.tail, context.misfit)
    return ShotOperations(observe_shot, evaluate_shot, predict_shot, context, key)
