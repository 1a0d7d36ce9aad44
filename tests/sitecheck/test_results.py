"""Verdicts on facts that this machine does not have."""

from __future__ import annotations

import pytest

from hpcfwi.cluster.network import CLOCK_SKEW
from hpcfwi.config.site import Site
from hpcfwi.sitecheck.results import (
    Finding,
    Section,
    clock_finding,
    findings_table,
    has_problem,
    instructions_finding,
    kernels_finding,
    problem,
    staged_finding,
    target_finding,
    threads_finding,
    versions_finding,
    warning,
)
from hpcfwi.sitecheck.storage import shared_verdict

HERE = {"processor": "AMD EPYC", "flags": "12ab", "compiler": "gcc 12.2"}
BUILT = {"error": "", "fingerprint": HERE, "build_seconds": 1.0, "sound": True, "seconds": 0.001}
STAGED = {"source": "staged", "sound": True, "seconds": 0.001}
DIFFERS = ["flags: 12ab, here 34cd"]


@pytest.mark.parametrize(
    ("skew", "verdict"),
    [(0.1, "ok"), (-59.0, "ok"), (61.0, "warning"), (-3600.0, "warning"), (43200.0, "problem"), (-90000.0, "problem")],
)
def test_clocks_may_differ_by_half_of_what_certificates_accept(skew, verdict):
    assert CLOCK_SKEW.total_seconds() == 86400
    found = clock_finding(skew, 0.01)
    assert found.verdict == verdict
    assert f"{skew:+.3f} s from the driver's" in found.found


def test_other_versions_are_a_problem():
    here = {"python": "3.11.2", "dask": "2026.8.0"}
    assert versions_finding(here, here).verdict == "ok"
    found = versions_finding(here, {"python": "3.12.1"})
    assert found.verdict == "problem"
    assert found.found == "python 3.12.1 (driver: 3.11.2); dask none (driver: 2026.8.0)"


def test_another_processor_is_a_warning_with_a_compiler_and_a_problem_without():
    assert instructions_finding(BUILT, [], None).verdict == "ok"
    found = instructions_finding(BUILT, DIFFERS, None)
    assert found.verdict == "warning"
    assert "flags: 12ab, here 34cd" in found.found
    assert "set devito.target to an instruction set of both processors" in found.advice
    found = instructions_finding({"error": "", "fingerprint": HERE | {"compiler": "none"}}, DIFFERS, "znver3")
    assert found.verdict == "problem"
    assert "(it is znver3)" in found.advice
    assert instructions_finding({"error": "no answer"}, [], None).verdict == "warning"


def test_the_target_of_the_kernels_is_shown():
    assert "compiled for this processor" in target_finding(BUILT, None).found
    assert "compiled for znver3 (devito.target)" in target_finding(BUILT, "znver3").found
    assert target_finding({"error": "no answer"}, None).verdict == "warning"


def test_kernels_that_compute_wrong_numbers_are_a_problem_on_both_sides():
    assert kernels_finding(BUILT).verdict == "ok"
    assert kernels_finding(BUILT | {"sound": False}).verdict == "problem"
    assert staged_finding(BUILT, [STAGED, STAGED | {"sound": False}]).verdict == "problem"


def test_a_node_needs_no_compiler():
    assert "the staged kernels run" in staged_finding(BUILT, [STAGED]).found
    assert "its own kernels run" in staged_finding(BUILT, [STAGED | {"source": "rebuilt"}]).found
    found = staged_finding({"error": "", "fingerprint": {"compiler": "none"}}, [STAGED])
    assert (found.verdict, found.found) == ("ok", "no compiler here; the staged kernels run, 20 steps take 1.0 ms")
    assert staged_finding({"error": "no room"}, [STAGED]).verdict == "warning"


def test_threads_of_all_processes_of_a_host_are_judged_together():
    def found(*uses, threads=1):
        return threads_finding(Site(), threads, "node1", [(f"worker{i}", *use) for i, use in enumerate(uses)])

    assert found((2, "0-1"), threads=2) == Finding("threads", "2 threads on CPU 0-1")
    assert found((1, "0"), (1, "1")).found == "2 processes of 1 thread on CPU 0-1, each on its own CPUs"
    assert found((1, "0-1"), (1, "0-1")).found == "2 processes of 1 thread on CPU 0-1, each on any of these CPUs"
    shared = found((1, "0"), (1, "0"))
    assert shared.verdict == "problem"
    assert "on node1 2 workers whose thread count is 1 share CPU 0" in shared.found
    wrong = found((1, "0-3"), (2, "4-7"), threads=2)
    assert wrong.verdict == "problem"
    assert "on node1 the kernel thread count is 1, not 2" in wrong.found
    assert found((0, ""), (1, "0")).verdict == "warning"


def test_files_that_the_other_side_sees_late_or_never_are_a_problem():
    assert shared_verdict("/runs", 0.0, 0.5, 0.0).verdict == "ok"
    assert "the worker does not see" in shared_verdict("/runs", None, None, None).found
    assert "the driver does not see" in shared_verdict("/runs", 0.0, 0.0, None).found
    late = shared_verdict("/runs", 2.0, 0.0, 0.0)
    assert (late.verdict, late.found) == ("problem", "new files appear only after 2.00 s")
    assert shared_verdict("/runs", 0.0, None, 0.0).verdict == "warning"


def test_a_problem_counts_and_a_warning_does_not():
    rows = Finding("a", "b"), warning("c", "d", "e")
    assert not has_problem([Section("here", rows)])
    assert has_problem([Section("here", rows), Section("there", (problem("f", "g", "h"),))])
    assert findings_table(Section("here", rows)).row_count == 2
