"""A run continues without a reader of its output, because its folder has everything."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest
from watching import wait_until

FULL = "/dev/full"
needs_full = pytest.mark.skipif(not os.path.exists(FULL), reason="no /dev/full here")  # noqa: PTH110


def in_a_shell(shell, redirected):
    command = f"'{sys.executable}' -m hpcfwi run fwi.toml --run-dir run {redirected}"
    return subprocess.run(
        command, shell=True, cwd=shell.folder, env=shell.environment, capture_output=True, text=True, timeout=300
    )


@pytest.mark.parametrize(
    ("redirected", "message"),
    [
        pytest.param(">&-", "", marks=pytest.mark.slow),
        pytest.param(">&- 2>&- <&-", "", marks=pytest.mark.slow),
        pytest.param(
            f">{FULL}", "hpcfwi: some output could not be written: No space left on device\n", marks=needs_full
        ),
        pytest.param(f">{FULL} 2>{FULL}", "", marks=[needs_full, pytest.mark.slow]),
    ],
)
def test_a_run_needs_no_output(hpcfwi, first_run, redirected, message):
    done = in_a_shell(hpcfwi, redirected)
    assert done.returncode == 0, done.stderr
    assert done.stderr == message
    assert (hpcfwi.folder / "run" / "model.npy").read_bytes() == (first_run[2] / "model.npy").read_bytes()


@pytest.mark.parametrize("ignored", [pytest.param(True, marks=pytest.mark.slow), False])
def test_a_closed_terminal_stops_a_run_cleanly_or_not_at_all(hpcfwi, first_run, ignored):
    """Its end is SIGHUP, for those that do not ignore it, and every word to it from then on an error."""
    main, terminal = pty.openpty()
    words = [sys.executable, "-m", "hpcfwi", "run", "fwi.toml", "--run-dir", "run"]
    ignoring = ["sh", "-c", 'trap "" HUP; exec "$@"', "sh"] if ignored else []
    prefix = ["setsid", "--ctty", "--wait", *ignoring]
    process = subprocess.Popen(
        [*prefix, *words],
        cwd=hpcfwi.folder,
        env=hpcfwi.environment,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
    )
    os.close(terminal)
    wait_until(lambda: (hpcfwi.folder / "run" / "events.jsonl").exists() or process.poll() is not None)
    assert process.poll() is None
    os.close(main)
    assert process.wait(timeout=300) == (0 if ignored else 75)
    if not ignored:
        hpcfwi.run("run")
    assert (hpcfwi.folder / "run" / "model.npy").read_bytes() == (first_run[2] / "model.npy").read_bytes()
