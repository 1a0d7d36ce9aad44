"""Run folders that are used again: with other limits, other data, or damage."""

from __future__ import annotations

import csv
import json
import platform
import shutil
import subprocess

import numpy as np
import pytest
from watching import logged_events, options, wait_until

from hpcfwi import load_run_config, run_inversion
from hpcfwi.artifacts import StagedFile, load, read_header
from hpcfwi.inversion.journal import Journal


@pytest.fixture
def finished(hpcfwi, first_run):
    """The command, with a copy of a run of two iterations that is done."""
    shutil.copytree(first_run[2], hpcfwi.folder / "run")
    return hpcfwi


def history(run_dir):
    with (run_dir / "history.csv").open() as file:
        return list(csv.DictReader(file))


def refused(shell, *settings, code=2):
    done = shell("run", "fwi.toml", "--run-dir", "run", *options(*settings))
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def test_fewer_iterations_remove_the_later_ones_and_compute_nothing(finished):
    run_dir = finished.folder / "run"
    computed = len(logged_events(run_dir, "shot"))
    finished.run("run", "inversion.iterations=1")
    assert [row["iteration"] for row in history(run_dir)] == ["0", "1"]
    assert json.loads((run_dir / "result.json").read_text())["summary"]["iterations"] == 1
    assert len(logged_events(run_dir, "shot")) == computed
    assert not (run_dir / "model-current.npy").exists()


def test_a_damaged_result_and_log_are_made_again_from_the_journal(finished, first_run):
    run_dir = finished.folder / "run"
    computed = len(logged_events(run_dir, "shot"))
    (run_dir / "model.npy").write_bytes(b"x")
    (run_dir / "result.json").write_text('{"state": "do')
    (run_dir / "history.csv").unlink()
    with (run_dir / "events.jsonl").open("ab") as file:
        file.write(b'{"time": 1, "event": "half a li')
    finished.run("run")
    assert (run_dir / "model.npy").read_bytes() == (first_run[2] / "model.npy").read_bytes()
    assert len(logged_events(run_dir, "shot")) == computed
    assert [row["misfit"] for row in history(run_dir)] == [row["misfit"] for row in history(first_run[2])]


@pytest.mark.slow
def test_a_damaged_evaluation_in_the_journal_stops_the_run_until_it_is_removed(finished, first_run):
    run_dir = finished.folder / "run"
    entry = sorted((run_dir / "journal").iterdir())[0]
    entry.write_bytes(entry.read_bytes()[:-1])
    (run_dir / "result.json").unlink()
    message = refused(finished, code=3)
    assert str(entry) in message
    assert "is damaged" in message
    assert "Remove it and start the same command again" in message
    assert (run_dir / "model-current.npy").exists()
    assert not (run_dir / "model.npy").exists()
    entry.unlink()
    finished.run("run")
    assert (run_dir / "model.npy").read_bytes() == (first_run[2] / "model.npy").read_bytes()


@pytest.fixture
def with_gathers(hpcfwi, first_run):
    """The command, with the first run's data as files."""
    gathers = hpcfwi.folder / "gathers"
    gathers.mkdir()
    for path in (first_run[2] / "staged" / "shots").iterdir():
        record = load(StagedFile(str(path), read_header(path)["digest"]), "shot")["record"]
        np.save(gathers / f"{path.stem}.npy", record)
    return hpcfwi


def test_data_from_files_give_the_same_result_and_must_not_change_during_the_run(with_gathers, first_run):
    shell, run_dir = with_gathers, with_gathers.folder / "run"
    shell.run("run", "data.file=gathers")
    assert (run_dir / "model.npy").read_bytes() == (first_run[2] / "model.npy").read_bytes()
    # the [model] is known, so that the errors are, too
    assert [row["model_error"] for row in history(run_dir)] == [row["model_error"] for row in history(first_run[2])]
    np.save(shell.folder / "gathers" / "1.npy", 2 * np.load(shell.folder / "gathers" / "1.npy"))
    message = refused(shell, "data.file=gathers", "inversion.iterations=3")
    assert "data.file: the record of shot 1 has changed since the run in" in message
    assert "--run-dir" in message


def test_figures_that_cannot_be_drawn_do_not_lose_the_model(finished, first_run):
    run_dir = finished.folder / "run"
    (run_dir / "result.json").unlink()
    (run_dir / "figures").write_text("in the way")
    done = finished.run("run", "output.figures=true")
    assert "warning: the figures cannot be drawn (FileExistsError" in done.stdout
    assert (run_dir / "model.npy").read_bytes() == (first_run[2] / "model.npy").read_bytes()


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="the name of a processor that BLAS knows is one of x86_64")
def test_a_run_continued_on_another_processor_reuses_evaluations_and_warns_that_bits_may_differ(hpcfwi):
    """BLAS and L-BFGS-B round as on another processor if their settings name one."""
    whole = ("inversion.iterations=7", "inversion.ftol=0", "inversion.gtol=0")
    hpcfwi.run("there", *whole)
    hpcfwi.run("run", *whole, "inversion.iterations=5")
    hpcfwi.environment["OPENBLAS_CORETYPE"] = "Prescott"
    run_dir = hpcfwi.folder / "run"
    done = hpcfwi.run("run", *whole)
    evaluations = logged_events(run_dir, "evaluation")
    first = [event for event in evaluations if not event["replayed"]]
    replayed = [event for event in evaluations if event["replayed"]]
    assert [event["number"] for event in first] == list(range(1, len(first) + 1))
    assert 0 < max(event["drift"] for event in replayed) <= 1e-12
    assert [event["misfit"] for event in replayed] == [event["misfit"] for event in first][: len(replayed)]
    (warning,) = (event for event in logged_events(run_dir, "warning") if "bytes" in event["message"])
    assert "on another kind of processor" in warning["message"]
    assert "\nthe last bits may differ from run to run: on another kind of processor" in done.stdout
    assert "another kind of processor" in json.loads((run_dir / "result.json").read_text())["summary"]["irreproducible"]
    assert float(history(run_dir)[-1]["misfit"]) == pytest.approx(
        float(history(hpcfwi.folder / "there")[-1]["misfit"]), rel=1e-6
    )


@pytest.mark.slow
def test_a_journal_entry_for_another_model_stops_the_run(finished):
    run_dir = finished.folder / "run"
    path = sorted((run_dir / "journal").iterdir())[0]
    header = read_header(path)
    problem, number = header["problem"].rpartition(", format")[0], header["number"]
    journal = Journal(run_dir / "journal", problem)
    x = np.frombuffer(path.read_bytes()[-8 * int(np.prod(header["shape"])) :])
    pair, _ = journal.read(x, number)
    path.unlink()
    journal.write(x * (1 + 1e-9), pair, number)
    (run_dir / "result.json").unlink()
    message = refused(finished, code=3)
    assert f"the journal has another model for evaluation {number}" in message
    assert "difference is 1.0e-09 of the largest value" in message
    assert "start over with --fresh" in message
    # what it says helps: all that there is from this evaluation on is computed anew
    (command,) = (line.strip() for line in message.splitlines() if line.strip().startswith("find "))
    subprocess.run(command, shell=True, check=True)
    finished.run("run")


def test_a_folder_without_the_identity_of_its_problem_is_refused(finished):
    (finished.folder / "run" / "problem.json").unlink()
    message = refused(finished, "wavelet.peak_frequency=0.012")
    assert "problem.json: is missing, so the problem that" in message
    assert "--run-dir" in message


def test_files_that_can_be_made_again_may_be_missing(finished, first_run):
    """Staged files, the pictures of a run that had none, and a model that the user has moved."""
    run_dir = finished.folder / "run"
    shutil.rmtree(run_dir / "staged")
    (run_dir / "model.npy").unlink()
    computed = len(logged_events(run_dir, "shot"))
    done = finished.run("run", "output.figures=true")
    assert "  figures/       the model, the data" in done.stdout
    assert len(list((run_dir / "figures").glob("*.png"))) == 5
    assert (run_dir / "model.npy").read_bytes() == (first_run[2] / "model.npy").read_bytes()
    assert len(logged_events(run_dir, "shot")) == computed


@pytest.mark.slow
def test_a_run_without_its_record_of_machines_does_not_guarantee_the_same_bytes(finished):
    (finished.folder / "run" / "reproducibility.json").unlink()
    done = finished.run("run", "inversion.iterations=3")
    assert (
        "the last bits may differ from run to run: reproducibility.json, the record of earlier starts, is missing"
        in (done.stdout)
    )


@pytest.mark.slow
def test_a_run_without_iterations_has_one_evaluation_and_can_be_continued(hpcfwi, first_run):
    run_dir = hpcfwi.folder / "run"
    hpcfwi.run("run", "inversion.iterations=0")
    assert [(row["iteration"], row["evaluations"]) for row in history(run_dir)] == [("0", "1")]
    hpcfwi.run("run")
    assert (run_dir / "model.npy").read_bytes() == (first_run[2] / "model.npy").read_bytes()


def test_moving_the_run_folder_away_during_the_run_is_not_blamed_on_a_shot(hpcfwi):
    run_dir = hpcfwi.folder / "run"
    words = options("inversion.iterations=5000", "inversion.ftol=0")
    process = hpcfwi.start("run", "fwi.toml", "--run-dir", "run", *words)
    wait_until((run_dir / "history.csv").exists, process)
    run_dir.rename(hpcfwi.folder / "moved")
    _, err = process.communicate(timeout=300)
    assert process.returncode == 3, err
    assert "Traceback" not in err
    assert "data.exclude" not in err
    assert "the run folder was moved or removed while it was in use" in err
    hpcfwi.run("moved", "inversion.iterations=0")


def test_a_model_is_kept_even_if_its_image_cannot_be_made(fwi_toml, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device", "/tmp/image.vti")

    monkeypatch.setattr("hpcfwi.run.minimisation.vtk_image", fail)
    config = load_run_config(fwi_toml, ["inversion.iterations=1", "output.report=false"])
    result = run_inversion(config, run_dir=tmp_path / "run")
    np.testing.assert_array_equal(np.load(tmp_path / "run" / "model.npy"), result.velocity)
    assert (
        "model.vti cannot be written (OSError: [Errno 28] No space left"
        in (tmp_path / "run" / "events.jsonl").read_text()
    )
