"""When the command began, which the wall time of a run counts from."""

import subprocess
import sys

PROGRAM = "import time; from hpcfwi import process; process.mark_command_start(); print(time.time() - process.command_start())"


def test_the_time_before_exec_in_a_job_script_does_not_count():
    script = f'sleep 2; exec "{sys.executable}" -c "{PROGRAM}"'
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    assert 0 <= float(done.stdout) < 1


def test_without_a_command_a_run_begins_when_it_is_called():
    program = "import time; from hpcfwi import process; time.sleep(1); print(time.time() - process.command_start())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 0.5
