"""A node is divided into worker processes as its site file says, or as the batch system reports."""

from __future__ import annotations

import json

import pytest

from hpcfwi.batch.base import Node
from hpcfwi.cluster.layout import Choice, ResourceRequest, allocated_layout, node_layout
from hpcfwi.config.site import Site, SiteConfig
from hpcfwi.errors import InputError

NEED = ResourceRequest(100, 10**8)
GB = 10**9


def site(**sections):
    return Site("ours", SiteConfig.model_validate_json(json.dumps(sections)))


@pytest.mark.parametrize(
    ("sections", "jobs", "layout"),
    [
        ({"node": {"cores": 64, "memory": 100}}, 1, (64, 1)),
        ({"node": {"cores": 64, "memory": 100}}, 10, (10, 6)),
        ({"node": {"cores": 64, "memory": 5}}, 1, (14, 4)),
        ({"node": {"cores": 64, "memory": 100}, "worker": {"threads": 4}}, 1, (16, 4)),
        ({"node": {"cores": 64, "memory": 100}, "worker": {"memory": 10.0}}, 1, (10, 6)),
        ({"worker": {"processes": 2, "threads": 3, "memory": 1.0}}, 1, (2, 3)),
    ],
)
def test_a_node_is_divided_as_its_site_says(sections, jobs, layout):
    found = node_layout(site(**sections), NEED, jobs)
    assert (found.processes, found.threads) == layout


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({}, 'worker.processes: is "auto", but node.cores is not set'),
        ({"worker": {"processes": 1, "threads": 1}}, 'worker.memory: is "auto", but node.cores is not set'),
        ({"node": {"cores": 4, "memory": 0.3}}, "one shot needs 0.35 GB, a node of ours has 0.30 GB"),
        ({"node": {"cores": 4, "memory": 1}, "worker": {"processes": 3}}, "is 3; each needs 0.35 GB"),
    ],
)
def test_a_site_with_too_few_settings_or_resources_is_refused(sections, message):
    with pytest.raises(InputError, match=message):
        node_layout(site(**sections), NEED, 1)


@pytest.mark.parametrize(
    ("sections", "node", "layout"),
    [
        ({}, Node("n", 8, 16 * GB), (8, 1)),
        ({"node": {"hardware_threads": 2}}, Node("n", 8, 16 * GB), (4, 1)),
        ({"node": {"memory": 1.0}}, Node("n", 8), (2, 4)),
        ({"worker": {"memory": 1.0}}, Node("n", 8), (8, 1)),
    ],
)
def test_a_node_of_an_allocation_is_divided_by_what_the_job_has_there(sections, node, layout):
    found = allocated_layout(site(**sections), node, NEED)
    assert (found.processes, found.threads) == layout


def test_a_node_of_unknown_memory_is_refused():
    with pytest.raises(InputError, match=r"does not report the memory of n; set node\.memory or"):
        allocated_layout(site(), Node("n", 8), NEED)


def test_more_threads_than_the_job_has_cores_are_refused():
    with pytest.raises(
        InputError, match=r"site\.worker\.threads: 1 process of 9 threads needs 9 cores, the job has 8 on n"
    ):
        allocated_layout(site(worker={"threads": 9}), Node("n", 8, 16 * GB), NEED)


def test_more_processes_than_the_job_has_cores_are_refused():
    with pytest.raises(InputError, match="3 processes of 4 threads need 12 cores, the job has 8 on n"):
        allocated_layout(site(worker={"processes": 3, "threads": 4}), Node("n", 8, 16 * GB), NEED)


@pytest.mark.parametrize(
    ("limit", "advice"),
    [
        ("auto", ["It fits with --set b"]),
        (1.5, ["It fits with --set site.worker.memory=4.59", "It fits with --set a"]),
        (0.5, ["It fits with --set site.worker.memory=4.59"]),
    ],
)
def test_a_shot_that_does_not_fit_gets_the_first_advice_that_helps(limit, advice):
    savings = (("--set c", 4 * GB), ("--set a", 1 * GB), ("--set b", GB // 2))
    savings = savings if limit != "auto" else (("--set c", 4 * GB), ("--set b", 2 * GB))
    node = Node("n", 1, (3 if limit == "auto" else 16) * GB)
    with pytest.raises(InputError) as refused:
        allocated_layout(site(worker={"memory": limit}), node, ResourceRequest(1, 4 * GB, lambda: savings))
    _, *found = str(refused.value).split("\n  ")
    assert found == advice


WAYS = ResourceRequest(
    100, GB, choices=(Choice("large", 8 * GB), Choice("medium", 4 * GB, 1.05), Choice("small", GB, 1.5))
)


@pytest.mark.parametrize(
    ("memory", "chosen"),
    [
        (100, "large"),  # for all eight cores
        (64, "medium"),  # seven large ones are slower than eight medium ones
        (20, "medium"),
        (9, "small"),
        (1.5, "small"),
    ],
)
def test_the_choice_is_taken_that_computes_most_shots(memory, chosen):
    layout = node_layout(site(node={"cores": 8, "memory": memory}), WAYS, 1)
    assert layout.choice is not None
    assert layout.choice.name == chosen
    assert layout.memory >= layout.choice.shot_bytes


def test_a_request_that_does_not_fit_is_refused_for_its_smallest_choice():
    with pytest.raises(InputError, match=r"one shot needs 1\.33 GB, a node of ours has 1\.20 GB"):
        node_layout(site(node={"cores": 8, "memory": 1.2}), WAYS, 1)


def test_a_limit_of_a_worker_decides_among_the_choices():
    layout = node_layout(site(node={"cores": 8, "memory": 100}, worker={"memory": 5}), WAYS, 1)
    assert layout.choice is not None
    assert layout.choice.name == "medium"
