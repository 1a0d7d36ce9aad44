"""The tasks of a forward map: gathers, their derivatives, and what the transposes make of gathers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hpcfwi.artifacts import StagedFile, load
from hpcfwi.errors import RunError
from hpcfwi.events.types import OperationOnShot
from hpcfwi.execution.shot_worker import ShotContext, ShotWorker
from hpcfwi.execution.tasks import log_event, save_part, shot_lock, task, worker_for
from hpcfwi.inversion.functional_gradient import FunctionalGradient
from hpcfwi.model.grid import TimeAxis

if TYPE_CHECKING:
    from hpcfwi.inversion.forward_map import LinearisedOperations
    from hpcfwi.inversion.objective import ShotOperations


@contextmanager
def _worker_with(context: ShotContext, operation: str, name: str, model: StagedFile | None) -> Iterator[ShotWorker]:
    """The worker of this process with a model, for one operation on a shot, whose duration is logged."""
    with shot_lock:
        started = time.perf_counter()
        worker, solver_seconds = worker_for(context)
        kernels = worker.engine.kernel_seconds
        if model is not None:
            worker.use_model(model)
        yield worker
        log_event(
            OperationOnShot,
            shot=name,
            operation=operation,
            seconds=time.perf_counter() - started,
            kernel_seconds=worker.engine.kernel_seconds - kernels,
            solver_seconds=solver_seconds,
        )


@task
def observed_gather(context: ShotContext, name: str, shot: StagedFile, axis: TimeAxis) -> NDArray:
    """Return the observed gather of a staged shot, as the misfit compares it; shape (samples, receivers)."""
    with _worker_with(context, "observed", name, None) as worker:
        return worker.observed(name, shot, axis).gather


@task
def gather_shape(context: ShotContext, name: str, shot: StagedFile, axis: TimeAxis) -> tuple[int, ...]:
    """Return the shape of the gathers of a staged shot that the misfit compares: samples, and traces that are used."""
    with _worker_with(context, "shape", name, None) as worker:
        return worker.observed(name, shot, axis).gather.shape


@task
def predicted_gather(context: ShotContext, name: str, model: StagedFile, shot: StagedFile, axis: TimeAxis) -> NDArray:
    """Return the predicted gather of a staged shot, as the misfit compares it."""
    with _worker_with(context, "record", name, model) as worker:
        return _finite(worker.compared(name, shot, axis)[1], "the model and solver.time_step")


@task
def born_gather(
    context: ShotContext, name: str, model: StagedFile, shot: StagedFile, axis: TimeAxis, direction: StagedFile
) -> NDArray:
    """Return the derivative of :func:`predicted_gather` in a direction."""
    with _worker_with(context, "born", name, model) as worker:
        return _finite(worker.born(name, shot, axis, load(direction, "direction")), "the size of dm and solver.dtype")


@task
def born_adjoint_gradient(
    context: ShotContext,
    name: str,
    model: StagedFile,
    shot: StagedFile,
    axis: TimeAxis,
    gather: StagedFile,
    keep: Path | None = None,
) -> FunctionalGradient:
    """Apply the transpose of :func:`born_gather` to a gather, and write the result to the file ``keep``, if any."""
    with _worker_with(context, "born_adjoint", name, model) as worker:
        return save_part(worker.born_adjoint(name, shot, axis, load(gather, "gather")), keep)


@task
def gauss_newton_gradient(
    context: ShotContext,
    name: str,
    model: StagedFile,
    shot: StagedFile,
    axis: TimeAxis,
    direction: StagedFile,
    keep: Path | None = None,
) -> FunctionalGradient:
    """Apply :func:`born_gather` and its transpose to a direction, and write the result to the file ``keep``, if any."""
    with _worker_with(context, "gauss_newton", name, model) as worker:
        return save_part(worker.gauss_newton(name, shot, axis, load(direction, "direction")), keep)


def linearised_operations(operations: ShotOperations) -> LinearisedOperations:
    """The tasks of a forward map with the context of other operations."""
    from hpcfwi.inversion.forward_map import LinearisedOperations  # imports pydantic, which workers do not need

    return LinearisedOperations(
        observed_gather,
        gather_shape,
        predicted_gather,
        born_gather,
        born_adjoint_gradient,
        gauss_newton_gradient,
        operations.context,
        operations.context_key,
    )


def _finite(gather: NDArray, causes: str) -> NDArray:
    if not np.isfinite(gather).all():
        raise RunError(f"its gather is not finite; check {causes}")
    return gather
