"""Full waveform inversion the way Devito's tutorial does it: the opponent in a speed benchmark.

The script goes step by step through Devito's tutorial "FWI with pickling" (devitocodes/devito,
examples/seismic/tutorials/04_dask_pickling.ipynb, MIT licence): a circle in a homogeneous medium, five
shots, 101 receivers, a Dask LocalCluster of two workers, and scipy's L-BFGS-B. It is deliberately not
optimised. In particular, and as in the tutorial,

* the solver is pickled to arguments.pkl before it has built any operator, so that every task which unpickles
  it builds its operators again;
* the current model is written to model_0.p at each evaluation, with a fresh true and a fresh initial model
  made on the way;
* each task reads the model, its shot and the solver from files;
* the synthetic shots are made twice, first one by one in the main process and then on the workers.

Only what a script needs and a notebook does not is different: the client is handed on as an argument, the
scipy option disp (without effect in new versions, which warn of it) is not set, and what is to be measured
is noted down.

    python tests/benchmarks/tutorial_opponent.py [--dir DIR] [--workers N] [--figures]

It prints one JSON object on stdout; the messages of Devito and Dask go to stderr. Devito keeps what it
compiled in a cache outside DIR, as always; a first run with that cache empty compiles a handful of kernels.
Importing examples.seismic needs pytest to be installed.

Dask divides the processors among the workers, and this is left to it, as in the tutorial. With more
processors than workers each worker gets several threads, and Devito, which does not build operators safely in
several threads at once, may then fail in some tasks ("cannot re-enter the tee iterator"). Measure with as
many workers as processors, and with nothing else running.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
from devito import Function
from distributed import Client, LocalCluster, wait
from examples.seismic import AcquisitionGeometry, Receiver, demo_model
from examples.seismic.acoustic import AcousticWaveSolver
from scipy import optimize

SETUP: dict[str, Any] = {
    "t0": 0.0,  # ms
    "tn": 1000.0,  # ms
    "f0": 0.010,  # kHz
    "nshots": 5,
    "shape": (101, 101),
    "spacing": (10.0, 10.0),  # m
    "origin": (0, 0),
    "nbl": 40,  # width of the absorbing boundary, in points
}
RECEIVERS = 101
SOURCE_DEPTH = 20.0  # m
RECEIVER_DEPTH = 980.0  # m: the other side of the circle
SAMPLING = 4.0  # ms, of the shots on disk
FTOL = 0.1
MAXITER = 5
SLOWEST, FASTEST = 1.4, 4.0  # km/s, the bounds of the inversion

SOLVER_FILE = "arguments.pkl"
MODEL_FILE = "model_0.p"


# ---- Files between the main process and the workers, all in the current folder, which the workers inherit


def dump(name: str, content: Any) -> None:
    with Path(name).open("wb") as stream:
        cloudpickle.dump(content, stream)


def load(name: str) -> Any:
    with Path(name).open("rb") as stream:
        return cloudpickle.load(stream)


def shot_file(shot_id: int) -> str:
    return f"shot_{shot_id}.p"


# ---- Models


def circle(vp_circle: float, grid: Any = None) -> Any:
    return demo_model(
        "circle-isotropic",
        vp_circle=vp_circle,
        vp_background=2.5,
        origin=SETUP["origin"],
        shape=SETUP["shape"],
        spacing=SETUP["spacing"],
        nbl=SETUP["nbl"],
        grid=grid,
    )


def true_model() -> Any:
    return circle(3.0)


def initial_model() -> Any:
    """The background without the circle, on the grid of a true model made for this purpose."""
    return circle(2.5, grid=true_model().grid)


def model_of(x: np.ndarray) -> Any:
    """A new model with the squared slownesses x."""
    model = initial_model()
    model.update("vp", 1.0 / np.sqrt(x.reshape(model.shape)))
    return model


def interior(model: Any) -> np.ndarray:
    """The velocities without the absorbing boundary."""
    nbl = SETUP["nbl"]
    return model.vp.data[nbl:-nbl, nbl:-nbl]


def squared_slowness(model: Any) -> np.ndarray:
    return 1.0 / interior(model).reshape(-1).astype(np.float64) ** 2


# ---- Observed data


def make_shot(task: dict[str, Any]) -> None:
    """Model one shot in the true model and write it, resampled, to its file."""
    solver = load(SOLVER_FILE)["solver"]
    solver.geometry.src_positions[0, :] = [SOURCE_DEPTH, task["shot_id"] * 1000.0 / (task["nshots"] - 1)]
    record = solver.forward()[0]
    dump(
        shot_file(task["shot_id"]),
        {"rec": record.resample(SAMPLING), "geometry": solver.geometry.src_positions},
    )


def make_shots(client: Client, solver: AcousticWaveSolver) -> None:
    """Pickle the solver, which has no operator yet, and make all shots: here, then again on the workers."""
    dump(SOLVER_FILE, {"solver": solver})
    tasks = [{**SETUP, "shot_id": i} for i in range(SETUP["nshots"])]
    for task in tasks:
        make_shot(task)
    wait(client.map(make_shot, tasks))


def make_solver(model: Any) -> AcousticWaveSolver:
    dimensions = len(SETUP["shape"])
    sources = np.zeros((1, dimensions))  # each task sets its own
    receivers = np.empty((RECEIVERS, dimensions))
    receivers[:, 0] = RECEIVER_DEPTH
    margin = SETUP["spacing"][0]
    receivers[:, 1] = np.linspace(margin, model.domain_size[0] - margin, num=RECEIVERS)
    geometry = AcquisitionGeometry(
        model, receivers, sources, SETUP["t0"], SETUP["tn"], src_type="Ricker", f0=SETUP["f0"]
    )
    return AcousticWaveSolver(model, geometry, space_order=4)


# ---- Misfit and gradient


class Pair:
    """A misfit and its gradient, which the built-in sum can add up."""

    def __init__(self, f: Any, g: np.ndarray) -> None:
        self.f = f
        self.g = g

    def __add__(self, other: Pair) -> Pair:
        return Pair(self.f + other.f, self.g + other.g)

    def __radd__(self, other: Any) -> Pair:
        return self if other == 0 else self + other


def shot_gradient(task: dict[str, Any]) -> Pair:
    """What one shot adds to misfit and gradient; it reads model, shot and solver from their files."""
    model = load(task["model"])["model"]
    dt = model.critical_dt
    nbl = model.nbl

    shot = load(shot_file(task["shot_id"]))
    observed = shot["rec"].resample(dt)

    solver = load(SOLVER_FILE)["solver"]
    solver.geometry.src_positions = shot["geometry"]
    solver.geometry.resample(dt)

    # The synthetic data and the whole forward wavefield.
    synthetic, wavefield = solver.forward(vp=model.vp, dt=dt, save=True)[:2]

    residual = Receiver(
        name="rec",
        grid=model.grid,
        time_range=solver.geometry.time_axis,
        coordinates=solver.geometry.rec_positions,
    )
    residual.data[:] = synthetic.data[:] - observed.data[: synthetic.data.shape[0], :]
    f = 0.5 * np.linalg.norm(residual.data.flatten()) ** 2

    # The adjoint state: the residual goes back through the model.
    grad = Function(name="grad", grid=model.grid)
    solver.gradient(rec=residual, u=wavefield, vp=model.vp, dt=dt, grad=grad)

    # A copy: Devito may free the Function before Dask has sent it.
    return Pair(f, np.array(grad.data[:])[nbl:-nbl, nbl:-nbl])


def misfit_and_gradient(
    x: np.ndarray, client: Client, setup: dict[str, Any], misfits: list[float]
) -> tuple[Any, np.ndarray]:
    setup["model"] = MODEL_FILE
    dump(setup["model"], {"model": model_of(x)})

    tasks = [{**setup, "shot_id": i} for i in range(setup["nshots"])]
    # The keys of these tasks are the same at each evaluation. They are computed anew all the same, because
    # nothing holds the futures once this function has returned.
    pairs = client.map(shot_gradient, tasks, retries=1)
    total = client.submit(sum, pairs).result()

    misfits.append(float(total.f))
    return total.f, total.g.flatten().astype(np.float64)


def invert(client: Client, model: Any, misfits: list[float], m_errors: list[float]) -> optimize.OptimizeResult:
    def after_iteration(x: np.ndarray) -> None:
        true_m = squared_slowness(true_model())
        m_errors.append(float(np.linalg.norm((x - true_m) / true_m)))

    bounds = [(1.0 / FASTEST**2, 1.0 / SLOWEST**2) for _ in range(np.prod(model.shape))]
    return optimize.minimize(
        misfit_and_gradient,
        squared_slowness(model),
        args=(client, dict(SETUP), misfits),
        method="L-BFGS-B",
        jac=True,
        bounds=bounds,
        callback=after_iteration,
        options={"ftol": FTOL, "maxiter": MAXITER},
    )


# ---- Figures


def draw(model: Any, x: np.ndarray, m_errors: list[float]) -> None:
    """The true and the inverted model and the curve of the error, as true.png, inverted.png and error.png."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from examples.seismic import plot_image

    # plot_image ends with show(), which only warns where there is no screen.
    plt.show = lambda *_args, **_kwargs: None
    pictures = {"true": interior(model), "inverted": 1.0 / np.sqrt(x.reshape(model.shape))}
    for name, vp in pictures.items():
        plt.figure()
        plot_image(vp, vmin=2.4, vmax=2.8, cmap="cividis")
        plt.savefig(f"{name}.png")
        plt.close()

    plt.figure()
    plt.plot(range(1, len(m_errors) + 1), m_errors)
    plt.xlabel("Iteration number")
    plt.ylabel("L2-model error")
    plt.savefig("error.png")
    plt.close()


# ---- The command


def seconds_since_start() -> float:
    """The age of this process by Linux's own count, so that the imports at the top are in it."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    started = int(fields[19]) / os.sysconf("SC_CLK_TCK")  # field 22 of proc(5), in ticks since the boot
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started


@contextlib.contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """Send what this process and its children print to stderr, on the level of file descriptors."""
    sys.stdout.flush()
    saved = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(saved, 1)
        os.close(saved)


def run(workers: int, figures: bool) -> dict[str, Any]:
    """All steps of the tutorial, with the current folder as the place for files."""
    misfits: list[float] = []
    m_errors: list[float] = []
    with LocalCluster(n_workers=workers, death_timeout=600) as cluster, Client(cluster) as client:
        model = true_model()
        make_shots(client, make_solver(model))

        start = initial_model()
        began = time.perf_counter()
        result = invert(client, start, misfits, m_errors)
        loop_seconds = time.perf_counter() - began

        if figures:
            draw(model, result.x, m_errors)
    return {
        "misfits": misfits,
        "nit": int(result.nit),
        "nfev": int(result.nfev),
        "m_errors": m_errors,
        "loop_seconds": round(loop_seconds, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="FWI as in Devito's tutorial 04_dask_pickling, to be timed")
    parser.add_argument("--dir", type=Path, help="folder for all files (default: a new temporary one, removed after)")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="Dask workers (default: 2)")
    parser.add_argument("--figures", action="store_true", help="draw the models and the error; keeps the folder")
    options = parser.parse_args()

    before = Path.cwd()
    folder = Path(tempfile.mkdtemp(prefix="tutorial-")) if options.dir is None else options.dir
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    try:
        with stdout_to_stderr():
            report = run(options.workers, options.figures)
    finally:
        os.chdir(before)
        if options.dir is None and not options.figures:
            shutil.rmtree(folder, ignore_errors=True)
    if options.figures:
        print(f"figures: {folder.resolve()}", file=sys.stderr)

    # Last of all, so that the end of the cluster is counted, too.
    report["command_seconds"] = round(seconds_since_start(), 3)
    report["figures"] = options.figures
    print(json.dumps(report))


if __name__ == "__main__":
    main()
