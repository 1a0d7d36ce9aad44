"""Velocity models in a run configuration: ``[model]`` and ``[initial]``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from hpcfwi.config.messages import Section
from hpcfwi.config.quantities import (
    MAX_VELOCITY_KM_S,
    Count,
    Counts,
    FilePath,
    GridShape,
    Metres,
    Spacing,
    Vector,
    Velocity,
    VelocityRange,
)


class CircleModel(Section):
    """A circle (2-D) or a ball (3-D) in a constant background."""

    kind: Literal["circle"]
    background: Velocity = Field(2.5, description="km/s; velocity around the circle")
    inside: Velocity = Field(3.0, description="km/s; velocity inside the circle")
    radius: float | None = Field(None, gt=0, le=1e8, description="m; radius of the circle; default: 15 grid cells")
    center: Vector | None = Field(None, description="m; centre of the circle; default: the middle of the grid")


class _Layers(Section):
    velocities: tuple[Velocity, ...] = Field(min_length=1, description="km/s; velocity of each layer, from the top")
    interfaces: tuple[Metres, ...] = Field(description="m; depth of the top of every layer but the first")

    @model_validator(mode="after")
    def _interfaces_fit(self) -> _Layers:
        needed = len(self.velocities) - 1
        if len(self.interfaces) != needed:
            raise ValueError(f"{len(self.velocities)} velocities need {needed} interfaces, not {len(self.interfaces)}")
        if list(self.interfaces) != sorted(self.interfaces):
            raise ValueError("interfaces must be in order of increasing depth")
        return self


class LayersModel(_Layers):
    """Horizontal layers."""

    kind: Literal["layers"]


class WaterSection(Section):
    """Water above the sea floor."""

    bathymetry: Metres | FilePath = Field(
        description="z of the sea floor, m: a number, or a CSV with a header and the columns x, depth (and y), between whose "
        "rows it is interpolated"
    )
    velocity: Velocity = Field(1.5, description="km/s; velocity of the water")


class GradientModel(Section):
    """Velocity that increases linearly with depth, below water or from the top of the grid."""

    kind: Literal["gradient"]
    velocity: Velocity = Field(description="km/s; velocity at the depth `top`")
    top: Metres | None = Field(
        None, description="m; z of this velocity; default: the sea floor, else the top of the grid"
    )
    gradient: Annotated[float, Field(ge=-1e3, le=1e3)] | None = Field(
        None, description="1/s; increase of the velocity with depth, km/s for each km; or give a second velocity"
    )
    bottom_velocity: Velocity | None = Field(
        None, description="km/s; velocity at the depth `bottom`, in place of gradient"
    )
    bottom: Metres | None = Field(None, description="m; z of this velocity, beyond which it goes on to change")
    highest: Velocity = Field(MAX_VELOCITY_KM_S, description="km/s; the velocity grows no further than this")
    water: WaterSection | None = Field(None, description="fills cells above the sea floor with water")

    @model_validator(mode="after")
    def _one_gradient(self) -> GradientModel:
        second = self.bottom_velocity is not None, self.bottom is not None
        if second[0] != second[1] or (self.gradient is None) != all(second):
            raise ValueError("needs either gradient, or bottom_velocity and bottom")
        return self


class InitialGradientModel(GradientModel):
    """A gradient whose frozen cells, such as water, are those of the true model if there is one."""

    keep_frozen: bool = Field(True, description="whether frozen cells (inversion.frozen) keep the true velocity")


class DomeModel(_Layers):
    """Layers that a dome lifts and a fault cuts."""

    kind: Literal["dome"]
    height: Metres = Field(0.0, description="m; by how much the dome lifts the layers at its centre; negative: a basin")
    radius: float = Field(
        500.0, gt=0, le=1e8, description="m; distance from the centre at which it lifts a quarter of that"
    )
    center: tuple[Metres, ...] | None = Field(
        None,
        min_length=1,
        max_length=2,
        description="m; x (and y) of the dome's centre; default: the middle of the grid",
    )
    fault: Metres | None = Field(None, description="m; x of the fault at the top of the grid; default: there is none")
    dip: float = Field(60.0, ge=10, le=90, description="degrees; dip of the fault, towards larger x")
    throw: Metres = Field(0.0, description="m; by how much the layers beyond the fault, at larger x, lie deeper")

    @model_validator(mode="after")
    def _fault_and_throw_go_together(self) -> DomeModel:
        if self.throw and self.fault is None:
            raise ValueError(
                f"throw is {self.throw:g} m, but there is no fault; add fault, its x at the top of the grid"
            )
        return self


class ConstantModel(Section):
    """One velocity everywhere."""

    kind: Literal["constant"]
    velocity: Velocity = Field(description="km/s; velocity everywhere")


# Units of a model file, and the quantity that each belongs to. The first unit of a quantity is its default.
UNITS = {
    "km/s": "velocity",
    "m/s": "velocity",
    "s/km": "slowness",
    "s/m": "slowness",
    "s2/km2": "squared slowness",
    "s2/m2": "squared slowness",
}


class FileModel(Section):
    """Velocities from a file: NumPy, SEG-Y, NetCDF or HDF5, RSF, or raw binary in C order; resampled to the grid if need be."""

    kind: Literal["file"]
    file: FilePath = Field(description="path, relative to this file")
    format: Literal["npy", "segy", "netcdf", "rsf", "raw"] | None = Field(
        None,
        description="default: by the suffix: .npy; .segy or .sgy; .nc, .netcdf, .h5 or .hdf5 (netcdf); .rsf; others are raw",
    )
    variable: str | None = Field(
        None, description="name of the array in NetCDF or HDF5, with its groups; default: the only one of 2 or 3 axes"
    )
    axes: Literal["xz", "zx", "xyz", "xzy", "yxz", "yzx", "zxy", "zyx"] | None = Field(
        None,
        description='order of the axes in the file, the fastest last; default: as the file says, else "xz" or "xyz"',
    )
    spacing: Spacing | None = Field(
        None,
        description="m; distance between samples of the file along x, (y,) z; default: as the file says, else as in [grid], "
        "after decimation",
    )
    origin: Vector | None = Field(
        None, description="m; position of the first sample of the file; default: as the file says, else as in [grid]"
    )
    shape: GridShape | None = Field(
        None, description="samples along each axis in the file, the fastest last; needed for raw binary"
    )
    dtype: Literal["float32", "float64", "<f4", ">f4", "<f8", ">f8"] = Field("<f4", description="format of raw binary")
    quantity: Literal["velocity", "slowness", "squared slowness"] | None = Field(
        None, description="what the file holds; default: what has this unit"
    )
    unit: Literal["km/s", "m/s", "s/km", "s/m", "s2/km2", "s2/m2"] | None = Field(
        None,
        description="unit of the values in the file; default: as the file says, else the one with km of the quantity",
    )
    decimate: Count | Counts = Field(
        1, description="keep every n-th sample: one n for all axes, or one for each, x, (y,) z"
    )
    clip: VelocityRange | None = Field(None, description="km/s; [lowest, highest] velocity; others are set to these")
    water: WaterSection | None = Field(None, description="fills cells above the sea floor with water")

    @model_validator(mode="after")
    def _keys_fit(self) -> FileModel:
        sizes = {name: len(value) for name in ("axes", "spacing", "origin", "shape") if (value := getattr(self, name))}
        if len(set(sizes.values())) > 1:
            raise ValueError(f"{' and '.join(sizes)} should all have 2 axes, or all 3, not {[*sizes.values()]}")
        if self.unit and self.quantity and UNITS[self.unit] != self.quantity:
            raise ValueError(f'unit: is "{self.unit}", a unit of {UNITS[self.unit]}; quantity is "{self.quantity}"')
        return self


class SmoothModel(Section):
    """The true model, smoothed by a Gaussian."""

    kind: Literal["smooth"]
    sigma: float = Field(8.0, ge=0.01, le=1000, description="cells; standard deviation of the Gaussian")
    keep_frozen: bool = Field(True, description="whether frozen cells (inversion.frozen) keep the true velocity")


Model = CircleModel | LayersModel | GradientModel | DomeModel | ConstantModel | FileModel
TrueModel = Annotated[Model, Field(discriminator="kind")]
InitialModel = Annotated[
    CircleModel | LayersModel | InitialGradientModel | DomeModel | ConstantModel | FileModel | SmoothModel,
    Field(discriminator="kind"),
]
