"""No host can connect to the scheduler of a run without the key of the run."""

from __future__ import annotations

import signal
import subprocess
import sys

from watching import logged_events, options

INTRUDER = """
import sys
from distributed import Client
from distributed.security import Security

address, kind = sys.argv[1:]
if kind == "plain":
    address, security = address.replace("tls://", "tcp://"), None
else:
    security = Security.temporary()
try:
    client = Client(address, security=security, timeout="5s")
except OSError as error:
    print("refused:", type(error).__name__)
else:
    print("in:", client.scheduler_info())
"""
SETTINGS = ("inversion.iterations=5000", "inversion.ftol=0", "grid.shape=[201, 201]", "grid.spacing=[3.0, 3.0]")


def test_connections_without_the_key_of_the_run_are_refused_and_the_run_continues(lab, on_login, driver_of):
    run_dir, words = on_login.folder / "run", ("--site", "generic-slurm", "--run-dir", "run", "--nodes", "1")
    process = on_login.start("run", "fwi.toml", *words, *options(*SETTINGS), stdout=subprocess.DEVNULL)
    lab.until(lambda: logged_events(run_dir, "shot"))
    address = logged_events(run_dir, "first workers")[0]["scheduler"]
    assert address.startswith("tls://10.")
    assert {path.name: path.stat().st_mode & 0o777 for path in [run_dir / "tls", *(run_dir / "tls").iterdir()]} == {
        "tls": 0o700,
        "key.pem": 0o600,
        "certificate.pem": 0o600,
    }
    for kind in ("plain", "own certificate"):
        assert lab.run(sys.executable, "-c", INTRUDER, address, kind, host="node3").startswith("refused:")
    done = len(logged_events(run_dir, "shot"))
    lab.until(lambda: len(logged_events(run_dir, "shot")) > done)
    driver_of(process).send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 75, err
    assert not (run_dir / "tls").exists()
