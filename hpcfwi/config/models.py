"""Velocity models in a run configuration: ``[model]`` and ``[initial]``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from hpcfwi.config.messages import Section
from hpcfwi.config.quantities import Count, Counts, FilePath, GridShape, Metres, Vector, Velocity, VelocityRange


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


class FileModel(Section):
    """Velocities from a file: .npy, or raw binary in C order, in which the last axis (depth) runs fastest."""

    kind: Literal["file"]
    file: FilePath = Field(description="path, relative to this file; a suffix other than .npy means raw binary")
    shape: GridShape | None = Field(None, description="samples along each axis in the file; needed for raw binary")
    dtype: Literal["float32", "float64", "<f4", ">f4", "<f8", ">f8"] = Field("<f4", description="format of raw binary")
    unit: Literal["km/s", "m/s"] = Field("km/s", description="unit of the velocities in the file")
    decimate: Count | Counts = Field(1, description="keep every n-th sample: one n for all axes, or one for each")
    clip: VelocityRange | None = Field(None, description="km/s; [lowest, highest] velocity; others are set to these")


class SmoothModel(Section):
    """The true model, smoothed by a Gaussian."""

    kind: Literal["smooth"]
    sigma: float = Field(8.0, ge=0.01, le=1000, description="cells; standard deviation of the Gaussian")
    keep_frozen: bool = Field(True, description="whether frozen cells (inversion.frozen) keep the true velocity")


Model = CircleModel | LayersModel | DomeModel | ConstantModel | FileModel
TrueModel = Annotated[Model, Field(discriminator="kind")]
InitialModel = Annotated[Model | SmoothModel, Field(discriminator="kind")]
