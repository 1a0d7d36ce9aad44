"""Hostile files and words: a documented exit code, one message, no traceback, nothing left behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import strategies as st

from hpcfwi.cli.main import command

CIRCLE = (Path(__file__).parents[2] / "jobs/circle.toml").read_bytes()
SITE = (Path(__file__).parents[2] / "site-configs/generic-slurm.toml").read_bytes()
WORDS = [
    "circle",
    "fwi.toml",
    "moon.toml",
    "nothing.toml",
    ".",
    "",
    "a" * 300,
    "../x",
    "~",
    "[/b]",
    "\udcff",
    "-",
    "--",
    "-x",
]


@pytest.fixture
def type_in(capfd, monkeypatch):
    """Run ``hpcfwi`` with words; returns the exit code and everything that was printed."""
    # no case starts workers
    monkeypatch.setattr("hpcfwi.run.driver.session", no_session)
    monkeypatch.setattr("hpcfwi.cli.main.quiet_libraries", lambda _: None)

    def type_in(*words: str) -> tuple[int, str]:
        code = command([word for word in words if possible(word)])
        out, err = capfd.readouterr()
        assert "Traceback" not in out + err
        assert "Unexpected error" not in err, err[:2000]
        assert code in (0, 1, 2, 3)
        assert not code or err.strip() or out.strip()
        # click's messages quote what was typed; messages of hpcfwi, and text from files, must not control the terminal
        assert "\x1b" not in out + err or any("\x1b" in word for word in words)
        return code, out + err

    return type_in


def possible(word: str) -> bool:
    """Whether a shell can pass this word."""
    try:
        return b"\0" not in os.fsencode(word)
    except UnicodeEncodeError:
        return False


def no_session(*_: object) -> None:
    from hpcfwi.errors import RunError

    raise RunError("run: nothing is computed here")


@pytest.mark.cases(250)
def test_a_hostile_configuration_is_planned_or_refused_on_the_command_line(fuzz, hostile, type_in):
    def check(folder, given):
        content, verb = given
        (folder / "fwi.toml").write_bytes(content)
        code, printed = type_in(*verb, "fwi.toml")
        assert code in (0, 2)
        assert not code or "hpcfwi: fwi.toml" in printed or "hpcfwi: " in printed

    verbs = st.sampled_from(
        [["plan", "--no-measure"], ["site", "script", "generic-slurm"], ["plan", "--set", "model.radius=1e400"]]
    )
    fuzz(st.tuples(hostile.mutated(CIRCLE), verbs), check)


@pytest.mark.cases(250)
def test_a_hostile_site_is_shown_listed_or_refused(fuzz, hostile, type_in, monkeypatch):
    def check(folder, content):
        (folder / "sites").mkdir()
        (folder / "sites" / "moon.toml").write_bytes(content)
        monkeypatch.setenv("HPCFWI_SITES", str(folder / "sites"))
        for words in (("site", "list"), ("site", "show", "moon"), ("site", "script", "moon")):
            code, printed = type_in(*words)
            assert code in (0, 2)
            assert code or printed
        assert type_in("site", "list")[0] == 0

    fuzz(hostile.mutated(SITE, b"tried = [1]\ndescription = [2]\n"), check)


@pytest.mark.cases(250)
def test_hostile_arguments_are_accepted_or_refused(fuzz, hostile, type_in):
    words = st.sampled_from(WORDS) | hostile.texts
    options = st.sampled_from(["--set", "--site", "--run-dir", "--launch", "--nodes", "--wait", "--fresh"])
    typed = st.builds(
        lambda verb, config, pairs: [*verb, config, *(word for pair in pairs for word in pair)],
        st.sampled_from([["run"], ["plan", "--no-measure"], ["status"], ["site", "show"], ["site", "script"], []]),
        words,
        st.lists(st.tuples(options, words), max_size=2),
    )

    def check(folder, words):
        # keep run folders inside
        if any(word == "--run-dir" for word in words):
            words = [word if word not in ("..", "../x", "~", "/") else "x" for word in words]
        (folder / "fwi.toml").write_bytes(CIRCLE)
        (folder / "moon.toml").write_bytes(SITE)
        type_in(*words)

    fuzz(typed.filter(lambda words: not any(word.startswith(("/", '"')) for word in words)), check)


@pytest.mark.cases(200)
def test_a_run_in_a_hostile_folder_is_refused_with_its_name(fuzz, hostile, type_in):
    names = st.sampled_from(
        ["driver.json", "problem.json", "data.json", "result.json", "model.npy", "events.jsonl", "staged"]
    )

    def check(folder, given):
        (folder / "fwi.toml").write_bytes(CIRCLE)
        (folder / "run" / "staged").mkdir(parents=True)
        for name, content in given.items():
            if name != "staged":
                (folder / "run" / name).write_bytes(content)
        code, printed = type_in("run", "fwi.toml", "--run-dir", "run")
        assert code in (2, 3)
        assert "run" in printed

    contents = hostile.mutated(b'{"state": "done", "limits": {}}') | st.sampled_from(hostile.words)
    fuzz(st.dictionaries(names, contents, min_size=1, max_size=3), check)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["plan", "a" * 300], "cannot be read (File name too long)"),
        (["run", "circle", "--fresh", "--run-dir", "a" * 300], "cannot be used (File name too long)"),
        (["site", "show", "workstation", "--set", "a." * 600 + "a=1"], "is not of the form section.key=value"),
        (["plan", "circle", "--set", "model.file=\udcff"], "is not Unicode"),
    ],
)
def test_arguments_that_once_caused_a_traceback_are_refused(type_in, words, message):
    code, printed = type_in(*words)
    assert code == 2
    assert message in printed


def test_text_from_a_file_does_not_control_the_terminal(type_in, tmp_path, monkeypatch):
    text = '"\\u001b[2J" = 1\ndescription = "\\u001b[2J"\nsource = "\\r"\n'
    (tmp_path / "moon.toml").write_text(text)
    monkeypatch.setenv("HPCFWI_SITES", str(tmp_path))
    code, printed = type_in("site", "show", "moon")
    assert code == 2
    assert "\\x1b[2J: unknown key" in printed
    assert "source: is" in printed
    assert type_in("site", "list")[0] == 0


@pytest.mark.parametrize("key", ["scheduler.walltime=١٢:00:00", "network.ports=٩000:9100"])
def test_numbers_for_schedulers_have_ascii_digits(type_in, key):
    code, printed = type_in("site", "show", "generic-slurm", "--set", key)
    assert code == 2
    assert "it should be" in printed


@pytest.mark.skipif(sys.platform == "darwin", reason="names of files are Unicode there")
def test_a_name_that_the_terminal_cannot_show_is_listed(tmp_path):
    (tmp_path / os.fsdecode(b"\xff.toml")).write_text("tried = [1]\n")
    environment = os.environ | {"HPCFWI_SITES": str(tmp_path), "PYTHONIOENCODING": "utf-8:strict"}
    words = [sys.executable, "-m", "hpcfwi", "site", "list"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "\\udcff" in done.stdout
    assert "tried: is [1]" in done.stdout


def test_ten_thousand_cases_are_tried(request):
    """Counted with --slow if the whole folder runs; ``fuzz`` checks that each case ran."""
    items = [item for item in request.session.items if item.path.parent == request.path.parent]
    if {item.path for item in items} == set(request.path.parent.glob("test_*.py")):
        assert sum(marker.args[0] for item in items for marker in item.iter_markers("cases")) >= 10_000
