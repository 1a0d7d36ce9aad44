"""Whole runs through the command line: what the folder holds, the same bytes everywhere, stopping and going on."""

import csv
import re
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import psutil
import pytest
from watching import logged_events, wait_until

ROOT = Path(__file__).parents[2]
JOB = """
[grid]
shape = [31, 31]
spacing = [10.0, 10.0]
[model]
kind = "circle"
radius = 60.0
[initial]
kind = "constant"
velocity = 2.5
[acquisition.sources]
first = [20.0, 0.0]
last = [20.0, 300.0]
count = 3
[acquisition.receivers]
first = [280.0, 0.0]
last = [280.0, 300.0]
count = 21
[data]
recording_time = 300.0
sample_interval = 2.0
[wavelet]
kind = "ricker"
peak_frequency = 15.0
[solver]
space_order = 4
[inversion]
iterations = 3
bounds = [2.0, 3.5]
"""


@pytest.fixture
def job(tmp_path):
    (tmp_path / "fwi.toml").write_text(JOB)
    return tmp_path


def start(folder, *words):
    return subprocess.Popen(
        [sys.executable, "-m", "hpcfwi", *words], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def hpcfwi(folder, *words, code=0):
    process = start(folder, *words)
    output, errors = process.communicate(timeout=900)
    assert process.returncode == code, output + errors
    assert "Traceback" not in output + errors
    return output + errors


def run(folder, *words, code=0, figures=False):
    extra = () if figures else ("--set", "output.figures=false")
    return hpcfwi(folder, "run", "fwi.toml", *extra, *words, code=code)


def history(run_dir):
    with (run_dir / "history.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_run_folder_has_the_documented_files(job):
    output = run(job, figures=True)
    folder = job / "runs" / "fwi"
    assert "\x1b" not in output  # no escape codes into a pipe
    assert "iteration 3/3: misfit" in output
    assert str(folder) in output
    assert folder.stat().st_mode & 0o777 == 0o700
    model = np.load(folder / "model.npy")
    assert (model.shape, model.dtype) == ((31, 31), np.float32)
    assert 2.0 <= model.min() < model.max() <= 3.5
    assert not (folder / "model-current.npy").exists()
    rows = history(folder)
    assert list(rows[0]) == (
        [
            "iteration",
            "evaluations",
            "misfit",
            "gradient_norm",
            "model_error",
            "m_error",
            "step_seconds",
            "elapsed_seconds",
            "stage",
            "batch",
        ]
    )
    assert [row["iteration"] for row in rows] == ["0", "1", "2", "3"]
    assert rows[0]["evaluations"] == "1"
    misfits = [float(row["misfit"]) for row in rows]
    assert misfits == sorted(misfits, reverse=True)
    logged = logged_events(folder)
    assert all("time" in event and "event" in event for event in logged)
    evaluations = [e for e in logged if e["event"] == "evaluation"]
    assert [e["number"] for e in evaluations] == list(range(1, len(evaluations) + 1))
    shots = [e for e in logged if e["event"] == "shot"]
    assert sorted((e["evaluation"], e["shot"]) for e in shots) == [
        (n, s) for n in range(1, len(evaluations) + 1) for s in "012"
    ]
    assert all({"worker", "host", "seconds", "misfit"} <= set(e) for e in shots)
    host = subprocess.run(["uname", "-n"], capture_output=True, text=True, check=True).stdout.strip()
    assert {e["host"] for e in shots} == {host.partition(".")[0]}
    for e in evaluations:
        assert e["misfit"] == pytest.approx(
            sum(s["misfit"] for s in shots if s["evaluation"] == e["number"]), rel=1e-12
        )
    for name in ("models", "difference", "convergence", "gather", "gradient"):
        assert (folder / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert {path.name for path in (folder / "staged" / "shots").iterdir()} == {"0.pkl", "1.pkl", "2.pkl"}
    assert len(list((folder / "staged").glob("solver-*.pkl"))) == 1
    # finished: a summary, and no work
    before = (folder / "events.jsonl").read_bytes()
    assert "this run is already done" in run(job, figures=True)
    assert (folder / "events.jsonl").read_bytes() == before
    # the frozen configuration is the same problem
    assert "this run is already done" in hpcfwi(job, "run", "runs/fwi/config.toml", "--run-dir", "runs/fwi")


def in_windows(folder):
    """Let each of nine sources at the top have four receivers beside it, and a window."""
    rows = [f"{i},{x},20,{x + offset},20" for i, x in enumerate(range(40, 201, 20)) for offset in (20, 40, 60, 80)]
    (folder / "geometry.csv").write_text("\n".join(["shot,source_x,source_z,receiver_x,receiver_z", *rows]))
    before, _, after = JOB.partition("[acquisition.sources]")
    after = after[after.index("[data]") :].replace("[data]", '[data]\ngeometry = "geometry.csv"')
    (folder / "fwi.toml").write_text(f"{before}[acquisition]\naperture = 60\n{after}")


@pytest.mark.slow
@pytest.mark.parametrize("windows", [False, True])
def test_the_bytes_do_not_depend_on_the_number_of_workers(job, windows):
    if windows:
        in_windows(job)
    models = []
    for workers in (1, 2, 3):
        words = ("--set", f"site.worker.processes={workers}", "--set", "site.worker.threads=1")
        run(job, "--run-dir", f"run{workers}", *words)
        models.append((job / f"run{workers}" / "model.npy").read_bytes())
    assert models[0] == models[1] == models[2]
    assert ("in windows of 21 x 31 points" in hpcfwi(job, "plan", "fwi.toml", "--no-measure")) is windows


@pytest.mark.parametrize("threads", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_workers_take_the_solver_of_the_driver_however_many_threads_they_have(job, threads):
    words = ("--set", "site.worker.processes=1", "--set", f"site.worker.threads={threads}")
    run(job, "--run-dir", "run", *words, "--set", "inversion.iterations=1")
    logged = list(logged_events(job / "run"))
    assert [e["source"] for e in logged if e["event"] == "solver"] == ["driver", "staged"]
    assert {e["threads"] for e in logged if e["event"] == "threads"} <= {0, threads}


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_continues_to_the_same_bytes(job, how):
    iterations = ("--set", "inversion.iterations=12", "--set", "output.figures=false")
    process = start(job, "run", "fwi.toml", *iterations)
    folder = job / "runs" / "fwi"
    wait_until(lambda: len(logged_events(folder, "evaluation")) >= 3, process)
    workers = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(how)
    output, errors = process.communicate(timeout=300)
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert not alive
    if how != signal.SIGKILL:
        assert process.returncode == 75, output + errors
        assert "Traceback" not in output + errors
        assert "the same command continues" in errors
    assert not (folder / "model.npy").exists()
    assert (folder / "model-current.npy").exists()
    known = len(list((folder / "journal").glob("*.bin")))  # one that was being written has another name
    assert known >= 3
    run(job, "--set", "inversion.iterations=12")
    replayed = [e["replayed"] for e in logged_events(folder) if e["event"] == "evaluation"]
    assert sum(replayed) == known
    assert [row["iteration"] for row in history(folder)] == [str(i) for i in range(len(history(folder)))]
    run(job, "--set", "inversion.iterations=12", "--run-dir", "undisturbed")
    assert (folder / "model.npy").read_bytes() == (job / "undisturbed" / "model.npy").read_bytes()


@pytest.mark.slow
def test_more_iterations_extend_a_finished_run_to_the_same_bytes(job):
    run(job)
    run(job, "--set", "inversion.iterations=6")
    run(job, "--set", "inversion.iterations=6", "--run-dir", "whole")
    assert (job / "runs/fwi/model.npy").read_bytes() == (job / "whole" / "model.npy").read_bytes()
    assert len(history(job / "runs" / "fwi")) == 7


def test_another_problem_and_a_second_driver_are_refused(job):
    process = start(job, "run", "fwi.toml", "--set", "inversion.iterations=50", "--set", "output.figures=false")
    wait_until(lambda: logged_events(job / "runs" / "fwi", "evaluation"), process)
    assert "another hpcfwi is at work" in run(job, code=2)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=300)
    message = run(job, "--set", "wavelet.peak_frequency=12.0", code=2)
    assert "holds a run of another problem" in message
    assert "wavelet.peak_frequency: 15.0 there, 12.0 now" in message


@pytest.mark.slow
def test_observed_data_from_files_with_receivers_that_differ_from_shot_to_shot(job):
    hpcfwi(job, "model", "fwi.toml", "--run-dir", "made")
    rows, gathers = ["shot,source_x,source_z,receiver_x,receiver_z"], {}
    for i, name in enumerate("abc"):
        chosen = range(i, 21, i + 1)
        record = np.load(job / "made" / "data" / f"{i}.npy")
        gathers[name] = record[:, list(chosen)]
        rows += [f"{name},20,{150 * i},280,{15 * j}" for j in chosen]
    (job / "geometry.csv").write_text("\n".join(rows))
    (job / "gathers").mkdir()
    with h5py.File(job / "gathers.h5", "w") as file:
        for name, gather in gathers.items():
            np.save(job / "gathers" / f"{name}.npy", gather)
            file[name] = gather
    real = re.sub(r"\[model\].*?(?=\[initial\])", "", JOB, flags=re.S)
    real = re.sub(r"\[acquisition.sources\].*?(?=\[data\])", "", real, flags=re.S)
    models = []
    for source in ("gathers", "gathers.h5"):
        (job / "fwi.toml").write_text(real.replace("[data]", f'[data]\nfile = "{source}"\ngeometry = "geometry.csv"'))
        run(job, "--run-dir", f"from-{source}")
        models.append((job / f"from-{source}" / "model.npy").read_bytes())
        assert {row["model_error"] for row in history(job / f"from-{source}")} == {""}
        misfits = [float(row["misfit"]) for row in history(job / f"from-{source}")]
        assert misfits[-1] < 0.2 * misfits[0]
    assert models[0] == models[1]
    (job / "gathers" / "b.npy").write_bytes((job / "gathers" / "a.npy").read_bytes())
    (job / "fwi.toml").write_text(real.replace("[data]", '[data]\nfile = "gathers"\ngeometry = "geometry.csv"'))
    assert "shot b" in run(job, "--run-dir", "transposed", code=2)


@pytest.mark.slow
def test_nan_in_a_gather_names_its_shot(job):
    hpcfwi(job, "model", "fwi.toml", "--run-dir", "made")
    gather = np.load(job / "made" / "data" / "1.npy")
    gather[7, 3:] = np.nan
    np.save(job / "made" / "data" / "1.npy", gather)
    message = run(job, "--set", "data.file=made/data", "--run-dir", "broken", code=2)
    assert "shot 1: only 3 of its 21 traces can be used (not finite: 4-21)" in message


@pytest.mark.parametrize(
    "settings",
    [
        (),
        pytest.param(
            ("--set", "solver.free_surface=true", "--set", "acquisition.minimum_depth=5"), marks=pytest.mark.slow
        ),
    ],
)
def test_check_prints_a_verdict(job, settings):
    output = hpcfwi(job, "check", "fwi.toml", *settings)
    assert "verdict: the gradient is right" in output


def test_plan_and_version_and_help(job):
    output = hpcfwi(job, "plan", "fwi.toml", "--no-measure")
    for word in ("grid", "time axis", "memory", "disk"):
        assert word in output
    assert re.fullmatch(r"hpcfwi, version \d+\.\d+\.\d+\n", hpcfwi(job, "--version"))
    for command in ("run", "plan", "check", "model"):
        assert "CONFIG" in hpcfwi(job, command, "--help")


@pytest.mark.slow
def test_three_dimensions_and_double_precision_run_too(job):
    ball = JOB.replace("[31, 31]", "[21, 19, 21]").replace("[10.0, 10.0]", "[15.0, 15.0, 15.0]")
    ball = ball.replace("[20.0, 0.0]", "[20.0, 100.0, 0.0]").replace("[20.0, 300.0]", "[20.0, 200.0, 300.0]")
    ball = ball.replace("[280.0, 0.0]", "[280.0, 30.0, 0.0]").replace("[280.0, 300.0]", "[280.0, 240.0, 300.0]")
    ball = ball.replace("peak_frequency = 15.0", "peak_frequency = 10.0").replace("radius = 60.0", "radius = 70.0")
    (job / "fwi.toml").write_text(ball.replace("layer = 10", 'layer = 6\ndtype = "float64"\nfree_surface = true'))
    run(job, figures=True)
    assert np.load(job / "runs" / "fwi" / "model.npy").shape == (21, 19, 21)
    misfits = [float(row["misfit"]) for row in history(job / "runs" / "fwi")]
    assert misfits[-1] < misfits[0]


def test_devito_is_not_imported_before_the_site_has_set_its_variables():
    """It reads them once; the driver's kernels would fit no worker."""
    program = "import sys, hpcfwi.run.driver; sys.exit('devito' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
