"""Run folders: whatever their small files hold, a start uses it, makes it anew or refuses it, and writes nothing elsewhere."""

from __future__ import annotations

import io
import json
import os
import threading
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import strategies as st
from sample_events import sample, sample_line

from hpcfwi.config.run import load_run_config
from hpcfwi.errors import InputError, RunError
from hpcfwi.events.lease import Holder, Lease
from hpcfwi.events.log import EventLog, read_events
from hpcfwi.events.state import RunState
from hpcfwi.inversion.history import History, Row
from hpcfwi.model.problem import Problem
from hpcfwi.reporting.progress import Progress
from hpcfwi.run.driver import _finished
from hpcfwi.run.folder import RunFolder

EVENTS = sample_line("start", time=1.5) + sample_line("job", time=2.5, state="ended") + b'{"tim'
HISTORY = (
    b"iteration,evaluations,misfit,gradient_norm,model_error,m_error,step_seconds,elapsed_seconds,stage,batch\n"
    + (b"0,1,0.3333333333333333,2.0,,,0.5,1.5,1,\n1,2,0.25,2.0,0.25,0.125,0.5,1.5,1,4\n")
)
SUMMARY = {
    "iterations": 2,
    "evaluations": 3,
    "misfit": 0.5,
    "initial_misfit": 1.0,
    "model_error": None,
    "message": "ok",
}


@pytest.fixture
def config(tmp_path):
    (tmp_path / "fwi.toml").write_bytes((Path(__file__).parents[2] / "jobs/circle.toml").read_bytes())
    return load_run_config(tmp_path / "fwi.toml")


@pytest.fixture
def problem(config):
    return Problem.from_config(config)


@pytest.fixture
def quick(monkeypatch):
    """Status does not wait half a minute for heartbeats."""
    monkeypatch.setattr("hpcfwi.events.lease.DEAD_AFTER_S", 0.0)


def json_file(hostile, sound: dict) -> st.SearchStrategy[bytes]:
    """A small file: damaged, or of keys with hostile values."""
    changed = st.builds(
        lambda new: sound | new, st.dictionaries(st.sampled_from([*sound, "more"]), hostile.values, max_size=3)
    )
    written = (changed | hostile.values).map(lambda value: json.dumps(value).encode())
    return hostile.mutated(json.dumps(sound).encode()) | written


@pytest.mark.cases(600)
def test_a_damaged_event_log_can_be_read_and_continued(fuzz, hostile):
    def check(folder, content):
        path = folder / "events.jsonl"
        path.write_bytes(content)
        before = list(read_events(path))
        log = EventLog(path)
        log.write(sample("warning", message="\ud800 \0"))
        log.close()
        after = list(read_events(path))
        assert after[: len(before)] == before
        assert after[-1].message == "? \0"

    lines = st.lists(hostile.values.map(lambda value: json.dumps(value).encode()), max_size=4).map(b"\n".join)
    fuzz(hostile.mutated(EVENTS) | lines, check)


@pytest.mark.cases(600)
def test_a_damaged_history_is_continued_or_refused(fuzz, hostile, error_of):
    cells = hostile.numbers.map(repr) | hostile.texts | st.sampled_from(["", "0", "1", "-1", "1e3", "0x1"])
    rows = st.lists(st.lists(cells, min_size=7, max_size=9).map(",".join), max_size=3)
    tables = rows.map(
        lambda rows: b"\n".join([HISTORY.split(b"\n")[0], *(row.encode(errors="replace") for row in rows)])
    )

    def check(folder, content):
        from rich.console import Console

        path = folder / "history.csv"
        path.write_bytes(content)

        def go_on() -> None:
            history, state = History(path), RunState()
            progress = Progress(Console(file=io.StringIO()), state)
            for row in history.rows:
                event = sample("iteration", **asdict(row))
                state.apply(event)
                progress.on_event(event)
            known = history.rows[-1:]  # a misfit that is not a number equals no other
            assert not any(history.add(row) for row in known if row.misfit == row.misfit)
            assert history.add(Row(len(history.rows), 1, 1.0, 1.0, None, None, 1.0, 1.0))
            assert History(path).rows[:-1] == history.rows[:-1] or any(row != row for row in history.rows)
            assert isinstance(sum(row.elapsed_seconds for row in history.rows), float)

        error_of(go_on, path)

    fuzz(hostile.mutated(HISTORY) | tables, check)


@pytest.mark.usefixtures("quick")
@pytest.mark.cases(500)
def test_a_damaged_lease_has_a_holder_or_none(fuzz, hostile, error_of):
    here = asdict(Holder.current("7", 1))
    mine = [here, here | {"pid": 2**22 + 1}, here | {"machine": "elsewhere"}, here | {"restarts": 0}]

    def check(folder, content):
        path = folder / "driver.json"
        path.write_bytes(content)
        lease = Lease(path, job="7", restarts=1)

        def take() -> None:
            assert lease.acquire() is None or isinstance(lease._own, Holder)
            lease.verify()
            path.write_bytes(content)
            lease.release()

        try:
            error_of(take, folder)
        finally:
            lease._released.set()

    fuzz(st.one_of([json_file(hostile, holder) for holder in mine]), check)
    assert threading.active_count() < 200


@pytest.mark.cases(700)
def test_a_damaged_problem_file_is_recognised_or_refused(fuzz, hostile, error_of, config, problem, tmp_path):
    with RunFolder(tmp_path / "sound") as folder:
        folder.claim(problem.identity, config)
    sound = json.loads((folder.path / "problem.json").read_bytes())
    named = "problem.json data.json result.json"

    def check(folder, given):
        name, content, accept = given
        with RunFolder(folder / "run") as run:
            for file in named.split() if name == "all" else [name]:
                (run.path / file).write_bytes(content)
            error_of(lambda: run.claim(problem.identity, config, accept), run.path)
            error_of(lambda: run.claim_data({"0": "1", "1": "2"}), run.path, "data.file")
            error_of(lambda: run.read_json(run.result), run.path)
            error_of(lambda: _finished(run, problem), run.path)
            run.reopen()

    result = {"state": "done", "limits": config.limits, "summary": SUMMARY}
    contents = st.one_of(
        json_file(hostile, sound),
        json_file(hostile, {"problem": 1, "versions": sound["versions"]}),
        json_file(hostile, {"0": "1", "1": "3"}),
        json_file(hostile, result),
        st.builds(lambda v: json.dumps(sound | {"versions": v}).encode(), hostile.values),
        st.builds(lambda v: json.dumps(sound | {"versions": {"began": v, "accepted": [v]}}).encode(), hostile.values),
    )
    fuzz(st.tuples(st.sampled_from([*named.split(), "all"]), contents, st.booleans()), check)


@pytest.mark.cases(500)
def test_the_result_of_a_finished_run_is_unchanged_or_made_again(fuzz, hostile, error_of, config, problem):
    velocity = np.full(problem.domain.shape, 2.5, dtype=np.float32)
    file = io.BytesIO()
    np.save(file, velocity)
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000, 1000), }\n"
    models = st.sampled_from(
        [file.getvalue(), b"PK\x03\x04", b"", np.lib.format.magic(1, 0) + b"\x49\0" + header.encode()]
    )
    summaries = st.dictionaries(st.sampled_from([*SUMMARY, "left_out", "folder", "more"]), hostile.values, max_size=2)

    def check(folder, given):
        model, changed = given
        with RunFolder(folder / "run") as run:
            run.model.write_bytes(model)
            run.write_json(run.result, {"state": "done", "limits": config.limits, "summary": SUMMARY | changed})
            found = []
            if error_of(lambda: found.append(_finished(run, problem)), run.path) or found == [None]:
                return
            (result,) = found
            assert result.velocity.dtype == np.float32
            assert result.velocity.shape == velocity.shape
            assert f"{result.misfit:.6g} {result.initial_misfit:.6g} {100 * (result.model_error or 0):.2f}"
            assert f"{result.iterations:d}{result.evaluations:d}" + result.left_out + result.message

    fuzz(st.tuples(models | hostile.mutated(file.getvalue()), summaries), check)


PLACES = [
    "staged",
    "staged/shots",
    "journal",
    "figures",
    "data",
    "logs",
    "tls",
    "events.jsonl",
    "history.csv",
    "model.npy",
]
PLACES += [
    "driver.json",
    ".lock",
    "problem.json",
    "data.json",
    "result.json",
    "config.toml",
    "model-current.npy",
    ".x.part",
]


@pytest.mark.usefixtures("quick")
@pytest.mark.cases(300)
def test_links_folders_and_pipes_in_place_of_run_files_do_no_harm(fuzz, error_of, config, problem, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o755)
    (outside / "thesis.tex").write_text("chapter 1\n")
    (outside / "partial-old").mkdir()

    def check(folder, given):
        run = folder / "run"
        (run / "staged" / "shots").mkdir(parents=True)
        for name, what in given.items():
            path = run / name
            if path.is_dir() and not path.is_symlink():
                if any(path.iterdir()):
                    continue
                path.rmdir()
            if os.path.lexists(path) or not path.parent.is_dir() or path.parent.is_symlink():
                continue
            make(path, what, outside)
        error_of(lambda: start(run, config, problem), run)
        assert (outside / "thesis.tex").read_text() == "chapter 1\n"
        assert outside.stat().st_mode & 0o777 == 0o755
        assert {path.name for path in outside.iterdir()} == {"thesis.tex", "partial-old"}

    whats = st.sampled_from(["a folder", "a file", "a pipe", "to a folder", "to a file", "to nowhere", "to itself"])
    fuzz(st.dictionaries(st.sampled_from(PLACES), whats, min_size=1, max_size=2), check)


def make(path: Path, what: str, outside: Path) -> None:
    match what:
        case "a folder":
            path.mkdir()
        case "a file":
            path.write_bytes(b"x")
        case "a pipe":
            os.mkfifo(path)
        case "to a folder":
            path.symlink_to(outside, target_is_directory=True)
        case "to a file":
            path.symlink_to(outside / "thesis.tex")
        case "to nowhere":
            path.symlink_to(outside / "new")
        case _:
            path.symlink_to(path.name)


def start(path: Path, config, problem) -> None:
    """What a run does to its folder, without any computation."""
    from hpcfwi.inversion.journal import Partials

    with RunFolder(path) as run:
        run.claim(problem.identity, config)
        run.claim_data({"0": "1"})
        if _finished(run, problem) is not None:
            return
        run.reopen()
        log = EventLog(run.events)
        log.write(sample("start"))
        log.close()
        history = History(run.history)
        history.add(Row(len(history.rows), 1, 1.0, 1.0, None, None, 1.0, 1.0))
        Partials(run.journal, 1).begin("now")
        run.write_array(run.path / "data" / "0.npy", np.zeros(3))
        run.write_array(run.model, np.zeros(3))
        run.write_json(run.result, {"state": "done"})


@pytest.mark.parametrize("depth", [100, 900, 990])
def test_deeply_nested_values_are_refused(tmp_path, config, problem, depth):
    nested = b"[" * depth + b"]" * depth
    with RunFolder(tmp_path / "run") as run:
        run.claim(problem.identity, config)
        (run.path / "problem.json").write_bytes(
            b'{"versions": {"began": ' + nested + b', "accepted": [' + nested + b"]}}"
        )
        with pytest.raises(InputError, match=r"problem\.json: cannot be read"):
            run.claim(problem.identity, config, accept_versions=True)
    event = sample("closed", time=1.0)
    (tmp_path / "events.jsonl").write_bytes(b'{"event": "summary", "summary": {"a": ' + nested + b"}}\n" + event.line())
    assert list(read_events(tmp_path / "events.jsonl")) == [event]


@pytest.mark.parametrize(
    "changed", [{"pid": "x"}, {"pid": -1}, {"started": "now"}, {"restarts": "0"}, {"host": ["[/b]"]}]
)
def test_a_lease_with_wrong_types_has_no_holder(tmp_path, changed):
    path = tmp_path / "driver.json"
    path.write_text(json.dumps(asdict(Holder.current()) | changed))
    lease = Lease(path)
    assert lease.acquire() is None
    lease.release()


@pytest.mark.parametrize("left", ["0,1,,2.0,,,0.5,1.5\n", "0,1,1,2.0,,,0.5,\n", "1,1,1,2.0,,,0.5,1\n"])
def test_an_impossible_history_row_is_refused(tmp_path, left):
    path = tmp_path / "history.csv"
    path.write_text(HISTORY.decode().split("\n")[0] + "\n" + left)
    with pytest.raises(RunError, match=r"history\.csv: cannot be read \(row 1 is malformed\)"):
        History(path)


def test_a_folder_with_the_name_of_a_part_file_is_accepted(tmp_path):
    run = RunFolder(tmp_path / "run")
    (run.path / ".x.part").mkdir()
    with run:
        pass


@pytest.mark.parametrize(
    "name", ["staged", "staged/shots", "journal", "data", "figures", "logs", "tls", "events.jsonl"]
)
def test_a_link_out_of_a_run_folder_is_refused(tmp_path, name):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run" / "staged").mkdir(parents=True)
    if name == "staged":
        (tmp_path / "run" / "staged").rmdir()
    (tmp_path / "run" / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=rf"run/{name}: is a link, .* with --run-dir"):
        RunFolder(tmp_path / "run")
