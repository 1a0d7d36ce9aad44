"""Stages of an inversion: the problem of each on its own grid, and its result on the grid of the run."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from hpcfwi.config.inversion import InversionSection
from hpcfwi.config.processing import BandPassSection
from hpcfwi.config.run import GridSection, RunConfig
from hpcfwi.config.stages import StageSection
from hpcfwi.errors import DataError, InputError
from hpcfwi.io import format_ranges
from hpcfwi.model.checks import check_layer, check_records, check_sampling, check_weights, choose_time_steps
from hpcfwi.model.grid import EDGE_TOLERANCE, Domain
from hpcfwi.model.problem import Problem
from hpcfwi.model.processing.chain import Processing, build_step
from hpcfwi.model.resampling import Axis, resample
from hpcfwi.model.survey import Survey
from hpcfwi.model.wavelet import band_passed, build_wavelet

# A coarser grid reaches so many cells beyond that of the run, except above a free surface. Sources and receivers lie between
# its points; their interpolation takes so many points on each side, which must not be in the absorbing layer.
MARGIN_CELLS = 4
# A cell of a coarser grid is frozen if at least this share of it is.
FROZEN_SHARE = 0.5


@dataclass(frozen=True, eq=False)
class Stage:
    """One stage of an inversion.

    Parameters
    ----------
    number
        From 1.
    name
        For people.
    base
        The problem of the run, on its grid and with its initial model.
    section
        What differs in this stage; None if the run has no stages: then its only one is the problem itself.
    """

    number: int
    name: str
    base: Problem
    section: StageSection | None = None

    @property
    def key(self) -> str:
        """Where mistakes in it are: ``stage[1]``."""
        return f"stage[{self.number}]"

    def problem(self, velocity: NDArray[np.float64]) -> Problem:
        """The problem of this stage for an initial model, km/s, on the grid of the run.

        Raises
        ------
        InputError
            If the band, the grid or the shots of the stage do not fit the data; the message names the stage.
        """
        return self.first if velocity is self.base.initial_velocity else self._checked(velocity)

    @cached_property
    def first(self) -> Problem:
        """The problem for the initial model of the run: grid, time axis, shots and solver are those of any other model."""
        return self._checked(self.base.initial_velocity)

    def _checked(self, velocity: NDArray[np.float64]) -> Problem:
        if self.section is None:
            return self.base
        try:
            return self._problem(self.section, velocity)
        except InputError as error:
            if isinstance(error, DataError):
                raise
            raise InputError(f"{self.key} ({self.name}): {error}") from None

    def _problem(self, section: StageSection, velocity: NDArray[np.float64]) -> Problem:
        base, steps = self.base, self._processing(section)
        wavelet = band_passed(build_wavelet(base.config.wavelet), steps.wavelet_bands)
        config = base.config.model_copy(update={"inversion": self.optimisation, "stage": ()})
        survey, range_ = self._survey(section), base.velocity_range
        domain = self._domain(section, replace(base, config=config, wavelet=wavelet))
        config = config.model_copy(
            update={"grid": GridSection(spacing=domain.spacing, shape=domain.shape, origin=domain.origin)}
        )
        check_layer(config, domain)
        times = choose_time_steps(config, domain, range_)
        warnings = check_sampling(config, domain, wavelet, range_, times)
        problem = replace(
            base,
            config=config,
            domain=domain,
            true_velocity=None if base.true_velocity is None else self._to_stage(base.true_velocity, domain),
            initial_velocity=self.start(velocity, domain),
            frozen=self._frozen(domain),
            survey=survey,
            wavelet=wavelet,
            time_steps=times,
            warnings=(),
            processing=steps,
            layer_velocity=base.edge_velocity,
        )
        warnings += check_records(problem.sampling, wavelet, problem.axis_with_step(times[0]))
        warnings += check_weights(config, base.observations.selection.weights)
        warnings += steps.check(survey, wavelet, problem.recording)
        if problem.windows is not None:
            check_layer(config, problem.windows.domain)
        return replace(problem, warnings=tuple(warnings))

    @property
    def optimisation(self) -> InversionSection:
        """``[inversion]`` with what the stage changes; raises InputError if the two do not go together."""
        base = self.base.config.inversion
        return base if self.section is None else self.section.merged(base)

    def _processing(self, section: StageSection) -> Processing:
        """The processing of the run with the band of the stage, and then its own steps."""
        base = self.base.processing
        steps, first = list(base.steps), len(base.steps) + 1
        if section.low is not None or section.high is not None:
            corners = {"low": section.low, "high": section.high, "order": section.order, "phase": section.phase}
            band = BandPassSection.model_validate({"kind": "bandpass", **corners})
            steps.insert(base.leading, build_step(band, first))
        steps += [build_step(each, number) for number, each in enumerate(section.processing, 1)]
        return replace(base, steps=tuple(steps))

    def _survey(self, section: StageSection) -> Survey:
        survey, wanted = self.base.survey, section.shots
        if wanted is None or wanted == len(survey):
            return survey
        if wanted > len(survey):
            raise InputError(f"shots: is {wanted}, but the survey has {len(survey)}; take fewer")
        return survey.select([int(place) for place in np.linspace(0, len(survey) - 1, wanted).round()])

    def _domain(self, section: StageSection, problem: Problem) -> Domain:
        """The grid of the stage, which covers that of the run; ``problem`` has the band of the stage on the grid of the run."""
        domain = self.base.domain
        spacing = section.spacing
        if spacing is None:
            if section.points_per_wavelength is None:
                return domain
            factor = max(1.0, problem.dispersion[0] / section.points_per_wavelength)
            spacing = tuple(_round_down(factor * step) for step in domain.spacing) if factor > 1 else domain.spacing
        if len(spacing) != domain.ndim:
            raise InputError(f"spacing: has {len(spacing)} axes, but the grid has {domain.ndim}")
        finer = [axis for axis, new, old in zip(domain.axes, spacing, domain.spacing, strict=True) if new < old]
        if finer:
            raise InputError(
                f"spacing: is {list(spacing)} m, finer than the grid of the run along {finer[0]} ({list(domain.spacing)} m, "
                "grid.spacing); take a finer [grid], or a coarser stage"
            )
        if spacing == domain.spacing:
            return domain
        lengths = zip(domain.shape, domain.spacing, spacing, strict=True)
        shape = tuple(1 + math.ceil((n - 1) * old / new - EDGE_TOLERANCE) for n, old, new in lengths)
        before = [MARGIN_CELLS] * domain.ndim
        if self.base.config.solver.free_surface:
            before[-1] = 0
        return Domain(
            tuple(n + cells + MARGIN_CELLS for n, cells in zip(shape, before, strict=True)),
            spacing,
            tuple(o - cells * new for o, cells, new in zip(domain.origin, before, spacing, strict=True)),
        )

    def _to_stage(self, velocity: NDArray[np.float64], domain: Domain) -> NDArray[np.float64]:
        """A model on the grid of the stage: the squared slowness averaged over the cell of each point.

        Notes
        -----
        With constant density, long waves feel the average of the squared slowness, a compressibility (Backus 1962,
        doi:10.1029/JZ067i011p04427).
        """
        if domain == self.base.domain:
            return velocity
        return np.sqrt(resample(np.square(velocity), _axes(self.base.domain), _axes(domain)))

    def start(self, velocity: NDArray[np.float64], domain: Domain) -> NDArray[np.float64]:
        """A model of the run, km/s, on the grid of the stage, within the bounds."""
        low, high = self.base.config.inversion.bounds
        start = self._to_stage(velocity, domain)
        # averages of values within bounds may miss them by rounding
        return start if domain == self.base.domain else np.where(self._frozen(domain), start, np.clip(start, low, high))

    def _frozen(self, domain: Domain) -> NDArray[np.bool_]:
        if domain == self.base.domain:
            return self.base.frozen
        share = 1 / resample(1 / (1.0 + self.base.frozen), _axes(self.base.domain), _axes(domain)) - 1
        return np.asarray(share >= FROZEN_SHARE - EDGE_TOLERANCE)

    def result(
        self, velocity: NDArray[np.float64], start: NDArray[np.float64], end: NDArray[np.float64], domain: Domain
    ) -> NDArray[np.float64]:
        """The model of the run after the stage, km/s, on the grid of the run.

        ``velocity`` is the one before it; ``start`` and ``end`` are the first and a later model on the grid of the stage,
        ``domain``. What the stage has changed is interpolated linearly and added; cells that are frozen keep their velocity.
        """
        if domain == self.base.domain:
            return end
        change = interpolate(end - start, domain, self.base.domain)
        low, high = self.base.config.inversion.bounds
        return np.where(self.base.frozen, velocity, np.clip(velocity + change, low, high))


@lru_cache(maxsize=1)  # plan, layout and run ask for them: their models need not be averaged each time
def stages_of(problem: Problem) -> tuple[Stage, ...]:
    """The stages of a run, at least one."""
    sections = problem.config.stage
    if not sections:
        return (Stage(1, "", problem),)
    return tuple(Stage(number, section.title(number), problem, section) for number, section in enumerate(sections, 1))


def problems_of(problem: Problem) -> list[Problem]:
    """The problems whose shots the workers of a run compute: that of modelled data, and that of each stage."""
    stages = [stage.first for stage in stages_of(problem)]
    modelled = problem.observations.recordings is None
    return [problem, *stages] if modelled and problem.config.stage else stages


def load_problem(config: RunConfig) -> Problem:
    """The problem of a configuration, whose stages are checked, too.

    Raises InputError as :meth:`Problem.from_config` does, or if a stage does not fit the survey.
    """
    problem = Problem.from_config(config)
    found: dict[str, list[Stage]] = {}
    for stage in stages_of(problem) if config.stage else ():
        for text in stage.first.warnings:
            found.setdefault(text, []).append(stage)
    new = [f"{_titles(stages)}: {text}" for text, stages in found.items() if text not in problem.warnings]
    return replace(problem, warnings=(*problem.warnings, *new))


def _titles(stages: list[Stage]) -> str:
    """What names one or more stages in a message."""
    if len(stages) == 1:
        return f"{stages[0].key} ({stages[0].name})"
    return f"stages {format_ranges(stage.number for stage in stages)}"


def interpolate(values: NDArray[np.float64], domain: Domain, finer: Domain) -> NDArray[np.float64]:
    """Values on a finer grid, linear between those of a coarser one."""
    return resample(values, _axes(domain), _axes(finer))


def _axes(domain: Domain) -> tuple[Axis, ...]:
    return tuple(Axis(*each) for each in zip(domain.shape, domain.spacing, domain.origin, strict=True))


def _round_down(spacing: float) -> float:
    """A spacing, m, to three digits, so that people can read it."""
    digits = 2 - math.floor(math.log10(spacing))
    return math.floor(spacing * 10**digits) / 10**digits
