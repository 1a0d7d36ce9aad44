"""Every use of undocumented names of Devito.

``Operator._compiler``
    The compiler of one operator, whose flags :func:`set_instruction_set` changes.
``configuration["compiler"].cc``
    The command of the compiler.
``devito.logger.is_log_enabled_for``
    Whether Devito reports how fast its kernels are.
``Operator.cfunction``, ``Operator.arguments``, ``Operator.parameters``
    The compiled function, the values of its arguments and their order. :class:`Kernel` calls the function itself.

``tests/solver/test_devito_internals.py`` fails, and names Devito's version, if one of them is gone or has changed its meaning.
"""

from __future__ import annotations

import os
import re
import time
from typing import TYPE_CHECKING, Any

from hpcfwi.errors import RunError

if TYPE_CHECKING:  # takes seconds, and the instruction set must be known before
    from devito import Operator

# Environment variable that names the instruction set, as gcc's -march does.
INSTRUCTION_SET = "HPCFWI_TARGET"
# Compiler flags for the instruction set of the compiling machine.
NATIVE_FLAGS = ("-march=native", "-mcpu=native", "-xHost")


def instruction_set() -> str | None:
    """The instruction set that kernels are compiled for; None for that of the compiling machine."""
    return os.environ.get(INSTRUCTION_SET) or None


def compiler_command() -> str:
    """The compiler that Devito calls, such as ``gcc``."""
    from devito import configuration

    return str(configuration["compiler"].cc)


def operator_name(name: str) -> str:
    """Add the instruction set to an operator's name, since Devito's JIT cache distinguishes kernels by their code alone."""
    wanted = instruction_set()
    return name if wanted is None else f"{name}_{re.sub(r'[^A-Za-z0-9]', '_', wanted)}"


def set_instruction_set(operator: Operator) -> None:
    """Make Devito compile an operator for :func:`instruction_set`; call it before the first compilation."""
    wanted = instruction_set()
    if wanted is not None:
        # each operator has its own compiler, and no public option sets its flags
        compiler = operator._compiler
        compiler.cflags = [f"-march={wanted}" if flag in NATIVE_FLAGS else flag for flag in compiler.cflags]


class Kernel:
    """An operator's compiled function, whose fixed arguments are computed once.

    ``Operator.apply`` spends 3 to 6 ms on the arguments of each call. Arrays and grid limits stay the same, so a kernel only
    replaces the arguments that change.
    """

    def __init__(self, operator: Operator) -> None:
        self.operator = operator
        self._arguments: dict[str, Any] = {}

    def compile(self) -> None:
        """Compile and load the kernel now, so that a pickle of the operator carries it."""
        _ = self.operator.cfunction

    def __call__(self, **changing: float) -> float:
        """Run the kernel with the arguments that change, by their names in the code; returns the seconds in compiled code.

        All calls must pass the same argument names. Raises RunError if the kernel ends with an error code.
        """
        from devito.logger import is_log_enabled_for

        if is_log_enabled_for("INFO"):  # --verbose: only apply() reports how fast the kernel is
            return float(sum(entry.time for entry in self.operator.apply(**changing).values()))
        if not self._arguments:
            arguments = self.operator.arguments(**changing)
            self._arguments = {parameter.name: arguments[parameter.name] for parameter in self.operator.parameters}
        values = [changing.get(name, value) for name, value in self._arguments.items()]
        started = time.perf_counter()
        code = self.operator.cfunction(*values)
        seconds = time.perf_counter() - started
        if code:
            raise RunError(f"the kernel {self.operator.name} ended with error {code}")
        return seconds
