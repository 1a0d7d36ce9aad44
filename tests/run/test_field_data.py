"""Runs with field data: traces that are left out are told, counted and listed; other files or weights are another problem."""

from __future__ import annotations

import re

import numpy as np
import pytest
from field_files import FIELD, line, survey_fields, write_segy
from watching import logged_events

SOURCES = [(100.0, 0.0, 40.0), (300.0, 0.0, 40.0)]
FIELDS = survey_fields(SOURCES, [line(12, first=20)] * 2)
SETTINGS = ("inversion.iterations=1",)


@pytest.fixture
def survey(hpcfwi):
    """A survey with a dead trace, one with NaN, one outside the model, and one that the user's list kills."""
    values = np.random.default_rng(0).normal(size=(24, 76)) * np.exp(-np.linspace(0, 5, 76))
    values[3], values[15, 4] = 0, np.nan
    outside = np.asarray(FIELDS["GroupX"]).copy()
    outside[23] = 2000
    write_segy(hpcfwi.folder / "a.sgy", values, FIELDS | {"GroupX": outside}, interval_us=4000)
    (hpcfwi.folder / "w.csv").write_text("shot,trace,weight\n1,1,0\n2,2,0.5\n")
    traces = '[data.traces]\noutside = "drop"\nweights = "w.csv"\n'
    (hpcfwi.folder / "fwi.toml").write_text(FIELD + traces)
    return hpcfwi


def test_a_run_tells_what_it_leaves_out_and_refuses_other_weights_or_samples(survey):
    done = survey.run("run", *SETTINGS)
    assert "4 of 24 traces are left out (1 killed, 1 dead, 1 outside, 1 not finite); events.jsonl" in done.stdout
    assert "warning: data.traces: 1 of 24 traces are left out: they are outside the model" in done.stdout
    assert "2 shots, grouped by the position of the source and named by FieldRecord (byte 9)" in done.stdout
    events = logged_events(survey.folder / "run", "traces left out")
    assert {event["shot"]: event["reasons"] for event in events} == {
        "1": {"killed": "1", "dead": "4"},
        "2": {"outside": "12", "not finite": "4"},
    }
    assert (survey.folder / "run" / "model.npy").exists()
    report = (survey.folder / "run" / "report.html").read_text()
    section = report[report.index('<section id="traces">') :].partition("</section>")[0]
    rows = re.findall(r'<tr><td>(.*?)</td><td>(.*?)</td><td class="words">(.*?)</td></tr>', section)
    assert rows == [("1", "killed", "1"), ("1", "dead", "4"), ("2", "outside", "12"), ("2", "not finite", "4")]
    assert "1 killed, 1 dead, 1 outside, 1 not finite" in report
    words = ["run", "fwi.toml", "--run-dir", "run", "--set", "site.worker.threads=1", "--set", "inversion.iterations=2"]
    weights = survey.folder / "w.csv"
    before = weights.read_text()
    weights.write_text(before.replace("0.5", "0.25"))
    other = survey(*words)
    assert other.returncode == 2
    assert "run: holds a run of another problem:" in other.stderr
    assert "weights" in other.stderr
    weights.write_text(before)
    with (survey.folder / "a.sgy").open("r+b") as file:
        file.seek(3600 + 2 * (240 + 4 * 76) + 240)
        file.write(b"\x40\0\0\0")
    other = survey(*words)
    assert other.returncode == 2
    assert "Traceback" not in other.stderr
    assert "data.file: the record of shot 1 has changed since the run in" in other.stderr
