"""Which batch systems are known, which one a site uses, and the time limit of the job that a process runs in."""

from __future__ import annotations

import asyncio
import math
import sys

import pytest

from hpcfwi.batch.pbs import PBS
from hpcfwi.batch.registry import (
    CurrentJob,
    batch_systems,
    current_batch_system,
    current_start,
    site_batch_system,
)
from hpcfwi.batch.slurm import Slurm
from hpcfwi.config.site import load_site
from hpcfwi.errors import InputError


@pytest.fixture
def site(tmp_path):
    """Writes a site file."""

    def write(**keys):
        path = tmp_path / "mine.toml"
        path.write_text("[scheduler]\n" + "".join(f'{key} = "{value}"\n' for key, value in keys.items()))
        return load_site(str(path))

    return write


def test_a_site_names_its_batch_system():
    assert isinstance(site_batch_system(load_site("generic-slurm")), Slurm)
    assert isinstance(site_batch_system(load_site("generic-pbs")), PBS)
    assert site_batch_system(load_site("workstation")) is None


def test_an_unknown_batch_system_is_refused_with_those_that_are_known(site):
    with pytest.raises(InputError) as caught:
        site_batch_system(site(kind="lsf"))
    assert "mine.toml: one mistake" in str(caught.value)
    assert 'scheduler.kind: is "lsf"; it should be one of "none", "slurm", "pbs"' in str(caught.value)


@pytest.mark.parametrize(("key", "kind", "name"), [("resources", "slurm", "Slurm"), ("qos", "pbs", "PBS")])
def test_a_key_that_a_batch_system_does_not_have_is_refused(site, key, kind, name):
    with pytest.raises(InputError, match=rf"scheduler.{key}: {name} does not support it; use scheduler.directives"):
        site_batch_system(site(kind=kind, **{key: "a"}))


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """Installs a package with an entry point for a batch system."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def install(content):
        (tmp_path / "toy_batch.py").write_text(content)
        metadata = tmp_path / "toy_batch-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-batch\nVersion: 1.0\n")
        (metadata / "entry_points.txt").write_text("[hpcfwi.batch_systems]\ntoy = toy_batch:Toy\n")

    batch_systems.cache_clear()
    yield install
    batch_systems.cache_clear()
    sys.modules.pop("toy_batch", None)


def test_other_packages_add_batch_systems(plugin, site):
    plugin("from hpcfwi.batch.slurm import Slurm\nclass Toy(Slurm):\n    name = 'Toy'\n")
    assert str(site_batch_system(site(kind="toy")).name) == "Toy"


@pytest.mark.parametrize("content", ["import not_installed\n", "class Toy:\n    pass\n", "Toy = 1\n"])
def test_a_batch_system_that_cannot_be_loaded_is_refused_with_its_package(plugin, content):
    plugin(content)
    with pytest.raises(InputError, match=r"the batch system toy \(toy_batch:Toy, entry point of toy-batch\) cannot be"):
        batch_systems()


def test_the_variables_of_a_job_say_which_batch_system_runs_it():
    assert isinstance(current_batch_system({"SLURM_JOB_ID": "7"}), Slurm)
    assert isinstance(current_batch_system({"PBS_JOBID": "7.login"}), PBS)
    assert current_batch_system({}) is None


@pytest.mark.parametrize(
    ("variables", "start"),
    [
        ({}, ("", 0)),
        ({"SLURM_JOB_ID": "7"}, ("7", 0)),
        ({"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "2"}, ("7", 2)),
        ({"PBS_JOBID": "7.login", "HPCFWI_SUCCESSOR": "3"}, ("7.login", 3)),
        ({"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "often"}, ("7", 0)),
    ],
)
def test_a_start_is_identified_by_its_job_and_restart_count(monkeypatch, variables, start):
    for name in ("SLURM_JOB_ID", "SLURM_RESTART_COUNT", "PBS_JOBID", "HPCFWI_SUCCESSOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert current_start() == start


def test_without_a_job_or_an_answer_there_is_no_time_limit(tmp_path, monkeypatch):
    assert CurrentJob().seconds_left() == math.inf
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert CurrentJob().seconds_left() == math.inf


@pytest.mark.parametrize(("answer", "wanted"), [("echo '41|RUNNING|None|node1|3:20'", 200), ("exit 1", math.inf)])
def test_the_time_limit_is_that_of_the_current_job(command, answer, wanted, monkeypatch):
    command("squeue", f'case "$*" in *"--jobs=41") {answer} ;; *) exit 3 ;; esac')
    monkeypatch.setenv("SLURM_JOB_ID", "41")
    assert CurrentJob().seconds_left() == pytest.approx(wanted, abs=5)


def test_a_changed_time_limit_is_noticed(command, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "41")
    command("squeue", "echo '41|RUNNING|None|node1|0:20'")
    job = CurrentJob()
    command("squeue", "echo '41|RUNNING|None|node1|1:00:20'")
    assert job.refresh() == pytest.approx(3620, abs=5)
    command("squeue", "exit 1")
    assert job.refresh() == pytest.approx(3620, abs=5)
    command("squeue", "echo '41|RUNNING|None|node1|UNLIMITED'")
    assert job.refresh() == math.inf


def test_a_caller_with_an_event_loop_can_ask_for_the_time_limit(command, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "41")
    command("squeue", "echo '41|RUNNING|None|node1|3:20'")

    async def caller():
        return CurrentJob().seconds_left()

    assert asyncio.run(caller()) == pytest.approx(200, abs=5)
