"""Whether the bytes are those of every run of the problem is told, over all starts of a run."""

from __future__ import annotations

import json

import pytest

from hpcfwi.run.folder import RunFolder
from hpcfwi.run.reproducibility import DRIVERS, WORKERS, Reproducibility
from hpcfwi.solver.operators import result_fingerprint

KERNELS = {"compiler": "gcc 12.2.0", "language": "C, intel64", "devito": "4.8.23"}


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path / "run")


def test_nothing_speaks_against_machines_of_one_kind(folder):
    here = Reproducibility(folder)
    for _ in range(2):
        assert here.machine(DRIVERS, result_fingerprint()) == ""
        assert here.machine(WORKERS, result_fingerprint(KERNELS)) == ""
    assert here.against == ""
    assert Reproducibility(folder).machine(WORKERS, result_fingerprint(KERNELS)) == ""


@pytest.mark.parametrize("what", ["processor", "flags", "numpy", "compiler"])
def test_a_worker_of_another_kind_is_told_once_also_at_a_later_start(folder, what):
    Reproducibility(folder).machine(WORKERS, result_fingerprint(KERNELS))
    other = {**result_fingerprint(KERNELS), what: "another"}
    later = Reproducibility(folder)
    reason = later.machine(WORKERS, other)
    assert reason.startswith("its workers were machines of several kinds (")
    assert later.against == "its workers were machines of several kinds"
    assert later.machine(WORKERS, other) == ""
    # a third one is nothing new
    assert later.machine(WORKERS, {**other, "processor": "a third"}) == ""
    assert Reproducibility(folder).against == later.against


def test_a_driver_may_be_another_kind_of_machine_than_the_workers(folder):
    here = Reproducibility(folder)
    here.machine(DRIVERS, {**result_fingerprint(), "processor": "another"})
    here.machine(WORKERS, result_fingerprint(KERNELS))
    assert here.against == ""


def test_reasons_are_kept_and_told_once(folder):
    assert Reproducibility(folder).because("several threads")
    assert not Reproducibility(folder).because("several threads")
    assert Reproducibility(folder).because("other versions")
    assert Reproducibility(folder).against == "several threads; other versions"


@pytest.mark.parametrize("content", [{"reasons": 3, "workers": [1]}, {"drivers": {"a": {}}, "reasons": [None]}, {}])
def test_what_somebody_else_wrote_there_does_no_harm(folder, content):
    (folder.path / "reproducibility.json").write_text(json.dumps(content))
    here = Reproducibility(folder)
    assert here.because("something")
    assert here.against.endswith("something")
