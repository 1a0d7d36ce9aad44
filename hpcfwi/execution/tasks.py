"""What a worker runs: model a shot, or compute its misfit and gradient, with a solver that stays for the worker's life."""

from __future__ import annotations

import resource
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpcfwi.artifacts import StagedFile, digest, find_staged, load, stage
from hpcfwi.errors import DataError, RunError, StagingError
from hpcfwi.events.types import RunWarning, ShotDone, ShotStaged, Solver, ThreadPlacement
from hpcfwi.execution.affinity import observed_threads, ranges
from hpcfwi.execution.task_errors import TaskFailure, log_event, task
from hpcfwi.inversion.journal import read_partial, write_partial
from hpcfwi.inversion.misfit import FunctionalGradient, total
from hpcfwi.model.discretization import TimeAxis
from hpcfwi.model.processing import resample
from hpcfwi.model.survey import Shot
from hpcfwi.model.wavelet import Wavelet
from hpcfwi.process import gc_paused
from hpcfwi.solver.fields import Wavefields
from hpcfwi.solver.operators import obtain_solver
from hpcfwi.solver.sleeping import SleepingFields, StandIn
from hpcfwi.solver.spec import SolverSpec

__all__ = [
    "ShotContext",
    "ShotWorker",
    "add_parts",
    "add_shots",
    "evaluate_shot",
    "load_part",
    "observe_shot",
    "predict_shot",
]


@dataclass(frozen=True)
class ShotContext:
    """What all shots of a run have in common.

    Parameters
    ----------
    solver
        The staged solver.
    spec
        What it was built for; a worker on another kind of machine builds its own from it.
    wavelet
        The source time function.
    boundary_gradient
        ``"exact"`` or ``"crop"``.
    tail
        ``"cut"`` or ``"extrapolate"``: what is done with the last time step.
    cache_bytes
        Memory that a worker may use to keep observed data.
    stand_in
        What is done in place of the kernels, in a study.
    """

    solver: StagedFile
    spec: SolverSpec
    wavelet: Wavelet
    boundary_gradient: str
    tail: str
    cache_bytes: int
    stand_in: StandIn | None = None


@dataclass(frozen=True, eq=False)
class _Observed:
    """A shot as a worker keeps it: its data at the time step."""

    axis: TimeAxis
    source: NDArray
    receivers: NDArray
    record: NDArray

    @property
    def nbytes(self) -> int:
        return int(self.record.nbytes + self.receivers.nbytes)


class ShotWorker:
    """Solver, model and recently used shots of one worker process.

    Parameters
    ----------
    context
        What all shots have in common.
    """

    def __init__(self, context: ShotContext) -> None:
        self.context = context
        started = time.perf_counter()
        with gc_paused():
            propagator, facts = obtain_solver(context.solver, context.spec)
        stand_in = context.stand_in
        self.fields = Wavefields(propagator) if stand_in is None else SleepingFields(stand_in)
        self._model = ""
        self._wavelet: tuple[TimeAxis, NDArray] | None = None
        self._shots: OrderedDict[str, _Observed] = OrderedDict()
        self._threads_seen = False
        # seconds spent so far on what is no kernel
        self.model_seconds = self.data_seconds = 0.0
        self.solver_seconds = time.perf_counter() - started
        log_event(Solver, seconds=self.solver_seconds, **facts)

    def use_model(self, model: StagedFile) -> None:
        """Load a staged squared slowness unless it is the one in use."""
        if model.digest != self._model:
            started = time.perf_counter()
            self._model = ""  # in case it fails half-way
            self.fields.set_model(load(model, "model"))
            self._model = model.digest
            self.model_seconds += time.perf_counter() - started

    def record(self, source: NDArray, receivers: NDArray, axis: TimeAxis) -> NDArray:
        """Model a record, shape (samples, receivers): a view that the next call overwrites."""
        if isinstance(self.fields, SleepingFields):
            return np.zeros((axis.samples, len(receivers)), dtype=self.context.spec.dtype)
        if self._wavelet is None or self._wavelet[0] != axis:
            self._wavelet = (axis, self.context.wavelet.sample(axis))
        record = self.fields.forward(source, receivers, self._wavelet[1], axis.step, axis.samples)
        if self.context.tail == "extrapolate":
            record[-1] = 0
        return record

    def misfit(self, name: str, record: NDArray, observed: NDArray) -> float:
        """Turn a record into what is back-propagated, in place, and return half the residual's sum of squares.

        Samples after the end of the observed data have no residual.
        """
        covered = len(observed)
        record[:covered] -= observed
        record[covered:] = 0
        f = 0.5 * float(np.square(record[:covered], dtype=np.float64).sum())
        if self.context.tail == "extrapolate":
            record[-1] = 0  # was not modelled, so does not depend on the model
        if not np.isfinite(f):
            raise RunError(
                f"shot {name}: its misfit is {f}; the wavefield has grown beyond all bounds. Check the model and "
                "solver.time_step"
            )
        return f

    def evaluate(self, name: str, model: StagedFile, shot: StagedFile, axis: TimeAxis) -> FunctionalGradient:
        """Misfit ``0.5 sum (predicted - observed)^2`` of a shot, and its gradient.

        At the first one it is told on how many threads the kernels ran, and on which CPUs.
        """
        if self._threads_seen or isinstance(self.fields, SleepingFields):
            return self._evaluate(name, model, shot, axis)
        with observed_threads() as use:
            result = self._evaluate(name, model, shot, axis)
        self._threads_seen = True
        log_event(ThreadPlacement, threads=use.threads, cpus=ranges(use.cpus), shot=name)
        return result

    def _evaluate(self, name: str, model: StagedFile, shot: StagedFile, axis: TimeAxis) -> FunctionalGradient:
        self.use_model(model)
        observed = self.observed(shot, axis)
        if isinstance(self.fields, SleepingFields):
            return self.fields.evaluate(name)
        record = self.record(observed.source, observed.receivers, axis)
        f = self.misfit(name, record, observed.record)
        gradient = self.fields.gradient(record)
        boundary = self.context.spec.boundary
        exact = self.context.boundary_gradient == "exact"
        return FunctionalGradient(f, boundary.extend_transpose(gradient) if exact else boundary.crop(gradient))

    def observed(self, shot: StagedFile, axis: TimeAxis) -> _Observed:
        """A staged shot at the time step: kept from the last evaluation, or read and resampled."""
        known = self._shots.get(shot.digest)
        if known is not None and known.axis == axis:
            self._shots.move_to_end(shot.digest)
            return known
        started = time.perf_counter()
        content = load(shot, "shot")
        extrapolate = self.context.tail == "extrapolate"
        dtype = self.context.spec.dtype
        record = resample(content["record"], content["sample_interval"], axis, dtype, extrapolate)
        found = _Observed(axis, content["source"], content["receivers"], record)
        self._shots[shot.digest] = found
        while len(self._shots) > 1 and sum(kept.nbytes for kept in self._shots.values()) > self.context.cache_bytes:
            self._shots.popitem(last=False)
        self.data_seconds += time.perf_counter() - started
        return found


_worker: ShotWorker | None = None
_one_at_a_time = threading.Lock()


def _resident(context: ShotContext) -> tuple[ShotWorker, bool]:
    """This process's worker, made at its first shot and kept for its life; and whether it is new."""
    global _worker
    if _worker is not None and _worker.context == context:
        return _worker, False
    _worker = None  # frees the old one's memory first
    _worker = ShotWorker(context)
    return _worker, True


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
    """Misfit and gradient of one shot, kept in a file if one is named (a task)."""
    with _one_at_a_time:
        started = time.perf_counter()
        worker, new = _resident(context)
        before = worker.fields.kernel_seconds, worker.model_seconds, worker.data_seconds
        result = worker.evaluate(name, model, shot, axis)
        spent = {
            "kernel_seconds": worker.fields.kernel_seconds - before[0],
            "model_seconds": worker.model_seconds - before[1],
            "data_seconds": worker.data_seconds - before[2],
            "solver_seconds": worker.solver_seconds if new else 0.0,
        }
        log_event(
            ShotDone,
            shot=name,
            evaluation=evaluation,
            misfit=result.f,
            seconds=time.perf_counter() - started,
            # most are at the model that their worker has, with data that it has kept
            **{part: seconds for part, seconds in spent.items() if seconds or part == "kernel_seconds"},
            peak_memory=_peak_memory(),
        )
        return _kept(result, keep)


@task
def add_parts(parts: list[FunctionalGradient], keep: Path | None = None) -> FunctionalGradient:
    """One node of the summation tree, kept in a file if one is named (a task)."""
    return _kept(total(parts), keep)


@task
def add_shots(
    function: Callable[..., FunctionalGradient], arguments: Sequence[tuple[Any, ...]], keep: Path | None = None
) -> FunctionalGradient:
    """The sum of ``function(*arguments[i])``, which are tasks, kept in a file if one is named (a task)."""
    return _kept(total(_one_by_one(function, arguments)), keep)


def _one_by_one(
    function: Callable[..., FunctionalGradient], arguments: Sequence[tuple[Any, ...]]
) -> Iterator[FunctionalGradient]:
    for place, each in enumerate(arguments):
        try:
            yield function(*each)
        except TaskFailure as failure:
            failure.place = place
            raise


@task
def load_part(path: Path) -> FunctionalGradient:
    """One node of the summation tree that an earlier start has kept (a task)."""
    return read_partial(path)


def _kept(part: FunctionalGradient, path: Path | None) -> FunctionalGradient:
    """Keep a part of the sum; where that fails nothing is lost yet."""
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
    model: StagedFile | None,
    axis: TimeAxis | None,
    gathers: Path | None,
    interval: float,
    samples: int,
    folder: Path,
    origin: str,
) -> StagedFile:
    """Stage a shot's observed data: read them from ``gathers``, or model them in the true model (a task).

    Modelled ones of the same ``origin`` that are staged already, and sound, are left as they are: they stay the same to the
    last bit though the run goes on on another kind of machine.
    """
    started, loading = time.perf_counter(), {}
    name = f"{shot.file_name}.pkl"
    if gathers is None:
        known = find_staged(folder / name, "shot", origin)
        if known is not None:
            log_event(ShotStaged, shot=shot.name, seconds=time.perf_counter() - started, staged_before=True)
            return known
    if gathers is not None:
        from hpcfwi.model.gathers import read_gather  # with all that reads files, which few workers do

        record = read_gather(gathers, shot, TimeAxis(interval, samples))
    else:
        assert model is not None
        assert axis is not None
        with _one_at_a_time:
            worker, new = _resident(context)
            loading = {"solver_seconds": worker.solver_seconds} if new else {}
            worker.use_model(model)
            modelled = worker.record(shot.source, shot.receivers, axis)
            extrapolate = context.tail == "extrapolate"
            record = resample(modelled, axis.step, TimeAxis(interval, samples), context.spec.dtype, extrapolate)
    if not np.isfinite(record).all():
        raise DataError(shot.name, "its modelled record is not finite; check the model and solver.time_step")
    content = {
        "record": record,
        "source": shot.source,
        "receivers": shot.receivers,
        "sample_interval": interval,
    }
    told = digest(np.ascontiguousarray(record).data)
    staged = stage(folder, "shot", content, name=name, shot=shot.name, record=told, origin=origin)
    log_event(ShotStaged, shot=shot.name, seconds=time.perf_counter() - started, **loading)
    return staged


@task
def predict_shot(context: ShotContext, model: StagedFile, shot: StagedFile, axis: TimeAxis) -> tuple[NDArray, NDArray]:
    """Observed and predicted record of a staged shot, both on the time axis (a task)."""
    with _one_at_a_time:
        worker, _ = _resident(context)
        worker.use_model(model)
        observed = worker.observed(shot, axis)
        record = worker.record(observed.source, observed.receivers, axis)
        return observed.record, record[: len(observed.record)].copy()


def _peak_memory() -> int:
    """The most memory that this process has had so far, bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
