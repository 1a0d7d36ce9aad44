"""The instruction set that kernels are compiled for, where it is not that of the machine that compiles them."""

from __future__ import annotations

import os
import re
from typing import Any

__all__ = ["TARGET", "retarget", "target", "targeted_name"]

# Variable that names it, as gcc's -march does.
TARGET = "HPCFWI_TARGET"
# What Devito's compilers say for "this machine's own".
NATIVE = ("-march=native", "-mcpu=native", "-xHost")


def target() -> str | None:
    """The instruction set that was asked for, or None for the machine's own."""
    return os.environ.get(TARGET) or None


def targeted_name(name: str) -> str:
    """Name for an operator: Devito's JIT cache knows kernels by their code, and must not mistake them for each other's."""
    wanted = target()
    return name if wanted is None else f"{name}_{re.sub(r'[^A-Za-z0-9]', '_', wanted)}"


def retarget(operator: Any) -> None:
    """Let an operator that has not been compiled yet be compiled for :func:`target`."""
    wanted = target()
    if wanted is not None:
        # there is no public way: Devito makes a compiler of its own for each operator, with the flags of its class
        compiler = operator._compiler
        compiler.cflags = [f"-march={wanted}" if flag in NATIVE else flag for flag in compiler.cflags]
