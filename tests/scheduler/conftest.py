"""A real Slurm of several hosts, for these tests alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import psutil
import pytest
from watching import shots_for, wait_until

HOSTS = Path(__file__).parent / "slurm-hosts"
NEEDED = ("munged", "slurmctld", "slurmd", "nsenter", "unshare", "ip", "setpriv")
MISSING = [name for name in NEEDED if not shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")]


class Lab:
    """A login host and nodes, each with its own network, host name and processes.

    Parameters
    ----------
    folder
        Where its files are.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def up(self, nodes: int = 3, **settings: str) -> None:
        environment = {**os.environ, **{f"SLURM_HOSTS_{name}": value for name, value in settings.items()}}
        subprocess.run([HOSTS, self.folder, str(nodes)], env=environment, check=True)

    def down(self) -> None:
        subprocess.run([HOSTS, "-d", self.folder], check=True)

    def command(self, *words: object, host: str = "login") -> list[str]:
        """A command that runs on one of the hosts."""
        return [str(HOSTS), "-x", str(self.folder), host, *map(str, words)]

    def run(self, *words: object, host: str = "login", check: bool = True) -> str:
        done = subprocess.run(self.command(*words, host=host), capture_output=True, text=True, check=False, timeout=300)
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def link(self, node: str, state: str) -> None:
        """Cut (``down``) or restore (``up``) a node's network link."""
        subprocess.run([HOSTS, "-l", self.folder, node, state], check=True)

    def power(self, node: str, state: str) -> None:
        """Power a node ``off`` or ``on``."""
        subprocess.run([HOSTS, "-p", self.folder, node, state], check=True)

    def healthy(self) -> bool:
        return subprocess.run([HOSTS, "-s", self.folder], check=False).returncode == 0

    def jobs(self) -> list[str]:
        """Numbers of the jobs in the queue."""
        return self.run("squeue", "--noheader", "--format=%i").split()

    def submit(self, folder: Path, *words: object, seconds: float = 300) -> str:
        """``sbatch`` in a folder, wait for the job's end, and return its output."""
        command = self.command("sbatch", "--parsable", "--output=job.log", *words)
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        self.until(lambda: done.stdout.strip() not in self.jobs(), seconds)
        return (folder / "job.log").read_text()

    @staticmethod
    def until(true: Callable[[], object], seconds: float = 120, every: float = 0.05) -> None:
        """Wait for something."""
        wait_until(true, seconds=seconds, every=every)


@contextmanager
def make_lab() -> Iterator[Lab]:
    """A lab that is not up yet, in a folder of its own; it is taken down at the end."""
    if MISSING:
        pytest.skip(f"no Slurm here: {', '.join(MISSING)} (packages slurm-wlm munge iproute2 util-linux)")
    # short, for the sake of sockets in it, and open to the daemons
    folder = Path(tempfile.mkdtemp(prefix="hpcfwi-lab-", dir="/tmp"))
    folder.chmod(0o755)
    lab = Lab(folder)
    try:
        yield lab
    finally:
        lab.down()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def new_lab() -> Callable[[], AbstractContextManager[Lab]]:
    """Makes labs besides the one that all share."""
    return make_lab


@pytest.fixture(scope="session")
def lab_session() -> Iterator[Lab]:
    with make_lab() as lab:
        lab.up()
        yield lab


@pytest.fixture
def lab(lab_session: Lab) -> Iterator[Lab]:
    """Three nodes of four CPUs that are up; every job of a test is gone after it."""
    if not lab_session.healthy():
        lab_session.down()
        lab_session.up()
    yield lab_session
    lab_session.run("scancel", "--user=root", "--full", check=False)
    lab_session.until(lambda: not lab_session.jobs())


@pytest.fixture
def on_login(lab: Lab, hpcfwi):
    """The ``hpcfwi`` command as a user types it on the login host."""
    hpcfwi.prefix = lab.command()
    return hpcfwi


@pytest.fixture
def driver_of() -> Callable[[subprocess.Popen[str]], psutil.Process]:
    """Finds the driver itself behind what leads to its host, to which signals do not get through."""

    def find(process: subprocess.Popen[str]) -> psutil.Process:
        (found,) = (
            child
            for child in psutil.Process(process.pid).children(recursive=True)
            if child.name().startswith("python") and "hpcfwi" in child.cmdline()
        )
        return found

    return find


@pytest.fixture(scope="session")
def longer_than_a_minute(first_run, tmp_path_factory) -> tuple[tuple[str, ...], Path]:
    """Settings of a run that takes two workers of this machine 65 s, and its run folder undisturbed."""
    shell = type(first_run[0])(tmp_path_factory.mktemp("undisturbed"))
    evaluations = 30  # long before the optimiser finds no lower misfit, which ends a run
    problem = (
        "grid.shape=[101, 101]",
        "grid.spacing=[6.0, 6.0]",
        "inversion.ftol=0",
        "inversion.gtol=0",
        "inversion.iterations=1000",
    )
    local = ("site.worker.processes=2", *problem)
    shell.run("measured", *local, "acquisition.sources.count=60", "inversion.evaluations=6")
    shots = shots_for(shell.folder / "measured", 65, evaluations)
    settings = (*problem, f"acquisition.sources.count={shots}", f"inversion.evaluations={evaluations}")
    shell.run("undisturbed", *local, *settings)
    return settings, shell.folder / "undisturbed"
