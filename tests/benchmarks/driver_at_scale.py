"""What driver and scheduler themselves cost with many shots, many workers, large gradients. Prints a table.

    python tests/benchmarks/driver_at_scale.py [WHAT ...] [--smoke] [--json FILE] [--shots N] [--seconds S] ...

Shots cost nothing and workers are light ones, many to a process; the scheduler and the driver have processes of their own,
whose CPU time, traffic and memory are read. The driver is the real one: DaskExecutor with all that a session subscribes to,
and its events written to a log. Every sum is compared with NumPy's, to the byte. WHAT is one or more of these, by
default all of them:

- many: 5,000 shots on 500 workers, gradients of 8 kB; and the same with the scheduler in the driver's process, as in a run
- batched: the same, eight shots in a task
- large: 5,000 shots on 500 workers, gradients of 1 MB, sums kept on disk as by default
- tree: 200 and 400 shots of 8 s on 50 workers, gradients of 40 MB: how many of them there are at a time
- workers, models: fewer workers, and smaller models: what grows with both would be linear in their product
- idle: what a worker waits between two shots: long ones, of which it has one in hand, and short ones, of which it has more

Memory grows by the peak during the sum above what there was before it.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from fake_driver import Case, measured

from hpcfwi.cluster.environment import silence_dask

MANY = Case(5000, 500, 1000, kept=True)
LARGE = Case(5000, 500, 125_000, kept=True)
TREE = Case(200, 50, 5_000_000, seconds=8)
CASES = {
    "many": [MANY, replace(MANY, together=True)],
    "batched": [replace(MANY, batched=True), replace(MANY, together=True, batched=True)],
    "large": [LARGE],
    "tree": [TREE, replace(TREE, shots=400)],
    "workers": [replace(LARGE, shots=2000, workers=workers) for workers in (125, 250, 500)],
    "models": [replace(LARGE, shots=1000, workers=250, values=values) for values in (12_500, 125_000, 625_000)],
    "idle": [Case(shots, 2, 12_500, seconds=seconds) for shots, seconds in ((20, 1.5), (100, 0.3))],
}
SMOKE = {
    "many": [Case(100, 8, 1000, kept=True, wavelet=2000)],
    "batched": [Case(100, 8, 1000, kept=True, wavelet=2000, batched=True)],
    "tree": [Case(40, 4, 600_000, processes=1, seconds=0.1)],
}
CHANGES = {"shots": int, "workers": int, "values": int, "processes": int, "seconds": float, "wavelet": int}


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}" if value < 10_000 else f"{value:.0f}"
    return "-" if value is None else str(value)


def show(what: str, rows: list[dict[str, Any]]) -> None:
    """One column for each case."""
    print(what)
    for number, row in enumerate(rows, 1):
        print(f"  ({number}) {row['case']}")
    for name in [name for name in rows[0] if name != "case"]:
        print(f"  {name:<32}" + "".join(f"{_cell(row.get(name)):>12}" for row in rows))
    print(flush=True)


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", metavar="WHAT", help=", ".join(CASES))
    parser.add_argument("--smoke", action="store_true", help="small, in seconds")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    for name, kind in CHANGES.items():
        parser.add_argument(f"--{name}", type=kind, help="instead of a case's own")
    asked = parser.parse_args()
    cases = SMOKE if asked.smoke else CASES
    unknown = set(asked.what).difference(cases)
    if unknown:
        parser.error(f"there is no {unknown.pop()}; there are {', '.join(cases)}")
    silence_dask()  # here and in all processes that are started
    changes = {name: getattr(asked, name) for name in CHANGES if getattr(asked, name) is not None}
    found: dict[str, list[dict[str, Any]]] = {}
    for what in asked.what or cases:
        found[what] = [measured(replace(case, **changes)) for case in cases[what]]
        show(what, found[what])
    if asked.json is not None:
        asked.json.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
