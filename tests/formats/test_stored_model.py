"""What files say about axes, units and places, in the words that people use."""

from __future__ import annotations

import numpy as np
import pytest

from hpcfwi.formats.stored_model import FormatError, axes_of, metres_per, regular_axis, velocity_unit


@pytest.mark.parametrize(
    ("names", "axes"),
    [
        (["x", "z"], "xz"),
        (["Depth", "Easting"], "zx"),
        (["z", "northing", "X "], "zyx"),
        (["x", "time"], None),
        (["x", "y"], None),
        (["x", "x", "z"], None),
        (["", ""], None),
    ],
)
def test_names_say_the_order_of_axes_if_all_of_them_are_known(names, axes):
    assert axes_of(names) == axes


@pytest.mark.parametrize(
    ("unit", "metres"), [("m", 1), (" Metres", 1), ("KM", 1000), ("ft", 0.3048), ("", 1), ("?", 1)]
)
def test_lengths_are_in_metres_unless_the_unit_says_otherwise(unit, metres):
    assert metres_per(unit) == metres


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("km/s", "km/s"),
        ("m s-1", "m/s"),
        ("m s**-1", "m/s"),
        ("M/sec", "m/s"),
        ("km s^-1", "km/s"),
        ("s2/km2", "s2/km2"),
        ("(s/km)^2", "s2/km2"),
        ("s^2/m^2", "s2/m2"),
        ("s/m", "s/m"),
        ("ft/s", None),
        ("", None),
    ],
)
def test_units_of_velocity_are_known_in_the_usual_spellings(text, unit):
    assert velocity_unit(text) == unit


def test_a_regular_axis_has_an_origin_and_a_spacing_that_may_be_negative():
    assert regular_axis(np.array([5.0, 2.5, 0.0]), "z") == (5.0, -2.5)
    assert regular_axis(np.array([0, 10, 20]), "x") == (0.0, 10.0)
    with pytest.raises(FormatError, match="coordinates x that are not equidistant: number 2 of 3 is 11"):
        regular_axis(np.array([0, 11, 20]), "x")
