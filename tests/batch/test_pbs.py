"""PBS's answers, as OpenPBS and Slurm's front end for users of Torque write them."""

from __future__ import annotations

import time

import pytest

from hpcfwi.batch.base import JobState, Node, Queue
from hpcfwi.batch.pbs import PBS, job_attributes
from hpcfwi.errors import RunError

# OpenPBS 23.06: a long value continues after a tab; an ended job is missing from the answer, and makes qstat fail.
OPENPBS = """Job Id: 12.login
    Job_Name = hpcfwi-circle
    job_state = R
    exec_host = node1/0*2+node2/0*2
    comment = Job run at Tue Nov 24 at 06:33 on (node1:ncpus=2:mem=1952768kb)
\t+(node2:ncpus=2:mem=1952768kb)

Job Id: 13.login
    Job_Name = hpcfwi-circle
    job_state = Q
    comment = Can Never Run: Insufficient amount of resource: mem (R: 66757mb A:
\t24gb T: 24gb)
"""
# Slurm's front end indents by tabs.
TORQUE = "Job Id:\t14\n\tJob_Name = test\n\tjob_state = C\n\texec_host = node1/1\n\nJob Id:\t15\n\tjob_state = H\n"
OPENPBS_QUEUES = """Queue: workq
    queue_type = Execution
    enabled = True
    started = True

Queue: old
    enabled = False

"""
TORQUE_QUEUES = "Queue:\tdebug\n\tqueue_type = Execution\n\tenabled = yes\n\tstarted = yes\n\n"


def test_states_of_jobs_of_openpbs(answer):
    answer("qstat", OPENPBS, "qstat: 11.login Job has finished", 35)
    found = PBS().states(["11.login", "12.login", "13.login"])
    assert found["11.login"] == JobState("ended", "gone")
    assert (found["12.login"].state, found["12.login"].nodes) == ("running", "node1+node2")
    assert found["13.login"].state == "pending"
    assert found["13.login"].reason.endswith("(R: 66757mb A:24gb T: 24gb)")
    assert PBS().will_never_start(found["13.login"])
    assert PBS().site_key(found["13.login"].reason) == "worker.memory"
    assert not PBS().will_never_start(found["12.login"])


def test_states_of_jobs_of_torque(answer):
    answer("qstat", TORQUE)
    found = PBS().states(["14", "15"])
    assert [found[job].state for job in ("14", "15")] == ["ended", "pending"]


def test_queues(answer):
    answer("qstat", OPENPBS_QUEUES)
    assert PBS().queues() == [Queue("workq", True), Queue("old", False)]
    answer("qstat", TORQUE_QUEUES)
    assert PBS().queues() == [Queue("debug", True)]


def seconds_left(answer, *lines):
    listing = "\n".join(["Job Id: 7.server", "    job_state = R", *(f"    {line}" for line in lines)])
    answer("qstat", f"{listing}\n")
    return PBS().states(["7.server"])["7.server"].left_s


def test_the_remaining_time_counts_from_the_start_of_the_job(answer):
    requested = "Resource_List.walltime = 01:00:00"
    assert seconds_left(answer, "Resource_List.ncpus = 2", requested) == 3600
    assert seconds_left(answer, requested, "resources_used.walltime = 00:10:30") == 2970
    assert seconds_left(answer, "Resource_List.ncpus = 2") is None
    # PBS updates the used walltime only every few minutes: the start is more accurate
    began = time.strftime("%a %b %d %H:%M:%S %Y", time.localtime(time.time() - 1800))
    left = seconds_left(answer, requested, "resources_used.walltime = 00:10:30", f"stime = {began}")
    assert left == pytest.approx(1800, abs=3)
    assert seconds_left(answer, requested, "stime = yesterday") == 3600


def test_a_long_value_continues_in_the_next_line():
    text = "    Output_Path = node1:/a/very/\n\tlong/path\n"
    assert job_attributes(text)["Output_Path"] == "node1:/a/very/long/path"


def in_a_job(tmp_path, *hosts):
    (tmp_path / "nodes").write_text("\n".join(hosts))
    return PBS({"PBS_JOBID": "7.login", "PBS_NODEFILE": str(tmp_path / "nodes")})


def test_the_size_of_a_node_is_what_qstat_lists(answer, tmp_path):
    vnodes = "(node1[0]:ncpus=2:mem=1048576kb+node1[1]:ncpus=2:mem=1048576kb)+(node2:ncpus=3:mem=2gb)"
    answer("qstat", f"Job Id: 7.login\n    exec_vnode = {vnodes[:40]}\n\t{vnodes[40:]}\n")
    found = in_a_job(tmp_path, "node1.site.org", "node1.site.org", "node2.site.org").nodes()
    assert found == [Node("node1.site.org", 4, 2 * 2**30), Node("node2.site.org", 3, 2 * 2**30)]


@pytest.mark.parametrize("code", [0, 1])
def test_without_qstat_a_node_has_a_cpu_for_each_line_of_the_node_file(answer, tmp_path, code):
    answer("qstat", code=code)
    assert in_a_job(tmp_path, "node1", "node2", "node1").nodes() == [Node("node1", 2), Node("node2", 1)]


def test_a_missing_node_file_is_an_error(tmp_path):
    with pytest.raises(RunError, match=r"PBS_NODEFILE .* cannot be read"):
        PBS({"PBS_JOBID": "7", "PBS_NODEFILE": str(tmp_path / "none")}).nodes()
