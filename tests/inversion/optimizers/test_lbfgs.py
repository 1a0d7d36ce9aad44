"""The optimiser is scipy's L-BFGS-B, with a first step of a chosen size."""

import numpy as np
import pytest
from analytic import Box, rosenbrock
from scipy.optimize import Bounds, minimize

from hpcfwi.config.inversion import InversionSection
from hpcfwi.inversion.optimizers.lbfgs import Lbfgs
from hpcfwi.inversion.parametrisation import SquaredSlowness
from hpcfwi.model.velocity import squared_slowness, velocity_from

SHAPE = (6, 5)
PARAMETRISATION = SquaredSlowness(squared_slowness(np.full(SHAPE, 2.5)), np.zeros(SHAPE, dtype=bool), (1.4, 4.0))
START = PARAMETRISATION.to_vector(PARAMETRISATION.initial)
MINIMUM = squared_slowness(np.linspace(1.8, 3.5, 30))
WEIGHTS = np.geomspace(1, 1000, 30)


def section(**settings):
    return InversionSection(bounds=(1.4, 4.0), **settings)


minimise = Lbfgs().minimise


class Objective:
    shot_count = 1

    def __init__(self, factor=1.0):
        self.xs, self.factor = [], factor

    def __call__(self, x, shots=None):  # noqa: ARG002
        self.xs.append(x.copy())
        f, g = float((WEIGHTS * (x - MINIMUM) ** 2).sum()) / 2, WEIGHTS * (x - MINIMUM)
        return self.factor * f, self.factor * g


def test_without_scaling_the_optimiser_visits_the_same_vectors_as_scipy():
    ours, theirs, rows = Objective(), Objective(), []
    found = minimise(ours, START, PARAMETRISATION, section(first_step="unscaled", iterations=6), rows.append)
    expected = minimize(
        theirs, START, jac=True, method="L-BFGS-B", bounds=Bounds(*PARAMETRISATION.bounds),
        options={"maxiter": 6, "ftol": section().ftol, "gtol": section().gtol, "maxcor": 10, "maxls": 20},
    )  # fmt: skip
    np.testing.assert_array_equal(ours.xs, theirs.xs)
    np.testing.assert_array_equal(found.x, expected.x)
    assert rows[-1].misfit == found.fun
    assert found.nit == len(rows) - 1 == 6  # the first is the initial model


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
            objective, START, PARAMETRISATION, section(iterations=20), lambda row, rows=rows: rows.append(row.misfit)
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
        def __call__(self, x, shots=None):  # noqa: ARG002
            f, g = super().__call__(x)
            return f - 100, g

    objective = Shifted(2.0**-20)
    minimise(objective, START, PARAMETRISATION, section(first_step=0.05, iterations=2), lambda *_: None)
    change = np.abs(velocity_from(objective.xs[1]) - velocity_from(START))
    assert 0.4 * 0.05 < change.max() < 3 * 0.05


def test_without_iterations_there_is_one_evaluation():
    objective = Objective()
    found = minimise(objective, START, PARAMETRISATION, section(iterations=0), lambda *_: None)
    assert (found.nit, len(objective.xs)) == (0, 1)
    assert found.message == "inversion.iterations is reached"
    np.testing.assert_array_equal(found.x, START)


def test_the_optimiser_finds_the_minimum_within_the_bounds():
    found = minimise(
        Objective(), START, PARAMETRISATION, section(iterations=200, ftol=1e-15, gtol=1e-9), lambda *_: None
    )
    np.testing.assert_allclose(found.x, MINIMUM, rtol=1e-4)


class Wrong(Objective):
    """Its gradient points downhill, where a line search does not look."""

    def __call__(self, x, shots=None):  # noqa: ARG002
        f, g = super().__call__(x)
        return f, -g


def test_a_line_search_without_a_better_point_ends_with_the_first_model_and_the_reason():
    rows = []
    found = minimise(Wrong(), START, PARAMETRISATION, section(), rows.append)
    assert found.message == "the line search found no better point: this is the best model so far"
    assert found.nit == len(rows) - 1 == 0
    np.testing.assert_array_equal(found.x, START)


def test_a_better_point_that_the_line_search_did_not_accept_is_the_result():
    """One step is too short for the conditions of the line search, but lower."""

    class Noisy(Objective):
        def __call__(self, x, shots=None):  # noqa: ARG002
            _, g = super().__call__(x)
            # the second point is a little better, and all others are worse
            return {1: (100.0, g), 2: (100.0 - 1e-9, g)}.get(len(self.xs), (200.0, g))

    objective, rows = Noisy(), []
    found = minimise(objective, START, PARAMETRISATION, section(line_search_steps=3), rows.append)
    assert found.message.startswith("the line search found no better point")
    assert found.fun == rows[-1].misfit == 100.0 - 1e-9
    np.testing.assert_array_equal(found.x, objective.xs[1])
    assert found.nit == len(rows) - 1 == 1


def test_its_messages_name_the_keys():
    def message(**settings):
        return minimise(Objective(), START, PARAMETRISATION, section(**settings), lambda _: None).message

    assert message(iterations=3) == "inversion.iterations is reached"
    assert message(evaluations=3) == "inversion.evaluations is reached"
    assert message(ftol=0.1) == "the misfit falls no further (inversion.ftol)"
    assert message(iterations=200, ftol=0, gtol=1e-2) == "the gradient is small (inversion.gtol)"


def test_it_stops_for_a_reason():
    found = minimise(Objective(), START, PARAMETRISATION, section(), lambda row: "enough" if row.misfit < 0.1 else None)
    assert found.message == "enough"
    assert found.fun < 0.1
    assert found.nit > 0
    found = minimise(Objective(), START, PARAMETRISATION, section(), lambda _: "at once")
    assert (found.nit, found.message) == (0, "at once")


def test_it_finds_the_minimum_of_rosenbrock_within_bounds():
    box = Box([-2.0, -2.0], [0.8, 2.0])
    found = minimise(rosenbrock, np.array([-1.2, 1.0]), box, section(iterations=200), lambda _: None)
    np.testing.assert_allclose(found.x, [0.8, 0.64], atol=1e-4)
