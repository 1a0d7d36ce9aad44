"""The objective for a user's own optimiser: what it answers, what it keeps, and what it refuses."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pylops.utils import dottest
from scipy.ndimage import gaussian_filter
from scipy.optimize import Bounds, minimize
from watching import logged_events, options, wait_until

from hpcfwi import InputError, load_run_config, load_site, open_objective, run_status, write_report
from hpcfwi.artifacts import read_container

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "pages" / "guide" / "own-optimiser.md"
EXACT = ["solver.dtype=float64", "solver.wavefield=full"]
SITE = ["worker.threads=1"]
# Traces are normalised: not a linear step. Some cells are frozen, and a window cuts the end.
PROCESSING = """
[[processing]]
kind = "normalise"

[[processing]]
kind = "time_window"
end = 280.0
taper = 20.0
"""
STAGES = """
[[stage]]
high = 6.0
spacing = [40.0, 40.0]
shots = 2

[[stage]]
"""


@pytest.fixture(scope="module")
def shell(tmp_path_factory, first_run):
    """A folder with the small problem and two others, in which commands run."""
    shell = type(first_run[0])(tmp_path_factory.mktemp("objective"))
    text = (shell.folder / "fwi.toml").read_text()
    (shell.folder / "stages.toml").write_text(text + STAGES)
    frozen = text.replace("bounds = [2.0, 3.5]\n", "bounds = [2.0, 3.5]\nfrozen.depth_above = 50.0\n")
    (shell.folder / "processed.toml").write_text(frozen + PROCESSING)
    return shell


@pytest.fixture(scope="module")
def opened(shell):
    """An open objective in double precision, with processing and frozen cells."""
    config = load_run_config(shell.folder / "processed.toml", EXACT)
    with open_objective(config, load_site("workstation", SITE), shell.folder / "open") as objective:
        yield objective


@pytest.fixture
def objective(opened):
    """The open objective, whose last model is the initial one."""
    opened._last = opened.initial
    return opened


@pytest.fixture(scope="module")
def folder(shell, opened):  # noqa: ARG001 - it writes to the folder
    return shell.folder / "open"


def smooth(objective, seed=0):
    """A smooth random change of the model, (s/km)^2."""
    noise = gaussian_filter(np.random.default_rng(seed).standard_normal(objective.shape), 2.0)
    return 0.01 * noise / np.abs(noise).max()


def dot(one, other):
    return sum(float((a * b).sum()) for a, b in zip(one, other, strict=True))


def extrapolated(function, h=1e-2):
    """The derivative of a function of one number at 0, by central differences with two steps (Richardson 1911)."""
    coarse, fine = ((function(s) - function(-s)) / (2 * s) for s in (h, h / 2))
    return (4 * fine - coarse) / 3


def computed(folder):
    """Number of shots that were computed."""
    return len(logged_events(folder, "shot", "operation on shot"))


def test_the_model_is_described(objective):
    assert (objective.shape, objective.units, objective.dtype) == ((31, 31), "(s/km)^2", np.float64)
    assert objective.domain.spacing == (20.0, 20.0)
    assert objective.shot_names == ("0", "1", "2")
    low, high = objective.bounds
    np.testing.assert_allclose(objective.initial, 0.16)
    np.testing.assert_array_equal(low[:, :3], high[:, :3])  # frozen: depths of 0, 20 and 40 m
    np.testing.assert_allclose([low[:, 3:], high[:, 3:]], np.broadcast_to([[[3.5**-2]], [[0.25]]], (2, 31, 28)))
    np.testing.assert_array_equal(objective.to_velocity(objective.initial), np.full((31, 31), 2.5))
    np.testing.assert_allclose(objective.from_velocity(np.full((31, 31), 2.5)), objective.initial, rtol=1e-15)


def test_the_gradient_is_the_derivative_of_the_misfit(objective):
    m, dm = objective.initial, smooth(objective)
    f, g = objective(m)
    assert not g[:, :3].any()
    dm[:, :3] = 0
    slope = extrapolated(lambda h: objective(m + h * dm)[0], 0.1)
    assert float((g * dm).sum()) == pytest.approx(slope, rel=1e-5)
    residual = [a - b for a, b in zip(objective.record(m), objective.observed(), strict=True)]
    assert f == pytest.approx(0.5 * dot(residual, residual))
    np.testing.assert_allclose(objective.born_adjoint(residual), g, atol=1e-12 * np.abs(g).max())


def test_a_flat_model_has_a_flat_gradient(objective):
    f, g = objective(objective.initial.ravel())
    again, on_grid = objective(objective.initial)
    assert (f, g.shape) == (again, (961,))
    np.testing.assert_array_equal(g, on_grid.ravel())


def test_misfits_of_some_shots_add_up(objective):
    m = objective.initial
    f, g = objective(m)
    parts = [objective(m, shots) for shots in ([2, 0], [1])]
    assert sum(f for f, _ in parts) == pytest.approx(f, rel=1e-14)
    np.testing.assert_allclose(sum(g for _, g in parts), g, atol=1e-14 * np.abs(g).max())
    before = objective.evaluations
    np.testing.assert_array_equal(objective(m, [0, 2])[1], parts[0][1])
    assert objective.evaluations == before + 1


def test_born_is_the_derivative_of_the_gathers(objective):
    m, dm = objective.initial, smooth(objective)
    dm[:, :3] = 0
    for shots in (None, [2, 0]):
        scattered = objective.born(dm, m, shots)
        differences = extrapolated(lambda h, shots=shots: np.array(objective.record(m + h * dm, shots)), 0.1)
        assert np.linalg.norm(scattered - differences) < 1e-5 * np.linalg.norm(scattered)


def test_the_adjoint_is_the_transpose_and_gauss_newton_is_both(objective):
    rng = np.random.default_rng(1)
    m, dm = objective.initial + smooth(objective, 2), rng.standard_normal(objective.shape)
    m[:, :3] = objective.initial[:, :3]
    scattered = objective.born(dm, m)
    d = [rng.standard_normal(gather.shape) for gather in scattered]
    back = objective.born_adjoint(d, m)
    assert not back[:, :3].any()
    assert dot(scattered, d) == pytest.approx(float((dm * back).sum()), rel=1e-11)
    product = objective.gauss_newton(dm, m)
    np.testing.assert_allclose(product, objective.born_adjoint(scattered, m), atol=1e-13 * np.abs(product).max())
    assert float((dm * product).sum()) == pytest.approx(dot(scattered, scattered), rel=1e-11)
    some = objective.born_adjoint([d[2], d[0]], m, [2, 0]) + objective.born_adjoint([d[1]], m, [1])
    np.testing.assert_allclose(some, back, atol=1e-13 * np.abs(back).max())


def test_a_model_that_is_left_out_is_the_last_one(objective):
    dm, other = smooth(objective), np.clip(objective.initial + smooth(objective, 3), *objective.bounds)
    at_first = objective.gauss_newton(dm)
    np.testing.assert_array_equal(at_first, objective.gauss_newton(dm, objective.initial))
    np.testing.assert_array_equal(
        objective.gauss_newton(dm, other), objective.gauss_newton(dm.ravel(), other).reshape(31, 31)
    )
    np.testing.assert_array_equal(objective.gauss_newton(dm), at_first)
    objective(other)
    np.testing.assert_array_equal(objective.gauss_newton(dm), objective.gauss_newton(dm, other))


def test_what_has_the_size_of_a_model_is_computed_once(objective, folder):
    m, dm = objective.initial + 1e-4, smooth(objective, 4)
    m[:, :3] = objective.initial[:, :3]
    d = objective.observed([1])

    def ask():
        f, g = objective(m)
        others = objective.gauss_newton(dm, m), objective(m, [1])[1], objective.born_adjoint(d, m, [1])
        return [f, g.tobytes(), *(each.tobytes() for each in others)]

    first, shots = ask(), computed(folder)
    assert ask() == first
    assert computed(folder) == shots
    assert [one["replayed"] for one in logged_events(folder, "evaluation")[-2:]] == [True, True]


def test_pylops_accepts_the_operator(objective):
    operator = objective.linear_operator(shots=[2, 0])
    assert dottest(operator, rtol=1e-10)
    dm = smooth(objective).ravel()
    gathers = objective.born(dm, shots=[2, 0])
    np.testing.assert_array_equal(operator @ dm, operator.join(gathers))
    np.testing.assert_array_equal(operator.split(operator @ dm)[1], gathers[1])
    # scipy's svds asks with columns
    column = operator.matvec(dm[:, None])
    np.testing.assert_array_equal(column[:, 0], operator @ dm)
    np.testing.assert_array_equal(operator.rmatvec(column)[:, 0], operator.H.matvec(column[:, 0]))


@pytest.mark.slow
def test_trust_constr_with_gauss_newton_products_lowers_the_misfit(objective):
    low, high = objective.bounds
    found = minimize(
        objective,
        objective.initial.ravel(),
        method="trust-constr",
        jac=True,
        hessp=lambda m, dm: objective.gauss_newton(dm, m),
        bounds=Bounds(low.ravel(), high.ravel(), keep_feasible=True),
        options={"maxiter": 15},
    )
    assert found.fun < 0.01 * objective(objective.initial)[0]


def with_cell(m, value, cell=(4, 7)):
    m[cell] = value
    return m


BAD = {
    "shape": (lambda o: o(np.ones(7)), r"m: has the shape \(7,\); it should be \(31, 31\), or flat: \(961,\)"),
    "text": (lambda o: o("model"), "m: is not an array of real numbers"),
    "complex": (lambda o: o(o.initial + 1j), "m: is not an array of real numbers"),
    "nan": (lambda o: o(with_cell(o.initial, np.nan)), r"m: is nan \(s/km\)\^2, no velocity, in cell \(4, 7\), but"),
    "fast": (
        lambda o: o(with_cell(o.initial, 0.04)),
        r"m: is 0\.04 \(s/km\)\^2, 5 km/s, in cell \(4, 7\), but 0\.0816327 to 0\.25, 2 to 3\.5 km/s, are allowed "
        r"\(inversion\.bounds\); 1 of 961 cells are out of bounds\n  np\.clip\(m, \*objective\.bounds\) moves numbers onto",
    ),
    "frozen": (lambda o: o(with_cell(o.initial, 0.17, (4, 1))), r"the cell is frozen and keeps 0\.16, 2\.5 km/s"),
    "no-shots": (lambda o: o(o.initial, []), "shots: is .*; it should be a list of indices from 0 to 2"),
    "mask": (lambda o: o(o.initial, [True, False, True]), "it should be a list of indices from 0 to 2"),
    "shot": (lambda o: o(o.initial, [0, 3]), "shots: has the index 3; the shots are 0 to 2"),
    "twice": (lambda o: o(o.initial, [1, 1]), "shots: has an index more than once"),
    "direction": (lambda o: o.born(with_cell(o.initial, np.inf)), r"dm: is inf in cell \(4, 7\); it should be finite"),
    "no-gathers": (lambda o: o.born_adjoint(None), "d: is of the type NoneType; it should be a list with a gather for each"),
    "gathers": (lambda o: o.born_adjoint([]), "d: has the length 0; it should be a list with a gather for each of 3 shots"),
    "gather": (lambda o: o.born_adjoint([np.ones((3, 2))], shots=[1]), r"d\[0\]: has the shape \(3, 2\); it should be"),
    "split": (lambda o: o.linear_operator().split(np.ones(3)), r"d: has the shape \(3,\); it should be \(\d+,\)"),
    "velocity": (
        lambda o: o.from_velocity(np.full((31, 31), 2500.0)),
        r"velocity: is 2500 km/s in cell \(0, 3\), but 2 to 3\.5 km/s are allowed \(inversion\.bounds\); 868 of 961",
    ),
    "velocity-nan": (lambda o: o.from_velocity(np.full((31, 31), np.nan)), r"velocity: is nan km/s in cell \(0, 3\)"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_has_one_message(objective, name):
    ask, message = BAD[name]
    with pytest.raises(InputError, match=message):
        ask(objective)


def test_rounding_beyond_the_bounds_is_accepted(objective):
    low, _ = objective.bounds
    assert objective(low.astype(np.float32))[0] == objective(low)[0]


def test_a_worker_that_dies_is_replaced(objective, folder):
    dm = smooth(objective, 5)
    worker = logged_events(folder, "worker joined")[-1]["pid"]
    os.kill(worker, signal.SIGKILL)
    product = objective.gauss_newton(dm)
    np.testing.assert_allclose(product, objective.born_adjoint(objective.born(dm)), atol=1e-13 * np.abs(product).max())
    wait_until(lambda: len(logged_events(folder, "worker joined")) > 2)


def test_an_objective_that_opens_again_computes_no_shot(shell, objective, folder, tmp_path):
    m, dm = objective.initial, smooth(objective, 6)
    answers = objective(m)[1], objective.gauss_newton(dm, m), objective.born_adjoint(objective.observed([1]), m, [1])
    copy = shutil.copytree(
        folder, tmp_path / "copy", ignore=shutil.ignore_patterns("driver.json", ".lock", "events.jsonl")
    )
    config = load_run_config(shell.folder / "processed.toml", EXACT)
    with open_objective(config, load_site("workstation", SITE), copy) as again:
        found = again(m)[1], again.gauss_newton(dm, m), again.born_adjoint(again.observed([1]), m, [1])
    for one, other in zip(found, answers, strict=True):
        np.testing.assert_array_equal(one, other)
    on_shots = logged_events(copy, "shot", "operation on shot")
    assert [(one.get("operation"), one["shot"]) for one in on_shots] == [("observed", "1"), ("shape", "1")]
    with pytest.raises(InputError, match="the objective is closed"):
        again(m)
    status = run_status(copy)
    assert (status.state, status.reason) == ("stopped", "the program has closed its objective; start it again to go on")
    assert "same command" not in write_report(copy).read_text()


def test_missing_pylops_is_one_message(objective, monkeypatch):
    monkeypatch.setitem(sys.modules, "pylops", None)
    monkeypatch.delitem(sys.modules, "hpcfwi.run.linear_operator", raising=False)
    with pytest.raises(InputError, match=r"pip install 'hpcfwi\[pylops\]'"):
        objective.linear_operator()


def test_its_folder_is_not_that_of_a_run(shell, first_run, folder, tmp_path):
    assert run_status(folder).state == "running"
    copy = shutil.copytree(folder, tmp_path / "copy", ignore=shutil.ignore_patterns("driver.json", ".lock"))
    refused = shell("run", "processed.toml", "--run-dir", copy, *options(*EXACT))
    assert refused.returncode == 2
    message = "is the folder of an open objective (hpcfwi.open_objective); an inversion (hpcfwi run) needs another one"
    assert message in refused.stderr
    shutil.copytree(first_run[2], tmp_path / "run")
    with (
        pytest.raises(InputError, match=r"is the folder of an inversion \(hpcfwi run\); an open objective"),
        open_objective(load_run_config(shell.folder / "fwi.toml"), run_dir=tmp_path / "run"),
    ):
        pass


@pytest.mark.parametrize(
    ("config", "stage", "message"),
    [
        ("stages.toml", None, "has 2 stages; choose one with stage=1 to stage=2"),
        ("stages.toml", 0, "is 0, but the configuration has stages 1 to 2"),
        ("stages.toml", 3, "is 3, but the configuration has stages 1 to 2"),
        ("stages.toml", 1.5, "is 1.5, but the configuration has stages 1 to 2"),
        ("fwi.toml", 2, "is 2, but the configuration has no stages"),
    ],
)
def test_a_stage_that_does_not_exist_is_refused(shell, config, stage, message):
    with (
        pytest.raises(InputError, match=f"stage: .*{message}"),
        open_objective(load_run_config(shell.folder / config), run_dir=shell.folder / "s", stage=stage),
    ):
        pass


@pytest.mark.slow
def test_a_stage_has_its_own_grid_shots_and_band(shell):
    config, site = load_run_config(shell.folder / "stages.toml"), load_site("workstation", SITE)
    with open_objective(config, site, shell.folder / "stages", stage=1) as objective:
        assert objective.shape == (24, 24)
        assert objective.domain.spacing == (40.0, 40.0)
        assert objective.shot_names == ("0", "2")
        f, g = objective(objective.initial)
        m = np.clip(objective.initial - 0.01 * g / np.abs(g).max(), *objective.bounds)
        assert objective(m)[0] < f
        hump = np.zeros(objective.shape)
        hump[12, 12] = 1.0
        hump = 0.01 * gaussian_filter(hump, 2.0) / gaussian_filter(hump, 2.0).max()
        velocity = objective.to_velocity(objective.initial + hump)
        assert velocity.shape == (31, 31)
        found = objective.from_velocity(velocity) - objective.initial
        assert 0 < np.linalg.norm(found - hump) < 0.2 * np.linalg.norm(hump)
        dm = np.random.default_rng(0).standard_normal(objective.shape)
        scattered = objective.born(dm)
        back = float((dm * objective.born_adjoint(scattered)).sum())
        assert back == pytest.approx(dot(scattered, scattered), rel=1e-4)  # single precision, sampled wavefield
    with pytest.raises(InputError, match="the objective is closed"):
        objective(m)
    status = run_status(shell.folder / "stages")
    assert (status.state, status.reason) == (
        "stopped",
        "the program has closed its objective; start it again to go on",
    )
    assert (status.stage, status.stages) == ("1, up to 6 Hz", 2)
    assert (status.resume_command, status.iterations, status.evaluations) == (None, None, 2)
    assert logged_events(shell.folder / "stages")[-1]["event"] == "closed"


SCRIPT = """
import sys

import numpy as np

from hpcfwi import load_run_config, load_site, open_objective

if __name__ == "__main__":
    site = load_site("workstation", ["worker.threads=1"])
    with open_objective(load_run_config("fwi.toml"), site, run_dir=sys.argv[1]) as objective:
        m = objective.initial
        for iteration in range(5):
            f, g = objective(m)
            curvature = np.sum(g * objective.gauss_newton(g))
            m = np.clip(m - np.sum(g * g) / curvature * g, *objective.bounds)
            print(iteration, f.hex(), flush=True)
        np.save(f"{sys.argv[1]}.npy", m)
"""


@pytest.fixture(scope="module")
def start(shell):
    """Start the script in a run folder, which has a solver if another run made one."""
    (shell.folder / "script.py").write_text(SCRIPT)

    def start(name: str, like: Path | None = None) -> subprocess.Popen[str]:
        if like is not None:
            (shell.folder / name / "staged").mkdir(parents=True, mode=0o700)
            (shell.folder / name).chmod(0o700)
            for path in (like / "staged").glob("solver-*.pkl"):
                shutil.copy2(path, shell.folder / name / "staged")
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
        return subprocess.Popen([sys.executable, "script.py", name], cwd=shell.folder, env=shell.environment, **pipes)

    return start


@pytest.fixture(scope="module")
def finished(start, shell):
    """What the script printed, its model, and its folder."""
    process = start("whole")
    out, err = process.communicate()
    assert process.returncode == 0, err
    return out, (shell.folder / "whole.npy").read_bytes(), shell.folder / "whole"


@pytest.mark.slow
def test_a_program_that_starts_again_gets_the_same_answers_without_a_shot(finished, start, shell):
    out, model, folder = finished
    misfits = [float.fromhex(line.split()[1]) for line in out.splitlines()]
    assert misfits[-1] < 0.1 * misfits[0]
    shots = computed(folder)
    assert shots == 5 * 3 * 2
    again, _ = start("whole").communicate()
    assert again == out
    assert (shell.folder / "whole.npy").read_bytes() == model
    assert computed(folder) == shots


@pytest.mark.slow
def test_a_program_that_is_killed_ends_with_the_same_bytes(finished, start, shell):
    out, model, whole = finished
    process = start("killed", like=whole)
    wait_until(lambda: len(logged_events(shell.folder / "killed", "evaluation")) >= 3, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (shell.folder / "killed.npy").exists()
    assert run_status(shell.folder / "killed").state == "killed"
    again, err = start("killed").communicate()
    assert again == out, err
    assert (shell.folder / "killed.npy").read_bytes() == model
    assert any(one["replayed"] for one in logged_events(shell.folder / "killed", "evaluation"))


@pytest.mark.slow
def test_the_first_answer_is_the_first_evaluation_of_a_run(finished, first_run):
    def first(folder):
        containers = [read_container(path, "evaluation") for path in sorted((folder / "journal").glob("*.bin"))]
        (payload,) = (payload for header, payload in containers if header["number"] == 1)
        return payload

    assert first(finished[2]) == first(first_run[2])


@pytest.mark.slow
@pytest.mark.parametrize(
    "number", range(len(re.findall(r"^```python$", PAGE.read_text() if PAGE.exists() else "", re.MULTILINE)))
)
def test_the_programs_of_the_guide_run_as_they_stand(shell, number):
    block = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)[number]
    shutil.copytree(ROOT / "jobs", shell.folder / "jobs", dirs_exist_ok=True)
    (shell.folder / "block.py").write_text(block)
    done = subprocess.run(
        [sys.executable, "block.py"],
        cwd=shell.folder,
        env=shell.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout
