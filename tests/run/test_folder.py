"""The run folder: for its owner alone, of one problem, with one driver."""

from __future__ import annotations

import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from sample_events import sample

from hpcfwi.errors import InputError
from hpcfwi.events.log import EventLog
from hpcfwi.run.folder import RunFolder, fresh_folder


def claim(folder, problem):
    return folder.claim(problem.identity, problem.config)


@pytest.fixture
def generous():
    """A umask that denies no access."""
    old = os.umask(0)
    yield
    os.umask(old)


@pytest.mark.usefixtures("generous")
def test_a_run_folder_and_its_subfolders_are_private_to_the_owner(tmp_path):
    folder = RunFolder(tmp_path / "runs" / "a")
    for path in (folder.path, folder.staged, folder.shots, folder.journal):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700


def test_a_run_folder_open_to_others_is_made_private(tmp_path):
    RunFolder(tmp_path / "run").staged.chmod(0o777)
    assert stat.S_IMODE(RunFolder(tmp_path / "run").staged.stat().st_mode) == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give folders away")
@pytest.mark.parametrize("inner", [".", "staged", "staged/shots", "journal"])
def test_a_run_folder_of_another_user_is_refused(tmp_path, inner):
    RunFolder(tmp_path / "run")
    os.chown(tmp_path / "run" / inner, 12345, 12345)
    with pytest.raises(InputError, match="belongs to another user"):
        RunFolder(tmp_path / "run")


def test_a_folder_with_other_files_is_refused_and_left_unchanged(tmp_path):
    tmp_path.chmod(0o755)
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(InputError, match="is neither empty nor a run folder"):
        RunFolder(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


def test_a_file_is_refused_as_a_run_folder(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(InputError, match="is a file"):
        RunFolder(tmp_path / "run")


def test_a_second_driver_is_refused_until_the_first_one_leaves(tmp_path):
    with (
        RunFolder(tmp_path / "run"),
        ThreadPoolExecutor(1) as other,
        pytest.raises(InputError, match="another hpcfwi is at work"),
    ):
        other.submit(RunFolder(tmp_path / "run").__enter__).result()
    with RunFolder(tmp_path / "run"):
        pass


def test_a_driver_removes_the_temporary_files_of_killed_writers(tmp_path):
    folder = RunFolder(tmp_path / "run")
    (folder.shots / ".0.pkl.abc.part").write_bytes(b"half")
    with folder:
        assert not list(folder.path.rglob("*.part"))


def test_a_folder_is_claimed_once_and_then_by_the_same_problem_only(tmp_path, make_problem):
    with RunFolder(tmp_path / "run") as folder:
        assert not claim(folder, make_problem())
        assert claim(folder, make_problem("inversion.iterations=9", "output.figures=true"))
        with pytest.raises(InputError) as caught:
            claim(folder, make_problem("solver.layer=12", "initial.velocity=2.6"))
    message = str(caught.value)
    assert "holds a run of another problem" in message
    assert "solver.layer: 10 there, 12 now" in message
    assert "initial.velocity: 2.5 there, 2.6 now" in message
    assert "--run-dir" in message


def test_a_run_of_another_problem_names_the_step_of_the_processing_that_differs(tmp_path, make_problem, fwi_toml):
    fwi_toml.write_text(
        fwi_toml.read_text() + '[[processing]]\nkind = "time_gain"\npower = 1\n[[processing]]\nkind = "normalise"\n'
    )
    with RunFolder(tmp_path / "run") as folder:
        claim(folder, make_problem())
        with pytest.raises(InputError, match=r"\n  processing\[1\].power: 1.0 there, 2.0 now\n"):
            claim(folder, make_problem("processing.1.power=2"))


def test_a_folder_whose_problem_cannot_be_read_is_refused(tmp_path, make_problem):
    with RunFolder(tmp_path / "run") as folder:
        (folder.path / "problem.json").write_text("{")
        with pytest.raises(InputError, match=r"problem\.json: cannot be read"):
            claim(folder, make_problem())


def test_observed_data_that_changed_are_refused(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.claim_data({"a": "1", "b": "2", "c": "3"})
    folder.claim_data({"a": "1", "b": "2", "c": "3"})
    with pytest.raises(InputError, match=r"data\.file: the record of shot b \(and of 1 more\) has changed since"):
        folder.claim_data({"a": "1", "b": "0", "c": "0"})


def test_a_finished_run_that_continues_has_no_result(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.write_array(folder.model, np.ones(3))
    folder.write_json(folder.result, {"state": "done"})
    folder.reopen()
    assert folder.read_json(folder.result) is None
    assert not folder.model.exists()
    assert np.load(folder.current_model).tolist() == [1, 1, 1]
    folder.reopen()


def test_a_run_that_other_versions_began_is_refused_until_that_is_accepted(tmp_path, make_problem, monkeypatch):
    problem = make_problem()
    with RunFolder(tmp_path / "run") as folder:
        claim(folder, problem)
        began = folder.began_with
    monkeypatch.setattr("hpcfwi.run.folder.version", lambda _: "99.1")
    with RunFolder(tmp_path / "run") as folder:
        with pytest.raises(
            InputError, match=r"began with hpcfwi \S+ and devito 4\.\S+, but this is hpcfwi \S+ and devito 99.1"
        ) as raised:
            claim(folder, problem)
        assert "--accept-versions" in str(raised.value)
        assert folder.claim(problem.identity, problem.config, accept_versions=True)
        # answers keep the name that they have
        assert folder.began_with == began
    with RunFolder(tmp_path / "run") as folder:
        assert claim(folder, problem)
    monkeypatch.undo()
    with RunFolder(tmp_path / "run") as folder:
        assert claim(folder, problem)


def test_a_run_without_recorded_versions_is_refused(tmp_path, make_problem):
    problem = make_problem()
    with RunFolder(tmp_path / "run") as folder:
        claim(folder, problem)
        path = folder.path / "problem.json"
        content = json.loads(path.read_text())
        del content["versions"]
        path.write_text(json.dumps(content))
        with pytest.raises(InputError, match="began with unknown versions"):
            claim(folder, problem)
        assert folder.claim(problem.identity, problem.config, accept_versions=True)
        assert claim(folder, problem)


def test_a_fresh_run_takes_the_first_free_folder_name(tmp_path, monkeypatch):
    monkeypatch.delenv("SLURM_RESTART_COUNT", raising=False)
    path = tmp_path / "run"
    assert fresh_folder(path) == path
    path.mkdir()
    (tmp_path / "run-2").mkdir()
    assert fresh_folder(path) == tmp_path / "run-3"


def test_a_restarted_job_continues_its_own_fresh_run(tmp_path, monkeypatch):
    path = tmp_path / "run"
    for folder, job in ((path, "40"), (tmp_path / "run-2", "41"), (tmp_path / "run-3", "42")):
        folder.mkdir()
        EventLog(folder / "events.jsonl").write(sample("start", job=job))
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    for job, expected in (("40", "run"), ("41", "run-2"), ("43", "run-4")):  # 43 ended before it had a folder
        monkeypatch.setenv("SLURM_JOB_ID", job)
        assert fresh_folder(path) == tmp_path / expected
