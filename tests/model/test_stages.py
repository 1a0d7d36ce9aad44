"""Stages: their grids, bands, shots and models, and what does not fit."""

from __future__ import annotations

import numpy as np
import pytest

from hpcfwi.config.run import load_run_config
from hpcfwi.errors import InputError
from hpcfwi.model.problem import Problem
from hpcfwi.model.stages import load_problem, problems_of, stages_of
from hpcfwi.model.wavelet import highest_frequency

COARSE = "high = 5.0\nspacing = [40.0, 40.0]\n"


@pytest.fixture
def configured(hpcfwi):
    """The problem of the small configuration with stages, each a text, and settings."""

    path = hpcfwi.folder / "fwi.toml"
    small = path.read_text()

    def build(*stages: str, settings: tuple[str, ...] = (), read=Problem.from_config) -> Problem:
        path.write_text(small + "".join(f"\n[[stage]]\n{text}" for text in stages))
        return read(load_run_config(path, settings))

    return build


def stage_of(problem: Problem, number: int = 1):
    stage = stages_of(problem)[number - 1]
    return stage, stage.problem(problem.initial_velocity)


def test_without_stages_the_only_one_is_the_problem(configured):
    problem = configured()
    (stage,) = stages_of(problem)
    assert stage.problem(problem.initial_velocity) is problem
    model = problem.initial_velocity + 0.25
    assert stage.result(problem.initial_velocity, problem.initial_velocity, model, problem.domain) is model
    assert problems_of(problem) == [problem]


def test_a_stage_changes_what_it_names_and_nothing_else(configured):
    problem = configured('name = "low"\nhigh = 5.0\niterations = 7\nftol = 0.5\n', settings=("inversion.gtol=0.25",))
    stage, own = stage_of(problem)
    assert stage.name == "low"
    assert (own.config.inversion.iterations, own.config.inversion.ftol, own.config.inversion.gtol) == (7, 0.5, 0.25)
    assert own.config.inversion.bounds == problem.config.inversion.bounds
    assert own.domain == problem.domain
    assert highest_frequency(own.wavelet) < highest_frequency(problem.wavelet)
    assert own.processing.names == "bandpass"
    # modelled data do not have the band of the stage yet
    assert own.processing.applied == problem.processing.applied == 0
    assert own.observations is problem.observations


def test_the_band_of_a_stage_comes_after_those_of_the_run_and_before_its_other_steps(configured):
    problem = configured(
        'high = 5.0\n[[stage.processing]]\nkind = "time_gain"\npower = 1.0\n',
        settings=('processing=[{kind="bandpass",high=15.0},{kind="time_window",end=250.0}]',),
    )
    own = stage_of(problem)[1]
    assert own.processing.names == "bandpass, bandpass, time_window, time_gain"
    assert own.processing.applied == 1
    assert len(own.processing.wavelet_bands) == 2


@pytest.mark.parametrize("spacing", [(40.0, 40.0), (33.0, 50.0)])
def test_the_grid_of_a_stage_covers_that_of_the_run(configured, spacing):
    problem = configured(f"high = 5.0\nspacing = {[*spacing]}\n")
    own = stage_of(problem)[1]
    assert own.domain.spacing == spacing
    # four cells more on each side: the interpolation of sources must not reach into the absorbing layer
    assert own.domain.origin == tuple(-4 * step for step in spacing)
    for last, wanted, step in zip(own.domain.last, problem.domain.last, spacing, strict=True):
        assert wanted <= last - 4 * step < wanted + step
    assert own.initial_velocity.shape == own.frozen.shape == own.domain.shape
    assert own.time_steps[0] > problem.time_steps[0]


def test_a_coarser_grid_does_not_reach_above_a_free_surface(configured):
    problem = configured(COARSE, settings=("solver.free_surface=true",))
    assert stage_of(problem)[1].domain.origin == (-160.0, 0.0)


def test_points_per_wavelength_choose_the_grid(configured):
    problem = configured("high = 5.0\npoints_per_wavelength = 4.0\n")
    own = stage_of(problem)[1]
    assert own.dispersion[0] == pytest.approx(4.0, rel=0.02)
    assert own.dispersion[0] >= 4.0
    finest = configured("points_per_wavelength = 90.0\n")
    assert stage_of(finest)[1].domain == finest.domain  # never finer than the run's


def test_coarse_models_keep_the_average_of_the_squared_slowness(configured):
    problem = configured(COARSE)
    stage, own = stage_of(problem)
    rng = np.random.default_rng(1)
    velocity = rng.uniform(2.0, 3.5, problem.domain.shape)
    coarse = stage.start(velocity, own.domain)
    # a point of 40 m stands for 10, 20 and 10 m of cells of 20 m
    m = velocity**-2.0
    weights = np.array([0.25, 0.5, 0.25])
    inner = np.einsum("i,j,ij->", weights, weights, m[1:4, 3:6])
    assert coarse[1 + 4, 2 + 4] == pytest.approx(inner**-0.5, rel=1e-12)
    constant = np.full(problem.domain.shape, 2.5)
    np.testing.assert_allclose(stage.start(constant, own.domain), 2.5, rtol=1e-14)


def test_what_a_coarse_stage_changes_is_added_and_frozen_cells_stay(configured):
    problem = configured(COARSE, settings=("inversion.frozen.depth_above=100.0",))
    stage, own = stage_of(problem)
    assert own.frozen[:, : 3 + 4].all()
    assert not own.frozen[:, 4 + 4 :].any()
    start = own.initial_velocity
    x, z = np.meshgrid(*(-160.0 + 40.0 * np.arange(n) for n in own.domain.shape), indexing="ij")
    end = start + 1e-4 * x + 2e-4 * z
    result = stage.result(problem.initial_velocity, start, end, own.domain)
    frozen = problem.frozen
    np.testing.assert_array_equal(result[frozen], problem.initial_velocity[frozen])
    x, z = np.meshgrid(*(20.0 * np.arange(31),) * 2, indexing="ij")
    expected = problem.initial_velocity + 1e-4 * x + 2e-4 * z  # linear functions are interpolated exactly
    np.testing.assert_allclose(result[~frozen], expected[~frozen], rtol=1e-12)
    far = stage.result(problem.initial_velocity, start, end + 9.0, own.domain)
    assert far[~frozen].max() <= problem.config.inversion.bounds[1]


def test_some_shots_are_spread_evenly_over_the_survey(configured):
    problem = configured("shots = 3\n", settings=("acquisition.sources.count=7",))
    assert stage_of(problem)[1].survey.names == ("0", "3", "6")


def test_the_solver_of_a_stage_does_not_depend_on_its_first_model(configured):
    from hpcfwi.solver.strategies import strategies

    stage, own = stage_of(configured(COARSE))
    other = stage.problem(stage.base.initial_velocity + 0.3)
    assert other.digest != own.digest
    assert strategies(other)[0].spec == strategies(own)[0].spec


def test_limits_do_not_make_another_problem_and_other_keys_do(configured):
    digest = configured("high = 5.0\niterations = 3\n").digest
    assert configured("high = 5.0\niterations = 4\n").digest == digest
    assert configured("high = 5.5\niterations = 3\n").digest != digest


def test_the_same_warning_of_several_stages_is_given_once(configured):
    coarse = 'name = "{}"\nhigh = 9.0\nspacing = [48.0, 48.0]\n'
    one = configured(coarse.format("one"), read=load_problem)
    (alone,) = (text for text in one.warnings if ": dispersion: " in text)
    several = configured(coarse.format("one"), "high = 4.0", coarse.format("three"), read=load_problem)
    (together,) = (text for text in several.warnings if ": dispersion: " in text)
    assert alone.startswith("stage[1] (one): dispersion: ")
    assert together == alone.replace("stage[1] (one)", "stages 1,3")


@pytest.mark.parametrize("phase", ["zero", "causal"])
def test_the_band_of_a_stage_has_the_phase_that_it_names(configured, phase):
    _, own = stage_of(configured(f'high = 5.0\nphase = "{phase}"\n'))
    assert (own.wavelet.lead > 0) == (phase == "zero")


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ("high = 160.0\nlow = 130.0\n", r"stage\[1\] \(130 to 160 Hz\): .*Nyquist"),
        ("spacing = [60.0, 60.0]\n", r"stage\[1\] \(stage 1\): grid.spacing: .* grid points per shortest wavelength"),
        ("spacing = [10.0, 20.0]\n", r"spacing: is \[10.0, 20.0\] m, finer than the grid of the run along x"),
        ("spacing = [40.0, 40.0, 40.0]\n", r"spacing: has 3 axes, but the grid has 2"),
        ("shots = 4\n", r"shots: is 4, but the survey has 3"),
    ],
    ids=["band", "coarse", "fine", "axes", "shots"],
)
def test_stages_that_do_not_fit_are_refused_with_their_number(configured, stage, message):
    with pytest.raises(InputError, match=message):
        configured(stage, read=load_problem)


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ("low = 5.0\nhigh = 4.0\n", "low: is 5 Hz; it should be below high, which is 4 Hz"),
        ("spacing = [40.0, 40.0]\npoints_per_wavelength = 4.0\n", "keep one of the two"),
        ("order = 8\n", "order: goes with low, high or both"),
        ("bounds = [1.0, 2.0]\n", "bounds"),
        ('[[stage.processing]]\nkind = "line_source"\nvelocity = 2.0\n', "line_source belongs into"),
    ],
    ids=["band", "two-spacings", "order", "bounds", "line-source"],
)
def test_mistakes_in_a_stage_name_the_key(configured, stage, message):
    with pytest.raises(InputError, match=message):
        configured(stage)
