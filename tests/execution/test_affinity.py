"""Threads and cores of workers, compared with the site's configuration."""

from hpcfwi.config.site import Site
from hpcfwi.execution.affinity import AffinityCheck


def check_of(threads):
    return AffinityCheck(Site(), lambda _: threads)


def test_workers_that_match_the_site_file_give_no_message():
    check = check_of(2)
    assert check.mismatches("node1", "a", 2, "0-1") == []
    assert check.mismatches("node1", "b", 2, "2-3") == []
    assert check.mismatches("node2", "c", 2, "0-1") == []


def test_a_wrong_number_of_threads_is_reported_once_for_each_host():
    check = check_of(4)
    (message,) = check.mismatches("node1", "a", 1, "0-3")
    assert "on node1 the kernel thread count is 1, not 4 (worker.threads)" in message
    assert "OMP_NUM_THREADS" in message
    assert check.mismatches("node1", "b", 1, "4-7") == []
    assert len(check.mismatches("node2", "c", 1, "0-3")) == 1


def test_threads_that_share_a_cpu_are_reported():
    (message,) = check_of(2).mismatches("node1", "a", 2, "5")
    assert "on node1 the 2 threads of a worker share CPU 5" in message
    assert "openmp.bind" in message


def test_workers_that_share_cpus_are_reported_until_one_is_gone():
    check = check_of(2)
    assert check.mismatches("node1", "a", 2, "0-1") == []
    (message,) = check.mismatches("node1", "b", 2, "0-1")
    assert "on node1 2 workers whose thread count is 2 share CPU 0-1" in message
    check.forget("a")
    assert check.mismatches("node1", "c", 2, "2-3") == []


def test_threads_that_cannot_be_observed_give_no_message():
    assert check_of(4).mismatches("node1", "a", 0, "") == []
