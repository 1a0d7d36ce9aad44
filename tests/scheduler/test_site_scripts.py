"""The job script of each site for Slurm, before a real Slurm whose node and limits are those of the machine."""

from __future__ import annotations

import re
import subprocess
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner

from hpcfwi.cli.main import cli
from hpcfwi.io import packaged_folder

VARIABLES = {"PROJECT": "ab12", "USER": "ada", "SCRATCH": "/scratch/ada", "PSCRATCH": "/pscratch/a/ada"}
TOO_MUCH = "More processors requested|node configuration is not available|can not be satisfied"


@dataclass(frozen=True)
class Machine:
    """A node and its partition, from the machine's documentation and not from our site file.

    Parameters
    ----------
    cpus
        CPUs of a node, as its Slurm counts them.
    memory
        MiB of a node.
    hours
        Longest walltime.
    node
        More of the node's line in slurm.conf.
    partition
        Its name; None: jobs name none, and get the default one.
    """

    cpus: int
    memory: int
    hours: int
    node: str = ""
    partition: str | None = None


MACHINES = {
    "archer2": Machine(128, 256 * 1024, 24, "Sockets=2 CoresPerSocket=64", "standard"),
    "generic-slurm": Machine(1, 2000, 1),
    "lumi-c": Machine(128, 229376, 48, "Sockets=2 CoresPerSocket=64", "standard"),
    "marenostrum5": Machine(112, 263812180 // 1024, 72, "Sockets=2 CoresPerSocket=56"),
    "perlmutter": Machine(256, 512 * 10**9 // 2**20, 48, "Sockets=2 CoresPerSocket=64 ThreadsPerCore=2 Feature=cpu"),
    "stampede3": Machine(112, 128 * 1024, 48, "Sockets=2 CoresPerSocket=56", "spr"),
}


@pytest.fixture(scope="module", params=MACHINES)
def mirrored(request, new_lab):
    """A machine's name, what is known of it, and a lab of one such node."""
    machine = MACHINES[request.param]
    # where no memory is asked for, it goes with the CPUs
    limits = f"MaxTime={machine.hours}:00:00 DefMemPerCPU={machine.memory // machine.cpus}"
    with new_lab() as lab:
        lab.up(
            1,
            CPUS=str(machine.cpus),
            MEM=str(machine.memory),
            NODE=machine.node,
            PARTITION=f"{machine.partition or 'chosen Default=YES'} {limits}",
            CONF="EnforcePartLimits=ALL",
        )
        yield request.param, machine, lab


@pytest.fixture
def script(mirrored, monkeypatch) -> str:
    """The site's job script, for a whole node."""
    return made(mirrored[0], monkeypatch)


def made(name: str, monkeypatch, *settings: str) -> str:
    for variable, value in VARIABLES.items():
        monkeypatch.setenv(variable, value)
    options = [word for setting in settings for word in ("--set", setting)]
    path = str(packaged_folder("site-configs") / f"{name}.toml")
    done = CliRunner().invoke(cli, ["site", "script", path, *options], catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout


def answer(lab, folder: Path, script: str) -> tuple[bool, str]:
    """Whether ``sbatch`` takes a script, and what it says."""
    path = folder / "job.sh"
    path.write_text(script)
    done = subprocess.run(
        lab.command("sbatch", "--test-only", path), capture_output=True, text=True, check=False, timeout=60
    )
    return done.returncode == 0, done.stdout + done.stderr


def edited(script: str, pattern: str, text: str) -> str:
    """The script with its one directive of a kind changed."""
    changed, count = re.subn(rf"^#SBATCH {pattern}$", f"#SBATCH {text}", script, flags=re.MULTILINE)
    assert count == 1
    return changed


def test_every_slurm_site_is_in_this_test():
    contents = {path.stem: tomllib.loads(path.read_text()) for path in packaged_folder("site-configs").glob("*.toml")}
    slurm = {name for name, content in contents.items() if content.get("scheduler", {}).get("kind") == "slurm"}
    assert slurm == set(MACHINES)


def test_a_script_is_accepted_for_the_whole_node(mirrored, script, tmp_path):
    _, machine, lab = mirrored
    taken, said = answer(lab, tmp_path, script)
    assert taken, said
    assert f"using {machine.cpus} processors on nodes node1 in partition {machine.partition or 'chosen'}" in said


def test_the_longest_walltime_is_accepted(mirrored, monkeypatch, tmp_path):
    name, machine, lab = mirrored
    longest = made(name, monkeypatch, f'scheduler.walltime="{machine.hours}:00:00"')
    taken, said = answer(lab, tmp_path, longest)
    assert taken, said


def test_one_core_too_many_is_refused(mirrored, script, tmp_path):
    _, machine, lab = mirrored
    taken, said = answer(lab, tmp_path, edited(script, r"--cpus-per-task=\d+", f"--cpus-per-task={machine.cpus + 1}"))
    assert not taken
    assert re.search(TOO_MUCH, said)


def test_one_megabyte_too_much_is_refused(mirrored, script, tmp_path):
    _, machine, lab = mirrored
    if "--mem=" not in script:
        script = edited(script, "-n 1", "-n 1 --mem=0M").replace(" --mem", "\n#SBATCH --mem")
    taken, said = answer(lab, tmp_path, edited(script, r"--mem=\d+M", f"--mem={machine.memory}M"))
    assert taken, said
    taken, said = answer(lab, tmp_path, edited(script, r"--mem=\d+M", f"--mem={machine.memory + 1}M"))
    assert not taken
    assert re.search(TOO_MUCH, said)


def test_one_minute_too_long_is_refused(mirrored, script, tmp_path):
    _, machine, lab = mirrored
    taken, said = answer(lab, tmp_path, edited(script, r"-t \S+", f"-t {machine.hours}:01:00"))
    assert not taken
    assert "Requested time limit is invalid" in said


def test_another_queue_or_feature_is_refused(mirrored, script, tmp_path):
    """What the file says about these is needed."""
    _, machine, lab = mirrored
    for pattern, text in ((r"-p \S+", "-p nowhere"), (r"--constraint=\S+", "--constraint=gpu")):
        if re.search(f"^#SBATCH {pattern}$", script, re.MULTILINE):
            assert not answer(lab, tmp_path, edited(script, pattern, text))[0]
    if machine.partition:
        assert "No partition specified" in answer(lab, tmp_path, edited(script, r"-p \S+", "--comment=x"))[1]


@pytest.mark.slow
def test_the_script_that_is_shown_is_the_one_that_is_submitted(on_login):
    shown = on_login("site", "script", "generic-slurm", "fwi.toml", "--nodes", "1")
    done = on_login("run", "fwi.toml", "--site", "generic-slurm", "--nodes", "1", "--set", "inversion.iterations=1")
    assert (shown.returncode, done.returncode) == (0, 0), shown.stderr + done.stderr
    (submitted,) = (on_login.folder / "runs" / "fwi" / "logs").glob("*.sh")
    assert re.sub(r"tls://[\d.]+:\d+", "tls://DRIVER:PORT", submitted.read_text()) == shown.stdout
