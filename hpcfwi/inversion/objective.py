"""The objective: misfit and gradient at a squared slowness, summed over all shots of the survey."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpcfwi.artifacts import StagedFile, shard_folder, stage
from hpcfwi.errors import RunError
from hpcfwi.execution.executor import DaskExecutor
from hpcfwi.execution.reduction import task_key
from hpcfwi.execution.tasks import ShotContext, evaluate_shot, observe_shot, predict_shot
from hpcfwi.inversion.journal import Journal, Partials
from hpcfwi.inversion.misfit import FunctionalGradient
from hpcfwi.model.discretization import TimeAxis
from hpcfwi.model.problem import Problem
from hpcfwi.model.velocity import squared_slowness, velocity_from
from hpcfwi.version import __version__

__all__ = ["Evaluation", "Objective", "observe"]

# Bytes of a gradient up to which a handful of them may come to the driver instead of their sum.
SMALL = 4_000_000


@dataclass(frozen=True)
class Evaluation:
    """One answer to the optimiser.

    Parameters
    ----------
    number
        1, 2, ...; replayed ones count.
    misfit
        Sum over all shots.
    seconds
        Wall time.
    replayed
        Whether the answer came from the journal.
    drift
        How far the model is from that of the journal's answer, relative; 0 where they are the same bytes.
    model_seconds, shots_seconds, sum_seconds, journal_seconds
        Of the wall time: staging the model, the shots until the last one was there, from there to the sum of all, and looking
        the answer up or writing it down.
    cpu_seconds
        Time that the driver's process, in which Dask's scheduler is, was on a CPU for shots and sum.
    in_one_task
        Shots that a task computed.
    """

    number: int
    misfit: float
    seconds: float
    replayed: bool
    drift: float = 0.0
    model_seconds: float = 0.0
    shots_seconds: float = 0.0
    sum_seconds: float = 0.0
    journal_seconds: float = 0.0
    cpu_seconds: float = 0.0
    in_one_task: int = 1


def observe(
    problem: Problem, context: ShotContext, tasks: DaskExecutor, staged: Path, progress: Any
) -> list[StagedFile]:
    """Stage the observed data of every shot; modelled ones that an earlier start has staged are taken over."""
    gathers = problem.config.data.file
    model = axis = None
    if gathers is None:
        assert problem.true_velocity is not None
        model = stage(staged, "model", squared_slowness(problem.true_velocity))
        axis = problem.time_axis(problem.true_velocity)
    shots = problem.survey.shots
    origin = problem.base_digest or problem.digest
    rest = (
        model,
        axis,
        gathers,
        problem.config.data.sample_interval,
        problem.recording.samples,
    )
    stamp = task_key(__version__, origin)
    try:
        return tasks.gather(
            observe_shot,
            [shot.name for shot in shots],
            [(context, shot, *rest, shard_folder(staged / "shots", shot.name, len(shots)), stamp) for shot in shots],
            [task_key(origin, context.solver.digest, shot.name) for shot in shots],
            progress,
        )
    finally:
        if model is not None:
            Path(model.path).unlink(missing_ok=True)


class Objective:
    """Callable for the optimiser: ``f, g = objective(x)``.

    Parameters
    ----------
    problem
        What is inverted.
    context
        What the shots have in common.
    shots
        The staged shots, in survey order.
    tasks
        Where they run.
    staged
        Folder for models.
    journal
        Answers from earlier, and for later.
    partials
        Sums of a few shots, of the evaluation that is under way.
    progress
        Called with shots done and shots in all.
    on_begin
        Called with the number of an evaluation before its shots begin.
    on_evaluation
        Called after each evaluation with it, x and the gradient.
    """

    def __init__(
        self,
        problem: Problem,
        context: ShotContext,
        shots: list[StagedFile],
        tasks: DaskExecutor,
        staged: Path,
        journal: Journal,
        partials: Partials,
        progress: Callable[[int, int], None] = lambda *_: None,
        on_begin: Callable[[int], None] = lambda _: None,
        on_evaluation: Callable[[Evaluation, NDArray, NDArray], None] = lambda *_: None,
    ) -> None:
        self.problem, self.context, self.shots, self.tasks = problem, context, shots, tasks
        self.staged, self.journal, self.partials = staged, journal, partials
        self.progress, self.on_begin, self.on_evaluation = progress, on_begin, on_evaluation
        self.evaluations: list[Evaluation] = []
        # spent here, which is not the optimiser's
        self.seconds = 0.0
        self.gradient: NDArray = np.zeros(0)
        self._names = [shot.name for shot in problem.survey.shots]

    def __call__(self, x: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """Misfit and gradient at the squared slowness ``x``, (s/km)^2, flat; the gradient of frozen cells is zero."""
        started, number = time.perf_counter(), len(self.evaluations) + 1
        recorded = self.journal.read(x, number)
        parts = {"journal_seconds": time.perf_counter() - started}
        if recorded is None:
            answer, drift = self._evaluate(x, parts), 0.0
            answered = time.perf_counter()
            self.journal.write(x, answer, number)
            self.partials.end()
            parts["journal_seconds"] += time.perf_counter() - answered
        else:
            answer, drift = recorded.answer, recorded.drift
        seconds = time.perf_counter() - started
        in_one_task = self.tasks.in_one_task if recorded is None else 1
        evaluation = Evaluation(
            number, answer.f, seconds, recorded is not None, drift, **parts, in_one_task=in_one_task
        )
        self.evaluations.append(evaluation)
        self.gradient = answer.g
        self.on_evaluation(evaluation, x, answer.g)
        self.seconds += time.perf_counter() - started
        return answer.f, answer.g.ravel()

    def _evaluate(self, x: NDArray[np.float64], parts: dict[str, float]) -> FunctionalGradient:
        """Compute an answer; how long its parts took is added to ``parts``."""
        started = last_shot = time.perf_counter()
        m = x.reshape(self.problem.domain.shape)
        axis = self.problem.time_axis(velocity_from(m))
        model = stage(self.staged, "model", m, sync=False)
        number = len(self.evaluations) + 1
        self.on_begin(number)
        staged, cpu = time.perf_counter(), time.process_time()

        def progress(done: int, total: int) -> None:
            nonlocal last_shot
            if done == total:
                last_shot = time.perf_counter()
            self.progress(done, total)

        try:
            answer = self.tasks.sum(
                evaluate_shot,
                self._names,
                [
                    (self.context, name, model, shot, axis, number)
                    for name, shot in zip(self._names, self.shots, strict=True)
                ],
                [self._key(model, shot, axis) for shot in self.shots],
                progress,
                small=m.nbytes <= SMALL,
                partials=self.partials,
                evaluation=model.digest,
            )
        finally:
            Path(model.path).unlink(missing_ok=True)
        parts |= {
            "model_seconds": staged - started,
            "shots_seconds": last_shot - staged,
            "sum_seconds": time.perf_counter() - last_shot,
            "cpu_seconds": time.process_time() - cpu,
        }
        if not np.isfinite(answer.g).all():
            raise RunError(
                f"the gradient of evaluation {number} has values that are NaN or infinite; check the data and solver.dtype"
            )
        answer.g[self.problem.frozen] = 0.0
        return answer

    def _key(self, model: StagedFile, shot: StagedFile, axis: TimeAxis) -> str:
        return task_key(self.context.solver.digest, self.context.boundary_gradient, model.digest, shot.digest, axis)

    def predict(self, velocity: NDArray, index: int) -> tuple[NDArray, NDArray, TimeAxis]:
        """Observed and predicted record of one shot in a model, both on its time axis."""
        axis = self.problem.time_axis(velocity)
        model = stage(self.staged, "model", squared_slowness(velocity))
        shot = self.shots[index]
        arguments = (self.context, model, shot, axis)
        key = task_key("predict", self._key(model, shot, axis))
        try:
            observed, predicted = self.tasks.gather(predict_shot, [self._names[index]], [arguments], [key])[0]
        finally:
            Path(model.path).unlink(missing_ok=True)
        return observed, predicted, axis
