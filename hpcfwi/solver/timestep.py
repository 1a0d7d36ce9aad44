"""One time step of a wavefield in Devito, inside the model and in its absorbing layer."""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from devito import Eq, Function, Grid, Inc, SubDomain, TimeFunction, solve
from numpy.typing import NDArray

from hpcfwi.model.grid import first_derivative_weights
from hpcfwi.solver.boundary import REACH, AbsorbingLayer, Cpml, Sponge


class TimeStep(Protocol):
    """The acoustic time step with one kind of absorbing layer."""

    gain: Any  # what a source of strength 1 adds to the next level of a wavefield

    @property
    def symbols(self) -> tuple[Any, ...]:
        """Arrays of the medium and the layer."""

    @property
    def memory(self) -> tuple[NDArray, ...]:
        """The layer's variables, which belong to the forward or to the adjoint wavefield, whichever is stepped."""

    def set_model(self, m: NDArray) -> None:
        """Use the squared slowness ``m``, (s/km)^2, on the padded grid."""

    def fill(self, step: float) -> None:
        """Fill the coefficients for a time step, ms."""

    def clear(self) -> None:
        """Set the layer's variables to zero, as they are before a shot."""

    def equations(self, field: TimeFunction, forward: bool = True, scattered: bool = False) -> list[Eq]:
        """Step a wavefield to its next level, or with ``forward=False`` to the one before.

        Two wavefields of one operator need variables of their own: the second one is ``scattered``.
        """


class SpongeStep:
    """The step of ``m u_tt - laplace(u) + damp u_t = 0``.

    ``u_tt`` is a centred difference, ``u_t`` the one-sided ``(u(t + dt) - u(t)) / dt``, as in Devito's ``examples.seismic
    .acoustic`` (Louboutin et al. 2019, doi:10.5194/gmd-12-1165-2019). The step backwards has the sign of the damping reversed:
    it is the transpose of the step forwards.
    """

    def __init__(self, boundary: Sponge, grid: Grid, space_order: int) -> None:
        self.boundary = boundary
        self.m = Function(name="m", grid=grid, space_order=space_order)
        self.damp = Function(name="damp", grid=grid, space_order=space_order)
        step = grid.stepping_dim.spacing
        self.gain = step**2 / (self.m + self.damp * step)

    @property
    def symbols(self) -> tuple[Any, ...]:
        """Squared slowness and damping."""
        return (self.m, self.damp)

    @property
    def memory(self) -> tuple[NDArray, ...]:
        """None."""
        return ()

    def set_model(self, m: NDArray) -> None:
        """Use the squared slowness."""
        self.m.data[:] = m

    def fill(self, step: float) -> None:  # noqa: ARG002
        """Fill in the damping, the same for all time steps."""
        self.damp.data[:] = self.boundary.damping().transpose(self.boundary.memory_order)

    def clear(self) -> None:
        """There are no variables."""

    def equations(self, field: TimeFunction, forward: bool = True, scattered: bool = False) -> list[Eq]:  # noqa: ARG002
        """Solve the equation for the unknown level."""
        unknown, first = (field.forward, field.dt) if forward else (field.backward, field.dt.T)
        return [Eq(unknown, solve(self.m * field.dt2 - field.laplace + self.damp * first, unknown))]


class Slab(SubDomain):
    """The cells next to one end of an axis."""

    def __init__(self, axis: int, side: str, cells: int, grid: Grid) -> None:
        self.axis, self.side, self.cells = axis, side, cells
        self.name = f"{grid.dimensions[axis].name}_{side}"
        super().__init__(grid=grid)

    def define(self, dimensions: tuple[Any, ...]) -> dict[Any, Any]:
        """The slab's extent along each axis, in Devito's notation."""
        return {d: (self.side, self.cells) if i == self.axis else d for i, d in enumerate(dimensions)}


class CpmlStep:
    """The step of ``m u_tt = laplace(u) + sum_i (D- psi_i + zeta_i)``, with two memory variables for each axis i.

    ``psi = b psi + a D+ u`` lies half a cell after each grid point, ``zeta = b zeta + a (D2 u + D- psi)`` on it. ``D2`` is the
    axis' part of the Laplacian; ``D+`` and ``D-`` are differences between grid points. a and b
    (:meth:`hpcfwi.solver.boundary.Cpml.coefficients`) differ from zero in the layer only, where slabs hold the variables. This
    is the second-order form of Pasalic and McGarry (2010, doi:10.1190/1.3513453), on a staggered grid.

    *Transpose*: with F the recursion as a filter in time, axis i contributes ``(1 + F_i) S_i`` with ``S = D2 + D- F+ D+``;
    ``F+`` is the filter half a cell further. S is symmetric, since ``D- = -(D+)^T``. The adjoint wavefield v obeys the
    transposed step, with ``S_i (1 + F_i)``. Let v' be v with the filters ``1 + F_i`` of all axes applied. The filter of one
    axis commutes with m, and with the differences along the others, so v' obeys the same step as u, backwards. Inside the model
    all F are zero and ``v' = v``: sources, receivers and the gradient there need no other equations.
    """

    def __init__(self, boundary: Cpml, grid: Grid, space_order: int) -> None:
        self.boundary, self.grid, self.space_order = boundary, grid, space_order
        # to divide by the squared slowness in each step would take 12 % longer in 3-D
        self.squared_velocity = Function(name="squared_velocity", grid=grid, space_order=space_order)
        self.gain = grid.stepping_dim.spacing**2 * self.squared_velocity
        self._slabs: list[Slab] = []
        self._ends: list[tuple[int, int]] = []  # the domain's axis of each slab, and the end of it: 0 or 1
        self._coefficients: list[tuple[Function, ...]] = []  # of each slab: a, b, and those half a cell further
        for place, axis in enumerate(boundary.memory_order):
            for end in np.flatnonzero(boundary.widths[axis]):
                slab = Slab(place, ("left", "right")[end], boundary.slab_cells(axis), grid)
                line = {"grid": grid, "dimensions": (grid.dimensions[place],), "shape": (grid.shape[place],)}
                names = [f"{name}_{slab.name}" for name in ("a", "b", "a_half", "b_half")]
                self._slabs.append(slab)
                self._ends.append((axis, int(end)))
                # of each slab its own, since slabs of a small grid reach into the layer at the other end
                self._coefficients.append(tuple(Function(name=name, space_order=0, **line) for name in names))
        self._memory = self._make_memory("")
        self._scattered: list[tuple[Function, Function]] = []  # of a second wavefield, if there is one

    def _make_memory(self, suffix: str) -> list[tuple[Function, Function]]:
        # a slab's variables are read and written at the same time: one level is enough
        return [
            (
                Function(name=f"psi_{slab.name}{suffix}", grid=slab, space_order=REACH),
                Function(name=f"zeta_{slab.name}{suffix}", grid=slab, space_order=0),
            )
            for slab in self._slabs
        ]

    @property
    def symbols(self) -> tuple[Any, ...]:
        """Squared velocity, coefficients, and memory variables of one wavefield."""
        coefficients = (each for four in self._coefficients for each in four)
        return (self.squared_velocity, *coefficients, *(variable for pair in self._memory for variable in pair))

    @property
    def memory(self) -> tuple[NDArray, ...]:
        """The memory variables, with their halos."""
        return tuple(np.asarray(variable.data_with_halo) for pair in self._memory for variable in pair)

    def set_model(self, m: NDArray) -> None:
        """Use the squared slowness."""
        self.squared_velocity.data[:] = 1 / m

    def fill(self, step: float) -> None:
        """Fill in a and b."""
        for (axis, end), (*at_points, a_half, b_half) in zip(self._ends, self._coefficients, strict=True):
            for arrays, offset in ((at_points, 0.0), ((a_half, b_half), 0.5)):
                for array, values in zip(arrays, self.boundary.coefficients(axis, end, step, offset), strict=True):
                    array.data[:] = values

    def clear(self) -> None:
        """Set the memory variables to zero."""
        for pair in (*self._memory, *self._scattered):
            for variable in pair:
                variable.data_with_halo[:] = 0

    def equations(self, field: TimeFunction, forward: bool = True, scattered: bool = False) -> list[Eq]:
        """Step inside and in the layer as if there were none; add its part in slabs."""
        if scattered and not self._scattered:
            self._scattered = self._make_memory("_scattered")
        unknown, known = (field.forward, field.backward) if forward else (field.backward, field.forward)
        equations = [Eq(unknown, 2 * field - known + self.gain * field.laplace)]
        memory = self._scattered if scattered else self._memory
        for slab, coefficients, (psi, zeta) in zip(self._slabs, self._coefficients, memory, strict=True):
            a, b, a_half, b_half = coefficients
            dimension, inside = self.grid.dimensions[slab.axis], slab.dimensions[slab.axis]
            second = getattr(field, f"d{dimension.name}2")
            after = self._difference(field, dimension, dimension.spacing, before=False)
            before = self._difference(psi, inside, dimension.spacing, before=True)
            equations += [
                Eq(psi, b_half * psi + a_half * after, subdomain=slab),
                Eq(zeta, b * zeta + a * (second + before), subdomain=slab),
                Inc(unknown, self.gain * (before + zeta), subdomain=slab),
            ]
        return equations

    def _difference(self, function: Any, dimension: Any, spacing: Any, before: bool) -> Any:
        """First derivative along a dimension, half a cell before or after each grid point."""
        total: Any = 0
        for i, weight in enumerate(first_derivative_weights(self.space_order)):
            right, left = (function.subs(dimension, dimension + o * spacing) for o in (i + (not before), -i - before))
            total += weight * (right - left)
        return total / spacing


TIME_STEPS: dict[type[AbsorbingLayer], Callable[[Any, Grid, int], TimeStep]] = {Sponge: SpongeStep, Cpml: CpmlStep}
