"""Writers of staged files that are killed, run out of disk or run at the same time; and files that no longer fit."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cloudpickle
import pytest

from hpcfwi.artifacts import load, read_header, stage
from hpcfwi.errors import StagingError
from hpcfwi.io import make_private, remove_unfinished, write_atomic


@pytest.fixture
def folder(tmp_path):
    return make_private(tmp_path / "staged")


def in_a_child(program: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program), *map(str, arguments)], stdout=subprocess.PIPE, text=True
    )


def test_a_writer_that_is_killed_leaves_the_old_file_under_its_name(folder):
    path = folder / "model.npy"
    write_atomic(path, lambda file: file.write(b"old"))
    program = """
        import sys, time
        from pathlib import Path
        from hpcfwi.io import write_atomic

        def half(file):
            file.write(b"half")
            file.flush()
            print("writing", flush=True)
            time.sleep(600)

        write_atomic(Path(sys.argv[1]), half)
    """
    with in_a_child(program, path) as writer:
        assert writer.stdout.readline() == "writing\n"
        writer.send_signal(signal.SIGKILL)
    assert path.read_bytes() == b"old"
    assert len(list(folder.iterdir())) == 2
    remove_unfinished(folder)
    assert list(folder.iterdir()) == [path]


def test_a_writer_that_is_interrupted_leaves_nothing(folder):
    def interrupted(file):
        file.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomic(folder / "model.npy", interrupted)
    assert not list(folder.iterdir())


def test_a_file_that_is_rewritten_again_and_again_is_never_incomplete(folder):
    program = """
        import sys
        from pathlib import Path
        from hpcfwi.artifacts import stage

        while True:
            stage(Path(sys.argv[1]), "shot", bytes(3_000_000), name="0.pkl")
            print("once", flush=True)
    """
    with in_a_child(program, folder) as writer:
        assert writer.stdout.readline() == "once\n"
        staged = stage(folder, "shot", bytes(3_000_000), name="0.pkl")
        for _ in range(30):
            assert load(staged, "shot") == bytes(3_000_000)
        writer.kill()


def test_many_writers_of_the_same_content_do_not_disturb_each_other(folder):
    with ThreadPoolExecutor(8) as pool:
        staged = set(pool.map(lambda _: stage(folder, "model", bytes(100_000)), range(40)))
    (only,) = staged
    assert load(only, "model") == bytes(100_000)
    assert [str(path) for path in folder.iterdir()] == [only.path]


@pytest.fixture
def full_disk(tmp_path):
    """A file system with room for 64 kB."""
    if os.geteuid() != 0 or not shutil.which("mount"):
        pytest.skip("only root can mount a file system of a few kB")
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "none", place], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mount is not allowed here")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def test_a_full_disk_is_named_and_leaves_the_old_file_and_nothing_else(full_disk):
    write_atomic(full_disk / "model.pkl", lambda file: file.write(b"old"))
    with pytest.raises(
        StagingError, match=r"model\.pkl: cannot be written \(No space left on device\); free some space"
    ):
        stage(full_disk, "model", bytes(200_000), name="model.pkl")
    assert (full_disk / "model.pkl").read_bytes() == b"old"
    assert [path.name for path in full_disk.iterdir()] == ["model.pkl"]


def test_a_file_size_limit_is_named_and_leaves_nothing(folder):
    program = """
        import resource, signal, sys
        from pathlib import Path
        from hpcfwi.artifacts import stage
        from hpcfwi.errors import StagingError

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
        try:
            stage(Path(sys.argv[1]), "model", bytes(200_000), name="model.pkl")
        except StagingError as error:
            print(error)
    """
    with in_a_child(program, folder) as writer:
        assert "model.pkl: cannot be written (File too large)" in writer.stdout.read()
    assert not list(folder.iterdir())


def test_a_staged_file_that_cannot_be_unpickled_is_named(folder, tmp_path, monkeypatch):
    (tmp_path / "of_an_old_version.py").write_text("class Gone: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    import of_an_old_version

    staged = stage(folder, "solver", of_an_old_version.Gone())
    del of_an_old_version.Gone
    with pytest.raises(StagingError, match=rf"{Path(staged.path).name}: cannot be unpickled here \(AttributeError"):
        load(staged, "solver")


def test_facts_are_read_from_the_header_without_unpickling(folder):
    staged = stage(folder, "solver", 1, spec="2-D")
    header = read_header(Path(staged.path))
    assert (header["kind"], header["spec"], header["digest"]) == ("solver", "2-D", staged.digest)
    (folder / "plain.pkl").write_bytes(cloudpickle.dumps(1))
    assert read_header(folder / "plain.pkl") is None
    assert read_header(folder / "absent.pkl") is None


def test_a_file_keeps_its_old_content_while_it_is_rewritten(folder):
    old = stage(folder, "model", b"old", name="model.pkl")
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(write_atomic, folder / "model.pkl", lambda file: (time.sleep(0.5), file.write(b"new")))
        time.sleep(0.1)
        assert load(old, "model") == b"old"
        slow.result()
    with pytest.raises(StagingError, match=r"model\.pkl"):
        load(old, "model")
