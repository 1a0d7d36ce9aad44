"""Files of a run folder that were damaged between two starts: made again to the same bytes, or named in a clear stop."""

from __future__ import annotations

import shutil

import pytest

DAMAGES = ["a flipped bit", "truncated", "deleted", "foreign", "empty"]
ONE_FAST = [DAMAGES[0], *(pytest.param(how, marks=pytest.mark.slow) for how in DAMAGES[1:])]


def damage(path, how):
    content = bytearray(path.read_bytes())
    if how == "deleted":
        path.unlink()
        return
    if how == "truncated":
        del content[len(content) // 2 :]
    elif how == "a flipped bit":
        content[-7] ^= 16
    elif how == "foreign":
        content = bytearray(b"\x80\x04\x95cos\nsystem\n.")  # a pickle that hpcfwi did not write; it must not be loaded
    else:
        content.clear()
    path.write_bytes(content)


@pytest.fixture(scope="module")
def extended(first_run, tmp_path_factory):
    """The model of the first run, continued undisturbed to a third iteration."""
    shell = type(first_run[0])(tmp_path_factory.mktemp("extended"))
    shutil.copytree(first_run[2], shell.folder / "run")
    shell.run("run", "inversion.iterations=3")
    return (shell.folder / "run" / "model.npy").read_bytes()


@pytest.mark.parametrize("how", ONE_FAST)
def test_damaged_staged_files_are_made_again(hpcfwi, first_run, extended, how):
    """The solver, and each of the three shots in another way."""
    run_dir = hpcfwi.folder / "run"
    shutil.copytree(first_run[2], run_dir)
    (solver,) = run_dir.glob("staged/solver-*.pkl")
    damage(solver, how)
    others = DAMAGES[DAMAGES.index(how) :] + DAMAGES
    for shot, its_damage in zip("102", others, strict=False):
        damage(run_dir / "staged" / "shots" / f"{shot}.pkl", its_damage)
    hpcfwi.run("run", "inversion.iterations=3")
    assert (run_dir / "model.npy").read_bytes() == extended


@pytest.mark.parametrize("how", ONE_FAST)
def test_a_damaged_journal_entry_is_named_or_computed_again(hpcfwi, first_run, extended, how):
    run_dir = hpcfwi.folder / "run"
    shutil.copytree(first_run[2], run_dir)
    path = sorted(run_dir.glob("journal/*.bin"))[1]
    damage(path, how)
    words = ["--set", "site.worker.threads=1", "--set", "inversion.iterations=3"]
    if how != "deleted":
        done = hpcfwi("run", "fwi.toml", "--run-dir", "run", *words)
        assert done.returncode == 3, done.stdout
        assert f"hpcfwi: {path}: " in done.stderr
        assert "Remove it and start the same command again" in done.stderr
        assert "Traceback" not in done.stderr
        path.unlink()
    hpcfwi.run("run", "inversion.iterations=3")
    assert (run_dir / "model.npy").read_bytes() == extended
