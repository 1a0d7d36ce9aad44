"""What a user sees: a live display on a terminal, plain lines elsewhere, messages of libraries only with --verbose."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from dataclasses import asdict

import pytest

from hpcfwi.cli.main import command
from hpcfwi.errors import RunError
from hpcfwi.events.lease import Holder
from hpcfwi.version import __version__

ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """A command on a terminal of its own.

    Parameters
    ----------
    shell
        What to type into.
    arguments
        Of the command.
    """

    def __init__(self, shell, *arguments):
        environment = {**shell.environment, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "40"}
        for batch in ("SLURM_JOB_ID", "PBS_JOBID"):
            environment.pop(batch, None)
        self.pid, self.screen = pty.fork()
        if self.pid == 0:
            os.chdir(shell.folder)
            os.execve(sys.executable, [sys.executable, "-m", "hpcfwi", *arguments], environment)
        self.text = ""

    def read(self, until=None, seconds=300):
        """What is on the screen, until a pattern is there or the command has ended."""
        deadline = time.monotonic() + seconds
        while until is None or not re.search(until, self.text):
            assert time.monotonic() < deadline, self.text
            if not select.select([self.screen], [], [], 0.5)[0]:
                continue
            try:
                piece = os.read(self.screen, 65536)
            except OSError:  # the other side is closed
                break
            if not piece:
                break
            self.text += piece.decode(errors="replace")
        return self.text

    def end(self):
        """Exit code, when it has ended."""
        self.read()
        os.close(self.screen)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@pytest.fixture
def prepared(hpcfwi, first_run):
    """A run folder that has solver and data, but no inversion."""
    (hpcfwi.folder / "run").mkdir(mode=0o700)
    shutil.copytree(first_run[2] / "staged", hpcfwi.folder / "run" / "staged")
    return hpcfwi


def test_on_a_terminal_a_run_shows_a_line_for_each_iteration_and_live_bars(prepared):
    terminal = Terminal(prepared, "run", "fwi.toml", "--run-dir", "run", "--set", "inversion.iterations=5")
    assert terminal.end() == 0
    assert "\x1b[?25l" in terminal.text  # the cursor is hidden while the display lives
    assert "\x1b[?25h" in terminal.text
    shown = ESCAPE.sub("", terminal.text)
    for word in ("iteration", "evaluations", "misfit", "model error", "shots", "5/5", "run holds:", "model.npy"):
        assert word in shown
    assert "Traceback" not in shown


def test_ctrl_c_on_a_terminal_stops_the_run_with_one_line(prepared):
    terminal = Terminal(prepared, "run", "fwi.toml", "--run-dir", "run", "--set", "inversion.iterations=500")
    terminal.read(until="last evaluation: number")
    os.write(terminal.screen, b"\x03")
    assert terminal.end() == 75
    after = ESCAPE.sub("", terminal.text.rpartition("\x1b[?25h")[2])
    assert re.fullmatch(r"\s*hpcfwi: stopped; the same command continues the run \(.*\)\s*", after)


def test_on_a_terminal_status_is_watched_in_place_until_the_run_ends(hpcfwi, first_run):
    run_dir = hpcfwi.folder / "run"
    shutil.copytree(first_run[2], run_dir)
    lines = (run_dir / "events.jsonl").read_text().splitlines(keepends=True)
    done = next(i for i, line in enumerate(lines) if json.loads(line)["event"] == "done")
    (run_dir / "events.jsonl").write_text("".join(lines[:done]))
    result = run_dir / "result.json"
    result.rename(run_dir / "later")
    (run_dir / "driver.json").write_text(json.dumps(asdict(Holder.current())))
    terminal = Terminal(hpcfwi, "status", "run", "--watch", "0.2")
    terminal.read(until="heartbeat")
    (run_dir / "later").rename(result)
    with (run_dir / "events.jsonl").open("a") as file:
        file.writelines(lines[done:])
    (run_dir / "driver.json").unlink()
    assert terminal.end() == 0
    assert "\x1b[?25l" in terminal.text  # the cursor is hidden while the display lives
    shown = ESCAPE.sub("", terminal.text)
    assert "running: writing results" in shown
    assert "done: " in shown.rpartition("running")[2]
    assert "Traceback" not in shown


def test_into_a_file_a_run_writes_plain_lines(first_run):
    _, done, _ = first_run
    assert "\x1b" not in done.stdout
    assert "\r" not in done.stdout
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert sum(line.startswith("[") and "iteration 1/2: misfit" in line for line in lines) == 1
    # and of the libraries nothing
    assert "distributed" not in done.stdout
    assert "Operator" not in done.stdout


@pytest.mark.slow
def test_verbose_shows_the_messages_of_the_libraries(prepared):
    done = prepared("--verbose", "run", "fwi.toml", "--run-dir", "run", "--set", "inversion.iterations=0")
    assert done.returncode == 0, done.stderr
    said = done.stdout + done.stderr
    assert "distributed.scheduler - INFO" in said
    assert "Operator `Forward` ran in" in said


@pytest.mark.slow
def test_a_run_survives_a_closed_stdout(prepared):
    process = prepared.start("run", "fwi.toml", "--run-dir", "run")
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=300) == 0
    assert process.stderr.read() == ""
    process.stderr.close()
    assert (prepared.folder / "run" / "model.npy").exists()


def test_the_version_is_printed(capsys):
    assert command(["--version"]) == 0
    assert capsys.readouterr().out == f"hpcfwi, version {__version__}\n"


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["run"],
        ["model"],
        ["plan"],
        ["check"],
        ["status"],
        ["report"],
        ["export"],
        ["scale"],
        ["site"],
        ["site", "check"],
    ],
)
def test_every_command_has_a_help_text(capsys, words):
    assert command([*words, "-h"]) == 0
    assert capsys.readouterr().out.startswith(f"Usage: hpcfwi {' '.join(words)}".rstrip())


@pytest.mark.parametrize(
    "words", [["run"], ["fly"], ["run", "a.toml", "--fast"], ["plan", "a.toml", "b.toml"], ["status", "--watch"]]
)
def test_a_wrong_command_is_refused_in_one_or_two_lines(capsys, words):
    assert command(words) == 2
    out, err = capsys.readouterr()
    assert not out
    assert "Error: " in err


def test_an_unexpected_error_is_one_message_and_with_verbose_a_traceback(capsys, monkeypatch, fwi_toml):
    import hpcfwi.run.plan

    monkeypatch.setattr(hpcfwi.run.plan, "make_plan", lambda *_, **__: 1 / 0)
    assert command(["plan", str(fwi_toml)]) == 3
    err = capsys.readouterr().err
    assert err.startswith("hpcfwi: ZeroDivisionError: division by zero\n")
    assert "hpcfwi --verbose" in err
    assert "Traceback" not in err
    with pytest.raises(ZeroDivisionError):
        command(["--verbose", "plan", str(fwi_toml)])


@pytest.mark.parametrize("command_name", ["run", "model"])
def test_after_an_error_of_a_fresh_run_the_message_says_how_to_continue_it(
    capsys, monkeypatch, fwi_toml, tmp_path, command_name
):
    monkeypatch.chdir(tmp_path)

    def fail(*given, **_):
        given[2].mkdir(parents=True)
        raise RunError("the disk is full; type the same command again")

    for name in ("run_inversion", "model_data"):
        monkeypatch.setattr(f"hpcfwi.run.driver.{name}", fail)
    for number, folder in enumerate(("runs/fwi", "runs/fwi-2")):
        assert command([command_name, str(fwi_toml), *(["--fresh"] if number else [])]) == 3
        err = capsys.readouterr().err
        assert ("Type it without --fresh, and with --run-dir runs/fwi-2" in err) == bool(number), folder


def test_the_command_starts_without_loading_the_heavy_libraries():
    program = "import sys, hpcfwi.cli.main; print(*sorted({'devito', 'distributed', 'scipy', 'matplotlib'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
