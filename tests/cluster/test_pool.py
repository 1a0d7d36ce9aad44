"""How workers are started follows from the site and from where we are, unless the user says otherwise."""

from __future__ import annotations

import json

import pytest

from hpcfwi.cluster.layout import ResourceRequest
from hpcfwi.cluster.pool import Listener, choose_launch_mode, launch
from hpcfwi.config.site import LaunchOptions, Site, SiteConfig, load_site
from hpcfwi.errors import InputError, RunError

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
def test_the_launch_mode_depends_on_site_and_environment(name, environment, way):
    assert choose_launch_mode(load_site(name), None, environment)[0] == way


def test_the_user_may_request_a_possible_launch_mode():
    assert choose_launch_mode(load_site("generic-slurm"), "jobs", INSIDE)[0] == "jobs"
    assert choose_launch_mode(load_site("generic-slurm"), "local", {})[0] == "local"
    with pytest.raises(InputError, match="--launch jobs: the site workstation has no batch system"):
        choose_launch_mode(load_site("workstation"), "jobs", {})
    with pytest.raises(InputError, match="--launch allocation: this process does not run in a job"):
        choose_launch_mode(load_site("generic-slurm"), "allocation", {})
    closed = site(scheduler={"kind": "slurm", "submit_from_compute": False})
    with pytest.raises(InputError, match="does not allow jobs to be submitted from within a job"):
        choose_launch_mode(closed, "jobs", INSIDE)


def test_local_workers_are_on_one_node(tmp_path):
    with pytest.raises(InputError, match="--nodes 2: the workers are processes of this machine"):
        launch(load_site("workstation"), NEED, tmp_path, LaunchOptions(nodes=2))


def test_the_time_to_wait_for_a_worker_holds_for_local_workers(tmp_path):
    pool = launch(load_site("workstation"), NEED, tmp_path, LaunchOptions(wait_minutes=2))
    pool.check(119)
    with pytest.raises(RunError, match="no worker has been connected for 120 s"):
        pool.check(121)


def test_a_pool_that_cannot_end_its_workers_says_so(tmp_path, monkeypatch):
    shown = []
    pool = launch(load_site("workstation"), NEED, tmp_path, LaunchOptions(), Listener(shown.append))
    monkeypatch.setattr(pool, "_start", lambda: "a cluster")
    with pool:  # a string cannot be closed
        assert pool.cluster() == "a cluster"
    assert shown[-1].startswith("the workers could not be ended (AttributeError:")
