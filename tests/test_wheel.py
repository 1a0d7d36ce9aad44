"""Installed as a wheel, far from its checkout, it finds its jobs and sites and runs the circle."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_an_installed_wheel_runs_the_circle_in_an_empty_folder(tmp_path):
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", tmp_path, ROOT], check=True)
    (wheel,) = tmp_path.glob("hpcfwi-*.whl")
    site = tmp_path / "site"
    subprocess.run([*pip, "install", "--no-deps", "--target", site, wheel], check=True)
    empty = tmp_path / "empty"
    empty.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(site), "PROJECT": "p01", "USER": "me"}

    def hpcfwi(*words):
        command = [sys.executable, "-m", "hpcfwi", *words]
        done = subprocess.run(command, cwd=empty, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    hpcfwi("run", "circle", "--set", "inversion.iterations=1")
    assert np.load(empty / "runs" / "circle" / "model.npy").shape == (101, 101)
    listed = "".join(hpcfwi("site", "list").split())  # long paths are folded
    assert str(site / "hpcfwi" / "share" / "site-configs")[-40:] in listed
    assert "generic-slurm" in listed
    assert "#SBATCH -A p01" in hpcfwi("site", "script", "archer2")
