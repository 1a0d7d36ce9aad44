"""The sponge: its cells, how a model extends into them, and its damping."""

import numpy as np
import pytest

from hpcfwi.model.grid import Domain
from hpcfwi.solver.boundary import Sponge

PLANE, BALL = Domain((7, 5), (10.0, 20.0), (0.0, 100.0)), Domain((4, 6, 5), (10.0, 10.0, 5.0), (0.0, 0.0, 0.0))
SPONGES = [Sponge(PLANE, 3), Sponge(PLANE, 3, free_surface=True), Sponge(BALL, 2), Sponge(BALL, 2, free_surface=True)]


@pytest.mark.parametrize("sponge", SPONGES)
def test_extension_repeats_the_edges_as_numpy_pads(sponge):
    values = np.random.default_rng(0).standard_normal(sponge.domain.shape)
    np.testing.assert_array_equal(sponge.extend(values), np.pad(values, sponge.widths, mode="edge"))


@pytest.mark.parametrize("sponge", SPONGES)
def test_transpose_of_the_extension_passes_the_dot_product_test(sponge):
    rng = np.random.default_rng(1)
    inner, outer = rng.standard_normal(sponge.domain.shape), rng.standard_normal(sponge.padded_shape)
    left = (sponge.extend(inner) * outer).sum()
    assert left == pytest.approx((inner * sponge.extend_transpose(outer)).sum(), rel=1e-13)


@pytest.mark.parametrize("sponge", SPONGES)
def test_crop_undoes_the_extension(sponge):
    values = np.random.default_rng(2).standard_normal(sponge.domain.shape)
    np.testing.assert_array_equal(sponge.crop(sponge.extend(values)), values)


@pytest.mark.parametrize("free_surface", [False, True])
def test_damping_is_that_of_devitos_examples(free_surface):
    seismic = pytest.importorskip("examples.seismic")
    domain = Domain((21, 31), (10.0, 10.0), (0.0, 0.0))
    theirs = seismic.Model(
        vp=np.full(domain.shape, 2.0),
        origin=domain.origin,
        shape=domain.shape,
        spacing=domain.spacing,
        nbl=12,
        space_order=4,
        bcs="damp",
        fs=free_surface,
        dtype=np.float64,
    )
    found = Sponge(domain, 12, free_surface).damping()
    np.testing.assert_allclose(found, theirs.damp.data, rtol=1e-12, atol=1e-15)
