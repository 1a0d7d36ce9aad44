"""Watching a run: wait for something, read its events, and find out how fast this machine computes."""

from __future__ import annotations

import csv
import json
import math
import subprocess
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

__all__ = ["history", "logged_events", "options", "seconds_per_evaluation", "shots_for", "wait_until"]

# Every wait ends as soon as its condition holds; this only bounds a wait that fails.
PATIENCE_S = 300.0


def wait_until(
    condition: Callable[[], object],
    process: subprocess.Popen[str] | None = None,
    seconds: float = PATIENCE_S,
    every: float = 0.02,
) -> None:
    """Poll a condition until it holds; fail if the process ends before that, or after so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert process is None or process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s"
        time.sleep(every)


def options(*settings: str) -> list[str]:
    """``--set`` options of the command line."""
    return [word for setting in settings for word in ("--set", setting)]


def logged_events(run_dir: Path, *kinds: str) -> list[dict[str, Any]]:
    """Events of these kinds, or all, without half lines of a driver that writes or was killed; none without a log."""
    path = run_dir / "events.jsonl"
    found = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return [event for event in found if not kinds or event["event"] in kinds]


def history(run_dir: Path) -> list[tuple[str, str, str]]:
    """Iteration, evaluations and misfit of each row of ``history.csv``."""
    with (run_dir / "history.csv").open() as file:
        return [(row["iteration"], row["evaluations"], row["misfit"]) for row in csv.DictReader(file)]


def seconds_per_evaluation(run_dir: Path) -> float:
    """Seconds from one evaluation to the next in a run that is done; the first, for which workers start, does not count."""
    times = [event["time"] for event in logged_events(run_dir, "evaluation")]
    return median(later - earlier for earlier, later in pairwise(times))


def shots_for(run_dir: Path, seconds: float, evaluations: int, bounds: Sequence[int] = (16, 2000)) -> int:
    """Shots with which so many evaluations take about so many seconds here, as measured in a run with fewer of them."""
    shots = logged_events(run_dir, "start")[-1]["shots"]
    per_shot = seconds_per_evaluation(run_dir) / shots
    return min(max(math.ceil(seconds / (evaluations * per_shot)), bounds[0]), bounds[1])
