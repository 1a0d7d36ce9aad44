"""What strategies reach from a start, and for how much: model errors over shot gradients and kernel seconds.

    python tests/benchmarks/strategy.py --marmousi FILE [--only PART] [--folder FOLDER] [--figure PNG]

Parts, each with a table:

- ``smooth``: from the start of jobs/marmousi.toml, one band and stages.
- ``gradient``: from a gradient with depth, jobs/marmousi-gradient.toml and what one band reaches from there.
- ``ablation``: the latter without each of its means, and each alone.
- ``noise``: 20 % of noise, a quarter of the traces missing, the wavelet estimated.
- ``codes``: observed data by Devito's examples and by Deepwave on a grid twice as fine.
- ``second``: the same jobs on layers with lenses.

FILE is vp_marmousi_bi of Devito's public data (Simple2D). Seeds are those of the jobs. Runs that --folder has are not repeated.
"""

from __future__ import annotations

import argparse
import copy
import csv
import json
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.signal import hilbert

from hpcfwi import Problem, RunConfig, model_data, run_inversion
from hpcfwi.config.messages import validate
from hpcfwi.model.grid import TimeAxis
from hpcfwi.model.stages import load_problem, stages_of
from hpcfwi.model.wavelet import Wavelet, build_wavelet
from hpcfwi.run.cost import work

ROOT = Path(__file__).resolve().parents[2]
JOBS = ROOT / "jobs"
Job = dict[str, Any]  # what a configuration holds

NOISE, MISSING = 0.2, 0.25  # noise over signal, as rms of a gather; share of the traces
FINE = 2  # decimation of the model file for data of other codes: a grid twice as fine


@dataclass(frozen=True)
class Outcome:
    """What a run reached, iteration by iteration, and what it had cost by then."""

    name: str
    errors: NDArray[np.float64]  # of the model, %
    gradients: NDArray[np.float64]  # shot gradients
    equivalents: NDArray[np.float64]  # the same, each counted as the share of one on the grid of the run
    kernels: NDArray[np.float64]  # s

    @property
    def row(self) -> str:
        """A row of a table in Markdown."""
        return (
            f"| {self.name} | {self.gradients[-1]:.0f} | {self.equivalents[-1]:.0f} | {self.kernels[-1]:.0f} s | "
            f"{self.errors[0]:.2f} % | {self.errors[-1]:.2f} % |"
        )


HEADER = "| | Shot gradients | On the full grid | Kernels | Model error, first | Last |\n|---|---|---|---|---|---|"


def job(name: str, marmousi: Path) -> Job:
    """A job file's content."""
    content = tomllib.loads((JOBS / name).read_text(encoding="utf-8"))
    content["model"]["file"] = str(marmousi)
    content["output"] = {"figures": False}
    return content


def run(name: str, content: Job, folder: Path) -> Outcome:
    """Run a configuration, unless the folder has its run."""
    config = validate(RunConfig, content, name)
    problem, run_dir = load_problem(config), folder / name
    run_inversion(config, run_dir=run_dir)
    events = [json.loads(line) for line in (run_dir / "events.jsonl").read_text(encoding="utf-8").splitlines()]
    with (run_dir / "history.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    costs = [work(stage.first) / work(problem) for stage in stages_of(problem)]
    counts = np.zeros((len(rows), 3))  # of each iteration
    last = 0
    for number, row in enumerate(rows):
        ended = int(row["evaluations"])
        own = [each for each in events if each["event"] == "shot" and last < each["evaluation"] <= ended]
        share = costs[int(row["stage"]) - 1]
        counts[number] = len(own), share * len(own), sum(each["kernel_seconds"] for each in own)
        last = ended
    errors = np.array([float(each["model_error"]) for each in rows])
    outcome = Outcome(name, 100 * errors, *counts.cumsum(axis=0).T)
    print(outcome.row, flush=True)
    return outcome


def without_stages(content: Job, **inversion: Any) -> Job:
    """The same problem in one stage, with other settings of the inversion."""
    changed = copy.deepcopy(content)
    changed.pop("stage", None)
    kept = {key: value for key, value in changed["inversion"].items() if key in ("bounds", "frozen")}
    changed["inversion"] = kept | inversion
    return changed


def each_stage(content: Job, *changes: Callable[[Job], None]) -> Job:
    """The same problem with changes of each stage."""
    changed = copy.deepcopy(content)
    for stage in changed["stage"]:
        for change in changes:
            change(stage)
    return changed


def from_smooth(marmousi: Path, folder: Path) -> Iterator[Outcome]:
    """From the smoothed true model."""
    content = job("marmousi-stages.toml", marmousi)
    one = {"misfit": "l2"}
    yield run("one band, lbfgs", without_stages(content, iterations=30, **one), folder)
    yield run("one band, adam", without_stages(content, optimizer="adam", batch=4, iterations=131, **one), folder)
    yield run("one band, lbfgs-batch", without_stages(content, optimizer="lbfgs-batch", iterations=66, **one), folder)
    yield run("marmousi-stages", content, folder)


def from_gradient(marmousi: Path, folder: Path) -> Iterator[Outcome]:
    """From a gradient with depth."""
    content = job("marmousi-gradient.toml", marmousi)
    low = {"kind": "bandpass", "high": 3.0, "order": 8, "phase": "causal"}
    yield run("one band, lbfgs from there", without_stages(content, iterations=32), folder)
    three = without_stages(content, iterations=32)
    yield run("below 3 Hz, lbfgs", three | {"processing": [*three["processing"], low]}, folder)
    yield run("marmousi-gradient", content, folder)


def ablations(marmousi: Path, folder: Path) -> Iterator[Outcome]:
    """marmousi-gradient without each of its means, and with one or two of them alone."""
    content = job("marmousi-gradient.toml", marmousi)
    shots, batch = content["acquisition"]["sources"]["count"], content["inversion"]["batch"]

    def no_windows(stage: Job) -> None:
        stage.pop("processing", None)

    def no_smoothing(stage: Job) -> None:
        stage.pop("conditioning", None)

    def one_band(stage: Job) -> None:
        stage |= {key: content["stage"][-1][key] for key in ("high", "spacing")}

    def lbfgs(stage: Job) -> None:
        stage.pop("step", None)
        gradients = stage["iterations"] * stage.pop("batch", batch)
        stage["iterations"] = max(1, round(gradients / shots))

    by_lbfgs = copy.deepcopy(content)
    for key in ("optimizer", "batch", "step", "epsilon"):
        by_lbfgs["inversion"].pop(key, None)
    yield run("all of it", content, folder)
    yield run("no time windows", each_stage(content, no_windows), folder)
    yield run("no smoothing", each_stage(content, no_smoothing), folder)
    yield run("one band", each_stage(content, one_band), folder)
    yield run("L-BFGS instead of Adam", each_stage(by_lbfgs, lbfgs), folder)
    yield run("epsilon = 1e-8", content | {"inversion": content["inversion"] | {"epsilon": 1e-8}}, folder)
    yield run("only bands", each_stage(by_lbfgs, no_windows, no_smoothing, lbfgs), folder)
    yield run("only bands and Adam", each_stage(content, no_windows, no_smoothing), folder)
    yield run("only bands and windows", each_stage(by_lbfgs, no_smoothing, lbfgs), folder)
    yield run("only windows and Adam", each_stage(content, no_smoothing, one_band), folder)


def noisy(marmousi: Path, folder: Path) -> Iterator[Outcome]:
    """Noise, missing traces and an unknown wavelet, from both starts."""
    for name in ("marmousi-stages.toml", "marmousi-gradient.toml"):
        clean = job(name, marmousi)
        yield run(Path(name).stem, clean, folder)
        problem = configured(clean)
        wavelet = folder / "rotated.npy"
        np.save(wavelet, rotated(build_wavelet(problem.config.wavelet)))
        modelled = clean | {"wavelet": {"kind": "file", "file": str(wavelet), "sample_interval": 1.0}}
        modelled = {key: value for key, value in modelled.items() if key not in ("stage", "processing")}
        gathers = folder / f"noisy-{Path(name).stem}"
        if not gathers.exists():
            paths = model_data(validate(RunConfig, modelled, name), run_dir=folder / f"modelled-{Path(name).stem}")
            gathers.mkdir()
            for number, path in enumerate(paths):
                np.save(gathers / path.name, spoilt(np.load(path), np.random.default_rng(number)))
        estimated = {**clean, "wavelet": {"kind": "estimate", "peak_frequency": 5.0}}
        estimated["data"] = clean["data"] | {"file": str(gathers), "mismatch": "warn"}
        yield run(f"{Path(name).stem}, noise", estimated, folder)


def spoilt(gather: NDArray, generator: np.random.Generator) -> NDArray:
    """A gather with noise in its band, and without some of its traces."""
    samples, traces = gather.shape
    spectrum = np.abs(np.fft.rfft(gather, axis=0)).mean(axis=1, keepdims=True)
    noise = np.fft.irfft(spectrum * np.fft.rfft(generator.standard_normal(gather.shape), axis=0), samples, axis=0)
    found = gather + NOISE * noise * np.sqrt((gather**2).mean() / (noise**2).mean())
    found[:, generator.permutation(traces)[: round(MISSING * traces)]] = 0
    return found.astype(np.float32)


def rotated(wavelet: Wavelet) -> NDArray[np.float64]:
    """A wavelet ten times as large, whose phase is wrong by 90 degrees; samples of 1 ms."""
    values = 10 * np.imag(hilbert(wavelet.sample(TimeAxis(1.0, 4000))))[:500]
    return values * np.clip(np.arange(500) / 50, 0, 1) * np.clip(np.arange(499, -1, -1) / 50, 0, 1)


def other_codes(marmousi: Path, folder: Path) -> Iterator[Outcome]:
    """Data by other codes on a finer grid, from both starts."""
    from other_codes import by_deepwave, by_devito_examples

    for name in ("marmousi-stages.toml", "marmousi-gradient.toml"):
        content = job(name, marmousi)
        yield run(Path(name).stem, content, folder)
        problem = configured(content)
        model = content["model"]
        velocity = np.fromfile(marmousi, dtype=np.float32).reshape(model["shape"])[::FINE, ::FINE]
        velocity = velocity.clip(*model["clip"]).astype(np.float64)
        for code in (by_devito_examples, by_deepwave):
            gathers = folder / code.__name__
            if not gathers.exists():
                gathers.mkdir()
                for shot, gather in zip(problem.survey.shots, code(problem, velocity, 7.5 * FINE), strict=True):
                    np.save(gathers / f"{shot.file_name}.npy", gather)
            recorded = content | {"data": content["data"] | {"file": str(gathers)}}
            yield run(f"{Path(name).stem}, {code.__name__}", recorded, folder)


def second_model(marmousi: Path, folder: Path) -> Iterator[Outcome]:
    """Layers with lenses: the jobs with another model and extent."""
    file = folder / "lenses.npy"
    np.save(file, lenses())
    for name in ("marmousi-stages.toml", "marmousi-gradient.toml"):
        content = job(name, marmousi)
        content["model"] = {"kind": "file", "file": str(file)}
        for what, count in (("sources", 12), ("receivers", LENSES[0])):
            content["acquisition"][what] |= {"last": [9000.0, 30.0], "count": count}
        yield run(f"{Path(name).stem}, lenses", content, folder)


LENSES = 301, 81  # grid points, 30 m apart: 9 km x 2.4 km


def lenses() -> NDArray[np.float64]:
    """Seven folded layers below 240 m of water, with a fast and a slow lens; km/s."""
    x, z = np.meshgrid(*(30.0 * np.arange(n) for n in LENSES), indexing="ij")
    velocity = np.full(LENSES, 1.5)
    tops, speeds = (240, 480, 760, 1050, 1400, 1750, 2080), (1.7, 1.95, 2.3, 2.15, 2.8, 3.3, 3.8)
    for k, (top, speed) in enumerate(zip(tops, speeds, strict=True)):
        dip = (0.03 + 0.015 * k) * (x - 4500) * (1 if k % 2 else 0.6) if k else 0.0
        fold = 20 * k * np.sin(2 * np.pi * x / 6000 + 0.5 * k)
        velocity[z >= np.maximum(top + dip + fold, 240)] = speed
    for x0, z0, width, height, speed in ((3000, 950, 900, 130, 3.0), (6200, 1350, 800, 150, 1.9)):
        velocity[((x - x0) / width) ** 2 + ((z - z0) / height) ** 2 <= 1] = speed
    return velocity


def configured(content: Job) -> Problem:
    """The problem of a configuration."""
    return Problem.from_config(validate(RunConfig, content, "strategy"))


def draw(outcomes: list[Outcome], path: Path) -> None:
    """Model errors over the cost."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(11, 4.5), sharey=True, layout="constrained")
    for outcome in outcomes:
        for axis, cost in zip(axes, (outcome.equivalents, outcome.kernels), strict=True):
            axis.plot(cost, outcome.errors, label=outcome.name)
    axes[0].set(xlabel="shot gradients on the full grid", ylabel="model error, %")
    axes[1].set(xlabel="kernel seconds")
    axes[1].legend(fontsize="small")
    figure.savefig(path, dpi=110)


PARTS = {
    "smooth": from_smooth,
    "gradient": from_gradient,
    "ablation": ablations,
    "noise": noisy,
    "codes": other_codes,
    "second": second_model,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--marmousi", type=Path, required=True, metavar="FILE")
    parser.add_argument("--only", choices=PARTS, help="one part")
    parser.add_argument("--folder", type=Path, help="where runs are kept; default: a temporary one")
    parser.add_argument("--figure", type=Path, metavar="PNG", help="draw errors over costs; the part's name is added")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    for name in [options.only] if options.only else PARTS:
        print(f"\n{name}\n\n{HEADER}", flush=True)
        outcomes = list(PARTS[name](options.marmousi, folder.absolute()))
        if options.figure is not None:
            draw(outcomes, options.figure.with_stem(f"{options.figure.stem}-{name}"))


if __name__ == "__main__":
    main()
