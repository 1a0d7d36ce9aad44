"""Site files: found by name or path, checked, and their lines found again for messages."""

import re

import pytest

from hpcfwi.config.parsing import find_line
from hpcfwi.config.site import find_site, load_site
from hpcfwi.errors import InputError

MINE = """# a cluster
description = "mine"  # of mine

[scheduler]
kind = "slurm"
account = "${HPCFWI_TEST_ACCOUNT}"
directives = ["--comment=${HPCFWI_TEST_ACCOUNT}", "--exclusive"]

[node]
  cores = 8  # physical
memory = 16

["openmp"]
"variables" = { KMP_BLOCKTIME = "${HPCFWI_TEST_LATER}" }
strict=true

[environment]
commands = ["source ${HPCFWI_TEST_LATER}/activate"]

[filesystem]
runs = "/scratch/${HPCFWI_TEST_ACCOUNT}/runs"
scratch = "${HPCFWI_TEST_LATER}/tmp"
"""


def load(*settings: str):
    return load_site("workstation", [setting.removeprefix("site.") for setting in settings]).config


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """Path of a site file, whose variables are set but for those of the node."""
    monkeypatch.setenv("HPCFWI_TEST_ACCOUNT", "ab12")
    monkeypatch.delenv("HPCFWI_TEST_LATER", raising=False)
    path = tmp_path / "mine.toml"
    path.write_text(MINE)
    return path


def mistake(*settings: str) -> str:
    """The one mistake that is told of these settings."""
    with pytest.raises(InputError) as caught:
        load_site("workstation", settings)
    first, line = str(caught.value).splitlines()
    assert first.endswith("workstation.toml with --set: one mistake")
    return line.strip()


def test_settings_reach_the_site():
    assert load("site.worker.threads=2").worker.threads == 2
    assert load().worker.threads == "auto"


@pytest.mark.parametrize("setting", ["memory=-1", "memory=0", "memory=much", "processes=0", "threads=1.5"])
def test_workers_need_positive_numbers_or_auto(setting):
    with pytest.raises(
        InputError, match=rf"workstation\.toml with --set: .*\n  worker\.{setting.partition('=')[0]}: is "
    ):
        load(f"site.worker.{setting}")


def test_a_site_that_is_not_there_is_told_with_those_that_are():
    with pytest.raises(InputError, match=r"--site moon: there is no such site; there are .*workstation"):
        find_site("moon")


def test_own_sites_come_first(tmp_path, monkeypatch):
    (tmp_path / "workstation.toml").write_text("description = 'mine'")
    monkeypatch.setenv("HPCFWI_SITES", str(tmp_path))
    assert load().description == "mine"


def test_an_unknown_key_is_told_with_those_that_there_are():
    told = mistake("scheduler.queu=long")
    assert told.startswith("scheduler.queu: unknown key; there may be kind, queue, account, qos, walltime,")
    assert told.endswith('Did you mean "queue"?')


@pytest.mark.parametrize("walltime", ["12", "12:00", "1-00:00:00", "00:60:00", "00:00:59", "soon", "-1:00:00"])
def test_a_walltime_is_hours_minutes_seconds(walltime):
    assert mistake(f'scheduler.walltime="{walltime}"') == (
        f'scheduler.walltime: is "{walltime}"; it should be hours:minutes:seconds, a minute or more, for instance "12:00:00"'
    )


def test_a_walltime_may_be_what_the_queue_allows_and_no_more():
    at_most = 'scheduler.max_walltime="48:00:00"'
    assert load('scheduler.walltime="48:00:00"', at_most).scheduler.walltime == "48:00:00"
    told = mistake('scheduler.walltime="100:00:00"', at_most)
    assert told.endswith("walltime: is 100:00:00, but the queue allows 48:00:00 (max_walltime)")


def test_the_fewest_jobs_are_not_more_than_the_most():
    assert load("scheduler.jobs=[1, 3]").scheduler.job_limit == 3
    told = mistake("scheduler.jobs=[3, 1]")
    assert told.endswith("jobs: is [3, 1]; the first number should not be larger than the second")


@pytest.mark.parametrize("jobs", ["9", "[1, 9]"])
def test_jobs_are_not_more_than_a_user_may_have(jobs):
    assert load(f"scheduler.jobs={jobs}", "scheduler.max_jobs=9").scheduler.job_limit == 9
    told = mistake(f"scheduler.jobs={jobs}", "scheduler.max_jobs=8")
    assert told.endswith("jobs: is 9, but a user may have 8 (max_jobs)")


@pytest.mark.parametrize("resources", ["ncpus={cores}", "ncpus={}", "ncpus={cpus", "ncpus=cpus}", "ncpus={cpus!r}"])
def test_braces_in_resources_hold_cpus_or_memory(resources):
    told = mistake('scheduler.kind="pbs"', f'scheduler.resources="{resources}"')
    assert told.endswith(f'resources: is "{resources}"; in braces there may be {{cpus}} and {{memory}} only')


@pytest.mark.parametrize(("key", "kind"), [("resources", "slurm"), ("qos", "pbs")])
def test_what_another_batch_system_has_is_told(key, kind):
    assert f"{key}: goes with kind = " in mistake(f"scheduler.kind={kind}", f"scheduler.{key}=a")


def test_variables_are_replaced(mine):
    config = load_site(str(mine)).config
    assert config.scheduler.account == "ab12"
    assert config.scheduler.directives == ("--comment=ab12", "--exclusive")
    assert config.filesystem.runs == "/scratch/ab12/runs"


def test_variables_of_the_node_are_left_to_its_shell(mine):
    config = load_site(str(mine)).config
    assert config.environment.commands == ("source ${HPCFWI_TEST_LATER}/activate",)
    assert config.filesystem.scratch == "${HPCFWI_TEST_LATER}/tmp"
    assert config.openmp.variables == {"KMP_BLOCKTIME": "${HPCFWI_TEST_LATER}"}


@pytest.mark.parametrize("value", [None, ""])
def test_a_variable_that_is_not_set_is_told_with_its_key(mine, monkeypatch, value):
    monkeypatch.delenv("HPCFWI_TEST_ACCOUNT")
    if value is not None:
        monkeypatch.setenv("HPCFWI_TEST_ACCOUNT", value)
    with pytest.raises(InputError) as caught:
        load_site(str(mine))
    first, line = str(caught.value).splitlines()
    assert first == f"{mine}: one mistake"
    assert line.startswith("  scheduler.account: needs the variable HPCFWI_TEST_ACCOUNT, which is not set; ")
    assert "--set site.scheduler.account=" in line


def test_a_key_that_is_given_needs_no_variable(mine, monkeypatch):
    monkeypatch.delenv("HPCFWI_TEST_ACCOUNT")
    given = ["scheduler.account=x", "scheduler.directives=[]", "filesystem.runs=/r"]
    assert load_site(str(mine), given).config.scheduler.account == "x"


@pytest.mark.parametrize(
    ("key", "line", "content"),
    [
        ("description", 2, 'description = "mine"  # of mine'),
        ("scheduler.kind", 5, 'kind = "slurm"'),
        ("node.cores", 10, "cores = 8  # physical"),
        ("openmp.variables", 14, '"variables" = { KMP_BLOCKTIME = "${HPCFWI_TEST_LATER}" }'),
        ("openmp.strict", 15, "strict=true"),
    ],
)
def test_the_line_of_a_key_is_found(mine, key, line, content):
    assert find_line(mine, key) == (line, content)
    assert load_site(str(mine)).where(key) == f"{mine}, line {line}: {content}"


def test_where_a_key_is_from_is_known_without_a_line_too(mine):
    assert find_line(mine, "kind") is None
    assert find_line(mine.with_name("nothing.toml"), "node.cores") is None
    site = load_site(str(mine), ["node.memory=20"])
    assert site.where("scheduler.qos") == f"scheduler.qos (not set in {mine})"
    assert site.where("node.memory") == "--set site.node.memory"


@pytest.mark.parametrize(
    ("worker", "told"),
    [
        (
            "processes=3\nthreads=3",
            "worker.processes: 3 processes of 3 threads need 9 cores, a node has 8 (node.cores)",
        ),
        ("processes=3\nmemory=6", "worker.memory: 3 processes of 6 GB: 18 GB, a node has 16 (node.memory)"),
        ("memory=17", "worker.memory: 1 process of 17 GB: 17 GB, a node has 16 (node.memory)"),
    ],
)
def test_workers_fit_on_their_node(mine, worker, told):
    mine.write_text(f"{MINE}\n[worker]\n{worker}\n")
    with pytest.raises(InputError, match=re.escape(told)):
        load_site(str(mine))


@pytest.mark.parametrize("parts", ["sockets", "numa_domains"])
def test_parts_of_a_node_divide_its_cores(parts):
    told = mistake("node.cores=8", f"node.{parts}=3")
    assert told.endswith(f"{parts}: is 3, which does not divide the 8 cores")
