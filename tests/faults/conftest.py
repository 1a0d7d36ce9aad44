"""Real processes that fail at a chosen place, and a run that nothing disturbs to compare with."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from watching import history, options, seconds_per_evaluation, shots_for

MEDDLING = Path(__file__).parent / "meddling"
ITERATIONS, EVALUATION_S = 3, 0.3


@pytest.fixture
def meddle(hpcfwi) -> Callable[..., None]:
    """Give the processes of every later command a fault of ``meddling/sitecustomize.py``, or none."""

    def choose(fault: str | None = None, **arguments: object) -> None:
        for name in ("MEDDLING", "PYTHONPATH"):
            hpcfwi.environment.pop(name, None)
            if name in os.environ:
                hpcfwi.environment[name] = os.environ[name]
        if fault is not None:
            path = [str(MEDDLING), *filter(None, [hpcfwi.environment.get("PYTHONPATH")])]
            hpcfwi.environment["PYTHONPATH"] = os.pathsep.join(path)
            hpcfwi.environment["MEDDLING"] = json.dumps([fault, arguments], default=str)

    return choose


@dataclass(frozen=True)
class Undisturbed:
    """A run on two workers that was not disturbed, to repeat with faults."""

    shots: int
    iterations: int
    settings: tuple[str, ...]
    run_dir: Path

    @property
    def command(self) -> tuple[str, ...]:
        return ("run", "fwi.toml", "--run-dir", "run", *options(*self.settings))

    def assert_same(self, run_dir: Path) -> None:
        """Compare the model, to the byte, and the history."""
        assert (run_dir / "model.npy").read_bytes() == (self.run_dir / "model.npy").read_bytes()
        assert history(run_dir) == history(self.run_dir)


@pytest.fixture(scope="session")
def run_undisturbed(first_run, tmp_path_factory) -> Callable[..., Undisturbed]:
    """Run the small problem with so many shots and iterations on two workers."""

    def run(shots: int, iterations: int, *more: str) -> Undisturbed:
        shell = type(first_run[0])(tmp_path_factory.mktemp("undisturbed"))
        settings = (
            "site.worker.threads=1",
            "site.worker.processes=2",
            f"acquisition.sources.count={shots}",
            f"inversion.iterations={iterations}",
            "inversion.ftol=0",
            *more,
        )
        shell.run("run", *settings)
        return Undisturbed(shots, iterations, settings, shell.folder / "run")

    return run


@pytest.fixture(scope="session")
def undisturbed(run_undisturbed) -> Undisturbed:
    """Three iterations whose evaluations last long enough for a fault amid one."""
    done = run_undisturbed(40, ITERATIONS)
    if seconds_per_evaluation(done.run_dir) >= EVALUATION_S:
        return done
    return run_undisturbed(shots_for(done.run_dir, EVALUATION_S, 1), ITERATIONS)
