"""The grid, the sponge and the edge extension."""

import numpy as np
import pytest

from hpcfwi.model.grid import Domain

DOMAINS = [
    Domain((7, 5), (10.0, 20.0), (0.0, 100.0), sponge=3),
    Domain((7, 5), (10.0, 20.0), (0.0, 100.0), sponge=3, free_surface=True),
    Domain((4, 6, 5), (10.0, 10.0, 5.0), (0.0, 0.0, 0.0), sponge=2),
    Domain((4, 6, 5), (10.0, 10.0, 5.0), (0.0, 0.0, 0.0), sponge=2, free_surface=True),
]


@pytest.mark.parametrize("domain", DOMAINS)
def test_extension_repeats_the_edges_as_numpy_pads(domain):
    values = np.random.default_rng(0).standard_normal(domain.shape)
    np.testing.assert_array_equal(domain.extend(values), np.pad(values, domain.widths, mode="edge"))


@pytest.mark.parametrize("domain", DOMAINS)
def test_transpose_of_the_extension_passes_the_dot_product_test(domain):
    rng = np.random.default_rng(1)
    inner, outer = rng.standard_normal(domain.shape), rng.standard_normal(domain.padded_shape)
    left = (domain.extend(inner) * outer).sum()
    assert left == pytest.approx((inner * domain.extend_transpose(outer)).sum(), rel=1e-13)


@pytest.mark.parametrize("domain", DOMAINS)
def test_crop_takes_the_physical_part(domain):
    values = np.random.default_rng(2).standard_normal(domain.shape)
    np.testing.assert_array_equal(domain.crop(domain.extend(values)), values)


def test_positions_on_the_edge_are_inside_and_those_beyond_are_not():
    domain = DOMAINS[0]
    assert domain.contains([[0.0, 100.0], [60.0, 180.0], [30.5, 111.0]]).all()
    assert not domain.contains([[-0.1, 100.0], [60.0, 180.1], [61.0, 111.0]]).any()


@pytest.mark.parametrize("free_surface", [False, True])
def test_damping_is_that_of_devitos_examples(free_surface):
    seismic = pytest.importorskip("examples.seismic")
    domain = Domain((21, 31), (10.0, 10.0), (0.0, 0.0), sponge=12, free_surface=free_surface)
    theirs = seismic.Model(
        vp=np.full(domain.shape, 2.0),
        origin=domain.origin,
        shape=domain.shape,
        spacing=domain.spacing,
        nbl=domain.sponge,
        space_order=4,
        bcs="damp",
        fs=free_surface,
        dtype=np.float64,
    )
    np.testing.assert_allclose(domain.damping(), theirs.damp.data, rtol=1e-12, atol=1e-15)
