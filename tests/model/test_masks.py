"""Cells that keep their velocity: water, polygons, prisms."""

import numpy as np
import pytest

from hpcfwi.config.conditioning import PolygonSection
from hpcfwi.config.inversion import FrozenSection
from hpcfwi.errors import InputError
from hpcfwi.model.grid import Domain
from hpcfwi.model.masks import frozen_cells, points_in_polygon

LINE = Domain((11, 9), (10.0, 20.0), (0.0, 0.0))
CUBE = Domain((11, 9, 5), (10.0, 20.0, 10.0), (0.0, 0.0, 0.0))
TRIANGLE = ((0.0, 0.0), (100.0, 0.0), (0.0, 160.0))


def frozen(domain=LINE, **keys):
    return frozen_cells(FrozenSection(**keys), domain, np.full(domain.shape, 2.0))


def test_a_polygon_has_the_cells_inside_and_on_its_edges():
    i, j = np.meshgrid(np.arange(11), np.arange(9), indexing="ij")
    inside = frozen(polygons=(PolygonSection(vertices=TRIANGLE),))
    # x / 100 + z / 160 <= 1
    np.testing.assert_array_equal(inside, 8 * i + 10 * j <= 80)


def test_the_order_of_the_corners_does_not_matter():
    found = [points_in_polygon(corners, np.arange(11.0) * 10, np.arange(9.0) * 20, 1e-6)
             for corners in (TRIANGLE, TRIANGLE[::-1], TRIANGLE[1:] + TRIANGLE[:1])]  # fmt: skip
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


def test_triangles_agree_with_matplotlib():
    from matplotlib.path import Path

    rng = np.random.default_rng(0)
    for _ in range(20):
        corners = tuple(map(tuple, rng.uniform(-20, 120, (3, 2)).tolist()))
        across, down = np.sort(rng.uniform(0, 100, (2, 30)))
        points = np.stack(np.meshgrid(across, down, indexing="ij"), axis=-1).reshape(-1, 2)
        expected = Path(corners).contains_points(points).reshape(30, 30)
        np.testing.assert_array_equal(points_in_polygon(corners, across, down, 1e-9), expected)


def test_a_hollow_polygon_leaves_out_what_its_edges_leave_out():
    u = (
        (0.0, 0.0),
        (100.0, 0.0),
        (100.0, 100.0),
        (70.0, 100.0),
        (70.0, 30.0),
        (30.0, 30.0),
        (30.0, 100.0),
        (0.0, 100.0),
    )
    found = points_in_polygon(u, np.array([15.0, 50.0, 85.0]), np.array([15.0, 65.0]), 1e-6)
    np.testing.assert_array_equal(found, [[True, True], [True, False], [True, True]])


def test_a_prism_reaches_from_top_to_bottom():
    inside = frozen(CUBE, polygons=(PolygonSection(vertices=TRIANGLE, top=10.0, bottom=20.0),))
    assert not inside[..., [0, 3, 4]].any()
    np.testing.assert_array_equal(inside[..., 1], frozen(polygons=(PolygonSection(vertices=TRIANGLE),)))
    np.testing.assert_array_equal(inside[..., 1], inside[..., 2])
    assert frozen(CUBE, polygons=(PolygonSection(vertices=TRIANGLE),)).sum() == 5 * inside[..., 1].sum()


def test_water_above_the_sea_floor_is_frozen(tmp_path):
    assert (frozen(bathymetry=50.0).sum(axis=-1) == 3).all()
    path = tmp_path / "floor.csv"
    path.write_text("x,depth\n0,0\n100,100\n")
    np.testing.assert_array_equal(frozen(bathymetry=path).sum(axis=-1), [0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5])


@pytest.mark.parametrize(
    ("domain", "keys", "message"),
    [
        (
            LINE,
            {"top": 10.0},
            r"polygons\[1\]: has top or bottom, which belong to 3-D models; in 2-D vertices are \[x, z\]",
        ),
        (CUBE, {"top": 100.0}, r"polygons\[1\]: has no cell of the grid, which reaches from \[0.0, 0.0, 0.0\] to"),
    ],
)
def test_a_polygon_that_cannot_be_meant_is_refused(domain, keys, message):
    with pytest.raises(InputError, match=message):
        frozen(domain, polygons=(PolygonSection(vertices=TRIANGLE, **keys),))
