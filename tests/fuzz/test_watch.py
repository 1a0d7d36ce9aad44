"""The watch over file accesses works; without it the cases of the other modules would prove nothing."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import strategies as st

ACTS = {
    "open": lambda path: path.open("wb"),
    "append": lambda path: os.open(path, os.O_APPEND | os.O_WRONLY),
    "truncate": lambda path: os.truncate(path, 0),
    "mkdir": lambda path: path.with_name("new").mkdir(),
    "rename": lambda path: path.rename(path.with_name("other")),
    "take away": lambda path: path.rename("mine"),
    "remove": lambda path: path.unlink(),
    "chmod": lambda path: path.chmod(0o777),
    "link": lambda path: path.with_name("link").symlink_to("/"),
    "remove all": lambda path: shutil.rmtree(path.parent),
    "start": lambda path: os.system(f"rm {path}"),
}


# What follows a link to a file; the others would change the link itself, which is inside.
FOLLOWING = ("open", "append", "truncate", "chmod", "start")
CASES = [
    (act, way) for act in ACTS for way in ("directly", "by its folder") if (act, way) != ("remove all", "by its folder")
]
CASES += [(act, "by a link") for act in FOLLOWING]


@pytest.mark.cases(1)
@pytest.mark.parametrize(("act", "way"), CASES)
def test_changes_outside_the_folder_are_blocked(fuzz, tmp_path, act, way):
    outside = tmp_path / "outside" / "file"
    outside.parent.mkdir()
    outside.write_bytes(b"precious")

    def check(folder: Path, _: object) -> None:
        Path("link").symlink_to(outside)
        Path("folder").symlink_to(outside.parent)
        ways = {"directly": outside, "by a link": folder / "link", "by its folder": folder / "folder" / "file"}
        ACTS[act](ways[way])

    with pytest.raises(pytest.fail.Exception, match="outside of"):
        fuzz(st.just(0), check)
    assert outside.read_bytes() == b"precious"
    assert list(outside.parent.iterdir()) == [outside]


@pytest.mark.cases(1)
def test_changes_inside_the_folder_are_allowed(fuzz):
    def check(folder: Path, _: object) -> None:
        (folder / "a" / "b").mkdir(parents=True)
        (folder / "a" / "b" / "file").write_bytes(b"x")
        (folder / "a" / "link").symlink_to("/etc/passwd")
        (folder / "a" / "link").unlink()
        shutil.rmtree("a")

    fuzz(st.just(0), check)
