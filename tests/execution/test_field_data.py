"""Field data on a worker: the same bytes whatever file they came from, and traces that are left out leave nothing behind."""

from __future__ import annotations

import numpy as np
import pytest
from field_files import load_field, survey_fields, take, write_segy

from hpcfwi.artifacts import load, read_header, stage
from hpcfwi.errors import DataError, InputError
from hpcfwi.execution.shot_worker import ShotContext, ShotWorker
from hpcfwi.execution.tasks import observe_shot
from hpcfwi.io import make_private
from hpcfwi.model.velocity import squared_slowness
from hpcfwi.solver.operators import stage_solver
from hpcfwi.solver.spec import SolverSpec

pytestmark = pytest.mark.usefixtures("one_thread")

TRACES = 15  # whole metres apart, so that headers hold them exactly
SETTINGS = ("model.kind=circle", "model.radius=100")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_private(tmp_path_factory.mktemp("staged"))


@pytest.fixture
def worker(folder):
    """Makes the worker of a problem; all problems here have the same solver."""

    def make(problem) -> ShotWorker:
        spec = SolverSpec.from_problem(problem)
        solver = stage_solver(folder, spec)[0]
        return ShotWorker(
            ShotContext(solver, spec, stage(folder, "wavelet", problem.source_signal), None, problem.sampling, 10**8)
        )

    return make


@pytest.fixture
def staged(folder, tmp_path):
    """Stages the shots of a problem, in a folder of its own; returns them by name."""

    def observe(problem, worker):
        observations, where = problem.observations, make_private(tmp_path / f"shots-{problem.digest[:8]}")
        modelled = observations.recordings is None
        true = stage(folder, "model", squared_slowness(problem.true_velocity)) if modelled else None
        axis = problem.time_axis(problem.true_velocity) if modelled else None
        return {
            shot.name: observe_shot(
                worker.context,
                shot,
                where,
                "a test",
                problem.recording,
                None if modelled else observations.shot_data(shot.name),
                true,
                axis,
            )
            for shot in problem.survey.shots
        }

    return observe


@pytest.fixture
def evaluate(folder, worker, staged):
    """Misfit and gradient of each shot of a problem in the initial model, by name."""

    def evaluate(problem):
        at_work = worker(problem)
        model = stage(folder, "model", squared_slowness(problem.initial_velocity))
        axis = problem.time_axis(problem.initial_velocity)
        found = {}
        for name, shot in staged(problem, at_work).items():
            result = at_work.evaluate(name, model, shot, axis)
            found[name] = (result.f, result.g.dtype.str, result.g.tobytes())
        return found

    return evaluate


@pytest.fixture
def modelled(make_problem, worker, staged):
    """The small problem, and the records of its shots, shape (shots, samples, receivers)."""
    problem = make_problem(f"acquisition.receivers.count={TRACES}")
    shots = staged(problem, worker(problem)).values()
    return problem, np.stack([load(shot, "shot")["record"] for shot in shots])


@pytest.fixture
def fields(modelled):
    """Header fields of its survey; the shots have the same names."""
    shots = modelled[0].survey.shots
    sources = [(shot.source[0], 0, shot.source[1]) for shot in shots]
    receivers = [np.insert(shot.receivers, 1, 0, axis=1) for shot in shots]
    found = survey_fields(sources, receivers)
    return found | {"FieldRecord": found["FieldRecord"] - 1}


@pytest.fixture
def field_problem(tmp_path, modelled, fields):
    """Makes the problem of the same records in SEG-Y; ``change`` gets traces and fields and returns others."""

    def make(*settings, change=lambda values, fields: (values, fields), name="a.sgy", **options):
        values, found = change(np.concatenate([record.T for record in modelled[1]]), fields)
        write_segy(tmp_path / name, values, found, interval_us=4000, **options)
        return load_field(tmp_path, *SETTINGS, f"data.file={tmp_path / name}", *settings)

    return make


def test_modelled_records_come_back_from_any_file_with_the_same_bytes_and_misfit(
    modelled, field_problem, make_problem, worker, staged, evaluate, tmp_path
):
    problem, records = modelled
    (tmp_path / "gathers").mkdir()
    for shot, record in zip(problem.survey.shots, records, strict=True):
        np.save(tmp_path / "gathers" / f"{shot.name}.npy", record)
    arrays = make_problem(f"acquisition.receivers.count={TRACES}", f"data.file={tmp_path / 'gathers'}")
    order = np.random.default_rng(0).permutation(3 * TRACES)
    ways = {
        "npy": arrays,
        "big": field_problem(name="big.sgy"),
        "little": field_problem(name="little.sgy", endian="little"),
        "double": field_problem(name="double.sgy", code=6),
    }
    expected = evaluate(problem)
    for way, other in ways.items():
        assert other.survey.names == problem.survey.names, way
        for shot, mine in zip(other.survey.shots, problem.survey.shots, strict=True):
            np.testing.assert_array_equal(shot.source, mine.source)
            np.testing.assert_array_equal(shot.receivers, mine.receivers)
        shots = staged(other, worker(other)).values()
        assert [load(shot, "shot")["record"].astype("f4").tobytes() for shot in shots] == [
            r.tobytes() for r in records
        ], way
        assert evaluate(other) == expected, way
    mixed = field_problem(change=lambda values, fields: (values[order], take(fields, order)), name="mixed.sgy")
    assert {*mixed.survey.names} == {*problem.survey.names}
    misfits = {name: f for name, (f, *_) in evaluate(mixed).items()}
    assert misfits == pytest.approx({name: f for name, (f, *_) in expected.items()}, rel=1e-6)


def noisy(values):
    """With noise, so that the median of a trace is not that of the quiet before the first wave."""
    return values + np.random.default_rng(5).normal(0, 0.01 * np.abs(values).max(), values.shape).astype("f4")


def broken(values, fields):
    """Of shot 0: a trace with NaN, a dead one, a copy of one, a spike; and two that the user kills."""
    values = noisy(values)
    values[2, 30] = np.nan
    values[4] = 0
    values[6, 40] = 1e4 * np.abs(values[6]).max()
    again = np.insert(np.arange(3 * TRACES), 9, 8)
    return values[again], take(fields, again)


def without(values, fields):
    """The same shot without these traces."""
    kept = np.delete(np.arange(3 * TRACES), [2, 4, 6, 11])
    return noisy(values)[kept], take(fields, kept)


def test_traces_that_are_left_out_leave_the_misfit_and_gradient_of_a_survey_without_them(
    field_problem, evaluate, worker, staged
):
    """To the byte."""
    dropping = field_problem(
        "data.traces.spikes=1e4", 'data.traces.kill=["FieldRecord == 0 and TraceNumber == 12"]', change=broken
    )
    expected = evaluate(field_problem(change=without, name="without.sgy"))
    assert evaluate(dropping) == expected
    assert evaluate(field_problem()) != expected
    shots = staged(dropping, worker(dropping))
    assert read_header_of(shots["0"])["left_out"] == {
        "not finite": "3", "dead": "5", "spiky": "7", "duplicated": "10", "killed": "13",
    }  # fmt: skip
    assert read_header_of(shots["1"])["left_out"] == {}


def read_header_of(staged_file) -> dict:
    from pathlib import Path

    return read_header(Path(staged_file.path))


def test_traces_outside_and_weights_of_zero_leave_nothing_behind_either(field_problem, evaluate, tmp_path):
    (tmp_path / "w.csv").write_text("shot,trace,weight\n0,3,0\n0,5,0\n0,7,0\n0,12,0\n")
    killed = field_problem(
        f"data.traces.weights={tmp_path / 'w.csv'}", change=lambda values, fields: (noisy(values), fields)
    )
    expected = evaluate(field_problem(change=without, name="without.sgy"))
    assert evaluate(killed) == expected

    def outside(values, fields):
        moved = np.asarray(fields["GroupX"]).copy()
        moved[[2, 4, 6, 11]] = 5000
        return noisy(values), fields | {"GroupX": moved}

    assert evaluate(field_problem("data.traces.outside=drop", change=outside)) == expected


def test_weights_multiply_the_misfit_of_each_trace_and_its_gradient(field_problem, evaluate, tmp_path):
    def weighted(text):
        (tmp_path / "w.csv").write_text("shot,trace,weight\n" + text)
        f, kind, g = evaluate(field_problem(f"data.traces.weights={tmp_path / 'w.csv'}", "data.traces.minimum=0.05"))[
            "0"
        ]
        return f, np.frombuffer(g, kind).astype(float)

    def only(*traces):
        return "".join(f"0,{trace},0\n" for trace in range(1, TRACES + 1) if trace not in traces)

    first, second = weighted(only(4)), weighted(only(9))
    both = weighted(only(4, 9) + "0,4,0.25\n0,9,3\n")
    assert both[0] == pytest.approx(0.25 * first[0] + 3 * second[0], rel=1e-5)
    np.testing.assert_allclose(both[1], 0.25 * first[1] + 3 * second[1], atol=1e-4 * np.abs(both[1]).max())


def test_samples_before_the_first_one_count_nothing(field_problem, evaluate, worker, staged, folder):
    """A record that begins 80 ms after the shot gives the misfit of the samples that it has."""
    late = field_problem(
        "data.recording_time=300", change=lambda values, fields: (values[:, 20:], fields | {"DelayRecordingTime": 80})
    )
    assert late.recording.samples == 76
    at_work, axis = worker(late), late.time_axis(late.initial_velocity)
    at_work.use_model(stage(folder, "model", squared_slowness(late.initial_velocity)))
    misfits = evaluate(late)
    for name, shot in staged(late, at_work).items():
        observed = at_work.observed(name, shot, axis)
        predicted = observed.processing.apply(at_work.predict(observed.shot, axis))
        assert not predicted[:20].any()
        assert predicted[20:].any()
        half = 0.5 * np.sum((predicted - observed.gather).astype(float) ** 2)
        assert misfits[name][0] == pytest.approx(half, rel=1e-5)


def test_missing_samples_and_a_tail_that_is_extrapolated_do_not_go_together(field_problem):
    with pytest.raises(InputError, match=r'data\.tail: is "extrapolate", which does not go with SEG-Y'):
        field_problem(
            'data.tail="extrapolate"',
            'solver.time_dispersion="kept"',
            change=lambda values, fields: (values, fields | {"DelayRecordingTime": 80}),
        )


def test_gathers_that_stay_in_place_give_the_same_bytes_until_they_change(
    field_problem, evaluate, worker, staged, folder, tmp_path
):
    expected = evaluate(field_problem(change=broken))
    in_place = field_problem('data.staging="in place"', change=broken)
    at_work = worker(in_place)
    shots = staged(in_place, at_work)
    assert "record" not in load(shots["0"], "shot")
    assert evaluate(in_place) == expected
    model = stage(folder, "model", squared_slowness(in_place.initial_velocity))
    with (tmp_path / "a.sgy").open("r+b") as file:
        file.seek(3600 + 240 + 100)
        file.write(b"\x3f\x80\0\0")
    with pytest.raises(DataError, match=r"shot 0: its gather in data\.file has changed since the run began"):
        at_work.evaluate("0", model, shots["0"], in_place.time_axis(in_place.initial_velocity))


def test_a_shot_with_a_great_many_traces_left_out_is_staged(folder):
    """Their numbers stand in the header of the staged file."""
    from hpcfwi.io import format_ranges

    numbers = format_ranges(range(1, 200_001, 2))
    shot = stage(folder, "shot", {"x": 1}, name="many.pkl", left_out={"dead": numbers})
    assert read_header_of(shot)["left_out"]["dead"] == numbers
    assert load(shot, "shot") == {"x": 1}
