"""What a report can show of a run's problem: grid, models and survey, as far as they can still be had."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hpcfwi.config.run import RunConfig, load_run_config
from hpcfwi.data.models import read_array
from hpcfwi.errors import HpcfwiError, InputError
from hpcfwi.inversion.problem import Problem
from hpcfwi.physics.domain import Domain
from hpcfwi.physics.survey import Shot

__all__ = ["Scene"]


@dataclass(frozen=True, eq=False)
class Scene:
    """Grid, models, survey.

    Parameters
    ----------
    domain
        The grid; None where nothing is known of it.
    velocity
        The final model, or, of a run that is not done, the current one, km/s; None while there is none.
    done
        Whether it is the final one.
    initial, true
        The other models, where they are known.
    frozen
        Cells that the inversion leaves alone.
    shots
        The survey; empty where it is not known.
    notes
        What is missing, and why.
    """

    domain: Domain | None = None
    velocity: NDArray | None = None
    done: bool = False
    initial: NDArray | None = None
    true: NDArray | None = None
    frozen: NDArray | None = None
    shots: tuple[Shot, ...] = ()
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, run: Path, lost: Sequence[str] = (), problem: Problem | None = None) -> Scene:
        """What there is in a run folder; ``problem`` is taken instead of that of its ``config.toml`` where it is given."""
        notes: list[str] = []
        config = None
        try:
            config = load_run_config(run / "config.toml") if problem is None else problem.config
            problem = problem or Problem.from_config(config)
        except HpcfwiError as error:
            notes.append(f"Initial and true model and the survey cannot be shown: {error}")
        velocity, done = _velocity(run, notes)
        if problem is None:
            return cls(_domain(config, velocity), velocity, done, notes=tuple(notes))
        if velocity is not None and velocity.shape != problem.domain.shape:
            notes.append(f"The run's model is of the shape {velocity.shape}, its grid of {problem.domain.shape}.")
            velocity = None
        shots = tuple(shot for shot in problem.survey.shots if shot.name not in set(lost))
        models = (problem.initial_velocity, problem.true_velocity, problem.frozen)
        return cls(problem.domain, velocity, done, *models, shots, tuple(notes))

    @property
    def sources(self) -> NDArray[np.float64]:
        """Positions of all sources, m."""
        return np.stack([shot.source for shot in self.shots])

    @property
    def receivers(self) -> NDArray[np.float64]:
        """Positions of all receivers, m, each once."""
        spreads = {id(shot.receivers): shot.receivers for shot in self.shots}
        return np.unique(np.concatenate(list(spreads.values())), axis=0)


def _velocity(run: Path, notes: list[str]) -> tuple[NDArray | None, bool]:
    for name, done in (("model.npy", True), ("model-current.npy", False)):
        if not (run / name).exists():
            continue
        try:
            values = read_array(run / name, "the run's model")
            if not 2 <= values.ndim <= 3 or min(values.shape) < 2:
                raise InputError(f"{run / name}: has the shape {values.shape}, which is not that of a model")
            return values.astype(float), done
        except HpcfwiError as error:
            notes.append(f"The run's model cannot be shown: {error}")
    return None, False


def _domain(config: RunConfig | None, velocity: NDArray | None) -> Domain | None:
    """Without the files of the problem the run's own model says how many points the grid has."""
    if config is None or velocity is None or len(config.grid.spacing) != velocity.ndim:
        return None
    origin = config.grid.origin or (0.0,) * velocity.ndim
    return Domain(velocity.shape, config.grid.spacing, origin) if math.prod(velocity.shape) else None
