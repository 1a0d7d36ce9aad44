"""The sections ``[inversion]`` and ``[inversion.frozen]``: unknowns, misfit, optimiser and stopping criteria."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from hpcfwi.config.conditioning import ConditioningSection, PolygonSection, RegularisationSection
from hpcfwi.config.messages import Section
from hpcfwi.config.misfits import LeastSquaresSection, MisfitSection
from hpcfwi.config.quantities import MAX_POSITIONS, FilePath, Metres, Velocity, VelocityRange

OptimizerName = Literal["lbfgs", "adam", "lbfgs-batch"]
# Optimisers that evaluate a part of the shots at a time, and the share of the survey that a batch has by default.
DEFAULT_BATCH_SHARE = {"adam": 0.25, "lbfgs-batch": 0.5}
# Keys that not every optimiser has, and the optimisers that have them.
KEYS_OF: dict[str, tuple[str, ...]] = {
    "first_step": ("lbfgs", "lbfgs-batch"),
    "corrections": ("lbfgs", "lbfgs-batch"),
    "line_search_steps": ("lbfgs", "lbfgs-batch"),
    "ftol": ("lbfgs",),
    "gtol": ("lbfgs",),
    "batch": ("adam", "lbfgs-batch"),
    "seed": ("adam", "lbfgs-batch"),
    "full_misfit_every": ("adam", "lbfgs-batch"),
    "overlap": ("lbfgs-batch",),
    "step": ("adam",),
    "schedule": ("adam",),
    "warmup": ("adam",),
    "epsilon": ("adam",),
}
# Keys that only decide when the inversion ends: a finished run may be continued with other values.
LIMITS = (
    "iterations",
    "evaluations",
    "ftol",
    "gtol",
    "misfit_share",
    "misfit_change",
    "change_iterations",
    "noise_level",
    "model_change",
    "budget_hours",
    "budget_core_hours",
)
# Criteria that compare misfits of all shots.
MISFIT_CRITERIA = ("misfit_share", "misfit_change", "noise_level")

Share = Annotated[float, Field(gt=0, lt=1)]
Hours = Annotated[float, Field(gt=0, le=1e6)]


class FrozenSection(Section):
    """Cells that keep their initial velocity; a cell is frozen if any of these keys selects it."""

    velocity_below: Velocity | None = Field(
        None, description="km/s; freezes cells, such as water, where the true (else the initial) model is not faster"
    )
    depth_above: Metres | None = Field(None, description="m; freezes everything down to this depth")
    bathymetry: Metres | FilePath | None = Field(
        None,
        description="freezes the water above the sea floor: its z, m, or a CSV with a header and the columns x, depth (and y), "
        "between whose rows it is interpolated",
    )
    polygons: tuple[PolygonSection, ...] = Field((), max_length=1000, description="freezes the cells in a polygon")
    mask_file: FilePath | None = Field(None, description=".npy with the shape of the grid, nonzero where frozen")


class OptimisationSection(Section):
    """The keys of ``[inversion]`` that a stage may change."""

    misfit: MisfitSection = Field(
        LeastSquaresSection(kind="l2"),
        description='what compares predicted and observed gathers: "l2", half the sum of squared differences, or another kind; '
        'misfit = "huber" is short for a section with this kind',
    )
    optimizer: OptimizerName = Field(
        "lbfgs",
        description='"lbfgs": L-BFGS-B on all shots; "adam": Adam on batches of shots; "lbfgs-batch": L-BFGS on batches of '
        "shots that have a part in common",
    )
    parameter: Literal["squared_slowness", "velocity", "log_velocity"] = Field(
        default_factory=lambda keys: "velocity" if keys.get("optimizer") == "adam" else "squared_slowness",
        description='what the optimiser updates in each cell; default: "velocity" for "adam", else "squared_slowness"',
    )
    iterations: int = Field(20, ge=0, le=1_000_000, description="maximum number of iterations")
    evaluations: int = Field(
        15000, ge=1, le=1_000_000, description="maximum number of evaluations; a line search in progress is completed"
    )
    first_step: Annotated[float, Field(ge=1e-6, le=10)] | Literal["unscaled"] = Field(
        0.05,
        description="km/s; approximate largest velocity change of the first trial step, which scales the variables; "
        '"unscaled": no scaling, so that the first trial may go from bound to bound',
    )
    corrections: int = Field(10, ge=1, le=1000, description="pairs of vectors that L-BFGS remembers")
    line_search_steps: int = Field(20, ge=1, le=1000, description="maximum number of evaluations in a line search")
    batch: Annotated[int, Field(ge=1, le=MAX_POSITIONS)] | None = Field(
        None, description='shots of a batch; default: a quarter of the survey for "adam", half of it for "lbfgs-batch"'
    )
    overlap: Annotated[int, Field(ge=1, le=MAX_POSITIONS)] | None = Field(
        None,
        description="shots that two consecutive batches have in common, at most half a batch; default: half a batch",
    )
    step: float = Field(
        0.05, ge=1e-6, le=10, description="km/s; approximate largest velocity change of an iteration of Adam, at first"
    )
    schedule: Literal["cosine", "constant"] = Field(
        "cosine",
        description='"cosine": the step decays to zero as half a period of a cosine over inversion.iterations, which then '
        'cannot be changed when a run is continued; "constant": it does not',
    )
    warmup: int = Field(
        0,
        ge=0,
        le=1_000_000,
        description="iterations over which the step grows to its full length, so that the first batches alone do not decide",
    )
    epsilon: float = Field(
        1e-8,
        ge=1e-16,
        le=1,
        description="Adam divides the mean gradient of a cell by the root of its mean square, plus this share of the largest "
        "root; larger values slow down cells with small gradients, which are far from the shots",
    )
    seed: int = Field(0, ge=0, le=2**63 - 1, description="of the random order of shots in batches")
    full_misfit_every: int = Field(
        0,
        ge=0,
        le=1_000_000,
        description="iterations; the initial model, every so many iterations and the last one use all shots instead of a "
        "batch; 0: none does",
    )
    ftol: float = Field(
        2.220446049250313e-09,
        ge=0,
        description="stop when an iteration lowers the misfit by less than this share of it, or of about the first one if that "
        'is larger; with first_step = "unscaled", of 1 if that is larger',
    )
    gtol: float = Field(
        1e-5,
        ge=0,
        description="stop when the largest entry of the projected gradient is below this share of the first gradient's; with "
        'first_step = "unscaled", below this number',
    )
    misfit_share: Share | None = Field(
        None, description="stop when the misfit of all shots is at most this share of the first one; default: do not"
    )
    misfit_change: Share | None = Field(
        None,
        description="stop when the misfit of all shots has fallen by less than this share of it over change_iterations; "
        "default: do not",
    )
    change_iterations: int = Field(
        5, ge=1, le=1_000_000, description="iterations over which misfit_change compares misfits"
    )
    noise_level: Share | None = Field(
        None,
        description="stop when the residuals of all shots have at most this share of the energy (sum of squares) of the "
        'observed data, both after the processing; needs misfit = "l2"; default: do not',
    )
    model_change: Share | None = Field(
        None,
        description="stop when an iteration changes the velocities, as a norm, by less than this share of them; default: do "
        "not",
    )
    budget_hours: Hours | None = Field(
        None, description="hours; stop after the iteration that exceeds this wall time of all iterations; default: none"
    )
    budget_core_hours: Hours | None = Field(
        None,
        description="core-hours; stop after the iteration at whose end the workers of all starts have taken more; default: "
        "none",
    )
    conditioning: ConditioningSection = Field(ConditioningSection(), description="changes of the optimiser's variables")
    regularisation: RegularisationSection = Field(
        RegularisationSection(), description="penalties that are added to the misfit"
    )


class InversionSection(OptimisationSection):
    """The optimisation: unknowns and their bounds, misfit, optimiser, and when to stop."""

    bounds: VelocityRange = Field(description="km/s; [lowest, highest] velocity allowed")
    frozen: FrozenSection = Field(FrozenSection(), description="cells that keep their initial velocity")

    @model_validator(mode="after")
    def _keys_fit_the_optimizer(self) -> InversionSection:
        for key, names in KEYS_OF.items():
            if key in self.model_fields_set and self.optimizer not in names:
                owners = " or ".join(f'"{name}"' for name in names)
                raise ValueError(
                    f'{key}: is a key of optimizer = {owners}, but it is "{self.optimizer}"; take {key} out'
                )
        if self.optimizer == "adam" and self.parameter != "velocity":
            raise ValueError(
                f'parameter: is "{self.parameter}", but optimizer = "adam" makes steps in km/s; take parameter out'
            )
        if self.optimizer == "lbfgs-batch" and self.first_step == "unscaled":
            raise ValueError('first_step: is "unscaled", but optimizer = "lbfgs-batch" needs a number, km/s')
        if self.overlap is not None and self.batch is not None and 2 * self.overlap > self.batch:
            raise ValueError(f"overlap: is {self.overlap}; it should be at most half of batch, which is {self.batch}")
        if self.optimizer == "lbfgs-batch" and self.batch == 1:
            raise ValueError('batch: is 1; it should be at least 2 for optimizer = "lbfgs-batch"')
        for key in MISFIT_CRITERIA:
            if getattr(self, key) is not None and self.in_batches and not self.full_misfit_every:
                raise ValueError(
                    f"{key}: needs full_misfit_every, because misfits of different batches cannot be compared"
                )
        if self.noise_level is not None and self.misfit.kind != "l2":
            raise ValueError(f'noise_level: needs misfit = "l2", which is an energy, but it is "{self.misfit.kind}"')
        return self

    @model_serializer(mode="wrap")
    def _without_keys_of_other_optimizers(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = serialize(self)
        return {key: value for key, value in content.items() if self.optimizer in KEYS_OF.get(key, (self.optimizer,))}

    @property
    def in_batches(self) -> bool:
        """Whether the optimiser evaluates a batch of shots at a time."""
        return self.optimizer in DEFAULT_BATCH_SHARE

    def batch_size(self, shots: int) -> int:
        """Shots of a batch of a survey; shots that failed may have left fewer than ``batch``."""
        if not self.in_batches:
            return shots
        least = 2 if self.optimizer == "lbfgs-batch" else 1
        return min(shots, self.batch or max(least, round(DEFAULT_BATCH_SHARE[self.optimizer] * shots)))

    def overlap_size(self, shots: int) -> int:
        """Shots that two consecutive batches of a survey have in common; 0 if the optimiser has no such batches."""
        if self.optimizer != "lbfgs-batch":
            return 0
        half = self.batch_size(shots) // 2
        return min(half, self.overlap or half)

    def shots_at_a_time(self, shots: int) -> int:
        """Shots of a survey that are in one sum, at most, unless all are evaluated."""
        batch, overlap = self.batch_size(shots), self.overlap_size(shots)
        return max(overlap, batch - 2 * overlap)

    @property
    def limits(self) -> dict[str, Any]:
        """The keys that only decide when the inversion ends; a cosine's length decides about every step."""
        fixed = {"iterations"} if self.optimizer == "adam" and self.schedule == "cosine" else set()
        return self.model_dump(include={*LIMITS} - fixed)
