"""A configuration made concrete: grid, models, survey, wavelet, time axis; and the checks before anything runs."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from hpcfwi.config.parsing import PATH_KEYS
from hpcfwi.config.run import FileModel, RunConfig, SmoothModel
from hpcfwi.errors import InputError
from hpcfwi.model.checks import at_most, check_positions, check_sampling, dispersion
from hpcfwi.model.discretization import TimeAxis, courant_limit, critical_step, safe_step
from hpcfwi.model.gathers import check_gathers
from hpcfwi.model.grid import Domain
from hpcfwi.model.survey import Survey, build_survey, list_names, read_geometry
from hpcfwi.model.velocity import (
    build_model,
    check_velocities,
    file_grid_shape,
    read_mask,
    smooth_model,
    squared_slowness,
)
from hpcfwi.model.wavelet import Wavelet, build_wavelet

__all__ = ["Problem"]

# Relative error of a velocity that was saved in single precision.
FLOAT32_ROUNDING = float(np.finfo(np.float32).eps)
# Arrays of the grid, in float64, that are in memory while the models are made.
MODEL_ARRAYS = 6
MOST_SAMPLES, MOST_TRACES = 10_000_000, 1_000_000_000


@dataclass(frozen=True, eq=False)
class Problem:
    """Everything that the misfit and its gradient depend on.

    Parameters
    ----------
    config
        The configuration that it was made from.
    domain
        The grid.
    true_velocity
        km/s, shape ``domain.shape``; None where the truth is not known.
    initial_velocity
        km/s.
    frozen
        Cells that the inversion leaves alone.
    survey
        The shots.
    wavelet
        The source time function.
    steps
        Shortest and longest time step of any model of this inversion, ms.
    fixed_step
        Fixed time step, ms; None where it follows the current model.
    warnings
        What is not wrong but worth knowing.
    failed_shots
        Shots that it is without since they failed (``data.quorum``).
    origin
        Digest of the problem that had those, too: staged records are of both.
    """

    config: RunConfig
    domain: Domain
    true_velocity: NDArray[np.float64] | None
    initial_velocity: NDArray[np.float64]
    frozen: NDArray[np.bool_]
    survey: Survey
    wavelet: Wavelet
    steps: tuple[float, float]
    fixed_step: float | None
    warnings: tuple[str, ...] = ()
    failed_shots: tuple[str, ...] = ()
    base_digest: str = ""

    @classmethod
    def from_config(cls, config: RunConfig) -> Problem:
        """Read the files, build the models and check that the numbers make sense together.

        Raises
        ------
        InputError
            If something cannot be read, does not fit, or violates Nyquist or Courant.
        """
        shape = _grid_shape(config)
        origin = config.grid.origin or (0.0,) * len(shape)
        domain = Domain(shape, config.grid.spacing, origin)
        true = build_model(config.model, config.grid, shape, "model") if config.model else None
        initial = None if isinstance(config.initial, SmoothModel) else _initial(config, shape)
        frozen = _frozen(config, domain, true if true is not None else initial)
        if initial is None:
            initial = _smoothed(config.initial, true, frozen)
        initial = _within_bounds(config, initial, frozen)
        wavelet = build_wavelet(config.wavelet)
        survey = _survey(config, domain)
        velocities = _velocity_range(config, true, initial)
        steps, step = _time_steps(config, domain, velocities)
        warnings = check_sampling(config, domain, wavelet, config.solver.space_order, velocities, step)
        if config.data.exclude:
            warnings += (f"the survey is used {_left_out(config, len(survey))}",)
        problem = cls(config, domain, true, initial, frozen, survey, wavelet, steps, step, warnings)
        if config.data.file is None:
            return problem
        cut = check_gathers(config.data.file, survey.shots, problem.recording, config.data.exclude)
        return replace(problem, warnings=warnings + cut)

    def without(self, lost: Sequence[str]) -> Problem:
        """The same problem without shots that have failed: that which has them in ``data.exclude``."""
        data = self.config.data.model_copy(update={"exclude": (*self.config.data.exclude, *lost)})
        return replace(
            self,
            config=self.config.model_copy(update={"data": data}),
            survey=self.survey.without(lost),
            failed_shots=(*self.failed_shots, *lost),
            base_digest=self.base_digest or self.digest,
        )

    def time_axis(self, velocity: NDArray) -> TimeAxis:
        """Time axis for a model: the fixed one, or that of the model's highest velocity."""
        step = self.fixed_step or critical_step(self.domain, self.config.solver.space_order, float(velocity.max()))
        return TimeAxis.covering(self.config.data.recording_time, step)

    @property
    def time_samples(self) -> int:
        """Samples of the longest time axis that a model of this inversion needs."""
        return TimeAxis.covering(self.config.data.recording_time, self.steps[0]).samples

    @property
    def recording(self) -> TimeAxis:
        """Samples of an observed record."""
        interval, last = self.config.data.sample_interval, self.config.data.recording_time
        if self.config.data.tail == "extrapolate" and self.true_velocity is not None:
            return TimeAxis.covering(float(self.time_axis(self.true_velocity).times[-1]), interval)
        return TimeAxis(interval, math.floor(last / interval + 1e-9) + 1)

    @property
    def exclusion_note(self) -> str:
        """What results say where not all shots of the survey are used; else nothing."""
        return _left_out(self.config, len(self.survey), self.failed_shots)

    @property
    def dispersion(self) -> tuple[float, float]:
        """Grid points per shortest wavelength, and the relative error of its speed on this grid."""
        velocities = _velocity_range(self.config, self.true_velocity, self.initial_velocity)
        return dispersion(self.domain, self.wavelet, self.config.solver.space_order, velocities, self.fixed_step)

    @property
    def identity(self) -> dict[str, Any]:
        """The configuration's part that the misfit and the iterates depend on, and digests of the arrays.

        Of files only the names: where they are does not matter, and what is in them the digests say.
        """
        content = _file_names(self.config.model_dump(mode="json"))
        for key in ("iterations", "evaluations", "ftol", "gtol"):
            del content["inversion"][key]
        del content["output"], content["journal"], content["data"]["quorum"]
        exclude = content["data"].pop("exclude")
        if exclude:
            content["data"]["exclude"] = sorted(set(exclude))
        content["digests"] = {
            "true model": _array_digest(self.true_velocity),
            "initial model": _array_digest(self.initial_velocity),
            "frozen cells": _array_digest(self.frozen),
            "shots": hashlib.blake2b("\n".join(s.name for s in self.survey.shots).encode(), digest_size=10).hexdigest(),
            "geometry": _array_digest(*(a for s in self.survey.shots for a in (s.source, s.receivers))),
            "wavelet": hashlib.blake2b(repr(self.wavelet).encode(), digest_size=10).hexdigest(),
        }
        return content

    @property
    def digest(self) -> str:
        """Digest of :attr:`identity`."""
        text = json.dumps(self.identity, sort_keys=True, default=str)
        return hashlib.blake2b(text.encode(), digest_size=20).hexdigest()

    def velocity_error(self, velocity: NDArray) -> float | None:
        """``norm(v - v_true) / norm(v_true)``, or None where the truth is not known."""
        if self.true_velocity is None:
            return None
        return float(np.linalg.norm(velocity - self.true_velocity) / np.linalg.norm(self.true_velocity))

    def slowness_error(self, m: NDArray) -> float | None:
        """Norm of the element-wise relative error of the squared slowness, or None."""
        if self.true_velocity is None:
            return None
        true = squared_slowness(self.true_velocity)
        return float(np.linalg.norm((m - true) / true))


def _file_names(value: Any, key: str = "") -> Any:
    if isinstance(value, dict):
        return {k: _file_names(v, k) for k, v in value.items()}
    return Path(value).name if key in PATH_KEYS and value is not None else value


def _array_digest(*arrays: NDArray | None) -> str | None:
    if arrays[0] is None:
        return None
    state = hashlib.blake2b(digest_size=10)
    for array in arrays:
        assert array is not None
        state.update(repr((array.shape, array.dtype.str)).encode())
        state.update(np.ascontiguousarray(array).data)
    return state.hexdigest()


def _grid_shape(config: RunConfig) -> tuple[int, ...]:
    shape = config.grid.shape
    for name, section in (("model", config.model), ("initial", config.initial)):
        if isinstance(section, FileModel):
            found = file_grid_shape(section, name)
            if len(found) != len(config.grid.spacing):
                raise InputError(
                    f"{name}.file: {section.file} has {len(found)} axes, but grid.spacing has {len(config.grid.spacing)}"
                )
            shape = shape or found
    if shape is None:
        raise InputError("grid.shape: is missing; only a model file can say it instead")
    if min(shape) < 3:
        raise InputError(f"grid.shape: {shape} is too small; at least 3 points are needed along each axis")
    needed, there = 8 * MODEL_ARRAYS * math.prod(shape), psutil.virtual_memory().total
    if needed > there:
        raise InputError(
            f"grid.shape: {shape} is too large: its models alone need {needed / 1e9:.3g} GB, this machine has "
            f"{there / 1e9:.3g} GB; take a coarser grid or a larger machine"
        )
    return shape


def _initial(config: RunConfig, shape: tuple[int, ...]) -> NDArray[np.float64]:
    assert not isinstance(config.initial, SmoothModel)
    return build_model(config.initial, config.grid, shape, "initial")


def _smoothed(section: Any, true: NDArray[np.float64] | None, frozen: NDArray[np.bool_]) -> NDArray[np.float64]:
    assert true is not None  # the configuration has seen to it
    smooth = smooth_model(true, section.sigma)
    check_velocities(smooth, "initial")
    return np.where(frozen, true, smooth) if section.keep_frozen else smooth


def _frozen(config: RunConfig, domain: Domain, velocity: NDArray | None) -> NDArray[np.bool_]:
    section = config.inversion.frozen
    frozen = np.zeros(domain.shape, dtype=bool)
    if section.velocity_below is not None:
        assert velocity is not None
        frozen |= velocity <= section.velocity_below * (1 + FLOAT32_ROUNDING)
    if section.depth_above is not None:
        depth = domain.origin[-1] + domain.spacing[-1] * np.arange(domain.shape[-1])
        frozen |= depth <= section.depth_above
    if section.mask_file is not None:
        frozen |= read_mask(section.mask_file, domain.shape)
    if frozen.all():
        raise InputError("inversion.frozen: freezes every cell of the model, so there is nothing to invert for")
    return frozen


def _within_bounds(config: RunConfig, initial: NDArray[np.float64], frozen: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The initial model with its free cells inside the bounds; a model that was saved as float32 may miss them by rounding."""
    low, high = config.inversion.bounds
    free = initial[~frozen]
    if free.min() < low * (1 - FLOAT32_ROUNDING) or free.max() > high * (1 + FLOAT32_ROUNDING):
        raise InputError(
            f"inversion.bounds: [{low:g}, {high:g}] km/s exclude the initial model, whose velocities go from "
            f"{free.min():.4g} to {free.max():.4g} km/s; widen the bounds, change [initial], or freeze these cells "
            "(inversion.frozen)"
        )
    return np.where(frozen, initial, np.clip(initial, low, high))


def _left_out(config: RunConfig, used: int, lost: Sequence[str] = ()) -> str:
    """What results say where not all shots of the survey are used; else nothing."""
    asked = sorted(set(config.data.exclude).difference(lost))
    told = [
        f"{why}: {list_names(names)}" for why, names in (("data.exclude", asked), ("failed", sorted(lost))) if names
    ]
    count = len(asked) + len(lost)
    return f"without {count} of its {used + count} shots ({'; '.join(told)})" if told else ""


def _survey(config: RunConfig, domain: Domain) -> Survey:
    if config.data.geometry is not None:
        survey = read_geometry(config.data.geometry, domain.axes)
    else:
        assert config.acquisition.sources is not None
        assert config.acquisition.receivers is not None
        survey = build_survey(config.acquisition.sources, config.acquisition.receivers, domain.axes)
    survey = survey.without(config.data.exclude)
    traces = sum(len(shot.receivers) for shot in survey.shots)
    if traces > MOST_TRACES:
        raise InputError(f"acquisition: {len(survey)} shots have {traces} traces; at most {MOST_TRACES} can be handled")
    check_positions(survey, domain)
    return survey


def _velocity_range(config: RunConfig, true: NDArray | None, initial: NDArray) -> tuple[float, float]:
    """Lowest and highest velocity that any model of this inversion may have."""
    models = [initial] if true is None else [initial, true]
    low, high = config.inversion.bounds
    return min(low, *(float(v.min()) for v in models)), max(high, *(float(v.max()) for v in models))


def _time_steps(
    config: RunConfig, domain: Domain, velocities: tuple[float, float]
) -> tuple[tuple[float, float], float | None]:
    """Shortest and longest time step, and the fixed one if it is fixed; ms."""
    solver, rule = config.solver, config.solver.time_step
    shortest = critical_step(domain, solver.space_order, velocities[1])
    longest = critical_step(domain, solver.space_order, velocities[0])
    fixed = safe_step(domain, solver.space_order, velocities[1])
    step: float | None = None
    if not isinstance(rule, str):
        limit = courant_limit(domain, solver.space_order, velocities[1])
        if rule > limit:
            raise InputError(
                f"solver.time_step: {rule:g} ms is unstable (Courant): for {velocities[1]:.4g} km/s, a spacing of "
                f"{min(domain.spacing):g} m and space order {solver.space_order} it may be at most "
                f'{at_most(limit)} ms; "fixed" would take {fixed:.4g} ms'
            )
        step = shortest = longest = rule
    elif rule == "fixed":
        step = longest = shortest = fixed
    for key, interval in (("solver.time_step", shortest), ("data.sample_interval", config.data.sample_interval)):
        if config.data.recording_time / interval > MOST_SAMPLES:
            raise InputError(
                f"data.recording_time: {config.data.recording_time:g} ms are {config.data.recording_time / interval:.3g} "
                f"samples of {interval:.3g} ms ({key}); at most {MOST_SAMPLES} can be handled"
            )
    return (shortest, longest), step
