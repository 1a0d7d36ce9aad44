"""Staged files: named by content, verified by readers, refused where another user could have written them."""

import os
import stat
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hpcfwi.artifacts import StagedFile, load, stage
from hpcfwi.errors import InputError, StagingError
from hpcfwi.io import make_private, write_atomic


class Bomb:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return (Path.touch, (self.mark,))


@pytest.fixture
def folder(tmp_path):
    return make_private(tmp_path / "staged")


@pytest.fixture
def bomb(folder, tmp_path):
    """A staged file, and the mark that shows that it was unpickled."""
    return stage(folder, "model", Bomb(tmp_path / "mark")), tmp_path / "mark"


def test_a_staged_object_is_loaded_unchanged(folder):
    values = np.arange(6.0).reshape(2, 3)
    staged = stage(folder, "model", values)
    assert Path(staged.path).name == f"model-{staged.digest}.pkl"
    np.testing.assert_array_equal(load(staged, "model"), values)
    assert stage(folder, "model", values) == staged
    assert stage(folder, "model", values + 1).digest != staged.digest


def flip(path):
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


DAMAGES = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"x"),
    "bit-flipped": flip,
    "empty": lambda path: path.write_bytes(b""),
    "foreign": lambda path: path.write_bytes(b"\x80\x04K\x01."),
    "header cut": lambda path: path.write_bytes(path.read_bytes()[:40]),
    "gone": lambda path: path.unlink(),
    "writable by others": lambda path: path.chmod(0o666),
    "in a folder writable by others": lambda path: path.parent.chmod(0o777),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_changed_staged_file_is_named_and_not_unpickled(bomb, damage):
    staged, mark = bomb
    DAMAGES[damage](Path(staged.path))
    with pytest.raises(StagingError, match=Path(staged.path).name):
        load(staged, "model")
    assert not mark.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("what", ["file", "folder"])
def test_a_file_of_another_user_is_not_unpickled(bomb, what):
    staged, mark = bomb
    path = Path(staged.path)
    os.chown(path if what == "file" else path.parent, 12345, 12345)
    with pytest.raises(StagingError, match="belongs to another user"):
        load(staged, "model")
    assert not mark.exists()


def test_another_digest_or_kind_is_refused(bomb):
    staged, mark = bomb
    with pytest.raises(StagingError, match="is not the file that was staged"):
        load(replace(staged, digest="0" * 40), "model")
    with pytest.raises(StagingError, match="holds a 'model', not a 'shot'"):
        load(staged, "shot")
    assert not mark.exists()


def test_a_sound_file_is_unpickled(bomb):
    staged, mark = bomb
    load(staged, "model")
    assert mark.exists()


def test_a_writer_that_fails_leaves_the_old_file_and_nothing_else(folder):
    path = folder / "x"
    write_atomic(path, lambda file: file.write(b"old"))

    def fail(file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(StagingError, match="No space left on device"):
        write_atomic(path, fail)
    assert path.read_bytes() == b"old"
    assert list(folder.iterdir()) == [path]


def test_staged_files_and_folders_are_private_to_their_owner(folder):
    staged = stage(folder / "shots", "shot", 1)
    for path in (folder, folder / "shots", Path(staged.path)):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0


def test_a_folder_below_a_file_is_an_input_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="--run-dir"):
        make_private(tmp_path / "file" / "run")


def test_a_reference_is_small_and_plain():
    assert StagedFile("a", "b") == StagedFile("a", "b")
