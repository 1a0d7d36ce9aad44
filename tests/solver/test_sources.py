"""Records in their units: against analytic solutions and finer grids, for positions anywhere."""

import numpy as np
import pytest
from scipy.integrate import trapezoid

from hpcfwi.model.grid import Domain, TimeAxis, courant_limit, safe_step
from hpcfwi.model.processing.sampling import RecordSampling
from hpcfwi.model.survey import Shot
from hpcfwi.model.wavelet import RickerWavelet, SourceSignal, highest_frequency
from hpcfwi.solver.boundary import Cpml
from hpcfwi.solver.engine import DevitoEngine
from hpcfwi.solver.operators import Propagator
from hpcfwi.solver.spec import SolverSpec

WAVELET = RickerWavelet(0.010, 100.0)
VELOCITY = 2.0
SHORTEST = VELOCITY / highest_frequency(WAVELET)  # wavelength, m


def record(spacing, size, source, receivers, duration, *, velocity=None, free_surface=False, points=8, step=None):
    """A record in a model of this size, m, at samples of 2 ms; ``velocity`` is a function of the coordinates."""
    shape = tuple(round(length / spacing) + 1 for length in size)
    domain = Domain(shape, (spacing,) * len(size), (0.0,) * len(size))
    grid = np.meshgrid(*(spacing * np.arange(n) for n in shape), indexing="ij")
    values = np.full(shape, VELOCITY) if velocity is None else velocity(*grid)
    fastest = float(values.max())
    boundary = Cpml(domain, 10, free_surface, velocity=fastest, frequency=WAVELET.frequency)
    sampling = RecordSampling(TimeAxis.covering(duration, 2.0), highest_frequency(WAVELET))
    step = step(domain, 8, fastest) if step is not None else safe_step(domain, 8, fastest)
    axis = TimeAxis.covering(duration + sampling.margin(step), step)
    every = axis.samples  # keeps one level of the wavefield
    spec = SolverSpec(boundary, 8, "float32", axis.samples, every, len(receivers), interpolation_points=points)
    engine = DevitoEngine(Propagator(spec), SourceSignal(WAVELET, spacing ** -len(size)))
    engine.set_model(values**-2.0)
    modelled = engine.record(Shot("0", np.array(source), np.array(receivers)), axis)
    return sampling.operator(axis, "float32").apply(modelled).astype(np.float64), sampling.recording.times


def relative(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


def green_2d(times, source, receiver):
    """``1 / (2 pi)`` times the integral of ``s(t - r cosh(q) / v)`` over q > 0: the line source of a strength s."""
    angles = np.linspace(0, 6, 20001)
    delay = np.linalg.norm(np.subtract(source, receiver)) / VELOCITY * np.cosh(angles)
    r2 = (np.pi * WAVELET.frequency * (times[:, None] - delay - WAVELET.delay)) ** 2
    return trapezoid((1 - 2 * r2) * np.exp(-r2), angles, axis=1) / (2 * np.pi)


def green_3d(times, source, receiver):
    """``s(t - r / v) / (4 pi r)``."""
    distance = np.linalg.norm(np.subtract(source, receiver))
    r2 = (np.pi * WAVELET.frequency * (times - distance / VELOCITY - WAVELET.delay)) ** 2
    return (1 - 2 * r2) * np.exp(-r2) / (4 * np.pi * distance)


@pytest.mark.parametrize("points_per_wavelength", [8, 5])
def test_a_record_in_2d_is_the_line_source_with_its_amplitude(points_per_wavelength):
    source, receivers = (300.3, 400.7), [(700.1, 900.9), (1000.0, 400.0), (350.0, 1000.5)]
    found, times = record(SHORTEST / points_per_wavelength, (1200, 1200), source, receivers, 1200.0)
    for trace, receiver in zip(found.T, receivers, strict=True):
        assert relative(trace, green_2d(times, source, receiver)) < 0.002


def test_a_record_in_3d_is_the_point_source_with_its_amplitude():
    source, receivers = (200.3, 250.7, 300.1), [(500.1, 600.9, 333.0), (600.0, 400.0, 500.0)]
    found, times = record(SHORTEST / 8, (800, 800, 700), source, receivers, 700.0)
    for trace, receiver in zip(found.T, receivers, strict=True):
        assert relative(trace, green_3d(times, source, receiver)) < 0.002


@pytest.mark.parametrize("depth", [1.0, 8.0, 25.2])
def test_positions_just_below_a_free_surface_have_their_ghosts(depth):
    source, receivers = (300.3, depth), [(700.1, 5.0), (900.0, 400.0)]
    found, times = record(SHORTEST / 7, (1200, 800), source, receivers, 1200.0, free_surface=True)
    for trace, receiver in zip(found.T, receivers, strict=True):
        expected = green_2d(times, source, receiver) - green_2d(times, (source[0], -depth), receiver)
        assert relative(trace, expected) < 0.005


def test_the_longest_stable_time_step_gives_the_record_of_a_short_one():
    source, receivers = (300.3, 400.7), [(1000.0, 400.0), (350.0, 1000.5)]
    found, times = record(SHORTEST / 5, (1200, 1200), source, receivers, 1200.0, step=courant_limit)
    for trace, receiver in zip(found.T, receivers, strict=True):
        assert relative(trace, green_2d(times, source, receiver)) < 0.002


def smooth(*axes):
    """A velocity that changes along all axes, 2 to 3 km/s."""
    return 2.5 + 0.5 * np.sin(sum((i + 1) * axis / 300.0 for i, axis in enumerate(axes)))


@pytest.mark.parametrize(
    ("size", "source", "receivers", "duration"),
    [
        ((1200, 1200), (300.0, 400.0), [(700.0, 900.0), (1000.0, 400.0)], 1000.0),
        pytest.param(
            (480, 480, 480), (120.0, 120.0, 120.0), [(360.0, 240.0, 360.0), (240.0, 360.0, 120.0)], 500.0,
            marks=pytest.mark.slow,
        ),
    ],
)  # fmt: skip
def test_half_the_spacing_gives_the_same_record(size, source, receivers, duration):
    spacing = 8.0  # 9 points per shortest wavelength
    coarse, fine = (record(h, size, source, receivers, duration, velocity=smooth)[0] for h in (spacing, spacing / 2))
    assert relative(coarse, fine) < 0.01


@pytest.mark.slow
@pytest.mark.parametrize("free_surface", [False, True])
def test_positions_between_grid_points_give_the_record_of_a_grid_ten_times_finer(free_surface):
    spacing, size = 14.0, (700, 560)  # 5.2 points per shortest wavelength
    receivers = [(500.3, 9.1), (455.7, 333.3), (101.9, 433.4)]
    for source in ((207.0, 6.3), (205.3, 7.7), (201.1, 100.3)):
        coarse, fine = (
            record(h, size, source, receivers, 700.0, velocity=smooth, free_surface=free_surface)[0]
            for h in (spacing, spacing / 10)
        )
        assert relative(coarse, fine) < 0.005
