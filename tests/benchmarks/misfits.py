"""What a misfit says about a trace that is shifted, and how long it takes. Prints a table, and draws a figure.

    python tests/benchmarks/misfits.py [--figure PNG]

- Traces that are shifted by -1 to 1 periods: one arrival, three arrivals, and three arrivals that are observed with noise.
- The CPU time of misfit and adjoint source of a gather of 401 traces of 1000 samples, single precision.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hpcfwi.inversion.misfits.base import Misfit
from hpcfwi.inversion.misfits.registry import MisfitSpec, load_misfit
from hpcfwi.model.grid import TimeAxis

PERIOD = 100.0  # ms, of the Ricker wavelet's peak frequency
SPECS = {
    "l2": MisfitSpec("l2"),
    "huber": MisfitSpec("huber"),
    "correlation": MisfitSpec("correlation"),
    "envelope": MisfitSpec("envelope"),
    "envelope, power = 2": MisfitSpec("envelope", (("power", 2),)),
    "normalised_envelope": MisfitSpec("normalised_envelope"),
    "awi": MisfitSpec("awi"),
    "gsot": MisfitSpec("gsot"),
}
ONE, THREE = ((1.0, 800.0),), ((1.0, 700.0), (-0.7, 880.0), (0.5, 1150.0))  # amplitude and time, ms, of arrivals
NOISE = 0.1  # rms, as a share of the first arrival's peak
TRACES, SAMPLES, INTERVAL = 401, 1000, 4.0  # of the gather that is timed; ms


def record(axis: TimeAxis, arrivals: tuple[tuple[float, float], ...], delays: NDArray) -> NDArray:
    """A gather of Ricker wavelets, shape (samples, delays)."""
    squares = [(np.pi / PERIOD * (axis.times[:, None] - t - delays)) ** 2 for _, t in arrivals]
    return sum(a * (1 - 2 * s) * np.exp(-s) for (a, _), s in zip(arrivals, squares, strict=True))


def over_shifts(misfit: Misfit, arrivals: tuple[tuple[float, float], ...], noise: float, shifts: NDArray) -> NDArray:
    """The misfit of a trace that is later by each of the shifts, in periods."""
    from scipy.ndimage import gaussian_filter1d

    axis = TimeAxis(INTERVAL, 500)
    white = gaussian_filter1d(np.random.default_rng(1).standard_normal((axis.samples, 1)), 2.0, axis=0)
    observed = record(axis, arrivals, np.zeros(1)) + noise * white / white.std()
    moved = record(axis, arrivals, PERIOD * shifts)
    return np.array([misfit.evaluate(moved[:, [i]], observed, axis)[0] for i in range(len(shifts))])


def seconds(misfit: Misfit, repeat: int = 5) -> float:
    """CPU time of an evaluation, the shortest of several."""
    axis, delays = TimeAxis(INTERVAL, SAMPLES), np.linspace(0.0, 1500.0, TRACES)
    predicted, observed = (record(axis, THREE, delays + shift).astype(np.float32) for shift in (0.4 * PERIOD, 0.0))
    found = []
    for _ in range(repeat):
        started = time.process_time()
        misfit.evaluate(predicted, observed, axis)
        found.append(time.process_time() - started)
    return min(found)


def draw(figure: Path) -> None:
    """A panel for each misfit."""
    import matplotlib.pyplot as plt

    shifts = np.linspace(-1, 1, 201)
    fig, axes = plt.subplots(2, 4, figsize=(9.6, 4.6), sharex=True, sharey=True, layout="constrained")
    for (name, spec), panel in zip(SPECS.items(), axes.flat, strict=True):
        for label, arrivals, noise, style in (
            ("one arrival", ONE, 0.0, "C0"),
            ("three arrivals", THREE, 0.0, "C1"),
            ("three arrivals, observed with noise", THREE, NOISE, "C2--"),
        ):
            values = over_shifts(load_misfit(spec), arrivals, noise, shifts)
            panel.plot(shifts, values / values.max(), style, linewidth=1.3, label=label)
        panel.set_title(name, fontsize=10)
        panel.grid(alpha=0.3)
    fig.supxlabel("shift (periods)", fontsize=10)
    fig.supylabel("misfit / largest misfit", fontsize=10)
    fig.legend(
        *axes.flat[0].get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False, fontsize=9
    )
    fig.savefig(figure, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--figure", type=Path)
    chosen = parser.parse_args()
    if chosen.figure is not None:
        draw(chosen.figure)
    print(f"{'misfit':24}{'CPU time, ms':>14}")
    for name, spec in SPECS.items():
        print(f"{name:24}{1000 * seconds(load_misfit(spec)):14.0f}", flush=True)


if __name__ == "__main__":
    main()
