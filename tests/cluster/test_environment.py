"""Which code Devito generates in driver and workers, and who decides."""

from __future__ import annotations

import pytest

import hpcfwi.cluster.environment as environment
from hpcfwi.cluster.allocation import AllocatedWorkers
from hpcfwi.cluster.environment import apply_environment, worker_environment
from hpcfwi.cluster.layout import Need
from hpcfwi.cluster.nodes import Node
from hpcfwi.config.site import Site, SiteConfig

LANGUAGE = "DEVITO_LANGUAGE"


@pytest.fixture(autouse=True)
def nobody_has_chosen(monkeypatch):
    monkeypatch.delenv(LANGUAGE, raising=False)
    monkeypatch.setattr(environment, "_set_by_us", {})


def config(**devito):
    return SiteConfig.model_validate({"devito": devito})


@pytest.mark.parametrize(("threads", "language"), [(1, "C"), (2, "openmp"), (64, "openmp")])
def test_openmp_is_for_workers_of_several_threads(threads, language):
    assert worker_environment(threads)[LANGUAGE] == language
    assert worker_environment(threads, config(language="openmp"))[LANGUAGE] == "openmp"
    assert worker_environment(threads, config(language="C"))[LANGUAGE] == "C"


def test_what_the_user_has_set_holds(monkeypatch):
    monkeypatch.setenv(LANGUAGE, "openmp")
    apply_environment(config(language="C"), threads=1)
    assert environment.os.environ[LANGUAGE] == "openmp"
    assert worker_environment(1)[LANGUAGE] == "openmp"


def test_an_earlier_run_of_this_process_does_not_decide(monkeypatch):
    monkeypatch.setenv(LANGUAGE, "")  # so that what is set here is taken back
    monkeypatch.delenv(LANGUAGE)
    apply_environment(threads=1)
    assert environment.os.environ[LANGUAGE] == "C"
    assert worker_environment(4)[LANGUAGE] == "openmp"
    apply_environment(threads=4)
    assert environment.os.environ[LANGUAGE] == "openmp"


def test_nodes_of_different_size_generate_the_same_code(monkeypatch, tmp_path):
    class Two:
        job = "7"

        def nodes(self):
            return [Node("large.cluster", 8, 16 * 10**9), Node("small.cluster", 4, 16 * 10**9)]

    monkeypatch.setattr("hpcfwi.cluster.allocation.find_allocation", Two)
    workers = AllocatedWorkers.from_environment(Site(), Need(8, 10**8), tmp_path, listener=None)
    assert (workers.threads_on("large"), workers.threads_on("small"), workers.threads) == (2, 1, 2)
    assert worker_environment(1, workers.site.config)[LANGUAGE] == "openmp"
    alike = AllocatedWorkers.from_environment(Site(), Need(80, 10**8), tmp_path, listener=None)
    assert (alike.threads_on("large"), alike.threads_on("small"), alike.threads) == (1, 1, 1)
    assert worker_environment(1, alike.site.config)[LANGUAGE] == "C"
