"""What the shots of a problem need in the run folder: solver, wavelet, processing, edges of the absorbing layer."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import scipy.optimize  # noqa: F401 - imported while the workers start, so that the optimiser need not wait

from hpcfwi.artifacts import stage
from hpcfwi.events import types as events
from hpcfwi.execution.shot_worker import ShotContext
from hpcfwi.execution.tasks import shot_operations
from hpcfwi.inversion.misfits.registry import MisfitSpec
from hpcfwi.model.problem import Problem
from hpcfwi.model.velocity import squared_slowness
from hpcfwi.run.cost import chosen_strategy, data_cache_bytes
from hpcfwi.solver.operators import result_fingerprint, stage_solver

if TYPE_CHECKING:
    from hpcfwi.inversion.objective import ShotOperations
    from hpcfwi.run.session import Session


def prepare_shots(session: Session, problem: Problem, name: str) -> ShotOperations:
    """Stage it in the folder of a session, and return the operations on a shot."""
    staged, started = session.folder.staged, time.perf_counter()
    strategy = chosen_strategy(problem, session.layout)
    solver, built = stage_solver(staged, strategy.spec)
    seconds = time.perf_counter() - started
    session.log.write(events.Solver(built=built, seconds=seconds, source="driver", digest=solver.digest))
    session.print_line(f"solver {'built and compiled' if built else 'found in the run folder'} ({seconds:.1f} s)")
    session.reproducibility.add_machine("drivers", result_fingerprint())
    edges = None
    if problem.config.solver.boundary_gradient == "frozen":
        edges = stage(staged, "model", squared_slowness(problem.initial_velocity), name=f"edges{name}.pkl")
    return shot_operations(
        ShotContext(
            solver,
            strategy.spec,
            stage(staged, "wavelet", problem.source_signal),
            edges,
            problem.sampling,
            data_cache_bytes(problem, session.layout, strategy),
            problem.windows,
            MisfitSpec.from_config(problem.config.inversion.misfit),
            session.stand_in,
            stage(staged, "processing", problem.processing),
        )
    )
