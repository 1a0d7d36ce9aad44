"""Site files: found by name or path, checked, and quoted in messages."""

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
    """Path of a site file; the variables of the driver are set, those of the node are not."""
    monkeypatch.setenv("HPCFWI_TEST_ACCOUNT", "ab12")
    monkeypatch.delenv("HPCFWI_TEST_LATER", raising=False)
    path = tmp_path / "mine.toml"
    path.write_text(MINE)
    return path


def mistake(*settings: str) -> str:
    """The one mistake that these settings make."""
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


def test_an_unknown_site_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match=r"moon: no such site; the sites are .*workstation"):
        find_site("moon")


def test_sites_of_the_user_come_first(tmp_path, monkeypatch):
    (tmp_path / "workstation.toml").write_text("description = 'mine'")
    monkeypatch.setenv("HPCFWI_SITES", str(tmp_path))
    assert load().description == "mine"


def test_an_unknown_key_is_refused_with_the_known_ones():
    message = mistake("scheduler.queu=long")
    assert message.startswith("scheduler.queu: unknown key; the keys are kind, queue, account, qos, walltime,")
    assert message.endswith('Did you mean "queue"?')


@pytest.mark.parametrize("walltime", ["12", "12:00", "1-00:00:00", "00:60:00", "00:00:59", "soon", "-1:00:00"])
def test_a_walltime_is_hours_minutes_seconds(walltime):
    assert mistake(f'scheduler.walltime="{walltime}"') == (
        f'scheduler.walltime: is "{walltime}"; it should be hours:minutes:seconds, a minute or more, for example "12:00:00"'
    )


def test_a_walltime_is_at_most_that_of_the_queue():
    at_most = 'scheduler.max_walltime="48:00:00"'
    assert load('scheduler.walltime="48:00:00"', at_most).scheduler.walltime == "48:00:00"
    message = mistake('scheduler.walltime="100:00:00"', at_most)
    assert message.endswith("walltime: is 100:00:00, but the queue allows 48:00:00 (max_walltime)")


def test_a_range_of_jobs_is_in_order():
    section = load("scheduler.jobs=[2, 5]").scheduler
    assert section.job_limit == 5
    assert [section.job_count(shots, processes=4) for shots in (1, 8, 9, 20, 21)] == [2, 2, 3, 5, 5]
    assert load("scheduler.jobs=3").scheduler.job_count(1, processes=4) == 3
    message = mistake("scheduler.jobs=[3, 1]")
    assert message.endswith("jobs: is [3, 1]; the first number should not be larger than the second")


@pytest.mark.parametrize("jobs", ["9", "[1, 9]"])
def test_jobs_are_at_most_those_of_a_user(jobs):
    assert load(f"scheduler.jobs={jobs}", "scheduler.max_jobs=9").scheduler.job_limit == 9
    message = mistake(f"scheduler.jobs={jobs}", "scheduler.max_jobs=8")
    assert message.endswith("jobs: is 9, but a user may have 8 (max_jobs)")


@pytest.mark.parametrize("resources", ["ncpus={cores}", "ncpus={}", "ncpus={cpus", "ncpus=cpus}", "ncpus={cpus!r}"])
def test_placeholders_in_resources_are_cpus_and_memory(resources):
    message = mistake('scheduler.kind="pbs"', f'scheduler.resources="{resources}"')
    assert message.endswith(f'resources: is "{resources}"; the only placeholders are {{cpus}} and {{memory}}')


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
def test_an_unset_variable_is_reported_with_its_key(mine, monkeypatch, value):
    monkeypatch.delenv("HPCFWI_TEST_ACCOUNT")
    if value is not None:
        monkeypatch.setenv("HPCFWI_TEST_ACCOUNT", value)
    with pytest.raises(InputError) as caught:
        load_site(str(mine))
    first, line = str(caught.value).splitlines()
    assert first == f"{mine}: one mistake"
    assert line.startswith("  scheduler.account: needs the variable HPCFWI_TEST_ACCOUNT, which is not set; ")
    assert "--set site.scheduler.account=" in line


def test_a_setting_replaces_a_value_with_an_unset_variable(mine, monkeypatch):
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
    assert find_line(mine, key) == f"{line}: {content}"
    assert load_site(str(mine)).where(key) == f"{mine}, line {line}: {content}"


def test_a_key_without_a_line_has_an_origin_too(mine):
    assert find_line(mine, "kind") is None
    assert find_line(mine.with_name("nothing.toml"), "node.cores") is None
    site = load_site(str(mine), ["node.memory=20"])
    assert site.where("scheduler.qos") == f"scheduler.qos (not set in {mine})"
    assert site.where("node.memory") == "--set site.node.memory"


@pytest.mark.parametrize(
    ("worker", "message"),
    [
        (
            "processes=3\nthreads=3",
            "worker.processes: 3 processes of 3 threads need 9 cores, but a node has 8 (node.cores)",
        ),
        ("processes=3\nmemory=6", "worker.memory: 3 processes of 6 GB need 18 GB, but a node has 16 GB (node.memory)"),
        ("memory=17", "worker.memory: 1 process of 17 GB need 17 GB, but a node has 16 GB (node.memory)"),
    ],
)
def test_workers_fit_on_their_node(mine, worker, message):
    mine.write_text(f"{MINE}\n[worker]\n{worker}\n")
    with pytest.raises(InputError, match=re.escape(message)):
        load_site(str(mine))


@pytest.mark.parametrize("parts", ["sockets", "numa_domains"])
def test_parts_of_a_node_divide_its_cores(parts):
    message = mistake("node.cores=8", f"node.{parts}=3")
    assert message.endswith(f"{parts}: is 3, which does not divide the 8 cores")
