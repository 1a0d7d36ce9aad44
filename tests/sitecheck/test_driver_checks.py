"""``hpcfwi site check`` on this machine: a sound one passes, and each fault that can be provoked is found."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from distributed import Scheduler
from distributed.security import Security

import hpcfwi.batch.base as batch
import hpcfwi.cluster.network as tls
import hpcfwi.sitecheck.probe as probe
import hpcfwi.sitecheck.storage as storage
from hpcfwi.cluster.layout import Layout
from hpcfwi.cluster.network import private_security
from hpcfwi.config.site import load_site
from hpcfwi.sitecheck.driver_checks import (
    check_driver,
    connection_error,
    network_findings,
    ports_finding,
    scheduler_findings,
    tls_findings,
    try_connections,
)
from hpcfwi.sitecheck.probe import memory_limits, scratch, try_kernels
from hpcfwi.sitecheck.results import memory_finding, scratch_finding
from hpcfwi.sitecheck.storage import runs_findings

GB = 10**9
LOOPBACK = "127.0.0.1"
ONE = Layout(1, 1, 2 * GB)
TWO_CPUS = len(os.sched_getaffinity(0)) >= 2
needs_two_cpus = pytest.mark.skipif(not TWO_CPUS, reason="this machine has one CPU")
needs_slurm = pytest.mark.skipif(not shutil.which("sinfo"), reason="no sinfo here (package slurm-wlm)")


def rows(text):
    """Verdict and other cells of each row of the tables, by the name of the check; folded cells are joined."""
    found, edges, row = {}, [], []
    for line in text.splitlines():
        if line.startswith("check "):
            edges = [0, *(line.index(name) for name in ("found", "verdict", "what to do")), None]
        elif edges and line.strip() and not line.endswith(":"):
            name, *cells = (line[a:b].strip() for a, b in pairwise(edges))
            row = found.setdefault(name, ["", "", ""]) if name else row
            row[:] = [f"{known} {cell}".strip() for known, cell in zip(row, cells, strict=True)]
    return {name: (verdict, f"{message} | {advice}") for name, (message, verdict, advice) in found.items()}


def check(shell, *words, code=0):
    """The rows of ``hpcfwi site check``."""
    done = shell("site", "check", *words)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return rows(done.stdout)


def named(findings, name):
    (found,) = (finding for finding in findings if finding.name == name)
    return found


# --- the whole of it, as a user calls it


def test_a_workstation_passes(hpcfwi):
    found = check(hpcfwi)
    names = ["scheduler", "network", "runs folder", "rename", "locks", "scratch", "kernels", "instructions", "threads"]
    assert list(found) == [*names, "memory"]
    assert {verdict for verdict, _ in found.values()} == {"ok"}
    assert "built in " in found["kernels"][1]
    assert sorted(path.name for path in hpcfwi.folder.iterdir()) == ["fwi.toml"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--job"], "--job: the site workstation has no batch system"),
        (["moon"], "moon: no such site"),
        (["--set", "worker.thread=1"], 'Did you mean "threads"?'),
        (["generic-slurm", "--set", "worker.memory=auto"], 'worker.memory: is "auto", but node.cores is not set'),
        (["--wait", "-1"], "Invalid value for '--wait'"),
    ],
)
def test_a_mistake_is_one_message(hpcfwi, words, message):
    done = hpcfwi("site", "check", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr


def test_a_limit_on_threads_is_found_whatever_the_site_says(hpcfwi):
    hpcfwi.environment["OMP_THREAD_LIMIT"] = "1"
    found = check(hpcfwi, "--set", "worker.processes=1", "--set", "worker.threads=2", code=1)
    verdict, line = found.pop("threads")
    assert verdict == "problem"
    assert "the kernel thread count is 1, not 2 (worker.threads)" in line
    assert "OMP_THREAD_LIMIT" in line
    assert {verdict for verdict, _ in found.values()} == {"ok"}


@needs_two_cpus
@pytest.mark.slow
def test_processes_that_are_bound_to_the_same_core_are_found(hpcfwi):
    bound = ('openmp.places="cores"', 'openmp.bind="close"', 'devito.language="openmp"')
    settings = ("worker.processes=2", "worker.threads=1", *bound)
    found = check(hpcfwi, *(word for setting in settings for word in ("--set", setting)), code=1)
    assert found["threads"][0] == "problem"
    assert "2 workers whose thread count is 1 share CPU " in found["threads"][1]


@pytest.mark.skipif(
    not re.search(r"^flags\s*:(?!.* fma4)", Path("/proc/cpuinfo").read_text(), re.MULTILINE),
    reason="this processor has the instructions of all others",
)
@pytest.mark.slow
def test_instructions_that_this_processor_lacks_are_found(hpcfwi):
    found = check(hpcfwi, "--set", "devito.target=bdver4", code=1)
    assert found["kernels"][0] == "problem"
    assert "they kill their process (SIGILL) | devito.target may name instructions" in found["kernels"][1]
    assert found["instructions"][0] == "warning"


@pytest.mark.slow
def test_more_memory_than_the_machine_has_is_a_problem(hpcfwi):
    found = check(hpcfwi, "--set", "worker.memory=100000", code=1)
    assert found["memory"][0] == "problem"
    assert "the workers may use 1 x 100000.0 GB" in found["memory"][1]
    assert "--set site.worker.memory" in found["memory"][1]


def test_a_missing_scheduler_interface_and_compiler_are_problems(hpcfwi):
    hpcfwi.environment["PATH"] = "/nowhere"
    settings = ("--set", "network.interface=nope0")
    found = check(hpcfwi, "generic-pbs", *settings, code=1)
    assert found["scheduler"][0] == "problem"
    assert "PBS, but no qsub, qstat, qdel here" in found["scheduler"][1]
    assert found["network"][0] == "problem"
    assert "there is no nope0 on this host" in found["network"][1]
    assert found["kernels"][0] == "problem"
    assert "no C compiler, so kernels cannot be built" in found["kernels"][1]
    assert "encryption" not in found


@needs_two_cpus
@pytest.mark.slow
def test_wrong_threads_on_a_host_without_workers_are_only_a_warning(hpcfwi):
    (hpcfwi.folder / "bad.conf").write_text("Nonsense=1\n")
    conf = dict.fromkeys(("SLURM_CONF", "PBS_CONF_FILE"), str(hpcfwi.folder / "bad.conf"))
    hpcfwi.environment |= {"OMP_THREAD_LIMIT": "1", **conf}
    found = check(hpcfwi, "generic-pbs", "--set", "worker.threads=1000", "--set", "network.tls=false", code=1)
    verdict, line = found["threads"]
    assert verdict == "warning"
    assert "the kernel thread count is 1, not " in line
    assert "(workers have 1000 threads, more than there are CPUs here)" in line
    assert "--job tests the nodes" in line
    assert found["scheduler"][0] == "problem"


MOUNTED = 'mount -t tmpfs -o size={0},{1} none "$0" && mkdir "$0/tmp" && TMPDIR=$0/tmp exec "$@"'


@pytest.fixture
def mounted(hpcfwi, tmp_path):
    """``hpcfwi site check`` with TMPDIR and the runs on a small file system of its own, which may be noexec."""
    unshare = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    if not shutil.which("unshare") or subprocess.run([*unshare, "true"], check=False, capture_output=True).returncode:
        pytest.skip("no permission to mount")
    place = tmp_path / "mounted"
    place.mkdir()

    def called(size, option):
        hpcfwi.prefix = [*unshare, "sh", "-c", MOUNTED.format(size, option), str(place)]
        return check(hpcfwi, "--set", f"filesystem.runs={place}/runs", code=1)

    return called


def test_a_folder_from_which_kernels_cannot_be_loaded_is_a_problem(mounted):
    found = mounted("500m", "noexec")
    assert found["scratch"][0] == "problem"
    assert "mounted noexec, so kernels cannot be loaded from it" in found["scratch"][1]
    assert "set TMPDIR to a local folder" in found["scratch"][1]
    assert found["kernels"][0] == "problem"
    assert "failed to map segment from shared object" in found["kernels"][1]
    assert found["runs folder"][0] == "warning"
    assert "0.5 GB free" in found["runs folder"][1]


@pytest.mark.slow
def test_a_folder_without_space_for_kernels_is_a_problem(mounted):
    found = mounted("50m", "exec")
    assert found["scratch"][0] == "problem"
    assert "free some space there" in found["scratch"][1]
    assert found["kernels"][0] == "ok"


def test_from_python_the_check_prints_nothing(tmp_path):
    """``check_site`` starts a scheduler of Dask, whose messages would be printed."""
    program = "from hpcfwi import check_site, load_site; next(check_site(load_site('generic-slurm')))"
    (tmp_path / "slurm.conf").write_text("Nonsense=1\n")  # Slurm's commands fail at once
    environment = {**os.environ, "SLURM_CONF": str(tmp_path / "slurm.conf")}
    environment.pop("DASK_LOGGING__DISTRIBUTED", None)
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


# --- the scheduler and the network


@needs_slurm
def test_the_error_of_a_scheduler_that_does_not_answer_is_shown(monkeypatch, tmp_path):
    (tmp_path / "slurm.conf").write_text("Nonsense=1\n")
    monkeypatch.setenv("SLURM_CONF", str(tmp_path / "slurm.conf"))
    (found,) = scheduler_findings(load_site("generic-slurm"), ONE)
    assert (found.name, found.verdict) == ("scheduler", "problem")
    assert "Slurm does not answer: sinfo --noheader '--format=%P|%a': exit code 1: sinfo: " in found.found
    # without it Slurm's commands look for their server for a long time
    monkeypatch.setenv("SLURM_CONF", str(tmp_path / "nowhere"))
    monkeypatch.setattr(batch, "COMMAND_TIMEOUT_S", 0.5)
    (found,) = scheduler_findings(load_site("generic-slurm"), ONE)
    assert found.found.endswith("exit code 124: no answer within 0.5 s")


def test_a_job_whose_nodes_are_unknown_is_a_problem(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setattr(probe, "CHILD_TIMEOUT_S", 0.01)
    found = named(check_driver(load_site("generic-slurm", ["network.tls=false"])).findings, "allocation")
    assert found.verdict == "problem"
    assert "SLURM_JOB_NODELIST is not set in job 7" in found.found


def test_the_message_about_a_missing_interface_lists_the_others():
    address, (found,) = network_findings(load_site("workstation", ["network.interface=nope0"]), ONE)
    assert address is None
    assert found.verdict == "problem"
    assert "there is no nope0 on this host; it has " in found.found
    assert found.advice == "--set site.network.interface"


@pytest.fixture
def two_ports():
    """Two successive ports that are in use."""
    for first in range(20000, 30000, 7):
        with socket.socket() as one, socket.socket() as two:
            try:
                one.bind((LOOPBACK, first))
                two.bind((LOOPBACK, first + 1))
            except OSError:
                continue
            yield f"{first}:{first + 1}"
            return


def test_ports_that_are_taken_or_too_few_are_problems(two_ports):
    found = ports_finding(two_ports, LOOPBACK, ONE)
    assert found.verdict == "problem"
    assert found.found.startswith("0 of 2 ports from ")
    first = int(two_ports.partition(":")[0])
    wider = f"{first}:{first + 40}"
    assert ports_finding(wider, LOOPBACK, ONE).verdict == "ok"
    narrow = ports_finding(wider, LOOPBACK, Layout(64, 1, GB))
    assert narrow.verdict == "problem"
    assert "driver and workers of a node need 129" in narrow.found


# --- encryption


def network(*settings):
    return load_site("generic-slurm", settings).config.network


def test_only_the_key_of_the_run_is_accepted():
    assert [finding.verdict for finding in tls_findings(network(), LOOPBACK)] == ["ok", "ok"]


def test_an_intruder_who_gets_in_is_reported(tmp_path):
    with private_security(tmp_path / "ours") as ours:
        assert asyncio.run(try_connections(network(), LOOPBACK, ours, ours)) == ("", ["another key"])

    async def without_encryption():
        async with Scheduler(host=LOOPBACK, port=0, dashboard=False, dashboard_address=":0") as scheduler:
            return await connection_error(scheduler.address, Security(), 2.0)

    assert asyncio.run(without_encryption()) == ""


def test_without_encryption_there_is_a_warning():
    (found,) = tls_findings(network("network.tls=false"), LOOPBACK)
    assert found.verdict == "warning"
    assert "anyone who reaches the driver's port can run programs as you" in found.found


def test_an_address_of_another_host_is_a_problem():
    encryption, _ = tls_findings(network(), "192.0.2.77")
    assert encryption.verdict == "problem"
    assert "no scheduler can listen on 192.0.2.77" in encryption.found


def test_a_wrong_clock_makes_certificate_and_encryption_a_problem(monkeypatch):
    monkeypatch.setattr(tls, "CLOCK_SKEW", timedelta(days=-1))
    monkeypatch.setattr("hpcfwi.sitecheck.driver_checks.OWN_KEY_TIMEOUT_S", 1.0)
    encryption, certificate = tls_findings(network(), LOOPBACK)
    assert certificate.verdict == "problem"
    assert "set the clock of this host" in certificate.advice
    assert encryption.verdict == "problem"
    assert "no TLS connection to" in encryption.found


# --- the folder for runs


def test_a_folder_that_can_be_created_passes_and_is_removed(tmp_path):
    assert [finding.verdict for finding in runs_findings(tmp_path / "a" / "b")] == ["ok", "ok", "ok"]
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_created_is_a_problem(tmp_path):
    (tmp_path / "file").write_text("")
    (found,) = runs_findings(tmp_path / "file" / "runs")
    assert found.verdict == "problem"
    assert "Not a directory" in found.found
    (found,) = runs_findings(Path("/proc/1"))
    assert found.verdict == "problem"


def test_a_folder_that_all_users_can_write_to_is_a_warning(tmp_path):
    tmp_path.chmod(0o777)
    first, *_ = runs_findings(tmp_path)
    assert first.verdict == "warning"
    assert first.advice == f"type: chmod o-w '{tmp_path}'"
    tmp_path.chmod(0o1777)
    assert runs_findings(tmp_path)[0].verdict == "ok"


def test_half_written_files_are_a_problem(tmp_path, monkeypatch):
    def in_place(path, write):
        with path.open("wb", buffering=0) as file:
            write(file)

    monkeypatch.setattr(storage, "write_atomic", in_place)
    monkeypatch.setattr(storage, "FILE_BYTES", 20 * 10**6)
    found = named(runs_findings(tmp_path), "rename")
    assert found.verdict == "problem"
    assert "half-written or missing files" in found.found


def test_slow_renames_are_a_warning(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "SLOW_RENAME_S", 1e-9)
    assert named(runs_findings(tmp_path), "rename").verdict == "warning"


def test_a_file_system_without_locks_is_a_warning(tmp_path, monkeypatch):
    def none(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    for flock, said in (
        (none, "not supported by the file system (No locks available)"),
        (lambda *_: None, "two processes get the same lock"),
    ):
        monkeypatch.setattr(fcntl, "flock", flock)
        found = named(runs_findings(tmp_path), "locks")
        assert found.verdict == "warning"
        assert said in found.found


# --- this host


@pytest.fixture
def fresh_tempdir(monkeypatch):
    """Make Python look for a folder for temporary files again."""
    monkeypatch.setattr(tempfile, "tempdir", None)
    return monkeypatch


def test_a_tmpdir_that_cannot_be_used_is_a_warning(fresh_tempdir, tmp_path):
    fresh_tempdir.setenv("TMPDIR", str(tmp_path / "nowhere"))
    found = scratch_finding(scratch(), "TMPDIR")
    assert found.verdict == "warning"
    assert f"instead of TMPDIR={tmp_path}/nowhere, which cannot be used" in found.found


def test_a_missing_folder_for_temporary_files_is_a_problem(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    found = scratch_finding(scratch(), "TMPDIR")
    assert found.verdict == "problem"
    assert "No such file or directory" in found.found
    assert "No such file or directory" in try_kernels(1)["error"]


def test_little_space_is_a_warning():
    assert scratch_finding(scratch() | {"free": 5 * 10**8}, "TMPDIR").verdict == "warning"


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("echo 'cc1: error: no way' >&2; exit 1", "CompileError: module compilation failed: cc1: error: no way"),
        ("", "Error"),
    ],
)
def test_the_error_of_a_compiler_that_does_not_compile_is_shown(tmp_path, program, said):
    gcc = tmp_path / "gcc"
    gcc.write_text(f"#!/bin/sh\n[ $1 != --version ] || exec echo gcc 0.1\n{program}\n")
    gcc.chmod(0o755)
    facts = try_kernels(1, {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"})
    assert facts["fingerprint"]["compiler"] == "gcc 0.1"
    assert said in facts["error"]


def test_kernels_that_kill_their_process_kill_only_the_child(tmp_path):
    program = "import os, signal\nos.kill(os.getpid(), signal.SIGILL)\n"
    (tmp_path / "sitecustomize.py").write_text(program)
    facts = try_kernels(1, {**os.environ, "PYTHONPATH": str(tmp_path)})
    assert facts == {"error": "they kill their process (SIGILL)", "died": "SIGILL"}


def test_a_child_that_prints_no_facts_or_takes_too_long_is_an_error(tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text("import sys\nprint('no such thing', file=sys.stderr)\nsys.exit(3)\n")
    facts = try_kernels(1, {**os.environ, "PYTHONPATH": str(tmp_path)})
    assert facts["error"]
    monkeypatch.setattr(probe, "CHILD_TIMEOUT_S", 0.01)
    assert try_kernels(1) == {"error": "no result within 0.01 s"}


LIMITS = "import json; from hpcfwi.sitecheck.probe import memory_limits; print(json.dumps(memory_limits()))"


def limits_of(*prefix):
    import json

    done = subprocess.run([*prefix, sys.executable, "-c", LIMITS], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.skipif(not shutil.which("prlimit"), reason="no prlimit here (package util-linux)")
def test_a_ulimit_below_the_memory_of_a_worker_is_a_problem():
    limits = limits_of("prlimit", f"--as={6 * GB}:{6 * GB}", "--")
    assert limits["process"] == 6 * GB
    assert memory_finding(limits, Layout(1, 1, 5 * GB), "").verdict == "ok"
    found = memory_finding(limits, Layout(1, 1, 7 * GB), "site.toml, line 3: memory = 7")
    assert found.verdict == "problem"
    assert "limit of a process (ulimit) 6.0 GB; the workers may use 1 x 7.0 GB" in found.found
    assert "site.toml, line 3" in found.advice


@pytest.fixture
def memory_group():
    """A memory cgroup with a limit of 3 GiB inside the current one."""
    mine = next(
        (line.split(":", 2)[1:] for line in Path("/proc/self/cgroup").read_text().splitlines() if ":memory:" in line),
        None,
    )
    if mine is None:
        pytest.skip("no memory cgroup of version 1 here")
    folder = Path("/sys/fs/cgroup/memory") / mine[1].lstrip("/") / f"hpcfwi-test-{os.getpid()}"
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("no permission to create a cgroup")
    (folder / "memory.limit_in_bytes").write_text(str(3 * 2**30))
    yield folder
    folder.rmdir()


def test_a_memory_limit_of_the_job_is_a_problem(memory_group):
    limits = limits_of("sh", "-c", f'echo $$ > {memory_group}/cgroup.procs; exec "$0" "$@"')
    assert limits["job"] == 3 * 2**30
    assert memory_finding(limits, Layout(1, 1, 3 * GB), "").verdict == "ok"
    found = memory_finding(limits, Layout(2, 1, 2 * GB), "")
    assert found.verdict == "problem"
    assert "limit of the job (cgroup) 3.2 GB; the workers may use 2 x 2.0 GB" in found.found


def test_the_smallest_limit_of_nested_cgroups_of_version_2_counts(tmp_path, monkeypatch):
    (mine,) = (line[3:] for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::"))
    monkeypatch.setattr(probe, "CGROUPS", tmp_path)
    inner = tmp_path / mine.lstrip("/")
    inner.mkdir(parents=True, exist_ok=True)
    (tmp_path / "memory.max").write_text(f"{10**9}\n")
    if inner != tmp_path:
        (inner / "memory.max").write_text("max\n")
    assert memory_limits()["job"] == 10**9
