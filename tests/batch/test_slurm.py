"""Slurm's answers, as Slurm writes them."""

from __future__ import annotations

import pytest

from hpcfwi.batch.base import JobState, Node, Queue
from hpcfwi.batch.slurm import Slurm
from hpcfwi.errors import RunError


@pytest.mark.parametrize(
    ("line", "state", "never_starts"),
    [
        ("7|RUNNING|None|node1", "running", False),
        ("7|PENDING|Priority|", "pending", False),
        ("7|PENDING|PartitionConfig|", "pending", True),
        ("7|PENDING|AssocMaxCpuPerJobLimit|", "pending", True),
        ("7|PENDING|QOSMaxJobsPerUserLimit|", "pending", False),
        ("7|PENDING|Job's account not known, so it can't use this partition (debug allows geo)|", "pending", True),
        ("7|PENDING|Job's QOS not permitted to use this partition (boost allows boost not normal)|", "pending", True),
        ("7|CONFIGURING|None|node1", "pending", False),
        ("7|NODE_FAIL|NodeDown|node1", "ended", False),
        ("7|TIMEOUT|TimeLimit|node1", "ended", False),
        ("7|COMPLETING|None|node1", "ended", False),
    ],
)
def test_states_of_jobs(answer, line, state, never_starts):
    answer("squeue", f"{line}\n")
    found = Slurm().states(["7", "8"])
    assert found["7"].state == state
    assert Slurm().will_never_start(found["7"]) == never_starts
    assert found["8"] == JobState("ended", "gone")


def test_a_queue_has_a_name_and_a_star_if_it_is_the_default(answer):
    answer("sinfo", "debug*|up\nlong|drain\n")
    assert Slurm().queues() == [Queue("debug", True, True), Queue("long", False, False)]


def test_new_jobs_are_kept_away_from_nodes():
    assert Slurm().exclude_directives({"node2", "node1"}) == ["--exclude=node1,node2"]
    assert Slurm().exclude_directives(set()) == []


def in_a_job(**variables):
    known = {"JOB_ID": "7", "JOB_NODELIST": "node[1-3]", **variables}
    return Slurm({f"SLURM_{name}": value for name, value in known.items()})


def test_nodes_may_differ_in_size(answer):
    answer("scontrol", "node1\nnode2\nnode3\n")
    found = in_a_job(JOB_CPUS_PER_NODE="4(x2),2", MEM_PER_CPU="1000").nodes()
    assert found == [Node("node1", 4, 4000 * 2**20), Node("node2", 4, 4000 * 2**20), Node("node3", 2, 2000 * 2**20)]


@pytest.mark.parametrize(
    ("variables", "memory"), [({"MEM_PER_NODE": "500"}, 500 * 2**20), ({"MEM_PER_NODE": "0"}, None), ({}, None)]
)
def test_memory_of_a_node(answer, variables, memory):
    answer("scontrol", "node1\n")
    assert in_a_job(JOB_CPUS_PER_NODE="1", **variables).nodes() == [Node("node1", 1, memory)]


def test_a_shell_outside_its_allocation_is_an_error(answer):
    answer("scontrol", "node1\n")
    with pytest.raises(RunError, match="SLURM_JOB_CPUS_PER_NODE is not set in job 7"):
        in_a_job().nodes()
