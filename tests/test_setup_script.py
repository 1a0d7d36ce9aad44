"""jobs/environment.sh, jobs/fwi.sh and tests/run.sh as real processes, on a small project of their own.

That project is called hpcfwi, too, and builds itself with a backend in its own tree, so that the real pip
installs it into a real virtual environment without downloading anything. What a machine lacks is shown to the
scripts as a PATH with nothing on it but what they may find.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SPACED = "a project"
TOOLS = (
    "bash",
    "cat",
    "cksum",
    "dirname",
    "env",
    "find",
    "flock",
    "grep",
    "ln",
    "mkdir",
    "mv",
    "readlink",
    "rm",
    "sed",
    "sleep",
    "tail",
)

PYPROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
[project]
name = "hpcfwi"
version = "0.1"
"""

BACKEND = '''
import pathlib, sys, time, zipfile

root = pathlib.Path(__file__).parent

def build_editable(wheels, config_settings=None, metadata_directory=None):
    """What the project would get from its build backend, and a diary of it."""
    diary = (root / "diary").open("a", buffering=1)
    diary.write("begin\\n")
    if (root / "hang").exists():
        time.sleep(600)
    if (root / "fail").exists():
        sys.exit("the backend says no")
    if (root / "linger").exists():
        time.sleep(1)
    info = "hpcfwi-0.1.dist-info/"
    needs = (root / "needs").read_text() if (root / "needs").exists() else ""
    files = {
        "hpcfwi.pth": str(root),
        info + "METADATA": "Metadata-Version: 2.1\\nName: hpcfwi\\nVersion: 0.1\\nProvides-Extra: test\\n"
                           "Provides-Extra: mpi\\n" + needs,
        info + "WHEEL": "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
        info + "entry_points.txt": "[console_scripts]\\nhpcfwi = hpcfwi.__main__:main\\n",
    }
    files[info + "RECORD"] = "".join(f"{name},,\\n" for name in [*files, info + "RECORD"])
    with zipfile.ZipFile(pathlib.Path(wheels) / "hpcfwi-0.1-py3-none-any.whl", "w") as wheel:
        for name, text in files.items():
            wheel.writestr(name, text)
    diary.write("end\\n")
    return "hpcfwi-0.1-py3-none-any.whl"
'''

MAIN = """
import os, sys

def main():
    print("in", os.getcwd())
    print("called", *sys.argv[1:], sep="|")
    print("PYTHONPATH", os.environ.get("PYTHONPATH"))
"""


def write_project(root: Path) -> Path:
    shutil.copytree(ROOT / "jobs", root / "jobs")
    (root / "tests").mkdir()
    shutil.copy(ROOT / "tests/run.sh", root / "tests/run.sh")
    (root / "hpcfwi").mkdir()
    for name, text in {
        "pyproject.toml": PYPROJECT,
        "backend.py": BACKEND,
        "hpcfwi/__init__.py": "",
        "hpcfwi/__main__.py": MAIN,
        "hpcfwi/version.py": '__version__ = "0.1"\n',
    }.items():
        (root / name).write_text(text)
    return root


def clean_environment(home: Path) -> dict[str, str]:
    """Nothing of the shell that runs the tests but where its programs are."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "HPCFWI_PYTHON": sys.executable,
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_NO_INDEX": "1",
    }


def executable(path: Path, text: str) -> Path:
    path.write_text(f"#!{shutil.which('bash')}\n{textwrap.dedent(text)}")
    path.chmod(0o755)
    return path


class Project:
    """A root with the scripts in it, and how to run them."""

    def __init__(self, root: Path, home: Path) -> None:
        self.root = root
        self.venv = root / ".venv"
        self.env = clean_environment(home)

    def start(self, *arguments: str | Path, script: str | Path = "jobs/fwi.sh", cwd: Path | None = None,
              **env: str) -> subprocess.Popen[str]:  # fmt: skip
        return subprocess.Popen(
            ["bash", self.root / script, *arguments],
            env=self.env | env,
            cwd=cwd or self.root.parent,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, *arguments: str | Path, **more) -> subprocess.CompletedProcess[str]:
        process = self.start(*arguments, **more)
        out, err = process.communicate(timeout=120)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def succeed(self, *arguments: str | Path, **more) -> subprocess.CompletedProcess[str]:
        done = self.run(*arguments, **more)
        assert done.returncode == 0, done.stderr
        return done

    @property
    def diary(self) -> list[str]:
        path = self.root / "diary"
        return path.read_text().split() if path.exists() else []

    def extras(self) -> set[str]:
        return set((self.venv / "hpcfwi.stamp").read_text().splitlines()[2].split(","))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """One environment for all tests that leave it as they found it: making one takes seconds."""
    home = tmp_path_factory.mktemp("home")
    project = Project(write_project(tmp_path_factory.mktemp("ready") / SPACED), home)
    done = project.succeed("--setup")
    assert done.stdout == f"hpcfwi is set up: {project.venv}/bin/hpcfwi\n"
    assert [line.partition(" (")[0] for line in done.stderr.splitlines()] == [
        "hpcfwi: setting up the Python environment in .venv",
        "hpcfwi: the Python environment is ready",
    ]
    return project


@pytest.fixture
def ready(shared: Project) -> Project:
    for name in ("hang", "fail", "linger", "needs"):
        (shared.root / name).unlink(missing_ok=True)
    # Whole again even after a test that failed halfway, and with an empty diary.
    shared.succeed("--setup")
    (shared.root / "diary").unlink(missing_ok=True)
    return shared


@pytest.fixture
def bare(tmp_path: Path) -> Project:
    """A project without an environment."""
    return Project(write_project(tmp_path / SPACED), tmp_path)


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A PATH with the tools every machine has, but no compiler, no Python, no apt-get, and no root."""
    folder = tmp_path / "bin of a machine"
    folder.mkdir()
    for tool in TOOLS:
        if found := shutil.which(tool):
            (folder / tool).symlink_to(found)
    executable(folder / "id", "echo 1000")
    return folder


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def on_debian() -> bool:
    release = Path("/etc/os-release")
    return release.exists() and any(name in release.read_text() for name in ("debian", "ubuntu"))


# --- running ---------------------------------------------------------------------------------------------


def test_runs_the_example_without_arguments_in_the_current_folder(ready: Project, tmp_path: Path):
    done = ready.succeed(cwd=tmp_path)
    assert done.stdout.splitlines()[:2] == [f"in {tmp_path}", f"called|run|{ready.root}/jobs/circle.toml"]
    assert done.stderr == ""


def test_options_without_a_config_are_for_the_example(ready: Project):
    done = ready.succeed("--set", "a.b=c d")
    assert f"called|run|{ready.root}/jobs/circle.toml|--set|a.b=c d\n" in done.stdout


def test_config_and_options_arrive_as_they_were_given(ready: Project):
    done = ready.succeed("my problem.toml", "--set", "x='1 2'", "", "--help")
    assert "called|run|my problem.toml|--set|x='1 2'||--help\n" in done.stdout


def test_the_path_of_another_python_does_not_reach_the_run(ready: Project):
    assert "PYTHONPATH None\n" in ready.succeed(PYTHONPATH="/of/a/module").stdout


@pytest.mark.parametrize("script", ["jobs/fwi.sh", "tests/run.sh"])
def test_help_is_the_header(bare: Project, script: str):
    done = bare.succeed("--help", script=script)
    assert f"bash {script}" in done.stdout
    assert not any(line.startswith(("#", "set ")) for line in done.stdout.splitlines())
    assert not bare.venv.exists()


def test_a_fitting_stamp_costs_nothing(ready: Project):
    before = (ready.venv / "setup.log").stat().st_mtime_ns
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        ready.succeed("--setup")
        seconds.append(time.perf_counter() - began)
    assert ready.diary == []
    assert (ready.venv / "setup.log").stat().st_mtime_ns == before
    # 0.03 s on an idle machine; pip's start alone takes ten times that.
    assert min(seconds) < 0.25


# --- under Slurm -----------------------------------------------------------------------------------------


@pytest.fixture
def spooled(ready: Project, tmp_path: Path) -> Path:
    copy = tmp_path / "spool/job00042/slurm_script"
    copy.parent.mkdir(parents=True)
    shutil.copy(ready.root / "jobs/fwi.sh", copy)
    return copy


@pytest.mark.parametrize("below", ["", "jobs"])
def test_spooled_copy_finds_the_root_from_where_it_was_submitted(ready: Project, spooled: Path, below: str):
    done = ready.succeed("x.toml", script=spooled, SLURM_JOB_ID="42", SLURM_SUBMIT_DIR=str(ready.root / below))
    assert "called|run|x.toml|--requeue|10\n" in done.stdout


def test_spooled_copy_finds_the_root_it_is_told(ready: Project, spooled: Path, tmp_path: Path):
    done = ready.succeed(script=spooled, SLURM_JOB_ID="42", SLURM_SUBMIT_DIR=str(tmp_path), HPCFWI_ROOT=str(ready.root))
    assert f"called|run|{ready.root}/jobs/circle.toml|--requeue|10\n" in done.stdout


def test_spooled_copy_without_a_root_says_what_to_do(ready: Project, spooled: Path, tmp_path: Path):
    done = ready.run(script=spooled, SLURM_JOB_ID="42", SLURM_SUBMIT_DIR=str(tmp_path))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert str(tmp_path) in done.stderr
    assert "HPCFWI_ROOT" in done.stderr


def test_offline_node_sends_to_the_login_node_in_one_line(ready: Project):
    (ready.root / "needs").write_text("Requires-Dist: not-to-be-had\n")
    (ready.venv / "hpcfwi.stamp").unlink()
    nowhere = {"PIP_NO_INDEX": "0", "PIP_INDEX_URL": "http://127.0.0.1:9/simple"}
    done = ready.run(SLURM_JOB_ID="42", **nowhere)
    assert done.returncode == 3
    assert "bash jobs/fwi.sh --setup" in done.stderr.splitlines()[-1]
    assert len(done.stderr.splitlines()) == 2
    (ready.root / "needs").unlink()
    ready.succeed("--setup")


def test_a_job_leaves_an_environment_that_only_this_node_cannot_use(ready: Project):
    python, kept = ready.venv / "bin/python", ready.venv / "bin/python.kept"
    python.rename(kept)
    executable(python, "echo 'python: error while loading shared libraries' >&2; exit 127")
    done = ready.run(PBS_JOBID="42.server")
    kept.rename(python)
    assert done.returncode == 3
    assert "load the modules" in done.stderr
    assert ready.succeed().stderr == ""


# --- mending ---------------------------------------------------------------------------------------------


def test_an_install_that_was_killed_is_done_again(ready: Project):
    (ready.root / "hang").touch()
    (ready.venv / "hpcfwi.stamp").unlink()
    process = ready.start("--setup")
    wait_for(lambda: "begin" in ready.diary)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    (ready.root / "hang").unlink()
    # As if it had been killed a moment later, in the middle of unpacking.
    next(ready.venv.glob("lib/python*/site-packages/hpcfwi-0.1.dist-info/RECORD")).unlink()
    assert "setting up" in ready.succeed("--setup").stderr
    assert ready.diary == ["begin", "begin", "end"]
    assert ready.succeed().stderr == ""


def test_a_failed_install_shows_the_end_of_its_log(ready: Project):
    (ready.root / "fail").touch()
    (ready.venv / "hpcfwi.stamp").unlink()
    done = ready.run("--setup")
    assert done.returncode == 3
    assert "the backend says no" in done.stderr
    assert str(ready.venv / "setup.log") in done.stderr
    assert len(done.stderr.splitlines()) <= 17
    (ready.root / "fail").unlink()
    ready.succeed("--setup")


@pytest.mark.parametrize("name", ["pyproject.toml", "hpcfwi/version.py"])
def test_a_changed_project_is_installed_again(ready: Project, name: str):
    with (ready.root / name).open("a") as file:
        file.write("# changed\n")
    assert "up to date" in ready.succeed("--setup").stderr
    assert ready.diary == ["begin", "end"]
    assert ready.succeed("--setup").stderr == ""


def test_extras_are_added_and_stay(ready: Project):
    code = 'set -eu; . "$1/jobs/environment.sh"; hpcfwi_environment "$1" "${@:2}"; echo "$HPCFWI_BIN"'

    def environment(*extras: str) -> str:
        command = ["bash", "-c", code, "bash", ready.root, *extras]
        done = subprocess.run(command, env=ready.env, capture_output=True, text=True, check=True)
        assert done.stdout == f"{ready.venv}/bin\n"
        return done.stderr

    assert "up to date" in environment("test")
    assert environment("test") == environment() == ""
    assert "up to date" in environment("mpi")
    assert environment("test,mpi") == ""
    with (ready.root / "pyproject.toml").open("a") as file:
        file.write("# changed\n")
    assert "up to date" in environment()
    assert ready.extras() == {"test", "mpi"}


def test_an_environment_that_is_half_there_or_elsewhere_is_made_anew(bare: Project, tmp_path: Path):
    # Half a venv: a Python that runs, and half of pip.
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", bare.venv], check=True)
    packages = next(bare.venv.glob("lib/python*/site-packages"))
    (packages / "pip").mkdir()
    (packages / "pip/__main__.py").write_text("raise ImportError\n")
    (packages / "pip-1.dist-info").mkdir()
    (packages / "pip-1.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: pip\nVersion: 99999\n")
    assert "setting up" in bare.succeed("--setup").stderr

    # A copied tree must not run the code of the one it came from.
    other = Project(tmp_path / "copied project", tmp_path)
    shutil.copytree(bare.root, other.root, symlinks=True)
    (other.root / "hpcfwi/__main__.py").write_text("def main(): print('the copy')\n")
    done = other.succeed()
    assert done.stdout == "the copy\n"
    assert "setting up" in done.stderr
    assert bare.succeed().stderr == ""


# --- one at a time ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("flock", ["as it is", "refused", "missing"])
def test_two_at_once_wait_for_each_other(ready: Project, machine: Path, flock: str):
    (machine / "gcc").symlink_to("/bin/true")
    if flock != "as it is":
        (machine / "flock").unlink(missing_ok=True)
    elif not shutil.which("flock"):
        pytest.skip("no flock on this machine")
    if flock == "refused":
        executable(machine / "flock", "echo 'flock: 9: No locks available' >&2; exit 71")
    (ready.root / "linger").touch()
    (ready.venv / "hpcfwi.stamp").unlink()
    both = [ready.start("--setup", PATH=str(machine)) for _ in range(2)]
    errors = [process.communicate(timeout=120)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], errors
    assert ready.diary == ["begin", "end"]
    waiting = [error for error in errors if "waiting for another start" in error]
    assert len(waiting) == 1
    assert len(waiting[0].splitlines()) == 1
    assert not (ready.venv / "setup.owner").is_symlink()


def test_the_lock_of_a_dead_process_is_broken(ready: Project, machine: Path):
    (machine / "gcc").symlink_to("/bin/true")
    (machine / "flock").unlink(missing_ok=True)
    gone = subprocess.Popen(["true"])
    gone.wait()
    (ready.venv / "hpcfwi.stamp").unlink()
    (ready.venv / "setup.owner").symlink_to(f"{socket.gethostname()}:{gone.pid}")
    (ready.root / "linger").touch()
    # More than one of them may find it stale, and still only one may go in.
    started = [ready.start("--setup", PATH=str(machine)) for _ in range(4)]
    errors = [process.communicate(timeout=120)[1] for process in started]
    assert [process.returncode for process in started] == [0] * 4, errors
    assert ready.diary == ["begin", "end"]
    assert sum("setting up the" in error for error in errors) == 1
    assert not list(ready.venv.glob("setup.owner*"))


def test_the_lock_of_another_host_is_waited_for(ready: Project, machine: Path):
    (machine / "gcc").symlink_to("/bin/true")
    (machine / "flock").unlink(missing_ok=True)
    owner = ready.venv / "setup.owner"
    (ready.venv / "hpcfwi.stamp").unlink()
    owner.symlink_to("another-host:1")
    process = ready.start("--setup", PATH=str(machine))
    assert process.stderr is not None
    assert "process 1 on another-host" in process.stderr.readline()
    assert ready.diary == []
    owner.unlink()
    process.communicate(timeout=120)
    assert process.returncode == 0
    assert ready.diary == ["begin", "end"]


# --- what the machine lacks ------------------------------------------------------------------------------


def test_without_a_compiler_the_command_is_named(ready: Project, machine: Path):
    done = ready.run("--setup", PATH=str(machine), LMOD_CMD="/opt/lmod")
    assert done.returncode == 3
    assert "a C compiler" in done.stderr
    assert "module load gcc" in done.stderr
    if on_debian():
        assert "sudo apt-get install gcc" in done.stderr
    assert done.stderr.count("hpcfwi: ") == 1
    ready.succeed("--setup", PATH=str(machine), CC=shutil.which("true") or "")


@pytest.mark.skipif(not on_debian(), reason="apt-get is used on Debian and Ubuntu only")
def test_root_on_debian_gets_the_compiler(ready: Project, machine: Path, tmp_path: Path):
    executable(machine / "id", "echo 0")
    executable(machine / "apt-get", f"echo \"$@\" >>'{tmp_path}/apt'; ln -s /bin/true '{machine}/gcc' || true")
    done = ready.succeed("--setup", PATH=str(machine))
    assert done.stderr == "hpcfwi: installing with apt-get: gcc libc6-dev\n"
    assert (tmp_path / "apt").read_text().splitlines()[-1].endswith("gcc libc6-dev")


@pytest.mark.skipif(not on_debian(), reason="apt-get is used on Debian and Ubuntu only")
def test_root_on_debian_whose_apt_fails_is_told(ready: Project, machine: Path):
    executable(machine / "id", "echo 0")
    executable(machine / "apt-get", "echo 'E: Unable to locate package' >&2; exit 100")
    done = ready.run("--setup", PATH=str(machine))
    assert done.returncode == 3
    assert "apt-get failed: E: Unable to locate package" in done.stderr
    assert "\n  apt-get install gcc" in done.stderr


def test_too_old_pythons_are_listed(bare: Project, machine: Path):
    (machine / "gcc").symlink_to("/bin/true")
    executable(machine / "python3", "echo 3.9.2 True")
    executable(machine / "python3.12", "echo 'a shim: command not found' >&2; exit 127")
    del bare.env["HPCFWI_PYTHON"]
    done = bare.run("--setup", PATH=str(machine))
    assert done.returncode == 3
    assert f"found 3.9.2 ({machine}/python3)" in done.stderr
    assert "HPCFWI_PYTHON=" in done.stderr
    assert "C compiler" not in done.stderr


def test_everything_missing_is_one_message(bare: Project, machine: Path):
    executable(machine / "python3", "echo 3.11.4 False")
    del bare.env["HPCFWI_PYTHON"]
    done = bare.run("--setup", PATH=str(machine))
    assert done.returncode == 3
    assert done.stderr.count("hpcfwi: ") == 1
    assert "a C compiler" in done.stderr
    assert f"the venv module of Python 3.11 ({machine}/python3)" in done.stderr
    if on_debian():
        assert "sudo apt-get install gcc libc6-dev python3.11-venv" in done.stderr


def test_a_python_asked_for_by_name_is_not_replaced(bare: Project):
    done = bare.run("--setup", HPCFWI_PYTHON="/no/such/python")
    assert done.returncode == 3
    assert "HPCFWI_PYTHON=/no/such/python" in done.stderr


# --- the environment that is active ------------------------------------------------------------------------


def activated(project: Project) -> dict[str, str]:
    return {"VIRTUAL_ENV": str(project.venv), "PATH": f"{project.venv}/bin:{project.env['PATH']}"}


def test_an_active_environment_with_hpcfwi_is_used(ready: Project, bare: Project):
    done = bare.succeed(**activated(ready))
    assert f"called|run|{bare.root}/jobs/circle.toml\n" in done.stdout
    assert not bare.venv.exists()


def test_an_active_environment_without_hpcfwi_is_not(bare: Project, tmp_path: Path):
    other = tmp_path / "other"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", other], check=True)
    env = {"VIRTUAL_ENV": str(other), "PATH": f"{other}/bin:{bare.env['PATH']}"}
    # The package in the current folder is not one the environment has.
    done = bare.run("--setup", cwd=bare.root, HPCFWI_PYTHON="/no/such/python", **env)
    assert done.returncode == 3
    assert "/no/such/python" in done.stderr


def test_our_own_environment_is_kept_up_to_date_when_active(ready: Project):
    (ready.venv / "hpcfwi.stamp").unlink()
    ready.succeed("--setup", **activated(ready))
    assert ready.diary == ["begin", "end"]


# --- tests/run.sh ------------------------------------------------------------------------------------------


def test_the_test_script_names_what_an_active_environment_lacks(ready: Project, bare: Project):
    done = bare.run(script="tests/run.sh", **activated(ready))
    assert done.returncode == 3
    assert "lacks: hypothesis jsonschema mypy pytest ruff" in done.stderr
    assert f"install --editable '{bare.root}[test]'" in done.stderr


@pytest.mark.parametrize("failing", ["", "ruff", "pytest"])
def test_the_test_script_runs_all_steps(ready: Project, bare: Project, failing: str):
    for name in ("hypothesis", "jsonschema", "mypy", "pytest", "ruff"):
        fails = name == failing
        (bare.root / f"{name}.py").write_text(
            "import os, sys\n"
            f"print('step {name}', *sys.argv[1:], 'OMP_NUM_THREADS' in os.environ, flush=True)\n"
            f"sys.exit({fails} and sys.argv[1:2] != ['format'])\n"
        )
    done = bare.run("--slow", "-k", "a b", script="tests/run.sh", OMP_NUM_THREADS="4", **activated(ready))
    steps = [line for line in done.stdout.splitlines() if line.startswith("step ")]
    assert steps == [
        "step ruff check False",
        "step ruff format --check False",
        "step mypy False",
        "step pytest --slow -k a b False",
    ]
    assert done.returncode == bool(failing)
    last = {"": "all steps passed", "ruff": "FAILED: ruff check", "pytest": "FAILED: pytest"}[failing]
    assert done.stdout.splitlines()[-1] == last


# --- the real thing ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_project_itself_sets_itself_up_in_a_fresh_home(tmp_path: Path):
    if not (ROOT / ".git").exists():
        pytest.skip("not a git working tree, so what belongs to the project is not known")
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    root, home = tmp_path / "a fresh clone", tmp_path / "home"
    home.mkdir()
    for name in filter(None, listing.stdout.split("\0")):
        if (ROOT / name).is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, root / name)
    # How this machine reaches a package index is its own affair, and stays.
    dropped = {"VIRTUAL_ENV", "CONDA_PREFIX", "PYTHONPATH", "SLURM_JOB_ID", "PBS_JOBID"}
    env = {key: value for key, value in os.environ.items() if key not in dropped}
    env |= {"HOME": str(home), "HPCFWI_PYTHON": sys.executable}
    done = subprocess.run(["bash", root / "jobs/fwi.sh", "--setup"], env=env, cwd=home, capture_output=True, text=True)
    log = root / ".venv/setup.log"
    if done.returncode and log.exists() and "connection broken by" in log.read_text():
        pytest.skip("no package index can be reached")
    assert done.returncode == 0, done.stderr
    said = subprocess.run([root / ".venv/bin/hpcfwi", "--version"], env=env, cwd=home, capture_output=True, text=True)
    version: dict[str, str] = {}
    exec((ROOT / "hpcfwi/version.py").read_text(), version)
    assert said.returncode == 0, said.stderr
    assert version["__version__"] in said.stdout
