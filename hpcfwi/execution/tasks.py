"""The functions that workers run as Dask tasks, with their errors and events."""

from __future__ import annotations

import functools
import gc
import os
import resource
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
from distributed import get_worker
from numpy.typing import NDArray

from hpcfwi.artifacts import StagedFile, digest, find_staged, stage
from hpcfwi.errors import DataError, HpcfwiError, RunError, StagingError
from hpcfwi.events.types import Event, RunWarning, ShotDone, ShotStaged, TaskFailed
from hpcfwi.execution.shot_worker import ShotContext, ShotWorker
from hpcfwi.inversion.functional_gradient import FunctionalGradient, total
from hpcfwi.inversion.journal import read_partial, write_partial
from hpcfwi.io import format_ranges
from hpcfwi.model.grid import TimeAxis
from hpcfwi.model.source_estimate import GatherComparison
from hpcfwi.model.survey import Shot
from hpcfwi.model.traces import ShotData

if TYPE_CHECKING:
    from hpcfwi.inversion.objective import ShotOperations

EVENT_TOPIC = "hpcfwi"  # Dask topic of the events that workers send
Task = TypeVar("Task", bound=Callable[..., Any])


class TaskFailure(RunError):
    """A task failed, possibly because of its worker."""

    def __init__(self, worker: str, reason: str) -> None:
        super().__init__(worker, reason)
        self.worker, self.reason = worker, reason  # Dask address, and what happened there
        self.position = 0  # of the shot in a batch

    def __str__(self) -> str:
        return self.reason


def task(function: Task) -> Task:
    """Decorate a task so that its errors are one line with the host's name, and their tracebacks are logged."""

    @functools.wraps(function)
    def run(*args: Any) -> Any:
        try:
            return function(*args)
        except DataError as error:
            failure: HpcfwiError = DataError(error.shot, error.problem)
        except TaskFailure as error:
            failure = error  # of a nested task
        except Exception as error:
            log_event(TaskFailed, task=function.__name__, traceback=traceback.format_exc())
            text = str(error) if isinstance(error, HpcfwiError) else f"{type(error).__name__}: {error}"
            failure = TaskFailure(_address(), f"on {_host()}: {text.partition(chr(10))[0]}")
        raise failure  # outside the handler, to drop the original error, which may not be picklable

    return cast(Task, run)


def log_event(kind: Callable[..., Event], **facts: Any) -> None:
    """Send an event, of a class in :mod:`hpcfwi.events.types`, to the driver; do nothing outside a Dask worker."""
    address = _address()
    if address:
        get_worker().log_event(EVENT_TOPIC, kind(worker=address, host=_host(), pid=os.getpid(), **facts).line())


def _host() -> str:
    return socket.gethostname().partition(".")[0]


def _address() -> str:
    """Dask address of this worker; empty outside a worker."""
    try:
        return str(get_worker().address)
    except ValueError:
        return ""


_worker: ShotWorker | None = None
shot_lock = threading.Lock()


def worker_for(context: ShotContext) -> tuple[ShotWorker, float]:
    """Return this process's shot worker, and the seconds spent on creating it; 0 if it existed before."""
    global _worker
    if _worker is not None and replace(_worker.context, source=context.source) == context:
        if _worker.context.source != context.source:
            _worker.use_source(context.source)
        return _worker, 0.0
    _worker = None  # frees the memory of another context
    gc.collect()
    _worker = ShotWorker(context, log_event)
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
    """Compute misfit and gradient of one shot, and write them to the file ``keep``, if any."""
    with shot_lock:
        started = time.perf_counter()
        worker, solver_seconds = worker_for(context)
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
        return save_part(result, keep)


@task
def add_parts(parts: list[FunctionalGradient], keep: Path | None = None) -> FunctionalGradient:
    """Add up the parts of a node of the summation tree, and write the sum to the file ``keep``, if any."""
    return save_part(total(parts), keep)


@task
def add_shots(
    function: Callable[..., FunctionalGradient], arguments: Sequence[tuple[Any, ...]], keep: Path | None = None
) -> FunctionalGradient:
    """Run ``function(*arguments[i])`` for each shot of a batch, one after the other, and add up the results."""

    def one_by_one() -> Iterator[FunctionalGradient]:
        for position, each in enumerate(arguments):
            try:
                yield function(*each)
            except TaskFailure as failure:
                failure.position = position
                raise

    return save_part(total(one_by_one()), keep)


@task
def load_part(path: Path) -> FunctionalGradient:
    """Read a node of the summation tree from the file that an earlier start left."""
    return read_partial(path)


def save_part(part: FunctionalGradient, path: Path | None) -> FunctionalGradient:
    """Write a part of the sum to a file, if any, and return it; a failure is only a warning."""
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
    data: ShotData | None,
    model: StagedFile | None,
    axis: TimeAxis | None,
) -> StagedFile:
    """Stage a shot's observed data, read from files or modelled in the true model."""
    started, solver_seconds, name = time.perf_counter(), 0.0, f"{shot.file_name}.pkl"
    known = find_staged(folder / name, "shot", origin) if origin else None
    if known is not None:
        log_event(ShotStaged, shot=shot.name, seconds=time.perf_counter() - started, staged_before=True)
        return known
    content: dict[str, Any] = {"source": shot.source, "receivers": shot.receivers, "sample_interval": recording.step}
    left_out: dict[str, str] = {}
    if data is None:
        assert model is not None
        assert axis is not None
        with shot_lock:
            worker, solver_seconds = worker_for(context)
            worker.use_model(model, own_edges=True)
            record = worker.synthetic(shot, axis)
        if not np.isfinite(record).all():
            raise DataError(shot.name, "its modelled gather is not finite; check the model and solver.time_step")
    else:
        gather = data.read(shot, recording)
        record, left_out = gather.record, {reason: format_ranges(traces) for reason, traces in gather.left_out.items()}
        content |= gather.partial(recording.samples)
    record_digest = digest(np.ascontiguousarray(record).data)
    if data is not None and data.in_place:
        content |= {"data": data, "recording": recording, "digest": record_digest}
    else:
        content["record"] = record
    staged = stage(
        folder,
        "shot",
        content,
        name=name,
        shot=shot.name,
        record=record_digest,
        origin=origin,
        left_out=left_out,
    )
    log_event(ShotStaged, shot=shot.name, seconds=time.perf_counter() - started, solver_seconds=solver_seconds)
    return staged


@task
def predict_shot(
    context: ShotContext, name: str, model: StagedFile, shot: StagedFile, axis: TimeAxis, processed: bool
) -> tuple[NDArray, NDArray, NDArray[np.float64]]:
    """Return observed and predicted gather of a staged shot, as the misfit compares them or before the processing.

    The third array has the positions of its receivers.
    """
    with shot_lock:
        worker, _ = worker_for(context)
        worker.use_model(model)
        if processed:
            observed, predicted = worker.compared(name, shot, axis)
            return observed.gather, predicted, observed.shot.receivers
        recorded = worker.recorded(name, shot, axis)
        return recorded.record, worker.predict(recorded.shot, axis), recorded.shot.receivers


@task
def compare_shot(
    context: ShotContext,
    name: str,
    model: StagedFile,
    shot: StagedFile,
    axis: TimeAxis,
    processed: bool,
    max_offset: float | None,
) -> GatherComparison:
    """Compare observed and predicted gathers in the frequency domain.

    They are those of the misfit, with the source filters; or, unless ``processed``, those from which filters are estimated.
    """
    with shot_lock:
        worker, _ = worker_for(context)
        worker.use_model(model)
        if processed:
            observed, predicted = worker.compared(name, shot, axis)
            return GatherComparison.of(observed.gather, predicted, observed.axis)
        return worker.compare_unfiltered(name, shot, axis, max_offset)


def with_source(operations: ShotOperations, filters: StagedFile | None) -> ShotOperations:
    """The operations with filters of predicted gathers."""
    return shot_operations(replace(operations.context, source=filters))


def shot_operations(context: ShotContext) -> ShotOperations:
    """Return the tasks that an objective runs with a context."""
    from hpcfwi.inversion.objective import ShotOperations, task_key  # imports pydantic, which workers do not need

    edges = context.edges and context.edges.digest
    processing = context.processing and context.processing.digest
    key = task_key(
        context.solver.digest,
        context.wavelet.digest,
        edges,
        context.sampling,
        context.windows,
        context.misfit,
        processing,
        context.source and context.source.digest,
    )
    return ShotOperations(observe_shot, evaluate_shot, predict_shot, compare_shot, context, key)
