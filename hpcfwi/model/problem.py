"""The inversion problem of a configuration: grid, models, survey, wavelet and time steps, read and checked."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from hpcfwi.config.models import InitialGradientModel, SmoothModel
from hpcfwi.config.parsing import PATH_KEYS
from hpcfwi.config.run import RunConfig
from hpcfwi.errors import InputError
from hpcfwi.model.checks import (
    check_layer,
    check_records,
    check_sampling,
    check_weights,
    choose_time_steps,
    critical_time_step,
    dispersion,
)
from hpcfwi.model.gathers import ArrayRecordings, check_gathers
from hpcfwi.model.grid import Domain, TimeAxis
from hpcfwi.model.masks import frozen_cells
from hpcfwi.model.model_file import FLOAT32_ROUNDING, model_files, open_model_file
from hpcfwi.model.observations import Observations, read_observations
from hpcfwi.model.processing.chain import Processing
from hpcfwi.model.processing.sampling import RecordSampling
from hpcfwi.model.survey import Survey, list_names
from hpcfwi.model.velocity import build_model, smooth_model, squared_slowness
from hpcfwi.model.wavelet import SourceSignal, Wavelet, band_passed, build_wavelet
from hpcfwi.model.windows import Windows

# Float64 arrays of the grid in memory while the models are built.
MODEL_ARRAYS = 6
# Values of solver.wavefield that give the same bytes: a run may go on with another one.
LOSSLESS_WAVEFIELDS = ("auto", "sampled", "checkpointed", "disk")


@dataclass(frozen=True, eq=False)
class Problem:
    """Everything that the misfit and its gradient depend on.

    Parameters
    ----------
    config, domain
        The configuration, and the grid.
    true_velocity, initial_velocity
        True model (None if unknown) and initial model, km/s, shape ``domain.shape``.
    frozen
        Cells that keep their initial velocity, shape ``domain.shape``.
    survey
        The shots of the inversion.
    wavelet
        The source time function, after the band-passes of the processing that apply to it.
    time_steps
        Shortest and longest time step of any model of this inversion, ms.
    observations
        Where the observed data are, and which of their traces are used.
    warnings
        Messages about likely mistakes.
    processing
        What is done to gathers before they are compared.
    failed_shots
        Shots that were excluded after they failed (``data.quorum``).
    base_digest
        Digest of the problem before any shot failed; the observed data that were staged for it are used again.
    layer_velocity
        Velocity that the absorbing layer is made for, km/s; None for the highest one at the edges of the models. Stages have
        that of the run, so that their solvers do not depend on the model that they start from.
    linearised
        Whether the derivatives of gathers are computed, too: the workers need the Born operator.
    """

    config: RunConfig
    domain: Domain
    true_velocity: NDArray[np.float64] | None
    initial_velocity: NDArray[np.float64]
    frozen: NDArray[np.bool_]
    survey: Survey
    wavelet: Wavelet
    time_steps: tuple[float, float]
    observations: Observations
    warnings: tuple[str, ...] = ()
    processing: Processing = field(default_factory=Processing)
    failed_shots: tuple[str, ...] = ()
    base_digest: str = ""
    layer_velocity: float | None = None
    linearised: bool = False

    @classmethod
    def from_config(cls, config: RunConfig) -> Problem:
        """Read the files, build the models and check that everything fits together.

        Raises
        ------
        InputError
            If a file cannot be read or does not fit, or a number violates Courant, Nyquist or the limits of the grid.
        """
        domain = domain_of(config)
        check_layer(config, domain)
        true = None if config.model is None else build_model(config.model, domain, "model")
        if isinstance(config.initial, SmoothModel):
            assert true is not None  # the configuration requires it
            initial = smooth_model(true, config.initial.sigma)
        else:
            initial = build_model(config.initial, domain, "initial")
        frozen = frozen_cells(config.inversion.frozen, domain, initial if true is None else true)
        keeping = isinstance(config.initial, SmoothModel | InitialGradientModel) and config.initial.keep_frozen
        if keeping and true is not None:
            initial = np.where(frozen, true, initial)
        initial = _within_bounds(config, initial, frozen)
        processing = Processing.from_config(config)
        wavelet = band_passed(build_wavelet(config.wavelet), processing.wavelet_bands)
        observations = read_observations(config, domain)
        survey = observations.survey
        # those of SEG-Y are known now
        known = {"sample_interval": observations.interval, "recording_time": observations.duration}
        config = config.model_copy(update={"data": config.data.model_copy(update=known)})
        velocities = _velocity_range(config, true, initial)
        steps = choose_time_steps(config, domain, velocities)
        warnings = observations.warnings + check_sampling(config, domain, wavelet, velocities, steps)
        _check_batch(config, survey)
        problem = cls(config, domain, true, initial, frozen, survey, wavelet, steps, observations, (), processing)
        warnings += check_records(problem.sampling, wavelet, problem.axis_with_step(steps[0]))
        warnings += processing.check(survey, wavelet, problem.recording)
        warnings += check_weights(config, observations.selection.weights)
        if problem.windows is not None:
            check_layer(config, problem.windows.domain)
        if problem.exclusion_note:
            warnings += (f"the survey is used {problem.exclusion_note}",)
        data = config.data
        if isinstance(observations.recordings, ArrayRecordings):
            path, stored = observations.recordings.path, observations.stored.without(observations.selection.shots)
            warnings += check_gathers(path, stored.shots, problem.recording, data.exclude, data.quorum)
        return replace(problem, warnings=warnings)

    def without(self, failed: Sequence[str]) -> Problem:
        """Return the problem without failed shots: the one whose ``data.exclude`` has them."""
        data = self.config.data.model_copy(update={"exclude": (*self.config.data.exclude, *failed)})
        return replace(
            self,
            config=self.config.model_copy(update={"data": data}),
            survey=self.survey.without(failed),
            failed_shots=(*self.failed_shots, *failed),
            base_digest=self.base_digest or self.digest,
        )

    @property
    def fixed_step(self) -> float | None:
        """The time step of every model, ms; None if it follows the current model."""
        return None if self.config.solver.time_step == "critical" else self.time_steps[0]

    def time_axis(self, velocity: NDArray) -> TimeAxis:
        """Time axis of a model, km/s."""
        fastest = float(velocity.max())
        if self.config.solver.boundary_gradient == "frozen":  # the layer may be faster than the model
            fastest = max(fastest, self._layer_velocity(self.initial_velocity))
        return self.axis_with_step(self.fixed_step or critical_time_step(self.config, self.domain, fastest))

    @property
    def time_samples(self) -> int:
        """Samples of the longest time axis that a model of this inversion needs."""
        return self.axis_with_step(self.time_steps[0]).samples

    def axis_with_step(self, step: float) -> TimeAxis:
        """The shortest time axis with a step, ms, from which records can be made."""
        duration = self.config.data.duration
        if self.config.data.tail == "cut":
            # the same margin for all steps, so that a shorter one has more samples
            duration += self.sampling.lead + self.sampling.extra + self.sampling.margin(self.time_steps[1])
        return TimeAxis.covering(duration, step)

    @property
    def sampling(self) -> RecordSampling:
        """The samples at which predicted and observed gathers are compared."""
        return RecordSampling.from_config(self.config, self.wavelet, self.recording)

    def compared_axis(self, axis: TimeAxis) -> TimeAxis:
        """Time axis of the gathers that the misfit compares, for predictions on a time axis."""
        return self.processing.axis_after(self.sampling.compared(axis))

    @cached_property
    def windows(self) -> Windows | None:
        """The windows in which shots are computed; None for the whole model."""
        aperture = self.config.acquisition.aperture
        if aperture is None:
            return None
        depth = self.domain.last[-1] - self.domain.origin[-1]
        return Windows.around(self.survey, self.domain, depth if aperture == "auto" else aperture)

    @property
    def solver_domain(self) -> Domain:
        """The grid in which a shot is computed."""
        return self.domain if self.windows is None else self.windows.domain

    @property
    def source_signal(self) -> SourceSignal:
        """What the sources inject."""
        solver = self.config.solver
        scale = 1 / math.prod(self.domain.spacing) if solver.source_scaling == "volume" else 1.0
        return SourceSignal(self.wavelet, scale, solver.time_dispersion == "corrected")

    @property
    def recording(self) -> TimeAxis:
        """Time axis of the observed data."""
        interval, duration = self.config.data.interval, self.config.data.duration
        if self.config.data.tail == "extrapolate" and self.true_velocity is not None:
            return TimeAxis.covering(float(self.time_axis(self.true_velocity).times[-1]), interval)
        return TimeAxis.within(duration, interval)

    @property
    def exclusion_note(self) -> str:
        """The excluded shots, in words; empty if there are none."""
        asked = sorted(set(self.config.data.exclude).difference(self.failed_shots))
        reasons = [("data.exclude", asked), ("failed", sorted(self.failed_shots))]
        parts = [f"{reason}: {list_names(names)}" for reason, names in reasons if names]
        excluded = len(asked) + len(self.failed_shots)
        return f"without {excluded} of its {len(self.survey) + excluded} shots ({'; '.join(parts)})" if parts else ""

    @property
    def velocity_range(self) -> tuple[float, float]:
        """Lowest and highest velocity of any model of this inversion, km/s."""
        return _velocity_range(self.config, self.true_velocity, self.initial_velocity)

    @property
    def edge_velocity(self) -> float:
        """Velocity that the absorbing layer is made for: the highest of the initial and the true model there, km/s."""
        if self.layer_velocity is not None:
            return self.layer_velocity
        return max(self._layer_velocity(v) for v in (self.initial_velocity, self.true_velocity) if v is not None)

    def _layer_velocity(self, velocity: NDArray) -> float:
        """Highest velocity at the edges of a model, km/s; a window's edges may be anywhere in it."""
        if self.solver_domain.shape != self.domain.shape:
            return float(velocity.max())
        return max(float(np.take(velocity, end, axis).max()) for axis in range(velocity.ndim) for end in (0, -1))

    @property
    def dispersion(self) -> tuple[float, float]:
        """Grid points per shortest wavelength, and the relative error of its speed on this grid."""
        return dispersion(self.config, self.domain, self.wavelet, self.velocity_range, self.time_steps)

    @property
    def identity(self) -> dict[str, Any]:
        """The part of the configuration that misfit and iterates depend on, and digests of the arrays.

        Files appear by name only: their folder does not matter, and the digests cover their content.
        """
        content = _file_names(self.config.model_dump(mode="json"))
        for key in self.config.inversion.limits:
            del content["inversion"][key]
        for stage, section in zip(content["stage"], self.config.stage, strict=True):
            for key in section.merged(self.config.inversion).limits:
                stage.pop(key, None)
        del content["output"], content["journal"], content["data"]["quorum"], content["data"]["mismatch"]
        content["solver"]["layer"] = self.config.solver.layer_cells
        content["acquisition"]["aperture"] = None if self.windows is None else self.windows.aperture
        if self.config.solver.wavefield in LOSSLESS_WAVEFIELDS:
            content["solver"]["wavefield"] = "lossless"
        exclude = content["data"].pop("exclude")
        if exclude:
            content["data"]["exclude"] = sorted(set(exclude))
        content["digests"] = {
            "true model": None if self.true_velocity is None else _array_digest([self.true_velocity]),
            "initial model": _array_digest([self.initial_velocity]),
            "frozen cells": _array_digest([self.frozen]),
            "shots": hashlib.blake2b("\n".join(self.survey.names).encode(), digest_size=10).hexdigest(),
            "geometry": _array_digest(a for s in self.survey.shots for a in (s.source, s.receivers)),
            "wavelet": hashlib.blake2b(repr(self.wavelet).encode(), digest_size=10).hexdigest(),
            "processing": hashlib.blake2b(repr(self.processing).encode(), digest_size=10).hexdigest(),
        }
        weights = self.observations.selection.weights if self.observations else {}
        if weights:
            content["digests"]["weights"] = _array_digest(
                weights[name] for name in self.survey.names if name in weights
            )
        return content

    @cached_property
    def digest(self) -> str:
        """Digest of :attr:`identity`."""
        text = json.dumps(self.identity, sort_keys=True, default=str)
        return hashlib.blake2b(text.encode(), digest_size=20).hexdigest()

    def velocity_error(self, velocity: NDArray) -> float | None:
        """``norm(v - v_true) / norm(v_true)``, or None if the true model is unknown."""
        if self.true_velocity is None:
            return None
        return float(np.linalg.norm(velocity - self.true_velocity) / np.linalg.norm(self.true_velocity))

    def slowness_error(self, m: NDArray) -> float | None:
        """Norm of the element-wise relative error of the squared slowness, or None if the true model is unknown."""
        if self.true_velocity is None:
            return None
        true = squared_slowness(self.true_velocity)
        return float(np.linalg.norm((m - true) / true))


def _file_names(value: Any, key: str = "") -> Any:
    if isinstance(value, dict):
        return {k: _file_names(v, k) for k, v in value.items()}
    if isinstance(value, list):
        return [_file_names(item, key) for item in value]
    return Path(value).name if key in PATH_KEYS and isinstance(value, str) else value


def _array_digest(arrays: Iterable[NDArray]) -> str:
    state = hashlib.blake2b(digest_size=10)
    for array in arrays:
        state.update(repr((array.shape, array.dtype.str)).encode())
        state.update(np.ascontiguousarray(array).data)
    return state.hexdigest()


def _check_batch(config: RunConfig, survey: Survey) -> None:
    batch, shots = config.inversion.batch, len(survey)
    if batch is not None and batch > shots:
        raise InputError(f"inversion.batch: is {batch}, but the survey has {shots} shots; it should be at most {shots}")
    if config.inversion.optimizer == "lbfgs-batch":
        if shots < 2:
            raise InputError(
                'inversion.optimizer: is "lbfgs-batch", which needs at least 2 shots, but the survey has one; take "lbfgs"'
            )
        overlap, half = config.inversion.overlap, config.inversion.batch_size(shots) // 2
        if overlap is not None and overlap > half:
            raise InputError(f"inversion.overlap: is {overlap}; it should be at most {half}, half a batch")


def domain_of(config: RunConfig) -> Domain:
    """The grid of a configuration; raises InputError if a model file that gives its shape cannot be read."""
    shape = _grid_shape(config)
    return Domain(shape, config.grid.spacing, config.grid.origin or (0.0,) * len(shape))


def _grid_shape(config: RunConfig) -> tuple[int, ...]:
    grid, shape = config.grid, config.grid.shape
    for name, section in model_files(config):
        file = open_model_file(section, name, grid.spacing, grid.origin)
        file.check_origin()
        shape = shape or file.grid_shape()
    if shape is None:
        raise InputError("grid.shape: is missing; only a model file could replace it")
    if min(shape) < 3:
        raise InputError(f"grid.shape: {shape} is too small; at least 3 points are needed along each axis")
    needed, installed = 8 * MODEL_ARRAYS * math.prod(shape), psutil.virtual_memory().total
    if needed > installed:
        raise InputError(
            f"grid.shape: {shape} is too large: its models alone need {needed / 1e9:.3g} GB, but this machine has "
            f"{installed / 1e9:.3g} GB; take a coarser grid or a larger machine"
        )
    return shape


def _within_bounds(config: RunConfig, initial: NDArray, frozen: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The initial model with free cells inside the bounds, which a model saved as float32 may miss by rounding."""
    low, high = config.inversion.bounds
    free = initial[~frozen]
    if free.min() < low * (1 - FLOAT32_ROUNDING) or free.max() > high * (1 + FLOAT32_ROUNDING):
        raise InputError(
            f"inversion.bounds: [{low:g}, {high:g}] km/s exclude the initial model, whose velocities go from "
            f"{free.min():.7g} to {free.max():.7g} km/s; widen the bounds, change [initial], or freeze these cells "
            "(inversion.frozen)"
        )
    if free.min() >= low and free.max() <= high:
        return initial
    return np.where(frozen, initial, np.clip(initial, low, high))


def _velocity_range(config: RunConfig, true: NDArray | None, initial: NDArray) -> tuple[float, float]:
    """Lowest and highest velocity of any model of this inversion, km/s."""
    models = [initial] if true is None else [initial, true]
    low, high = config.inversion.bounds
    return min(low, *(float(v.min()) for v in models)), max(high, *(float(v.max()) for v in models))
