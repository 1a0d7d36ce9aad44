"""Scaling on a real Slurm of four hosts, beside the published yardstick. Prints the study and a table.

    python tests/benchmarks/scaling.py [--seconds 4] [--spread 0.25] [--shots 12] [--repeat 3] [--iterations 3] [--strong]
        [FOLDER]

Starts a Slurm of four hosts with one core each on this machine (as root; packages slurm-wlm munge iproute2) and runs
``hpcfwi scale`` on 1, 2 and 4 worker jobs. Shots sleep, since the hosts share the cores of this machine; --shots is their
number for each node. The start of workers is real work, and takes longer the more of them share the cores. On real hosts it
would not: the table has the prediction for 128 nodes with that growth and without.

The yardstick: Witte et al., An event-driven approach to serverless seismic imaging in the cloud, IEEE TPDS 31 (2020), weak
scaling from 1 to 128 instances: 94.8 % of the part that computes, 67.6 % of whole jobs.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from hpcfwi import ScaleOptions, run_study
from hpcfwi.scaling.forecast import CostModel
from hpcfwi.scaling.results import Scaling

ROOT = Path(__file__).resolve().parents[2]
HOSTS = ROOT / "tests" / "scheduler" / "slurm-hosts"
NODES = (1, 2, 4)
FAR = 128
PUBLISHED = (94.8, 67.6)

CONFIG = """
[grid]
shape = [101, 101]
spacing = [10.0, 10.0]
[model]
kind = "circle"
radius = 150.0
[initial]
kind = "constant"
velocity = 2.5
[acquisition.sources]
first = [20.0, 20.0]
last = [20.0, 980.0]
count = {shots}
[acquisition.receivers]
first = [980.0, 10.0]
last = [980.0, 990.0]
count = 101
[data]
recording_time = 500.0
[wavelet]
kind = "ricker"
peak_frequency = 10.0
[solver]
space_order = 4
[inversion]
iterations = 30
bounds = [1.5, 4.0]
"""


def on_login(lab: Path, words: list[str]) -> None:
    """Run this script on the login host."""
    subprocess.run([HOSTS, "-x", lab, "login", sys.executable, __file__, *words], check=True)


def study(folder: Path, options: argparse.Namespace) -> Scaling:
    """Run the study, or continue it."""
    config = folder / "fwi.toml"
    config.write_text(CONFIG.format(shots=options.shots * max(NODES)))
    scale = ScaleOptions(
        site="generic-slurm",
        launch="jobs",
        nodes=NODES,
        weak=not options.strong,
        repeats=options.repeat,
        iterations=options.iterations,
        stand_in=f"{options.seconds}:{options.spread}",
    )
    name = "strong" if options.strong else "weak"
    return run_study(config, scale, folder / name, Console(width=160, soft_wrap=True)).scaling


def far(model: CostModel, shots: int, evaluations: int) -> tuple[float, float]:
    """Predict the weak scaling efficiency, %, of evaluations and whole jobs on 128 nodes, with so many shots a node."""
    one, many = model.predict(1, shots, evaluations), model.predict(FAR, FAR * shots, evaluations)
    return 100 * one.evaluation_seconds / many.evaluation_seconds, 100 * one.wall_seconds / many.wall_seconds


def show(scaling: Scaling, shots: int) -> None:
    """Print measurement and prediction beside the yardstick."""
    last, model = scaling.node_counts[-1], scaling.model
    start = {"worker_start": (sum(model.start_and_end["worker_start"]), 0.0)}
    own_cores = replace(model, start_and_end={**model.start_and_end, **start})
    whole = round(1.3 * 30)
    print(f"weak scaling, {shots} shots a node, efficiency %     evaluations   whole jobs")
    print(f"  published, 1 to {FAR} instances                    {PUBLISHED[0]:8.1f}     {PUBLISHED[1]:8.1f}")
    measured = 100 * last.efficiency.value, 100 * last.job_efficiency.value
    print(f"  measured, 1 to {last.nodes} hosts that share two cores      {measured[0]:8.1f}     {measured[1]:8.1f}")
    for what, chosen in (("that share them", model), ("with cores of their own", own_cores)):
        for evaluations in (last.evaluations, whole):
            found = far(chosen, shots, evaluations)
            label = f"predicted, {FAR} {what}, {evaluations} evaluations"
            print(f"  {label:50s} {found[0]:8.1f}     {found[1]:8.1f}")


def main() -> None:
    """Start the hosts, and run this script on one of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="folder of the studies, which continue there")
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--spread", type=float, default=0.25)
    parser.add_argument("--shots", type=int, default=12)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--iterations", type=int, default=3)
    parser.add_argument("--strong", action="store_true")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        scaling = study(options.folder, options)
        if not options.strong:
            show(scaling, options.shots)
        return
    with tempfile.TemporaryDirectory(prefix="hpcfwi-bench-", dir="/tmp") as name:
        Path(name).chmod(0o755)
        lab, folder = Path(name) / "lab", options.folder or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run([HOSTS, lab, str(max(NODES))], env={**os.environ, "SLURM_HOSTS_CPUS": "1"}, check=True)
        try:
            on_login(lab, [*sys.argv[1:], *([] if options.folder else [str(folder)]), "--here"])
        finally:
            subprocess.run([HOSTS, "-d", lab], check=True)


if __name__ == "__main__":
    main()
