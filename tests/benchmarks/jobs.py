"""Worker jobs beside local workers: overhead of an evaluation, and how soon the first shot runs. Prints a table.

    python tests/benchmarks/jobs.py --marmousi FILE [--repeat N] [--iterations N]

Starts a Slurm of two hosts on this machine (as root; packages slurm-wlm munge iproute2), two worker jobs of one process on
it, and in turn two local workers, on the same problem. FILE is vp_marmousi_bi of Devito's public data (Simple2D).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HOSTS = ROOT / "tests" / "scheduler" / "slurm-hosts"
SITES = {
    "local": ["--site", "workstation", "--set", "site.worker.processes=2", "--set", "site.worker.threads=1"],
    "jobs": ["--site", "generic-slurm", "--nodes", "2"],
}


def run(way: str, lab: Path, folder: Path, settings: list[str]) -> tuple[Path, float]:
    """One run; its folder and the time of its start."""
    run_dir = folder / "run"
    command = [sys.executable, "-m", "hpcfwi", "run", str(ROOT / "jobs" / "marmousi.toml"), "--run-dir", str(run_dir)]
    words = [word for setting in settings for word in ("--set", setting)]
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    started = time.time()
    prefix = [str(HOSTS), "-x", str(lab), "login"] if way == "jobs" else []
    done = subprocess.run(
        [*prefix, *command, *SITES[way], *words], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{way} failed:\n{done.stdout}\n{done.stderr}")
    return run_dir, started


def events(run_dir: Path, kind: str, since: float = 0.0) -> list[dict]:
    """Events of a run after a time."""
    logged = map(json.loads, (run_dir / "events.jsonl").read_text().splitlines())
    return [event for event in logged if event["event"] == kind and event["time"] >= since]


def evaluation_seconds(run_dir: Path) -> float:
    """Median, the first ones left out, in which solvers are unpickled and shots are read."""
    return statistics.median(event["seconds"] for event in events(run_dir, "evaluation")[2:])


def main() -> None:
    """Run both ways in turn, and worker jobs once more on a run folder that has its solver."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--marmousi", type=Path, required=True, help="the model file")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--iterations", type=int, default=8)
    options = parser.parse_args()
    settings = [f"model.file={options.marmousi.resolve()}", f"inversion.iterations={options.iterations}"]
    settings.append("output.figures=false")
    seconds: dict[str, list[float]] = {"local": [], "jobs": []}
    first: list[float] = []
    with tempfile.TemporaryDirectory(prefix="hpcfwi-bench-", dir="/tmp") as name:
        Path(name).chmod(0o755)
        lab = Path(name) / "lab"
        subprocess.run([HOSTS, lab, "2"], check=True)
        try:
            for number in range(options.repeat):
                for way, found in seconds.items():
                    folder = Path(name) / f"{way}{number}"
                    folder.mkdir()
                    run_dir, _ = run(way, lab, folder, settings)
                    found.append(evaluation_seconds(run_dir))
                run_dir, started = run(
                    "jobs", lab, folder, [*settings, f"inversion.iterations={options.iterations + 1}"]
                )
                first.append(min(e["time"] - e["seconds"] for e in events(run_dir, "shot", started)) - started)
        finally:
            subprocess.run([HOSTS, "-d", lab], check=True)
    local, jobs = (statistics.median(seconds[way]) for way in ("local", "jobs"))
    print(f"Marmousi, 401 x 101, 16 shots, two workers of one thread, median of {options.repeat}")
    print(f"  evaluation, local workers   {local:.3f} s")
    print(f"  evaluation, worker jobs     {jobs:.3f} s   {100 * (jobs / local - 1):+.1f} %   wanted at most +5 %")
    print(
        f"  from the command to the first shot, solver staged   {statistics.median(first):.1f} s   wanted at most 6 s"
    )


if __name__ == "__main__":
    main()
