"""The objective of an inversion: misfit and gradient at a vector of the optimiser, summed over all shots of the survey."""

import hashlib
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from hpcfwi.artifacts import StagedFile, shard_folder, stage
from hpcfwi.errors import RunError
from hpcfwi.events.types import EvaluationDone
from hpcfwi.inversion.conditioning.regularisation import Regularisation
from hpcfwi.inversion.functional_gradient import FunctionalGradient
from hpcfwi.inversion.journal import Journal, Partials, subset_digest
from hpcfwi.inversion.parametrisation import Parametrisation
from hpcfwi.model.grid import TimeAxis
from hpcfwi.model.problem import Problem
from hpcfwi.model.source_estimate import GatherComparison
from hpcfwi.model.velocity import squared_slowness, velocity_from
from hpcfwi.model.windows import embed
from hpcfwi.version import __version__

# Up to this size of a gradient the driver may add the last few sums itself.
MAX_DRIVER_SUM_BYTES = 4_000_000


class ShotExecutor(Protocol):
    """Runs a function for each shot, and retries it on other workers if it fails."""

    shots_per_task: int  # shots that one task of the last sum() computed

    def map(
        self,
        function: Callable[..., Any],
        names: Sequence[str],
        arguments: Sequence[tuple[Any, ...]],
        keys: Sequence[str],
        progress: Callable[[int, int], None] = ...,
    ) -> list[Any]:
        """Return ``function(*arguments[i])`` for each shot, in their order.

        Parameters
        ----------
        function
            One of :class:`ShotOperations`.
        names, arguments, keys
            For each shot its name, the arguments, and a digest of everything that the result depends on.
        progress
            Called with the number of shots done and of all shots.

        Raises
        ------
        DataError, ShotFailed
            If a shot's own data cannot be used, or a shot fails on every attempt.
        Interrupted
            If the run has to stop before all shots are done.
        """

    def sum(
        self,
        function: Callable[..., FunctionalGradient],
        names: Sequence[str],
        arguments: Sequence[tuple[Any, ...]],
        keys: Sequence[str],
        progress: Callable[[int, int], None] = ...,
        small: bool = False,
        partials: Partials | None = None,
        evaluation: str = "",
    ) -> FunctionalGradient:
        """Add ``function(*arguments[i])`` over the shots, in a tree whose shape depends on their order alone.

        Arguments and errors are those of :meth:`map`; ``small`` lets the driver add the last few sums (gradients of
        at most :data:`MAX_DRIVER_SUM_BYTES`). With ``partials``, sums of consecutive shots are kept for a restart under the
        digest ``evaluation``, and ``function`` takes the file for its own result, or None, as one more argument.
        """


@dataclass(frozen=True)
class ShotOperations:
    """The functions that an executor runs; the first argument of each is their common ``context``."""

    # (context, shot, folder, origin, recording, data, model, axis) -> StagedFile: stage a shot's observed data: read `data`
    # (ShotData), or if it is None, model them in `model` on the time axis `axis`. Data of the same origin are reused, unless
    # `origin` is empty.
    observe: Callable[..., StagedFile]
    # (context, name, model, shot, axis, number) -> FunctionalGradient: misfit and gradient of a staged shot
    evaluate: Callable[..., FunctionalGradient]
    # (context, name, model, shot, axis, processed) -> (observed, predicted, receivers): both gathers of a staged shot
    predict: Callable[..., tuple[NDArray, NDArray, NDArray]]
    # (context, name, model, shot, axis, processed, max_offset) -> GatherComparison: both gathers, in the frequency domain
    compare: Callable[..., GatherComparison]
    context: Any
    context_key: str  # digest of the part of the context that results depend on


class ShotGathers(NamedTuple):
    """The gathers of a shot, shape (samples, receivers), with the traces that are used."""

    observed: NDArray
    predicted: NDArray
    axis: TimeAxis
    receivers: NDArray[np.float64]  # positions, shape (receivers, ndim), m


def task_key(*parts: object) -> str:
    """Name of a task: a digest of everything that its result depends on."""
    return hashlib.blake2b("\0".join(map(repr, parts)).encode(), digest_size=12).hexdigest()


def _shot_key(operations: ShotOperations, model: StagedFile, shot: StagedFile, axis: TimeAxis) -> str:
    return task_key(operations.context_key, model.digest, shot.digest, axis)


class _Lazy(Sequence[tuple[Any, ...]]):
    """Arguments that are made when a shot's turn comes: those of all shots together would take much memory."""

    def __init__(self, make: Callable[[int], tuple[Any, ...]], count: int) -> None:
        self._make, self._count = make, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: Any) -> Any:
        return self._make(range(self._count)[number])


def observe(problem: Problem, operations: ShotOperations, executor: ShotExecutor, staged: Path) -> list[StagedFile]:
    """Stage the observed data of every shot in the folder ``staged``; returns the shots in survey order."""
    shots, names, origin = problem.survey.shots, problem.survey.names, problem.base_digest or problem.digest
    observations, model, axis = problem.observations, None, None
    modelled = observations.recordings is None
    if modelled:
        assert problem.true_velocity is not None
        model = stage(staged, "model", squared_slowness(problem.true_velocity))
        axis = problem.time_axis(problem.true_velocity)
    versions = observations.stamp()
    # of files without a version, the content is compared with that of the first start
    stamp = task_key(__version__, origin, versions) if modelled or versions else ""

    def arguments(number: int) -> tuple[Any, ...]:
        shot, folder = shots[number], shard_folder(staged / "shots", names[number], len(shots))
        data = None if modelled else observations.shot_data(shot.name)
        return operations.context, shot, folder, stamp, problem.recording, data, model, axis

    try:
        return executor.map(
            operations.observe,
            names,
            _Lazy(arguments, len(shots)),
            [task_key(origin, operations.context_key, versions, name) for name in names],
        )
    finally:
        if model is not None:
            Path(model.path).unlink(missing_ok=True)


@dataclass(eq=False, repr=False)
class Objective:
    """Callable for the optimiser: ``f, g = objective(x)``, or ``objective(x, shots)`` for some of the shots."""

    problem: Problem  # what is inverted
    parametrisation: Parametrisation  # what x stands for
    operations: ShotOperations  # the functions of a shot
    executor: ShotExecutor  # what runs them
    shots: list[StagedFile]  # the staged shots, in survey order
    staged: Path  # folder for models
    journal: Journal  # recorded evaluations
    partials: Partials  # partial sums of the current evaluation
    progress: Callable[[int, int], None] = lambda *_: None  # called with the number of shots done and of all shots
    # called with the number of an evaluation and that of its shots before they begin
    on_begin: Callable[[int, int], None] = lambda *_: None
    evaluations: list[EvaluationDone] = field(default_factory=list)  # so far, including replayed ones
    on_evaluation: Callable[[EvaluationDone], None] = lambda _: None  # called after each evaluation
    # the functions of a shot in a model, km/s, if its wavelet is estimated in each; None: `operations` in all
    operations_in: Callable[[NDArray], AbstractContextManager[ShotOperations]] | None = None
    first_evaluation: int = 0  # place of the first one of this stage in `evaluations`
    # what is added to the misfit, relative to the first one of the stage; the journal has the misfit alone
    regularisation: Regularisation = field(default_factory=Regularisation)
    scaled: bool = True  # whether the sum over some shots stands for that over all

    def __post_init__(self) -> None:
        self.first_gradient: NDArray | None = None  # of evaluation 1, on the grid, unless it was in the journal
        self.seconds = 0.0  # wall time of all evaluations
        self._names = list(self.problem.survey.names)

    @property
    def shot_count(self) -> int:
        """Shots of the survey."""
        return len(self.shots)

    def __call__(self, x: NDArray[np.float64], shots: Sequence[int] | None = None) -> tuple[float, NDArray[np.float64]]:
        """Misfit and gradient at x, from the journal, or computed and written there first; with the regularisation.

        ``shots`` are indices in survey order; None stands for all. If it is ``scaled``, the sum over n of N shots is multiplied
        by N / n, so that it is an estimate of the sum over all.
        """
        started, number = time.perf_counter(), len(self.evaluations) + 1
        subset = None if shots is None or len(shots) == len(self.shots) else tuple(shots)
        recorded = self.journal.read(x, number, subset)
        parts = {"journal_seconds": time.perf_counter() - started}
        if recorded is None:
            pair, drift, shots_per_task = self._evaluate(x, number, subset, parts), 0.0, self.executor.shots_per_task
            computed = time.perf_counter()
            self.journal.write(x, pair, number, subset)
            self.partials.end()
            parts["journal_seconds"] += time.perf_counter() - computed
        else:
            (pair, drift), shots_per_task = recorded, 1
        known = len(self.evaluations) > self.first_evaluation
        unit = self.evaluations[self.first_evaluation].misfit if known else pair.f
        whole = self.regularisation.add(pair, self.parametrisation, x, unit)
        seconds = time.perf_counter() - started
        evaluation = EvaluationDone(
            evaluation=number,
            number=number,
            misfit=pair.f,
            seconds=seconds,
            replayed=recorded is not None,
            drift=drift,
            batch=None if subset is None else len(subset),
            **parts,
            shots_per_task=shots_per_task,
            objective=whole.f,
        )
        self.evaluations.append(evaluation)
        self.on_evaluation(evaluation)
        self.seconds += time.perf_counter() - started
        return whole.f, whole.g

    def misfit_of(self, value: float) -> float:
        """The misfit of the last evaluation with a value of the objective: without the regularisation."""
        return next((each.misfit for each in reversed(self.evaluations) if each.objective == value), value)

    def _evaluate(
        self, x: NDArray[np.float64], number: int, subset: Sequence[int] | None, parts: dict[str, float]
    ) -> FunctionalGradient:
        """Compute misfit and gradient; their times go into ``parts``."""
        m = self.parametrisation.to_model(x)
        if self.operations_in is None:
            pair = self._sum(m, self.operations, number, subset, parts)
        else:
            began = time.perf_counter()
            with self.operations_in(velocity_from(m)) as operations:
                parts["source_seconds"] = time.perf_counter() - began
                pair = self._sum(m, operations, number, subset, parts)
        share = 1.0 if subset is None or not self.scaled else len(self.shots) / len(subset)
        gradient = share * pair.g
        if number == 1:
            self.first_gradient = gradient
        return FunctionalGradient(share * pair.f, self.parametrisation.pull_back(x, gradient))

    def _sum(
        self,
        m: NDArray,
        operations: ShotOperations,
        number: int,
        subset: Sequence[int] | None,
        parts: dict[str, float],
    ) -> FunctionalGradient:
        """Sum misfit and gradient, on the grid, of all shots or some in a model, squared slowness."""
        started = last_shot = time.perf_counter()
        axis = self.problem.time_axis(velocity_from(m))
        model = stage(self.staged, "model", m, sync=False)
        chosen = range(len(self.shots)) if subset is None else subset
        self.on_begin(number, len(chosen))
        staged, cpu = time.perf_counter(), time.process_time()

        def progress(done: int, total: int) -> None:
            nonlocal last_shot
            if done == total:
                last_shot = time.perf_counter()
            self.progress(done, total)

        names, shots = [self._names[i] for i in chosen], [self.shots[i] for i in chosen]
        try:
            pair = self.executor.sum(
                operations.evaluate,
                names,
                [
                    (operations.context, name, model, shot, axis, number)
                    for name, shot in zip(names, shots, strict=True)
                ],
                [_shot_key(operations, model, shot, axis) for shot in shots],
                progress,
                small=m.nbytes <= MAX_DRIVER_SUM_BYTES,
                partials=self.partials,
                evaluation=model.digest + subset_digest(subset),
            )
        finally:
            Path(model.path).unlink(missing_ok=True)
        parts |= {
            "model_seconds": staged - started,
            "shots_seconds": last_shot - staged,
            "sum_seconds": time.perf_counter() - last_shot,
            "cpu_seconds": time.process_time() - cpu,
        }
        if not np.isfinite(pair.g).all():
            raise RunError(
                f"the gradient of evaluation {number} has values that are NaN or infinite; check the data and solver.dtype"
            )
        return FunctionalGradient(pair.f, embed(pair.g, pair.start, self.problem.domain.shape))

    def compare(
        self, velocity: NDArray, shots: Sequence[int], processed: bool = True, max_offset: float | None = None
    ) -> list[GatherComparison]:
        """Compare observed and predicted gathers of some shots in a model, km/s, in the frequency domain.

        They are processed as the misfit compares them; or, unless ``processed``, only by the steps before the first one that
        does not commute with a change of the wavelet, and without traces beyond ``max_offset``, m.
        """
        axis = self.problem.time_axis(velocity)
        model = stage(self.staged, "model", squared_slowness(velocity), sync=False)
        options = processed, max_offset
        try:
            return self.executor.map(
                self.operations.compare,
                [self._names[shot] for shot in shots],
                [(self.operations.context, self._names[i], model, self.shots[i], axis, *options) for i in shots],
                [
                    task_key("compare", _shot_key(self.operations, model, self.shots[shot], axis), *options)
                    for shot in shots
                ],
            )
        finally:
            Path(model.path).unlink(missing_ok=True)

    def predict(self, velocity: NDArray, index: int, processed: bool = True) -> ShotGathers:
        """Observed and predicted gather of one shot in a model, km/s.

        They are processed as the misfit compares them, or as they are before the processing.
        """
        axis = self.problem.time_axis(velocity)
        model = stage(self.staged, "model", squared_slowness(velocity), sync=False)
        name, shot = self._names[index], self.shots[index]
        arguments = (self.operations.context, name, model, shot, axis, processed)
        key = task_key("predict", _shot_key(self.operations, model, shot, axis), processed)
        try:
            ((observed, predicted, receivers),) = self.executor.map(self.operations.predict, [name], [arguments], [key])
        finally:
            Path(model.path).unlink(missing_ok=True)
        after = self.problem.compared_axis(axis) if processed else self.problem.sampling.compared(axis)
        return ShotGathers(observed, predicted, after, receivers)
