"""``fwi.toml``: what is inverted. Every key with its unit, default and limits."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from hpcfwi.config.messages import Section, validate
from hpcfwi.config.parsing import apply_settings, parse_setting, read_toml

__all__ = ["MAX_AMPLITUDE", "MAX_VELOCITY_KM_S", "MIN_VELOCITY_KM_S", "RunConfig", "load_run_config"]

# Velocities of rock, water and air in km/s: what is outside is a mistake, most often of units.
MIN_VELOCITY_KM_S, MAX_VELOCITY_KM_S = 0.1, 15.0
# Amplitudes whose squares are still numbers in single precision.
MAX_AMPLITUDE = 1e18
MOST_POSITIONS = 1_000_000


def _shown(count: int | tuple[int, ...]) -> str:
    return str(count if isinstance(count, int) else list(count))


def _no_empty_path(path: Path) -> Path:
    if path == Path() or "\0" in str(path):
        raise ValueError(f'is "{path}"; it should be the path of a file')
    return path


# The limits are wide enough for samples in a laboratory and for planets: beyond them is a slip of pen or unit.
Velocity = Annotated[float, Field(ge=MIN_VELOCITY_KM_S, le=MAX_VELOCITY_KM_S)]
Metres = Annotated[float, Field(ge=-1e8, le=1e8)]
Cell = Annotated[float, Field(ge=1e-6, le=1e6)]
Milliseconds = Annotated[float, Field(ge=1e-6, le=1e8)]
Count = Annotated[int, Field(ge=1, le=MOST_POSITIONS)]
Vector = Annotated[tuple[Metres, ...], Field(min_length=2, max_length=3)]
Spacing = Annotated[tuple[Cell, ...], Field(min_length=2, max_length=3)]
GridShape = Annotated[tuple[Annotated[int, Field(ge=3, le=1_000_000)], ...], Field(min_length=2, max_length=3)]
Counts = Annotated[tuple[Count, ...], Field(min_length=2, max_length=3)]
FilePath = Annotated[Path, Field(strict=False), AfterValidator(_no_empty_path)]


class GridSection(Section):
    """The grid; arrays are indexed [x, z] in 2-D and [x, y, z] in 3-D, z pointing down."""

    spacing: Spacing = Field(description="m; distance of grid points along each axis, after decimation")
    shape: GridShape | None = Field(
        None, description="grid points along each axis; may be left out where a model file says it"
    )
    origin: Vector | None = Field(None, description="m; position of the first grid point; default: zeros")

    @model_validator(mode="after")
    def _one_dimension(self) -> GridSection:
        for name in ("shape", "origin"):
            value = getattr(self, name)
            if value is not None and len(value) != len(self.spacing):
                raise ValueError(f"{name} has {len(value)} axes, but spacing has {len(self.spacing)}")
        return self


class CircleModel(Section):
    """A circle (2-D) or ball (3-D) in a constant background."""

    kind: Literal["circle"]
    background: Velocity = Field(2.5, description="km/s; velocity around the circle")
    inside: Velocity = Field(3.0, description="km/s; velocity inside the circle")
    radius: Annotated[float, Field(gt=0, le=1e8)] | None = Field(
        None, description="m; radius of the circle; default: 15 grid cells"
    )
    center: Vector | None = Field(None, description="m; position of its centre; default: the middle of the grid")


class LayersModel(Section):
    """Horizontal layers."""

    kind: Literal["layers"]
    velocities: Annotated[tuple[Velocity, ...], Field(min_length=1)] = Field(
        description="km/s; velocity of each layer, top to bottom"
    )
    interfaces: tuple[Metres, ...] = Field(description="m; depth of the top of the second and each further layer")

    @model_validator(mode="after")
    def _match(self) -> LayersModel:
        if len(self.interfaces) != len(self.velocities) - 1:
            raise ValueError(
                f"{len(self.velocities)} velocities need {len(self.velocities) - 1} interfaces, "
                f"not {len(self.interfaces)}"
            )
        if list(self.interfaces) != sorted(self.interfaces):
            raise ValueError("interfaces must be in order of increasing depth")
        return self


class ConstantModel(Section):
    """One velocity everywhere."""

    kind: Literal["constant"]
    velocity: Velocity = Field(description="km/s; velocity everywhere")


class FileModel(Section):
    """Velocities from a file: .npy, or raw binary in C order, the last axis (depth) running fastest."""

    kind: Literal["file"]
    file: FilePath = Field(description="path, relative to this file; .npy, anything else is read as raw binary")
    shape: GridShape | None = Field(None, description="samples along each axis in the file; needed for raw binary")
    dtype: Literal["float32", "float64", "<f4", ">f4", "<f8", ">f8"] = Field(
        "<f4", description="sample format of raw binary"
    )
    unit: Literal["km/s", "m/s"] = Field("km/s", description="unit of the velocities in the file")
    decimate: Count | Counts = Field(1, description="keep every n-th sample, along all axes or each its own")
    clip: tuple[Velocity, Velocity] | None = Field(
        None, description="km/s; [lowest, highest] velocity, others are set to these"
    )

    @field_validator("clip")
    @classmethod
    def _ordered(cls, clip: tuple[float, float] | None) -> tuple[float, float] | None:
        if clip is not None and clip[0] >= clip[1]:
            raise ValueError(f"the first value must be lower than the second, not {list(clip)}")
        return clip


class SmoothModel(Section):
    """The true model, smoothed; frozen cells (water) keep their velocity."""

    kind: Literal["smooth"]
    sigma: float = Field(
        8.0, ge=0.01, le=1000, description="cells; standard deviation of the Gaussian that smooths the velocities"
    )
    keep_frozen: bool = Field(True, description="whether cells in inversion.frozen keep the true velocity")


TrueModel = Annotated[CircleModel | LayersModel | ConstantModel | FileModel, Field(discriminator="kind")]
InitialModel = Annotated[
    CircleModel | LayersModel | ConstantModel | FileModel | SmoothModel, Field(discriminator="kind")
]


class Positions(Section):
    """Sources or receivers: a point, a line or a grid by first, last and count; or a CSV file."""

    first: Vector | None = Field(None, description="m; position of the first")
    last: Vector | None = Field(None, description="m; position of the last; default: the first")
    count: Count | Counts = Field(1, description="how many on the line; or, of a grid, along each axis")
    file: FilePath | None = Field(
        None,
        description="CSV with a header: x, z (and y) in m; for receivers a column shot, where they differ from "
        "shot to shot; for sources a column shot with their names",
    )

    @model_validator(mode="after")
    def _one_way(self) -> Positions:
        if (self.first is None) == (self.file is None):
            raise ValueError("needs either first (with last and count) or file")
        if self.file is not None and (self.last is not None or self.count != 1):
            raise ValueError("last and count go with first, not with file")
        if self.first is not None and self.last is not None and len(self.first) != len(self.last):
            raise ValueError(f"first has {len(self.first)} coordinates, last has {len(self.last)}")
        if isinstance(self.count, tuple) and self.first is not None and len(self.count) != len(self.first):
            raise ValueError(f"count needs one number for each of the {len(self.first)} axes")
        if self.first is not None:
            self._check_count(self.first, self.first if self.last is None else self.last)
        return self

    def _check_count(self, first: tuple[float, ...], last: tuple[float, ...]) -> None:
        """Refuse positions that would coincide, or be left out without a word."""
        total = self.count if isinstance(self.count, int) else math.prod(self.count)
        if total > MOST_POSITIONS:
            raise ValueError(f"count gives {total} positions; there may be at most {MOST_POSITIONS}")
        if total > 1 and first == last:
            raise ValueError(
                f"count is {_shown(self.count)}, but last is {'missing' if self.last is None else 'the first'}"
            )
        if isinstance(self.count, int):
            if total == 1 and first != last:
                raise ValueError("last is given, so count must be 2 or more (it says how many there are on the line)")
            return
        for i, (a, b, n) in enumerate(zip(first, last, self.count, strict=True)):
            if (a == b) != (n == 1):
                raise ValueError(
                    f"along axis {i + 1} count is {n}, but first is {a:g} and last is {b:g} m: one position needs one "
                    "place, several need two"
                )


class AcquisitionSection(Section):
    """Where the sources and receivers are; each source is a shot."""

    sources: Positions | None = Field(
        None, description="where the sources are, each of them a shot; needed unless data.geometry says it"
    )
    receivers: Positions | None = Field(
        None, description="where the receivers are; needed unless data.geometry says it"
    )


class DataSection(Section):
    """The recording, and the observed data; without a file they are modelled from the true model."""

    recording_time: Milliseconds = Field(description="ms; length of the records")
    sample_interval: Milliseconds = Field(4.0, description="ms; sample interval of the observed data")
    file: FilePath | None = Field(
        None,
        description="observed data: a folder with <shot>.npy, or an HDF5 file with a dataset for each shot; "
        "arrays (samples, receivers)",
    )
    tail: Literal["cut", "extrapolate"] = Field(
        "cut",
        description='the last time step, which lies past the end of the data: "cut": not compared; "extrapolate": as in '
        "Devito's tutorials, modelled as zero and compared with the data's spline, extrapolated",
    )
    geometry: FilePath | None = Field(
        None,
        description="CSV with a row for each trace, in the order of the gathers: shot, source_x, source_z, "
        "receiver_x, receiver_z (and source_y, receiver_y), m",
    )
    exclude: tuple[str, ...] = Field(
        (), description="names of shots that are left out, as if the survey had never had them; the results say so"
    )
    quorum: float = Field(
        1.0,
        gt=0,
        le=1,
        description="part of these shots that has to be usable: a shot that fails wherever it is tried, or whose record is "
        "broken, is left out while there are so many others, and the inversion begins anew without it; 1: the run stops",
    )


class RickerSection(Section):
    """The Ricker wavelet ``a (1 - 2 r^2) exp(-r^2)``, ``r = pi f (t - delay)``."""

    kind: Literal["ricker"]
    peak_frequency: float = Field(ge=1e-3, le=1e9, description="Hz; frequency of the largest amplitude")
    delay: float | None = Field(None, ge=0, le=1e8, description="ms; time of the peak; default: 1 / peak_frequency")
    amplitude: float = Field(1.0, ge=-MAX_AMPLITUDE, le=MAX_AMPLITUDE, description="value of the peak")

    @field_validator("amplitude")
    @classmethod
    def _not_nothing(cls, amplitude: float) -> float:
        if abs(amplitude) < 1 / MAX_AMPLITUDE:
            raise ValueError(
                f"is {amplitude:g}, so there would be no waves; its size should be at least {1 / MAX_AMPLITUDE:g}"
            )
        return amplitude


class WaveletFileSection(Section):
    """A wavelet from a file, interpolated to the time step by a cubic spline; zero after its end."""

    kind: Literal["file"]
    file: FilePath = Field(description=".npy with one axis, or text with one sample a line")
    sample_interval: Milliseconds = Field(description="ms; sample interval of the wavelet")


class SolverSection(Section):
    """How the wave equation is solved."""

    space_order: int = Field(8, ge=2, le=16, multiple_of=2, description="order of the finite differences in space")
    dtype: Literal["float32", "float64"] = Field("float32", description="precision of the wavefields")
    sponge: int = Field(40, ge=1, le=1000, description="cells; width of the absorbing layer on each side")
    free_surface: bool = Field(False, description="whether the top is a free surface instead of absorbing")
    time_step: Literal["fixed", "critical"] | Milliseconds = Field(
        "fixed",
        description='"fixed": stable for the highest velocity allowed; "critical": of the current model, anew at each '
        "evaluation; or a number, ms",
    )
    strategy: Literal["sampled", "full"] = Field(
        "sampled",
        description='steps at which the forward wavefield is kept: "sampled" (every k-th) or "full"',
    )
    sampling_margin: float = Field(
        2.5, ge=1, description='for "sampled": samples kept per period of twice the highest frequency'
    )
    boundary_gradient: Literal["exact", "crop"] = Field(
        "exact", description='"exact": the sponge\'s part is folded onto the edges; "crop": it is dropped'
    )


class FrozenSection(Section):
    """Cells that the inversion leaves as they are in the initial model; a cell is frozen if any of these says so."""

    velocity_below: Velocity | None = Field(
        None,
        description="km/s; freeze where the true model (else the initial one) is at or below this: water",
    )
    depth_above: Metres | None = Field(None, description="m; freeze everything down to this depth")
    mask_file: FilePath | None = Field(None, description=".npy of the grid's shape, true (nonzero) where frozen")


class InversionSection(Section):
    """The optimisation: L-BFGS-B over the squared slowness."""

    bounds: tuple[Velocity, Velocity] = Field(description="km/s; [lowest, highest] velocity allowed")
    first_step: Annotated[float, Field(ge=1e-6, le=10)] | Literal["unscaled"] = Field(
        0.05,
        description="km/s; about the largest change of velocity that the optimiser tries first, by which it scales its "
        'variables; "unscaled": the bare squared slowness, whose first try may go from bound to bound',
    )
    iterations: int = Field(20, ge=0, le=1_000_000, description="most iterations")
    evaluations: int = Field(
        15000,
        ge=1,
        le=1_000_000,
        description="most evaluations of misfit and gradient, but for the rest of a line search",
    )
    ftol: float = Field(
        2.220446049250313e-09, ge=0, description="stop when the relative decrease of the misfit is below this"
    )
    gtol: float = Field(1e-5, ge=0, description="stop when the largest projected gradient entry is below this")
    corrections: int = Field(10, ge=1, le=1000, description="pairs of vectors that L-BFGS-B remembers")
    line_search_steps: int = Field(20, ge=1, le=1000, description="most evaluations in one line search")
    frozen: FrozenSection = Field(FrozenSection(), description="cells that stay as they are")

    @field_validator("bounds")
    @classmethod
    def _ordered(cls, bounds: tuple[float, float]) -> tuple[float, float]:
        if bounds[0] >= bounds[1]:
            raise ValueError(f"the first velocity must be lower than the second, not {list(bounds)}")
        return bounds


class JournalSection(Section):
    """What a run that was interrupted need not compute again."""

    block: Annotated[int, Field(ge=0, le=8**8)] | Literal["auto"] = Field(
        "auto",
        description="shots whose sum is kept on disk while an evaluation is under way: 1, 8, 64, ... as they are added up; 0: "
        'none are; "auto": at most 3 % of all shots, or one',
    )

    @field_validator("block")
    @classmethod
    def _power_of_eight(cls, block: int | Literal["auto"]) -> int | Literal["auto"]:
        if isinstance(block, int) and block > 0 and 8 ** round(math.log(block, 8)) != block:
            raise ValueError(f'must be 1, 8, 64, 512, ..., 0 or "auto", not {block}')
        return block

    @property
    def shots_per_sum(self) -> int | None:
        """None for "auto"."""
        return None if self.block == "auto" else int(self.block)


class OutputSection(Section):
    """What is written besides the model."""

    figures: bool = Field(True, description="whether pictures are drawn")
    report: bool = Field(True, description="whether report.html is written at the end")


class RunConfig(Section):
    """A whole ``fwi.toml``."""

    grid: GridSection
    model: TrueModel | None = Field(
        None,
        description="the true model, to which the result is compared, and from which data are made; needed unless there is "
        "data.file",
    )
    initial: InitialModel = Field(description="the model that the inversion starts from")
    acquisition: AcquisitionSection = AcquisitionSection()
    data: DataSection
    wavelet: Annotated[RickerSection | WaveletFileSection, Field(discriminator="kind")] = Field(
        description="the source time function"
    )
    solver: SolverSection = SolverSection()
    inversion: InversionSection
    journal: JournalSection = JournalSection()
    output: OutputSection = OutputSection()

    @model_validator(mode="after")
    def _consistent(self) -> RunConfig:
        ndim = len(self.grid.spacing)
        for name, positions in (
            ("sources", self.acquisition.sources),
            ("receivers", self.acquisition.receivers),
        ):
            if self.data.geometry is not None and positions is not None:
                raise ValueError(f"acquisition.{name}: data.geometry says where the {name} are, too; keep one of them")
            if self.data.geometry is None and positions is None:
                raise ValueError(
                    f"acquisition.{name}: is missing; a section with first, last and count, or with file (a CSV)"
                )
            if positions is not None and positions.first is not None and len(positions.first) != ndim:
                raise ValueError(
                    f"acquisition.{name}.first: has {len(positions.first)} coordinates, but the grid has {ndim} axes"
                )
        if self.model is None and self.data.file is None:
            raise ValueError("model: is missing; a [model] is needed to make data from, or observed data in data.file")
        if self.model is None and isinstance(self.initial, SmoothModel):
            raise ValueError('initial.kind: is "smooth", which needs a [model] to smooth')
        if self.data.sample_interval > self.data.recording_time:
            raise ValueError(
                f"data.sample_interval: is {self.data.sample_interval:g} ms, longer than "
                f"data.recording_time, which is {self.data.recording_time:g} ms"
            )
        return self


def load_run_config(path: Path | str, settings: Iterable[str] = ()) -> RunConfig:
    """Read ``fwi.toml``, lay settings over it and check it.

    Parameters
    ----------
    path
        The file.
    settings
        ``section.key=value``, as after ``--set``.

    Raises
    ------
    InputError
        With every mistake of the file: which key, what it is, what it may be.
    """
    changes = [parse_setting(setting) for setting in settings]
    content = apply_settings(read_toml(Path(path), "run configuration"), changes)
    return validate(RunConfig, content, f"{path} with --set" if changes else str(path))
