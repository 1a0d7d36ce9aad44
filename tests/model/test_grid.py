"""The regular grid."""

from hpcfwi.model.grid import Domain


def test_positions_on_the_edge_are_inside_and_those_beyond_are_not():
    domain = Domain((7, 5), (10.0, 20.0), (0.0, 100.0))
    assert domain.contains([[0.0, 100.0], [60.0, 180.0], [30.5, 111.0]]).all()
    assert not domain.contains([[-0.1, 100.0], [60.0, 180.1], [61.0, 111.0]]).any()
