"""Wave equations, discretised by Devito: their symbols and the operators that step them through time."""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from devito import (
    Constant,
    Eq,
    Function,
    Grid,
    Inc,
    Operator,
    PrecomputedSparseTimeFunction,
    SpaceDimension,
    SubDomain,
    TimeFunction,
)
from numpy.typing import NDArray

from hpcfwi.model.grid import critical_step
from hpcfwi.solver.boundary import AbsorbingLayer
from hpcfwi.solver.devito_internals import operator_name, set_instruction_set
from hpcfwi.solver.spec import SolverSpec
from hpcfwi.solver.storage import WavefieldStorage, where
from hpcfwi.solver.timestep import TIME_STEPS, TimeStep


class WaveEquation(Protocol):
    """A wave equation on a padded grid: its symbols, operators and absorbing layer.

    The operators share the symbols: an engine writes a shot's input into their arrays and reads its output there. The axes of
    all arrays, and of positions, are in the layer's :attr:`~hpcfwi.solver.boundary.AbsorbingLayer.memory_order`.
    """

    boundary: AbsorbingLayer  # it extends model parameters into its cells and folds gradients back
    grid: Grid  # the padded grid
    kept: Grid | SubDomain  # where the gradient is computed, and the forward wavefield kept for it
    gradient_field: Function  # gradient() adds to it, and born() reads the perturbation of the model from it
    source: PrecomputedSparseTimeFunction  # traces, grid points and their weights
    receivers: PrecomputedSparseTimeFunction

    @property
    def nbytes(self) -> int:
        """Bytes that :meth:`allocate` takes."""

    def allocate(self) -> None:
        """Allocate all symbols."""

    def state(self) -> tuple[NDArray, ...]:
        """Arrays that the forward wavefield goes on from, if the next step is step 0 of the operator."""

    @property
    def memory(self) -> tuple[NDArray, ...]:
        """Those of them that the adjoint wavefield uses, too."""

    def carry_over(self, steps: int, adjoint: bool = False, scattered: bool = False) -> None:
        """Move the levels of a wavefield after ``steps`` steps from 0 on, so that the next one is step 0 again.

        With ``adjoint``, after step 0 of the adjoint wavefield, so that the next one is step ``steps - 1``. With ``scattered``,
        move those of the scattered wavefield, too.
        """

    def set_model(self, m: NDArray) -> None:
        """Use the squared slowness ``m``, (s/km)^2, on the padded grid."""

    def fill(self, step: float) -> None:
        """Fill the symbols that depend on neither model nor shot, for a time step, ms."""

    def clear(self, forward: bool = True, adjoint: bool = True) -> None:
        """Set wavefields to zero, as they are before a shot."""

    def stable_step(self, velocity: float) -> float:
        """Longest time step, ms, that is stable up to rounding for the highest ``velocity``, km/s."""

    def forward(self, storage: WavefieldStorage) -> Operator:
        """Operator that models a record and keeps the wavefield in ``storage``."""

    def gradient(self, storage: WavefieldStorage) -> Operator:
        """Operator that propagates an adjoint source backwards and correlates it with the kept wavefield."""

    def born(self) -> Operator:
        """Operator that models the derivative of the record in the direction of a perturbation."""


class Interior(SubDomain):
    """The model's grid within the padded one."""

    name = "interior"

    def __init__(self, widths: tuple[tuple[int, int], ...], grid: Grid) -> None:
        self.widths = widths  # of the layer, before and after each axis
        super().__init__(grid=grid)

    def define(self, dimensions: tuple[Any, ...]) -> dict[Any, Any]:
        """The extent along each axis, in Devito's notation."""
        return {d: ("middle", *width) if any(width) else d for d, width in zip(dimensions, self.widths, strict=True)}


class AcousticEquation:
    """The acoustic wave equation with constant density, ``m u_tt - laplace(u) = q``.

    ``m = 1 / v^2`` is the squared slowness, (s/km)^2.

    *Step*: ``u_tt`` is a centred difference; the absorbing layer adds its own terms (:mod:`hpcfwi.solver.timestep`). The
    Courant limit is that of :func:`hpcfwi.model.grid.courant_limit`.

    *Source and receivers*: every sample of the wavelet is injected with ``dt^2 / m`` after the step, at the grid points of
    :mod:`hpcfwi.solver.interpolation`; records are read there with the same weights.

    *Gradient*: with v the solution of the adjoint step, into which the adjoint source is injected with ``dt^2 / m``, the
    gradient with respect to m is ``g = -sum_t u v_tt`` (Plessix 2006, doi:10.1111/j.1365-246X.2006.02978.x). Summation by parts
    makes it equal to ``-sum_t u_tt v``; in this form it is the exact gradient of the discrete misfit.

    *Born*: the scattered field du solves the same equation with the source ``-dm u_tt`` (Tarantola 1984,
    doi:10.1190/1.1441754).

    *Free surface*: after injection the field is zero on the surface row and mirrored with the opposite sign above it
    (method of images; Levander 1988, doi:10.1190/1.1442422). The stencil that results is symmetric, so the adjoint step takes
    the same form.
    """

    def __init__(self, spec: SolverSpec) -> None:
        self.spec = spec
        boundary = self.boundary = spec.boundary
        self.grid = grid = make_grid(boundary, np.dtype(spec.dtype).type)
        self.kept = grid
        if not spec.layer_gradient:
            self.kept = Interior(tuple(boundary.widths[axis] for axis in boundary.memory_order), grid)
        order = spec.space_order
        self.time_step: TimeStep = TIME_STEPS[type(boundary)](boundary, grid, order)
        self.gradient_field = Function(name="gradient", grid=self.kept, space_order=0)
        self.forward_field = TimeFunction(name="u", grid=grid, time_order=2, space_order=order)
        self.adjoint_field = TimeFunction(name="v", grid=grid, time_order=2, space_order=order)
        self.source = make_traces("source", grid, 1, spec)
        self.receivers = make_traces("receivers", grid, spec.receivers, spec)

    @property
    def _symbols(self) -> tuple[Any, ...]:
        fields = (self.gradient_field, self.forward_field, self.adjoint_field, *self.time_step.symbols)
        sparse = ((each, each.gridpoints, each.interpolation_coeffs) for each in (self.source, self.receivers))
        return (*fields, *(symbol for three in sparse for symbol in three))

    @property
    def nbytes(self) -> int:
        """Memory of all symbols, bytes."""
        points = sum(int(np.prod(symbol.shape_allocated)) for symbol in self._symbols)
        return points * np.dtype(self.spec.dtype).itemsize

    def allocate(self) -> None:
        """Allocate all symbols."""
        for symbol in self._symbols:
            _ = symbol.data

    def set_model(self, m: NDArray) -> None:
        """Use the squared slowness."""
        self.time_step.set_model(m)

    def fill(self, step: float) -> None:
        """Fill the layer's coefficients for a time step, ms."""
        self.time_step.fill(step)

    def clear(self, forward: bool = True, adjoint: bool = True) -> None:
        """Set wavefields, and the layer's variables, to zero."""
        self.time_step.clear()
        for field, asked in ((self.forward_field, forward), (self.adjoint_field, adjoint)):
            if asked:
                field.data_with_halo[:] = 0

    def state(self) -> tuple[NDArray, ...]:
        """Two levels, with the mirror image above a free surface, and the layer's variables."""
        halo, order = self.spec.space_order, self.boundary.memory_order
        inside: list[Any] = [slice(halo, -halo)] * len(order)
        if self.boundary.free_surface:
            inside[order.index(len(order) - 1)] = slice(halo - self.spec.space_order // 2, -halo)
        levels = np.asarray(self.forward_field.data_with_halo)
        return (levels[0][tuple(inside)], levels[2][tuple(inside)], *self.time_step.memory)

    @property
    def memory(self) -> tuple[NDArray, ...]:
        """The layer's variables."""
        return self.time_step.memory

    def carry_over(self, steps: int, adjoint: bool = False, scattered: bool = False) -> None:
        """The level of the time t is number t modulo 3: after other numbers of steps, two levels have to move."""
        if scattered:  # it is in the adjoint field
            self._move_levels(self.adjoint_field, steps, adjoint=False)
        self._move_levels(self.adjoint_field if adjoint else self.forward_field, steps, adjoint)

    def _move_levels(self, field: TimeFunction, steps: int, adjoint: bool) -> None:
        levels, shift = field.data_with_halo, steps % 3
        if shift == 0:
            return
        # forwards: levels shift, shift - 1 become 0 and -1; back: the opposite
        moves = ((shift - 1, 2), (shift, 0)) if shift == 1 else ((shift, 0), (shift - 1, 2))
        for old, new in ((new, old) for old, new in reversed(moves)) if adjoint else moves:
            levels[new] = levels[old]

    def stable_step(self, velocity: float) -> float:
        """The Courant limit for the highest ``velocity``, km/s, rounded down to four digits; ms (:func:`critical_step`)."""
        return critical_step(self.spec.domain, self.spec.space_order, velocity)

    def forward(self, storage: WavefieldStorage) -> Operator:
        """Operator ``Forward``: step u, keep it, inject the source, read the receivers."""
        u = self.forward_field
        equations = [*self.time_step.equations(u), *storage.record(u), self._inject(self.source, u.forward)]
        return self._operator(
            [*equations, *self._free_surface(u.forward), self.receivers.interpolate(expr=u)], "Forward"
        )

    def gradient(self, storage: WavefieldStorage) -> Operator:
        """Operator ``Gradient``: step v backwards, inject the adjoint source, add ``-u v_tt``."""
        v = self.adjoint_field
        equations = [*self.time_step.equations(v, forward=False), self._inject(self.receivers, v.backward)]
        correlate = Inc(self.gradient_field, -storage.replay() * v.dt2, **where(self.kept))
        return self._operator([*equations, *self._free_surface(v.backward), correlate], "Gradient")

    def born(self) -> Operator:
        """Operator ``Born``: step u and the scattered field du, which takes the place of v; dm is read from the gradient."""
        u, du, dm = self.forward_field, self.adjoint_field, self.gradient_field
        equations = [
            *self.time_step.equations(u),
            self._inject(self.source, u.forward),
            *self._free_surface(u.forward),
            *self.time_step.equations(du, scattered=True),
            Inc(du.forward, -self.time_step.gain * dm * u.dt2, **where(self.kept)),
            *self._free_surface(du.forward),
            self.receivers.interpolate(expr=du),
        ]
        return self._operator(equations, "Born")

    def _inject(self, traces: PrecomputedSparseTimeFunction, unknown: Any) -> Any:
        """Add the traces to the level that a step solved for."""
        return traces.inject(field=unknown, expr=traces * self.time_step.gain)

    def _free_surface(self, unknown: Any) -> list[Eq]:
        """Zero pressure on the surface row of the unknown level, and its odd mirror image above."""
        if not self.boundary.free_surface:
            return []
        z = self.grid.dimensions[self.boundary.memory_order.index(self.boundary.domain.ndim - 1)]
        zero = Eq(unknown.subs(z, 0), 0)
        mirror = [Eq(unknown.subs(z, -i), -unknown.subs(z, i)) for i in range(1, self.spec.space_order // 2 + 1)]
        return [zero, *mirror]

    def _operator(self, equations: list[Any], name: str) -> Operator:
        operator = Operator(equations, subs=self.grid.spacing_map, name=operator_name(name))
        set_instruction_set(operator)
        return operator


def make_grid(boundary: AbsorbingLayer, dtype: type) -> Grid:
    """The padded grid, its axes in the layer's ``memory_order`` and named as those of the domain; its origin is zero.

    Single precision has steps of 0.5 m at coordinates of some 1000 km, so the kernels get distances from the first grid point.
    """
    domain, order = boundary.domain, boundary.memory_order
    extent = tuple((n - 1) * h for n, h in zip(boundary.padded_shape, domain.spacing, strict=True))
    axes = [
        SpaceDimension(name=name, spacing=Constant(name=f"h_{name}", dtype=dtype, is_const=True))
        for name in domain.axes
    ]
    shape, extent, dimensions = (tuple(each[axis] for axis in order) for each in (boundary.padded_shape, extent, axes))
    return Grid(shape=shape, extent=extent, dimensions=dimensions, dtype=dtype)


def make_traces(name: str, grid: Grid, count: int, spec: SolverSpec) -> PrecomputedSparseTimeFunction:
    """Traces at positions between grid points; an engine fills in the grid points and their weights."""
    ndim, points = grid.dim, spec.interpolation_points
    return PrecomputedSparseTimeFunction(
        name=name,
        grid=grid,
        npoint=count,
        nt=spec.segment_steps,
        r=points // 2,
        gridpoints=np.zeros((count, ndim), dtype=np.int32),
        interpolation_coeffs=np.zeros((count, ndim, points), dtype=grid.dtype),
    )


# By the name in a specification.
EQUATIONS: dict[str, Callable[[SolverSpec], WaveEquation]] = {"acoustic": AcousticEquation}
