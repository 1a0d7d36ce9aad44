"""What windows leave out, and what they save. Prints two tables, and draws the first.

    python tests/benchmarks/windows.py --marmousi FILE [--figure PNG] [--only error|cost]

- The gradient in windows beside that in the whole model, over the aperture: Marmousi at 30 m with a streamer of 3 km behind the
  source, at the initial model and at one half way to the true model. The second difference is only of cells in the window.
- A shot of a line of 60 km with a streamer of 8 km beside a survey that is as long as its window.

FILE is vp_marmousi_bi of Devito's public data (Simple2D). Nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
APERTURES = (150, 300, 600, 1000, 1500, 2000, 2500, 3000, 4000)  # m
SOURCES, OFFSETS = (5000.0, 6500.0, 8000.0, 9500.0), np.arange(150.0, 3001.0, 60.0)  # m
LINE = """
[grid]
shape = [{points}, 201]
spacing = [15.0, 15.0]
[model]
kind = "layers"
velocities = [1.6, 2.0, 2.5, 3.0]
interfaces = [600.0, 1200.0, 2000.0]
[initial]
kind = "smooth"
sigma = 8.0
[acquisition]
{aperture}
[data]
geometry = "geometry.csv"
recording_time = 4000.0
[wavelet]
kind = "ricker"
peak_frequency = 6.0
[inversion]
iterations = 0
bounds = [1.4, 3.5]
[output]
figures = false
report = false
"""


def errors(file: Path, figure: Path | None) -> None:
    """Differences of the gradients, in per cent."""
    from scipy.ndimage import gaussian_filter

    from hpcfwi import Problem, load_run_config
    from hpcfwi.cluster.environment import apply_environment

    apply_environment(threads=1)
    from hpcfwi.inversion.misfits.least_squares import LeastSquares
    from hpcfwi.inversion.misfits.shot import ShotMisfit
    from hpcfwi.model.survey import Shot, Survey
    from hpcfwi.model.velocity import squared_slowness
    from hpcfwi.model.windows import cut, embed
    from hpcfwi.solver.engine import DevitoEngine
    from hpcfwi.solver.operators import Propagator
    from hpcfwi.solver.spec import SolverSpec

    shots = tuple(
        Shot(f"{x:g}", np.array([x, 30.0]), np.column_stack([x - OFFSETS, np.full(OFFSETS.size, 30.0)]))
        for x in SOURCES
    )
    config = load_run_config(ROOT / "jobs" / "marmousi.toml", [f"model.file={file}"])
    problem = replace(Problem.from_config(config), survey=Survey(shots))
    start, true = problem.initial_velocity, problem.true_velocity
    assert true is not None
    later = np.where(problem.frozen, start, 0.5 * (start + gaussian_filter(true, 1.5)))
    axis, misfit = problem.time_axis(start), LeastSquares()
    operator, compared = problem.sampling.operator(axis, "float32"), problem.sampling.compared(axis)
    free = ~problem.frozen

    def engine(some: Problem) -> DevitoEngine:
        propagator = Propagator(SolverSpec.from_problem(some))
        return DevitoEngine(propagator, some.source_signal, squared_slowness(start), some.windows)

    whole = engine(problem)
    whole.set_model(squared_slowness(true), own_edges=True)
    observed = [problem.sampling.observed(operator.apply(whole.record(shot, axis)), axis, "float32") for shot in shots]

    def gradients(some: DevitoEngine, velocity: np.ndarray) -> list[np.ndarray]:
        some.set_model(squared_slowness(velocity))
        found = []
        for shot, gather in zip(shots, observed, strict=True):
            compare = ShotMisfit(shot.name, "l2", misfit, operator, gather, compared)
            _, g = some.misfit_and_gradient(shot, axis, compare)
            found.append(embed(g, some.window(shot), problem.domain.shape) * free)
        return found

    expected = {name: gradients(whole, velocity) for name, velocity in (("initial", start), ("later", later))}
    rows = []
    print("Marmousi, gradient in a window beside that in the whole model, %")
    print(f"{'aperture, m':>12}{'window':>10}{'initial':>10}{'inside':>10}{'later':>10}{'inside':>10}")
    for aperture in APERTURES:
        acquisition = config.acquisition.model_copy(update={"aperture": float(aperture)})
        windowed = replace(problem, config=config.model_copy(update={"acquisition": acquisition}))
        there, row = engine(windowed), []
        for name, velocity in (("initial", start), ("later", later)):
            pairs = list(zip(shots, gradients(there, velocity), expected[name], strict=True))
            row.append(np.mean([np.linalg.norm(g - e) / np.linalg.norm(e) for _, g, e in pairs]))
            shape = there.boundary.domain.shape
            inside = [np.linalg.norm(cut(g - e, there.window(shot), shape)) / np.linalg.norm(e) for shot, g, e in pairs]
            row.append(np.mean(inside))
        rows.append([100 * value for value in row])
        print(f"{aperture:12}{there.boundary.domain.shape[0]:10}" + "".join(f"{v:10.2f}" for v in rows[-1]), flush=True)
    if figure is not None:
        draw(rows, figure)


def draw(rows: list[list[float]], figure: Path) -> None:
    """The table as a figure."""
    import matplotlib.pyplot as plt

    curves = np.array(rows).T
    fig, axes = plt.subplots(figsize=(6.4, 3.8), layout="constrained")
    names = ("initial model", "initial model, cells in the window", "later model", "later model, cells in the window")
    for values, name, style in zip(curves, names, ("C0o-", "C0o:", "C1s-", "C1s:"), strict=True):
        axes.semilogy(np.array(APERTURES) / 1000, np.maximum(values, 1e-3), style, label=name, markersize=4)
    axes.axhline(1, color="0.6", linewidth=0.8)
    axes.axvline(3, color="0.6", linewidth=0.8)
    axes.annotate("depth of the model", (2.98, 35), ha="right", va="top", rotation=90, color="0.4", fontsize=8)
    axes.set(xlabel="aperture (km)", ylabel="difference from the whole model (%)", ylim=(0.01, 40))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.legend(frameon=False, fontsize=8, loc="lower left")
    axes.grid(alpha=0.3)
    fig.savefig(figure, dpi=150)


def costs(repeat: int) -> None:
    """Time and memory of a shot on a long line, beside a short line of the same shots."""
    with tempfile.TemporaryDirectory() as name:
        folder, found = Path(name), dict[str, list[tuple[float, float, float]]]()
        long = prepare(folder / "long", 4001, "aperture = 3000.0", [12000.0, 30000.0, 50000.0])
        short = prepare(folder / "short", 935, "", [11000.0] * 3)
        for _ in range(repeat):
            for label, config in (("60 km, in windows", long), ("14 km, whole", short)):
                found.setdefault(label, []).append(run(config))
        print(f"streamer of 8 km, 3 shots, one worker of one thread, medians of {repeat}")
        print(f"{'':22}{'a shot, s':>12}{'kernels, s':>12}{'memory, GB':>12}")
        medians = {
            label: [statistics.median(column) for column in zip(*rows, strict=True)] for label, rows in found.items()
        }
        for label, values in medians.items():
            print(f"{label:22}" + "".join(f"{value:12.3f}" for value in values))
        windowed, whole = medians.values()
        print(f"{'ratio':22}" + "".join(f"{a / b:12.3f}" for a, b in zip(windowed, whole, strict=True)))


def prepare(folder: Path, points: int, aperture: str, sources: list[float]) -> Path:
    """Write a survey with a streamer behind each source, m."""
    folder.mkdir()
    lines = ["shot,source_x,source_z,receiver_x,receiver_z"]
    for number, x in enumerate(sources):
        lines += [f"{number},{x},15,{x - offset},15" for offset in np.arange(100.0, 8001.0, 25.0)]
    (folder / "geometry.csv").write_text("\n".join(lines))
    config = folder / "fwi.toml"
    config.write_text(LINE.format(points=points, aperture=aperture))
    return config


def run(config: Path) -> tuple[float, float, float]:
    """Median seconds of a shot and its kernels, and peak memory, GB, of a run with one worker of one thread."""
    run_dir = tempfile.mkdtemp(dir=config.parent)
    words = ["--set", "site.worker.processes=1", "--set", "site.worker.threads=1"]
    command = [sys.executable, "-m", "hpcfwi", "run", str(config), "--run-dir", f"{run_dir}/run", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
    events = [json.loads(line) for line in Path(run_dir, "run", "events.jsonl").read_text().splitlines()]
    shots = [event for event in events if event["event"] == "shot"]
    seconds, kernels = (statistics.median(event[key] for event in shots) for key in ("seconds", "kernel_seconds"))
    return seconds, kernels, max(event["peak_memory"] for event in shots) / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--marmousi", type=Path, metavar="FILE")
    parser.add_argument("--figure", type=Path, metavar="PNG")
    parser.add_argument("--only", choices=("error", "cost"))
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    if arguments.only != "cost" and arguments.marmousi is not None:
        errors(arguments.marmousi, arguments.figure)
    if arguments.only != "error":
        costs(arguments.repeat)


if __name__ == "__main__":
    main()
