"""How workers are started follows from the site and from where we are, unless the user says otherwise."""

from __future__ import annotations

import json

import pytest

from hpcfwi.cluster.layout import ResourceRequest, node_layout
from hpcfwi.cluster.pool import choose_launch_mode, launch
from hpcfwi.config.site import LaunchOptions, Site, SiteConfig, load_site
from hpcfwi.errors import InputError

NEED = ResourceRequest(100, 10**8)
INSIDE = {"SLURM_JOB_ID": "7"}


def site(**sections):
    return Site("ours", SiteConfig.model_validate_json(json.dumps(sections)))


@pytest.mark.parametrize(
    ("name", "environment", "way"),
    [
        ("workstation", {}, "local"),
        ("workstation", INSIDE, "local"),
        ("generic-slurm", {}, "jobs"),
        ("generic-slurm", INSIDE, "allocation"),
        ("generic-pbs", {"PBS_JOBID": "7.login"}, "allocation"),
    ],
)
def test_the_way_is_chosen(name, environment, way):
    assert choose_launch_mode(load_site(name), None, environment)[0] == way


def test_the_user_may_choose_what_can_be():
    assert choose_launch_mode(load_site("generic-slurm"), "jobs", INSIDE)[0] == "jobs"
    assert choose_launch_mode(load_site("generic-slurm"), "local", {})[0] == "local"
    with pytest.raises(InputError, match="--launch jobs: the site workstation has no batch system"):
        choose_launch_mode(load_site("workstation"), "jobs", {})
    with pytest.raises(InputError, match="--launch allocation: this is not inside a job"):
        choose_launch_mode(load_site("generic-slurm"), "allocation", {})
    closed = site(scheduler={"kind": "slurm", "submit_from_compute": False})
    with pytest.raises(InputError, match="lets no jobs be submitted from within a job"):
        choose_launch_mode(closed, "jobs", INSIDE)


def test_local_workers_are_on_one_node(tmp_path):
    with pytest.raises(InputError, match="--nodes 2: the workers are processes of this machine"):
        launch(load_site("workstation"), NEED, tmp_path, LaunchOptions(nodes=2))


@pytest.mark.parametrize(
    ("sections", "jobs", "layout"),
    [
        ({"node": {"cores": 64, "memory": 100}}, 1, (64, 1)),
        ({"node": {"cores": 64, "memory": 100}}, 10, (10, 6)),
        ({"node": {"cores": 64, "memory": 5}}, 1, (10, 6)),
        ({"node": {"cores": 64, "memory": 100}, "worker": {"threads": 4}}, 1, (16, 4)),
        ({"node": {"cores": 64, "memory": 100}, "worker": {"memory": 10.0}}, 1, (10, 6)),
        ({"worker": {"processes": 2, "threads": 3, "memory": 1.0}}, 1, (2, 3)),
    ],
)
def test_a_node_is_divided_as_its_site_says(sections, jobs, layout):
    found = node_layout(site(**sections), NEED, jobs)
    assert (found.processes, found.threads) == layout


@pytest.mark.parametrize(
    ("sections", "told"),
    [
        ({}, 'worker.processes: is "auto", but node.cores is not set'),
        ({"worker": {"processes": 1, "threads": 1}}, 'worker.memory: is "auto", but node.cores is not set'),
        ({"node": {"cores": 4, "memory": 0.4}}, "one shot needs 0.50 GB, a node of ours has 0.40 GB"),
        ({"node": {"cores": 4, "memory": 1}, "worker": {"processes": 3}}, "is 3, each of which needs 0.50 GB"),
    ],
)
def test_what_a_site_does_not_say_or_give_is_told(sections, told):
    with pytest.raises(InputError, match=told):
        node_layout(site(**sections), NEED, 1)
