"""What a shot costs the driver and the scheduler, in bytes: the benchmark at its smallest."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "driver_at_scale.py"


def test_few_bytes_of_a_shot_reach_the_scheduler_whatever_the_size_of_its_gradient(tmp_path):
    figures = tmp_path / "figures.json"
    subprocess.run(
        [sys.executable, str(BENCHMARK), "many", "tree", "--smoke", "--json", str(figures)], check=True, timeout=500
    )
    found = json.loads(figures.read_text())
    assert all(row["right"] for rows in found.values() for row in rows)
    (many,), (tree,) = found["many"], found["tree"]
    # what is large and common to all shots, here a wavelet of 2,000 samples, is in a staged file
    assert many["driver sends, B/shot"] < 3000
    # the root alone comes to the driver
    gradient = 1e6 * tree["all gradients, MB"] / 40
    assert 40 * tree["driver receives, B/shot"] < 1.2 * gradient
    assert tree["driver sends, B/shot"] < 3000
    # parts are let go as soon as they are in a sum
    assert tree["parts held at most"] < 30
