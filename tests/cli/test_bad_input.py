"""Bad input, as a user meets it: the real command, exit code 2, one message, no traceback, nothing left behind."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import tomli_w

from hpcfwi.config.parsing import apply_settings
from hpcfwi.config.run import RunConfig, load_run_config
from hpcfwi.model.problem import Problem
from hpcfwi.run.folder import RunFolder

CIRCLE = tomllib.loads((Path(__file__).parents[2] / "jobs/circle.toml").read_text(encoding="utf-8"))
NOBODY = 65534
SHAPE, SAMPLES, RECEIVERS = (101, 101), 251, 101
VELOCITY = np.full(SHAPE, 2.5)
GATHERS = {f"gathers/{shot}.npy": np.arange(1.0 + SAMPLES * RECEIVERS)[1:].reshape(SAMPLES, -1) for shot in range(11)}


@dataclass(frozen=True)
class Case:
    """A mistake in the circle, and the message about it.

    Parameters
    ----------
    message
        Parts of the message, in this order.
    change
        Keys (with dots) of fwi.toml and their values.
    files
        Files beside fwi.toml: bytes, text or arrays.
    options
        Of ``hpcfwi run``.
    config
        Its argument.
    """

    message: list[str]
    change: dict = field(default_factory=dict)
    files: dict = field(default_factory=dict)
    options: list[str] = field(default_factory=list)
    config: str = "fwi.toml"

    def run(self, folder: Path) -> subprocess.CompletedProcess:
        content = apply_settings(CIRCLE, [(key.split("."), value) for key, value in self.change.items()])
        write(folder, {"fwi.toml": tomli_w.dumps(content)} | self.files)
        return hpcfwi(["run", self.config, *self.options], folder)


def write(folder: Path, files: dict) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        if isinstance(content, np.ndarray):
            np.save(path, content)
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())


def hpcfwi(arguments: list[str], folder: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "hpcfwi", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)


def npy(velocity: np.ndarray, **keys) -> dict:
    """A case's model from v.npy."""
    return {"change": {"model": {"kind": "file", "file": "v.npy", **keys}}, "files": {"v.npy": velocity}}


def with_value(value: float) -> np.ndarray:
    velocity = VELOCITY.copy()
    velocity[30, 40] = value
    return velocity


def receivers_csv(text: str) -> dict:
    return {"change": {"acquisition.receivers": {"file": "r.csv"}}, "files": {"r.csv": text}}


def wavelet(content: str) -> dict:
    section = {"kind": "file", "file": "w.txt", "sample_interval": 2.0}
    return {"change": {"wavelet": section}, "files": {"w.txt": content}}


CASES = {
    # the configuration
    "no such configuration": Case(["nothing.toml: no such file (run configuration)"], config="nothing.toml"),
    "empty configuration": Case(
        [
            "fwi.toml: 5 mistakes",
            "grid: is missing; a section with spacing",
            'wavelet: is missing; a section with kind = "r',
        ],
        files={"fwi.toml": ""},
    ),
    "invalid TOML": Case(
        ["fwi.toml: is not valid TOML", "line 2"], files={"fwi.toml": "[grid]\nspacing = 10 m\n[data]"}
    ),
    "unknown key": Case(
        [
            "fwi.toml: one mistake",
            "solver.space_oder: unknown key; the keys are space_order",
            'Did you mean "space_order"?',
        ],
        {"solver": {"space_oder": 4}},
    ),
    "many mistakes at once": Case(
        [
            "fwi.toml: 7 mistakes",
            "model.inside: is 3000.0; it should be at most 15; this looks like m/s (km/s; velocity inside the circle)\n",
            "initial.velocity: is -2.5; it should be at least 0.1 (km/s; velocity everywhere)\n",
            "data.recording_time: is -1.0; it should be at least 1e-06 (ms; length of the records;",
            'solver.dtype: is "half"; it should be "float32" or "float64" (precision of the wavefields)\n',
            "inversion.bounds, value 1: is 1400.0; it should be at most 15; this looks like m/s (km/s; [lowest, highest]",
            "inversion.bounds, value 2: is 4000.0; it should be at most 15; this looks like m/s",
            "sorce: unknown key; the keys are grid, model",
        ],
        {
            "model.inside": 3000.0,
            "initial.velocity": -2.5,
            "data.recording_time": -1.0,
            "solver.dtype": "half",
            "inversion.bounds": [1400.0, 4000.0],
            "sorce.kind": "ricker",
        },
    ),
    "--set with typing errors": Case(
        [
            "fwi.toml with --set: 2 mistakes",
            'inversion.iterations: is "ten"; it should be a whole number (maximum number of iterations)',
            "inversion.correction: unknown key",
            'Did you mean "corrections"?',
        ],
        options=["--set", "inversion.correction=3", "--set", "inversion.iterations=ten"],
    ),
    "--set without a value": Case(
        ["--set inversion.iterations: is not of the form section.key=value, for example --set inversion.iterations=10"],
        options=["--set", "inversion.iterations"],
    ),
    "--set of the site with a typing error": Case(
        [
            "workstation.toml with --set: one mistake",
            "worker.thread: unknown key; the keys are",
            'Did you mean "threads"?',
        ],
        options=["--set", "site.worker.thread=1"],
    ),
    "unknown site": Case(["moon: no such site; the sites are", "workstation"], options=["--site", "moon"]),
    # models
    "missing model file": Case(
        ["model.file: ", "v.npy: no such file; give another path with --set model.file=PATH"],
        {"model": {"kind": "file", "file": "v.npy"}},
    ),
    "wrong shape": Case(
        ["model.file: ", "v.npy gives a grid of (101, 100) points, but the grid has (101, 101)"], **npy(VELOCITY[:, 1:])
    ),
    "raw binary of the wrong size": Case(
        ["model.shape: (101, 101) samples of <f4 are 40804 bytes, but ", "v.bin has 40800 bytes"],
        {"model": {"kind": "file", "file": "v.bin", "shape": [101, 101]}},
        {"v.bin": bytes(40800)},
    ),
    "a file in m/s": Case(
        [
            "model.file: ",
            "values from 2500 to 2500, which are unlikely in km/s; they look like m/s",
            'set model.unit = "m/s"',
        ],
        **npy(1000 * VELOCITY),
    ),
    "negative velocities in a file": Case(
        ["model.file: ", "v.npy has a velocity of -2 km/s at sample (30, 40) along x, z; it should be positive"],
        **npy(with_value(-2)),
    ),
    "NaN velocities": Case(
        ["model.file: ", "v.npy has values that are NaN or infinite (1 of 10201), the first at sample (30, 40)"],
        **npy(with_value(np.nan)),
    ),
    "bounds that exclude the initial model": Case(
        ["inversion.bounds: [2.6, 4] km/s exclude the initial model, whose velocities go from 2.5 to 2.5 km/s; widen"],
        {"inversion.bounds": [2.6, 4.0]},
    ),
    "a grid that no machine holds": Case(
        ["grid.shape: (1000000, 1000000) is too large: its models alone need", "GB; take a coarser grid"],
        {"grid.shape": [1_000_000, 1_000_000]},
    ),
    # survey
    "receiver outside": Case(
        ["shot 0: receiver 101 at (980, 1010) m is outside the model, which covers x 0 to 1000 m, z 0 to 1000 m"],
        {"acquisition.receivers.last": [980.0, 1010.0]},
    ),
    "empty survey": Case(
        ["acquisition.sources.file: ", "s.csv: has no rows below its header, so the survey would be empty"],
        {"acquisition.sources": {"file": "s.csv"}},
        {"s.csv": "x,z\n"},
    ),
    "no number in a CSV": Case(
        ["acquisition.receivers.file: ", "r.csv, line 3: z is 'deep'; it should be a number, in m"],
        **receivers_csv("x,z\n1,2\n3,deep\n"),
    ),
    "a column missing in a geometry": Case(
        ["data.geometry: ", "g.csv: has no column 'receiver_x'; its header names the columns shot, source_x, source_z"],
        {"acquisition": {}, "data.geometry": "g.csv"},
        {"g.csv": "shot,source_x,source_z\n0,1,2\n"},
    ),
    # sampling
    "sample interval above Nyquist": Case(
        ["data.sample_interval: 20 ms resolves frequencies up to 25 Hz (Nyquist)", "27.6", "at most 18.", "at most 9."],
        {"data.sample_interval": 20.0},
    ),
    "unstable time step": Case(
        ["solver.time_step: 3 ms is unstable (Courant): for 4 km/s", "at most 1.53", '"fixed" would take 1.387 ms'],
        {"solver.time_step": 3.0},
    ),
    "too few points per wavelength": Case(
        [
            "grid.spacing: 1.27 grid points per shortest wavelength",
            "at least 2.5 are needed",
            "at most 5.0",
            "at most 20.",
        ],
        {"wavelet.peak_frequency": 40.0},
    ),
    "unreadable wavelet": Case(
        ["wavelet.file: ", "w.txt, line 2: is 'one'; it should be one number a line"], **wavelet("0\none\n0\n0\n")
    ),
    # observed data
    "missing gathers": Case(
        [
            "data.file: ",
            "gathers has no file 1.npy (nor those of 9 more shots); add a gather for every shot of the survey",
        ],
        {"data.file": "gathers"},
        {"gathers/0.npy": GATHERS["gathers/0.npy"]},
    ),
    "transposed gathers": Case(
        [
            "shot 0: its gather in data.file has the shape (101, 251), but (samples, receivers) should be (251, 101)",
            "it looks transposed",
        ],
        {"data.file": "gathers"},
        {name: record.T for name, record in GATHERS.items()},
    ),
    "NaN in a gather": Case(
        [
            "shot 7: only 0 of its 101 traces can be used (not finite: 1-101), and data.traces.minimum asks for 0.5 of them",
            "--set data.quorum=0.909",
            "--fresh --set",
        ],
        {"data.file": "gathers"},
        GATHERS | {"gathers/7.npy": np.full((SAMPLES, RECEIVERS), np.nan)},
    ),
    # run folder
    "run folder below a file": Case(
        ["afile/x: cannot be created or used (Not a directory); choose a folder", "--run-dir"],
        files={"afile": ""},
        options=["--run-dir", "afile/x"],
    ),
    "run folder of something else": Case(
        ["thesis: is neither empty nor a run folder", "--run-dir"],
        files={"thesis/main.tex": ""},
        options=["--run-dir", "thesis"],
    ),
}


@pytest.fixture(scope="module")
def outcomes(request, tmp_path_factory):
    """What came of the cases that were asked for; they run beside each other, as they mostly wait for imports."""
    items = (item for item in request.session.items if item.path == request.path)
    asked = [item.callspec.params["name"] for item in items if hasattr(item, "callspec")]
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        folders = {name: tmp_path_factory.mktemp("case") for name in asked}
        yield {name: (folder, pool.submit(CASES[name].run, folder)) for name, folder in folders.items()}


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_one_message_and_exit_code_2(outcomes, name):
    folder, coming = outcomes[name]
    done = coming.result()
    check(done, *CASES[name].message)
    if name != "NaN in a gather":  # which only the workers see
        assert not (folder / "runs").exists()
        assert not done.stdout


def check(done: subprocess.CompletedProcess, *parts: str) -> None:
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("hpcfwi: ") == 1
    assert re.search(".*".join(map(re.escape, parts)), done.stderr, re.DOTALL), done.stderr


@pytest.fixture
def circle(tmp_path) -> RunConfig:
    write(tmp_path, {"fwi.toml": tomli_w.dumps(CIRCLE)})
    return load_run_config(tmp_path / "fwi.toml")


def test_run_folder_of_another_problem_is_refused_with_what_differs(tmp_path, circle):
    with RunFolder(tmp_path / "run") as folder:
        folder.claim(Problem.from_config(circle).identity, circle)
    done = hpcfwi(["run", "fwi.toml", "--run-dir", "run", "--set", "wavelet.peak_frequency=11"], tmp_path)
    check(done, "run: holds a run of another problem:\n", "wavelet.peak_frequency: 10.0 there, 11.0 now\n", "--run-dir")
    assert "grid" not in done.stderr


def test_run_folder_in_use_by_another_driver_is_refused(tmp_path, circle):
    with RunFolder(tmp_path / "run") as folder:
        folder.claim(Problem.from_config(circle).identity, circle)
        done = hpcfwi(["run", "fwi.toml", "--run-dir", "run"], tmp_path)
    message = f"run: another hpcfwi is at work on this run folder (process {os.getpid()} on "
    check(done, message, "; wait for it, or choose another folder with --run-dir")


@pytest.fixture
def public():
    """A folder with fwi.toml that any user may enter."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        write(folder, {"fwi.toml": tomli_w.dumps(CIRCLE)})
        yield folder


def as_nobody(arguments: list[str], folder: Path) -> subprocess.CompletedProcess:
    """Run hpcfwi as a user who may do little; what only root can import is imported before."""
    warm = "c.command(['plan', 'fwi.toml', '--no-measure'])"
    become = f"os.setgroups([]), os.setgid({NOBODY}), os.setuid({NOBODY})"
    code = (
        f"import os, sys, hpcfwi.run.driver, hpcfwi.cli.main as c; {warm}; {become}; sys.exit(c.command(sys.argv[1:]))"
    )
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=folder, capture_output=True, text=True, timeout=120
    )


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be two users")


def test_run_folder_that_cannot_be_written_is_refused(public):
    (public / "locked").mkdir(mode=0o555)
    run = as_nobody if os.geteuid() == 0 else hpcfwi
    done = run(["run", "fwi.toml", "--run-dir", "locked/run"], public)
    check(done, "locked/run: cannot be ", "(Permission denied); choose", "--run-dir")


@needs_root
def test_run_folder_that_others_can_write_to_is_refused(public):
    (public / "open").mkdir()
    (public / "open").chmod(0o777)
    done = as_nobody(["run", "fwi.toml", "--run-dir", "open"], public)
    check(done, "open: can be written by other users; choose a folder of your own with --run-dir")


@needs_root
def test_run_folder_of_another_user_is_refused(public):
    (public / "theirs").mkdir()
    os.chown(public / "theirs", NOBODY, NOBODY)
    done = hpcfwi(["run", "fwi.toml", "--run-dir", "theirs"], public)
    check(done, "theirs: belongs to another user; choose a folder of your own with --run-dir")


def test_a_folder_of_the_user_is_made_private(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run").chmod(0o777)
    RunFolder(tmp_path / "run")
    assert (tmp_path / "run").stat().st_mode & 0o777 == 0o700
