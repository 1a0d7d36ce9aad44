"""Which code Devito generates in driver and workers, and who decides."""

from __future__ import annotations

import os

import pytest

from hpcfwi.batch.base import Node
from hpcfwi.batch.slurm import Slurm
from hpcfwi.cluster.allocation import AllocatedWorkers
from hpcfwi.cluster.environment import apply_environment, restore_environment, worker_environment
from hpcfwi.cluster.layout import Choice, ResourceRequest
from hpcfwi.config.site import Site, SiteConfig

LANGUAGE = "DEVITO_LANGUAGE"


def config(**devito):
    return SiteConfig.model_validate({"devito": devito})


@pytest.mark.parametrize(("threads", "language"), [(1, "C"), (2, "openmp"), (64, "openmp")])
def test_only_workers_of_several_threads_use_openmp(threads, language):
    assert worker_environment(threads)[LANGUAGE] == language
    assert worker_environment(threads, config(language="openmp"))[LANGUAGE] == "openmp"
    assert worker_environment(threads, config(language="C"))[LANGUAGE] == "C"


def test_variables_set_by_the_user_take_precedence():
    os.environ[LANGUAGE] = "openmp"
    apply_environment(config(language="C"), threads=1)
    assert os.environ[LANGUAGE] == "openmp"
    assert worker_environment(1)[LANGUAGE] == "openmp"


def test_variables_are_restored_afterwards():
    os.environ["OMP_NUM_THREADS"] = "7"
    before = dict(os.environ)
    with restore_environment():
        apply_environment(threads=1)
        os.environ["OMP_NUM_THREADS"] = "1"
        del os.environ["PATH"]
        assert os.environ[LANGUAGE] == "C"
    assert dict(os.environ) == before
    assert worker_environment(4)[LANGUAGE] == "openmp"


def test_nodes_of_different_size_generate_the_same_code(monkeypatch, tmp_path):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    nodes = [Node("large.cluster", 8, 16 * 10**9), Node("small.cluster", 4, 16 * 10**9)]
    monkeypatch.setattr(Slurm, "nodes", lambda _: nodes)
    workers = AllocatedWorkers(Site(), ResourceRequest(8, 10**8), tmp_path)
    assert (workers.threads_on("large"), workers.threads_on("small"), workers.threads) == (2, 1, 2)
    apply_environment(threads=workers.threads)
    assert worker_environment(workers.threads_on("small"))[LANGUAGE] == "openmp"
    alike = AllocatedWorkers(Site(), ResourceRequest(80, 10**8), tmp_path)
    assert (alike.threads_on("large"), alike.threads_on("small"), alike.threads) == (1, 1, 1)


def test_nodes_of_different_memory_compute_shots_in_the_same_way(monkeypatch, tmp_path):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    nodes = [Node("large.cluster", 4, 64 * 10**9), Node("small.cluster", 4, 8 * 10**9)]
    monkeypatch.setattr(Slurm, "nodes", lambda _: nodes)
    choices = (Choice("fast", 8 * 10**9), Choice("slow", 10**9, 1.5))
    workers = AllocatedWorkers(Site(), ResourceRequest(8, 10**9, choices=choices), tmp_path)
    assert {layout.choice.name for layout in workers.layouts.values() if layout.choice} == {"slow"}
    assert workers.layout.choice == choices[1]
    assert workers.layout.memory == min(layout.memory for layout in workers.layouts.values())
