"""The pictures of a run: which ones, of what, under which names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpcfwi.inversion.history import Row
from hpcfwi.inversion.objective import Objective
from hpcfwi.model.problem import Problem
from hpcfwi.reporting import figures
from hpcfwi.run.folder import RunFolder

__all__ = ["draw_gallery"]


def draw_gallery(
    folder: RunFolder,
    problem: Problem,
    objective: Objective,
    rows: Sequence[Row],
    velocity: NDArray,
    first_gradient: NDArray,
) -> list[Path]:
    """Draw the models, their difference, the convergence, one shot's gathers and the first gradient."""
    folder.figures.mkdir(exist_ok=True, mode=0o700)
    shots = problem.survey.shots
    middle = len(shots) // 2
    models: dict[str, Any] = {"initial": problem.initial_velocity, "final": velocity, "true": problem.true_velocity}
    observed, predicted, axis = objective.predict(velocity, middle)
    before, initial, initial_axis = objective.predict(problem.initial_velocity, middle)
    errors = [row.model_error for row in rows if row.model_error is not None]
    return [
        figures.draw_models(
            folder.figures / "models.png",
            problem.domain,
            sources=np.stack([shot.source for shot in shots]),
            receivers=np.unique(np.concatenate([shot.receivers for shot in shots]), axis=0),
            **models,
        ),
        figures.draw_difference(folder.figures / "difference.png", problem.domain, **models),
        figures.draw_convergence(
            folder.figures / "convergence.png",
            misfits=[evaluation.misfit for evaluation in objective.evaluations],
            iteration_evaluations=[row.evaluations for row in rows],
            iteration_misfits=[row.misfit for row in rows],
            model_errors=errors if len(errors) == len(rows) else None,
        ),
        figures.draw_gather(
            folder.figures / "gather.png",
            observed=observed,
            predicted=predicted,
            sample_interval=axis.step,
            receivers=shots[middle].receivers,
            source=shots[middle].source,
            shot=shots[middle].name,
            # with a time step that follows the model the two records have different time axes
            initial=initial if initial_axis == axis and before.shape == observed.shape else None,
        ),
        figures.draw_gradient(
            folder.figures / "gradient.png", problem.domain, gradient=first_gradient, frozen=problem.frozen
        ),
    ]
