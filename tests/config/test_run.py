"""fwi.toml: rules between its keys; any mistake is an InputError."""

from __future__ import annotations

import copy
import json
import math
import re
import tomllib
from pathlib import Path

import pytest
import tomli_w
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpcfwi.config.messages import validate
from hpcfwi.config.parsing import apply_settings, parse_setting
from hpcfwi.config.run import RunConfig, load_run_config
from hpcfwi.errors import InputError

JOBS = Path(__file__).parents[2] / "jobs"
CIRCLE = tomllib.loads((JOBS / "circle.toml").read_text(encoding="utf-8"))


def load(*changes: str, **sections: dict) -> RunConfig:
    """The circle with settings, and whole sections replaced; ``-section.key`` removes a key."""
    content = apply_settings(CIRCLE, [parse_setting(change) for change in changes if change[0] != "-"]) | sections
    for change in changes:
        if change[0] == "-":
            *above, key = change[1:].split(".")
            table = content
            for section in above:
                table = table[section]
            del table[key]
    return validate(RunConfig, content, "circle.toml")


def refused(*changes: str, **sections: dict) -> str:
    """The lines of the message, without the first."""
    with pytest.raises(InputError) as caught:
        load(*changes, **sections)
    first, *lines = str(caught.value).splitlines()
    assert first.startswith("circle.toml: ")
    return "\n".join(line.strip() for line in lines)


@pytest.mark.parametrize("job", sorted(JOBS.glob("*.toml")), ids=lambda path: path.stem)
def test_the_packaged_jobs_are_valid(job):
    assert load_run_config(job).grid.spacing


@pytest.mark.parametrize("job", sorted(JOBS.glob("*.toml")), ids=lambda path: path.stem)
def test_a_configuration_with_every_default_written_out_is_the_same_again(job):
    config = load_run_config(job)
    assert validate(RunConfig, config.model_dump(mode="json", exclude_none=True), "config.toml") == config


def test_missing_keys_have_defaults():
    config = load()
    assert (config.solver.layer_cells, config.solver.time_step, config.data.tail) == (10, "fixed", "cut")


@pytest.mark.parametrize("treatment", ["exact", "crop"])
def test_only_a_sponge_follows_the_edges_of_the_model(treatment):
    message = refused(f"solver.boundary_gradient={treatment}")
    assert f'boundary_gradient is "{treatment}", which needs boundary = "sponge"' in message
    sponge = load("solver.boundary=sponge", f"solver.boundary_gradient={treatment}")
    assert sponge.solver.layer_cells == 40


def test_a_configuration_cannot_be_changed_once_it_is_checked():
    with pytest.raises(ValueError, match="frozen"):
        load().solver.layer = 3


def test_the_message_says_whether_settings_were_applied():
    with pytest.raises(InputError, match=r'circle\.toml with --set: one mistake\n.*Did you mean "iterations"'):
        load_run_config(JOBS / "circle.toml", ["inversion.iteration=3"])


@pytest.mark.parametrize("key", ["model.inside", "initial.velocity", "inversion.frozen.velocity_below"])
@pytest.mark.parametrize("velocity", [-2.0, 0.0, 2500.0, "nan"])
def test_velocities_are_positive_and_in_km_per_second(key, velocity):
    message = refused(f"{key}={velocity}")
    assert message.startswith(f"{key}: is ")
    assert "km/s" in message
    assert ("this looks like m/s" in message) == (velocity == 2500.0)


def test_a_sea_floor_is_a_number_or_a_file_beside_the_configuration(tmp_path):
    model = {"kind": "file", "file": "v.npy"}
    assert load(initial=model | {"water": {"bathymetry": 200}}).initial.water.bathymetry == 200.0
    content = CIRCLE | {"initial": model | {"water": {"bathymetry": "floor.csv"}}}
    (tmp_path / "fwi.toml").write_text(tomli_w.dumps(content))
    assert load_run_config(tmp_path / "fwi.toml").initial.water.bathymetry == tmp_path / "floor.csv"
    message = refused(initial=model | {"water": {"bathymetry": True}})
    assert message.startswith("initial.water.bathymetry: is true; it should be a number or a path")


def test_keys_of_a_model_file_that_contradict_each_other_are_refused():
    model = {"kind": "file", "file": "v.npy", "quantity": "slowness", "unit": "m/s"}
    assert refused(initial=model) == 'initial.unit: is "m/s", a unit of velocity; quantity is "slowness"'


def test_bounds_are_two_velocities_in_order():
    assert "first velocity must be lower than the second" in refused("inversion.bounds=[4, 1.4]")
    assert "bounds, value 2: is 4000; it should be at most 15; this looks like m/s" in refused(
        "inversion.bounds=[1.4, 4000]"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("grid.origin=[0, 0, 0]", "grid: origin has 3 axes, but spacing has 2"),
        ("acquisition.sources.first=[0, 0, 0]", "acquisition.sources: first has 3 coordinates, last has 2"),
        ("acquisition.sources.count=[3, 3, 3]", "acquisition.sources: count needs one number for each of the 2 axes"),
        ("grid.shape=[101, 101, 101]", "grid: shape has 3 axes, but spacing has 2"),
    ],
)
def test_all_vectors_have_the_same_number_of_axes(change, message):
    assert refused(change) == message


def test_the_survey_has_as_many_axes_as_the_grid():
    changes = ("grid.shape=[9, 9, 9]", "grid.spacing=[10, 10, 10]")
    assert refused(*changes) == "acquisition.sources.first: has 2 coordinates, but the grid has 3 axes"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["-acquisition.sources.last"], "count is 11, but last is missing"),
        (["acquisition.sources.last=[20, 0]"], "count is 11, but last is the same as first"),
        (["-acquisition.sources.count"], "last is given, so count must be 2 or more"),
        (["acquisition.sources.count=[11, 1]"], "along axis 1 count is 11, but first is 20 m and last is 20 m"),
        (["acquisition.sources.count=[1000, 1001]"], "count gives 1001000 positions; at most 1000000 are possible"),
        (["acquisition.sources.file=s.csv"], "needs either first (with last and count) or file"),
        (
            ["acquisition.sources.file=s.csv", "-acquisition.sources.first"],
            "last and count go with first, not with file",
        ),
        (["-acquisition.sources"], "is missing; add a section with first, last and count, or with file (a CSV)"),
        (["data.geometry=g.csv"], "data.geometry has these positions, too; keep one of the two"),
    ],
)
def test_contradictory_positions_are_refused(changes, message):
    assert refused(*changes).startswith(f"acquisition.sources: {message}")


def test_a_point_a_line_and_a_grid_are_positions():
    point = ("-acquisition.sources.last", "-acquisition.sources.count")
    assert load(*point).acquisition.sources.count == 1
    assert load("acquisition.sources.count=[1, 5]").acquisition.sources.count == (1, 5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["-model"], "model: is missing; add a [model] to make data from, or observed data (data.file)"),
        (
            ["data.sample_interval=2000"],
            "data.sample_interval: is 2000 ms, longer than data.recording_time, which is 1000 ms",
        ),
        (["wavelet.amplitude=0"], "wavelet.amplitude: is 0, which makes no waves"),
        (["data.file="], 'data.file: is "."; it should be the path of a file'),
        (["solver.space_order=5"], "solver.space_order: is 5; it should be a multiple of 2"),
    ],
)
def test_impossible_values_are_refused(changes, message):
    assert refused(*changes).startswith(message)


def test_layers_need_one_interface_less_than_velocities_in_order_of_depth():
    layers = {"kind": "layers", "velocities": [2, 3, 4], "interfaces": [100, 200]}
    assert load(model=layers).model.interfaces == (100, 200)
    assert refused(model=layers | {"interfaces": []}) == "model: 3 velocities need 2 interfaces, not 0"
    assert refused(model=layers | {"interfaces": [9, 8]}) == "model: interfaces must be in order of increasing depth"


def test_clipping_limits_are_in_order():
    message = refused(model={"kind": "file", "file": "v", "clip": [2, 1]})
    assert message == "model.clip: the first velocity must be lower than the second, not [2.0, 1.0]"


def test_an_estimated_wavelet_needs_observed_data_at_their_own_samples():
    wavelet = {"kind": "estimate", "peak_frequency": 10.0}
    assert refused(wavelet=wavelet) == ('wavelet.kind: is "estimate", which needs observed data (data.file)')
    told = refused("data.file=a", "data.tail=extrapolate", "solver.time_dispersion=kept", wavelet=wavelet)
    assert told.startswith('data.tail: is "extrapolate", which does not go with an estimated wavelet: ')
    assert load("data.file=a", wavelet=wavelet).wavelet.kind == "estimate"


def test_smoothing_needs_a_true_model():
    message = refused("-model", "data.file=gathers", initial={"kind": "smooth"})
    assert message == 'initial.kind: is "smooth", which needs a [model] to smooth'


# Numbers that a slip of pen or unit may make, and those that a computer stumbles over.
NUMBERS = st.one_of(
    st.sampled_from([0, -1, 1, 2, 3, 1000, -1000, 10**6, 10**12, 10**30, -(10**30), 10**400]),
    st.sampled_from([0.0, -0.0, 1e-320, 1e-9, -1.5, 0.1, 2.5, 1e9, 1e300, math.inf, -math.inf, math.nan]),
)
SCALARS = st.one_of(NUMBERS, st.booleans(), st.text(max_size=8), st.sampled_from(["ricker", "file", "", "\0", "~x/y"]))
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


def places(content, path=()):
    """Paths of all sections and keys."""
    for key, value in content.items():
        yield (*path, key)
        if isinstance(value, dict):
            yield from places(value, (*path, key))


@st.composite
def mutations(draw):
    """The circle, some keys of it replaced, taken away or given new neighbours."""
    content = copy.deepcopy(CIRCLE)
    for _ in range(draw(st.integers(1, 3))):
        *sections, key = draw(st.sampled_from(list(places(content))))
        table = content
        for section in sections:
            table = table[section]
        match draw(st.sampled_from(["replace", "remove", "add"])):
            case "replace":
                table[key] = draw(TREES)
            case "remove":
                del table[key]
            case "add":
                table[draw(st.text(max_size=8))] = draw(TREES)
        if not content:
            break
    return content


def message(call, *args) -> str:
    """The message of an InputError, or nothing; other errors propagate."""
    try:
        call(*args)
    except InputError as error:
        return str(error)
    return ""


def check(content):
    text = message(validate, RunConfig, content, "x.toml")
    assert not text or text.startswith("x.toml: ")
    assert "pydantic" not in text


@settings(max_examples=300, deadline=None)
@given(mutations())
def test_any_change_of_a_good_configuration_is_valid_or_refused_with_a_message(content):
    check(content)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.sampled_from(list(RunConfig.model_fields)) | st.text(max_size=8), TREES, max_size=9))
def test_any_content_at_all_is_refused_with_a_message(content):
    check(content)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200) | mutations().map(lambda content: tomli_w.dumps(content).encode("utf-8", "replace")))
def test_any_file_is_a_configuration_or_refused_with_its_name(tmp_path, content):
    path = tmp_path / "x.toml"
    path.write_bytes(content)
    text = message(load_run_config, path)
    assert not text or text.startswith(str(path))


@pytest.mark.parametrize(
    "changes",
    [
        ("inversion.misfit=huber", "inversion.misfit.threshold=0.1"),
        ("inversion.misfit.kind=huber", "inversion.misfit.threshold=0.1"),
        ('inversion.misfit={kind="huber", threshold=0.1}',),
    ],
)
def test_a_misfit_is_a_text_or_a_section(changes):
    assert load("inversion.misfit=huber").inversion.misfit.threshold == 1.0
    misfit = load(*changes).inversion.misfit
    assert (misfit.kind, misfit.threshold) == ("huber", 0.1)
    assert load(*changes, "inversion.misfit=l2").inversion.misfit.model_dump() == {"kind": "l2"}
    own = load("inversion.misfit=robust:LogCosh", "inversion.misfit.scale=[1, 2]").inversion.misfit
    assert own.model_dump() == {"kind": "robust:LogCosh", "scale": [1, 2]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            '{kind="huber", treshold=1}',
            'misfit.treshold: unknown key; .* where kind is "huber". Did you mean "threshold"',
        ),
        ('{kind="huber", threshold=0}', "misfit.threshold: is 0; it should be above 0"),
        ('{kind="envelope", power=3}', "misfit.power: is 3; it should be 1 or 2"),
        ("{threshold=1}", 'misfit: needs a key "kind": "l2", "huber", .* or "gsot"'),
        ("3", "misfit: is 3; it should be a section"),
    ],
)
def test_a_misfit_with_a_mistake_is_refused(change, message):
    assert re.match(f"inversion.{message}", refused(f"inversion.misfit={change}"))


@pytest.mark.parametrize("every", [3, '"evaluation"'])
def test_batches_have_one_estimate_of_the_wavelet(every):
    estimate = {"wavelet": {"kind": "estimate", "peak_frequency": 10.0}}
    settings = ("data.file=gathers", "inversion.optimizer=adam")
    assert load(*settings, **estimate).wavelet.every == 0
    estimate["wavelet"]["every"] = json.loads(str(every))
    message = refused(*settings, **estimate)
    assert message.startswith('wavelet.every: does not go with inversion.optimizer = "adam"; take wavelet.every out')
