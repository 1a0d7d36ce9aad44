"""Threads and CPUs of kernels as the operating system sees them, whatever the variables say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import zlib

import pytest

from hpcfwi.execution.affinity import format_ranges, observed_threads, parse_ranges

PROGRAM = """
import json
import numpy as np
from hpcfwi.model.grid import Domain
from hpcfwi.solver.operators import Propagator
from hpcfwi.solver.boundary import Sponge
from hpcfwi.solver.spec import SolverSpec
from hpcfwi.execution.affinity import observed_threads
from hpcfwi.solver.engine import DevitoEngine
from hpcfwi.model.grid import TimeAxis
from hpcfwi.model.survey import Shot
from hpcfwi.model.wavelet import RickerWavelet

samples = 600  # some ticks of the clock by which the system accounts
spec = SolverSpec(Sponge(Domain((301, 301), (10.0, 10.0), (0.0, 0.0)), 10), 8, "float32", samples, 4, 1)
engine = DevitoEngine(Propagator(spec), RickerWavelet(0.02, 50.0))
engine.set_model(np.full((301, 301), 0.25))
shot = Shot("0", np.array([100.0, 100.0]), np.array([[200.0, 100.0]])), TimeAxis(1.0, samples)
engine.record(*shot)
with observed_threads() as use:
    engine.record(*shot)
print(json.dumps([use.threads, len(use.cpus)]))
"""
TWO_CPUS, FIRST_CPU = len(os.sched_getaffinity(0)) >= 2, str(min(os.sched_getaffinity(0)))


def measured(prefix=(), **variables):
    """Threads, and the number of CPUs that they may use, of a kernel in a process with these variables."""
    words = [*prefix, sys.executable, "-c", PROGRAM]
    # threads that wait must not spin, which takes minutes where two of them share a CPU
    environment = {**os.environ, "DEVITO_LANGUAGE": "openmp", "OMP_WAIT_POLICY": "passive", **variables}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    return tuple(json.loads(done.stdout))


@pytest.mark.skipif(not TWO_CPUS, reason="this machine has one CPU")
def test_the_threads_that_run_kernels_are_counted():
    assert measured(OMP_NUM_THREADS="1")[0] == 1
    assert measured(OMP_NUM_THREADS="2")[0] == 2
    assert measured(OMP_NUM_THREADS="2", OMP_THREAD_LIMIT="1")[0] == 1


@pytest.mark.skipif(not TWO_CPUS, reason="this machine has one CPU")
@pytest.mark.parametrize(
    ("prefix", "places", "cpus"),
    [
        (["taskset", "--cpu-list", FIRST_CPU], {}, 1),
        pytest.param([], {"OMP_PLACES": f"{{{FIRST_CPU}}}", "OMP_PROC_BIND": "true"}, 1, marks=pytest.mark.slow),
        pytest.param([], {"OMP_PLACES": "cores", "OMP_PROC_BIND": "close"}, 2, marks=pytest.mark.slow),
    ],
    ids=["mask", "binding to one CPU", "binding to cores"],
)
def test_the_cpus_that_a_mask_or_a_binding_leaves_are_counted(prefix, places, cpus):
    assert measured(prefix, OMP_NUM_THREADS="2", **places) == (2, cpus)


def test_a_thread_that_only_waits_does_not_count():
    with observed_threads() as use:
        sum(i * i for i in range(300_000))
    assert use.threads == 1
    assert use.cpus == os.sched_getaffinity(0)


def test_a_busy_python_thread_does_not_count():
    """Workers receive and write while a shot runs; a short shot must not look like one of two threads."""
    data = bytes(20_000_000)
    begun, done = threading.Event(), threading.Event()

    def busy():
        while not done.is_set():
            zlib.crc32(data)  # without Python's lock
            begun.set()

    other = threading.Thread(target=busy)
    other.start()
    begun.wait()
    with observed_threads() as use:
        for _ in range(20):
            zlib.crc32(data)
    done.set()
    other.join()
    assert use.threads == 1


@pytest.mark.parametrize("some", [set(), {3}, {0, 1, 2, 3, 8}, {0, 2, 4}])
def test_ranges_are_parsed_as_they_were_formatted(some):
    assert parse_ranges(format_ranges(some)) == some


def test_consecutive_numbers_become_a_range():
    assert format_ranges({0, 1, 2, 3, 8, 10, 11}) == "0-3,8,10-11"
