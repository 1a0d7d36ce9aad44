"""The compiled wave operators: forward modelling, adjoint-state gradient, and (for checks) the linearised operator.

A :class:`Propagator` is what the driver builds once, compiles, pickles and stages; it holds no field data. The arrays that
its kernels work on are :class:`hpcfwi.solver.fields.Wavefields`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from devito import (
    ConditionalDimension,
    Eq,
    Function,
    Grid,
    Inc,
    Operator,
    SparseTimeFunction,
    TimeFunction,
    solve,
)

from hpcfwi.solver.devito_internals import retarget, targeted_name
from hpcfwi.solver.spec import SolverSpec

__all__ = ["Propagator"]


class Propagator:
    """Devito operators for ``m u_tt - laplace(u) + damp u_t = q`` and the adjoint-state gradient with respect to m.

    Parameters
    ----------
    spec
        What to build.
    linearised
        Build the linearised (Born) operator too; only the checks need it.

    Notes
    -----
    Second order in time, centred damping. Sources and receivers are injected with dt^2/m after the step, as in Devito's
    ``examples.seismic``; every sample of the wavelet is injected, the first one included. With v the solution of the
    adjoint step and the residual injected, the gradient is ``g = -sum_t u v_tt``, over all steps or ``k`` times the sum
    over every k-th (Plessix 2006, doi:10.1111/j.1365-246X.2006.02978.x; equal to ``-sum_t u_tt v`` by summation by parts).
    At a free surface the field is zero on the surface row after injection and mirrored with the opposite sign above it;
    the stencil that results is symmetric, so that the adjoint step takes the same form.
    """

    def __init__(self, spec: SolverSpec, linearised: bool = False) -> None:
        self.spec = spec
        boundary = spec.boundary
        dtype = np.dtype(spec.dtype).type
        extent = tuple((n - 1) * h for n, h in zip(boundary.padded_shape, spec.domain.spacing, strict=True))
        self.grid = grid = Grid(shape=boundary.padded_shape, extent=extent, origin=boundary.padded_origin, dtype=dtype)
        order = spec.space_order
        self.m = Function(name="m", grid=grid, space_order=order)
        self.damp = Function(name="damp", grid=grid, space_order=order)
        self.gradient = Function(name="gradient", grid=grid, space_order=0)
        self.u = TimeFunction(name="u", grid=grid, time_order=2, space_order=order)
        self.v = TimeFunction(name="v", grid=grid, time_order=2, space_order=order)
        self.snapshots = _snapshot_function(grid, spec)
        self.source = SparseTimeFunction(name="source", grid=grid, npoint=1, nt=spec.time_samples)
        self.receivers = SparseTimeFunction(name="receivers", grid=grid, npoint=spec.receivers, nt=spec.time_samples)
        self.forward_operator = self._forward()
        self.gradient_operator = self._gradient()
        self.linearised_operator = self._linearised() if linearised else None

    @property
    def operators(self) -> list[Operator]:
        """The operators that were built."""
        every = (self.forward_operator, self.gradient_operator, self.linearised_operator)
        return [op for op in every if op is not None]

    def compile(self) -> None:
        """Compile and load the kernels now, so that a pickle of this object carries them."""
        for operator in self.operators:
            _ = operator.cfunction

    def _step(self, field: TimeFunction, ahead: Any, damping: Any, q: Any = 0) -> Eq:
        """One time step of ``field``; ``ahead`` is its unknown level, ``damping`` its first derivative in time."""
        equation = self.m * field.dt2 - field.laplace + self.damp * damping - q
        return Eq(ahead, solve(equation, ahead))

    def _surface(self, ahead: Any) -> list[Eq]:
        """Zero pressure on the surface row of the unknown level and its odd mirror above."""
        if not self.spec.boundary.free_surface:
            return []
        z = self.grid.dimensions[-1]
        zero = Eq(ahead._subs(z, 0), 0)
        mirror = [Eq(ahead._subs(z, -i), -ahead._subs(z, i)) for i in range(1, self.spec.space_order // 2 + 1)]
        return [zero, *mirror]

    def _operator(self, equations: list, name: str) -> Operator:
        operator = Operator(equations, subs=self.grid.spacing_map, name=targeted_name(name))
        retarget(operator)
        return operator

    def _forward(self) -> Operator:
        u, dt = self.u, self.grid.stepping_dim.spacing
        inject = self.source.inject(field=u.forward, expr=self.source * dt**2 / self.m)
        record = self.receivers.interpolate(expr=u)
        keep = [Eq(self.snapshots, u)]
        step = self._step(u, u.forward, u.dt)
        return self._operator([step, *keep, inject, *self._surface(u.forward), record], "Forward")

    def _gradient(self) -> Operator:
        v, dt = self.v, self.grid.stepping_dim.spacing
        inject = self.receivers.inject(field=v.backward, expr=self.receivers * dt**2 / self.m)
        correlate = Inc(self.gradient, -self.spec.snapshot_every * self.snapshots * v.dt2)
        step = self._step(v, v.backward, v.dt.T)
        return self._operator([step, inject, *self._surface(v.backward), correlate], "Gradient")

    def _linearised(self) -> Operator:
        u, dt = self.u, self.grid.stepping_dim.spacing
        # v's buffers and the gradient's array serve as scattered field and model perturbation: nothing more to allocate.
        scattered, perturbation = self.v, self.gradient
        inject = self.source.inject(field=u.forward, expr=self.source * dt**2 / self.m)
        record = self.receivers.interpolate(expr=scattered)
        step = self._step(u, u.forward, u.dt)
        scatter = self._step(scattered, scattered.forward, scattered.dt, q=-perturbation * u.dt2)
        equations = [
            step,
            inject,
            *self._surface(u.forward),
            scatter,
            *self._surface(scattered.forward),
            record,
        ]
        return self._operator(equations, "Linearised")


def _snapshot_function(grid: Grid, spec: SolverSpec) -> TimeFunction:
    """The kept forward wavefield: one level every k-th step."""
    if spec.snapshot_every == 1:
        return TimeFunction(name="snapshots", grid=grid, time_order=0, space_order=0, save=spec.time_samples)
    every = ConditionalDimension("every", parent=grid.time_dim, factor=spec.snapshot_every)
    return TimeFunction(name="snapshots", grid=grid, time_order=0, space_order=0, save=spec.snapshots, time_dim=every)
