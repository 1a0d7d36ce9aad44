"""Wave equations, discretised by Devito: their symbols and the operators that step them through time."""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from devito import Eq, Function, Grid, Inc, Operator, SparseTimeFunction, TimeFunction, solve

from hpcfwi.model.grid import critical_step
from hpcfwi.solver.boundary import SolverSpec, Sponge
from hpcfwi.solver.devito_internals import operator_name, set_instruction_set
from hpcfwi.solver.storage import WavefieldStorage


class WaveEquation(Protocol):
    """A wave equation on a padded grid: its symbols, operators and absorbing boundary.

    The operators share the symbols: an engine writes a shot's input into their arrays and reads its output there.
    """

    boundary: Sponge  # the absorbing layer; it extends model parameters into its cells and folds gradients back
    grid: Grid  # the padded grid
    parameters: tuple[Function, ...]  # model parameters on the padded grid
    # one for each parameter: gradient() adds to it, and born() reads the parameter's perturbation from it
    gradients: tuple[Function, ...]
    forward_field: TimeFunction  # wavefields; zero before a shot
    adjoint_field: TimeFunction
    source: SparseTimeFunction  # traces and positions
    receivers: SparseTimeFunction

    @property
    def nbytes(self) -> int:
        """Bytes that :meth:`allocate` takes."""

    def allocate(self) -> None:
        """Allocate all symbols, and fill those that depend on neither model nor shot."""

    def stable_step(self, velocity: float) -> float:
        """Longest time step, ms, that is stable up to rounding for the highest ``velocity``, km/s."""

    def forward(self, storage: WavefieldStorage) -> Operator:
        """Operator that models a record and keeps the wavefield in ``storage``."""

    def gradient(self, storage: WavefieldStorage) -> Operator:
        """Operator that propagates an adjoint source backwards and correlates it with the kept wavefield."""

    def born(self) -> Operator:
        """Operator that models the derivative of the record in the direction of a perturbation."""


class AcousticEquation:
    """The acoustic wave equation with constant density, ``m u_tt - laplace(u) + damp u_t = q``.

    ``m = 1 / v^2`` is the squared slowness, (s/km)^2, and ``damp`` the sponge's damping
    (:meth:`hpcfwi.solver.boundary.Sponge.damping`).

    *Step*: ``u_tt`` is a centred difference, ``u_t`` the one-sided ``(u(t + dt) - u(t)) / dt``, as in Devito's
    ``examples.seismic.acoustic`` (Louboutin et al. 2019, doi:10.5194/gmd-12-1165-2019). The Courant limit is that of
    :func:`hpcfwi.model.grid.courant_limit`.

    *Source and receivers*: every sample of the wavelet is injected with ``dt^2 / m`` after the step. Both lie between grid
    points by linear interpolation along each axis.

    *Gradient*: with v the solution of the adjoint step (with the sign of the damping reversed), into which the adjoint source
    is injected with ``dt^2 / m``, the gradient with respect to m is ``g = -sum_t u v_tt`` (Plessix 2006,
    doi:10.1111/j.1365-246X.2006.02978.x). Summation by parts makes it equal to ``-sum_t u_tt v``; in this form it is the
    exact gradient of the discrete misfit.

    *Born*: the scattered field du solves the same equation with the source ``-dm u_tt`` (Tarantola 1984,
    doi:10.1190/1.1441754).

    *Free surface*: after injection the field is zero on the surface row and mirrored with the opposite sign above it
    (method of images; Levander 1988, doi:10.1190/1.1442422). The stencil that results is symmetric, so the adjoint step takes
    the same form.
    """

    def __init__(self, spec: SolverSpec) -> None:
        self.spec = spec
        boundary = self.boundary = spec.boundary
        extent = tuple((n - 1) * h for n, h in zip(boundary.padded_shape, spec.domain.spacing, strict=True))
        self.grid = grid = Grid(
            shape=boundary.padded_shape, extent=extent, origin=boundary.padded_origin, dtype=np.dtype(spec.dtype).type
        )
        order = spec.space_order
        self.m = Function(name="m", grid=grid, space_order=order)
        self.damp = Function(name="damp", grid=grid, space_order=order)
        self.parameters = (self.m,)
        self.gradients = (Function(name="gradient", grid=grid, space_order=0),)
        self.forward_field = TimeFunction(name="u", grid=grid, time_order=2, space_order=order)
        self.adjoint_field = TimeFunction(name="v", grid=grid, time_order=2, space_order=order)
        self.source = SparseTimeFunction(name="source", grid=grid, npoint=1, nt=spec.time_samples)
        self.receivers = SparseTimeFunction(name="receivers", grid=grid, npoint=spec.receivers, nt=spec.time_samples)

    @property
    def _symbols(self) -> tuple[Any, ...]:
        sparse = (self.source, self.source.coordinates, self.receivers, self.receivers.coordinates)
        return (*self.parameters, self.damp, *self.gradients, self.forward_field, self.adjoint_field, *sparse)

    @property
    def nbytes(self) -> int:
        """Memory of all symbols, bytes."""
        points = sum(int(np.prod(symbol.shape_allocated)) for symbol in self._symbols)
        return points * np.dtype(self.spec.dtype).itemsize

    def allocate(self) -> None:
        """Allocate all symbols, and fill in the damping."""
        for symbol in self._symbols:
            _ = symbol.data
        self.damp.data[:] = self.boundary.damping()

    def stable_step(self, velocity: float) -> float:
        """The Courant limit for the highest ``velocity``, km/s, rounded to four digits; ms (:func:`critical_step`)."""
        return critical_step(self.spec.domain, self.spec.space_order, velocity)

    def forward(self, storage: WavefieldStorage) -> Operator:
        """Operator ``Forward``: step u, keep it, inject the source, read the receivers."""
        u = self.forward_field
        step = self._step(u, u.forward, u.dt)
        equations = [step, *storage.record(u), self._inject(self.source, u.forward), *self._free_surface(u.forward)]
        return self._operator([*equations, self.receivers.interpolate(expr=u)], "Forward")

    def gradient(self, storage: WavefieldStorage) -> Operator:
        """Operator ``Gradient``: step v backwards, inject the adjoint source, add ``-u v_tt``."""
        v = self.adjoint_field
        step, inject = self._step(v, v.backward, v.dt.T), self._inject(self.receivers, v.backward)
        correlate = Inc(self.gradients[0], -storage.replay() * v.dt2)
        return self._operator([step, inject, *self._free_surface(v.backward), correlate], "Gradient")

    def born(self) -> Operator:
        """Operator ``Born``: step u and the scattered field du, which takes the place of v; dm is read from the gradient."""
        u, du, dm = self.forward_field, self.adjoint_field, self.gradients[0]
        equations = [
            self._step(u, u.forward, u.dt),
            self._inject(self.source, u.forward),
            *self._free_surface(u.forward),
            self._step(du, du.forward, du.dt, q=-dm * u.dt2),
            *self._free_surface(du.forward),
            self.receivers.interpolate(expr=du),
        ]
        return self._operator(equations, "Born")

    def _step(self, field: TimeFunction, unknown: Any, first_derivative: Any, q: Any = 0) -> Eq:
        """One time step of ``field``: the equation solved for its unknown level."""
        equation = self.m * field.dt2 - field.laplace + self.damp * first_derivative - q
        return Eq(unknown, solve(equation, unknown))

    def _inject(self, traces: SparseTimeFunction, unknown: Any) -> Any:
        """Add ``dt^2 / m`` times the traces to the level that a step solved for; the damping is zero at their positions."""
        return traces.inject(field=unknown, expr=traces * self.grid.stepping_dim.spacing**2 / self.m)

    def _free_surface(self, unknown: Any) -> list[Eq]:
        """Zero pressure on the surface row of the unknown level, and its odd mirror image above."""
        if not self.boundary.free_surface:
            return []
        z = self.grid.dimensions[-1]
        zero = Eq(unknown.subs(z, 0), 0)
        mirror = [Eq(unknown.subs(z, -i), -unknown.subs(z, i)) for i in range(1, self.spec.space_order // 2 + 1)]
        return [zero, *mirror]

    def _operator(self, equations: list[Any], name: str) -> Operator:
        operator = Operator(equations, subs=self.grid.spacing_map, name=operator_name(name))
        set_instruction_set(operator)
        return operator


# By the name in a specification.
EQUATIONS: dict[str, Callable[[SolverSpec], WaveEquation]] = {"acoustic": AcousticEquation}
