"""How fast and how large: hpcfwi beside Devito's tutorial, and on Marmousi. Prints a table.

    python tests/benchmarks/speed.py [--marmousi FILE] [--only tutorial|marmousi|memory] [--repeat N]

Every command starts with an empty JIT cache (a TMPDIR of its own), with two workers of one thread, and draws no figures.
Nothing else should run meanwhile. FILE is vp_marmousi_bi of Devito's public data (Simple2D).
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
# What the tutorial's loop takes on the machine on which the project was planned, for comparison.
PLANNED = "84-90"
TWO_WORKERS = ["--set", "site.worker.processes=2", "--set", "site.worker.threads=1", "--set", "output.figures=false"]


def timed(command: list[str], folder: Path) -> tuple[float, str]:
    """Run a command with an empty JIT cache; wall seconds and standard output."""
    scratch = Path(tempfile.mkdtemp(dir=folder))
    environment = {**os.environ, "TMPDIR": str(scratch)}
    environment.pop("OMP_NUM_THREADS", None)
    started = time.perf_counter()
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout}\n{done.stderr}")
    return seconds, done.stdout


def ours(config: str, folder: Path, *settings: str) -> dict[str, Any]:
    """Run hpcfwi; wall seconds and what its events say."""
    run_dir = Path(tempfile.mkdtemp(dir=folder)) / "run"
    extra = [word for setting in settings for word in ("--set", setting)]
    command = [sys.executable, "-m", "hpcfwi", "run", str(ROOT / "jobs" / config), "--run-dir", str(run_dir)]
    seconds, _ = timed([*command, *TWO_WORKERS, *extra], folder)
    events = [json.loads(line) for line in (run_dir / "events.jsonl").read_text().splitlines()]
    with (run_dir / "history.csv").open() as file:
        history = list(csv.DictReader(file))
    return {
        "command": seconds,
        "loop": next(e["seconds"] for e in events if e["event"] == "optimised"),
        "misfits": [e["misfit"] for e in events if e["event"] == "evaluation"],
        "kernels": sum(e["kernel_seconds"] for e in events if e["event"] == "shot"),
        "shots": sum(e["seconds"] for e in events if e["event"] == "shot"),
        "peak": max(e["peak_memory"] for e in events if e["event"] == "shot"),
        "history": history,
    }


def tutorial(folder: Path, repeat: int) -> None:
    """Loop and whole command beside the tutorial's own."""
    theirs, mine = [], []
    for _ in range(repeat):
        opponent = str(ROOT / "tests" / "benchmarks" / "tutorial_opponent.py")
        seconds, output = timed([sys.executable, opponent], folder)
        theirs.append({**json.loads(output), "command": seconds})
        mine.append(ours("tutorial.toml", folder))
    print(f"tutorial problem, 2 workers, median of {repeat}    tutorial   hpcfwi    ratio   wanted")
    for what, theirs_key, wanted in (("loop", "loop_seconds", 30), ("command", "command", 8)):
        a = statistics.median(run[theirs_key] for run in theirs)
        b = statistics.median(run[what] for run in mine)
        note = f"   (the tutorial's loop elsewhere: {PLANNED} s)" if what == "loop" else ""
        print(f"  {what:8} s                                {a:8.1f} {b:8.2f} {a / b:7.1f}x    {wanted}x{note}")
    print("  misfits, tutorial: " + ", ".join(f"{m:.2f}" for m in theirs[0]["misfits"]))
    print("  misfits, hpcfwi:   " + ", ".join(f"{m:.2f}" for m in mine[0]["misfits"]))


def marmousi(folder: Path, model: Path) -> None:
    """How busy the kernels keep two workers, and how good the result is."""
    run = ours("marmousi.toml", folder, f"model.file={model}")
    first, last = run["history"][0], run["history"][-1]
    print("Marmousi, 401 x 101 at 30 m, 16 shots, 30 iterations, 2 workers of one thread")
    print(f"  kernel seconds / (loop seconds x workers)   {run['kernels'] / (2 * run['loop']):.3f}   wanted 0.9")
    print(f"  shot seconds / (loop seconds x workers)     {run['shots'] / (2 * run['loop']):.3f}")
    print(f"  loop {run['loop']:.1f} s, command {run['command']:.1f} s, {len(run['misfits'])} evaluations")
    ratio = float(last["misfit"]) / float(first["misfit"])
    print(
        f"  misfit {ratio:.5f} of the initial (wanted 0.003), model error {100 * float(first['model_error']):.2f} % -> "
        f"{100 * float(last['model_error']):.2f} % (wanted 8.9 %)"
    )


def memory(folder: Path, model: Path) -> None:
    """Peak memory of a worker on the finer Marmousi."""
    settings = (
        "model.decimate=2",
        "grid.spacing=[15.0, 15.0]",
        "inversion.iterations=1",
        "acquisition.receivers.count=801",
    )
    run = ours("marmousi.toml", folder, f"model.file={model}", *settings)
    print("Marmousi, 801 x 201 at 15 m, 16 shots of 801 receivers, default wavefield strategy")
    print(f"  peak memory of a worker    {run['peak'] / 1e9:.3f} GB   wanted below 0.7 GB")


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--marmousi", type=Path, help="the model file")
    parser.add_argument("--only", choices=("tutorial", "marmousi", "memory"))
    parser.add_argument("--repeat", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hpcfwi-benchmark-") as name:
        folder = Path(name)
        if options.only in (None, "tutorial"):
            tutorial(folder, options.repeat)
        for part in (marmousi, memory):
            if options.only not in (None, part.__name__):
                continue
            if options.marmousi is None:
                print(f"{part.__name__}: left out, since there is no --marmousi FILE")
            else:
                part(folder, options.marmousi.resolve())


if __name__ == "__main__":
    main()
