"""Windows around shots: their shape and place, and sums of their gradients."""

import numpy as np
import pytest

from hpcfwi.inversion.functional_gradient import FunctionalGradient, total
from hpcfwi.model.grid import Domain
from hpcfwi.model.survey import Shot, Survey
from hpcfwi.model.windows import Windows, cut, embed

LINE = Domain((601, 41), (10.0, 10.0), (1000.0, 0.0))


def shot(x, offsets=(100.0, 800.0), z=20.0):
    receivers = np.array([(x + offset, z) for offset in np.linspace(*offsets, 5)])
    return Shot(str(x), np.array([x, z]), receivers)


def windows(*shots, aperture=200.0, domain=LINE):
    return Windows.around(Survey(tuple(shots)), domain, aperture)


def test_a_window_holds_source_and_receivers_and_the_aperture_beyond_them():
    line = [shot(x) for x in np.arange(1500.0, 5500.0, 137.0)]
    found = windows(*line)
    assert found.shape == (122, 41)  # 1200 m may lie between grid points at both ends
    for each in line:
        start = found.start(each)
        left, right = (1000.0 + 10.0 * index for index in (start[0], start[0] + 121))
        assert left <= each.source[0] - 200 + 1e-6
        assert right >= each.receivers[-1, 0] + 200 - 1e-6
        assert start[1] == 0


def test_at_the_ends_of_the_model_a_window_is_shifted():
    found = windows(shot(1000.0), shot(3000.0), shot(6200.0))
    assert found.start(shot(1000.0)) == (0, 0)
    assert found.start(shot(6200.0)) == (601 - found.shape[0], 0)


def test_a_window_is_never_larger_than_the_model():
    found = windows(shot(3000.0), aperture=1e6)
    assert found.shape == LINE.shape
    assert found.start(shot(3000.0)) == (0, 0)


def test_all_windows_have_the_shape_of_the_largest():
    long, short = shot(2000.0, (100.0, 2000.0)), shot(2000.0, (100.0, 300.0))
    found = windows(long, short)
    assert found.shape == windows(long).shape
    start = found.start(short)[0]
    assert start <= (2000.0 - 200.0 - 1000.0) / 10 <= start + found.shape[0]


def test_windows_in_3d_are_cut_along_both_horizontal_axes():
    volume = Domain((101, 81, 21), (10.0, 20.0, 10.0), (0.0, 0.0, 0.0))
    each = Shot("0", np.array([500.0, 800.0, 10.0]), np.array([[400.0, 700.0, 10.0], [600.0, 900.0, 10.0]]))
    found = windows(each, aperture=100.0, domain=volume)
    assert found.shape == (41, 21, 21)
    assert found.start(each) == (30, 30, 0)
    assert found.domain.shape == found.shape
    first, last = found.corners(each)
    np.testing.assert_array_equal(first, [300.0, 600.0, 0.0])
    np.testing.assert_array_equal(last, [700.0, 1000.0, 200.0])


def test_blocks_are_cut_out_and_put_back():
    values = np.arange(24.0).reshape(6, 4)
    block = cut(values, (2, 1), (3, 2))
    np.testing.assert_array_equal(block, values[2:5, 1:3])
    whole = embed(block, (2, 1), (6, 4))
    np.testing.assert_array_equal(whole[2:5, 1:3], block)
    assert whole.sum() == block.sum()
    assert cut(values, (), (6, 4)) is values


def blocks(generator, count, shape=(30, 8)):
    parts = []
    for _ in range(count):
        size = (7, 8)
        start = (int(generator.integers(0, shape[0] - size[0] + 1)), 0)
        parts.append(FunctionalGradient(float(generator.normal()), generator.normal(size=size), start))
    return parts


def test_a_sum_of_blocks_has_the_bytes_of_the_sum_of_whole_gradients():
    parts = blocks(np.random.default_rng(2), 20)
    whole = total(FunctionalGradient(part.f, embed(part.g, part.start, (30, 8))) for part in parts)
    summed = total(parts)
    assert summed.f == whole.f
    np.testing.assert_array_equal(embed(summed.g, summed.start, (30, 8)), whole.g)
    by_plus = sum(parts)
    np.testing.assert_array_equal(embed(by_plus.g, by_plus.start, (30, 8)), whole.g)


def test_a_sum_of_neighbours_holds_their_block_only():
    near = [FunctionalGradient(1.0, np.ones((7, 8)), (start, 0)) for start in (10, 12, 11)]
    summed = total(near)
    assert (summed.start, summed.g.shape) == ((10, 0), (9, 8))
    assert near[0].g.shape == (7, 8)
    np.testing.assert_array_equal(near[0].g, 1.0)


def test_a_block_is_not_added_to_a_whole_gradient():
    with pytest.raises(ValueError, match="cannot be added"):
        total([FunctionalGradient(0.0, np.ones((7, 8)), (1, 0)), FunctionalGradient(0.0, np.ones((30, 8)))])
