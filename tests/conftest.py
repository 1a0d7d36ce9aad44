"""The option --slow, which tests run side by side, a summary of what was left out, and a small problem to run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from hpcfwi.cluster.environment import apply_environment, restore_environment
from hpcfwi.events.types import parse_event

# A background process of a shell ignores these signals, and so would the commands that tests start.
for number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)

NOT_ASKED_FOR = "slow, and --slow was not given"
# Devito reads these variables once, when it is imported: all tests of this process and their workers generate the same code.
apply_environment(threads=1)
import devito  # noqa: E402, F401

# Folders whose tests can run beside any others. The others start workers, hosts and schedulers, or watch the processes and
# the disk of this machine.
SIDE_BY_SIDE = {"config", "docs", "events", "formats", "fuzz", "inversion", "model", "reporting", "solver"}

# Variables of the tests' own process and its workers; commands that tests start set their own.
OWN_VARIABLES = ("DEVITO_LANGUAGE", "OMP_NUM_THREADS")

SMALL = """
[grid]
shape = [31, 31]
spacing = [20.0, 20.0]

[model]
kind = "circle"
radius = 100.0

[initial]
kind = "constant"
velocity = 2.5

[acquisition.sources]
first = [20.0, 100.0]
last = [20.0, 500.0]
count = 3

[acquisition.receivers]
first = [580.0, 20.0]
last = [580.0, 580.0]
count = 20

[data]
recording_time = 300.0

[wavelet]
kind = "ricker"
peak_frequency = 10.0

[solver]
space_order = 4

[inversion]
iterations = 2
bounds = [2.0, 3.5]

[output]
figures = false
"""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the tests marked slow, too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--slow"):
        return
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.skip(reason=NOT_ASKED_FOR))


class OneByOne(LoadScopeScheduling):
    """One process runs the tests that need the machine for themselves, and other processes run the others."""

    def _split_scope(self, nodeid: str) -> str:
        return nodeid if nodeid.split("/")[1] in SIDE_BY_SIDE else "one by one"


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> OneByOne:
    return OneByOne(config, log)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = terminalreporter.stats.get("skipped", [])
    slow = sum(NOT_ASKED_FOR in str(report.longrepr) for report in skipped)
    if slow:
        terminalreporter.write_line(f"{slow} slow tests were left out: --slow runs them", yellow=True)
    if len(skipped) > slow:
        terminalreporter.write_line(
            f"{len(skipped) - slow} tests were skipped for want of something on this machine; the reasons are above",
            yellow=True,
        )


@pytest.fixture(autouse=True)
def environment() -> Iterator[None]:
    """Restore the environment variables that a test or its workers have changed."""
    with restore_environment():
        for name in OWN_VARIABLES:
            os.environ.pop(name, None)
        yield


@pytest.fixture(autouse=True)
def events_fit_the_schema(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every event that a test's runs have logged fits the schema."""
    hostile = "hostile" in request.keywords or request.node.path.parent.name == "fuzz"
    if hostile or "tmp_path" not in request.fixturenames:
        yield
        return
    folder = request.getfixturevalue("tmp_path")
    yield
    for path in folder.glob("**/events*.jsonl"):
        misfits = [text for line in path.read_bytes().splitlines(keepends=True) for text in schema_errors(line)]
        assert not misfits, f"{path}: {misfits[:5]}"


def schema_errors(line: bytes) -> list[str]:
    """What is wrong with a line of an event log; nothing if the line was cut off."""
    if not line.endswith(b"\n"):
        return []
    event, facts = parse_event(line), json.loads(line)
    if event is None or event.facts() != facts:
        return [f"{facts} is read as {event}"]
    return []


class Shell:
    """The ``hpcfwi`` command as a user types it, in a folder with the small problem's ``fwi.toml``.

    Parameters
    ----------
    folder
        Folder in which it is typed.

    Attributes
    ----------
    prefix
        Words before the command, such as a shell on another host.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.prefix: list[str] = []
        self.environment = {k: v for k, v in os.environ.items() if k not in OWN_VARIABLES}
        folder.mkdir(exist_ok=True)
        (folder / "fwi.toml").write_text(SMALL)

    def start(self, *arguments: object, **popen: Any) -> subprocess.Popen[str]:
        """Start the command in a session of its own, as a shell does; both output streams are pipes of text."""
        return subprocess.Popen(
            [*self.prefix, sys.executable, "-m", "hpcfwi", *map(str, arguments)],
            **{
                "cwd": self.folder,
                "env": self.environment,
                "stdout": subprocess.PIPE,
                "stderr": subprocess.PIPE,
                "text": True,
                "start_new_session": True,
                **popen,
            },
        )

    def __call__(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        """Run the command to its end."""
        with self.start(*arguments) as process:
            try:
                out, err = process.communicate(timeout=900)
            except BaseException:
                process.kill()
                raise
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def run(self, run_dir: str, *settings: str) -> subprocess.CompletedProcess[str]:
        """``hpcfwi run`` with one-thread workers, which must succeed."""
        chosen = ("site.worker.threads=1", *settings)
        done = self("run", "fwi.toml", "--run-dir", run_dir, *(x for setting in chosen for x in ("--set", setting)))
        assert done.returncode == 0, done.stderr
        return done


@pytest.fixture
def hpcfwi(tmp_path: Path) -> Shell:
    """The command, in an empty folder with the small problem."""
    return Shell(tmp_path)


@pytest.fixture
def faketime() -> dict[str, str]:
    """Variables for a process whose time of day can be set; its monotonic clock stays true."""
    library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
    if library is None:
        pytest.skip("no libfaketime here (package faketime)")
    return {
        "LD_PRELOAD": str(library),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        # otherwise timed waits of Python's threads end at once, and everything crawls
        "FAKETIME_FORCE_MONOTONIC_FIX": "0",
        "NO_FAKE_STAT": "1",
    }


@pytest.fixture
def set_clock(hpcfwi: Shell, faketime: dict[str, str]) -> Callable[[str], None]:
    """Set the clock of every process of a command, with an offset such as ``+5h``."""
    path = hpcfwi.folder / "clock"

    def set_to(offset: str) -> None:
        aside = path.with_name("clock.aside")
        aside.write_text(f"{offset}\n")
        aside.replace(path)

    set_to("+0")
    hpcfwi.environment |= {**faketime, "FAKETIME_TIMESTAMP_FILE": str(path)}
    return set_to


@pytest.fixture(scope="session")
def first_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Shell, subprocess.CompletedProcess[str], Path]:
    """A finished run of the small problem, to be read, or copied and continued."""
    shell = Shell(tmp_path_factory.mktemp("first"))
    done = shell.run("run")
    return shell, done, shell.folder / "run"


@pytest.fixture
def fwi_toml(tmp_path: Path) -> Path:
    """The small problem's configuration."""
    path = tmp_path / "fwi.toml"
    path.write_text(SMALL)
    return path


@pytest.fixture
def make_problem(fwi_toml: Path) -> Callable[..., Any]:
    """Make the small problem with settings as of ``--set``."""
    from hpcfwi.config.run import load_run_config
    from hpcfwi.model.problem import Problem

    return lambda *settings: Problem.from_config(load_run_config(fwi_toml, settings))


@pytest.fixture
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels in this process use one thread, and give the same bytes every time."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


class TwoWorkers:
    """A Dask cluster of two real worker processes; a new one if it runs no tasks any more, so that one test fails, not all."""

    ANSWER_S = 60.0  # for a task that does nothing

    def __init__(self) -> None:
        self._open = ExitStack()
        self._client: Any = None

    def client(self) -> Any:
        """The client of a cluster whose workers are both there and run tasks."""
        if self._client is not None and not self._runs_tasks():
            self.close()
        if self._client is None:
            self._start()
            assert self._runs_tasks(), "a new Dask cluster runs no tasks"
        return self._client

    def close(self) -> None:
        self._client = None
        self._open.close()

    def _start(self) -> None:
        from distributed import Client

        from hpcfwi.cluster.layout import Layout
        from hpcfwi.cluster.local import LocalWorkers
        from hpcfwi.cluster.pool import Workload
        from hpcfwi.execution.affinity import PRELOAD_MODULES

        workers = self._open.enter_context(LocalWorkers(Layout(2, 1, 2 * 10**9), workload=Workload(PRELOAD_MODULES)))
        self._client = self._open.enter_context(Client(workers.cluster(), set_as_default=False))

    def _runs_tasks(self) -> bool:
        """Whether both workers are there, after an earlier test may have killed one, and each runs a task."""
        client = self._client
        try:
            client.wait_for_workers(2, timeout=2 * self.ANSWER_S)
            for worker in client.nthreads():
                task = client.submit(os.getpid, workers=[worker], allow_other_workers=True, pure=False)
                task.result(timeout=self.ANSWER_S)
        except Exception as error:
            states = client.run_on_scheduler(lambda dask_scheduler: [t.state for t in dask_scheduler.tasks.values()])
            held = dict(Counter(states)), client.nthreads()
            warnings.warn(f"a Dask cluster runs no tasks any more: {error!r}, {held}", stacklevel=1)
            return False
        return True


@pytest.fixture(scope="module")
def two_workers() -> Iterator[TwoWorkers]:
    workers = TwoWorkers()
    yield workers
    workers.close()


@pytest.fixture
def client(two_workers: TwoWorkers) -> Any:
    """A Dask client of two real worker processes."""
    return two_workers.client()
