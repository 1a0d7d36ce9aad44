"""The same through PBS: a real OpenPBS where one is installed, and in any case the real qsub that Slurm has for its users."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import pytest
import tomli_w
from watching import logged_events, options, wait_until

ROOT = Path(__file__).parents[2]
HOSTS = Path(__file__).parent / "pbs-hosts"
OPENPBS = Path(os.environ.get("PBS_EXEC", "/opt/pbs")) / "bin" / "qsub"
USER = "hpcfwi-test"
REASON = "no OpenPBS in $PBS_EXEC (/opt/pbs)"
needs_openpbs = pytest.mark.skipif(not OPENPBS.exists() or os.geteuid() != 0, reason=REASON)


class PBS:
    """Hosts with a PBS over them, for an ordinary user."""

    def __init__(self, folder, user, prefix, python):
        self.folder, self.user, self.prefix, self.python = folder, user, prefix, python

    def command(self, *words):
        return [*self.prefix, *map(str, words)]

    def run(self, *words, check=True):
        done = subprocess.run(
            self.command(*words), cwd=self.folder, capture_output=True, text=True, check=False, timeout=300
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def hpcfwi(self, *words, check=True):
        return self.run(self.python, "-m", "hpcfwi", *words, check=check)

    def jobs(self):
        lines = self.run("qstat", check=False).stdout.splitlines()
        return [line for line in lines if line[:1].isdigit() and " C " not in line]

    def until(self, true, seconds=120):
        try:
            wait_until(true, seconds=seconds, every=0.05)
        except AssertionError as error:
            raise AssertionError(self.run("qstat", "-f", check=False).stdout) from error

    def submit(self, *words):
        """``qsub``, and the job's output when it has ended."""
        self.run("qsub", "-j", "oe", "-o", "job.log", *words)
        self.until(lambda: not self.jobs(), 300)
        self.until((self.folder / "job.log").exists)
        return (self.folder / "job.log").read_text()

    def events(self, *kinds):
        return logged_events(self.folder / "a run", *kinds)


def readable_environment(folder):
    """A virtual environment that an ordinary user can read, with what this one has."""
    python = Path("/usr/bin/python3")
    version = subprocess.run(
        [python, "-c", "import sys; print(sys.version_info[:2])"], capture_output=True, text=True, check=True
    )
    if version.stdout.strip() != str(sys.version_info[:2]):
        pytest.skip(f"{python} is another version than that of these tests")
    subprocess.run([python, "-m", "venv", "--without-pip", folder], check=True)
    (site,) = folder.glob("lib/python3*/site-packages")
    packages = [path for path in sys.path if path.endswith("-packages")]
    (site / "hpcfwi.pth").write_text("\n".join([*packages, str(ROOT), ""]))
    script = folder / "bin" / "hpcfwi"
    script.write_text(f"#!{folder}/bin/python\nfrom hpcfwi.__main__ import main\nmain()\n")
    script.chmod(0o755)
    return folder / "bin" / "python"


@pytest.fixture(scope="module")
def openpbs():
    folder = Path(tempfile.mkdtemp(prefix="hpcfwi-pbs-", dir="/tmp"))
    folder.chmod(0o755)
    made = subprocess.run(["useradd", "--create-home", "--shell", "/bin/bash", USER], check=False).returncode == 0
    try:
        subprocess.run([HOSTS, folder, "3"], env={**os.environ, "PBS_EXEC": str(OPENPBS.parents[1])}, check=True)
        python = readable_environment(folder / "environment")
        yield PBS(folder, USER, [str(HOSTS), "-x", str(folder), "-u", USER, "login"], python)
    finally:
        subprocess.run([HOSTS, "-d", folder], check=True)
        if made:
            subprocess.run(["userdel", "--remove", USER], check=False, capture_output=True)
        shutil.rmtree(folder, ignore_errors=True)


def work_folder(pbs, fwi_toml, name="work", number=[0]):  # noqa: B006 - a counter
    """An empty folder of the user's with the small problem."""
    number[0] += 1
    base = pbs.folder if pbs.folder.name.startswith("hpcfwi-") else pbs.folder.parent
    folder = base / f"{name}{number[0]}"
    folder.mkdir()
    shutil.copy(fwi_toml, folder)
    owner = pwd.getpwnam(pbs.user)
    for path in (folder, folder / "fwi.toml"):
        os.chown(path, owner.pw_uid, owner.pw_gid)
    return PBS(folder, pbs.user, pbs.prefix, pbs.python)


@pytest.fixture
def pbs(openpbs, fwi_toml):
    """OpenPBS, and a folder of its own for each test."""
    pbs = work_folder(openpbs, fwi_toml, "work ")
    yield pbs
    for job in pbs.jobs():
        pbs.run("qdel", job.split()[0], check=False)
    pbs.until(lambda: not pbs.jobs())


@pytest.fixture
def torque(lab, fwi_toml):
    """The qsub of Slurm's package slurm-wlm-torque."""
    if not shutil.which("qsub"):
        pytest.skip("no qsub here (package slurm-wlm-torque)")
    base = PBS(lab.folder, "root", lab.command(), Path(sys.executable))
    return work_folder(base, fwi_toml)


def assert_same(pbs, first_run, run_dir="a run"):
    assert (pbs.folder / run_dir / "model.npy").read_bytes() == (first_run[2] / "model.npy").read_bytes()


RUN = ("fwi.toml", "--site", "generic-pbs", "--run-dir")
# Jobs that share no node.
SCATTERED = 'site.scheduler.directives=["-l place=excl"]'


@needs_openpbs
@pytest.mark.slow
def test_worker_jobs_of_an_ordinary_user_give_the_bytes_of_a_local_run(pbs, first_run):
    done = pbs.hpcfwi("run", *RUN, "a run", "--nodes", "3")
    assert "workers in 3 jobs of PBS (generic-pbs)" in done.stdout
    assert_same(pbs, first_run)
    assert {event["host"] for event in pbs.events("shot")} <= {"node1", "node2", "node3"}
    pbs.until(lambda: not pbs.jobs(), 30)


@needs_openpbs
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_worker_jobs_of_one_minute_finish_their_shots_and_are_replaced_before_the_limit(pbs, longer_than_a_minute):
    """PBS is asked what is left of them; none is killed with a shot in hand, and no shot is computed twice."""
    settings, undisturbed = longer_than_a_minute
    words = options(*settings, "site.scheduler.walltime=00:01:00")
    done = subprocess.run(
        pbs.command(pbs.python, "-m", "hpcfwi", "run", *RUN, "a run", "--nodes", "2", *words),
        cwd=pbs.folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=1500,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    draining = pbs.events("job draining")
    assert len(draining) >= 2, done.stdout
    assert all(0 < event["seconds_left"] < 20 for event in draining)
    assert {event["job"] for event in pbs.events("job drained")} >= {event["job"] for event in draining[:2]}
    assert not pbs.events("worker died", "retry", "job lost")
    evaluations = {event["evaluation"] for event in pbs.events("evaluation") if not event["replayed"]}
    assert len(pbs.events("shot")) == pbs.events("start")[0]["shots"] * len(evaluations)
    assert (pbs.folder / "a run" / "model.npy").read_bytes() == (undisturbed / "model.npy").read_bytes()


@needs_openpbs
@pytest.mark.slow
def test_the_job_script_uses_all_nodes_of_its_allocation(pbs, first_run):
    (pbs.folder / "fwi.toml").rename(pbs.folder / "my fwi.toml")
    variables = {
        "HPCFWI_ROOT": ROOT,
        "VIRTUAL_ENV": pbs.python.parents[1],
        "HPCFWI_CONFIG": "my fwi.toml",
        "HPCFWI_ARGS": "--site generic-pbs",
    }
    passed = ",".join(f"{name}={value}" for name, value in variables.items())
    place = ("-l", "select=2:ncpus=1:mem=2gb", "-l", "place=scatter")
    output = pbs.submit(*place, "-v", passed, ROOT / "jobs" / "fwi.pbs")
    assert "workers on 2 nodes of job" in output, output
    assert (pbs.folder / "runs" / "my fwi" / "model.npy").read_bytes() == (first_run[2] / "model.npy").read_bytes()


@needs_openpbs
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_job_at_its_time_limit_submits_successors_until_the_run_is_done(pbs, longer_than_a_minute):
    settings, undisturbed = longer_than_a_minute
    # a comma would end the variable in qsub's list
    (pbs.folder / "fwi.toml").write_text(with_settings((pbs.folder / "fwi.toml").read_text(), settings))
    variables = {
        "HPCFWI_ROOT": ROOT,
        "VIRTUAL_ENV": pbs.python.parents[1],
        "HPCFWI_CONFIG": "fwi.toml",
        "HPCFWI_ARGS": "--site generic-pbs --fresh",
    }
    passed = ",".join(f"{name}={value}" for name, value in variables.items())
    place = ("-l", "select=1:ncpus=2:mem=2gb", "-l", f"walltime={seconds_for_half_of(undisturbed)}")
    pbs.run("qsub", "-j", "oe", "-o", "job.log", *place, "-v", passed, ROOT / "jobs" / "fwi.pbs")
    run_dir = pbs.folder / "runs" / "fwi"
    pbs.until((run_dir / "result.json").exists, 1500)
    pbs.until(lambda: not pbs.jobs())
    first, second = (pbs.folder / name for name in ("job.log", "job.log.1"))
    pbs.until(first.exists)
    assert "follows and continues the run" in first.read_text(), first.read_text()
    pbs.until(second.exists)
    assert (run_dir / "result.json").exists(), second.read_text()
    assert (run_dir / "model.npy").read_bytes() == (undisturbed / "model.npy").read_bytes()


def seconds_for_half_of(undisturbed):
    """Time limit of a job that starts, computes about half of a run, and stops, as fast as this machine is."""
    (start,), evaluations = (logged_events(undisturbed, kind) for kind in ("start", "evaluation"))
    first, last = evaluations[0]["time"], evaluations[-1]["time"]
    # the driver takes about as long to start as its workers, and stops 10 s before the limit
    return round(2 * (first - start["time"]) + (last - first) / 2 + 10)


def with_settings(content, settings):
    """A configuration with settings as of ``--set``."""
    config = tomllib.loads(content)
    for setting in settings:
        name, _, value = setting.partition("=")
        *sections, key = name.split(".")
        table = config
        for section in sections:
            table = table[section]
        table[key] = tomllib.loads(f"value = {value}")["value"]
    return tomli_w.dumps(config)


@needs_openpbs
@pytest.mark.slow
def test_an_interactive_job_gives_the_bytes_of_a_local_run(pbs, first_run):
    command = f"cd '{pbs.folder}' && {pbs.python} -m hpcfwi run {' '.join(RUN)} 'a run'; exit\n"
    words = ["qsub", "-I", "-l", "select=2:ncpus=1:mem=2gb", "-l", "place=scatter"]
    # qsub -I wants a terminal
    done = subprocess.run(
        ["script", "--quiet", "--command", subprocess.list2cmdline(pbs.command(*words)), "/dev/null"],
        input=command,
        cwd=pbs.folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert "workers on 2 nodes of job" in done.stdout, done.stdout
    assert_same(pbs, first_run)


@needs_openpbs
@pytest.mark.slow
@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("scheduler.queue=nope", "exit code 170: qsub: Unknown queue\n  --set site.scheduler.queue"),
        ("worker.memory=70", "PBS will never start worker job"),
        (
            "scheduler.resources=select=1:ncpus={cpus}:nope=1",
            "Unknown resource: nope\n  --set site.scheduler.resources",
        ),
    ],
)
def test_a_job_that_pbs_rejects_or_never_runs_stops_the_run_with_the_reason(pbs, setting, said):
    done = pbs.hpcfwi("run", *RUN, "a run", "--set", f"site.{setting}", check=False)
    assert done.returncode == 2, done.stdout + done.stderr
    assert said in done.stderr
    pbs.until(lambda: not pbs.jobs(), 30)


@pytest.fixture
def long_run(pbs, driver_of):
    """A run that does not come to its end, with two worker jobs on different nodes; returns the nodes that work."""
    settings = ("inversion.iterations=5000", "inversion.ftol=0", "grid.shape=[201, 201]", "grid.spacing=[3.0, 3.0]")
    words = options(*settings, SCATTERED)
    process = subprocess.Popen(
        pbs.command(pbs.python, "-m", "hpcfwi", "run", *RUN, "a run", "--nodes", "2", *words),
        cwd=pbs.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )

    def working(since=0, seconds=120):
        found = set()

        def two():
            found.update(event["host"] for event in pbs.events("shot")[since:])
            return len(found) >= 2

        pbs.until(two, seconds)
        return sorted(found)

    try:
        yield working
    finally:
        driver_of(process).terminate()
        out, err = process.communicate(timeout=300)
    assert process.returncode == 75, out + err
    assert "Traceback" not in err, out


@needs_openpbs
@pytest.mark.slow
def test_a_job_that_is_deleted_is_replaced(pbs, long_run):
    long_run()
    pbs.run("qdel", pbs.events("job")[0]["job"])
    pbs.until(lambda: pbs.events("job lost"))
    long_run(len(pbs.events("shot")))


@needs_openpbs
@pytest.mark.slow
@pytest.mark.parametrize(("act", "away", "back"), [("-p", "off", "on"), ("-l", "down", "up")])
def test_a_node_that_is_off_or_out_of_reach_costs_only_its_workers(pbs, long_run, act, away, back):
    node = long_run()[0]
    subprocess.run([HOSTS, act, pbs.folder.parent, node, away], check=True)
    try:
        pbs.until(lambda: pbs.events("job lost"), 150)
        assert node not in long_run(len(pbs.events("shot")), 120)
    finally:
        subprocess.run([HOSTS, act, pbs.folder.parent, node, back], check=True)


def test_worker_jobs_through_the_qsub_of_slurm(torque, first_run):
    """Not a real PBS, but a real qsub: its habits differ, and so do its answers."""
    done = torque.hpcfwi("run", *RUN, "a_run")
    assert "workers in 2 jobs of PBS (generic-pbs)" in done.stdout
    assert_same(torque, first_run, "a_run")
    torque.until(lambda: not torque.jobs(), 30)


def assert_well(pbs):
    """No problem is found, neither on the login host nor in a worker job, which leaves nothing."""
    done = pbs.hpcfwi("site", "check", "generic-pbs", "--job")
    assert "PBS: qsub, qstat, qdel found" in done.stdout
    assert ", in a worker:" in done.stdout
    assert " warning " not in done.stdout
    assert not (pbs.folder / "runs").exists()
    pbs.until(lambda: not pbs.jobs(), 30)


@needs_openpbs
@pytest.mark.slow
def test_site_check_tests_a_worker_job(pbs):
    assert_well(pbs)


@needs_openpbs
@pytest.mark.slow
def test_site_check_shows_a_job_that_pbs_never_runs(pbs):
    settings = ("--set", "worker.memory=70", "--set", "scheduler.queue=workq")
    done = pbs.hpcfwi("site", "check", "generic-pbs", "--job", *settings, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "PBS will never start worker job" in done.stdout
    assert "there is no" not in done.stdout
    pbs.until(lambda: not pbs.jobs(), 30)


@pytest.mark.slow
def test_site_check_tests_a_worker_job_of_the_qsub_of_slurm(torque):
    assert_well(torque)
