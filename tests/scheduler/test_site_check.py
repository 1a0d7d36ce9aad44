"""``hpcfwi site check`` on a real Slurm: on the driver's host, and with --job in real workers, sound and faulty ones."""

from __future__ import annotations

import signal
from itertools import pairwise

import pytest

SITE = """
[scheduler]
kind = "slurm"
directives = {directives}

[worker]
processes = 1
threads = {threads}
memory = {memory}

[environment]
commands = {commands}

[openmp.variables]
HPCFWI_TEST = "yes"
"""
FAULTY = """
import time, importlib.metadata

now, version = time.time, importlib.metadata.version
time.time = lambda: now() + 50000
importlib.metadata.version = lambda name: "1.0" if name == "dask" else version(name)
"""
DEADLY = """
import os, signal, sys

if "hpcfwi.sitecheck.probe" in sys.orig_argv:
    os.kill(os.getpid(), signal.SIGILL)
"""


class SiteCheck:
    """``hpcfwi site check`` on the login host."""

    def __init__(self, shell):
        self.shell = shell
        self.runs = shell.folder / "runs"

    def site(self, directives=(), threads=1, memory=2.0, commands=(), **variables):
        """A site file of the user's own, with these lines."""
        words = {"directives": list(directives), "commands": list(commands)}
        text = SITE.format(threads=threads, memory=memory, **words)
        (self.shell.folder / "mine.toml").write_text(text + "".join(f'{k} = "{v}"\n' for k, v in variables.items()))

    def check(self, *words, code, name="./mine.toml"):
        """The tables, by the place they are about: of each row, by its name, the verdict and the rest."""
        done = self.shell("site", "check", name, *words)
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        self.err = done.stderr
        found, edges, rows, row = {}, [], {}, []
        for line in done.stdout.splitlines():
            if line.startswith("check "):
                edges = [0, *(line.index(name) for name in ("found", "verdict", "what to do")), None]
            elif line.endswith(":") and not line.startswith(" "):
                rows = found.setdefault(line.removesuffix(":"), {})
            elif line.strip():
                name, *cells = (line[a:b].strip() for a, b in pairwise(edges))
                row = rows.setdefault(name, ["", "", ""]) if name else row
                row[:] = [f"{known} {cell}".strip() for known, cell in zip(row, cells, strict=True)]
        return {
            place: {name: (verdict, f"{logged} | {advice}") for name, (logged, verdict, advice) in rows.items()}
            for place, rows in found.items()
        }

    def kept(self):
        return [path.name for path in self.runs.glob("*")]


@pytest.fixture
def site_check(on_login):
    return SiteCheck(on_login)


HERE = "on login, where the driver runs"


def not_ok(rows):
    return {name: verdict for name, (verdict, _) in rows.items() if verdict != "ok"}


# --- the driver's side


def test_a_login_node_passes(site_check):
    (rows,) = site_check.check(name="generic-slurm", code=0).values()
    assert not_ok(rows) == {}
    assert "Slurm: sbatch, squeue, scancel found" in rows["scheduler"][1]
    assert "the default queue; the queues are debug*" in rows["queue"][1]
    assert "Slurm would accept it: 1 process of 1 thread, 2.0 GB each" in rows["worker job"][1]
    assert "10.231.0.254 (br0)" in rows["network"][1]
    assert "10.231.0.254 accepts the key of a run" in rows["encryption"][1]


@pytest.mark.parametrize(
    ("setting", "problems"),
    [
        (
            "scheduler.queue=nope",
            {
                "queue": "no queue nope; the queues are debug*",
                "worker job": "Invalid partition name specified | --set site.scheduler.queue",
            },
        ),
        pytest.param(
            'scheduler.directives=["--constraint=gpu"]',
            {"worker job": "--set site.scheduler.directives"},
            marks=pytest.mark.slow,
        ),
        pytest.param(
            'scheduler.directives=["--mem=900G"]', {"worker job": "Slurm would reject it: "}, marks=pytest.mark.slow
        ),
    ],
)
def test_a_job_that_slurm_would_reject_is_a_problem_with_the_line_of_the_site_file(site_check, setting, problems):
    rows = site_check.check("--set", setting, name="generic-slurm", code=1)[HERE]
    assert not_ok(rows) == dict.fromkeys(problems, "problem")
    for row, message in problems.items():
        assert message in rows[row][1]


@pytest.mark.slow
def test_a_partition_that_is_down_and_a_missing_default_are_problems(lab, site_check):
    lab.run("scontrol", "update", "partitionname=debug", "state=down", "default=no")
    try:
        down = site_check.check("--set", "scheduler.queue=debug", name="generic-slurm", code=1)[HERE]
        none = site_check.check(name="generic-slurm", code=1)[HERE]
    finally:
        lab.run("scontrol", "update", "partitionname=debug", "state=up", "default=yes")
    assert down["queue"][0] == "problem"
    assert "debug accepts no jobs now" in down["queue"][1]
    assert none["queue"][0] == "problem"
    assert "no default queue; the queues are debug | name one in scheduler.queue" in none["queue"][1]


# --- with a real job


@pytest.mark.slow
def test_a_sound_worker_job_passes_and_leaves_nothing_behind(lab, site_check):
    found = site_check.check("--job", name="generic-slurm", code=0)
    (place,) = set(found) - {HERE}
    assert place.startswith("on node")
    assert place.endswith(", in a worker")
    rows = found[place]
    names = ["encryption", "clock", "shared folder", "processes", "versions", "memory", "scratch", "kernels"]
    assert list(rows) == [*names, "instructions", "threads"]
    assert not_ok(rows) == {}
    assert "tls://10.231.0." in rows["encryption"][1]
    assert "the staged kernels run" in rows["kernels"][1]
    assert not site_check.runs.exists()
    assert lab.jobs() == []


@pytest.mark.slow
def test_site_check_shows_a_job_that_slurm_rejects(lab, site_check):
    site_check.site(["--partition=nope"])
    found = site_check.check("--job", code=1)
    verdict, line = found["a worker job"]["start"]
    assert verdict == "problem"
    assert "Slurm rejected a worker job:" in line
    assert "Invalid partition name specified" in line
    assert "mine.toml, line 4: directives" in line or "scheduler.queue" in line
    assert f"are kept in {site_check.runs}/site-check-" in site_check.err
    assert lab.jobs() == []


@pytest.mark.slow
def test_site_check_shows_a_job_that_never_starts(lab, site_check):
    site_check.site(["--begin=now+1hour"])
    found = site_check.check("--job", "--wait", "0.1", code=1)
    verdict, line = found["a worker job"]["start"]
    assert verdict == "problem"
    assert (
        "no worker has connected for 0.1 minutes (--wait); jobs: 1 waiting (BeginTime) | wait longer (--wait)" in line
    )
    assert "no worker yet; jobs: 1 waiting (BeginTime)" in site_check.err
    assert lab.jobs() == []


@pytest.mark.slow
def test_site_check_shows_the_output_of_a_job_whose_worker_never_joins(lab, site_check):
    site_check.site(commands=["echo no such module", "exit 7"])
    found = site_check.check("--job", code=1)
    verdict, line = found["a worker job"]["start"]
    assert verdict == "problem"
    assert "has ended (FAILED" in line
    assert "no such module" in line
    (kept,) = site_check.kept()
    assert f"are kept in {site_check.runs}/{kept}/logs" in site_check.err
    assert lab.jobs() == []


@pytest.mark.slow
def test_a_node_that_differs_from_its_site_file_is_a_problem_in_each_row(site_check, tmp_path):
    """Fewer threads, another clock and Dask, less memory than the job asks for, and a folder that is the node's own."""
    (tmp_path / "faulty").mkdir()
    (tmp_path / "faulty" / "sitecustomize.py").write_text(FAULTY)
    own_folder = f"mount -t tmpfs none {site_check.runs}/site-check-*/shared"
    commands = [f"export PYTHONPATH={tmp_path}/faulty", own_folder, "ulimit -v 5000000"]
    site_check.site(threads=2, memory=6.0, commands=commands, OMP_THREAD_LIMIT="1")
    found = site_check.check("--job", "--set", "network.tls=false", code=1)
    (place,) = set(found) - {HERE}
    rows = found[place]
    problems = {"threads", "clock", "versions", "memory", "shared folder"}
    assert not_ok(rows) == {**dict.fromkeys(problems, "problem"), "encryption": "warning"}
    assert "the kernel thread count is 1, not 2 (worker.threads)" in rows["threads"][1]
    assert "+50000." in rows["clock"][1] or "+4999" in rows["clock"][1]
    assert "dask 1.0 (driver: " in rows["versions"][1]
    assert "limit of a process (ulimit) 5.1 GB; the workers may use 1 x 6.0 GB" in rows["memory"][1]
    assert "mine.toml, line 9: memory = 6.0" in rows["memory"][1]
    assert "the worker does not see" in rows["shared folder"][1]
    assert "anyone who reaches the driver's port can run programs as you" in found[HERE]["encryption"][1]


@pytest.mark.slow
def test_a_node_whose_scratch_is_noexec_is_a_problem(site_check, tmp_path):
    (tmp_path / "scratch").mkdir()
    mounted = f"mount -t tmpfs -o noexec none {tmp_path}/scratch && export TMPDIR={tmp_path}/scratch"
    site_check.site(commands=[mounted])
    found = site_check.check("--job", code=1)
    (place,) = set(found) - {HERE}
    rows = found[place]
    assert rows["scratch"][0] == "problem"
    assert "noexec, so kernels cannot be loaded from it | set filesystem.scratch" in rows["scratch"][1]
    assert rows["kernels"][0] == "problem"


@pytest.mark.slow
def test_a_node_whose_kernels_kill_their_process_is_a_problem_and_the_worker_lives(site_check, tmp_path):
    (tmp_path / "faulty").mkdir()
    (tmp_path / "faulty" / "sitecustomize.py").write_text(DEADLY)
    site_check.site(commands=[f"export PYTHONPATH={tmp_path}/faulty"])
    found = site_check.check("--job", code=1)
    (place,) = set(found) - {HERE}
    assert not_ok(found[place]) == {"kernels": "problem", "instructions": "warning"}
    assert "they kill their process (SIGILL)" in found[place]["kernels"][1]


@pytest.mark.slow
def test_a_node_without_a_compiler_passes_with_the_staged_kernels(site_check, tmp_path):
    (tmp_path / "few").mkdir()
    (tmp_path / "few" / "mkdir").symlink_to("/usr/bin/mkdir")
    site_check.site(commands=[f"export PATH={tmp_path}/few"])
    found = site_check.check("--job", code=0)
    (place,) = set(found) - {HERE}
    assert "no compiler here; the staged kernels run" in found[place]["kernels"][1]


@pytest.mark.slow
def test_site_check_names_a_runs_folder_that_nodes_do_not_see(new_lab, hpcfwi):
    with new_lab() as lab:
        lab.up(1, PRIVATE_TMP="1")
        hpcfwi.prefix = lab.command()
        found = SiteCheck(hpcfwi).check("--job", name="generic-slurm", code=1)
    verdict, line = found["a worker job"]["start"]
    assert verdict == "problem"
    assert f"check that nodes see {hpcfwi.folder}/runs (filesystem.runs)" in line


@pytest.mark.slow
def test_inside_an_allocation_all_nodes_are_checked(site_check):
    site_check.shell.prefix += ["salloc", "--quiet", "-N2", "--ntasks-per-node=1", "--cpus-per-task=2", "--mem=2000M"]
    settings = ("--set", "worker.processes=auto", "--set", "worker.memory=1")
    found = site_check.check("--job", *settings, name="generic-slurm", code=0)
    assert set(found) == {HERE, "on node1, in a worker", "on node2, in a worker"}
    for place in set(found) - {HERE}:
        assert not_ok(found[place]) == {}
        assert "2 of 2 processes of 1 thread, 1.0 GB each" in found[place]["processes"][1]


@pytest.mark.slow
def test_ctrl_c_leaves_nothing_behind(lab, site_check, driver_of):
    site_check.site(["--begin=now+1hour"])
    process = site_check.shell.start("site", "check", "./mine.toml", "--job")
    lab.until(lambda: lab.jobs() and any(site_check.runs.glob("*/staged/*.pkl")))
    driver_of(process).send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 75, err
    assert "Traceback" not in err
    assert not site_check.runs.exists()
    assert lab.jobs() == []
