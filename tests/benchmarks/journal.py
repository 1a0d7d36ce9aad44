"""What the journal costs, and how soon a run that was stopped goes on. Prints a table.

    python tests/benchmarks/journal.py --marmousi FILE [--pairs N] [--repeat N]

Evaluations of Marmousi on two local workers, in pairs: one with everything that is kept by default (the sums of an evaluation
that is under way, the answer, the look at the lease before it is written), one with nothing, in turn first and second, on the
same workers. Told is the median of the pairs' differences and an interval that has it in 19 of 20 cases (bootstrap); then the
digests that readers compare, which both have; and the seconds from the command to the first new shot on a folder with 25
finished iterations. FILE is vp_marmousi_bi of Devito's public data (Simple2D).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from hpcfwi.artifacts import digest
from hpcfwi.config.run import load_run_config
from hpcfwi.config.site import LaunchOptions, load_site
from hpcfwi.inversion.journal import Journal, Partials
from hpcfwi.inversion.objective import Objective
from hpcfwi.inversion.parametrisation import SquaredSlowness
from hpcfwi.model.problem import Problem
from hpcfwi.model.velocity import squared_slowness
from hpcfwi.run.data_staging import stage_data
from hpcfwi.run.folder import RunFolder
from hpcfwi.run.session import session
from jobs import ROOT, SITES, events

JOB = ROOT / "jobs" / "marmousi.toml"
SETTINGS = ["worker.processes=2", "worker.threads=1"]
WARMING_UP, FINISHED = 2, 25


class NoJournal(Journal):
    """A journal that writes nothing."""

    def write(self, *_: object) -> None:
        """Do nothing."""


def pairs(folder: Path, model: str, count: int) -> NDArray[np.float64]:
    """Seconds of evaluations, shape (pairs, 2): with everything kept, and with nothing."""
    config = load_run_config(JOB, [model, "output.figures=false"])
    problem = Problem.from_config(config)
    found = np.zeros((count, 2))
    with RunFolder(folder) as run_folder:
        run_folder.claim(problem.identity, config)
        site = load_site("workstation", SETTINGS)
        with session(problem, site, LaunchOptions(), run_folder, Console(quiet=True)) as ready:
            place, verify = run_folder.journal, run_folder.verify
            ways = (
                (Journal(place, "benchmark", verify), Partials(place)),
                (NoJournal(place, "benchmark"), Partials(place, 0)),
            )
            shots, staged = stage_data(ready), run_folder.staged
            parametrisation = SquaredSlowness.from_problem(problem)
            objective = Objective(
                problem, parametrisation, ready.operations, ready.tasks, shots, staged, *ways[0], ready.on_shots
            )
            x = squared_slowness(problem.initial_velocity).ravel()
            for number in range(-WARMING_UP, count):
                for way in (0, 1) if number % 2 else (1, 0):
                    objective.journal, objective.partials = ways[way]
                    x = x * (1 + 1e-6)  # another model every time
                    objective(x)
                    if number >= 0:
                        found[number, way] = objective.evaluations[-1].seconds
    return found


def digests(size: int) -> float:
    """Seconds for the digest of an array of float64."""
    values = np.random.default_rng(0).normal(size=size)
    started = time.perf_counter()
    for _ in range(100):
        digest(values.data.cast("B"))
    return (time.perf_counter() - started) / 100


def tell_cost(seconds: NDArray[np.float64]) -> None:
    """The median of the pairs' differences, and how well it is known."""
    differences = seconds[:, 0] - seconds[:, 1]
    bare = float(np.median(seconds[:, 1]))
    drawn = np.random.default_rng(0).choice(differences, (2000, len(differences)))
    low, high = np.quantile(np.median(drawn, axis=1), [0.025, 0.975])
    middle = float(np.median(differences))
    print(f"an evaluation without a journal, median of {len(seconds)}: {bare:.3f} s")
    print(
        f"the journal, median of {len(seconds)} pairs: {1000 * middle:+.1f} ms ({1000 * low:+.1f} to {1000 * high:+.1f}), "
        f"{100 * middle / bare:+.2f} % ({100 * low / bare:+.2f} to {100 * high / bare:+.2f})",
        flush=True,
    )


def run(run_dir: Path, *settings: str) -> float:
    """Run, or continue; the time of the start."""
    words = [word for setting in ("output.figures=false", *settings) for word in ("--set", setting)]
    command = [sys.executable, "-m", "hpcfwi", "run", str(JOB), "--run-dir", str(run_dir), *SITES["local"], *words]
    started = time.time()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout}\n{done.stderr}")
    return started


def main() -> None:
    """Measure both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--marmousi", type=Path, required=True, help="the model file")
    parser.add_argument("--pairs", type=int, default=60)
    parser.add_argument("--repeat", type=int, default=4, help="how often to go on")
    asked = parser.parse_args()
    model = f"model.file={asked.marmousi.absolute()}"
    with tempfile.TemporaryDirectory(prefix="hpcfwi-journal-") as name:
        tell_cost(pairs(Path(name) / "pairs", model, asked.pairs))
        run_dir = Path(name) / "resumed"
        run(run_dir, model, f"inversion.iterations={FINISHED}")
        size = max(path.stat().st_size for path in (run_dir / "journal").glob("*.bin")) // 16  # gradient and model
        print(f"the digest of a model or a gradient: {1000 * digests(size):.2f} ms")
        for more in range(1, asked.repeat + 1):
            started = run(run_dir, model, f"inversion.iterations={FINISHED + more}")
            first = min(event["time"] for event in events(run_dir, "shot", started))
            print(
                f"from the command to the first new shot after {FINISHED + more - 1} iterations: {first - started:.1f} s"
            )


if __name__ == "__main__":
    main()
