"""Any ``fwi.toml``, site file or ``--set`` is used, or refused with the place of the mistake."""

from __future__ import annotations

import os
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tomli_w
from hypothesis import strategies as st

from hpcfwi.batch.registry import site_batch_system
from hpcfwi.cluster.jobs import JobContext, job_script
from hpcfwi.cluster.layout import ResourceRequest, node_layout
from hpcfwi.config.messages import Section, sections_of
from hpcfwi.config.parsing import PATH_KEYS, apply_settings
from hpcfwi.config.run import RunConfig, load_run_config
from hpcfwi.config.site import SiteConfig, load_site
from hpcfwi.errors import InputError
from hpcfwi.model.problem import Problem
from hpcfwi.run.plan import make_plan

ROOT = Path(__file__).parents[2]
JOBS = [path.read_bytes() for path in sorted((ROOT / "jobs").glob("*.toml"))]
SITES = [path.read_bytes() for path in sorted((ROOT / "site-configs").glob("*.toml"))]
# Bytes of the machine that grids are measured against: no case makes a large one.
SMALL_MACHINE = 2_000_000
FILES = """
[grid]
spacing = [20.0, 20.0]
shape = [31, 31]
[model]
kind = "file"
file = "../../inputs/v.npy"
[initial]
kind = "file"
file = "../../inputs/v.bin"
shape = [31, 31]
[data]
recording_time = 100.0
geometry = "../../inputs/geometry.csv"
file = "../../inputs/gathers"
[wavelet]
kind = "file"
file = "../../inputs/w.txt"
sample_interval = 20.0
[inversion]
bounds = [2.0, 3.5]
frozen.mask_file = "../../inputs/mask.npy"
"""
DEEP = """
[grid]
spacing = [50.0, 50.0, 50.0]
shape = [11, 12, 13]
[model]
kind = "layers"
velocities = [2.0, 3.0]
interfaces = [200.0]
[initial]
kind = "smooth"
[acquisition]
sources = {first = [100.0, 100.0, 50.0], last = [400.0, 100.0, 50.0], count = 3}
receivers = {first = [0.0, 0.0, 50.0], last = [500.0, 550.0, 50.0], count = [3, 4, 1]}
[data]
recording_time = 200.0
[wavelet]
kind = "ricker"
peak_frequency = 4.0
[inversion]
bounds = [1.5, 4.0]
"""


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Files that a configuration may name, good and bad ones, on a machine with little memory."""
    folder = tmp_path / "inputs"
    (folder / "gathers").mkdir(parents=True)
    np.save(folder / "v.npy", np.full((31, 31), 2.5))
    np.save(folder / "mask.npy", np.eye(31, dtype=bool))
    np.save(folder / "gathers" / "0.npy", np.zeros((26, 2)))
    np.save(folder / "complex.npy", np.zeros((31, 31), dtype=complex))
    np.full((31, 31), 2.5, dtype="<f4").tofile(folder / "v.bin")
    (folder / "w.txt").write_text("0\n1\n-1\n0\n0\n")
    (folder / "geometry.csv").write_text("shot,source_x,source_z,receiver_x,receiver_z\n0,20,20,40,40\n0,20,20,60,40\n")
    (folder / "positions.csv").write_text("x,z\n20,20\n40,20\n")
    (folder / "nothing").write_bytes(b"")
    (folder / "zeros.csv").symlink_to("/dev/zero")
    (folder / "zeros.npy").symlink_to("/dev/zero")
    (folder / "loop").symlink_to("loop")
    os.mkfifo(folder / "pipe")
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(total=SMALL_MACHINE))
    return [f"../../inputs/{path.name}" for path in folder.iterdir()]


def keys_of(section: type[Section], path: str = "") -> Iterator[str]:
    """Every key that a configuration may have, with its sections, and the sections themselves."""
    for name, field in section.model_fields.items():
        below = f"{path}.{name}".lstrip(".")
        yield below
        for inner in sections_of(field.annotation):
            yield from keys_of(inner, below)


def write(path: Path, content: dict) -> None:
    """As TOML, without what that cannot say."""
    path.write_text(tomli_w.dumps(without_none(content)), encoding="utf-8", errors="surrogatepass")


def without_none(value: object) -> object:
    if isinstance(value, dict):
        return {key: without_none(item) for key, item in value.items() if item is not None}
    return [without_none(item) for item in value if item is not None] if isinstance(value, list) else value


def changed(originals: list[bytes], section: type[Section], values: st.SearchStrategy) -> st.SearchStrategy[dict]:
    """Sound configurations with a few keys, known ones, of other values."""
    keys = st.sampled_from(sorted(set(keys_of(section))))
    changes = st.lists(st.tuples(keys.map(lambda key: key.split(".")), values), min_size=1, max_size=4)
    return st.builds(over, st.sampled_from([tomllib.loads(text.decode()) for text in originals]), changes)


def over(content: dict, changes: list[tuple[list[str], object]]) -> dict:
    for keys, value in changes:
        parents = [content := dict(content)]
        for key in keys[:-1]:
            inner = parents[-1].get(key)
            parents[-1][key] = dict(inner) if isinstance(inner, dict) else {}
            parents.append(parents[-1][key])
        parents[-1][keys[-1]] = value
    return content


def plan(path: Path, settings: tuple[str, ...] = ()) -> None:
    """Everything that ``hpcfwi plan`` does, and the identity of the problem of a run folder."""
    problem = Problem.from_config(load_run_config(path, settings))
    assert make_plan(problem).rows
    assert len(problem.digest) == 40


@pytest.mark.usefixtures("inputs")
@pytest.mark.parametrize("text", [FILES, DEEP])
def test_the_configurations_are_valid_before_they_are_damaged(tmp_path, text):
    path = tmp_path / "cases" / "one" / "fwi.toml"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    plan(path)


@pytest.mark.usefixtures("inputs")
@pytest.mark.cases(1500)
def test_a_damaged_run_configuration_is_planned_or_refused(fuzz, hostile, error_of):
    def check(folder, content):
        path = folder / "fwi.toml"
        path.write_bytes(content)
        error_of(
            lambda: plan(path),
            path,
            *SECTIONS,
            "shot",
        )

    fuzz(hostile.mutated(*JOBS, FILES.encode(), DEEP.encode()), check)


@pytest.mark.cases(1500)
def test_a_run_configuration_of_hostile_values_is_planned_or_refused(fuzz, hostile, error_of, inputs):
    values = hostile.values | st.lists(hostile.numbers, min_size=2, max_size=3) | st.lists(hostile.whole, max_size=3)

    def check(folder, content):
        path = folder / "fwi.toml"
        write(path, content)
        error_of(lambda: plan(path), path, *content, "shot")

    fuzz(changed([*JOBS, FILES.encode(), DEEP.encode()], RunConfig, values | st.sampled_from(inputs)), check)


# What a message on a value begins with.
SECTIONS = tuple(RunConfig.model_fields)
PATHS = [key for key in sorted(set(keys_of(RunConfig))) if key.rpartition(".")[2] in PATH_KEYS]
ELSEWHERE = ["/dev/zero", "/dev/stdin", "/", "/proc/self/mem", "/proc/kcore", "~", "~nobody/x", "..", "", "x" * 300]


@pytest.mark.cases(500)
def test_any_path_is_read_or_refused(fuzz, error_of, inputs):
    def check(folder, given):
        targets, shape = given
        content = tomllib.loads(FILES)
        for what in ("sources", "receivers"):
            if f"acquisition.{what}.file" in targets:
                content["data"].pop("geometry", None)
                content["acquisition"] = {name: {"first": [20.0, 20.0]} for name in ("sources", "receivers")}
                content["acquisition"][what] = {}
        if not shape:
            del content["grid"]["shape"]
        write(folder / "fwi.toml", apply_settings(content, [(key.split("."), to) for key, to in targets.items()]))
        error_of(
            lambda: plan(folder / "fwi.toml"), *(key.partition(".")[0] for key in targets), "grid.", "data.", "shot 0"
        )

    targets = st.dictionaries(st.sampled_from(PATHS), st.sampled_from(inputs + ELSEWHERE), min_size=1, max_size=2)
    fuzz(st.tuples(targets, st.booleans()), check)


@pytest.mark.cases(700)
def test_a_damaged_site_file_makes_a_job_script_or_is_refused(fuzz, hostile, error_of, monkeypatch):
    def check(folder, content):
        path = folder / "moon.toml"
        path.write_bytes(content)
        error_of(lambda: script(path), path, "moon")

    for name in ("PROJECT", "SCRATCH", "WORK", "HOME"):
        monkeypatch.setenv(name, "/nowhere")
    fuzz(hostile.mutated(*SITES), check)


@pytest.mark.cases(700)
def test_a_site_file_of_hostile_values_makes_a_job_script_or_is_refused(fuzz, hostile, error_of):
    def check(folder, content):
        path = folder / "moon.toml"
        write(path, content)
        error_of(lambda: script(path), path, "moon")

    values = hostile.values | st.sampled_from([1, 2, 64, 128, 4096, 0.001, 256.0, "12:00:00", "pbs", "slurm"])
    fuzz(changed(SITES, SiteConfig, values), check)


def script(path: Path) -> None:
    """All that ``hpcfwi site script`` does."""
    site = load_site(str(path))
    if site_batch_system(site) is not None:
        layout = node_layout(site, ResourceRequest(16, 10**8), 2)
        text = job_script(site, layout, JobContext("run", path.parent / "logs", None))
        assert text.startswith("#!")


@pytest.mark.cases(800)
def test_any_setting_is_used_or_refused(fuzz, hostile, error_of, inputs):
    keys = st.sampled_from([*keys_of(RunConfig), "a", "", ".", "grid..spacing", " grid . spacing ", "a." * 600 + "a"])
    texts = hostile.texts | st.text(max_size=20) | hostile.values.map(repr) | st.sampled_from(inputs)
    written = st.lists(st.tuples(keys, texts).map("=".join) | st.text(max_size=30), min_size=1, max_size=3)

    def check(folder, settings):
        path = folder / "fwi.toml"
        path.write_text(FILES)
        error_of(
            lambda: plan(path, settings),
            "--set",
            *SECTIONS,
            "shot",
        )
        path.write_text("")
        error_of(lambda: load_site(str(path), settings), "--set", path)

    fuzz(written, check)


@pytest.mark.parametrize(
    "text", ["a." * 100_000 + "a = 1", '"a b" . ' * 20_000 + "a = 1", "[" + "'a'." * 20_000 + "a]"]
)
def test_a_key_of_many_parts_is_refused_quickly(tmp_path, text):
    assert refused(tmp_path, text) == "FILE: is not valid TOML: a key has a hundred parts or more"


@pytest.mark.parametrize("text", ["a = " + "[" * 60 + "]" * 60, "a.b.c.d.e = " + "[" * 440, "a." * 60 + "a = 1"])
def test_deep_nesting_is_refused(tmp_path, text):
    assert "levels deep" in refused(tmp_path, text) or "is not valid TOML" in refused(tmp_path, text)


def test_a_message_about_many_mistakes_names_the_first(tmp_path):
    message = refused(tmp_path, "\n".join(f"k{i} = 1" for i in range(20_000)))
    assert message.startswith("FILE: 20005 mistakes\n")
    assert message.endswith("  and 19955 more")
    assert len(message) < 60_000


def test_an_endless_file_is_refused(tmp_path):
    (tmp_path / "fwi.toml").symlink_to("/dev/zero")
    with pytest.raises(InputError, match=r"fwi\.toml: cannot be read \(it has more than 1000000 bytes\)"):
        load_run_config(tmp_path / "fwi.toml")


def test_a_setting_of_many_parts_is_refused():
    with pytest.raises(InputError, match=r"--set a\.a\..* is not of the form section\.key=value"):
        load_site("workstation", ["a." * 600 + "a=1"])


@pytest.mark.skipif(sys.platform == "darwin", reason="names of files are Unicode there")
def test_a_folder_whose_name_is_not_unicode_is_refused(tmp_path):
    folder = tmp_path / os.fsdecode(b"M\xfcller")
    folder.mkdir()
    (folder / "fwi.toml").write_text(FILES)
    with pytest.raises(
        InputError, match="or the path of its folder, is not Unicode; give the file or folder another name"
    ):
        load_run_config(folder / "fwi.toml")


@pytest.mark.parametrize(
    "key", ["wavelet.file", "data.geometry", "model.file", "inversion.frozen.mask_file", "data.file"]
)
@pytest.mark.parametrize("what", ["pipe", "zeros"])
@pytest.mark.usefixtures("inputs")
def test_devices_and_pipes_are_not_read(tmp_path, key, what):
    (tmp_path / "inputs" / "pipe.npy").symlink_to("pipe")
    target = (
        f"../../inputs/{what}.npy"
        if key in ("model.file", "inversion.frozen.mask_file")
        else f"../../inputs/{what}.csv"
    )
    (tmp_path / "inputs" / "pipe.csv").symlink_to("pipe")
    path = tmp_path / "cases" / "one" / "fwi.toml"
    path.parent.mkdir(parents=True)
    write(path, apply_settings(tomllib.loads(FILES), [(key.split("."), target)]))
    with pytest.raises(InputError, match=f"{key}: .*(it is a device or a pipe, not a file|no such file or folder)"):
        plan(path)


def refused(folder: Path, text: str) -> str:
    (folder / "fwi.toml").write_text(text)
    with pytest.raises(InputError) as caught:
        load_run_config(folder / "fwi.toml")
    return str(caught.value).replace(str(folder / "fwi.toml"), "FILE")
