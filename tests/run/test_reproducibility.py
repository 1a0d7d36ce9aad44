"""Whether a run gives the same bytes as any other run of its problem is recorded over all its starts."""

from __future__ import annotations

import json

import pytest

from hpcfwi.run.folder import RunFolder
from hpcfwi.run.reproducibility import Reproducibility
from hpcfwi.solver.operators import result_fingerprint

KERNELS = {"compiler": "gcc 12.2.0", "language": "C, intel64", "devito": "4.8.23"}


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path / "run")


def test_machines_of_one_kind_give_the_same_bytes(folder):
    warnings = []
    here = Reproducibility(folder, warnings.append)
    for _ in range(2):
        here.add_machine("drivers", result_fingerprint())
        here.add_machine("workers", result_fingerprint(KERNELS))
    assert here.reasons == ""
    Reproducibility(folder, warnings.append).add_machine("workers", result_fingerprint(KERNELS))
    assert not warnings


@pytest.mark.parametrize("what", ["processor", "flags", "numpy", "compiler"])
def test_a_worker_of_another_kind_is_warned_of_once_also_at_a_later_start(folder, what):
    Reproducibility(folder).add_machine("workers", result_fingerprint(KERNELS))
    other = {**result_fingerprint(KERNELS), what: "another"}
    warnings = []
    later = Reproducibility(folder, warnings.append)
    later.add_machine("workers", other)
    (warning,) = warnings
    assert "can no longer be promised: its workers were machines of several kinds (" in warning
    assert later.reasons == "its workers were machines of several kinds"
    later.add_machine("workers", other)
    later.add_machine("workers", {**other, "processor": "a third"})
    assert len(warnings) == 1
    assert Reproducibility(folder).reasons == later.reasons


def test_a_driver_may_be_another_kind_of_machine_than_the_workers(folder):
    here = Reproducibility(folder)
    here.add_machine("drivers", {**result_fingerprint(), "processor": "another"})
    here.add_machine("workers", result_fingerprint(KERNELS))
    assert here.reasons == ""


def test_reasons_are_kept_and_warned_of_once(folder):
    warnings = []
    for _ in range(2):
        Reproducibility(folder, warnings.append).add_reason("several threads")
        Reproducibility(folder, warnings.append).add_reason("other versions", "other versions")
    assert Reproducibility(folder).reasons == "several threads; other versions"
    assert warnings == ["the same bytes can no longer be promised: other versions"]


@pytest.mark.parametrize("content", [{"reasons": 3, "workers": [1]}, {"drivers": {"a": {}}, "reasons": [None]}, {}])
def test_a_damaged_record_does_no_harm(folder, content):
    (folder.path / "reproducibility.json").write_text(json.dumps(content))
    here = Reproducibility(folder)
    here.add_reason("something")
    assert here.reasons.endswith("something")
