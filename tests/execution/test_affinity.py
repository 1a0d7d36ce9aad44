"""What workers tell of threads and cores, against what was promised."""

from hpcfwi.config.site import Site
from hpcfwi.execution.affinity import AffinityCheck


def promise(threads):
    return AffinityCheck(Site(), lambda _: threads)


def test_a_kept_promise_says_nothing():
    ours = promise(2)
    assert ours.breaches("node1", "a", 2, "0-1") == []
    assert ours.breaches("node1", "b", 2, "2-3") == []
    assert ours.breaches("node2", "c", 2, "0-1") == []


def test_another_number_of_threads_is_told_once_for_each_host():
    ours = promise(4)
    (told,) = ours.breaches("node1", "a", 1, "0-3")
    assert "on node1 kernels run on 1 threads instead of 4 (worker.threads)" in told
    assert "OMP_NUM_THREADS" in told
    assert ours.breaches("node1", "b", 1, "4-7") == []
    assert len(ours.breaches("node2", "c", 1, "0-3")) == 1


def test_threads_that_share_a_cpu_are_told():
    (told,) = promise(2).breaches("node1", "a", 2, "5")
    assert "on node1 the 2 threads of a worker share CPU 5" in told
    assert "openmp.bind" in told


def test_workers_that_share_cpus_are_told_until_one_has_gone():
    ours = promise(2)
    assert ours.breaches("node1", "a", 2, "0-1") == []
    (told,) = ours.breaches("node1", "b", 2, "0-1")
    assert "on node1 2 workers of 2 threads share CPU 0-1" in told
    ours.forget("a")
    assert ours.breaches("node1", "c", 2, "2-3") == []


def test_what_cannot_be_seen_is_no_breach():
    assert promise(4).breaches("node1", "a", 0, "") == []
