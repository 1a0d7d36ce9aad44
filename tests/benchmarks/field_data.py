"""Time and memory of a large survey in SEG-Y: the index of its headers, and the staging of its shots.

    python tests/benchmarks/field_data.py [--shots 5000] [--traces 2000] [--samples 25] [--files 10] [FOLDER]

writes the survey into FOLDER, unless it is there, and prints a table. Each step runs in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil

CONFIG = """
[grid]
shape = [{nx}, 41]
spacing = [100.0, 100.0]
[initial]
kind = "constant"
velocity = 2.0
[acquisition]
minimum_depth = 100.0
[data]
file = "line*.sgy"
staging = "{staging}"
[wavelet]
kind = "ricker"
peak_frequency = 2.0
delay = 20.0
[inversion]
iterations = 0
bounds = [1.5, 3.0]
[output]
figures = false
report = false
"""
SHOT_INTERVAL, RECEIVER_INTERVAL = 50, 25  # m
INDEX = """
import sys, time
from hpcfwi.config.run import load_run_config
from hpcfwi.model.problem import Problem
config, started = load_run_config(sys.argv[1]), time.perf_counter()
problem = Problem.from_config(config)
print(f"{time.perf_counter() - started:.1f}", int(problem.survey.receiver_counts.sum()))
"""


def write_survey(folder: Path, shots: int, traces: int, samples: int, files: int) -> None:
    """Write the survey: a spread of receivers ahead of each shot."""
    record = np.dtype([("header", ">i4", 60), ("samples", ">f4", samples)])
    binary = np.zeros(200, ">i2")
    binary[[8, 10, 12]] = 4000, samples, 5
    for number, own in enumerate(np.array_split(np.arange(shots), files), 1):
        with (folder / f"line{number}.sgy").open("wb") as file:
            file.write(b" " * 3200 + binary.tobytes())
            for shot in own:
                block = np.zeros(traces, record)
                header = block["header"]
                header[:, 2], header[:, 3] = shot + 1, np.arange(traces) + 1
                header[:, 18] = SHOT_INTERVAL * shot
                header[:, 20] = SHOT_INTERVAL * shot + RECEIVER_INTERVAL * np.arange(traces)
                block["samples"] = np.random.default_rng(shot).standard_normal((traces, samples))
                file.write(block.tobytes())


def measure(words: list[str], environment: dict[str, str]) -> dict[str, Any]:
    """Run a command; seconds, and the largest memory of its first process: all of it, and without mapped files, MB."""
    started, most, anonymous = time.perf_counter(), 0.0, 0.0
    process = subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True)
    while process.poll() is None:
        try:
            memory = psutil.Process(process.pid).memory_info()
            most, anonymous = max(most, memory.rss / 1e6), max(anonymous, (memory.rss - memory.shared) / 1e6)
        except psutil.Error:
            pass
        time.sleep(0.02)
    assert process.stdout is not None
    output = process.stdout.read()
    if process.returncode:
        raise SystemExit(f"{words} failed: {output}")
    return {"seconds": time.perf_counter() - started, "rss": most, "own": anonymous, "output": output}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path)
    for name, default in (("shots", 5000), ("traces", 2000), ("samples", 25), ("files", 10)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="hpcfwi-field-data-"))
    folder.mkdir(exist_ok=True)
    if not list(folder.glob("line*.sgy")):
        write_survey(folder, options.shots, options.traces, options.samples, options.files)
    size = sum(path.stat().st_size for path in folder.glob("line*.sgy"))
    length = SHOT_INTERVAL * options.shots + RECEIVER_INTERVAL * options.traces
    print(f"{options.shots} shots x {options.traces} traces x {options.samples} samples, {size / 1e9:.2f} GB")
    print(f"{'':34}{'seconds':>9}{'memory, MB':>12}{'of its own':>12}")
    for staging in ("copy", "in place"):
        config = folder / f"{staging.replace(' ', '-')}.toml"
        config.write_text(CONFIG.format(nx=length // 100 + 2, staging=staging))
        with tempfile.TemporaryDirectory(prefix="hpcfwi-cache-", dir=folder) as cache:
            environment = {**os.environ, "XDG_CACHE_HOME": cache}
            if staging == "copy":
                for what in ("index, headers read", "index, headers in the cache"):
                    found = measure([sys.executable, "-c", INDEX, str(config)], environment)
                    print(f"{what:34}{found['output'].split()[0]:>9}{found['rss']:12.0f}{found['own']:12.0f}")
            run = Path(cache) / "run"
            words = [sys.executable, "-m", "hpcfwi", "run", str(config), "--run-dir", str(run), "--stand-in", "0"]
            found = measure(words, environment)
            events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
            (staged,) = [event["seconds"] for event in events if event["event"] == "data staged"]
            disk = sum(path.stat().st_size for path in (run / "staged" / "shots").rglob("*.pkl"))
            print(
                f"{f'staging ({staging}, {disk / 1e9:.2f} GB)':34}{staged:9.1f}{found['rss']:12.0f}{found['own']:12.0f}"
            )
            print(f"{'  the whole command':34}{found['seconds']:9.1f}")


if __name__ == "__main__":
    main()
