"""The undocumented names of Devito are there, and mean what this package takes them for; each test fails with the version."""

import shutil

import numpy as np
import pytest
from devito import Eq, Function, Grid, Operator, TimeFunction, configuration
from private_names import relying_on

from hpcfwi.solver.devito_internals import INSTRUCTION_SET, Kernel, compiler_command, set_instruction_set


@pytest.fixture
def field():
    return TimeFunction(name="field", grid=Grid((11, 12)), time_order=1)


def count(field, name="Count"):
    """An operator that adds ``slope`` to the next level at each step."""
    slope = Function(name="slope", grid=field.grid)
    slope.data[:] = 1
    return Operator([Eq(field.forward, field + slope * field.grid.stepping_dim.spacing)], name=name)


@relying_on("devito", "Operator.cfunction, arguments() and parameters are what apply() uses")
def test_a_kernel_called_directly_does_what_apply_does(field):
    operator = count(field)
    kernel = Kernel(operator)
    for steps in (4, 7):
        field.data[:] = 0
        operator.apply(time_m=0, time_M=steps - 1, dt=0.5)
        expected = np.array(field.data)
        field.data[:] = 0
        assert kernel(time_m=0, time_M=steps - 1, dt=0.5) > 0
        np.testing.assert_array_equal(field.data, expected)


@relying_on("devito", "Operator.cfunction compiles and loads the kernel")
def test_the_kernel_is_compiled_before_it_is_called(field):
    kernel = Kernel(count(field, "Compiled"))
    kernel.compile()
    loaded = kernel.operator.__dict__.get("_lib")
    assert loaded is not None


@relying_on("devito", "each operator has its own compiler, Operator._compiler, with the flags cflags")
def test_the_instruction_set_reaches_the_compiler(field, monkeypatch):
    monkeypatch.setenv(INSTRUCTION_SET, "x86-64-v2")
    operator = count(field, "Targeted")
    native = [flag for flag in operator._compiler.cflags if flag.endswith(("=native", "xHost"))]
    assert native
    set_instruction_set(operator)
    assert "-march=x86-64-v2" in operator._compiler.cflags
    assert not [flag for flag in operator._compiler.cflags if flag in native]
    other = count(field, "Other")
    assert native[0] in other._compiler.cflags


@relying_on("devito", "is_log_enabled_for follows the log level")
def test_devitos_log_level_decides_whether_apply_reports_speed(field, monkeypatch):
    applied = []
    operator = count(field, "Verbose")
    monkeypatch.setattr(operator, "apply", lambda **given: applied.append(given) or {})
    before = configuration["log-level"]
    try:
        for level, called in (("ERROR", 0), ("INFO", 1)):
            configuration["log-level"] = level
            Kernel(operator)(time_m=0, time_M=3, dt=0.5)
            assert len(applied) == called
    finally:
        configuration["log-level"] = before


@relying_on("devito", 'configuration["compiler"].cc is the command of the compiler')
def test_the_compiler_is_a_command():
    assert shutil.which(compiler_command())
