"""One stage of a minimisation: its objective, its optimiser, and the estimates of the wavelet in it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hpcfwi.artifacts import StagedFile
from hpcfwi.events import types as events
from hpcfwi.inversion.conditioning.change_of_variables import variables_of
from hpcfwi.inversion.conditioning.regularisation import Regularisation
from hpcfwi.inversion.history import Row
from hpcfwi.inversion.journal import Journal, Partials
from hpcfwi.inversion.objective import Objective
from hpcfwi.inversion.optimizers.base import Iterate
from hpcfwi.inversion.optimizers.convergence import Budget, Convergence
from hpcfwi.inversion.optimizers.registry import OPTIMIZERS
from hpcfwi.inversion.parametrisation import Vector
from hpcfwi.model.problem import Problem
from hpcfwi.model.source_estimate import total_comparison
from hpcfwi.model.stages import Stage, stages_of
from hpcfwi.model.velocity import squared_slowness, velocity_from
from hpcfwi.run.source_signature import check_source, estimate_source, with_source_of

if TYPE_CHECKING:
    from scipy.optimize import OptimizeResult

    from hpcfwi.inversion.objective import ShotOperations
    from hpcfwi.model.source_estimate import SourceFilters
    from hpcfwi.run.session import Session


class StageRun:
    """A stage with a session's workers.

    Parameters
    ----------
    session
        The session.
    stage
        The stage.
    velocity
        Model that it starts from, km/s, on the grid of the run.
    shots
        The staged shots of the run, by name.
    evaluations
        Those of the stages before it; its own are added.
    on_evaluation
        Called after each evaluation.
    recorded
        The iterations of the stage in earlier starts.
    """

    def __init__(
        self,
        session: Session,
        stage: Stage,
        velocity: NDArray[np.float64],
        shots: dict[str, StagedFile],
        evaluations: list[events.EvaluationDone],
        on_evaluation: Callable[[events.EvaluationDone], None],
        recorded: Sequence[Row] = (),
    ) -> None:
        self.session, self.stage, self.velocity = session, stage, velocity
        self.problem: Problem = stage.problem(velocity)
        self.config = self.problem.config
        self.shots = [shots[name] for name in self.problem.survey.names]
        self.operations: ShotOperations = session.prepare(self.problem, suffix_of(stage))
        self.parametrisation = variables_of(self.problem)
        self.regularisation = Regularisation.from_problem(self.problem)
        self.recorded = recorded
        own_budget = stage.section is not None and "budget_hours" in stage.section.model_fields_set
        self.budget = Budget(self.config.inversion.budget_hours if own_budget else None)
        self.on_evaluation, self.first_evaluation = on_evaluation, len(evaluations)
        self.source: SourceFilters | None = None  # that predicted gathers have
        self.source_seconds = self.initial_misfit = 0.0
        self.objective = self._objective(None, evaluations)

    def minimise(self, on_iteration: Callable[[Iterate, NDArray, bool], str], check: bool) -> OptimizeResult:
        """Minimise the misfit of the stage.

        ``on_iteration`` gets each iterate, its model, km/s, on the grid of the run, and whether it is the first one. It returns
        why the run has to stop, or nothing. ``check`` compares observed and predicted gathers before the first iteration.
        """
        x = self.parametrisation.to_vector(squared_slowness(self.problem.initial_velocity))
        section, number = self.config.inversion, 0
        optimizer, began = OPTIMIZERS[section.optimizer], time.perf_counter()
        predicts = self.session.stand_in is None  # shots that sleep in scaling studies predict nothing
        iteration, known, reason = -1, False, ""
        spent = sum(row.step_seconds for row in self.recorded)

        def judge(iterate: Iterate) -> str:
            nonlocal iteration, known, reason
            if known:  # the first vector is the last one before the new estimate of the wavelet
                known = False
                return ""
            iteration += 1
            iterate = replace(iterate, misfit=self.objective.misfit_of(iterate.misfit))
            if iteration == 0:
                self.initial_misfit = iterate.misfit
            velocity = self.model(iterate.x)
            stop = on_iteration(iterate, velocity, iteration == 0)
            misfit = iterate.misfit if iterate.shots is None else None
            reason = convergence.reason(iteration, misfit, velocity) or stop
            if not reason and iteration >= len(self.recorded):  # those of earlier starts were within the budget
                reason = self.budget.reason((spent + time.perf_counter() - began) / 3600)
            return reason

        for number, limit in enumerate(self._iteration_limits(), 1):
            if predicts and self.config.wavelet.kind == "estimate":
                self._estimate_source(x, number)
            if predicts and check and number == 1:
                check_source(self.session, self.objective, self.problem.initial_velocity)
            if number == 1:
                energy = self._observed_energy() if predicts and section.noise_level is not None else 0.0
                convergence = Convergence(section, energy)
            known, left = number > 1, section.evaluations - self._own_evaluations
            limits = section.model_copy(update={"iterations": limit, "evaluations": left})
            result = optimizer.minimise(self.objective, x, self.parametrisation, limits, judge)
            x = result.x
            if reason or result.nit < limit or self._own_evaluations >= section.evaluations:
                break
        if self.objective.operations_in is not None:
            self._estimate_source(x, number + 1)  # for the figures
        result.nit, result.fun = iteration, self.objective.misfit_of(float(result.fun))
        return result

    def _observed_energy(self) -> float:
        """Sum of squares of the observed gathers, as the misfit compares them."""
        shots = range(len(self.problem.survey))
        return total_comparison(self.objective.compare(self.problem.initial_velocity, shots)).observed_energy

    def on_grid(self, velocity: NDArray[np.float64]) -> NDArray[np.float64]:
        """A model of the run, km/s, on the grid of the stage."""
        return self.stage.start(velocity, self.problem.domain)

    def model(self, x: Vector) -> NDArray[np.float64]:
        """The model of a vector, km/s, on the grid of the run."""
        end = velocity_from(self.parametrisation.to_model(x))
        return self.stage.result(self.velocity, self.problem.initial_velocity, end, self.problem.domain)

    @property
    def _own_evaluations(self) -> int:
        return len(self.objective.evaluations) - self.first_evaluation

    def _objective(self, source: StagedFile | None, evaluations: list[events.EvaluationDone]) -> Objective:
        """The objective with filters of predicted gathers, which goes on after some evaluations."""
        from hpcfwi.execution.tasks import with_source

        session, problem, folder = self.session, self.problem, self.session.folder
        identity = f"{problem.digest} {folder.began_with}" + (f" {source.digest}" if source else "")
        return Objective(
            problem,
            self.parametrisation,
            with_source(self.operations, source),
            session.tasks,
            self.shots,
            folder.staged,
            Journal(folder.journal, identity, folder.verify),
            Partials(folder.journal, self.config.journal.shots_per_sum),
            session.on_shots,
            lambda number, shots: session.log.write(events.EvaluationStarted(evaluation=number, shots=shots)),
            evaluations,
            self.on_evaluation,
            first_evaluation=self.first_evaluation,
            regularisation=self.regularisation,
        )

    def _iteration_limits(self) -> Iterator[int]:
        """Iterations up to each new estimate of the wavelet, and up to the end."""
        left, wavelet = self.config.inversion.iterations, self.config.wavelet
        every = wavelet.every if wavelet.kind == "estimate" and wavelet.every != "evaluation" else 0
        while True:
            yield min(every, left) if every else left
            left -= every
            if not every or left <= 0:
                return

    def _estimate_source(self, x: Vector, number: int) -> None:
        """Estimate the wavelet at x; the objective goes on with it."""
        from hpcfwi.execution.tasks import with_source

        assert self.config.wavelet.kind == "estimate"
        began = time.perf_counter()
        velocity = velocity_from(self.parametrisation.to_model(x))
        seconds, evaluations = self.objective.seconds, self.objective.evaluations
        unfiltered = self._objective(None, evaluations)
        name = f"source{suffix_of(self.stage)}-{number}.pkl"
        staged, self.source = estimate_source(self.session, unfiltered, velocity, number, name)
        self.objective = self._objective(staged, evaluations)
        self.objective.seconds = seconds
        if self.config.wavelet.every == "evaluation":
            operations = partial(with_source, self.operations)
            folder = self.session.folder.staged
            self.objective.operations_in = partial(with_source_of, unfiltered, operations, folder)
        self.source_seconds += time.perf_counter() - began


def stage_started(stage: Stage, problem: Problem, iterations: int) -> events.StageStarted:
    """The event of a stage that begins, with its problem and the largest number of iterations."""
    return events.StageStarted(
        stage=stage.number,
        stages=len(stages_of(stage.base)),
        title=stage.name,
        grid=problem.domain.description,
        shots=len(problem.survey),
        iterations=iterations,
    )


def suffix_of(stage: Stage) -> str:
    """What distinguishes the files of a stage."""
    return "" if stage.section is None else f"-stage-{stage.number}"
