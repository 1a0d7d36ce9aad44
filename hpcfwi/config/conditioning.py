"""What keeps models plausible, in a run configuration: polygons of frozen cells, smoothing, soft bounds, regularisation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from hpcfwi.config.messages import Section
from hpcfwi.config.quantities import Metres

Length = Annotated[float, Field(ge=0, le=1e6)]
Share = Annotated[float, Field(ge=0, le=1e6)]
Corner = Annotated[tuple[Metres, ...], Field(min_length=2, max_length=2)]


class PolygonSection(Section):
    """A polygon in the plane of x and z; in 3-D a prism, with a polygon in the plane of x and y."""

    vertices: tuple[Corner, ...] = Field(
        min_length=3, max_length=10_000, description="m; corners [x, z], in 3-D [x, y], in order around the polygon"
    )
    top: Metres | None = Field(None, description="m; z of the prism's top; default: that of the grid")
    bottom: Metres | None = Field(None, description="m; z of the prism's bottom; default: that of the grid")


class SmoothingSection(Section):
    """Smoothing of updates, as a change of variables."""

    length: Length | Annotated[tuple[Length, ...], Field(min_length=2, max_length=3)] = Field(
        description="standard deviation of the Gaussian that smooths the first update: one for all axes, or one for each, "
        "x, (y,) z"
    )
    unit: Literal["m", "wavelengths"] = Field(
        "m",
        description='unit of the length; "wavelengths" are those of the initial model at the frequency where the wavelet has '
        "its largest amplitude",
    )


class ConditioningSection(Section):
    """Changes of the optimiser's variables. With any of them, bounds are soft."""

    smoothing: SmoothingSection | None = Field(None, description="smooths updates")
    taper: Length | None = Field(
        None, description="m; distance from frozen cells within which updates are scaled down, to zero next to them"
    )
    max_change: Annotated[float, Field(ge=1e-3, le=20)] | None = Field(
        None,
        description="km/s; largest change of a cell's velocity from the initial model; default: any within the bounds",
    )
    soft_bounds: Annotated[float, Field(ge=1e-3, le=1)] | None = Field(
        None,
        description="km/s; distance from a bound at which a change of the variable changes the velocity half as much; default: "
        "hard bounds, but 0.02 with any of the keys above",
    )


class _PenaltySection(Section):
    weight: Share = Field(
        description="share of the first misfit that a slope of 1 km/s per km costs, in the mean over the model"
    )
    axes: Annotated[tuple[Share, ...], Field(min_length=2, max_length=3)] | None = Field(
        None, description="factors of the slopes along x, (y,) z; default: ones"
    )


class TikhonovSection(_PenaltySection):
    """The mean square of the velocity's slope."""

    of: Literal["change", "model"] = Field(
        "change", description='"change": of the change from the initial model; "model": of the model itself'
    )


class TotalVariationSection(_PenaltySection):
    """The mean size of the velocity's slope, which allows for jumps."""

    of: Literal["change", "model"] = Field(
        "model", description='"model": of the model itself; "change": of the change from the initial one'
    )
    corner: Annotated[float, Field(ge=1e-3, le=1e4)] = Field(
        1.0, description="1/s (km/s per km); smaller slopes are penalised quadratically, larger ones linearly"
    )


class RegularisationSection(Section):
    """Penalties that are added to the misfit."""

    tikhonov: TikhonovSection | None = Field(None, description="penalises slopes, and rounds off jumps")
    total_variation: TotalVariationSection | None = Field(None, description="penalises slopes, and keeps jumps")


def check_axes(ndim: int, conditioning: ConditioningSection, regularisation: RegularisationSection) -> None:
    """Raise ValueError if a list with a number for each axis does not fit a grid of ``ndim`` axes."""
    smoothing, tikhonov, variation = conditioning.smoothing, regularisation.tikhonov, regularisation.total_variation
    for key, values in (
        ("conditioning.smoothing.length", smoothing and smoothing.length),
        ("regularisation.tikhonov.axes", tikhonov and tikhonov.axes),
        ("regularisation.total_variation.axes", variation and variation.axes),
    ):
        if isinstance(values, tuple) and len(values) != ndim:
            raise ValueError(f"inversion.{key}: has {len(values)} values, but the grid has {ndim} axes")
