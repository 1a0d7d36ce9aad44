"""jobs/environment.sh and the scripts that source it, as real processes on a small project of their own.

That project is also called hpcfwi. It builds itself with a backend in its own tree, so that the real pip installs it
into a real virtual environment and downloads nothing. PATH has only what a script may find, in a folder of the test's.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BASH = str(shutil.which("bash"))
TOOLS = re.findall(r"\w+", "bash cat chmod cksum dirname find flock grep mkdir mktemp rm rmdir sed sleep tail")
PYTHON = f'exec "{sys.executable}" "$@"'

FILES = {
    "tests/run.sh": (ROOT / "tests/run.sh").read_text(),
    "pyproject.toml": """[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
""",
    "backend.py": """import os, pathlib, sys, time, zipfile
def build_editable(wheels, config_settings=None, metadata_directory=None):
    root = pathlib.Path(__file__).parent
    mood = (root / "mood").read_text()
    diary = (root / "diary").open("a", buffering=1)
    diary.write("begin\\n")
    time.sleep({"hang": 600, "linger": 1}.get(mood, 0))
    if mood == "fail":
        sys.exit(f"the backend says no; retries: {os.environ.get('PIP_RETRIES')}")
    with zipfile.ZipFile(pathlib.Path(wheels) / "hpcfwi-0.1-py3-none-any.whl", "w") as wheel:
        info = "hpcfwi-0.1.dist-info/"
        wheel.writestr("hpcfwi.pth", str(root))
        wheel.writestr(info + "METADATA", "Metadata-Version: 2.1\\nName: hpcfwi\\nVersion: 0.1\\n")
        wheel.writestr(info + "WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(info + "entry_points.txt", "[console_scripts]\\nhpcfwi = hpcfwi.__main__:main\\n")
        wheel.writestr(info + "RECORD", "".join(f"{name},,\\n" for name in wheel.namelist()))
    diary.write("end\\n")
    return "hpcfwi-0.1-py3-none-any.whl"
""",
    "mood": "",
    "diary": "",
    "hpcfwi/version.py": "",
    "hpcfwi/__main__.py": """import os, sys
def main():
    print(os.path.dirname(__file__), os.getcwd(), os.environ.get("PYTHONPATH"), *sys.argv[1:], sep="|")
""",
}


class Project:
    """A root with the scripts, and a machine to run them on."""

    def __init__(self, folder: Path, name: str = "a project"):
        self.root, self.venv, self.bin = folder / name, folder / name / ".venv", folder / "bin of a machine"
        self.env = {"HOME": str(folder), "HPCFWI_PYTHON": sys.executable}
        self.env |= {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1"}
        if self.bin.exists():
            return
        self.bin.mkdir()
        for tool in TOOLS:
            (self.bin / tool).symlink_to(str(shutil.which(tool)))
        self.program("gcc", "")
        self.program("id", "echo 1000")
        shutil.copytree(ROOT / "jobs", self.root / "jobs")
        for file, text in FILES.items():
            (self.root / file).parent.mkdir(exist_ok=True)
            (self.root / file).write_text(text)

    def program(self, name, text):
        (self.bin / name).unlink(missing_ok=True)
        (self.bin / name).write_text(f"#!{BASH}\n{text}\n")
        (self.bin / name).chmod(0o755)

    def start(self, *words, script="jobs/fwi.sh", cwd=None, **env):
        env = self.env | {"PATH": str(self.bin)} | env
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        command = [BASH, self.root / script, *words]
        return subprocess.Popen(command, env=env, cwd=cwd or self.root.parent, start_new_session=True, **pipes)

    def run(self, *words, status=0, **more):
        """What a script prints on standard output and standard error."""
        process = self.start(*words, **more)
        out, err = process.communicate(timeout=300)
        assert process.returncode == status, err
        return out, err

    def change(self, mood=""):
        """Changes the project, so that the next start installs it again."""
        (self.root / "mood").write_text(mood)
        (self.root / "hpcfwi/version.py").write_text("# changed")

    def diary(self):
        return (self.root / "diary").read_text().split()


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    project = Project(tmp_path_factory.mktemp("ready"))
    # Some sites set PIP_USER, which does not work in a virtual environment.
    out, err = project.run("--setup", PIP_USER="1")
    assert out == f"hpcfwi is set up: {project.venv}/bin/hpcfwi\n"
    assert err.splitlines()[1:] == ["hpcfwi: the Python environment is ready"]
    project.stamp = (project.venv / "hpcfwi.stamp").read_text()
    return project


@pytest.fixture
def bare(tmp_path):
    """A project without an environment."""
    return Project(tmp_path)


@pytest.fixture
def ready(shared, bare):
    """A project with an environment, which tests share, because making one takes seconds."""
    for name in ("mood", "pyproject.toml", "hpcfwi/version.py", "diary"):
        (shared.root / name).write_text(FILES[name])
    (shared.venv / "hpcfwi.stamp").write_text(shared.stamp)
    shared.bin = bare.bin
    return shared


@pytest.mark.parametrize(
    ("script", "words", "called"),
    [
        ("jobs/fwi.sh", [], "run|{}/jobs/circle.toml"),
        ("jobs/fwi.sh", ["--set", "a.b=c d"], "run|{}/jobs/circle.toml|--set|a.b=c d"),
        ("jobs/fwi.sh", ["my problem.toml", "x='1 2'", "", "--help"], "run|my problem.toml|x='1 2'||--help"),
        ("jobs/scaling.sh", [], "scale|{}/jobs/circle.toml|--nodes|1,2"),
    ],
)
def test_a_script_passes_its_arguments_and_runs_in_the_current_folder(ready, tmp_path, script, words, called):
    began = time.perf_counter()
    out, err = ready.run(*words, script=script, cwd=tmp_path, PYTHONPATH="/of/a/module")
    assert out == f"{ready.root}/hpcfwi|{tmp_path}|None|{called.format(ready.root)}\n"
    assert err == ""
    assert ready.diary() == []
    assert time.perf_counter() - began < 1  # 0.1 s on an idle machine, half a second with a start of pip


@pytest.mark.parametrize("script", ["jobs/fwi.sh", "jobs/scaling.sh", "tests/run.sh"])
def test_help_prints_the_header_comment_of_the_script(bare, script):
    out, _ = bare.run("--help", script=script)
    assert f"bash {script}" in out
    assert not any(line.startswith(("#", "set ")) for line in out.splitlines())
    assert not bare.venv.exists()


@pytest.mark.parametrize("found", [".", "jobs", "HPCFWI_ROOT", ""])
def test_a_copy_in_slurms_spool_folder_finds_the_root(ready, tmp_path, found):
    (tmp_path / "spool").mkdir()
    copy = shutil.copy(ready.root / "jobs/fwi.sh", tmp_path / "spool/slurm_script")
    env = {"SLURM_JOB_ID": "42", "SLURM_SUBMIT_DIR": str(ready.root / found if found in (".", "jobs") else tmp_path)}
    env |= {found: str(ready.root)} if found == "HPCFWI_ROOT" else {}
    out, err = ready.run("x.toml", script=copy, status=0 if found else 2, **env)
    assert out.endswith("|run|x.toml|--requeue|10\n") if found else f"{tmp_path}: submit from" in err


def test_a_pbs_job_uses_the_virtual_env_that_it_is_given(ready, bare):
    env = {"PBS_JOBID": "42", "PBS_O_WORKDIR": f"{bare.root}/jobs", "VIRTUAL_ENV": str(ready.venv)}
    out, _ = bare.run(script="jobs/fwi.pbs", HPCFWI_CONFIG="x.toml", HPCFWI_ARGS="--site a", **env)
    assert out.startswith(f"{ready.root}/hpcfwi|")
    assert out.endswith("|run|x.toml|--requeue|10|--site|a\n")


@pytest.mark.parametrize("job", ["", "42"])
def test_a_failed_install_shows_the_end_of_its_log_and_in_a_job_advises_the_login_node(ready, job):
    ready.change("fail")
    _, err = ready.run(status=3, SLURM_JOB_ID=job)
    assert f"the backend says no; retries: {'1' if job else 'None'}" in err
    assert f"The end of {ready.venv}/setup.log" in err
    assert len(err.splitlines()) <= 18
    assert ("login node type: bash jobs/fwi.sh --setup" in err) == bool(job)


def test_a_job_keeps_an_environment_that_does_not_work_on_its_node(ready):
    python = (ready.venv / "bin/python").rename(ready.venv / "bin/kept")
    (ready.venv / "bin/python").symlink_to("/not/on/this/node")
    _, err = ready.run(status=3, PBS_JOBID="42.server")
    python.rename(ready.venv / "bin/python")
    assert "Load the modules" in err
    assert "login node type: bash jobs/fwi.sh --setup" in err
    assert ready.run()[1] == ""


@pytest.mark.slow
def test_a_start_waits_for_the_pip_of_a_killed_start_and_then_sets_up_again(ready):
    ready.change("hang")
    killed = ready.start("--setup")
    end = time.monotonic() + 60
    while "begin" not in ready.diary() and time.monotonic() < end:
        time.sleep(0.02)
    (ready.root / "mood").write_text("")
    (remnant := next(ready.venv.glob("lib/python3*/site-packages")) / "half a package").touch()
    killed.kill()
    waiting = ready.start("--setup")
    assert "waiting for another start" in waiting.stderr.readline()
    os.killpg(killed.pid, signal.SIGKILL)
    waiting.communicate(timeout=300)
    killed.communicate()
    assert waiting.returncode == 0
    assert not remnant.exists()
    assert ready.diary() == ["begin", "begin", "end"]


@pytest.mark.parametrize("name", ["pyproject.toml", "hpcfwi/version.py"])
def test_a_changed_project_is_installed_again_into_the_same_environment_even_if_it_is_active(ready, name):
    (ready.venv / "kept").touch()
    with (ready.root / name).open("a") as file:
        file.write("# changed\n")
    ready.run("--setup", VIRTUAL_ENV=f"{ready.root}/jobs/../.venv")
    assert ready.diary() == ["begin", "end"]
    assert (ready.venv / "kept").exists()


def test_an_update_that_fails_in_a_job_leaves_the_environment_as_it_was(ready):
    (ready.venv / "kept").touch()
    ready.change("fail")
    for _ in range(2):
        assert "on a login node type: bash jobs/fwi.sh --setup" in ready.run("--setup", status=3, SLURM_JOB_ID="7")[1]
    assert (ready.venv / "kept").exists()
    ready.change()
    ready.run("--setup", SLURM_JOB_ID="7")
    assert (ready.venv / "kept").exists()


def test_extras_are_added_and_kept(ready):
    code = 'set -eu; . "$1/jobs/environment.sh"; hpcfwi_environment "$1" "$2"; echo "$HPCFWI_BIN"'
    (ready.root / "jobs/extras.sh").write_text(f'set -- "{ready.root}" "$1"; {code}')
    for extras, begun in [("test", 1), ("test", 1), ("", 1), ("mpi,test", 2), ("test,mpi", 2)]:
        assert ready.run(extras, script="jobs/extras.sh")[0] == f"{ready.venv}/bin\n"
        assert ready.diary().count("begin") == begun
    assert (ready.venv / "hpcfwi.stamp").read_text().splitlines()[1] == "mpi,test"


@pytest.mark.slow
def test_a_venv_made_by_the_user_is_kept_and_a_moved_or_copied_one_is_made_again(bare, tmp_path):
    subprocess.run([sys.executable, "-m", "venv", bare.venv], check=True)
    (bare.venv / "kept").touch()
    (bare.root / "mood").write_text("fail")
    bare.run("--setup", status=3)
    (bare.root / "mood").write_text("")
    bare.run("--setup")
    assert (bare.venv / "kept").exists()
    moved, copied = (Project(tmp_path, name) for name in ("moved project", "copied project"))
    bare.root.rename(moved.root)
    shutil.copytree(moved.root, copied.root, symlinks=True)
    for project in (moved, copied):
        assert project.run()[0].startswith(f"{project.root}/hpcfwi|")
        assert not (project.venv / "kept").exists()


@pytest.mark.parametrize(
    "flock", ["as it is", *(pytest.param(how, marks=pytest.mark.slow) for how in ("refused", "missing"))]
)
def test_only_one_of_two_concurrent_starts_sets_up(ready, flock):
    if flock == "refused":
        ready.program("flock", "echo 'flock: 9: No locks available' >&2; exit 71")
    elif flock == "missing":
        (ready.bin / "flock").unlink()
    ready.change("linger")
    both = [ready.start("--setup") for _ in range(2)]
    errors = sorted((process.communicate(timeout=300)[1] for process in both), key=len)
    assert [process.returncode for process in both] == [0, 0], errors
    assert ready.diary() == ["begin", "end"]
    waiting = next(error for error in errors if "waiting for another start" in error)
    assert waiting.count("\n") == 1
    assert ("rmdir" in waiting) == (flock != "as it is")
    assert not (ready.root / ".venv.lock.d").exists()


@pytest.mark.parametrize("works", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_uv_needs_no_python_and_pip_takes_over_where_uv_fails(bare, works):
    make, install = f'"{sys.executable}" -m venv "${{!#}}"', '"$4" -m pip "$2" "${@:5}"'
    done = f"case $1 in venv) {make} ;; pip) {install} ;; esac" if works else "exit 1"
    bare.program("uv", f'echo "$@" >>"{bare.root}/uv"; {done}')
    if not works:
        assert "type: export HPCFWI_PYTHON=" in bare.run("--setup", status=3, HPCFWI_PYTHON="")[1]
        (bare.root / "uv").unlink()
    bare.run("--setup", HPCFWI_PYTHON="" if works else sys.executable)
    assert bare.diary() == ["begin", "end"]
    made, installed = (bare.root / "uv").read_text().splitlines()
    assert made.endswith(f"--python {'>=3.11,<3.15' if works else sys.executable} {bare.venv}")
    assert installed == f"pip install --python {bare.venv}/bin/python --editable ."


def test_without_a_compiler_root_on_debian_installs_one_and_other_users_see_the_command(ready):
    (ready.bin / "gcc").rename(ready.bin / "mycc")
    _, err = ready.run("--setup", status=3)
    assert "a C compiler" in err
    assert err.endswith("module load gcc\nOn Debian or Ubuntu, type: sudo apt-get install gcc libc6-dev\n")
    ready.run("--setup", CC="mycc")
    ready.program("id", "echo 0")
    ready.program("apt-get", "echo 'E: no such package' >&2; exit 100")
    _, err = ready.run("--setup", status=3)
    assert "E: no such package\n" in err
    assert err.endswith("sudo apt-get install gcc libc6-dev\n")
    ready.program("apt-get", f'echo "$@" >>"{ready.bin}/gcc"; chmod +x "{ready.bin}/gcc"')
    assert ready.run("--setup")[1] == "hpcfwi: installing with apt-get: gcc libc6-dev\n"
    assert (ready.bin / "gcc").read_text().endswith(" gcc libc6-dev\n")


def test_one_message_names_everything_missing_and_another_python_is_found_unless_one_is_named(bare):
    (bare.bin / "gcc").unlink()
    old = f'[ "$1" = -V ] && echo Python 3.10.12 || exec "{sys.executable}" -I -c "import sys; sys.version_info = (3, 10); $3"'
    bare.program("python3", old)
    bare.program("python3.12", "echo 'a shim: command not found' >&2; exit 127")
    _, err = bare.run("--setup", status=3, HPCFWI_PYTHON="")
    assert err.count("hpcfwi: ") == 1
    assert "a C compiler" in err
    assert "Python 3.11 or newer with ensurepip (python3 is Python 3.10.12)" in err
    assert err.endswith("sudo apt-get install gcc libc6-dev python3.11-venv\n")
    bare.program("gcc", "")
    bare.program("python3.11", PYTHON)
    assert "(/no/such is not there)" in bare.run("--setup", status=3, HPCFWI_PYTHON="/no/such")[1]
    bare.run("--setup", HPCFWI_PYTHON="")


def test_without_a_pyproject_the_message_says_what_to_do(bare):
    (bare.root / "pyproject.toml").unlink()
    assert "activate an environment" in bare.run("--setup", status=3)[1]


@pytest.mark.parametrize("variable", ["VIRTUAL_ENV", "CONDA_PREFIX"])
def test_an_active_environment_is_used_only_if_it_has_hpcfwi(ready, bare, variable):
    assert bare.run(**{variable: str(ready.venv)})[0].startswith(f"{ready.root}/hpcfwi|")
    assert not bare.venv.exists()
    _, err = bare.run(status=3, HPCFWI_PYTHON="/no/such", **{variable: "/usr"})
    assert "(/no/such is not there)" in err


def test_the_test_script_names_what_an_active_environment_lacks(ready, bare):
    command = {"script": "tests/run.sh", "status": 3, "VIRTUAL_ENV": str(ready.venv)}
    assert "lacks: hypothesis jsonschema mypy pytest ruff xdist\n" in bare.run(**command)[1]
    (bare.root / "docs").mkdir()
    (bare.root / "docs/mkdocs.yml").touch()
    (bare.root / "pyproject.toml").write_text("[tool.importlinter]\n")
    _, err = bare.run(**command)
    assert "lacks: hypothesis jsonschema mypy pytest ruff xdist importlinter mkdocs\n" in err
    assert f"install --editable '{bare.root}[test,docs]'" in err


@pytest.mark.parametrize("failing", ["no", "ruff", "lint-imports", "mkdocs", "pytest"])
@pytest.mark.parametrize("complete", [True, False])
def test_the_test_script_runs_all_steps(ready, bare, complete, failing):
    code = "import os, sys; print('step', {0!r}, *sys.argv[1:], os.environ.get('OMP_NUM_THREADS')); sys.exit({0!r} == {1!r})"
    for name in ("hypothesis", "importlinter", "jsonschema", "mkdocs", "mypy", "pytest", "ruff", "xdist"):
        (bare.root / f"{name}.py").write_text(code.format(name, failing))
    bare.program("lint-imports", f"echo step lint-imports None; [ {failing} != lint-imports ]")
    if complete:
        (bare.root / "docs").mkdir()
        (bare.root / "docs/mkdocs.yml").touch()
        (bare.root / "pyproject.toml").write_text("[tool.importlinter]\n")
    fails = failing in (["ruff", "pytest"] if not complete else ["ruff", "pytest", "lint-imports", "mkdocs"])
    env = {"VIRTUAL_ENV": str(ready.venv), "OMP_NUM_THREADS": "4", "TMPDIR": str(bare.root)}
    out, _ = bare.run("-k", "a b", script="tests/run.sh", status=int(fails), **env)
    steps = ["ruff check", "ruff format --check", "mypy", "pytest --numprocesses 2 -k a b"]
    if complete:
        site = re.search(r"--site-dir (\S* \S*)", out) or pytest.fail(out)
        steps[3:3] = ["lint-imports", f"mkdocs build --strict -f docs/mkdocs.yml --site-dir {site[1]}"]
        assert not Path(site[1]).exists()
    assert re.findall("^step (.*) None$", out, re.MULTILINE) == steps
    names = {"ruff": "ruff check, ruff format", "lint-imports": "import contracts", "mkdocs": "documentation"}
    assert out.endswith(f"\nFAILED: {names.get(failing, failing)}\n" if fails else "\nall steps passed\n")
