"""Water above a sea floor."""

from __future__ import annotations

import numpy as np
import pytest

from hpcfwi.errors import InputError
from hpcfwi.model.resampling import Axis
from hpcfwi.model.water import above_sea_floor

LINE, CUBE = (5, 6), (5, 4, 6)


def depth_of_water(shape, bathymetry):
    """Points of water in each column."""
    axes = [Axis(n, 10.0, 0.0) for n in shape]
    return above_sea_floor(bathymetry, axes, "model.water.bathymetry").sum(axis=-1)


@pytest.fixture
def csv(tmp_path):
    def write(*rows):
        path = tmp_path / "floor.csv"
        path.write_text("\n".join(rows))
        return path

    return write


@pytest.mark.parametrize(("depth", "points"), [(25.0, 3), (20.0, 2), (0.0, 0), (-5.0, 0), (1000.0, 6)])
def test_points_above_a_flat_floor_are_water_and_those_on_it_are_not(depth, points):
    assert (depth_of_water(LINE, depth) == points).all()
    assert (depth_of_water(CUBE, depth) == points).all()


def test_a_floor_is_interpolated_between_rows_in_any_order_and_extends_beyond(csv):
    floor = csv("depth,x", "35,30", "15,10", "# a comment")
    np.testing.assert_array_equal(depth_of_water(LINE, floor), [2, 2, 3, 4, 4])


def test_a_floor_in_three_dimensions_is_interpolated(csv):
    floor = csv("x,y,depth", "0,0,5", "40,0,45", "0,30,5", "40,30,45", "20,30,25")
    np.testing.assert_array_equal(depth_of_water(CUBE, floor), np.repeat([[1], [2], [3], [4], [5]], 4, axis=1))


def test_beyond_its_points_a_floor_in_three_dimensions_has_the_depth_of_the_nearest(csv):
    floor = csv("x,y,depth", "0,0,5", "0,20,5", "20,0,25", "20,20,25")
    np.testing.assert_array_equal(depth_of_water(CUBE, floor)[:, 0], [1, 2, 3, 3, 3])


@pytest.mark.parametrize(
    ("rows", "shape", "message"),
    [
        (("x,z", "0,5"), LINE, "has no column 'depth'"),
        (("x,depth", "0,deep"), LINE, "line 2: depth is 'deep'; it should be a number"),
        (("x,depth", "0,5", "0,6"), LINE, "has two rows with the same x; keep one of them"),
        (("x,y,depth", "0,0,5", "10,0,6", "20,0,7"), CUBE, "has 3 points on one line"),
        (("x,y,depth", "0,0,5"), CUBE, "has 1 points on one line"),
    ],
)
def test_a_floor_that_cannot_be_used_is_refused(csv, rows, shape, message):
    with pytest.raises(InputError, match=message) as caught:
        depth_of_water(shape, csv(*rows))
    assert str(caught.value).startswith("model.water.bathymetry: ")


def test_a_missing_floor_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        depth_of_water(LINE, tmp_path / "none.csv")
