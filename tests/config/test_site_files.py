"""Every site file that is shipped loads, says where it is from, and gives a job script within its own limits."""

from __future__ import annotations

import math
import os
import re
import shlex
import subprocess
import tomllib
from datetime import date

import pytest
from click.testing import CliRunner

from hpcfwi.cli.main import cli
from hpcfwi.config.site import load_site
from hpcfwi.io import packaged_folder

FILES = {path.stem: path for path in sorted(packaged_folder("site-configs").glob("*.toml"))}
GENERIC = ("generic-pbs", "generic-slurm")
MACHINES = [name for name in FILES if name not in (*GENERIC, "workstation")]
VARIABLES = {"PROJECT": "ab12", "USER": "ada", "SCRATCH": "/scratch/ada", "PSCRATCH": "/pscratch/a/ada"}


@pytest.fixture(autouse=True)
def on_a_login_node(monkeypatch, tmp_path):
    """A shell that has the variables of a machine, but no settings of Dask or PBS."""
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("PBS_ACCOUNT", raising=False)
    monkeypatch.chdir(tmp_path)


class Script:
    """What a job script says, read from its text alone."""

    def __init__(self, name: str) -> None:
        done = CliRunner().invoke(cli, ["site", "script", str(FILES[name])], catch_exceptions=False)
        self.text = done.stdout
        self.lines = self.text.splitlines()
        self.directives = [match[1] for match in re.finditer(r"^#(?:SBATCH|PBS) (.*)$", self.text, re.MULTILINE)]
        self.variables = dict(re.findall(r"^export ([A-Z_]+)=(\S*)$", self.text, re.MULTILINE))
        self.worker = shlex.split(self.lines[-1])

    def asked(self, *patterns: str) -> str | None:
        """What the one directive says that looks like one of the patterns."""
        found = [match[1] for line in self.directives for pattern in patterns if (match := re.search(pattern, line))]
        assert len(found) < 2, found
        return found[0] if found else None

    def option(self, name: str, default: str) -> str:
        """A word of the worker's command line."""
        return self.worker[self.worker.index(name) + 1] if name in self.worker else default

    @property
    def cpus(self) -> int:
        return int(self.asked(r"^--cpus-per-task=(\d+)$", r"\bncpus=(\d+)") or 0)

    @property
    def memory(self) -> int | None:
        """Bytes."""
        found = self.asked(r"^--mem=(\d+)M$", r"\bmem=(\d+)mb\b")
        return int(found) * 2**20 if found else None

    @property
    def walltime(self) -> str:
        return self.asked(r"^-t (\S+)$", r"^-l walltime=(\S+)$") or ""

    @property
    def processes(self) -> int:
        return int(self.option("--nworkers", "1"))

    @property
    def threads(self) -> int:
        return int(self.variables["OMP_NUM_THREADS"])

    @property
    def limit(self) -> float:
        """Bytes that a process may use."""
        number, unit = re.fullmatch(r"([\d.]+)(GiB|MiB)", self.option("--memory-limit", "")).groups()
        return float(number) * {"GiB": 2**30, "MiB": 2**20}[unit]


def seconds(walltime: str) -> int:
    hours, minutes, rest = map(int, walltime.split(":"))
    return 3600 * hours + 60 * minutes + rest


def said(name: str) -> dict:
    """The file, read without the code that is tested."""
    return tomllib.loads(FILES[name].read_text(encoding="utf-8"))


def test_the_documented_sites_are_packaged():
    assert set(FILES) >= {
        *("workstation", "generic-slurm", "generic-pbs"),
        *("archer2", "perlmutter", "lumi-c", "stampede3", "marenostrum5", "gadi", "aitken", "derecho"),
    }


@pytest.mark.parametrize("name", FILES)
def test_a_file_loads_and_describes_itself(name):
    config = load_site(name).config
    assert load_site(name).path == FILES[name]
    assert 10 < len(config.description) <= 120
    assert all(len(line) <= 120 for line in FILES[name].read_text().splitlines())


@pytest.mark.parametrize("name", MACHINES)
def test_a_machine_has_its_source_and_was_not_tried(name):
    content = said(name)
    assert content["tried"] is False
    assert re.search(r"https://|github\.com/", content["source"])
    assert date.fromisoformat(content["read"]) >= date(2026, 1, 1)
    assert content["scheduler"]["kind"] in ("slurm", "pbs")
    assert content["scheduler"]["max_walltime"]
    assert {"cores", "memory"} <= set(content["node"])
    assert content["devito"]["target"]


@pytest.mark.parametrize("name", MACHINES)
def test_a_machine_says_which_variables_it_needs(name, monkeypatch):
    names = set(re.findall(r"\$\{(\w+)\}", FILES[name].read_text())) - {"PBS_JOBFS"}
    assert names <= set(VARIABLES)
    for variable in VARIABLES:
        monkeypatch.delenv(variable)
    done = CliRunner().invoke(cli, ["site", "show", name])
    assert re.search(
        rf"{name}\.toml: one mistake\n  [a-z_.]+: needs the variable ({'|'.join(names)}), ", str(done.exception)
    )


@pytest.mark.parametrize("name", GENERIC)
def test_a_generic_job_is_small_and_requests_nothing_special(name):
    script = Script(name)
    assert (script.processes, script.threads, script.cpus) == (1, 1, 1)
    assert script.memory is not None
    assert script.memory <= 2e9
    assert script.limit <= 2e9
    assert not [line for line in script.directives if re.match(r"-p |--partition|-q |--qos|-A |--account", line)]
    assert not {"queue", "account", "qos", "directives", "resources"} & set(said(name)["scheduler"])


@pytest.mark.parametrize("name", [*GENERIC, *MACHINES])
def test_a_script_is_one_for_bash(name):
    script = Script(name)
    checked = subprocess.run(["bash", "-n"], input=script.text, capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")
    assert script.lines[0] in ("#!/bin/bash", "#!/bin/bash -l")
    # directives after the first command would be comments
    commands = [number for number, line in enumerate(script.lines) if line and not line.startswith("#")]
    directives = [number for number, line in enumerate(script.lines) if line.startswith(("#SBATCH", "#PBS"))]
    assert max(directives) < min(commands)
    assert "None" not in script.text
    assert "{" not in "".join(script.directives)


@pytest.mark.parametrize("name", MACHINES)
def test_a_script_keeps_the_limits_of_its_file(name):
    script, content = Script(name), said(name)
    node, scheduler = content["node"], content["scheduler"]
    each = node.get("hardware_threads", 1)
    # without a run to share out, it takes the whole node
    assert script.processes * script.threads * each == script.cpus == node["cores"] * each
    assert int(script.variables["HPCFWI_PROCESSES"]) == script.processes
    assert int(script.variables["HPCFWI_THREADS"]) == script.threads
    assert 60 <= seconds(script.walltime) <= seconds(scheduler["max_walltime"])
    # dask-jobqueue writes a process's limit with two digits after the point
    assert script.processes * (script.limit - 0.005 * 2**30) <= node["memory"] * 1e9
    if scheduler.get("request_memory", True):
        assert math.isclose(script.memory, node["memory"] * 1e9, rel_tol=1e-4)
        assert script.memory <= node["memory"] * 1e9
    else:
        assert script.memory is None
        assert not re.search(r"\bmem\b", "".join(script.directives))


@pytest.mark.parametrize("name", MACHINES)
def test_a_script_has_the_settings_of_its_file(name):
    script, content = Script(name), said(name)
    scheduler = content["scheduler"]
    slurm = scheduler["kind"] == "slurm"
    assert script.asked(r"^-p (.*)$" if slurm else r"^-q (.*)$") == scheduler.get("queue")
    account = scheduler.get("account")
    assert script.asked(r"^-A (.*)$") == (os.path.expandvars(account) if account else None)
    assert script.asked(r"^--qos=(.*)$") == scheduler.get("qos")
    given = [os.path.expandvars(directive) for directive in scheduler.get("directives", [])]
    assert [line for line in script.directives if line in given] == given
    assert script.asked(r"^-t (.*)$" if slurm else r"^-l walltime=(.*)$") == scheduler["walltime"]
    modules = [line.split()[2] for line in script.lines if line.startswith("module load ")]
    assert modules == content["environment"].get("modules", [])
    assert script.variables["HPCFWI_TARGET"] == content["devito"]["target"]
    assert script.variables["OMP_PLACES"] == content["openmp"]["places"]
    assert script.variables["OMP_PROC_BIND"] == content["openmp"]["bind"]
    network = content["network"]
    assert script.option("--interface", "") == network.get("worker_interface", network.get("interface", ""))
    scratch = content["filesystem"].get("scratch")
    assert (f'export TMPDIR="{scratch}"' in script.lines) == (scratch is not None)
    runs = os.path.expandvars(content["filesystem"]["runs"])
    assert f'"{runs}/run/logs/' in " ".join(script.directives)
