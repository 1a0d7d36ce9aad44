"""The objective of a survey for a user's own optimiser: misfit and gradient, gathers, and products with their derivative."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hpcfwi.errors import InputError
from hpcfwi.inversion.forward_map import ForwardMap, Model
from hpcfwi.inversion.objective import Objective
from hpcfwi.model.grid import Domain
from hpcfwi.model.problem import Problem
from hpcfwi.model.stages import Stage
from hpcfwi.model.velocity import squared_slowness, velocity_from
from hpcfwi.reporting.formatting import counted

if TYPE_CHECKING:
    from hpcfwi.run.linear_operator import BornOperator

# Values beyond the bounds by this share of them are moved onto them: they are rounding, perhaps of single precision.
ROUNDING = 1e-6


class SurveyObjective:
    """The misfit of a survey as a function of the model, open while its workers run; see :func:`open_objective`.

    ``f, g = objective(m)`` is the sum over all shots, ``objective(m, shots)`` the plain sum over some. Models m are the squared
    slowness, (s/km)^2, float64, shape :attr:`shape`, or flat in C order. What has the size of a model is kept in the journal:
    misfit and gradient, and what :meth:`born_adjoint` and :meth:`gauss_newton` return. If it is asked for again, in any order,
    after any number of starts, the answer is the same bytes, and no shot is computed.

    ``shots`` are indices in survey order (:attr:`shot_names`), each one once; None stands for all. Where a model is left out,
    it is that of the last ``objective(m)`` or ``record(m)``, at first the initial model.
    """

    units = "(s/km)^2"

    def __init__(self, stage: Stage, problem: Problem, objective: Objective, forward: ForwardMap) -> None:
        self._stage, self._problem = stage, problem
        self._answers: tuple[Objective, ForwardMap] | None = objective, forward
        self._initial = squared_slowness(problem.initial_velocity)
        low, high = (bound.reshape(self.shape) for bound in objective.parametrisation.bounds)
        self._bounds = low, high
        self._last = self._initial

    @property
    def _objective(self) -> Objective:
        return self._open()[0]

    @property
    def _forward(self) -> ForwardMap:
        return self._open()[1]

    def _open(self) -> tuple[Objective, ForwardMap]:
        if self._answers is None:
            raise InputError("the objective is closed: its workers have ended with the `with` block; ask for it inside")
        return self._answers

    def close(self) -> None:
        """Refuse all further questions; the end of the ``with`` block calls it."""
        self._answers = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Grid points along each axis: (x, z) or (x, y, z)."""
        return self._problem.domain.shape

    @property
    def domain(self) -> Domain:
        """The grid: ``shape``, ``spacing`` and ``origin``, m."""
        return self._problem.domain

    @property
    def initial(self) -> Model:
        """The initial model, (s/km)^2, a copy; shape ``shape``."""
        return self._initial.copy()

    @property
    def bounds(self) -> tuple[Model, Model]:
        """Lowest and highest m, (s/km)^2, copies; both are the initial model where a cell is frozen; shape ``shape``."""
        low, high = self._bounds
        return low.copy(), high.copy()

    @property
    def shot_names(self) -> tuple[str, ...]:
        """Names of the shots, in survey order."""
        return tuple(self._problem.survey.names)

    @property
    def dtype(self) -> np.dtype:
        """Precision of the wavefields and gathers."""
        return np.dtype(self._problem.config.solver.dtype)

    @property
    def evaluations(self) -> int:
        """Evaluations of misfit and gradient since the objective was opened, those from the journal included."""
        return len(self._objective.evaluations)

    def __call__(self, m: ArrayLike, shots: Sequence[int] | None = None) -> tuple[float, Model]:
        """Misfit and gradient, from the journal, or computed and written there first.

        Parameters
        ----------
        m
            The model.
        shots
            The shots whose misfits are added; the sum is not scaled by their number.

        Returns
        -------
        f
            The misfit.
        g
            Its gradient with respect to m, zero in frozen cells; shape of ``m``.

        Raises
        ------
        InputError
            If m has another shape, or values out of bounds.
        """
        model = self._last = self._checked(m)
        f, g = self._objective(model.ravel(), self._sorted(shots))
        return f, g.reshape(np.shape(m))

    def record(self, m: ArrayLike | None = None, shots: Sequence[int] | None = None) -> list[NDArray]:
        """Predicted gathers, processed as the misfit compares them, without the traces that it leaves out.

        They come to this process and are not kept in the journal.

        Returns
        -------
        list of arrays
            A gather for each shot, in the order of ``shots``; shape (samples, traces).
        """
        self._last = self._model(m)
        return self._forward.record(self._last, self._chosen(shots))

    def observed(self, shots: Sequence[int] | None = None) -> list[NDArray]:
        """Observed gathers that :meth:`record` is compared with, in the same form."""
        return self._forward.observed(self._last, self._chosen(shots))

    def born(self, dm: ArrayLike, m: ArrayLike | None = None, shots: Sequence[int] | None = None) -> list[NDArray]:
        """The derivative J of :meth:`record` at m, in the direction dm: ``J dm``.

        Parameters
        ----------
        dm
            A change of the model, (s/km)^2, shape of a model; frozen cells do not count.
        m, shots
            As of :meth:`record`.

        Returns
        -------
        list of arrays
            In the form of :meth:`record`.
        """
        return self._forward.born(self._model(m), self._direction(dm), self._chosen(shots))

    def born_adjoint(
        self, d: Sequence[ArrayLike], m: ArrayLike | None = None, shots: Sequence[int] | None = None
    ) -> Model:
        """The transpose of :meth:`born`: ``J^T d``, summed over the shots.

        Parameters
        ----------
        d
            A gather for each shot, in the form and order of :meth:`record`.
        m, shots
            As of :meth:`record`.

        Returns
        -------
        array
            Zero in frozen cells; shape ``shape``.
        """
        model, chosen = self._model(m), self._chosen(shots)
        order = np.argsort(range(len(self.shot_names)) if chosen is None else chosen)
        gathers = self._gathers(d, self._forward.shapes(model, chosen))
        return self._forward.born_adjoint(model, [gathers[i] for i in order], self._sorted(shots))

    def gauss_newton(self, dm: ArrayLike, m: ArrayLike | None = None, shots: Sequence[int] | None = None) -> Model:
        """The product ``J^T J dm``, summed over the shots: ``born_adjoint(born(dm))``, but the gathers stay on the workers.

        ``J^T J`` is the Gauss-Newton Hessian of the misfit ``l2``.

        Parameters
        ----------
        dm
            A change of the model, (s/km)^2; frozen cells do not count.
        m, shots
            As of :meth:`record`.

        Returns
        -------
        array
            Zero in frozen cells; shape of ``dm``.
        """
        product = self._forward.gauss_newton(self._model(m), self._direction(dm), self._sorted(shots))
        return product.reshape(np.shape(dm))

    def linear_operator(self, m: ArrayLike | None = None, shots: Sequence[int] | None = None) -> BornOperator:
        """:meth:`born` and :meth:`born_adjoint` at m as a PyLops ``LinearOperator``, which needs the extra ``pylops``.

        Parameters
        ----------
        m, shots
            As of :meth:`record`; later calls of the objective do not change them.

        Returns
        -------
        BornOperator
            From flat models to the samples of all gathers, one after the other.
        """
        from hpcfwi.run.linear_operator import BornOperator

        model, chosen = self._model(m), self._chosen(shots)
        return BornOperator(self, model, chosen, self._forward.shapes(model, chosen))

    def to_velocity(self, m: ArrayLike) -> Model:
        """A model as velocity, km/s, on the grid of the run: that of a stage is interpolated.

        Frozen cells keep their velocity, and the others stay within the bounds.
        """
        base, model = self._stage.base, self._checked(m)
        initial = self._problem.initial_velocity
        return self._stage.result(base.initial_velocity, initial, velocity_from(model), self.domain)

    def from_velocity(self, velocity: ArrayLike) -> Model:
        """A velocity, km/s, on the grid of the run as a model: a stage averages the squared slowness.

        Frozen cells keep their velocity. Raises InputError if the others are out of bounds by more than rounding.
        """
        base, values = self._stage.base, _array(velocity, "velocity")
        if values.shape != base.domain.shape:
            raise InputError(f"velocity: has the shape {values.shape}; the grid of the run has {base.domain.shape}")
        low, high = base.config.inversion.bounds
        outside = ~_within(values, low, high) & ~base.frozen
        if outside.any():
            cell = _first(outside)
            raise InputError(
                f"velocity: is {values[cell]:.6g} km/s in cell {cell}, but {low:g} to {high:g} km/s are allowed "
                f"(inversion.bounds); {outside.sum()} of {values.size} cells are out of bounds"
            )
        values = np.where(base.frozen, base.initial_velocity, values)
        return np.clip(squared_slowness(self._stage.start(values, self.domain)), *self._bounds)

    def _model(self, m: ArrayLike | None) -> Model:
        """A model that is given, or the last one."""
        return self._last if m is None else self._checked(m)

    def _checked(self, m: ArrayLike) -> Model:
        """A model on the grid, within the bounds; raises InputError if it is beyond them by more than rounding."""
        model = self._shaped(m, "m")
        low, high = self._bounds
        outside = ~_within(model, low, high)
        if outside.any():
            raise InputError(self._out_of_bounds(model, outside))
        return np.clip(model, low, high)

    def _out_of_bounds(self, model: Model, outside: NDArray[np.bool_]) -> str:
        cell = _first(outside)
        value, low, high = (float(values[cell]) for values in (model, *self._bounds))
        slowest, fastest = (float(velocity_from(np.array(bound))) for bound in (high, low))
        velocity = f"{velocity_from(np.array(value)):.6g} km/s" if value > 0 else "no velocity"
        if low == high:
            allowed = f"the cell is frozen and keeps {low:.6g}, {fastest:.6g} km/s"
        else:
            allowed = f"{low:.6g} to {high:.6g}, {slowest:g} to {fastest:g} km/s, are allowed (inversion.bounds)"
        first = f"m: is {value:.6g} {self.units}, {velocity}, in cell {cell}"
        count, total = int(outside.sum()), model.size
        advice = (
            "np.clip(m, *objective.bounds) moves numbers onto the bounds; objective.from_velocity makes km/s a model"
        )
        return f"{first}, but {allowed}; {count} of {total} cells are out of bounds\n  {advice}"

    def _direction(self, dm: ArrayLike) -> Model:
        direction = self._shaped(dm, "dm")
        wrong = ~np.isfinite(self._rounded(direction))
        if wrong.any():
            cell = _first(wrong)
            raise InputError(f"dm: is {direction[cell]:.6g} in cell {cell}; it should be finite in {self.dtype}")
        return direction

    def _rounded(self, values: NDArray[np.float64]) -> NDArray:
        """Values in the precision of the kernels, infinite beyond its range."""
        with np.errstate(over="ignore"):
            return values.astype(self.dtype)

    def _shaped(self, values: ArrayLike, name: str) -> Model:
        """Values as an array of the shape of a model."""
        array = _array(values, name)
        if array.shape not in (self.shape, (self._initial.size,)):
            raise InputError(
                f"{name}: has the shape {array.shape}; it should be {self.shape}, or flat: ({self._initial.size},)"
            )
        return array.reshape(self.shape)

    def _gathers(self, d: Sequence[ArrayLike], shapes: list[tuple[int, ...]]) -> list[NDArray]:
        """One gather for each shot, in the precision of the kernels."""
        wanted = f"it should be a list with a gather for each of {counted(len(shapes), 'shot')}"
        try:
            count = len(d)
        except TypeError:
            raise InputError(f"d: is of the type {type(d).__name__}; {wanted}") from None
        if count != len(shapes):
            raise InputError(f"d: has the length {count}; {wanted}")
        found = []
        for i, (values, shape) in enumerate(zip(d, shapes, strict=True)):
            gather = _array(values, f"d[{i}]")
            if gather.shape != shape:
                raise InputError(f"d[{i}]: has the shape {gather.shape}; it should be {shape}: samples and traces")
            found.append(self._rounded(gather))
            if not np.isfinite(found[-1]).all():
                raise InputError(f"d[{i}]: has values that are NaN or infinite in {self.dtype}")
        return found

    def _chosen(self, shots: Sequence[int] | None) -> tuple[int, ...] | None:
        """Indices of shots in their order; None for all."""
        if shots is None:
            return None
        array, count = np.asarray(shots), len(self.shot_names)
        if array.ndim != 1 or not array.size or not np.issubdtype(array.dtype, np.integer):
            raise InputError(f"shots: is {shots!r}; it should be a list of indices from 0 to {count - 1}")
        outside = array[(array < 0) | (array >= count)]
        if outside.size:
            raise InputError(f"shots: has the index {outside[0]}; the shots are 0 to {count - 1}")
        if len(np.unique(array)) != array.size:
            raise InputError("shots: has an index more than once")
        return tuple(array.tolist())

    def _sorted(self, shots: Sequence[int] | None) -> tuple[int, ...] | None:
        """Indices of shots in survey order; None for all: the sum does not depend on the order that is given."""
        chosen = self._chosen(shots)
        return None if chosen is None or len(chosen) == len(self.shot_names) else tuple(sorted(chosen))


def _within(values: NDArray[np.float64], low: ArrayLike, high: ArrayLike) -> NDArray[np.bool_]:
    """Whether values are within bounds, but for rounding; false of NaN."""
    return np.asarray((values >= np.multiply(low, 1 - ROUNDING)) & (values <= np.multiply(high, 1 + ROUNDING)))


def _first(cells: NDArray[np.bool_]) -> tuple[int, ...]:
    """The first cell that is true."""
    return tuple(int(i) for i in np.argwhere(cells)[0])


def _array(values: Any, name: str) -> NDArray[np.float64]:
    """Numbers as a float64 array."""
    try:
        array = np.asarray(values)
        if np.iscomplexobj(array):
            raise ValueError("it has complex numbers")
        return np.asarray(array, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name}: is not an array of real numbers ({error})") from None
