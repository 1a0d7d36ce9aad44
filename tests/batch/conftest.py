"""Commands of a batch system that answer what a test wants."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes a shell script that is found under a command's name."""
    folder = tmp_path / "commands"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    # a PBS that is installed here must not answer instead
    monkeypatch.setenv("PBS_CONF_FILE", str(folder / "no.conf"))

    def make(name: str, body: str) -> None:
        (folder / name).write_text(f"#!/bin/sh\n{body}\n")
        (folder / name).chmod(0o755)

    return make


@pytest.fixture
def answer(command: Callable[..., None], tmp_path: Path) -> Callable[..., None]:
    """Makes a command that prints an answer, whatever its arguments."""

    def make(name: str, out: str = "", err: str = "", code: int = 0) -> None:
        (tmp_path / f"{name}.out").write_text(out)
        (tmp_path / f"{name}.err").write_text(err)
        command(name, f"cat '{tmp_path}/{name}.out'; cat '{tmp_path}/{name}.err' >&2; exit {code}")

    return make
