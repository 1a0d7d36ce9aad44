"""How well ``hpcfwi plan`` predicts memory and time: beside runs on this machine. Prints a table.

    python tests/benchmarks/plan.py [--marmousi FILE] [--wavefields NAME,...] [--only CONFIG]

Nothing else should run meanwhile. FILE is vp_marmousi_bi of Devito's public data (Simple2D).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from hpcfwi import Problem, load_run_config, load_site, make_plan

ROOT = Path(__file__).resolve().parents[2]


def compare(config: Path, settings: list[str], wavefield: str, folder: Path) -> None:
    """Print what the plan of a run says, and what the run has taken."""
    settings = [*settings, f"solver.wavefield={wavefield}"]
    problem = Problem.from_config(load_run_config(config, settings))
    plan = make_plan(problem, load_site(), run_kernels=True)
    cost = next(each for each in plan.costs if each.strategy.name == plan.chosen)
    run_dir = folder / f"{config.stem}-{wavefield}"
    words = [word for setting in settings for word in ("--set", setting)]
    command = [sys.executable, "-m", "hpcfwi", "run", str(config), "--run-dir", str(run_dir), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
    events = [json.loads(line) for line in (run_dir / "events.jsonl").read_text().splitlines()]
    shots = [event for event in events if event["event"] == "shot"]
    evaluations = [event["seconds"] for event in events if event["event"] == "evaluation"]
    pairs = {
        "memory, GB": (cost.memory_bytes / 1e9, max(event["peak_memory"] for event in shots) / 1e9),
        "a shot, s": (cost.shot_s, sum(event["seconds"] for event in shots) / len(shots)),
        "an evaluation, s": (cost.evaluation_s, sum(evaluations) / len(evaluations)),
        "the run, s": (cost.run_s, next(event["seconds"] for event in events if event["event"] == "closed")),
    }
    print(f"{config.stem}, {plan.chosen}; {dict(plan.rows)['speed']}; {len(evaluations)} evaluations")
    for name, (predicted, found) in pairs.items():
        print(f"  {name:18}{predicted:10.3g}{found:10.3g}{predicted / found:8.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--marmousi", type=Path, metavar="FILE")
    parser.add_argument("--wavefields", default="auto")
    parser.add_argument("--only")
    arguments = parser.parse_args()
    jobs = {ROOT / "jobs" / f"{name}.toml": [] for name in ("circle", "tutorial", "dome3d")}
    if arguments.marmousi:
        jobs[ROOT / "jobs" / "marmousi.toml"] = [f"model.file={arguments.marmousi.absolute()}"]
    print(f"  {'':18}{'predicted':>10}{'found':>10}{'ratio':>8}")
    with tempfile.TemporaryDirectory() as folder:
        for config, settings in jobs.items():
            if arguments.only in (None, config.stem):
                for wavefield in arguments.wavefields.split(","):
                    compare(config, settings, wavefield, Path(folder))


if __name__ == "__main__":
    main()
