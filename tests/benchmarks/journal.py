"""What the journal costs, and how soon a run that was stopped goes on. Prints a table.

    python tests/benchmarks/journal.py --marmousi FILE [--repeat N] [--iterations N]

Evaluations of Marmousi on two local workers, in turn with nothing kept inside an evaluation, with what is kept by default, and
with every shot kept; and the seconds from the command to its first new shot on a folder with 25 finished iterations.
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

from jobs import ROOT, SITES, evaluation_seconds, events

BLOCKS = {"nothing kept": 0, "by default": '"auto"', "every shot": 1}
FINISHED = 25


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


def main() -> None:
    """Measure both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--marmousi", type=Path, required=True, help="the model file")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--iterations", type=int, default=8)
    asked = parser.parse_args()
    model = f"model.file={asked.marmousi.absolute()}"
    seconds: dict[str, list[float]] = {name: [] for name in BLOCKS}
    with tempfile.TemporaryDirectory(prefix="hpcfwi-journal-") as name:
        for repeat in range(asked.repeat):
            for kept, block in BLOCKS.items():
                run_dir = Path(name) / f"{block}-{repeat}".replace('"', "")
                run(run_dir, model, f"inversion.iterations={asked.iterations}", f"journal.block={block}")
                seconds[kept].append(evaluation_seconds(run_dir))
        bare = statistics.median(seconds["nothing kept"])
        for kept, found in seconds.items():
            median = statistics.median(found)
            told = ", ".join(f"{value:.3f}" for value in found)
            print(f"an evaluation, {kept:13} {median:.3f} s ({told}), {100 * (median / bare - 1):+.1f} %", flush=True)
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
