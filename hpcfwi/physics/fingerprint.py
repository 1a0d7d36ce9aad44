"""What compiled kernels depend on: processor, compiler and versions."""

from __future__ import annotations

import hashlib
import json
import platform
import re
import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from hpcfwi.physics.target import target

__all__ = ["differences", "fingerprint", "fingerprint_digest", "kind_of_machine"]


@cache
def fingerprint() -> dict[str, str]:
    """Describe this machine as far as compiled kernels depend on it.

    Returns
    -------
    dict
        ``processor``, ``flags`` (digest of the instruction set), ``compiler``, ``language``, and the versions of ``python``,
        ``devito``, ``numpy`` and ``cloudpickle``. Of kernels for a named instruction set (:mod:`hpcfwi.physics.target`) that
        takes the place of the processor.
    """
    wanted = target()
    model, flags = _processor() if wanted is None else (f"any with {wanted}", wanted)
    return {
        "processor": model,
        "flags": _short(flags),
        "compiler": _compiler(),
        "language": _language(),
        "python": platform.python_version(),
        "devito": version("devito"),
        "numpy": version("numpy"),
        "cloudpickle": version("cloudpickle"),
    }


def kind_of_machine(kernels: dict[str, str] | None = None) -> dict[str, str]:
    """What the last bits of results depend on: the processor, with or without a named instruction set, and the libraries.

    Parameters
    ----------
    kernels
        Fingerprint of the kernels that run here, if any do.
    """
    model, flags = _processor()
    found = {"processor": model, "flags": _short(flags), "numpy": version("numpy"), "scipy": version("scipy")}
    return found | {name: str((kernels or {}).get(name)) for name in ("compiler", "language", "devito") if kernels}


def _short(flags: str) -> str:
    return hashlib.blake2b(" ".join(sorted(flags.split())).encode(), digest_size=6).hexdigest()


def differences(built: Any, here: dict[str, str]) -> list[str]:
    """What keeps kernels that were built there from being used here; a node without a compiler may use them.

    Returns
    -------
    list of str
        One ``name: there, here`` for each difference; empty if there is none.
    """
    if not isinstance(built, dict):  # the header of a staged file says it, and may say anything
        built = {}
    return [
        f"{name}: {built.get(name)}, here {value}"
        for name, value in here.items()
        if built.get(name) != value and not (name == "compiler" and value == "none")
    ]


def fingerprint_digest(described: dict[str, str]) -> str:
    """A short name for a kind of machine."""
    return hashlib.blake2b(json.dumps(described, sort_keys=True).encode(), digest_size=6).hexdigest()


def _processor() -> tuple[str, str]:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine(), platform.machine()
    model = re.search(r"^model name\s*:\s*(.*)$", text, re.M)
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.*)$", text, re.M)
    return model[1] if model else platform.machine(), flags[1] if flags else platform.machine()


def _language() -> str:
    from devito import configuration

    return f"{configuration['language']}, {configuration['platform']}"


def _compiler() -> str:
    """First line of what Devito's compiler says of its version."""
    from devito import configuration

    command = configuration["compiler"].CC
    try:
        answer = subprocess.run([command, "--version"], capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return "none"
    return answer.stdout.partition("\n")[0].strip()
