"""Processes of one node get cores of their own, where that can be known to be right."""

from __future__ import annotations

import pytest

import hpcfwi.execution.affinity as pinning
from hpcfwi.execution.affinity import assigned_cores, cores_of


def cores(count):
    return [(i,) for i in range(count)]


def all_shares(count, processes, threads):
    return [assigned_cores(cores(count), processes, threads, i) for i in range(processes)]


def test_a_full_node_is_divided_without_overlap():
    shares = all_shares(8, 4, 2)
    assert shares == [[(0,), (1,)], [(2,), (3,)], [(4,), (5,)], [(6,), (7,)]]


def test_processes_are_spread_over_a_node_that_is_not_full():
    assert all_shares(8, 3, 2) == [[(0,), (1,)], [(2,), (3,)], [(4,), (5,)]]
    assert all_shares(8, 2, 3) == [[(0,), (1,), (2,)], [(4,), (5,), (6,)]]


@pytest.mark.parametrize(("processes", "threads"), [(1, 1), (1, 4), (2, 2), (9, 1), (0, 0)])
def test_processes_are_not_pinned_to_cores_that_other_jobs_may_use(processes, threads):
    """Half of the cores or fewer: another job of the same kind may be there; more: they do not fit."""
    assert assigned_cores(cores(8), processes, threads, 0) == []


def test_hardware_threads_of_a_core_stay_together(tmp_path, monkeypatch):
    for cpu in range(4):
        folder = tmp_path / f"cpu{cpu}" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(f"{cpu % 2},{cpu % 2 + 2}\n")
    monkeypatch.setattr(pinning, "CPU_FOLDER", tmp_path)
    assert cores_of({0, 1, 2, 3}) == [(0, 2), (1, 3)]
    assert cores_of({1, 2}) == [(1,), (2,)]
