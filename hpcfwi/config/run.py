"""``fwi.toml``: what to invert. Every key with its unit, default and limits."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from hpcfwi.config.conditioning import check_axes
from hpcfwi.config.data import DataSection
from hpcfwi.config.inversion import InversionSection
from hpcfwi.config.messages import Section, validate
from hpcfwi.config.models import InitialModel, SmoothModel, TrueModel
from hpcfwi.config.parsing import apply_settings, parse_setting, read_toml
from hpcfwi.config.processing import LineSourceSection, ProcessingSteps
from hpcfwi.config.quantities import (
    MAX_AMPLITUDE,
    MAX_POSITIONS,
    Count,
    Counts,
    FilePath,
    GridShape,
    Metres,
    Milliseconds,
    Spacing,
    Vector,
)
from hpcfwi.config.stages import MAX_STAGES, StageSection

# Records then have errors of at most 0.1 % (CPML), and 0.3 to 46 % (sponge): docs/pages/theory/wave-equation.md.
DEFAULT_LAYER_CELLS = {"cpml": 10, "sponge": 40}


class GridSection(Section):
    """The grid of the model; arrays are indexed [x, z] in 2-D and [x, y, z] in 3-D, and z points down."""

    spacing: Spacing = Field(description="m; distance between grid points along each axis, after decimation")
    shape: GridShape | None = Field(
        None, description="grid points along each axis; default: as far as the model file reaches"
    )
    origin: Vector | None = Field(None, description="m; position of the first grid point; default: zeros")

    @model_validator(mode="after")
    def _same_axes(self) -> GridSection:
        for name in ("shape", "origin"):
            value = getattr(self, name)
            if value is not None and len(value) != len(self.spacing):
                raise ValueError(f"{name} has {len(value)} axes, but spacing has {len(self.spacing)}")
        return self


class Positions(Section):
    """Sources or receivers: a point, a line or a grid by first, last and count; or a CSV file."""

    first: Vector | None = Field(None, description="m; first position")
    last: Vector | None = Field(None, description="m; last position; default: the first")
    count: Count | Counts = Field(1, description="number of positions on the line, or along each axis of a grid")
    file: FilePath | None = Field(
        None,
        description="CSV with a header and the columns x, z (and y), m; separated by comma, semicolon or tab. A column shot "
        "names each source's shot, or the shot that a receiver belongs to",
    )

    @model_validator(mode="after")
    def _one_way(self) -> Positions:
        if (self.first is None) == (self.file is None):
            raise ValueError("needs either first (with last and count) or file")
        if self.file is not None and (self.last is not None or self.count != 1):
            raise ValueError("last and count go with first, not with file")
        if self.first is None:
            return self
        if self.last is not None and len(self.first) != len(self.last):
            raise ValueError(f"first has {len(self.first)} coordinates, last has {len(self.last)}")
        if isinstance(self.count, tuple) and len(self.count) != len(self.first):
            raise ValueError(f"count needs one number for each of the {len(self.first)} axes")
        self._check_count(self.first, self.first if self.last is None else self.last)
        return self

    def _check_count(self, first: tuple[float, ...], last: tuple[float, ...]) -> None:
        """Refuse a count that would put positions on top of each other, or ignore ``last``."""
        total = self.count if isinstance(self.count, int) else math.prod(self.count)
        if total > MAX_POSITIONS:
            raise ValueError(f"count gives {total} positions; at most {MAX_POSITIONS} are possible")
        if total > 1 and first == last:
            count = self.count if isinstance(self.count, int) else list(self.count)
            raise ValueError(f"count is {count}, but last is {'missing' if self.last is None else 'the same as first'}")
        if isinstance(self.count, int):
            if total == 1 and first != last:
                raise ValueError("last is given, so count must be 2 or more: the number of positions on the line")
            return
        for axis, (a, b, n) in enumerate(zip(first, last, self.count, strict=True), 1):
            if (a == b) != (n == 1):
                raise ValueError(
                    f"along axis {axis} count is {n}, but first is {a:g} m and last is {b:g} m; a count of 1 goes with equal "
                    "coordinates, a larger one with different ones"
                )


class AcquisitionSection(Section):
    """Positions of sources and receivers; each source is a shot."""

    sources: Positions | None = Field(None, description="where sources are; needed unless there is data.geometry")
    receivers: Positions | None = Field(None, description="where receivers are; needed unless there is data.geometry")
    aperture: Annotated[float, Field(ge=0, le=1e8)] | Literal["auto"] | None = Field(
        None,
        description="m; compute each shot in a window that reaches so far beyond its source and receivers along x (and y); "
        '"auto": as far as the model is deep; default: in the whole model',
    )
    minimum_depth: Metres | None = Field(
        None, description="m; z of a source or receiver above this depth is changed to it, in data.geometry, too"
    )


class RickerSection(Section):
    """The Ricker wavelet ``a (1 - 2 r^2) exp(-r^2)``, ``r = pi f (t - delay)``."""

    kind: Literal["ricker"]
    peak_frequency: float = Field(ge=1e-3, le=1e9, description="Hz; frequency of the largest amplitude")
    delay: float | None = Field(None, ge=0, le=1e8, description="ms; time of the peak; default: 1 / peak_frequency")
    amplitude: float = Field(1.0, ge=-MAX_AMPLITUDE, le=MAX_AMPLITUDE, description="value of the peak")

    @field_validator("amplitude")
    @classmethod
    def _not_zero(cls, amplitude: float) -> float:
        if abs(amplitude) < 1 / MAX_AMPLITUDE:
            raise ValueError(
                f"is {amplitude:g}, which makes no waves; at least {1 / MAX_AMPLITUDE:g} does, or its negative"
            )
        return amplitude


class WaveletFileSection(Section):
    """A wavelet from a file, interpolated to the time step by a cubic spline; zero after its end."""

    kind: Literal["file"]
    file: FilePath = Field(description=".npy with one axis, or text with one sample a line")
    sample_interval: Milliseconds = Field(description="ms; sample interval of the wavelet")


class EstimatedWaveletSection(Section):
    """A wavelet that is estimated from the data: a Ricker wavelet, and the filter that fits predictions to observed data."""

    kind: Literal["estimate"]
    peak_frequency: float = Field(
        ge=1e-3, le=1e9, description="Hz; of the Ricker wavelet, whose band limits that of the estimate"
    )
    delay: float | None = Field(None, ge=0, le=1e8, description="ms; time of its peak; default: 1 / peak_frequency")
    per_shot: bool = Field(False, description="whether each shot has its own wavelet")
    every: Annotated[int, Field(ge=0, le=1_000_000)] | Literal["evaluation"] = Field(
        0,
        description='iterations between two estimates; 0: estimate once, in the initial model; "evaluation": in each model '
        "whose misfit is evaluated",
    )
    max_offset: Annotated[float, Field(ge=0, le=1e8)] | None = Field(
        None, description="m; largest offset of the traces that are used; default: all"
    )
    damping: float = Field(
        1e-6,
        ge=0,
        le=1,
        description="share of the mean predicted power that is added to it, which keeps the filter small",
    )


class SolverSection(Section):
    """The discretisation of the wave equation."""

    space_order: int = Field(8, ge=2, le=16, multiple_of=2, description="order of the finite differences in space")
    dtype: Literal["float32", "float64"] = Field("float32", description="precision of the wavefields")
    boundary: Literal["cpml", "sponge"] = Field(
        "cpml",
        description="absorbing layer: a convolutional perfectly matched layer, or the damping of Devito's tutorials",
    )
    layer: Annotated[int, Field(ge=1, le=1000)] | None = Field(
        None, description='cells; width of the absorbing layer on each side; default: 10 for "cpml", 40 for "sponge"'
    )
    free_surface: bool = Field(False, description="whether the top is a free surface instead of absorbing")
    interpolation: Literal["sinc", "linear"] = Field(
        "sinc",
        description="how sources and receivers between grid points are interpolated; on grid points both are exact",
    )
    source_scaling: Literal["volume", "none"] = Field(
        "volume",
        description='"volume": a source is divided by the volume of a cell, so that records do not depend on the grid; "none": '
        "it is not, as in Devito's tutorials",
    )
    time_dispersion: Literal["corrected", "kept"] = Field(
        "corrected",
        description='what the time step does to waveforms: "corrected" in the wavelet and in predicted records, or "kept"',
    )
    time_step: Literal["fixed", "critical"] | Milliseconds = Field(
        "fixed",
        description='stable for the highest velocity allowed ("fixed") or for the current model ("critical"); or a number, ms',
    )
    wavefield: Literal["auto", "sampled", "compressed", "checkpointed", "disk", "full"] = Field(
        "auto",
        description='how the gradient gets the forward wavefield: snapshots every k steps, in memory ("sampled"), there with 8 '
        'bits a value ("compressed"), computed again ("checkpointed"), or on the node\'s scratch disk ("disk"); or every step, '
        'in memory ("full"); "auto": sampled, or checkpointed if the memory of the workers is short',
    )
    sampling_margin: float = Field(
        2.5, ge=1, description="snapshots kept in each period of a wave of twice the highest frequency"
    )
    boundary_gradient: Literal["frozen", "exact", "crop"] = Field(
        "frozen",
        description='"frozen": the absorbing layer keeps the edge values of the initial model, and the gradient is exact. A '
        'sponge may follow the edges instead; its gradient is then folded onto them ("exact") or dropped ("crop")',
    )

    @model_validator(mode="after")
    def _layer_and_gradient_fit(self) -> SolverSection:
        if self.boundary == "cpml" and self.boundary_gradient != "frozen":
            raise ValueError(
                f'boundary_gradient is "{self.boundary_gradient}", which needs boundary = "sponge"; take it out, or set '
                'it to "frozen"'
            )
        return self

    @property
    def layer_cells(self) -> int:
        """Width of the absorbing layer, cells."""
        return self.layer or DEFAULT_LAYER_CELLS[self.boundary]


class JournalSection(Section):
    """What a run keeps on disk so that a restart does not compute it again."""

    block: Literal["auto", 0, 1, 8, 64, 512, 4096, 32768, 262144, 2097152, 16777216] = Field(
        "auto",
        description='shots in each sum that an unfinished evaluation keeps; 0: keeps none; "auto": at most 3 % of all, or one',
    )

    @property
    def shots_per_sum(self) -> int | None:
        """None for "auto"."""
        return None if self.block == "auto" else self.block


class OutputSection(Section):
    """What a run writes besides the model."""

    figures: bool = Field(True, description="whether to draw figures")
    report: bool = Field(True, description="whether to write report.html at the end")


class RunConfig(Section):
    """A whole ``fwi.toml``."""

    grid: GridSection
    model: TrueModel | None = Field(None, description="the true model, to make data from, and to compare results with")
    initial: InitialModel = Field(description="the model that the inversion starts from")
    acquisition: AcquisitionSection = AcquisitionSection()
    data: DataSection
    wavelet: RickerSection | WaveletFileSection | EstimatedWaveletSection = Field(
        discriminator="kind", description="the source time function"
    )
    processing: ProcessingSteps = Field(
        (),
        max_length=50,
        description="a step of the processing of predicted and observed gathers, in the order written",
    )
    solver: SolverSection = SolverSection()
    inversion: InversionSection
    journal: JournalSection = JournalSection()
    output: OutputSection = OutputSection()
    stage: tuple[StageSection, ...] = Field(
        (), max_length=MAX_STAGES, description="a stage of the inversion, in the order written; default: one stage"
    )

    @property
    def limits(self) -> dict[str, Any]:
        """The keys that only decide when the inversion, or a stage, ends."""
        found = self.inversion.limits
        if self.stage:
            found["stage"] = [stage.merged(self.inversion).limits for stage in self.stage]
        return found

    @model_validator(mode="after")
    def _consistent(self) -> RunConfig:
        for name in ("sources", "receivers"):
            key, positions, ndim = f"acquisition.{name}", getattr(self.acquisition, name), len(self.grid.spacing)
            if positions is None and self.data.geometry is None and not self.data.is_seismic:
                raise ValueError(f"{key}: is missing; add a section with first, last and count, or with file (a CSV)")
            if positions is not None and self.data.geometry is not None:
                raise ValueError(f"{key}: data.geometry has these positions, too; keep one of the two")
            if positions is not None and positions.first is not None and len(positions.first) != ndim:
                raise ValueError(f"{key}.first: has {len(positions.first)} coordinates, but the grid has {ndim} axes")
        if self.model is None and self.data.file is None:
            raise ValueError("model: is missing; add a [model] to make data from, or observed data (data.file)")
        if self.model is None and isinstance(self.initial, SmoothModel):
            raise ValueError('initial.kind: is "smooth", which needs a [model] to smooth')
        if self.data.tail == "extrapolate" and self.solver.time_dispersion == "corrected":
            raise ValueError(
                'data.tail: is "extrapolate", which does not go with a corrected time dispersion; add '
                'solver.time_dispersion = "kept", or take data.tail out'
            )
        estimate = isinstance(self.wavelet, EstimatedWaveletSection)
        stages = [stage.merged(self.inversion, f"stage[{number}]") for number, stage in enumerate(self.stage, 1)]
        for section in (self.inversion, *stages):
            check_axes(len(self.grid.spacing), section.conditioning, section.regularisation)
        for section in stages or [self.inversion]:
            if isinstance(self.wavelet, EstimatedWaveletSection) and self.wavelet.every and section.in_batches:
                raise ValueError(
                    f'wavelet.every: does not go with inversion.optimizer = "{section.optimizer}"; take wavelet.every out, '
                    "and the wavelet is estimated once"
                )
        if self.data.file is None and estimate:
            raise ValueError('wavelet.kind: is "estimate", which needs observed data (data.file)')
        if self.data.tail == "extrapolate" and (self.processing or self.data.is_seismic or estimate):
            what = "processing" if self.processing else "SEG-Y" if self.data.is_seismic else "an estimated wavelet"
            raise ValueError(
                f'data.tail: is "extrapolate", which does not go with {what}: the samples that are compared change with the '
                "model; take data.tail out"
            )
        for number, step in enumerate(self.processing, 1):
            if isinstance(step, LineSourceSection) and (self.data.file is None or len(self.grid.spacing) == 3):
                reason = "a 3-D model has point sources, too" if self.data.file else "modelled data need no correction"
                raise ValueError(f'processing[{number}].kind: is "line_source", but {reason}; take the step out')
        for number, stage in enumerate(self.stage, 1):
            if any(isinstance(step, LineSourceSection) for step in stage.processing):
                raise ValueError(f"stage[{number}].processing: line_source belongs into [[processing]]")
        if self.stage and self.data.tail == "extrapolate":
            raise ValueError('data.tail: is "extrapolate", which does not go with stages; take data.tail out')
        if not self.data.is_seismic and self.data.recording_time is None:
            raise ValueError("data.recording_time: is missing (ms; length of the records)")
        if self.data.is_seismic and (self.acquisition.sources or self.acquisition.receivers or self.data.geometry):
            name = "data.geometry" if self.data.geometry else "acquisition"
            raise ValueError(
                f"{name}: has positions, but those of SEG-Y and Seismic Unix are in their trace headers (data.headers); take "
                f"{name} out"
            )
        return self


def load_run_config(path: Path | str, settings: Iterable[str] = ()) -> RunConfig:
    """Read ``fwi.toml``, apply settings and check the result.

    Parameters
    ----------
    path
        The file.
    settings
        ``section.key=value``, as after ``--set``.

    Returns
    -------
    RunConfig

    Raises
    ------
    InputError
        With every mistake: the key, its value, and what it may be.
    """
    changes = [parse_setting(setting) for setting in settings]
    content = apply_settings(read_toml(Path(path), "run configuration"), changes)
    return validate(RunConfig, content, f"{path} with --set" if changes else str(path))
