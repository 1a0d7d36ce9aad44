"""Each stopping criterion holds exactly from where its description says."""

import numpy as np
import pytest
from analytic import section

from hpcfwi.config.inversion import OptimizerName
from hpcfwi.inversion.optimizers.convergence import Budget, Convergence
from hpcfwi.inversion.optimizers.registry import OPTIMIZERS

V = np.full((3, 3), 2.0)


def stops(misfits, energy=0.0, velocities=None, **settings):
    """The iteration at which an inversion is done, and why; the misfit of a batch is None."""
    convergence = Convergence(section(**settings), energy)
    for iteration, misfit in enumerate(misfits):
        velocity = V if velocities is None else velocities[iteration]
        reason = convergence.reason(iteration, misfit, velocity)
        if reason:
            return iteration, reason
    return None


def test_without_criteria_nothing_stops():
    assert stops([1.0] * 50) is None


def test_a_share_of_the_first_misfit():
    iteration, reason = stops([8.0, 4.0, 2.1, 2.0, 1.0], misfit_share=0.25)
    assert iteration == 3
    assert reason == "the misfit is at most 0.25 of the first one (inversion.misfit_share)"


def test_misfits_of_batches_do_not_count():
    settings = {"optimizer": "adam", "full_misfit_every": 3, "misfit_share": 0.25}
    assert stops([8.0, None, None, 4.0, None, None, 1.0], **settings)[0] == 6


def test_a_change_over_some_iterations():
    misfits = [10.0, 5.0, 4.0, 3.9, 3.85, 3.84]
    iteration, reason = stops(misfits, misfit_change=0.1, change_iterations=2)
    assert iteration == 4  # 4.0 to 3.85
    assert reason == "the misfit has fallen by less than 0.1 of it in 2 iterations (inversion.misfit_change)"
    assert stops(misfits, misfit_change=0.1, change_iterations=1)[0] == 3
    assert stops(misfits, misfit_change=0.1, change_iterations=5) is None


def test_a_change_of_misfits_that_are_known_at_some_iterations_only():
    misfits = [10.0, None, 5.0, None, 4.9, None]
    settings = {"optimizer": "adam", "full_misfit_every": 2, "misfit_change": 0.1}
    assert stops(misfits, change_iterations=2, **settings)[0] == 4
    assert stops(misfits, change_iterations=3, **settings) is None  # 10.0 to 4.9


def test_the_energy_of_the_residuals_is_that_of_the_noise():
    # L2 misfits are half an energy
    iteration, reason = stops([50.0, 6.0, 5.0, 1.0], energy=100.0, noise_level=0.1)
    assert iteration == 2
    assert "at most 0.1 of the energy of the observed data" in reason


def test_a_small_change_of_the_model():
    velocities = [V, V + 0.1, V + 0.11, V + 0.1101]
    iteration, reason = stops([3.0, 2.0, 1.5, 1.4], velocities=velocities, model_change=1e-3)
    assert iteration == 3
    assert reason == "the iteration changed the velocities by less than 0.001 of them (inversion.model_change)"


@pytest.mark.parametrize(
    ("settings", "hours", "core_hours", "reason"),
    [
        ({}, 1e5, 1e5, ""),
        ({"budget_hours": 2.0}, 1.9, 100.0, ""),
        ({"budget_hours": 2.0}, 2.5, 100.0, "the iterations have taken 2.5 of 2 hours (inversion.budget_hours)"),
        (
            {"budget_core_hours": 64.0},
            1.0,
            70.0,
            "the iterations have taken 70 of 64 core-hours (inversion.budget_core_hours)",
        ),
    ],
)
def test_a_budget(settings, hours, core_hours, reason):
    assert Budget(settings.get("budget_hours"), settings.get("budget_core_hours")).reason(hours, core_hours) == reason


def test_every_name_of_the_configuration_is_an_optimiser():
    assert set(OptimizerName.__args__) == set(OPTIMIZERS)
