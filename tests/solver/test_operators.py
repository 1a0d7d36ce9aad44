"""The one solver: built once per kind of machine, carried to workers with its kernels, built again where it does not fit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import cloudpickle
import numpy as np
import pytest

import hpcfwi.solver.operators as solver_module
from hpcfwi.artifacts import StagedFile
from hpcfwi.io import make_private
from hpcfwi.model.velocity import squared_slowness
from hpcfwi.solver.engine import DevitoEngine
from hpcfwi.solver.operators import obtain_solver, stage_solver
from hpcfwi.solver.spec import SolverSpec

# What a worker does with the staged solver; prints what came of it.
WORKER = """
import hashlib, json, os, sys
from pathlib import Path
import cloudpickle

case = cloudpickle.loads(Path(sys.argv[1]).read_bytes())
from hpcfwi.solver.operators import obtain_solver
from hpcfwi.solver.spec import SolverSpec
import hpcfwi.solver.operators

if "processor" in case:
    described = {**hpcfwi.solver.operators.fingerprint(), "processor": case["processor"]}
    import hpcfwi.solver.operators
    hpcfwi.solver.operators.fingerprint = lambda: described
from hpcfwi.model.velocity import squared_slowness
from hpcfwi.solver.engine import DevitoEngine

builds = []
from devito import Operator
build = Operator.__dict__["_build"].__func__
Operator._build = classmethod(lambda cls, *a, **k: builds.append(1) or build(cls, *a, **k))

solver, facts = obtain_solver(case["staged"], SolverSpec.from_problem(case["problem"]))
problem = case["problem"]
engine = DevitoEngine(solver, problem.wavelet)
engine.set_model(squared_slowness(problem.true_velocity))
axis, shot = problem.time_axis(problem.true_velocity), problem.survey.shots[0]
gradient = engine.misfit_and_gradient(shot, axis, lambda record: (0.0, record))[1]
digests = [hashlib.sha256(array.tobytes()).hexdigest() for array in (engine.record(shot, axis), gradient)]
print(json.dumps({"builds": len(builds), "digests": digests, **facts}))
"""


@pytest.fixture
def problem(make_problem):
    return make_problem()


@pytest.fixture(scope="module")
def staged_once(tmp_path_factory):
    """A folder for the solver that most tests here share."""
    return make_private(tmp_path_factory.mktemp("staged"))


@pytest.fixture
def staged(staged_once, problem):
    return stage_solver(staged_once, SolverSpec.from_problem(problem))[0]


@pytest.fixture
def worker(tmp_path, problem):
    """Starts a worker process on a staged solver, without JIT caches of its own."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()

    def start(staged, path=os.environ["PATH"], **case):
        (tmp_path / "case.pkl").write_bytes(cloudpickle.dumps({"staged": staged, "problem": problem, **case}))
        environment = {**os.environ, "TMPDIR": str(temporary), "PATH": path, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-c", WORKER, str(tmp_path / "case.pkl")]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    return start


def answer(process):
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return json.loads(out)


def solvers(folder):
    return sorted(Path(folder).glob("solver-*.pkl"))


@pytest.mark.usefixtures("one_thread")
def test_a_worker_without_compiler_and_caches_runs_the_staged_solver(staged, problem, worker, tmp_path):
    nothing = tmp_path / "nothing"
    nothing.mkdir()
    found = answer(worker(staged, path=str(nothing)))
    assert found["source"] == "staged"
    assert found["builds"] == 0
    assert not [path for path in (tmp_path / "temporary").rglob("*") if path.suffix in (".c", ".o")]
    # and its waves are those that the solver makes here
    engine = DevitoEngine(obtain_solver(staged, SolverSpec.from_problem(problem))[0], problem.wavelet)
    engine.set_model(squared_slowness(problem.true_velocity))
    axis, shot = problem.time_axis(problem.true_velocity), problem.survey.shots[0]
    gradient = engine.misfit_and_gradient(shot, axis, lambda record: (0.0, record))[1]
    record = engine.record(shot, axis)
    assert np.abs(record).max() > 0
    assert found["digests"] == [sha256(array.tobytes()).hexdigest() for array in (record, gradient)]


def test_on_another_kind_of_machine_one_of_two_workers_builds_and_both_report_it(staged, problem, worker):
    folder = Path(staged.path).parent
    before = solvers(folder)
    pair = [worker(staged, processor="another processor") for _ in range(2)]
    answers = [answer(process) for process in pair]
    assert sorted(found["source"] for found in answers) == ["found", "rebuilt"]
    assert sorted(found["builds"] for found in answers) == [0, 2]
    assert len(solvers(folder)) == len(before) + 1
    for found in answers:
        (difference,) = found["differences"]
        assert difference.startswith("processor: ")
        assert difference.endswith(", here another processor")
    # the driver's own is still the one that fits here
    assert stage_solver(folder, SolverSpec.from_problem(problem)) == (staged, False)


def test_where_locks_do_not_work_every_worker_builds(staged, problem, monkeypatch):
    class NoLock:
        def __init__(self, path):
            self.path = path

        def acquire(self, timeout):
            raise NotImplementedError("FileSystem does not appear to support flock")

        def release(self):
            pass

    monkeypatch.setattr("filelock.FileLock", NoLock)
    described = {**solver_module.fingerprint(), "compiler": "another compiler"}
    monkeypatch.setattr(solver_module, "fingerprint", lambda: described)
    _, facts = obtain_solver(staged, SolverSpec.from_problem(problem))
    assert facts["source"] == "rebuilt"


def test_the_next_driver_finds_the_solver(staged, problem):
    assert stage_solver(Path(staged.path).parent, SolverSpec.from_problem(problem)) == (staged, False)


def test_another_problem_gets_another_solver(staged, make_problem, monkeypatch):
    built = []
    monkeypatch.setattr(solver_module, "_build", lambda _, spec: built.append(spec) or StagedFile("", ""))
    other = SolverSpec.from_problem(make_problem("solver.space_order=6"))
    assert stage_solver(Path(staged.path).parent, other) == (StagedFile("", ""), True)
    assert built == [other]


@pytest.mark.parametrize("damage", ["truncated", "bit-flipped", "gone"])
def test_a_damaged_solver_is_built_again_by_the_driver(staged, problem, tmp_path, damage):
    folder = make_private(tmp_path / "own")
    path = folder / Path(staged.path).name
    content = bytearray(Path(staged.path).read_bytes())
    if damage == "truncated":
        del content[-100:]
    if damage == "bit-flipped":
        content[-100] ^= 4
    if damage != "gone":
        path.write_bytes(content)
        path.chmod(0o600)
    again, built = stage_solver(folder, SolverSpec.from_problem(problem))
    assert built
    assert obtain_solver(again, SolverSpec.from_problem(problem))[1]["source"] == "staged"


def test_a_solver_that_does_not_compile_says_what_to_try(tmp_path, make_problem):
    """In a process of its own, since Devito keeps what it has compiled."""
    program = """
import cloudpickle, sys
from pathlib import Path
from hpcfwi.io import make_private
from hpcfwi.solver.operators import stage_solver
from hpcfwi.solver.spec import SolverSpec
from hpcfwi.errors import RunError

spec = cloudpickle.loads(Path(sys.argv[1]).read_bytes())
try:
    stage_solver(make_private(Path(sys.argv[2])), spec)
except RunError as error:
    print(error)
"""
    (tmp_path / "spec.pkl").write_bytes(cloudpickle.dumps(SolverSpec.from_problem(make_problem())))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "gcc").write_text(
        '#!/bin/sh\nfor x; do case $x in *version* | -dump*) echo 12.2.0; exit;; esac; done\necho "disk quota" >&2; exit 1\n'
    )
    (tmp_path / "bin" / "gcc").chmod(0o755)
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "spec.pkl"), str(tmp_path / "staged")],
        env={**os.environ, "PATH": path, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "the solver cannot be built" in done.stdout, done.stderr
    assert "gcc --version" in done.stdout
    assert not solvers(tmp_path / "staged")


def test_a_host_of_another_kind_without_a_compiler_reports_which_key_to_set(staged, worker, tmp_path):
    nothing = tmp_path / "nothing"
    nothing.mkdir()
    _, err = worker(staged, path=str(nothing), processor="another processor").communicate(timeout=300)
    assert "the kernels do not fit this host, which has no compiler (processor: " in err
    assert "set devito.target to an instruction set that both machines have" in err


TARGETED = """
import json, sys
from pathlib import Path
import cloudpickle
import hpcfwi.solver.operators as fingerprint

spec, processor, folder = cloudpickle.loads(Path(sys.argv[1]).read_bytes()), sys.argv[2], Path(sys.argv[3])
fingerprint._processor = lambda: (processor, processor)
from hpcfwi.artifacts import StagedFile, read_header
from hpcfwi.io import make_private
from hpcfwi.solver.operators import obtain_solver, stage_solver
from hpcfwi.solver.spec import SolverSpec

if processor == "of the login node":
    staged, _ = stage_solver(make_private(folder), spec)
else:
    (path,) = folder.glob("solver-*.pkl")
    staged = StagedFile(str(path), read_header(path)["digest"])
solver, facts = obtain_solver(staged, spec)
print(json.dumps([facts["source"], solver.forward.operator._compiler.cflags]))
"""


def test_kernels_for_a_named_instruction_set_run_on_nodes_of_another_kind_without_a_compiler(tmp_path, problem):
    (tmp_path / "spec.pkl").write_bytes(cloudpickle.dumps(SolverSpec.from_problem(problem)))
    (tmp_path / "nothing").mkdir()

    def on(processor, **variables):
        words = [sys.executable, "-c", TARGETED, tmp_path / "spec.pkl", processor, tmp_path / "staged"]
        environment = {**os.environ, "HPCFWI_TARGET": "x86-64-v2", "TMPDIR": str(tmp_path), **variables}
        done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    source, flags = on("of the login node")
    assert source == "staged"
    assert "-march=x86-64-v2" in flags
    assert "-march=native" not in flags
    assert on("of a compute node", PATH=str(tmp_path / "nothing"))[0] == "staged"


def test_an_instruction_set_that_the_compiler_does_not_know_is_reported(tmp_path, problem):
    program = """
import cloudpickle, sys
from pathlib import Path
from hpcfwi.io import make_private
from hpcfwi.errors import RunError
from hpcfwi.solver.operators import stage_solver
from hpcfwi.solver.spec import SolverSpec

try:
    stage_solver(make_private(Path(sys.argv[2])), cloudpickle.loads(Path(sys.argv[1]).read_bytes()))
except RunError as error:
    print(error)
"""
    (tmp_path / "spec.pkl").write_bytes(cloudpickle.dumps(SolverSpec.from_problem(problem)))
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "spec.pkl"), str(tmp_path / "staged")],
        env={**os.environ, "HPCFWI_TARGET": "zen3", "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert 'Does the compiler know devito.target = "zen3"?' in done.stdout, done.stderr
