"""Shots keep the names of the acquisition system: in a survey from a spreadsheet, in exported gathers, events and results."""

from __future__ import annotations

import json

import pytest

NAMES = ["Süd 1", "A/1", "a$x_$b", '<b>&"q"', "-5", ".hidden", "x, y"]


@pytest.mark.slow
def test_gathers_of_any_name_are_exported_inverted_and_shown(hpcfwi, tmp_path):
    rows = ["Shot;Source_X;Source_Z;Receiver_X;Receiver_Z"]
    for i, name in enumerate(NAMES):
        quoted = '"' + name.replace('"', '""') + '"'
        rows += [f"{quoted};20,0;{100 * i},5;980;{50 * receiver}" for receiver in range(21)]
    (tmp_path / "geometry.csv").write_text("\r\n".join(rows), encoding="utf-8-sig", newline="")
    (tmp_path / "fwi.toml").write_text(CONFIG)
    made = hpcfwi("model", "fwi.toml", "--run-dir", "made")
    assert made.returncode == 0, made.stderr
    files = {path.stem for path in (tmp_path / "made/data").glob("*.npy")}
    assert files == {"S%C3%BCd%201", "A%2F1", "a%24x_%24b", "%3Cb%3E%26%22q%22", "%2D5", "%2Ehidden"}
    excluded = json.dumps(["x, y", ".hidden"])
    done = hpcfwi(
        "run", "fwi.toml", "--run-dir", "run", "--set", "data.file=made/data", "--set", f"data.exclude={excluded}"
    )
    assert done.returncode == 0, done.stderr
    assert "without 2 of its 7 shots (data.exclude: .hidden, x, y)" in done.stdout
    events = [json.loads(line) for line in (tmp_path / "run/events.jsonl").read_text().splitlines()]
    assert {event["shot"] for event in events if event["event"] == "shot"} == set(NAMES[:5])
    assert "cannot be drawn" not in done.stdout
    assert "&lt;b&gt;&amp;" in (tmp_path / "run/report.html").read_text(encoding="utf-8")


CONFIG = """
[grid]
shape = [101, 101]
spacing = [10.0, 10.0]
[model]
kind = "circle"
[initial]
kind = "constant"
velocity = 2.5
[data]
geometry = "geometry.csv"
recording_time = 1000.0
exclude = ["x, y"]
[wavelet]
kind = "ricker"
peak_frequency = 10.0
[solver]
space_order = 4
[inversion]
iterations = 1
bounds = [1.4, 4.0]
"""
