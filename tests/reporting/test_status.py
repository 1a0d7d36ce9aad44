"""``hpcfwi status``: how runs in every state are shown, from their files alone and without changing them."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, fields, replace
from pathlib import Path

import pytest
from sample_events import sample

from hpcfwi import run_status
from hpcfwi.cli.main import command
from hpcfwi.errors import InputError
from hpcfwi.events import lease as lease_module
from hpcfwi.events.lease import Holder, Liveness
from hpcfwi.events.log import EventLog, Follower
from hpcfwi.reporting.status import RunStatus, StatusReader
from hpcfwi.reporting.status_text import status_changes, status_lines, status_table

DOCUMENTED_FIELDS = {"state", "iteration", "evaluations", "misfit", "shots_done", "shots_total", "workers", "failures"}
HERE = Holder.current()
# A process that does not exist, and one on another host.
DEAD = replace(HERE, pid=2**22 + 1)
ELSEWHERE = replace(HERE, machine="elsewhere", host="node9", pid=77, job="4711")
pytestmark = pytest.mark.hostile


class Folder:
    """A run folder in the making."""

    def __init__(self, path):
        self.path = path
        path.mkdir(parents=True)
        (path / "problem.json").write_text("{}")
        (path / "config.toml").write_text("")

    def log(self, holder=HERE, segment=32_000_000):
        log = EventLog(self.path / "events.jsonl", segment)
        facts = {
            "site": "generic-slurm",
            "launch": "jobs",
            "layout": "1 process",
            "workers_planned": 3,
            "iterations": 10,
        }
        log.write(sample("start", host=holder.host, pid=holder.pid, shots=6, **facts))
        return log

    def lease(self, holder=HERE, age=0.0):
        path = self.path / "driver.json"
        path.with_name("aside").write_text(json.dumps(asdict(holder)))
        os.utime(path.with_name("aside"), (time.time() - age,) * 2)
        path.with_name("aside").replace(path)

    def read(self, patience=0.0):
        return StatusReader(self.path).read(patience)

    def line(self, name):
        found = next(line for line in status_lines(self.read()) if line.startswith(f"{name} "))
        return found[len(name) :].strip()


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path / "runs" / "a run")


def work(log):
    """Write events up to the middle of the second evaluation."""
    log.write(sample("job", job="1", worker="w", state="pending", reason="Resources"))
    log.write(sample("job", job="2", worker="w", state="running", reason="None"))
    for i, host in enumerate(("node10", "node9", "node9")):
        log.write(
            sample(
                "worker joined", worker=f"tcp://{i}", host=host, name=str(i), cores=4, process_start=time.time() - 900
            )
        )
    log.write(sample("staging data", shots=6))
    log.write(sample("data staged", shots=6))
    for evaluation, done in ((1, 6), (2, 4)):
        log.write(sample("evaluation started", evaluation=evaluation, shots=6))
        for i in range(done):
            facts = {"worker": f"tcp://{i % 3}", "host": ("node10", "node9", "node9")[i % 3], "seconds": 2.0}
            log.write(sample("shot", shot=f"s{i}", evaluation=evaluation, **facts))
        if evaluation == 1:
            log.write(sample("evaluation", evaluation=1, misfit=8.0))
            log.write(sample("iteration", iteration=0, misfit=8.0, step_seconds=1.0))
            log.write(sample("iteration", iteration=1, misfit=2.0, step_seconds=60.0, model_error=0.125))
    for _ in range(3):
        log.write(sample("worker died", host="node9", reason="it was killed by signal 9"))
    log.write(sample("retry", shot="s1", worker="tcp://1", reason="it was late\nas its log says"))
    log.write(sample("warning", message="mind the gap"))


def test_the_status_of_a_running_inversion_is_complete(folder):
    work(folder.log())
    folder.lease()
    (folder.path / "figures").mkdir()
    for name, age in (("old.png", 900), ("new.png", 30)):
        (folder.path / "figures" / name).touch()
        os.utime(folder.path / "figures" / name, (time.time() - age,) * 2)
    status = folder.read()
    assert (status.state, status.phase, status.reason, status.resume_command) == ("running", "inverting", "", None)
    assert (status.iteration, status.iterations, status.evaluations) == (1, 10, 1)
    assert (status.misfit, status.initial_misfit, status.model_error) == (2.0, 8.0, 0.125)
    assert (status.shots_done, status.shots_total) == (4, 6)
    assert [(worker.host, worker.name, worker.shots) for worker in status.workers] == [
        ("node9", "1", 3),
        ("node9", "2", 3),
        ("node10", "0", 4),
    ]
    assert [(host.host, host.workers, host.shots) for host in status.hosts] == [("node9", 2, 6), ("node10", 1, 4)]
    assert status.jobs == {"1": "pending (Resources)", "2": "running (None)"}
    assert [(one.count, one.message) for one in status.failures] == [
        (3, "a worker on node9 died: it was killed by signal 9"),
        (1, "shot s1 is retried: it was late"),
    ]
    assert status.time_left == 9 * 60.0
    assert status.core_hours == pytest.approx(3.0, rel=0.1)
    assert status.figure == str(folder.path / "figures" / "new.png")
    text = "\n".join(status_lines(status))
    for line in (
        r"^state        running: inverting$",
        r"^site         generic-slurm, jobs, 1 process$",
        rf"^driver       process {os.getpid()} on {HERE.host}; heartbeat \d s ago$",
        r"^iteration    1 of at most 10$",
        r"^evaluations  1 done, number 2 is running$",
        r"^shots        \[#{20}\.{10}\] 4 of 6 of this evaluation$",
        r"^misfit       2, 0\.25 of the initial misfit$",
        r"^model error  12\.50 %$",
        r"^workers      3 of 3 workers on 2 hosts$",
        r"^             node9: 2 workers, 6 shots$",
        r"^jobs         1 pending \(Resources\), 1 running",
        r"^failures     a worker on node9 died: it was killed by signal 9 \(3 times\)$",
        r"^warnings     mind the gap$",
        r"^time left    at most 9:00,",
        r"^last figure  .*new\.png \(30 s ago\)$",
    ):
        assert re.search(line, text, re.MULTILINE), (line, text)


@pytest.mark.parametrize("kind", ["no lease", "a dead process", "a zombie", "another host, long ago"])
def test_a_killed_driver_is_recognised_and_the_resume_command_is_shown(folder, kind):
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    zombie = replace(HERE, pid=child.pid, started=start_since_boot(child.pid))
    holder = {"a dead process": DEAD, "a zombie": zombie, "another host, long ago": ELSEWHERE}.get(kind)
    work(folder.log(holder or HERE))
    if holder is not None:
        folder.lease(holder, age=3600.0)
    if kind == "a zombie":
        assert folder.read().state == "running"
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    started = time.monotonic()
    status = folder.read(6.0)
    assert (time.monotonic() - started > 4) == (kind == "another host, long ago")
    child.kill()
    child.communicate()
    assert (status.state, status.phase) == ("killed", "inverting")
    assert status.workers == []
    assert status.jobs == {}
    assert [(host.host, host.shots) for host in status.hosts] == [("node9", 6), ("node10", 4)]
    assert status.time_left is None
    path = folder.path
    assert status.resume_command == f"hpcfwi run '{path}/config.toml' --run-dir '{path}' --site generic-slurm"
    assert folder.line("resume with") == status.resume_command


def start_since_boot(pid):
    from hpcfwi.events.lease import _start_since_boot

    return _start_since_boot(pid)


def test_a_driver_on_another_host_is_alive_while_its_heartbeat_continues_whatever_the_clocks_show(folder):
    work(folder.log(ELSEWHERE))
    folder.lease(ELSEWHERE, age=3600.0)
    beat = threading.Timer(1.0, lambda: folder.lease(replace(ELSEWHERE, heartbeats=5), age=3595.0))
    beat.start()
    assert folder.read(6.0).state == "running"
    beat.join()
    assert folder.line("driver").startswith("process 77 on node9, job 4711; ")


def test_a_fresh_heartbeat_needs_no_wait(folder):
    work(folder.log(ELSEWHERE))
    folder.lease(ELSEWHERE, age=4.0)
    started = time.monotonic()
    status = folder.read(6.0)
    assert status.state == "running"
    assert status.heartbeat_age == pytest.approx(4.0, abs=1)
    assert time.monotonic() - started < 1


@pytest.mark.parametrize("age", [20.0, -500.0])
def test_a_driver_with_a_late_heartbeat_is_unresponsive(folder, age):
    work(folder.log(ELSEWHERE))
    folder.lease(ELSEWHERE, age=age)
    assert folder.read(0.5).state == "unresponsive"
    assert folder.line("state").startswith("unresponsive: while it was inverting, its driver sent no heartbeat for 0:")
    assert "--watch" in folder.line("state")


def test_a_watched_driver_without_heartbeats_is_dead_after_half_a_minute(folder, monkeypatch):
    monkeypatch.setattr(lease_module, "DEAD_AFTER_S", 0.3)
    monkeypatch.setattr(lease_module, "FRESH_S", 0.2)
    folder.lease(ELSEWHERE, age=-500.0)
    liveness = Liveness(folder.path / "driver.json")
    liveness.check()
    assert liveness.alive is None
    folder.lease(replace(ELSEWHERE, heartbeats=1), age=-505.0)
    liveness.check()
    assert liveness.alive is True
    time.sleep(0.21)
    assert liveness.alive is None
    time.sleep(0.1)
    assert liveness.alive is False
    (folder.path / "driver.json").unlink()
    liveness.check()
    assert liveness.alive is False


@pytest.mark.parametrize(
    ("event", "facts", "state", "reason"),
    [
        ("interrupted", {"reason": "SIGTERM was received"}, "stopped", "SIGTERM was received"),
        ("interrupted", {"reason": ""}, "stopped", ""),
        ("failed", {"error": "ShotFailed", "message": "shot 7 failed\nthrice"}, "failed", "shot 7 failed\nthrice"),
        ("closed", {}, "stopped", "only the observed data were requested"),
    ],
)
def test_a_run_that_ended_early_shows_the_reason(folder, event, facts, state, reason):
    log = folder.log()
    work(log)
    log.write(sample(event, **facts))
    folder.lease()  # it is still closing its workers
    if event == "closed":
        (folder.path / "driver.json").unlink()
    status = folder.read()
    assert (status.state, status.phase, status.reason) == (state, None, reason)
    assert status.resume_command
    assert status.ended
    first = reason.partition("\n")[0]
    assert folder.line("state") == (f"{state}: {first}" if first else state)


def test_the_status_shows_that_the_batch_job_is_back_in_the_queue(folder):
    log = folder.log()
    log.write(sample("interrupted", reason="the batch job ends in 30 s"))
    log.write(
        sample("requeue", starts=1, fruitless_starts=0, message="stopped; job 7 is back in the queue and goes on")
    )
    assert folder.line("state") == "stopped: stopped; job 7 is back in the queue and goes on"


def test_a_driver_that_has_just_begun_is_starting_whatever_the_log_has(folder):
    (folder.path / "events.jsonl").touch()
    assert folder.read().state == "new"
    folder.lease()
    assert (folder.read().state, folder.read().phase) == ("running", "starting")
    log = folder.log(DEAD)
    log.write(sample("interrupted", reason=""))
    status = folder.read()
    assert (status.state, status.phase, status.pid) == ("running", "starting", os.getpid())


def test_a_run_without_workers_is_waiting(folder):
    log = folder.log()
    log.write(sample("job", job="1", worker="w", state="pending", reason="Priority"))
    folder.lease()
    assert folder.line("state") == "running: waiting for workers"
    assert folder.line("jobs") == "1 pending (Priority)"
    work(log)
    for i in range(3):
        log.write(sample("worker left", worker=f"tcp://{i}", host="node9", name=str(i)))
    assert folder.line("state") == "running: inverting, but no worker is connected"


def test_a_finished_run_is_done_on_any_host_even_without_its_log(first_run, tmp_path):
    _, _, run_dir = first_run
    status = run_status(run_dir)
    assert (status.state, status.phase, status.resume_command) == ("done", None, None)
    assert status.reason
    assert (status.iteration, status.shots_done, status.shots_total) == (2, 3, 3)
    assert status.core_hours > 0
    assert sum(host.shots for host in status.hosts) == 3 * status.evaluations
    copy = tmp_path / "copy"
    copy.mkdir()
    shutil.copy(run_dir / "result.json", copy)
    assert run_status(copy).state == "done"
    shutil.copy(run_dir / "events.jsonl", copy)
    (copy / "result.json").unlink()  # a start with more iterations does that before it logs its start
    assert run_status(copy).state == "stopped"


def test_reading_the_status_changes_nothing_and_works_in_a_read_only_folder(first_run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(first_run[2], folder)
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in (folder, *folder.rglob("*"))}
    words = [sys.executable, "-m", "hpcfwi", "status", "run", "--json"]
    if os.getuid() == 0:  # whom no permission stops
        words = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", *words] if shutil.which("setpriv") else words
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["state"] == "done"
    assert {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in (folder, *folder.rglob("*"))} == before
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be another user")
def test_another_user_sees_the_age_of_a_heartbeat_that_only_the_owner_can_read():
    program = """
import os, sys
from hpcfwi.reporting.status import run_status
run_status(sys.argv[1])  # imports all modules, which another user may not be able to read
os.seteuid(65534)
status = run_status(sys.argv[1])
print(status.state, status.host, status.evaluations)
"""
    with tempfile.TemporaryDirectory(dir="/tmp") as where:
        folder = Folder(Path(where) / "run")
        work(folder.log(ELSEWHERE))
        folder.lease(ELSEWHERE, age=4.0)
        for path, mode in ((where, 0o755), (folder.path, 0o755), (folder.path / "events.jsonl", 0o644)):
            Path(path).chmod(mode)
        (folder.path / "driver.json").chmod(0o600)
        words = [sys.executable, "-c", program, folder.path]
        assert subprocess.run(words, capture_output=True, text=True, check=True).stdout == "running node9 1\n"
        (folder.path / "events.jsonl").chmod(0o600)
        refused = subprocess.run(words, capture_output=True, text=True, check=False)
        assert "events.jsonl: cannot be read (Permission denied); hpcfwi status needs permission" in refused.stderr


def test_status_is_quick_and_imports_neither_dask_nor_numpy(first_run):
    program = (
        "import sys, time; from hpcfwi.cli.main import command; command(['status', sys.argv[1]]);"
        "print(*sorted({'devito', 'distributed', 'dask', 'scipy', 'matplotlib', 'numpy'} & set(sys.modules)))"
    )
    started = os.times().children_user
    words = [sys.executable, "-c", program, first_run[2]]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == ""
    assert os.times().children_user - started < 2  # CPU time, s; 0.2 on a fast machine


def test_json_is_one_object_with_the_documented_fields(first_run, capsys, folder):
    work(folder.log())
    for run in (first_run[2], folder.path):
        assert command(["status", str(run), "--json"]) == 0
        content = json.loads(capsys.readouterr().out, parse_constant=lambda word: pytest.fail(word))
        assert set(content) >= DOCUMENTED_FIELDS
        assert set(content) == {field.name for field in fields(RunStatus)}
        assert isinstance(content["misfit"], float)
        assert isinstance(content["workers"], list)
        assert isinstance(content["failures"], list)
        assert content["dashboard"] is None


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("nothing", r"nothing: no such run folder; there are runs/a run\n  Type: hpcfwi status 'runs/a run'"),
        ("a rum", r"a rum: no such run folder; there are runs/a run\n"),
        ("elsewhere/a run", r"elsewhere/a run: no such run folder; there are runs/a run\n"),
        ("a run.5Hz", r"a run\.5Hz: no such run folder; there are runs/a run\n"),
        ("runs", r"runs: is not a run folder; there are runs/a run\n"),
        ("empty", r"empty: is not a run folder; there are runs/a run"),
        ("a" * 300, r"cannot be read \(File name too long\)"),
    ],
)
def test_the_message_about_a_missing_run_names_existing_runs(folder, tmp_path, monkeypatch, capsys, word, message):
    monkeypatch.chdir(tmp_path)
    folder.log()
    (tmp_path / "empty").mkdir()
    assert command(["status", word]) == 2
    out, err = capsys.readouterr()
    assert not out
    assert re.search(message, err), err


def test_a_run_is_found_by_name_and_by_configuration(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder.log()
    for word in ("a run", "a run.toml", "jobs/a run.toml", "runs/a run", "runs/a run/config.toml"):
        assert run_status(word).folder == str(folder.path)
    monkeypatch.chdir(tmp_path / "runs")
    with pytest.raises(InputError, match="hpcfwi run makes one"):
        run_status("../empty")


def test_a_folder_that_cannot_be_read_is_named(folder, monkeypatch):
    folder.log()
    monkeypatch.setattr(
        Follower, "read", lambda _: (_ for _ in ()).throw(PermissionError(13, "Permission denied", "x"))
    )
    with pytest.raises(InputError, match=r"x: cannot be read \(Permission denied\)"):
        run_status(folder.path)


def test_the_status_is_right_while_the_log_is_being_written(folder):
    log = folder.log(segment=20_000)
    folder.lease()
    ended = threading.Event()

    def write():
        for evaluation in range(1, 60):
            log.write(sample("evaluation started", evaluation=evaluation, shots=40))
            for i in range(40):
                log.write(sample("shot", shot=f"s{i}", evaluation=evaluation, worker="w", host="a", seconds=1.0))
            log.write(sample("evaluation", evaluation=evaluation, misfit=1.0 / evaluation))
        ended.set()

    writer = threading.Thread(target=write)
    writer.start()
    reader, counts = StatusReader(folder.path), []
    while not ended.is_set():
        for status in (reader.read(), run_status(folder.path)):
            assert status.state == "running"
            counts.append(sum(host.shots for host in status.hosts))
            # those of the evaluation under way, or all of the last one
            assert counts[-1] in (40 * status.evaluations, 40 * status.evaluations + status.shots_done)
    writer.join()
    assert counts == sorted(counts)
    assert reader.read().evaluations == 59


def test_changes_are_lines_except_for_single_shots(folder):
    log = folder.log()
    folder.lease()
    work(log)
    before = folder.read()
    assert status_changes(None, before)[0].startswith(
        "running: inverting, iteration 1 of at most 10, 1 evaluation, misfit 2"
    )
    assert status_changes(None, before)[1:] == [
        "failure: a worker on node9 died: it was killed by signal 9 (3 times)",
        "failure: shot s1 is retried: it was late",
        "warning: mind the gap",
    ]
    log.write(sample("shot", shot="s5", evaluation=2, worker="tcp://1", host="node9", seconds=1.0))
    assert status_changes(before, folder.read()) == []
    log.write(sample("retry", shot="s1", worker="tcp://1", reason="it was late"))
    lines = status_changes(before, folder.read())
    assert lines == ["failure: shot s1 is retried: it was late (2 times)"]


def watch(cwd, *words, **popen):
    command = [sys.executable, "-m", "hpcfwi", "status", *words]
    return subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **popen)


def test_watching_ends_with_the_run(folder):
    log = folder.log()
    folder.lease()
    with watch(folder.path, "--watch", "0.1", ".") as process:
        assert "running: starting" in process.stdout.readline()
        work(log)
        log.write(sample("interrupted", reason="SIGTERM was received"))
        out, err = process.communicate(timeout=300)
    assert (process.returncode, err) == (0, "")
    assert re.search(r"^\d\d:\d\d:\d\d stopped: SIGTERM was received, iteration 1,", out, re.MULTILINE)


def test_watching_as_json_prints_one_object_per_line(folder):
    log = folder.log()
    folder.lease()
    with watch(folder.path.parent, "a run", "--json", "--watch=0.1") as process:
        assert json.loads(process.stdout.readline())["phase"] == "starting"
        log.write(sample("interrupted", reason=""))
        out, _ = process.communicate(timeout=300)
    assert json.loads(out.splitlines()[-1])["state"] == "stopped"


def test_ctrl_c_ends_watching_quietly(folder):
    folder.log()
    folder.lease()
    with watch(folder.path, ".", "--watch") as process:
        process.stdout.readline()
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=300) == ("", "")
    assert process.returncode == 0


def test_watching_ends_when_its_output_is_closed(folder):
    log = folder.log()
    folder.lease()
    with watch(folder.path, ".", "--watch", "0.1") as process:
        process.stdout.readline()
        process.stdout.close()
        log.write(sample("job", job="1", worker="w", state="pending"))
        assert process.wait(timeout=300) == 0


def test_long_lists_of_hosts_and_failures_are_cut_and_counted(folder):
    log = folder.log()
    folder.lease()
    for i in range(100):
        log.write(sample("worker joined", worker=f"tcp://{i}", host=f"node{i // 2}", name=str(i), cores=1))
        log.write(sample("retry", shot=f"s{i}", worker="w", reason="it was late"))
    lines = status_lines(folder.read())
    assert "             node6: 2 workers, 0 shots" in lines
    assert "             and 43 more hosts: 86 workers, 0 shots" in lines
    assert "failures     others (50 times)" in lines
    assert any(re.fullmatch(r" {13}and \d+ more; --json and events.jsonl list them", line) for line in lines)
    assert len(lines) < 40
    status_table(folder.read())


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e400", "9" * 400, '"\\u001b[2J"', "[]", "true", "null"])
def test_malformed_numbers_in_the_files_do_no_harm(folder, number):
    log = folder.log()
    work(log)
    names = [*log.state.summary(), "time", "misfit", "shots", "job_start", "cores", "host", "pid", "site", "address"]
    kinds = [
        "start",
        "summary",
        "iteration",
        "worker joined",
        "job",
        "evaluation started",
        "dashboard",
        "failed",
        "warning",
    ]
    facts = ", ".join(f'"{name}": {number}' for name in names if name not in ("time", "summary"))
    with log.path.open("a") as file:
        for kind in kinds:
            file.write(f'{{"time": 1, "event": "{kind}", {facts}, "summary": {{{facts}}}}}\n')
            file.write(f'{{"time": {number}, "event": "{kind}", {facts}}}\n')
            for name in sample(kind).facts():
                line = json.dumps(sample(kind).facts() | {name: None}).replace(f'"{name}": null', f'"{name}": {number}')
                file.write(f"{line}\n")
    (folder.path / "driver.json").write_text(f'{{"pid": {number}}}')
    status = folder.read()
    json.dumps(asdict(status), allow_nan=False)
    text = "\n".join([*status_lines(status), *status_changes(None, status)])
    assert text.replace("\n", "").isprintable()
    assert math.isfinite(status.core_hours)
    status_table(status)
