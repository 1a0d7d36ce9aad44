"""Problems: sampling in space and time, bounds, identity, observed data."""

from __future__ import annotations

import copy
import math
import re
import tomllib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcfwi.cluster.layout import ShotTooLarge
from hpcfwi.config.messages import validate
from hpcfwi.config.parsing import apply_settings, parse_setting
from hpcfwi.config.run import RunConfig
from hpcfwi.errors import DataError, InputError
from hpcfwi.model.grid import courant_limit
from hpcfwi.model.problem import Problem
from hpcfwi.run.plan import make_plan

ROOT = Path(__file__).parents[2]
CIRCLE = tomllib.loads((ROOT / "jobs/circle.toml").read_text(encoding="utf-8"))
MARMOUSI = tomllib.loads((ROOT / "jobs/marmousi.toml").read_text(encoding="utf-8"))
MARMOUSI_FILE = ROOT.parent / "shared/data/vp_marmousi_bi"


def configure(*changes: str, base: dict = CIRCLE, **sections: dict) -> RunConfig:
    content = apply_settings(base, [parse_setting(change) for change in changes]) | sections
    return validate(RunConfig, content, "x.toml")


def problem(*changes: str, base: dict = CIRCLE, **sections: dict) -> Problem:
    return Problem.from_config(configure(*changes, base=base, **sections))


def refused(*changes: str, **sections: dict) -> str:
    with pytest.raises(InputError) as caught:
        problem(*changes, **sections)
    return str(caught.value)


def advice(pattern: str, text: str) -> float:
    found = re.search(pattern, text)
    assert found, f"{pattern!r} is not in {text!r}"
    return float(found[1])


# The time step


def test_fixed_step_is_stable_for_bounds_and_models():
    assert problem().fixed_step < courant_limit(problem().domain, 4, 4.0)
    faster = problem("model.inside=5.5")
    assert faster.fixed_step < courant_limit(faster.domain, 4, 5.5)
    frozen = problem(
        "inversion.frozen.depth_above=300",
        initial={"kind": "layers", "velocities": [6.0, 2.5], "interfaces": [310.0]},
    )
    assert frozen.fixed_step < courant_limit(frozen.domain, 4, 6.0)


FOLLOWING = ["solver.boundary=sponge", "solver.boundary_gradient=exact"]


def test_a_critical_step_is_stable_in_a_frozen_layer_that_is_faster_than_the_model():
    frozen = problem("solver.time_step=critical")
    slow = np.full((101, 101), 2.0)  # the initial model has 2.5 km/s at its edges
    assert frozen.time_axis(slow) == frozen.time_axis(frozen.initial_velocity)


def test_the_highest_velocity_in_the_layer_is_that_of_the_edges():
    assert problem().edge_velocity == 2.5  # the circle's 3 km/s are inside
    at_the_edge = {"kind": "layers", "velocities": [2.5, 2.8], "interfaces": [990.0]}
    assert problem(initial=at_the_edge).edge_velocity == 2.8


def test_storages_of_the_same_bytes_are_the_same_problem():
    digests = {name: problem(f"solver.wavefield={name}").digest for name in ("auto", "sampled", "checkpointed", "disk")}
    assert set(digests.values()) == {problem().digest}
    assert len({problem(f"solver.wavefield={name}").digest for name in ("auto", "compressed", "full")}) == 3


def test_the_edges_of_windows_may_be_anywhere_in_the_model():
    whole, windowed = problem(), problem("acquisition.aperture=0")
    assert whole.edge_velocity == 2.5
    assert windowed.edge_velocity == 3.0  # that of the circle
    critical = problem("acquisition.aperture=0", "solver.time_step=critical", initial={"kind": "circle", "inside": 2.9})
    slow = np.full(critical.domain.shape, 2.0)
    assert critical.time_axis(slow) == critical.time_axis(critical.initial_velocity)


def test_the_default_width_of_the_layer_is_the_same_problem_as_its_number():
    assert problem("solver.layer=10").digest == problem().digest != problem("solver.layer=11").digest


def test_a_layer_that_is_wider_than_the_model_is_refused():
    message = refused("solver.layer=102")
    assert message.startswith(
        "solver.layer: 102 cells are more than the 101 grid points of the model along x; take at most 101"
    )


def test_fixed_step_is_that_of_every_model_and_critical_follows_it():
    # an absorbing layer that follows the model does not limit the step
    fixed, critical = problem(), problem("solver.time_step=critical", *FOLLOWING)
    slow, fast = np.full((101, 101), 2.0), np.full((101, 101), 4.0)
    assert fixed.time_axis(slow) == fixed.time_axis(fast)
    assert critical.time_axis(slow).step == pytest.approx(2 * critical.time_axis(fast).step, rel=1e-3)
    assert critical.time_axis(fast).samples <= critical.time_samples


def test_a_courant_violation_is_refused_with_a_step_that_is_stable():
    message = refused("solver.time_step=1.9")
    assert message.startswith(
        "solver.time_step: 1.9 ms is unstable (Courant): for 4 km/s, a spacing of 10 m and space order 4"
    )
    limit = advice(r"may be at most ([\d.]+) ms", message)
    assert problem(f"solver.time_step={limit}").fixed_step == limit
    assert "unstable" in refused(f"solver.time_step={limit + 0.001}")
    fixed = advice(r'"fixed" would take ([\d.]+) ms', message)
    assert problem().fixed_step == pytest.approx(fixed)


# Nyquist and dispersion


def test_a_nyquist_violation_is_refused_with_an_interval_and_a_frequency_that_fit():
    message = refused("data.sample_interval=20")
    assert message.startswith(
        "data.sample_interval: 20 ms resolves frequencies up to 25 Hz (Nyquist), but the wavelet reaches 27.6"
    )
    interval = advice(r"at most ([\d.]+) ms", message)
    frequency = advice(r"wavelet\.peak_frequency of at most ([\d.]+) Hz", message)
    assert problem(f"data.sample_interval={interval}")
    assert problem("data.sample_interval=20", f"wavelet.peak_frequency={frequency}")
    assert "Nyquist" in refused(f"data.sample_interval={interval + 0.01}")


def test_too_few_points_per_wavelength_are_refused_with_a_spacing_and_a_frequency_that_fit():
    message = refused("wavelet.peak_frequency=25")
    points = 1.4 / (0.025 * 2.7609 * 10)
    assert message.startswith(f"grid.spacing: {points:.2f} grid points per shortest wavelength (1.4 km/s at 69.0")
    assert "at least 2.5 are needed" in message
    frequency = advice(r"wavelet\.peak_frequency of at most ([\d.]+) Hz", message)
    spacing = advice(r"spacing of at most ([\d.]+) m", message)
    assert problem(f"wavelet.peak_frequency={frequency}").warnings
    assert "at least 2.5 are needed" in refused(f"wavelet.peak_frequency={frequency + 0.01}")
    shape = math.ceil(1000 / spacing) + 1
    finer = ("wavelet.peak_frequency=25", f"grid.spacing=[{spacing}, {spacing}]", f"grid.shape=[{shape}, {shape}]")
    assert problem(*finer)


def test_a_wavelet_from_a_file_is_refused_with_the_highest_frequency_it_may_have(tmp_path):
    times = np.arange(100) * 2.0
    r2 = (np.pi * 0.025 * (times - 60)) ** 2
    np.save(tmp_path / "w.npy", (1 - 2 * r2) * np.exp(-r2))
    message = refused(wavelet={"kind": "file", "file": str(tmp_path / "w.npy"), "sample_interval": 2.0})
    assert advice(r"a wavelet without frequencies above ([\d.]+) Hz", message) == pytest.approx(56, rel=0.01)


def test_dispersion_is_a_warning_whose_advice_helps():
    (warning,) = problem("solver.space_order=2").warnings
    assert re.match(
        r"dispersion: 5\.07 grid points per shortest wavelength .*off by about [+-]\d+\.\d %; a finer", warning
    )
    assert "a finer grid or a higher solver.space_order would reduce it" in warning
    error = abs(problem("solver.space_order=2").dispersion[1])
    assert abs(problem("solver.space_order=4").dispersion[1]) < error
    assert abs(problem("solver.space_order=2", "grid.spacing=[5, 5]", "grid.shape=[201, 201]").dispersion[1]) < error
    fine = ("inversion.bounds=[2.4, 2.6]", "model.inside=2.6", "solver.space_order=16", "wavelet.peak_frequency=25")
    assert not problem(*fine).warnings
    fine += ("solver.time_dispersion=kept",)
    (warning,) = problem(*fine).warnings
    assert "a shorter solver.time_step would reduce it" in warning
    assert not problem(*fine, "solver.time_step=0.5").warnings
    assert not problem("solver.space_order=16", "wavelet.peak_frequency=5").warnings


def test_very_long_waves_cause_no_warning():
    assert not [text for text in problem("wavelet.peak_frequency=0.001").warnings if text.startswith("dispersion")]


@pytest.fixture
def synthetic_marmousi(tmp_path):
    """A file like Marmousi's: water over sediments over fast layers, 1601 x 401 samples of float32."""
    depth = np.linspace(0, 1, 401)
    velocity = np.where(depth < 0.06, 1.5, 1.6 + 3.1 * depth)
    path = tmp_path / "vp"
    np.broadcast_to(velocity, (1601, 401)).astype("<f4").tofile(path)
    return path


def check_marmousi(file: Path) -> Problem:
    made = problem(f"model.file={file}", base=MARMOUSI)
    assert made.domain.shape == (401, 101)
    assert len(made.survey) == 16
    points, error = made.dispersion
    assert points == pytest.approx(3.4, abs=0.05)
    assert abs(error) < 0.011
    assert not [warning for warning in made.warnings if "dispersion" in warning]
    water = made.true_velocity <= 1.5
    assert 0.02 < water.mean() < 0.3
    np.testing.assert_array_equal(made.initial_velocity[water], made.true_velocity[water])
    return made


def test_marmousi_at_thirty_metres_is_a_problem(synthetic_marmousi):
    check_marmousi(synthetic_marmousi)


@pytest.mark.skipif(not MARMOUSI_FILE.exists(), reason=f"{MARMOUSI_FILE.name} is not here")
def test_the_real_marmousi_is_a_problem():
    made = check_marmousi(MARMOUSI_FILE)
    assert made.velocity_error(made.initial_velocity) == pytest.approx(0.1339, abs=2e-4)


# What is inverted for


def test_bounds_include_the_initial_model():
    message = refused("inversion.bounds=[2.6, 4.0]")
    assert message.startswith(
        "inversion.bounds: [2.6, 4] km/s exclude the initial model, whose velocities go from 2.5 to 2.5"
    )


@pytest.mark.parametrize("bounds", [[1.4, 4.1], [1.6, 3.3], [0.7, 4.7]])
def test_a_result_at_the_bounds_is_accepted_as_an_initial_model(tmp_path, bounds):
    saved = np.linspace(*bounds, 101 * 101, dtype=np.float32).reshape(101, 101)
    np.save(tmp_path / "model.npy", saved)
    made = problem(f"inversion.bounds={bounds}", initial={"kind": "file", "file": str(tmp_path / "model.npy")})
    assert made.initial_velocity.min() >= bounds[0]
    assert made.initial_velocity.max() <= bounds[1]
    np.testing.assert_array_equal(made.initial_velocity.astype(np.float32), saved)
    np.save(tmp_path / "model.npy", saved * np.float32(1 + 1e-6))
    assert "exclude the initial model" in refused(
        f"inversion.bounds={bounds}", initial={"kind": "file", "file": str(tmp_path / "model.npy")}
    )


def test_a_file_of_a_finer_model_gives_the_grid_its_shape(tmp_path):
    np.save(tmp_path / "v.npy", np.full((251, 201), 2.5, "f4"))
    section = {"kind": "file", "file": str(tmp_path / "v.npy"), "spacing": [4.0, 5.0]}
    content = {**CIRCLE["grid"]}
    del content["shape"]
    made = problem(initial=section, grid=content)
    assert made.domain.shape == (101, 101)
    assert problem(initial=section).domain.shape == (101, 101)
    assert "covers x from 0 to 1000 m" in refused("grid.shape=[103, 101]", initial=section)


def test_a_survey_that_would_fit_the_transposed_file_names_the_order_of_its_axes(tmp_path):
    np.save(tmp_path / "v.npy", np.full((51, 101), 2.5))
    section = {"kind": "file", "file": str(tmp_path / "v.npy")}
    survey = ("acquisition.sources.last=[20, 500]", "acquisition.receivers.last=[980, 500]")
    grid = {"spacing": [10.0, 10.0]}
    message = refused(*survey, initial=section, model=section, grid=grid)
    assert message == (
        f'model.file: {tmp_path / "v.npy"} looks transposed: with the axes "xz" 101 sources and receivers are outside of its '
        'grid of (51, 101) points, with the axes reversed all are inside; set model.axes = "zx"'
    )
    right = section | {"axes": "zx"}
    assert problem(*survey, initial=right, model=right, grid=grid).domain.shape == (101, 51)
    assert "outside the model" in refused(
        "acquisition.receivers.last=[2000, 500]", initial=section, grid=grid, model=section
    )


def test_water_saved_in_single_precision_is_frozen(tmp_path):
    velocity = np.full((101, 101), 2.5, dtype=np.float32)
    velocity[:, :5] = 1.6  # rounds up
    np.save(tmp_path / "v.npy", velocity)
    made = problem("inversion.frozen.velocity_below=1.6", model={"kind": "file", "file": str(tmp_path / "v.npy")})
    assert made.frozen.sum() == 5 * 101


def test_frozen_cells_may_be_outside_the_bounds(tmp_path):
    mask = np.zeros((101, 101))
    mask[3, 4] = 1
    np.save(tmp_path / "mask.npy", mask)
    layers = {"kind": "layers", "velocities": [1.3, 2.5], "interfaces": [100.0]}
    made = problem("inversion.frozen.depth_above=95", model=layers, initial=layers)
    assert made.frozen[:, :10].all()
    assert not made.frozen[:, 10:].any()
    assert problem(f"inversion.frozen.mask_file={tmp_path / 'mask.npy'}").frozen.sum() == 1


@pytest.mark.parametrize("keep", [True, False])
def test_a_gradient_to_start_from_keeps_the_true_water(keep):
    layers = {"kind": "layers", "velocities": [1.49, 2.5], "interfaces": [100.0]}
    start = {
        "kind": "gradient",
        "velocity": 1.6,
        "top": 0.0,
        "bottom": 3000.0,
        "bottom_velocity": 4.2,
        "keep_frozen": keep,
    }
    made = problem("inversion.frozen.velocity_below=1.5", model=layers, initial=start)
    gradient = 1.6 + 2.6 * 10.0 * np.arange(101) / 3000
    kept = np.where(np.arange(101) < 10, 1.49, gradient) if keep else gradient
    np.testing.assert_allclose(made.initial_velocity, np.broadcast_to(kept, (101, 101)))


@pytest.mark.parametrize("key", ["conditioning.smoothing.length", "regularisation.tikhonov.axes"])
def test_values_for_each_axis_fit_the_grid(key):
    others = () if key.startswith("cond") else ("inversion.regularisation.tikhonov.weight=1",)
    assert f"inversion.{key}: has 3 values, but the grid has 2 axes" in refused(
        f"inversion.{key}=[1.0, 2.0, 3.0]", *others
    )


def test_conditioning_and_regularisation_belong_to_the_identity():
    settings = (
        "inversion.conditioning.soft_bounds=0.1",
        "inversion.conditioning.taper=100",
        "inversion.conditioning.smoothing.length=100",
        "inversion.regularisation.tikhonov.weight=1",
        "inversion.regularisation.total_variation.weight=1",
    )
    assert len({problem(*each).digest for each in ((), *((one,) for one in settings))}) == 6


def test_a_completely_frozen_model_is_refused():
    assert refused("inversion.frozen.depth_above=1000") == (
        "inversion.frozen: freezes every cell of the model, so there is nothing to invert for"
    )


def test_receivers_outside_the_model_are_refused_with_shot_position_and_limits():
    message = refused("acquisition.receivers.last=[980, 1001]")
    assert message == (
        "shot 0: receiver 101 at (980, 1001) m is outside the model, which covers x 0 to 1000 m, z 0 to 1000 m"
    )


FREE = ("solver.free_surface=true",)


def test_positions_on_a_free_surface_are_refused_and_the_advice_moves_them():
    message = refused(*FREE, "acquisition.receivers.first=[980, 0]", "acquisition.receivers.last=[980, 0.000001]")
    assert message.startswith("shot 0: source is on the free surface (z = 0 m), where the pressure is always zero; ")
    change = message.rpartition("--set ")[2]
    assert change == "acquisition.minimum_depth=5"
    moved = problem(*FREE, "acquisition.sources.count=3", change)
    assert moved.survey.shots[0].source.tolist() == [20.0, 5.0]
    assert moved.survey.shots[1].source.tolist() == [20.0, 500.0]
    assert (
        "acquisition.minimum_depth: moved the source of 1 shot (0) and receivers of 3 shots (0, 1, 2) down to 5 m"
        in moved.warnings
    )


def test_the_depth_that_is_advised_counts_from_the_models_origin():
    message = refused(
        *FREE, "grid.origin=[0, -40]", "acquisition.sources.first=[20, -40]", "acquisition.receivers.first=[980, 0]"
    )
    assert message.endswith("moved there: --set acquisition.minimum_depth=-35")


def test_positions_above_the_model_are_moved_down_on_request():
    above = ("acquisition.receivers.first=[980, -3]",)
    assert "receiver 1 at (980, -3) m is outside the model" in refused(*above)
    moved = problem(*above, "acquisition.minimum_depth=0")
    assert moved.survey.shots[0].receivers[0].tolist() == [980.0, 0.0]
    assert any("receivers of 11 shots (0, 1, 2, 3, 4 and 6 more) down to 0 m" in text for text in moved.warnings)
    assert problem("acquisition.minimum_depth=0").warnings == problem().warnings


def test_extrapolated_data_do_not_go_with_corrected_time_dispersion():
    with pytest.raises(InputError, match=r'data\.tail: is "extrapolate", .*add solver\.time_dispersion = "kept"'):
        problem("data.tail=extrapolate")
    kept = problem("data.tail=extrapolate", "solver.time_dispersion=kept")
    assert kept.time_axis(kept.initial_velocity).times[-1] < problem().time_axis(kept.initial_velocity).times[-1]


def test_records_that_lose_a_part_of_the_wavelet_are_a_warning_whose_advice_helps():
    (warning,) = problem("data.sample_interval=17").warnings
    assert warning.startswith(
        "data.sample_interval: at 17 ms, predicted records are complete up to 23.7 Hz, but the wavelet"
    )
    interval = advice(r"; ([\d.]+) ms would keep", warning)
    assert not problem(f"data.sample_interval={interval}").warnings
    assert problem(f"data.sample_interval={1.02 * interval}").warnings


@pytest.mark.parametrize(
    ("delay", "message"),
    [
        (40, "wavelet: begins with .* % of its peak at once"),
        (5000, "wavelet: its peak comes after the end of the record"),
    ],
)
def test_a_wavelet_that_the_record_cuts_is_a_warning(delay, message):
    (warning,) = problem(f"wavelet.delay={delay}").warnings
    assert re.match(message, warning), warning
    assert not problem("wavelet.delay=90").warnings


def test_a_source_is_divided_by_the_volume_of_a_cell():
    assert problem("grid.spacing=[10, 12.5]", "acquisition.receivers.last=[980, 990]").source_signal.scale == 1 / 125
    assert problem("solver.source_scaling=none").source_signal.scale == 1


# What it takes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            ["grid.shape=[1000000, 1000000]"],
            r"grid\.shape: \(1000000, 1000000\) is too large: its models alone need 4\.8e\+04 GB",
        ),
        (
            ["data.recording_time=1e8"],
            r"data\.recording_time: 1e\+08 ms are .* samples of .* ms \(solver\.time_step\); at most",
        ),
        (
            ["data.sample_interval=1e-6"],
            r"data\.recording_time: 1000 ms are 1e\+09 samples of 1e-06 ms \(data\.sample_interval\)",
        ),
    ],
)
def test_absurd_sizes_are_refused_before_anything_is_allocated(changes, message):
    assert re.match(message, refused(*changes))


def test_a_plan_has_grid_steps_memory_and_disk():
    made = problem()
    rows = dict(make_plan(made).rows)
    assert rows["grid"] == "101 x 101 points, 121 x 121 with 10 cells of CPML, absorbing on all sides"
    assert rows["survey"] == "11 shots, 1111 traces of 251 samples"
    assert rows["time axis"].startswith(
        f"{made.time_axis(made.initial_velocity).samples} samples of {made.fixed_step:.4g} ms (fixed; stable"
    )
    assert re.fullmatch(r"sampled: \d+ snapshots, every \d+ steps; checkpointed if .*", rows["forward wavefield"])
    assert re.match(r"about [\d.]+ MB: observed data [\d.]+ MB, journal", rows["disk"])
    assert rows["dispersion"] == "5.07 grid points per shortest wavelength, whose speed is off by -1.2 %"
    assert rows["unknowns"].startswith("10201 cells, 0 frozen")


def test_plan_of_every_step_needs_more_memory():
    sampled, full = make_plan(problem()), make_plan(problem("solver.wavefield=full"))
    assert dict(full.rows)["forward wavefield"].endswith("every step")
    assert full.shot_bytes > 3 * sampled.shot_bytes
    memory = {cost.strategy.name: cost.memory_bytes for cost in full.costs}
    assert memory["full"] - memory["sampled"] == full.shot_bytes - sampled.shot_bytes
    assert (sampled.chosen, full.chosen) == ("sampled", "full")


# Which problem it is


def test_more_iterations_are_the_same_problem_but_other_bounds_are_not():
    assert problem("inversion.iterations=3", "output.figures=false").digest == problem().digest
    assert problem("inversion.bounds=[1.4, 4.1]").digest != problem().digest


def test_content_of_a_file_belongs_to_the_problem(tmp_path):
    path = tmp_path / "v.npy"
    section = {"kind": "file", "file": str(path)}
    np.save(path, np.full((101, 101), 2.5))
    one = problem(model=section).digest
    np.save(path, np.full((101, 101), 2.6))
    assert problem(model=section).digest != one


# Observed data


def steps(*written: dict) -> dict:
    return {"processing": list(written)}


LOW_PASS = {"kind": "bandpass", "high": 8.0, "order": 8}


def test_a_band_pass_lowers_the_frequencies_that_grid_and_records_have_to_carry():
    coarse = ("grid.spacing=[25,25]", "grid.shape=[41,41]")
    points = refused(*coarse, "wavelet.peak_frequency=25")
    assert "2.5 are needed" in points
    low = problem(*coarse, "wavelet.peak_frequency=25", **steps(LOW_PASS))
    assert low.dispersion[0] > 3
    assert low.sampling.lead > 0
    raw = problem()
    assert low.axis_with_step(2.0).samples > raw.axis_with_step(2.0).samples
    late = problem(**steps({"kind": "normalise"}, LOW_PASS))
    assert (late.wavelet, late.sampling) == (raw.wavelet, raw.sampling)


def test_a_step_belongs_to_the_problem_and_picks_do_so_with_their_content(tmp_path):
    picks = tmp_path / "picks.csv"
    mute = steps({"kind": "top_mute", "picks": str(picks)})
    picks.write_text("offset,time\n0,10\n")
    first = problem(**mute).digest
    assert first != problem().digest
    picks.write_text("offset,time\n0,11\n")
    assert problem(**mute).digest != first
    picks.write_text("# the same\noffset,time\n0,10\n")
    other = picks.rename(tmp_path / "moved")
    (tmp_path / "folder").mkdir()
    moved = other.rename(tmp_path / "folder" / "picks.csv")
    assert problem(**steps({"kind": "top_mute", "picks": str(moved)})).digest == first
    picks.write_text("shot,offset,time\n0,0,10\n3,0,10\n")
    assert refused(**mute).startswith("processing[1].picks: has no picks of 9 shots: 1, 2, 4, 5, 6 and 4 more")
    assert problem(**steps(LOW_PASS)).digest != problem(**steps(LOW_PASS | {"phase": "causal"})).digest


def test_a_resampling_that_does_not_carry_the_wavelet_is_refused_or_a_warning_and_the_advice_helps():
    def resample(interval):
        return steps({"kind": "resample", "sample_interval": interval})

    message = refused(**resample(20.0))
    assert message.startswith(
        "processing[1].sample_interval: 20 ms resolves frequencies up to 25 Hz (Nyquist), but the wavelet"
    )
    most = advice(r"at most ([\d.]+) ms", message)
    (warning,) = problem(**resample(most)).warnings
    assert "processing[1].sample_interval" in warning
    assert not problem(**resample(advice(r"; ([\d.]+) ms would keep", warning))).warnings


def test_a_corner_above_the_nyquist_frequency_of_its_place_in_the_list_is_refused():
    band = {"kind": "bandpass", "high": 100.0}
    assert not problem(**steps(band)).warnings
    message = refused(**steps({"kind": "resample", "sample_interval": 8.0}, band))
    assert message == (
        "processing[2].high: 100 Hz is not below 62.5 Hz, the Nyquist frequency of gathers with a sample interval of 8 ms"
    )


@pytest.mark.parametrize(
    ("step", "warning"),
    [
        ({"kind": "bandpass", "low": 60.0}, r"the band-passes leave [\d.e-]+ % of the wavelet's peak amplitude"),
        ({"kind": "bandpass", "low": 2.0, "high": 10.0}, r"reach 479 ms beyond a sample, .* of 1000 ms, is tapered"),
    ],
)
def test_a_band_pass_that_leaves_little_is_a_warning(step, warning):
    assert any(re.search(warning, text) for text in problem(**steps(step)).warnings)


def test_a_correction_of_observed_data_alone_is_said(tmp_path):
    gathers = tmp_path / "gathers"
    gathers.mkdir()
    for shot in problem().survey.shots:
        np.save(gathers / f"{shot.name}.npy", np.ones((251, len(shot.receivers)), dtype=np.float32))
    found = problem(f"data.file={gathers}", **steps({"kind": "line_source", "velocity": 2.5}))
    assert "processing[1]: line_source changes the observed gathers, not the predicted ones" in found.warnings


def test_the_first_gather_is_checked_before_anything_runs(tmp_path):
    for shot in range(11):
        np.save(tmp_path / f"{shot}.npy", np.zeros((101, 251)))
    with pytest.raises(
        DataError, match=r"^shot 0: its gather in data\.file has the shape \(101, 251\).*it looks transposed"
    ):
        problem(f"data.file={tmp_path}")
    np.save(tmp_path / "0.npy", np.zeros((251, 101)))
    assert problem(f"data.file={tmp_path}").recording.samples == 251


def test_gathers_longer_than_the_recording_are_a_warning_and_shorter_ones_an_error_whose_advice_helps(tmp_path):
    for shot in range(11):
        np.save(tmp_path / f"{shot}.npy", np.zeros((300, 101)))
    (warning,) = problem(f"data.file={tmp_path}").warnings
    assert "that of shot 0 has 300 samples of 4 ms (1196 ms), of which the first 251 are used" in warning
    assert not problem(f"data.file={tmp_path}", "data.recording_time=1196").warnings
    message = refused(f"data.file={tmp_path}", "data.recording_time=1300")
    assert "is 1196 ms long (300 samples of 4 ms), but data.recording_time needs 1300 ms (326 samples)" in message


def one_of(*values):
    return st.sampled_from(values)


def pairs(*values):
    return st.lists(st.sampled_from(values), min_size=2, max_size=2)


VELOCITIES = (0.1, 1.4, 2.4, 2.5, 4.0, 15.0)
PLACES = (-1e8, 0.0, 20.0, 500.0, 980.0, 1000.0, 1e8)
TIMES = (1e-6, 0.01, 0.1, 1.0, 10.0, 1e3, 1e5, 1e8)
# Values that each key takes on its own: what they are together is for the problem to find out.
EXTREMES = {
    "grid.shape": one_of([3, 3], [50, 101], [101, 3], [200, 150], [1_000_000, 1_000_000]),
    "grid.spacing": pairs(1e-6, 1.0, 10.0, 12.5, 1e6),
    "grid.origin": pairs(-1e8, -10.0, 0.0, 1e8),
    "model.background": one_of(*VELOCITIES),
    "model.inside": one_of(*VELOCITIES),
    "model.radius": one_of(1e-300, 1.0, 1e8),
    "model.center": pairs(*PLACES),
    "acquisition.sources.first": pairs(*PLACES),
    "acquisition.receivers.last": pairs(*PLACES),
    "acquisition.receivers.count": one_of(2, 1000, 100_000),
    "data.recording_time": one_of(*TIMES),
    "data.sample_interval": one_of(*TIMES),
    "data.tail": one_of("cut", "extrapolate"),
    "wavelet.peak_frequency": one_of(1e-3, 0.1, 1.0, 10.0, 15.0, 30.0, 1e3, 1e9),
    "wavelet.delay": one_of(0.0, 1e8),
    "wavelet.amplitude": one_of(-1e18, 1e-18, 1e18),
    "solver.space_order": one_of(2, 4, 16),
    "solver.dtype": one_of("float32", "float64"),
    "solver.boundary": one_of("cpml", "sponge"),
    "solver.layer": one_of(1, 1000),
    "solver.boundary_gradient": one_of("frozen", "exact", "crop"),
    "solver.free_surface": st.booleans(),
    "solver.interpolation": one_of("sinc", "linear"),
    "solver.source_scaling": one_of("volume", "none"),
    "solver.time_dispersion": one_of("corrected", "kept"),
    "acquisition.minimum_depth": one_of(*PLACES),
    "solver.time_step": one_of("fixed", "critical", *TIMES),
    "solver.wavefield": one_of("auto", "sampled", "compressed", "checkpointed", "disk", "full"),
    "solver.sampling_margin": one_of(1, 1e9, 1e308),
    "inversion.bounds": one_of([1.4, 4.0], [0.1, 15.0], [0.1, 0.2], [2.5, 2.6], [14.0, 15.0]),
    "inversion.iterations": one_of(0, 1_000_000),
    "inversion.corrections": one_of(1, 1000),
    "inversion.frozen.velocity_below": one_of(*VELOCITIES),
    "inversion.frozen.depth_above": one_of(*PLACES),
    "inversion.frozen.bathymetry": one_of(*PLACES),
    "inversion.conditioning.smoothing.length": one_of(0.0, 1e6, [0.0, 1e6]),
    "inversion.conditioning.taper": one_of(0.0, 1e6),
    "inversion.conditioning.soft_bounds": one_of(1e-300, 1.0),
    "inversion.regularisation.tikhonov.weight": one_of(0.0, 1e6),
}
CHANGES = one_of(*EXTREMES).flatmap(lambda key: st.tuples(st.just(key), EXTREMES[key]))
INITIALS = st.sampled_from(
    [
        {"kind": "smooth", "sigma": 100.0},
        {"kind": "smooth", "sigma": 0.01, "keep_frozen": False},
        {"kind": "layers", "velocities": [1.5, 3.0], "interfaces": [500.0]},
        {"kind": "constant", "velocity": 2.5},
        {"kind": "circle"},
    ]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(CHANGES, min_size=1, max_size=3), INITIALS)
def test_any_values_are_a_problem_or_refused_with_the_key(changes, initial):
    content = copy.deepcopy(CIRCLE) | {"initial": initial}
    content = apply_settings(content, [(key.split("."), value) for key, value in changes])
    try:
        made = Problem.from_config(validate(RunConfig, content, "x.toml"))
    except InputError as error:
        message = str(error)
        assert re.match(
            r"x\.toml: |shot \d+: |(grid|model|initial|data|wavelet|solver|inversion|acquisition)[\w.]*: ", message
        )
    else:
        assert made.time_axis(made.initial_velocity).samples <= made.time_samples
        with suppress(ShotTooLarge):  # for this machine
            assert all(value for _, value in make_plan(made).rows)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("optimizer=adam", "batch=4"), "inversion.batch: is 4, but the survey has 3 shots; it should be at most 3"),
        (("optimizer=lbfgs-batch", "overlap=2"), "inversion.overlap: is 2; it should be at most 1, half a batch"),
    ],
)
def test_batches_are_parts_of_the_survey(make_problem, settings, message):
    with pytest.raises(InputError) as caught:
        make_problem(*(f"inversion.{setting}" for setting in settings))
    assert str(caught.value) == message


def test_shots_of_batches_that_have_an_overlap_are_at_least_two(make_problem):
    with pytest.raises(InputError, match=r'inversion\.optimizer: is "lbfgs-batch", which needs at least 2 shots'):
        make_problem("inversion.optimizer=lbfgs-batch", 'data.exclude=["0", "1"]')


def test_criteria_do_not_make_another_problem_but_the_length_of_a_cosine_does(make_problem):
    plain = make_problem().digest
    changes = ("misfit_share=0.1", "misfit_change=0.1", "noise_level=0.1", "model_change=0.1", "budget_hours=1")
    for change in (*changes, "iterations=9", "evaluations=9", "ftol=0.1"):
        assert make_problem(f"inversion.{change}").digest == plain, change
    for change in ("optimizer=adam", "optimizer=lbfgs-batch", "parameter=velocity", "corrections=3"):
        assert make_problem(f"inversion.{change}").digest != plain, change
    adam = ("inversion.optimizer=adam", "inversion.iterations=5")
    digest = make_problem(*adam).digest
    assert make_problem(*adam, "inversion.iterations=6").digest != digest
    assert make_problem(*adam, "inversion.seed=1").digest != digest
    constant = (*adam, "inversion.schedule=constant")
    assert make_problem(*constant, "inversion.iterations=6").digest == make_problem(*constant).digest
