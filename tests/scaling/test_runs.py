"""The runs of a study: their commands, and the small files of a study's folder."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise

import pytest

from hpcfwi.errors import InputError
from hpcfwi.events.lease import Lease
from hpcfwi.execution.window import NO_OVERHEAD
from hpcfwi.scaling.runs import RunPoint, Study, StudyRuns, measure_overhead

STUDY = Study("problem", "site", "local", weak_nodes=8, iterations=1, settings=("wavelet.peak_frequency=9",))


@pytest.fixture
def runs(tmp_path):
    return StudyRuns(tmp_path / "study", STUDY, tmp_path / "fwi.toml", ["a", "b"], print)


@pytest.mark.parametrize(("nodes", "kept"), [(1, 5), (2, 10), (4, 20), (8, 40)])
def test_the_shots_of_weak_scaling_are_spread_over_the_survey(nodes, kept):
    names = [str(i) for i in range(40)]
    excluded = STUDY.excluded_shots(nodes, names)
    left = [int(name) for name in names if name not in excluded]
    assert len(left) == kept
    gaps = {b - a for a, b in pairwise(left)}
    assert max(gaps) - min(gaps) <= 1


def test_a_local_node_is_a_worker_process_and_other_nodes_are_an_option(runs):
    command = runs.command(RunPoint(1, 1))
    assert "site.worker.processes=1" in command
    assert 'data.exclude=["b"]' in command
    assert "--nodes" not in command
    jobs = StudyRuns(runs.folder.parent / "jobs", Study("p", "s", "jobs", 0, 1), runs.config, ["a", "b"], print)
    command = " ".join(jobs.command(RunPoint(2, 1)))
    assert "--nodes 2" in command
    assert "data.exclude" not in command


def test_weak_scaling_excludes_the_shots_of_the_configuration_too():
    study = replace(STUDY, excluded=("bad",))
    assert study.excluded_shots(1, ["a", "b"]) == ["bad", "b"]
    assert study.excluded_shots(8, ["a", "b"]) == ["bad"]
    assert replace(study, weak_nodes=0).excluded_shots(1, ["a", "b"]) == []  # as the file says


def test_a_study_is_the_same_when_it_is_read_again(runs):
    StudyRuns(runs.folder, STUDY, runs.config, ["a", "b"], print)
    with pytest.raises(InputError, match="iterations: 1 there, 2 now"):
        StudyRuns(runs.folder, Study("problem", "site", "local", 8, 2, "", STUDY.settings), runs.config, [], print)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"alone": "fast", "batched": 1}'])
def test_the_advice_about_a_malformed_file_helps(runs, content, monkeypatch):
    path = runs.folder / "overhead.json"
    path.write_text(content)
    with pytest.raises(InputError, match=f"{path}: cannot be read .it is malformed.; remove {path} and type the same"):
        runs.overhead()
    path.unlink()
    monkeypatch.setattr("hpcfwi.scaling.runs.measure_overhead", lambda: NO_OVERHEAD)
    assert runs.overhead() == NO_OVERHEAD
    assert json.loads(path.read_text()) == {"alone": 0.0, "batched": 0.0}


def test_the_advice_about_a_malformed_study_helps(runs):
    (runs.folder / "study.json").write_text("{}")
    with pytest.raises(InputError, match=f"remove {runs.folder} and type the same command again"):
        StudyRuns(runs.folder, STUDY, runs.config, [], print)


def test_a_folder_that_cannot_be_used_is_refused_with_the_option_of_studies(tmp_path):
    (tmp_path / "file").write_text("")
    for folder, message in (
        (tmp_path / "file", "is neither empty nor the folder of a study"),
        (tmp_path / "file" / "x", "Not a directory"),
    ):
        with pytest.raises(InputError, match=f"{message}.*--study-dir"):
            StudyRuns(folder, STUDY, tmp_path / "fwi.toml", [], print)


def test_another_process_that_runs_the_study_is_named(runs):
    lease = Lease(runs.folder / "driver.json")
    lease.acquire()
    try:
        with pytest.raises(
            InputError, match=r"another process runs this study \(process \d+ on .*use another --study-dir"
        ):
            next(runs.measure([1], 1))
    finally:
        lease.release()


def test_a_batched_shot_costs_the_driver_less_than_a_separate_task():
    overhead = measure_overhead()
    assert 0 < overhead.batched < overhead.alone < 0.05
