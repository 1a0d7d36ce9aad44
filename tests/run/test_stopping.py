"""Stopped by a terminal, a scheduler or a full disk: one line, no process and no scratch left, nothing lost."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from watching import logged_events, options, wait_until

SITES = Path(__file__).parents[2] / "site-configs"
LONG = options("inversion.iterations=500", "inversion.ftol=0", "inversion.gtol=0")


@pytest.fixture
def shell(hpcfwi, first_run, tmp_path):
    """The command with a temporary folder of its own, and a run folder that has the solver already."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    hpcfwi.environment["TMPDIR"] = str(temporary)
    (tmp_path / "run").mkdir(mode=0o700)
    shutil.copytree(first_run[2] / "staged", tmp_path / "run" / "staged")
    return hpcfwi


def start(shell, run_dir="run"):
    return shell.start("run", "fwi.toml", "--run-dir", run_dir, "--set", "site.worker.threads=1", *LONG)


def journal(run_dir):
    return list((run_dir / "journal").glob("*.bin"))


def workers_of(process):
    """Processes in the command's session, itself left out."""
    found = []
    for other in psutil.process_iter():
        try:
            if os.getsid(other.pid) == process.pid != other.pid and other.status() != psutil.STATUS_ZOMBIE:
                found.append(other)
        except (ProcessLookupError, PermissionError, psutil.Error):
            continue
    return found


def scratch(shell):
    return list(Path(shell.environment["TMPDIR"]).glob("hpcfwi-*"))


def assert_stopped_cleanly(shell, process):
    out, err = process.communicate(timeout=300)
    assert process.returncode == 75, out + err
    # a signal that asks, and comes in an evaluation, is named
    why = r"(: SIG\w+ was received)?"
    assert re.fullmatch(
        rf"hpcfwi: stopped{why}; the same command continues the run \({shell.folder / 'run'}\)\n", err
    ), err
    assert "Traceback" not in out
    wait_until(lambda: not workers_of(process), seconds=10)
    assert not scratch(shell)


@pytest.mark.parametrize(
    ("number", "times"),
    [
        (signal.SIGTERM, 3),
        *(pytest.param(number, 1, marks=pytest.mark.slow) for number in (signal.SIGINT, signal.SIGHUP)),
    ],
    ids=["TERM", "INT", "HUP"],
)
def test_a_signal_to_every_process_of_a_run_ends_it_with_one_line(shell, number, times):
    """As a terminal sends Ctrl-C and its own end, and a scheduler its warnings."""
    process = start(shell)
    wait_until(lambda: len(journal(shell.folder / "run")) > 2, process)
    for _ in range(times):
        os.killpg(process.pid, number)
        time.sleep(0.1)
    assert_stopped_cleanly(shell, process)


def test_ctrl_c_while_the_workers_start_ends_them(shell):
    process = start(shell)
    wait_until(lambda: scratch(shell), process)
    for _ in range(3):
        time.sleep(0.3)
        os.killpg(process.pid, signal.SIGINT)
    assert_stopped_cleanly(shell, process)


def test_the_command_that_the_status_shows_continues_the_run_in_the_same_way(shell, first_run):
    (shell.folder / "our site.toml").write_text((SITES / "workstation.toml").read_text())
    words = options("site.worker.threads=1", "site.worker.processes=1")
    process = shell.start("run", "fwi.toml", "--run-dir", "run", "--site", "./our site.toml", *words)
    wait_until(lambda: scratch(shell), process)
    os.killpg(process.pid, signal.SIGINT)
    assert_stopped_cleanly(shell, process)
    status = json.loads(shell("status", "run", "--json").stdout)
    (elsewhere := shell.folder / "elsewhere").mkdir()
    with shell.start(*shlex.split(status["resume_command"])[1:], cwd=elsewhere) as resumed:
        _, err = resumed.communicate(timeout=300)
    assert resumed.returncode == 0, err
    first, second = logged_events(shell.folder / "run", "start")
    assert first["site"] == second["site"] == str(shell.folder / "our site.toml")
    assert first["layout"] == second["layout"]
    assert first["options"] == second["options"] == words
    assert (shell.folder / "run" / "model.npy").read_bytes() == (first_run[2] / "model.npy").read_bytes()


def test_repeated_signals_do_not_disturb_the_shutdown(shell):
    """One that arrives between the last message and the end of the process included."""
    process = start(shell)
    wait_until(lambda: scratch(shell), process)
    deadline = time.monotonic() + 60
    with suppress(ProcessLookupError):
        while process.poll() is None and time.monotonic() < deadline:
            os.killpg(process.pid, signal.SIGTERM)
            time.sleep(0.001)
    assert_stopped_cleanly(shell, process)


def test_the_next_driver_removes_the_files_of_a_killed_one(shell):
    process = start(shell)
    wait_until(lambda: len(journal(shell.folder / "run")) > 2, process)
    workers = workers_of(process)
    assert len(workers) >= 2
    process.kill()
    process.communicate()
    assert not psutil.wait_procs(workers, timeout=30)[1]
    (left,) = scratch(shell)
    long_ago = time.time() - 3600
    os.utime(left / "in-use", (long_ago, long_ago))
    process = start(shell)
    wait_until(lambda: scratch(shell) not in ([], [left]), process)
    assert left not in scratch(shell)
    process.terminate()
    assert_stopped_cleanly(shell, process)


@pytest.fixture
def small_disk(tmp_path):
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=12m", "none", str(place)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("only root can mount a small file system")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def fill(path):
    """Take the rest of the small disk."""
    with path.open("wb", buffering=0) as file, suppress(OSError):
        for _ in range(20_000):
            file.write(bytes(1024))


@pytest.mark.slow
def test_a_full_disk_stops_the_run_and_the_same_command_continues_it(shell, small_disk, first_run):
    run_dir = small_disk / "run"
    shutil.copytree(shell.folder / "run", run_dir)
    process = start(shell, "disk/run")
    wait_until(lambda: journal(run_dir), process)
    fill(small_disk / "filler")
    out, err = process.communicate(timeout=300)
    assert process.returncode == 3, out + err
    assert err.startswith(f"hpcfwi: {run_dir}/")
    assert err.endswith(
        "cannot be written (No space left on device); free some space or repair the file system, then type the same "
        "command again\n"
    )
    assert not list(run_dir.rglob("*.part"))
    (small_disk / "filler").unlink()
    shell.run("disk/run", "inversion.iterations=2")
    assert (run_dir / "model.npy").read_bytes() == (first_run[2] / "model.npy").read_bytes()
    with (run_dir / "history.csv").open() as file:
        assert [row["iteration"] for row in csv.DictReader(file)] == ["0", "1", "2"]


@pytest.fixture
def small_journal(shell, small_disk):
    """The journal of the run folder, and nothing else of it, is on the small disk."""
    small_disk.chmod(0o700)
    place = shell.folder / "run" / "journal"
    place.mkdir(mode=0o700, exist_ok=True)
    subprocess.run(["mount", "--bind", small_disk, place], check=True)
    yield small_disk
    subprocess.run(["umount", "--lazy", place], check=True)


SUMS = ("acquisition.sources.count=100", "journal.block=1", "inversion.ftol=0")
WITH_SUMS = ("run", "fwi.toml", "--run-dir", "run", *options("site.worker.threads=1", *SUMS))


@pytest.mark.slow
@pytest.mark.parametrize("room", ["is made in time", "is not made"])
def test_a_disk_too_full_for_partial_sums_stops_the_run_only_at_the_journal_entry(shell, small_journal, room):
    run_dir = shell.folder / "run"
    shell.run("undisturbed", *SUMS)
    process = shell.start(*WITH_SUMS)
    wait_until(lambda: list(small_journal.glob("partial-*/*.bin")), process)
    fill(small_journal / "filler")
    wait_until(lambda: "No space left on device" in (run_dir / "events.jsonl").read_text(), process)
    if room == "is made in time":
        (small_journal / "filler").unlink()
    out, err = process.communicate(timeout=300)
    assert any("partial-" in event["message"] for event in logged_events(run_dir, "warning"))
    assert not logged_events(run_dir, "retry", "task failed", "worker died")
    if room == "is not made":
        assert process.returncode == 3, out + err
        assert err.startswith(f"hpcfwi: {run_dir}/journal/")
        assert err.endswith(
            "(No space left on device); free some space or repair the file system, then type the same command again\n"
        )
        assert len(err.splitlines()) == 1
        (small_journal / "filler").unlink()
        done = shell(*WITH_SUMS)
        assert done.returncode == 0, done.stderr
        # those that found room before
        assert "shots of this evaluation are already in the journal" in done.stdout
    else:
        assert process.returncode == 0, out + err
        assert not err
    assert (run_dir / "model.npy").read_bytes() == (shell.folder / "undisturbed" / "model.npy").read_bytes()
    assert not list(small_journal.glob("**/*.part"))
    assert not list(small_journal.glob("partial-*"))
