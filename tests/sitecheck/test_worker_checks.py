"""Checks inside real workers on this machine."""

from __future__ import annotations

import os
import time

import pytest
from distributed import Client

from hpcfwi.cluster.dask_internals import worker_infos
from hpcfwi.cluster.layout import Layout
from hpcfwi.cluster.local import LocalWorkers
from hpcfwi.cluster.pool import Workload
from hpcfwi.config.site import load_site
from hpcfwi.errors import RunError
from hpcfwi.execution.affinity import PRELOAD_MODULES
from hpcfwi.sitecheck.probe import probe_spec
from hpcfwi.sitecheck.worker_checks import WorkerChecks, check_workers
from hpcfwi.solver.operators import stage_solver

LAYOUT = Layout(1, 1, 2 * 10**9)


@pytest.fixture(scope="module")
def local():
    with (
        LocalWorkers(LAYOUT, workload=Workload(PRELOAD_MODULES)) as workers,
        Client(workers.cluster(), set_as_default=False) as client,
    ):
        client.wait_for_workers(1)
        yield client


def checks_of(client, folder, layouts, *settings):
    (folder / "shared").mkdir()
    staged, _ = stage_solver(folder / "staged", probe_spec(1))
    return WorkerChecks(load_site("generic-slurm", settings), client, folder, staged, 1, layouts)


def test_everything_is_checked_and_differences_from_the_site_file_are_problems(local, tmp_path, monkeypatch):
    monkeypatch.setattr("hpcfwi.sitecheck.worker_checks.JOIN_TIMEOUT_S", 0.1)
    expected = Layout(2, 1, 20 * 10**12)
    sections = checks_of(local, tmp_path, {"elsewhere": expected, "nowhere": expected}).sections(3.0)
    here = {finding.name: finding for finding in sections[0].findings}
    assert {name for name, finding in here.items() if finding.verdict == "problem"} == {
        "processes",
        "encryption",
        "memory",
    }
    assert "1 of 2 processes of 1 thread" in here["processes"].found
    assert "is not encrypted, though network.tls is set" in here["encryption"].found
    assert "the driver's kernels can be used" in here["instructions"].found
    (other,) = sections[1].findings
    assert other.found == "no workers joined from 1 of 2 nodes"


def test_a_worker_that_fails_or_dies_during_the_check_is_named(local, tmp_path):
    checks = checks_of(local, tmp_path, {"": LAYOUT}, "network.tls=false")
    (address,) = worker_infos(checks.client)
    assert checks._call([address], time.time)[0] > 0
    with pytest.raises(RunError, match="int: ValueError"):
        checks._call([address], int, "no number")
    with pytest.raises(RunError, match="died during the check \\(abort\\)"):
        checks._call([address], os.abort)


def test_a_folder_that_cannot_be_created_is_a_row(tmp_path):
    (tmp_path / "file").write_text("")
    site = load_site("generic-slurm", [f"filesystem.runs={tmp_path}/file/runs"])
    ((row,),) = (section.findings for section in check_workers(site, None, None, print))
    assert row.verdict == "problem"
    assert "Not a directory" in row.found
