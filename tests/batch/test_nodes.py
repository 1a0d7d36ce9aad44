"""The nodes of an allocation, from what the batch system tells."""

from __future__ import annotations

import os

import pytest

import hpcfwi.batch.nodes as nodes
from hpcfwi.batch.nodes import Node, PBSAllocation, SlurmAllocation, find_allocation
from hpcfwi.errors import InputError, RunError


@pytest.fixture
def answers(monkeypatch):
    """What commands print, by their name."""
    told = {}
    monkeypatch.setattr(nodes, "_lines", lambda *command: told[os.path.basename(command[0])])  # noqa: PTH119
    return told


def slurm(**variables):
    told = {"JOB_ID": "7", "JOB_NODELIST": "node[1-3]", **variables}
    return SlurmAllocation({f"SLURM_{name}": value for name, value in told.items()})


def test_slurm_nodes_of_different_size(answers):
    answers["scontrol"] = ["node1", "node2", "node3"]
    found = slurm(JOB_CPUS_PER_NODE="4(x2),2", MEM_PER_CPU="1000").nodes()
    assert found == [Node("node1", 4, 4000 * 2**20), Node("node2", 4, 4000 * 2**20), Node("node3", 2, 2000 * 2**20)]


@pytest.mark.parametrize(
    ("variables", "memory"), [({"MEM_PER_NODE": "500"}, 500 * 2**20), ({"MEM_PER_NODE": "0"}, None), ({}, None)]
)
def test_slurm_memory(answers, variables, memory):
    answers["scontrol"] = ["node1"]
    assert slurm(JOB_CPUS_PER_NODE="1", **variables).nodes() == [Node("node1", 1, memory)]


def test_a_shell_outside_of_its_allocation_is_told(answers):
    answers["scontrol"] = ["node1"]
    with pytest.raises(RunError, match="SLURM_JOB_CPUS_PER_NODE is not set in job 7"):
        slurm().nodes()


def pbs(tmp_path, *hosts):
    (tmp_path / "nodes").write_text("\n".join(hosts))
    return PBSAllocation({"PBS_JOBID": "7.login", "PBS_NODEFILE": str(tmp_path / "nodes")})


def test_pbs_counts_what_qstat_tells(answers, tmp_path):
    vnodes = "(node1[0]:ncpus=2:mem=1048576kb+node1[1]:ncpus=2:mem=1048576kb)+(node2:ncpus=3:mem=2gb)"
    answers["qstat"] = ["Job Id: 7.login", f"    exec_vnode = {vnodes[:40]}", f"\t{vnodes[40:]}"]
    found = pbs(tmp_path, "node1.site.org", "node1.site.org", "node2.site.org").nodes()
    assert found == [Node("node1.site.org", 4, 2 * 2**30), Node("node2.site.org", 3, 2 * 2**30)]


def test_pbs_counts_lines_where_qstat_tells_nothing(answers, tmp_path):
    answers["qstat"] = []
    assert pbs(tmp_path, "node1", "node2", "node1").nodes() == [Node("node1", 2), Node("node2", 1)]


def test_a_missing_nodefile_is_told(tmp_path):
    with pytest.raises(RunError, match=r"PBS_NODEFILE .* cannot be read"):
        PBSAllocation({"PBS_JOBID": "7", "PBS_NODEFILE": str(tmp_path / "none")}).nodes()


def test_outside_of_a_job_there_is_no_allocation():
    with pytest.raises(InputError, match="this is not inside a job"):
        find_allocation({})
