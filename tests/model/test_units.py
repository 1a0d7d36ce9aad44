"""Units of model files: conversion, and values that are unlikely in their unit."""

from __future__ import annotations

import numpy as np
import pytest

from hpcfwi.config.models import UNITS
from hpcfwi.formats.stored_model import UNITS_OF_VELOCITY
from hpcfwi.model.units import doubt, to_velocity

VELOCITY = np.linspace(1.5, 4.5, 31)
STORED = {
    "km/s": VELOCITY,
    "m/s": 1000 * VELOCITY,
    "s/km": 1 / VELOCITY,
    "s/m": 1 / (1000 * VELOCITY),
    "s2/km2": 1 / VELOCITY**2,
    "s2/m2": 1 / (1000 * VELOCITY) ** 2,
}


def test_the_units_of_the_configuration_are_those_that_files_may_name():
    assert tuple(UNITS) == UNITS_OF_VELOCITY


@pytest.mark.parametrize("unit", UNITS)
def test_every_unit_converts_to_velocity(unit):
    np.testing.assert_allclose(to_velocity(STORED[unit], unit), VELOCITY, rtol=1e-14)
    assert doubt(STORED[unit], unit, True, "model.unit") is None


@pytest.mark.parametrize("unit", [unit for unit in UNITS if unit != "km/s"])
def test_values_in_another_unit_than_km_per_second_are_doubted_and_the_unit_is_named(unit):
    message = doubt(STORED[unit], "km/s", False, "model.unit")
    assert message.startswith(
        f"values from {STORED[unit].min():g} to {STORED[unit].max():g}, which are unlikely in km/s"
    )
    assert f"{unit} (1.5 to 4.5 km/s)" in message
    assert f'"{unit}"' in message.partition("set model.unit = ")[2]


def test_low_velocities_are_asked_about_unless_somebody_said_their_unit():
    slow = np.linspace(0.2, 0.7, 11)
    assert doubt(slow, "km/s", False, "model.unit") == (
        "values from 0.2 to 0.7, which are unlikely in km/s; they look like s/km (1.42857 to 5 km/s) or s2/km2 (1.19523 to "
        '2.23607 km/s): if so, set model.unit = "s/km" or "s2/km2"; if they are right, set model.unit = "km/s"'
    )
    assert doubt(slow, "km/s", True, "model.unit") is None


def test_a_few_values_out_of_range_are_no_other_unit():
    assert doubt(np.array([1.5, 2.0, 4000.0]), "km/s", False, "model.unit") is None


def test_values_that_are_velocities_in_no_unit_are_doubted():
    message = doubt(np.array([1e30, 2e30]), "km/s", True, "model.unit")
    assert (
        message
        == "values from 1e+30 to 2e+30, which are unlikely in km/s (1e+30 to 2e+30 km/s); correct model.unit, or the file"
    )
