"""``[data]``: observed data, and what the headers of SEG-Y and Seismic Unix files mean."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from hpcfwi.config.messages import Section
from hpcfwi.config.quantities import DEFAULT_MAX_DISTANCE_M, FilePath, FilePaths, Metres, Milliseconds

DEFAULT_INTERVAL_MS = 4.0
SEISMIC_SUFFIXES = (".sgy", ".segy", ".su")
HeaderName = str | Annotated[int, Field(ge=1, le=240)]
Multiplier = Annotated[float, Field(gt=0, ge=1e-9, le=1e9)]


class HeadersSection(Section):
    """Which header fields of SEG-Y and Seismic Unix files mean what.

    A field is named as in segyio ("SourceX"), by its first byte (73), or by byte and type ("73:float32").
    """

    shot: HeaderName | None = Field(
        None,
        description="field that names the shot of a trace, such as FieldRecord; default: traces of one source position are a "
        "shot, named by FieldRecord if that is possible, else numbered from 0",
    )
    source_x: HeaderName = Field("SourceX", description="field with x of the source")
    source_y: HeaderName = Field("SourceY", description="field with y of the source")
    source_elevation: HeaderName | None = Field(
        "SourceSurfaceElevation", description="field with the elevation of the surface at the source"
    )
    source_depth: HeaderName | None = Field(
        "SourceDepth", description="field with the depth of the source below that surface"
    )
    receiver_x: HeaderName = Field("GroupX", description="field with x of the receiver")
    receiver_y: HeaderName = Field("GroupY", description="field with y of the receiver")
    receiver_elevation: HeaderName | None = Field(
        "ReceiverGroupElevation", description="field with the elevation of the receiver"
    )
    receiver_depth: HeaderName | None = Field(
        None, description="field with the depth of the receiver below that elevation; default: there is none"
    )
    unit: Literal["m", "ft", "us-ft"] | None = Field(
        None, description="unit of coordinates, elevations and depths; default: as the binary header says, else m"
    )
    coordinate_scalar: Multiplier | None = Field(
        None, description="multiplies x and y; default: as SourceGroupScalar says (0: 1, -100: 0.01)"
    )
    elevation_scalar: Multiplier | None = Field(
        None, description="multiplies elevations and depths; default: as ElevationScalar says"
    )
    elevations: Literal["up", "down"] = Field(
        "up", description='"up": elevations grow upwards, as in the standard; "down": they are depths'
    )
    datum: Metres = Field(0.0, description="m; the elevation of z = 0")
    delay: Annotated[float, Field(ge=-1e8, le=1e8)] | None = Field(
        None, description="ms; time of the first sample after the shot; default: as DelayRecordingTime says"
    )
    samples: Annotated[int, Field(ge=1, le=10_000_000)] | None = Field(
        None, description="samples of a trace; default: as the headers say and the size of the file allows"
    )
    sample_format: Annotated[int, Field(ge=1, le=16)] | None = Field(
        None,
        description="code of the samples' format: 1 IBM float, 5 IEEE float, 3 2-byte integer, ...; default: as the file says",
    )
    byte_order: Literal["big", "little"] | None = Field(None, description="of headers and samples; default: recognised")


class TransformSection(Section):
    """From coordinates in headers to x and y of the model, by a local origin and a rotation."""

    origin: tuple[Metres, Metres] = Field(
        (0.0, 0.0), description="m; coordinates x, y of the model's x = 0 (and y = 0)"
    )
    azimuth: float = Field(
        90.0,
        ge=-360,
        le=360,
        description="degrees; direction of the model's x axis, clockwise from that of the coordinates' y axis (north): 90 is "
        "along the coordinates' x axis (east)",
    )
    max_distance: float = Field(
        DEFAULT_MAX_DISTANCE_M,
        ge=0,
        le=1e8,
        description="m; in 2-D, positions are projected onto the line through the origin in this direction; a larger distance "
        "from it is an error",
    )


class TracesSection(Section):
    """Which traces are left out of the misfit; the log and the report list them."""

    outside: Literal["refuse", "drop"] | Annotated[float, Field(gt=0, lt=1)] = Field(
        "refuse",
        description='traces of receivers outside the model: "refuse", "drop", or drop up to this share of all traces',
    )
    dead: Literal["refuse", "drop", "keep"] = Field(
        "drop", description="traces whose samples are all zero, or all the same"
    )
    not_finite: Literal["refuse", "drop"] = Field("drop", description="traces with samples that are NaN or infinite")
    duplicated: Literal["refuse", "drop", "keep"] = Field(
        "drop", description="traces of a shot with the samples and the receiver position of an earlier one"
    )
    spikes: Annotated[float, Field(ge=5, le=1e6)] | None = Field(
        None,
        description="drop traces with a sample so many times as large as all that are 2 to 8 samples away; default: keep them",
    )
    kill: tuple[str, ...] = Field(
        (),
        description="traces to leave out, by expressions of header fields, such as "
        '"FieldRecord == 3 and TraceNumber <= 4"; for SEG-Y and Seismic Unix',
    )
    weights: FilePath | None = Field(
        None,
        description="weights of squared residuals: CSV with the columns shot, trace (its number in the shot, from 1) and "
        "weight; without the last column, or with 0, the traces are left out",
    )
    minimum: float = Field(
        0.5,
        gt=0,
        le=1,
        description="share of a shot's traces, inside the model and not killed, that must be usable; with fewer, the shot is "
        "broken",
    )


class DataSection(Section):
    """Recording and observed data; without a file, the data are modelled from the true model."""

    recording_time: Milliseconds | None = Field(
        None,
        description="ms; length of the records; longer gathers in the file are cut; default: that of the records in SEG-Y; "
        "needed otherwise",
    )
    sample_interval: Milliseconds | None = Field(
        None, description="ms; sample interval of the observed data; default: that of SEG-Y, else 4"
    )
    file: FilePath | FilePaths | None = Field(
        None,
        description="observed data: SEG-Y (.sgy, .segy) or Seismic Unix (.su), a file, a list of files, or a pattern such as "
        '"line*.sgy"; or a gather (samples, receivers) for each shot: a folder with <shot>.npy, or an HDF5 file with a dataset '
        "for each shot. A slash in a shot name is %2F in a file name, and leads through groups in HDF5",
    )
    tail: Literal["cut", "extrapolate"] = Field(
        "cut",
        description='"cut": predicted records are compared with the observed ones at the samples of the latter; "extrapolate": '
        "at those of the solver, where a spline gives the observed records, also past their end, as in Devito's tutorials",
    )
    geometry: FilePath | None = Field(
        None,
        description="CSV with a row for each trace, in the gathers' order: shot, source_x, source_z, receiver_x, receiver_z "
        "(and source_y, receiver_y), m",
    )
    exclude: tuple[str, ...] = Field((), description="names of shots to leave out; the results list them")
    quorum: float = Field(
        1.0,
        gt=0,
        le=1,
        description="fraction of these shots that must be usable; while it is, a shot whose attempts all "
        "fail, or whose data are broken, is excluded and the inversion starts again without it; 1: such a shot stops the run",
    )
    mismatch: Literal["refuse", "warn"] = Field(
        "refuse",
        description="what happens if observed data are more than 10 times as large or small as predicted ones in the initial "
        "model, or have the other polarity",
    )
    staging: Literal["copy", "in place"] = Field(
        "copy",
        description='"copy": observed data are copied into the run folder; "in place": they are read from data.file each time',
    )
    headers: HeadersSection = HeadersSection()
    transform: TransformSection | None = Field(
        None, description="from coordinates in headers to those of the model; default: x and y stay as they are"
    )
    traces: TracesSection = TracesSection()

    @property
    def files(self) -> tuple[Path, ...]:
        """The files, folders or patterns of ``file``."""
        return () if self.file is None else self.file if isinstance(self.file, tuple) else (self.file,)

    @property
    def is_seismic(self) -> bool:
        """Whether the data are in SEG-Y or Seismic Unix files, as their suffixes say."""
        return any(path.suffix.lower() in SEISMIC_SUFFIXES for path in self.files)

    @property
    def duration(self) -> float:
        """``recording_time``, ms; of SEG-Y it is known once the files have been read."""
        assert self.recording_time is not None
        return self.recording_time

    @property
    def interval(self) -> float:
        """``sample_interval``, ms; of SEG-Y it is known once the files have been read."""
        return DEFAULT_INTERVAL_MS if self.sample_interval is None else self.sample_interval

    @model_validator(mode="after")
    def _consistent(self) -> DataSection:
        if self.sample_interval and self.recording_time and self.sample_interval > self.recording_time:
            raise ValueError(
                f"sample_interval: is {self.sample_interval:g} ms, longer than data.recording_time, which is "
                f"{self.recording_time:g} ms"
            )
        seismic = [path.suffix.lower() in SEISMIC_SUFFIXES for path in self.files]
        if len(seismic) > 1 and not all(seismic):
            raise ValueError(
                f"file: only files of SEG-Y and Seismic Unix can be in a list, not {self.files[seismic.index(False)]}"
            )
        return self
