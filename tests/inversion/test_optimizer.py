"""The optimiser is scipy's L-BFGS-B, with a first step of a chosen size."""

import numpy as np
import pytest
from scipy.optimize import Bounds, minimize

from hpcfwi.config.run import InversionSection
from hpcfwi.inversion.optimizer import minimise
from hpcfwi.inversion.parametrisation import SquaredSlowness
from hpcfwi.model.velocity import squared_slowness, velocity_from

SHAPE = (6, 5)
PARAMETRISATION = SquaredSlowness(squared_slowness(np.full(SHAPE, 2.5)), np.zeros(SHAPE, dtype=bool), (1.4, 4.0))
START = PARAMETRISATION.to_vector(PARAMETRISATION.initial)
MINIMUM = squared_slowness(np.linspace(1.8, 3.5, 30))
WEIGHTS = np.geomspace(1, 1000, 30)


def section(**settings):
    return InversionSection(bounds=(1.4, 4.0), **settings)


class Objective:
    def __init__(self, factor=1.0):
        self.xs, self.factor = [], factor

    def __call__(self, x):
        self.xs.append(x.copy())
        f, g = float((WEIGHTS * (x - MINIMUM) ** 2).sum()) / 2, WEIGHTS * (x - MINIMUM)
        return self.factor * f, self.factor * g


def test_without_scaling_the_optimiser_visits_the_same_vectors_as_scipy():
    ours, theirs, rows = Objective(), Objective(), []
    found = minimise(
        ours, START, PARAMETRISATION, section(first_step="unscaled", iterations=6), lambda *row: rows.append(row)
    )
    expected = minimize(
        theirs, START, jac=True, method="L-BFGS-B", bounds=Bounds(*PARAMETRISATION.bounds),
        options={"maxiter": 6, "ftol": section().ftol, "gtol": section().gtol, "maxcor": 10, "maxls": 20},
    )  # fmt: skip
    np.testing.assert_array_equal(ours.xs, theirs.xs)
    np.testing.assert_array_equal(found.x, expected.x)
    assert [misfit for _, misfit in rows][-1] == found.fun
    assert found.nit == len(rows) == 6


@pytest.mark.parametrize("first_step", [0.01, 0.1])
def test_the_first_trial_step_changes_velocities_by_about_first_step(first_step):
    objective = Objective()
    minimise(objective, START, PARAMETRISATION, section(first_step=first_step, iterations=1), lambda *_: None)
    change = np.abs(velocity_from(objective.xs[1]) - velocity_from(START))
    # the scale is a power of two
    assert 0.4 * first_step < change.max() < 3 * first_step


def test_the_unit_of_the_misfit_does_not_matter():
    found = []
    for factor in (1.0, 2.0**-50, 2.0**40):
        objective, rows = Objective(factor), []
        result = minimise(
            objective, START, PARAMETRISATION, section(iterations=20), lambda _, f, rows=rows: rows.append(f)
        )
        assert result.fun == rows[-1] == objective(result.x)[0]
        np.testing.assert_array_equal(result.jac, objective(result.x)[1])
        found.append((np.array(objective.xs[:-2]), np.array(rows) / factor, result.message))
    for xs, misfits, message in found[1:]:
        np.testing.assert_array_equal(xs, found[0][0])
        np.testing.assert_array_equal(misfits, found[0][1])
        assert message == found[0][2]


def test_a_negative_misfit_is_scaled_as_well():
    class Shifted(Objective):
        def __call__(self, x):
            f, g = super().__call__(x)
            return f - 100, g

    objective = Shifted(2.0**-20)
    minimise(objective, START, PARAMETRISATION, section(first_step=0.05, iterations=2), lambda *_: None)
    change = np.abs(velocity_from(objective.xs[1]) - velocity_from(START))
    assert 0.4 * 0.05 < change.max() < 3 * 0.05


def test_without_iterations_there_is_one_evaluation():
    objective = Objective()
    found = minimise(objective, START, PARAMETRISATION, section(iterations=0), lambda *_: None)
    assert (found.nit, found.nfev, len(objective.xs)) == (0, 1, 1)
    np.testing.assert_array_equal(found.x, START)


def test_the_optimiser_finds_the_minimum_within_the_bounds():
    found = minimise(
        Objective(), START, PARAMETRISATION, section(iterations=200, ftol=1e-15, gtol=1e-9), lambda *_: None
    )
    np.testing.assert_allclose(found.x, MINIMUM, rtol=1e-4)
