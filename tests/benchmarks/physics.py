"""How fast a shot's gradient is: hpcfwi beside an earlier version of itself, bare time steps, Devito's examples and Deepwave.

    python tests/benchmarks/physics.py [--revision REV] [--repeat N] [--only NAME]

Prints medians of N runs (3), with one thread. The programs take turns, so that all of them see the same machine; nothing else
should run meanwhile. REV is a commit to compare with; by default one from before CPML.

- "two bare forwards" steps the wave equation twice on the model's own grid, without layer, sources, receivers or storage.
- "Devito's examples" is ``examples.seismic.acoustic`` with ``save=True`` and its sponge of 40 cells. It is left out if
  there is too little memory.
- Deepwave (``pip install 'hpcfwi[benchmark]'``; left out if it is not installed) has an absorbing layer of 10 cells, whose
  errors are about those of hpcfwi's. It keeps every step, the steps that hpcfwi keeps, or these with 8 bits a value.
"""

from __future__ import annotations

import argparse
import math
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import psutil

ROOT = Path(__file__).resolve().parents[2]
BEFORE_CPML = "c01f681"
# name: shape, spacing in m, time steps, time step in ms, steps between snapshots
CASES: dict[str, tuple[tuple[int, ...], float, int, float, int]] = {
    "Marmousi's size, 801 x 201": ((801, 201), 15.0, 2000, 1.2, 8),
    "80 x 80 x 80": ((80, 80, 80), 20.0, 300, 1.2, 5),
    "160 x 160 x 80": ((160, 160, 80), 20.0, 150, 1.2, 5),
}
ORDER, FREQUENCY, RECEIVERS = 8, 0.008, 100


def positions(case: str) -> tuple[np.ndarray, np.ndarray]:
    """A source in the middle below the top, and a line of receivers."""
    shape, h, *_ = CASES[case]
    source = np.array([*(h * (n // 2) for n in shape[:-1]), 2 * h])
    receivers = np.repeat(source[None], RECEIVERS, axis=0)
    receivers[:, 0] = np.linspace(2 * h, h * (shape[0] - 3), RECEIVERS)
    return source, receivers


def velocity(case: str) -> np.ndarray:
    """Two layers, km/s."""
    values = np.full(CASES[case][0], 2.5)
    values[..., values.shape[-1] // 2 :] = 3.0
    return values


def hpcfwi_gradient(case: str, storage: str = "snapshots") -> Callable[[], Any]:
    """The gradient of the version of hpcfwi that is imported, with its default layer and a storage of the wavefield."""
    import hpcfwi.solver.boundary as boundaries
    from hpcfwi.model.grid import Domain, TimeAxis
    from hpcfwi.model.survey import Shot
    from hpcfwi.model.wavelet import RickerWavelet
    from hpcfwi.solver.engine import DevitoEngine
    from hpcfwi.solver.operators import Propagator

    shape, h, steps, step, every = CASES[case]
    domain = Domain(shape, (h,) * len(shape), (0.0,) * len(shape))
    if hasattr(boundaries, "Cpml"):
        from hpcfwi.solver.spec import SolverSpec

        layer = boundaries.Cpml(domain, 10, velocity=3.0, frequency=FREQUENCY)
    else:
        layer, SolverSpec = boundaries.Sponge(domain, 40), boundaries.SolverSpec
    spec = SolverSpec(layer, ORDER, "float32", steps, every, RECEIVERS)
    if storage != "snapshots":
        from hpcfwi.solver.strategies import divided

        spec = divided(spec, storage)
    engine = DevitoEngine(Propagator(spec), RickerWavelet(FREQUENCY, 125.0))
    engine.set_model(velocity(case) ** -2.0)
    source, receivers = positions(case)
    shot, axis = Shot("0", source, receivers), TimeAxis(step, steps)
    return lambda: engine.misfit_and_gradient(shot, axis, lambda predicted: (0.0, predicted))


def bare_forwards(case: str) -> Callable[[], Any]:
    """Two passes of nothing but the time step."""
    from devito import Eq, Function, Grid, Operator, TimeFunction

    shape, h, steps, step, _ = CASES[case]
    grid = Grid(shape=shape[::-1], extent=tuple(h * (n - 1) for n in shape[::-1]), dtype=np.float32)
    u = TimeFunction(name="u", grid=grid, time_order=2, space_order=ORDER)
    medium = Function(name="medium", grid=grid, space_order=ORDER)
    medium.data[:] = velocity(case).T ** 2
    dt = grid.stepping_dim.spacing
    operator = Operator([Eq(u.forward, 2 * u - u.backward + dt**2 * medium * u.laplace)], subs=grid.spacing_map)
    u.data[0, grid.shape[0] // 2] = 1

    def run() -> None:
        for _ in range(2):
            operator.apply(time_m=0, time_M=steps - 1, dt=np.float32(step))

    return run


def examples_gradient(case: str) -> Callable[[], Any]:
    """Devito's ``AcousticWaveSolver``: a forward run that saves all steps, and the gradient."""
    from examples.seismic import AcquisitionGeometry, Model
    from examples.seismic.acoustic import AcousticWaveSolver

    shape, h, steps, step, _ = CASES[case]
    model = Model(
        vp=velocity(case), origin=(0.0,) * len(shape), shape=shape, spacing=(h,) * len(shape), nbl=40, space_order=ORDER,
        bcs="damp", dt=step,
    )  # fmt: skip
    source, receivers = positions(case)
    geometry = AcquisitionGeometry(
        model, receivers, source[None], 0.0, step * (steps - 1), f0=FREQUENCY, src_type="Ricker"
    )
    solver = AcousticWaveSolver(model, geometry, space_order=ORDER)

    def run() -> None:
        record, u, _ = solver.forward(save=True, dt=step)
        solver.gradient(record, u, dt=step)

    return run


def deepwave_gradient(case: str, sampled: bool = True, compressed: bool = False) -> Callable[[], Any]:
    """Deepwave's gradient."""
    import deepwave
    import torch

    torch.set_num_threads(1)
    shape, h, steps, step, every = CASES[case]
    model = torch.tensor(velocity(case), dtype=torch.float32, requires_grad=True)
    source, receivers = (
        np.unique(np.rint(where / h).astype(int).reshape(-1, len(shape)), axis=0) for where in positions(case)
    )
    wavelet = deepwave.wavelets.ricker(FREQUENCY, steps, step, 125.0)[None, None]

    def run() -> None:
        model.grad = None
        *_, record = deepwave.scalar(
            model, h, step, source_amplitudes=wavelet, source_locations=torch.tensor(source)[None],
            receiver_locations=torch.tensor(receivers)[None], accuracy=ORDER, pml_width=10, pml_freq=FREQUENCY,
            model_gradient_sampling_interval=every if sampled else 1, storage_compression=compressed,
        )  # fmt: skip
        (0.5 * (record**2).sum()).backward()

    return run


PROGRAMS: dict[str, Callable[[str], Callable[[], Any]]] = {
    "hpcfwi": hpcfwi_gradient,
    **{name: partial(hpcfwi_gradient, storage=name) for name in ("compressed", "checkpointed", "disk")},
    "bare": bare_forwards,
    "examples": examples_gradient,
    "deepwave": deepwave_gradient,
    "deepwave-full": partial(deepwave_gradient, sampled=False),
    "deepwave-compressed": partial(deepwave_gradient, compressed=True),
}


def serve(program: str, case: str) -> None:
    """Run a program each time that a line comes in, and answer with the seconds; the first run is not timed."""
    from devito import configuration

    configuration["log-level"] = "ERROR"
    run = PROGRAMS[program](case)
    run()
    print("ready", flush=True)
    for _ in sys.stdin:
        started = time.perf_counter()
        run()
        print(time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, flush=True)


def measure(case: str, programs: dict[str, tuple[str, Path]], repeat: int) -> dict[str, tuple[float, float]]:
    """Median seconds and peak memory, GB, of each program, by its label.

    Each is one of PROGRAMS and the folder from which it imports hpcfwi.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "DEVITO_LANGUAGE": "C"}
    servers: dict[str, subprocess.Popen[str]] = {}
    for label, (program, root) in programs.items():
        servers[label] = subprocess.Popen(
            [sys.executable, __file__, "--serve", program, case], text=True, cwd=root,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment | {"PYTHONPATH": str(root)},
        )  # fmt: skip
    try:
        for label, server in servers.items():
            answer(server, label)
        found: dict[str, list[tuple[float, float]]] = {label: [] for label in servers}
        for _ in range(repeat):
            for label, server in servers.items():
                assert server.stdin is not None
                server.stdin.write("go\n")
                server.stdin.flush()
                seconds, memory = map(float, answer(server, label).split())
                found[label].append((seconds, memory))
    finally:
        for server in servers.values():
            server.terminate()
    return {
        label: (statistics.median(seconds for seconds, _ in values), values[-1][1]) for label, values in found.items()
    }


def answer(server: subprocess.Popen[str], label: str) -> str:
    assert server.stdout is not None
    line = server.stdout.readline()
    if not line:
        sys.exit(f"{label} failed with status {server.wait()}")
    return line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--revision", default=BEFORE_CPML)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--only", choices=[*CASES])
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(*arguments.serve)
        return
    with tempfile.TemporaryDirectory() as folder:
        before = Path(folder)
        archive = subprocess.run(
            ["git", "archive", arguments.revision, "hpcfwi"], cwd=ROOT, stdout=subprocess.PIPE, check=True
        )
        subprocess.run(["tar", "-x", "-C", before], input=archive.stdout, check=True)
        programs = {
            "hpcfwi": ("hpcfwi", ROOT),
            arguments.revision: ("hpcfwi", before),
            **{f"hpcfwi, {name}": (name, ROOT) for name in ("compressed", "checkpointed", "disk")},
            "two bare forwards": ("bare", ROOT),
            "Devito's examples": ("examples", ROOT),
        }
        if find_spec("deepwave") is not None:
            programs |= {"Deepwave, sampled": ("deepwave", ROOT)}
            programs |= {f"Deepwave, {name}": (f"deepwave-{name}", ROOT) for name in ("full", "compressed")}
        for case in [arguments.only] if arguments.only else CASES:
            shape, _, steps, *_ = CASES[case]
            # Devito's examples take about four times what the wavefield does
            needed = 4 * 4 * steps * math.prod(n + 80 for n in shape)
            fits = needed < 0.6 * psutil.virtual_memory().total
            chosen = programs if fits else {k: v for k, v in programs.items() if v[0] != "examples"}
            found = measure(case, chosen, arguments.repeat)
            ours, memory = found.pop("hpcfwi")
            print(f"{case}: hpcfwi {ours:.3f} s, {memory:.2f} GB")
            for label, (seconds, memory) in found.items():
                ratio = f"hpcfwi takes {ours / seconds:.2f} times as long"
                print(f"  {label:20} {seconds:8.3f} s, {memory:.2f} GB   {ratio}", flush=True)


if __name__ == "__main__":
    main()
