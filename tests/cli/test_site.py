"""``hpcfwi site list``, ``show`` and ``script``."""

import re
import tomllib

import pytest

from hpcfwi.cli.main import command
from hpcfwi.cluster.jobs import JobContext, job_script
from hpcfwi.cluster.layout import Layout
from hpcfwi.cluster.network import private_security
from hpcfwi.config.site import load_site
from hpcfwi.execution.affinity import PRELOAD_MODULES

OWN = """
description = "of our institute"
[scheduler]
kind = "slurm"
account = "${HPCFWI_TEST_ACCOUNT}"
jobs = [1, 4]
[node]
cores = 16
memory = 64
[network]
tls = false
"""


@pytest.fixture
def site(capsys, tmp_path, monkeypatch):
    """Run ``hpcfwi site`` in a folder with the small problem and one site of the user; returns code, out and err."""
    (tmp_path / "sites").mkdir()
    (tmp_path / "sites" / "own.toml").write_text(OWN)
    monkeypatch.setenv("HPCFWI_SITES", str(tmp_path / "sites"))
    monkeypatch.setenv("HPCFWI_TEST_ACCOUNT", "ab12")
    monkeypatch.delenv("PBS_ACCOUNT", raising=False)
    monkeypatch.chdir(tmp_path)

    def called(*words):
        code = command(["site", *map(str, words)])
        return code, *capsys.readouterr()

    return called


def test_list_names_every_site_with_its_file(site, tmp_path):
    code, out, err = site("list")
    assert (code, err) == (0, "")
    rows = {line.split()[0]: line for line in out.splitlines() if line.strip()}
    assert re.search(r"Any cluster with Slurm, .* slurm +yes +/.*generic-slurm\.toml$", rows["generic-slurm"].rstrip())
    assert re.search(r"Derecho, .* pbs +no +/.*derecho\.toml$", rows["derecho"].rstrip())
    own = str(tmp_path / "sites" / "own.toml")
    assert re.search(rf"of our institute +slurm +yes +{re.escape(own)}$", rows["own"].rstrip())


def test_list_keeps_a_long_path_in_one_line(site, tmp_path, monkeypatch):
    folder = tmp_path / ("deep" * 40) / "sites"
    folder.mkdir(parents=True)
    (folder / "own.toml").write_text(OWN)
    monkeypatch.setenv("HPCFWI_SITES", str(folder))
    assert str(folder / "own.toml") in site("list")[1]


def test_list_gives_in_one_line_why_a_site_cannot_be_used(site, tmp_path, monkeypatch):
    monkeypatch.delenv("HPCFWI_TEST_ACCOUNT")
    for name, content in {
        "broken": "[scheduler\n",
        "wrong": 'description = "x"\nnode.cores = 0\nworker.threads = 0\n',
        "strange": 'scheduler.kind = "lsf"\n',
        "odd": "scheduler = 1\ntried = 2\ndescription = 3",
    }.items():
        (tmp_path / "sites" / f"{name}.toml").write_text(content)
    (tmp_path / "sites" / "folder.toml").mkdir()
    code, out, _ = site("list")
    assert code == 0
    table, _, below = out.partition("\n\n")
    assert {"own", "broken", "wrong", "odd", "folder", "workstation"} <= {
        line.split()[0] for line in table.splitlines()
    }
    why = dict(line.strip().split(": ", 1) for line in below.splitlines()[1:])
    assert why["own"] == "scheduler.account: needs the variable HPCFWI_TEST_ACCOUNT, which is not set"
    assert why["broken"].startswith("is not valid TOML: ")
    assert why["wrong"] == "node.cores: is 0; it should be at least 1 (physical cores) (and 1 more)"
    assert why["odd"].endswith("(and 2 more)")
    assert why["strange"].startswith('scheduler.kind: is "lsf"; it should be one of "none", "slurm", "pbs"')
    assert why["folder"].startswith("cannot be read (")
    assert "workstation" not in why


def test_show_is_the_same_site_again(site, tmp_path):
    code, out, _ = site("show", "own")
    assert code == 0
    assert out.splitlines()[0] == f"# {tmp_path / 'sites' / 'own.toml'}"
    (tmp_path / "again.toml").write_text(out)
    assert load_site("./again.toml").config == load_site("own").config
    content = tomllib.loads(out)
    assert content["scheduler"]["account"] == "ab12"
    assert content["scheduler"]["replacements"] == 10
    assert content["worker"]["processes"] == "auto"
    assert "queue" not in content["scheduler"]


@pytest.mark.parametrize("prefix", ["", "site."])
def test_show_takes_settings(site, prefix):
    code, out, _ = site("show", "own", "--set", f"{prefix}worker.threads=4", "--set", f"{prefix}scheduler.queue=long")
    assert code == 0
    assert out.splitlines()[0].endswith("own.toml with --set scheduler.queue, worker.threads")
    content = tomllib.loads(out)
    assert content["worker"]["threads"] == 4
    assert content["scheduler"]["queue"] == "long"


def test_script_takes_a_whole_node(site, tmp_path):
    code, out, _ = site("script", "own")
    assert code == 0
    place = JobContext("run", tmp_path / "runs" / "run" / "logs", None, PRELOAD_MODULES)
    assert out == job_script(load_site("own"), Layout(16, 1, 4 * 10**9), place)
    assert "#SBATCH --cpus-per-task=16\n" in out


@pytest.mark.parametrize(("nodes", "processes"), [((), 1), (("--nodes", "2"), 2), (("--nodes", "1"), 3)])
def test_script_of_a_run_has_its_layout(site, fwi_toml, nodes, processes):
    """Three shots, on up to four jobs as the site says."""
    code, out, _ = site("script", "own", fwi_toml, *nodes)
    assert code == 0
    assert f"export HPCFWI_PROCESSES={processes}\n" in out
    assert "#SBATCH -J hpcfwi-fwi\n" in out
    assert '/runs/fwi/logs/%j.log"\n' in out


def test_script_takes_settings_of_both_files(site, fwi_toml):
    ours = ("--set", "acquisition.sources.count=8", "--set", "worker.threads=2", "--set", "site.scheduler.jobs=1")
    code, out, _ = site("script", "own", fwi_toml, *ours)
    assert code == 0
    assert "export HPCFWI_PROCESSES=8\n" in out
    assert "export OMP_NUM_THREADS=2\n" in out


def test_script_names_the_keys_that_a_run_would_use(site, fwi_toml, tmp_path):
    code, out, _ = site("script", "own", fwi_toml, "--set", "network.tls=true")
    assert code == 0
    run = tmp_path / "runs" / "fwi"
    assert not run.exists()
    with private_security(run / "tls") as security:
        real = load_site("own", ["network.tls=true"])
        assert out == job_script(
            real, Layout(1, 16, 64 * 10**9), JobContext("fwi", run / "logs", security, PRELOAD_MODULES)
        )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("show", "moon"), "moon: no such site; the sites are "),
        (("show", "own", "--set", "worker.thread=1"), 'Did you mean "threads"?'),
        (("show", "own", "--set", "threads"), "--set threads: is not of the form section.key=value"),
        (
            ("script", "workstation"),
            "the site workstation has no batch system (scheduler.kind), so there is no job script",
        ),
        (("script", "own", "--set", "solver.layer=1"), "solver: unknown key; the keys are description, source,"),
        (("script", "own", "fwi.toml", "--set", "solver.laier=1"), 'Did you mean "layer"?'),
        (("script", "own", "nothing.toml"), "nothing.toml: no such file"),
        (("script", "own", "fwi.toml", "--set", "node.memory=0.2"), "a node of own has 0.20 GB"),
        (("script", "own", "--nodes", "0"), "Invalid value for '--nodes'"),
        (("script",), "Missing argument 'NAME'"),
    ],
)
@pytest.mark.usefixtures("fwi_toml")
def test_a_mistake_is_one_message(site, words, message):
    code, out, err = site(*words)
    assert (code, out) == (2, "")
    assert message in err
    assert "Traceback" not in err
