"""The map from models to processed gathers, its derivative (the Born operator), and the transpose of that."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpcfwi.artifacts import StagedFile, digest, stage
from hpcfwi.errors import RunError
from hpcfwi.events.types import Event, OperationDone, OperationStarted
from hpcfwi.inversion.functional_gradient import FunctionalGradient
from hpcfwi.inversion.journal import Journal, Partials, subset_digest
from hpcfwi.inversion.objective import MAX_DRIVER_SUM_BYTES, ShotExecutor, task_key
from hpcfwi.model.grid import TimeAxis
from hpcfwi.model.problem import Problem
from hpcfwi.model.velocity import velocity_from
from hpcfwi.model.windows import embed

Model = NDArray[np.float64]


@dataclass(frozen=True)
class LinearisedOperations:
    """The functions that an executor runs; the first arguments of each are ``context`` and the name of the shot."""

    # (context, name, shot, axis) -> NDArray: the observed gather of a staged shot, as the misfit compares it
    observed: Callable[..., NDArray]
    # (context, name, shot, axis) -> (samples, receivers): its shape
    shape: Callable[..., tuple[int, ...]]
    # (context, name, model, shot, axis) -> NDArray: the predicted one
    record: Callable[..., NDArray]
    # (context, name, model, shot, axis, direction) -> NDArray: its derivative
    born: Callable[..., NDArray]
    # (context, name, model, shot, axis, gather) -> FunctionalGradient: the transpose of the derivative; its misfit is 0
    born_adjoint: Callable[..., FunctionalGradient]
    # (context, name, model, shot, axis, direction) -> FunctionalGradient: both; the misfit is half the square of the former
    gauss_newton: Callable[..., FunctionalGradient]
    context: Any
    context_key: str  # digest of the part of the context that results depend on


@dataclass(eq=False, repr=False)
class ForwardMap:
    """F(m): the predicted gathers of a problem in a model m, squared slowness, (s/km)^2, as the misfit compares them.

    With T the processing and d(m) the modelled gathers, F is ``T(d(m))`` and its derivative ``J = T' d'(m)``. Changes of m are
    zero in frozen cells. ``chosen`` are indices of shots in survey order; None stands for all.

    Notes
    -----
    ``d'(m)`` is the Born approximation (Tarantola 1984, doi:10.1190/1.1441754). ``J^T J`` is the Hessian of the least-squares
    misfit without the second derivatives of F (Pratt, Shin and Hicks 1998, doi:10.1046/j.1365-246X.1998.00498.x).
    """

    problem: Problem
    operations: LinearisedOperations
    executor: ShotExecutor
    shots: list[StagedFile]  # the staged shots, in survey order
    staged: Path  # folder for models, directions and gathers
    journal: Callable[[str], Journal]  # the journal of the models at which the operation with this name was applied
    partials: Partials
    progress: Callable[[int, int], None] = lambda *_: None  # called with the number of shots done and of all shots
    log_event: Callable[[Event], None] = lambda _: None
    _shapes: dict[TimeAxis, dict[int, tuple[int, ...]]] = field(default_factory=dict)

    def observed(self, m: Model, chosen: Sequence[int] | None) -> list[NDArray]:
        """The observed gathers, at the samples at which those of a model are compared."""
        return self._map("observed", self.operations.observed, chosen, self._axis(m))

    def shapes(self, m: Model, chosen: Sequence[int] | None) -> list[tuple[int, ...]]:
        """The shapes of gathers: samples, and traces that are used."""
        axis, indices = self._axis(m), self._indices(chosen)
        known = self._shapes.setdefault(axis, {})
        missing = [shot for shot in indices if shot not in known]
        if missing:
            known |= zip(missing, self._map("shape", self.operations.shape, missing, axis), strict=True)
        return [known[shot] for shot in indices]

    def record(self, m: Model, chosen: Sequence[int] | None) -> list[NDArray]:
        """The predicted gathers F(m)."""
        with self._staged("model", m) as [model]:
            return self._map("record", self.operations.record, chosen, self._axis(m), model)

    def born(self, m: Model, dm: Model, chosen: Sequence[int] | None) -> list[NDArray]:
        """The derivatives J dm of the predicted gathers."""
        with self._staged("model", m) as [model], self._staged("direction", self._free(dm)) as [direction]:
            return self._map("born", self.operations.born, chosen, self._axis(m), model, direction)

    def born_adjoint(self, m: Model, gathers: Sequence[NDArray], chosen: Sequence[int] | None) -> Model:
        """The sum over the shots of J^T applied to their gathers."""
        content = digest(*(np.ascontiguousarray(each).data.cast("B") for each in gathers))
        return self._answer("born_adjoint", self.operations.born_adjoint, m, "gather", gathers, content, chosen)

    def gauss_newton(self, m: Model, dm: Model, chosen: Sequence[int] | None) -> Model:
        """The sum over the shots of J^T J dm; the gathers stay on the workers."""
        direction = self._free(dm)
        content = digest(direction.tobytes())
        return self._answer("gauss_newton", self.operations.gauss_newton, m, "direction", [direction], content, chosen)

    def _answer(
        self,
        operation: str,
        function: Callable[..., FunctionalGradient],
        m: Model,
        kind: str,
        data: Sequence[NDArray],
        content: str,
        chosen: Sequence[int] | None,
    ) -> Model:
        """The sum of an operation over the shots, from the journal, or computed and written there first.

        ``data`` are arrays of a ``kind``, one for each shot or one for all; ``content`` is their digest.
        """
        started, journal, x = time.perf_counter(), self.journal(f"{operation} {content}"), m.ravel()
        recorded, indices = journal.read(x, 0, chosen), self._indices(chosen)
        if recorded is None:
            self._begin(operation, indices)
            with self._staged("model", m) as [model], self._staged(kind, *data) as files:
                arguments = list(zip(indices, files if len(files) > 1 else files * len(indices), strict=True))
                pair = self._sum(operation, function, m, model, arguments, subset_digest(chosen) + content)
            journal.write(x, pair, 0, chosen)
            self.partials.end()
        else:
            pair = recorded[0]
        self._end(operation, indices, started, replayed=recorded is not None)
        return pair.g.reshape(m.shape)

    def _sum(
        self,
        operation: str,
        function: Callable[..., FunctionalGradient],
        m: Model,
        model: StagedFile,
        arguments: Sequence[tuple[int, StagedFile]],
        content: str,
    ) -> FunctionalGradient:
        axis, names = self._axis(m), self.problem.survey.names
        pair = self.executor.sum(
            function,
            [names[shot] for shot, _ in arguments],
            [(self.operations.context, names[shot], model, self.shots[shot], axis, file) for shot, file in arguments],
            [self._key(operation, shot, axis, model, file) for shot, file in arguments],
            self.progress,
            small=m.nbytes <= MAX_DRIVER_SUM_BYTES,
            partials=self.partials,
            evaluation=task_key(operation, model.digest, content),
        )
        if not np.isfinite(pair.g).all():
            raise RunError(
                f"the result of {operation} has values that are NaN or infinite; check the data and solver.dtype"
            )
        return FunctionalGradient(pair.f, self._free(embed(pair.g, pair.start, m.shape)).ravel())

    def _map(
        self,
        operation: str,
        function: Callable[..., Any],
        chosen: Sequence[int] | None,
        axis: TimeAxis,
        model: StagedFile | None = None,
        *files: StagedFile,
    ) -> list[Any]:
        """The results of an operation for each shot, in their order."""
        started, names, indices = time.perf_counter(), self.problem.survey.names, self._indices(chosen)
        self._begin(operation, indices)
        before = () if model is None else (model,)
        found = self.executor.map(
            function,
            [names[shot] for shot in indices],
            [(self.operations.context, names[shot], *before, self.shots[shot], axis, *files) for shot in indices],
            [self._key(operation, shot, axis, *before, *files) for shot in indices],
            self.progress,
        )
        self._end(operation, indices, started)
        return found

    def _begin(self, operation: str, indices: Sequence[int]) -> None:
        self.log_event(OperationStarted(operation=operation, shots=len(indices)))

    def _end(self, operation: str, indices: Sequence[int], started: float, replayed: bool = False) -> None:
        seconds = time.perf_counter() - started
        self.log_event(OperationDone(operation=operation, shots=len(indices), seconds=seconds, replayed=replayed))

    def _key(self, operation: str, shot: int, axis: TimeAxis, *files: StagedFile) -> str:
        digests = [file.digest for file in (*files, self.shots[shot])]
        return task_key(operation, self.operations.context_key, *digests, axis)

    def _indices(self, chosen: Sequence[int] | None) -> Sequence[int]:
        return range(len(self.shots)) if chosen is None else chosen

    def _axis(self, m: Model) -> TimeAxis:
        return self.problem.time_axis(velocity_from(m))

    def _free(self, values: Model) -> Model:
        """Values of cells, zero where they are frozen."""
        return np.where(self.problem.frozen, 0.0, values)

    @contextmanager
    def _staged(self, kind: str, *contents: NDArray) -> Iterator[list[StagedFile]]:
        """Arrays as staged files, which are removed at the end."""
        files: list[StagedFile] = []
        try:  # a full disk may stop it half-way
            files.extend(stage(self.staged, kind, each, sync=False) for each in contents)
            yield files
        finally:
            for file in files:
                with suppress(OSError):
                    Path(file.path).unlink(missing_ok=True)
