"""Stages of an inversion in a run configuration: ``[[stage]]``, one section for each, in their order."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from hpcfwi.config.inversion import KEYS_OF, InversionSection, OptimisationSection
from hpcfwi.config.messages import validate
from hpcfwi.config.processing import Frequency, ProcessingSteps
from hpcfwi.config.quantities import Count, Spacing

MAX_STAGES = 50


class StageSection(OptimisationSection):
    """A stage of the inversion, which starts from the model of the stage before it.

    Besides these keys, it has those of ``[inversion]``, except for ``bounds`` and ``frozen``; where it leaves one out,
    ``[inversion]`` holds.
    """

    name: Annotated[str, Field(min_length=1, max_length=40, pattern=r"^[^\x00-\x1f\x7f]+$")] | None = Field(
        None, description='for the log and the figures; default: its band, or "stage" and its number'
    )
    low: Frequency | None = Field(None, description="Hz; lower corner of the band; default: low frequencies pass")
    high: Frequency | None = Field(None, description="Hz; upper corner of the band; default: high frequencies pass")
    order: int = Field(8, ge=2, le=16, multiple_of=2, description="order of the filter at each corner")
    phase: Literal["zero", "causal"] = Field(
        "zero",
        description='"zero": arrivals stay where they are, and the end of each gather is tapered; "causal": minimum phase, '
        "arrivals come later, and nothing is tapered",
    )
    spacing: Spacing | None = Field(
        None, description="m; distance between the grid points of this stage along each axis; default: that of [grid]"
    )
    points_per_wavelength: Annotated[float, Field(ge=2.5, le=100)] | None = Field(
        None,
        description="grid points per shortest wavelength, from which the spacing follows; it is never finer than [grid]",
    )
    shots: Count | None = Field(
        None, description="number of shots, evenly spaced over the survey; default: all of them"
    )
    processing: ProcessingSteps = Field(
        (), max_length=50, description="steps after those of [[processing]], in the order written"
    )

    @model_validator(mode="after")
    def _keys_fit(self) -> StageSection:
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise ValueError(f"low: is {self.low:g} Hz; it should be below high, which is {self.high:g} Hz")
        if self.spacing is not None and self.points_per_wavelength is not None:
            raise ValueError("spacing: is given, and so is points_per_wavelength; keep one of the two")
        for key in sorted({"order", "phase"} & self.model_fields_set):
            if self.low is None and self.high is None:
                raise ValueError(f"{key}: goes with low, high or both")
        if self.budget_core_hours is not None:
            raise ValueError(
                "budget_core_hours: is that of the whole run, in [inversion]; a stage may have budget_hours"
            )
        return self

    @model_serializer(mode="wrap")
    def _only_what_is_set(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """For the rest ``[inversion]`` holds, not the defaults."""
        content: dict[str, Any] = serialize(self)
        return {key: value for key, value in content.items() if key in self.model_fields_set}

    def merged(self, section: InversionSection, where: str = "stage") -> InversionSection:
        """``[inversion]`` with what the stage changes; keys that its optimiser does not have are left out.

        Raises InputError, with ``where``, if the two do not go together.
        """
        changes = self.model_dump(include=OptimisationSection.model_fields.keys() & self.model_fields_set)
        optimizer = changes.get("optimizer", section.optimizer)
        kept = {
            name: value
            for name, value in section.model_dump(exclude_unset=True).items()
            if optimizer in KEYS_OF.get(name, (optimizer,))
        }
        return validate(InversionSection, kept | changes, where)

    def title(self, number: int) -> str:
        """Its name, or what stands for it; ``number`` counts from 1."""
        if self.name is not None:
            return self.name
        low, high = (None if corner is None else f"{corner:g}" for corner in (self.low, self.high))
        if low and high:
            return f"{low} to {high} Hz"
        return f"up to {high} Hz" if high else f"from {low} Hz" if low else f"stage {number}"
