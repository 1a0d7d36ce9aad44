"""``fwi.toml``: what is inverted. Every key with its unit, default and limits."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from hpcfwi.config.text import apply_settings, parse_setting, read_toml
from hpcfwi.config.validation import Section, validate

__all__ = ["FASTEST", "LARGEST", "SLOWEST", "RunConfig", "load_run_config"]

# Velocities of rock, water and air in km/s: what is outside is a mistake, most often of units.
SLOWEST, FASTEST = 0.1, 15.0
# Amplitudes whose squares are still numbers in single precision.
LARGEST = 1e18
MOST_POSITIONS = 1_000_000


def _shown(count: int | tuple[int, ...]) -> str:
    return str(count if isinstance(count, int) else list(count))


def _no_empty_path(path: Path) -> Path:
    if path == Path() or "\0" in str(path):
        raise ValueError(f'is "{path}"; it should be the path of a file')
    return path


# The limits are wide enough for samples in a laboratory and for planets: beyond them is a slip of pen or unit.
Velocity = Annotated[float, Field(ge=SLOWEST, le=FASTEST)]
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
    """The grid. Arrays are indexed [x, z] in 2-D and [x, y, z] in 3-D; z points down."""

    spacing: Spacing = Field(description="m; distance between grid points along each axis, after decimation")
    shape: GridShape | None = Field(
        None, description="grid points along each axis; not needed if a model comes from a file"
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
    center: Vector | None = Field(None, description="m; position of the centre; default: the middle of the grid")


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
    """Velocities from a file: .npy, or raw binary in C order, where the last axis (depth) varies fastest."""

    kind: Literal["file"]
    file: FilePath = Field(description="path, relative to this file; .npy, or else raw binary")
    shape: GridShape | None = Field(None, description="samples along each axis of the file; needed for raw binary")
    dtype: Literal["float32", "float64", "<f4", ">f4", "<f8", ">f8"] = Field(
        "<f4", description="sample format of raw binary"
    )
    unit: Literal["km/s", "m/s"] = Field("km/s", description="unit of the velocities in the file")
    decimate: Count | Counts = Field(1, description="keep every n-th sample: one number for all axes, or one for each")
    clip: tuple[Velocity, Velocity] | None = Field(
        None, description="km/s; [lowest, highest] velocity; values outside are set to the nearest of the two"
    )

    @field_validator("clip")
    @classmethod
    def _ordered(cls, clip: tuple[float, float] | None) -> tuple[float, float] | None:
        if clip is not None and clip[0] >= clip[1]:
            raise ValueError(f"the first value must be lower than the second, not {list(clip)}")
        return clip


class SmoothModel(Section):
    """The true model, smoothed. Frozen cells (water) keep their velocity."""

    kind: Literal["smooth"]
    sigma: float = Field(
        8.0, ge=0.01, le=1000, description="cells; standard deviation of the Gaussian that smooths the velocity"
    )
    keep_frozen: bool = Field(True, description="cells in inversion.frozen keep the true velocity")


TrueModel = Annotated[CircleModel | LayersModel | ConstantModel | FileModel, Field(discriminator="kind")]
InitialModel = Annotated[
    CircleModel | LayersModel | ConstantModel | FileModel | SmoothModel, Field(discriminator="kind")
]


class Positions(Section):
    """Sources or receivers: a point, a line or a grid given by first, last and count; or a CSV file."""

    first: Vector | None = Field(None, description="m; position of the first")
    last: Vector | None = Field(None, description="m; position of the last; default: the first")
    count: Count | Counts = Field(1, description="positions on the line, or along each axis of a grid")
    file: FilePath | None = Field(
        None,
        description="CSV file with the columns x, z (and y), m; a column shot names the sources, or the shot of each receiver "
        "if receivers differ from shot to shot",
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
    """Positions of sources and receivers. Each source is a shot."""

    sources: Positions | None = Field(
        None, description="positions of the sources; each is a shot; needed unless data.geometry is set"
    )
    receivers: Positions | None = Field(
        None, description="positions of the receivers; needed unless data.geometry is set"
    )


class DataSection(Section):
    """The recording and the observed data. Without a file, they are modelled in the true model."""

    recording_time: Milliseconds = Field(description="ms; length of a record")
    sample_interval: Milliseconds = Field(4.0, description="ms; sample interval of the observed data")
    file: FilePath | None = Field(
        None,
        description="observed data: a folder with <shot>.npy, or an HDF5 file with a dataset for each shot; arrays of shape "
        "(samples, receivers)",
    )
    tail: Literal["cut", "extrapolate"] = Field(
        "cut",
        description='the last time step, which lies after the last sample of the data: "cut" does not compare it; '
        '"extrapolate" takes zero as its prediction and extrapolates the data, as in Devito\'s tutorials',
    )
    geometry: FilePath | None = Field(
        None,
        description="CSV file with a row for each trace, in the order of the gathers: shot, source_x, source_z, receiver_x, "
        "receiver_z (and source_y, receiver_y), m",
    )
    exclude: tuple[str, ...] = Field(
        (), description="names of shots to leave out, as if the survey did not have them; the results name them"
    )
    quorum: float = Field(
        1.0,
        gt=0,
        le=1,
        description="fraction of the shots that must remain; while it does, a shot that fails on every attempt or has a broken "
        "record is left out, and the inversion begins again without it; 1 stops the run instead",
    )


class RickerWavelet(Section):
    """The Ricker wavelet ``a (1 - 2 r^2) exp(-r^2)``, ``r = pi f (t - delay)``."""

    kind: Literal["ricker"]
    peak_frequency: float = Field(ge=1e-3, le=1e9, description="Hz; frequency with the largest amplitude")
    delay: float | None = Field(None, ge=0, le=1e8, description="ms; time of the peak; default: 1 / peak_frequency")
    amplitude: float = Field(1.0, ge=-LARGEST, le=LARGEST, description="amplitude of the peak")

    @field_validator("amplitude")
    @classmethod
    def _not_nothing(cls, amplitude: float) -> float:
        if abs(amplitude) < 1 / LARGEST:
            raise ValueError(
                f"is {amplitude:g}, so there would be no waves; its size should be at least {1 / LARGEST:g}"
            )
        return amplitude


class FileWavelet(Section):
    """A wavelet from a file. A cubic spline interpolates it to the time step; it is zero after its end."""

    kind: Literal["file"]
    file: FilePath = Field(description=".npy with one axis, or a text file with one sample a line")
    sample_interval: Milliseconds = Field(description="ms; sample interval of the wavelet")


class SolverSection(Section):
    """The solution of the wave equation."""

    space_order: int = Field(8, ge=2, le=16, multiple_of=2, description="order of the finite differences in space")
    dtype: Literal["float32", "float64"] = Field("float32", description="precision of the wavefields")
    sponge: int = Field(40, ge=1, le=1000, description="cells; width of the absorbing layer on each side")
    free_surface: bool = Field(False, description="free surface at the top instead of an absorbing layer")
    time_step: Literal["fixed", "critical"] | Milliseconds = Field(
        "fixed",
        description='"fixed": stable for the highest velocity that is allowed; "critical": the Courant limit of the current '
        "model, computed again for each evaluation; or a number, ms",
    )
    strategy: Literal["sampled", "full"] = Field(
        "sampled",
        description='time steps at which the forward wavefield is kept: "sampled" (every k-th) or "full" (all)',
    )
    sampling_margin: float = Field(
        2.5, ge=1, description='for "sampled": samples per period of twice the highest frequency of the wavelet'
    )
    boundary_gradient: Literal["exact", "crop"] = Field(
        "exact", description='gradient in the sponge: "exact" folds it onto the edge cells, "crop" drops it'
    )


class FrozenSection(Section):
    """Cells that keep the velocity of the initial model. A cell is frozen if any of these keys says so."""

    velocity_below: Velocity | None = Field(
        None,
        description="km/s; freeze cells where the true model (or else the initial model) is at or below this: water",
    )
    depth_above: Metres | None = Field(None, description="m; freeze all cells down to this depth")
    mask_file: FilePath | None = Field(None, description=".npy with the shape of the grid; true (nonzero) where frozen")


class InversionSection(Section):
    """The optimiser: L-BFGS-B over the squared slowness."""

    bounds: tuple[Velocity, Velocity] = Field(description="km/s; [lowest, highest] velocity that is allowed")
    first_step: Annotated[float, Field(ge=1e-6, le=10)] | Literal["unscaled"] = Field(
        0.05,
        description="km/s; largest change of velocity in the first step, approximately; it scales the optimiser's variables; "
        '"unscaled": no scaling, so that the first step may jump from bound to bound',
    )
    iterations: int = Field(20, ge=0, le=1_000_000, description="maximum number of iterations")
    evaluations: int = Field(
        15000,
        ge=1,
        le=1_000_000,
        description="maximum number of evaluations of misfit and gradient; a line search that has begun is completed",
    )
    ftol: float = Field(
        2.220446049250313e-09,
        ge=0,
        description="stop when the relative decrease of the misfit in an iteration is below this",
    )
    gtol: float = Field(1e-5, ge=0, description="stop when the largest entry of the projected gradient is below this")
    corrections: int = Field(10, ge=1, le=1000, description="vector pairs that L-BFGS-B remembers")
    line_search_steps: int = Field(20, ge=1, le=1000, description="maximum number of evaluations in one line search")
    frozen: FrozenSection = Field(FrozenSection(), description="cells that keep their velocity")

    @field_validator("bounds")
    @classmethod
    def _ordered(cls, bounds: tuple[float, float]) -> tuple[float, float]:
        if bounds[0] >= bounds[1]:
            raise ValueError(f"the first velocity must be lower than the second, not {list(bounds)}")
        return bounds


class JournalSection(Section):
    """What an interrupted run keeps."""

    block: Annotated[int, Field(ge=0, le=8**8)] | Literal["auto"] = Field(
        "auto",
        description="number of shots in each sum that is kept on disk during an evaluation: 1, 8, 64, ...; 0 keeps none; "
        '"auto": at most 3 % of all shots, at least one',
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
    """Output besides the model."""

    figures: bool = Field(True, description="draw the pictures")
    report: bool = Field(True, description="write report.html at the end")


class RunConfig(Section):
    """A whole ``fwi.toml``."""

    grid: GridSection
    model: TrueModel | None = Field(
        None,
        description="the true model: synthetic data are made in it, and the result is compared with it; needed unless "
        "data.file is set",
    )
    initial: InitialModel = Field(description="the model that the inversion starts from")
    acquisition: AcquisitionSection = AcquisitionSection()
    data: DataSection
    wavelet: Annotated[RickerWavelet | FileWavelet, Field(discriminator="kind")] = Field(
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
