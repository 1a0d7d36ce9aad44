"""What the journal costs, and how soon a run that was stopped goes on. Prints a table.

    python tests/benchmarks/journal.py --marmousi FILE [--repeat N] [--iterations N]

Evaluations of Marmousi on two local workers, in turn with nothing kept inside an evaluation and with what is kept by default
(of 16 shots, each); the seconds of one entry of the journal, which is written in both cases; and those from the command to the
first new shot on a folder with 25 finished iterations. All evaluations are pooled but the first two of each run, which load and
resample: on a noisy machine the faster ones say more than the median.
FILE is vp_marmousi_bi of Devito's public data (Simple2D).
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from hpcfwi.inversion.functional import FunctionalGradient
from hpcfwi.inversion.journal import Journal
from jobs import ROOT, SITES, events

BLOCKS = {"nothing kept": 0, "by default": '"auto"'}
WARMING_UP = 2
QUANTILES = {"fastest tenth": 0.1, "lower quartile": 0.25, "median": 0.5}
FINISHED, ENTRIES = 25, 50


def run(run_dir: Path, *settings: str) -> float:
    """Run, or continue; the time of the start."""
    words = [word for setting in ("output.figures=false", *settings) for word in ("--set", setting)]
    job = str(ROOT / "jobs" / "marmousi.toml")
    command = [sys.executable, "-m", "hpcfwi", "run", job, "--run-dir", str(run_dir), *SITES["local"], *words]
    started = time.time()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout}\n{done.stderr}")
    return started


def entry_seconds(folder: Path, run_dir: Path) -> float:
    """What it takes to write, with its digest and until it is on the disk, an entry like those of a run."""
    (folder / "entries").mkdir(mode=0o700)
    journal = Journal(folder / "entries", "benchmark")
    size = max(path.stat().st_size for path in (run_dir / "journal").glob("*.bin")) // 8
    gradient, found = np.random.default_rng(0).normal(size=size), []
    for number in range(ENTRIES):
        started = time.perf_counter()
        journal.write(gradient + number, FunctionalGradient(1.0, gradient))
        found.append(time.perf_counter() - started)
    return statistics.median(found)


def main() -> None:
    """Measure both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--marmousi", type=Path, required=True, help="the model file")
    parser.add_argument("--repeat", type=int, default=4)
    parser.add_argument("--iterations", type=int, default=12)
    asked = parser.parse_args()
    model = f"model.file={asked.marmousi.absolute()}"
    seconds: dict[str, list[float]] = {name: [] for name in BLOCKS}
    with tempfile.TemporaryDirectory(prefix="hpcfwi-journal-") as name:
        for repeat in range(asked.repeat):
            for kept in list(BLOCKS)[:: 1 - 2 * (repeat % 2)]:
                run_dir = Path(name) / f"{kept}-{repeat}"
                run(run_dir, model, f"inversion.iterations={asked.iterations}", f"journal.block={BLOCKS[kept]}")
                told = [event["seconds"] for event in events(run_dir, "evaluation")]
                seconds[kept] += told[WARMING_UP:]
        for what, quantile in QUANTILES.items():
            bare, kept_seconds = (np.quantile(seconds[kept], quantile) for kept in BLOCKS)
            print(
                f"an evaluation, {what:14} of {len(seconds['by default'])}: nothing kept {bare:.3f} s, by default "
                f"{kept_seconds:.3f} s, {100 * (kept_seconds / bare - 1):+.1f} %",
                flush=True,
            )
        print(f"an entry of the journal, median of {ENTRIES}: {1000 * entry_seconds(Path(name), run_dir):.1f} ms")
        run_dir = Path(name) / "resumed"
        run(run_dir, model, f"inversion.iterations={FINISHED}")
        for more in range(1, asked.repeat + 1):
            started = run(run_dir, model, f"inversion.iterations={FINISHED + more}")
            first = min(event["time"] for event in events(run_dir, "shot", started))
            print(
                f"from the command to the first new shot after {FINISHED + more - 1} iterations: {first - started:.1f} s"
            )


if __name__ == "__main__":
    main()
