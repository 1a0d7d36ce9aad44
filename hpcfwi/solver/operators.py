"""The one solver: built, compiled and staged by the driver, unpickled by each worker, rebuilt where machines differ."""

from __future__ import annotations

import hashlib
import json
import platform
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from hpcfwi.artifacts import StagedFile, load, read_container, read_header, stage, unpickle
from hpcfwi.errors import RunError, StagingError
from hpcfwi.solver.devito_internals import target
from hpcfwi.solver.equations import Propagator
from hpcfwi.solver.spec import SolverSpec
from hpcfwi.version import __version__

__all__ = ["differences", "fingerprint", "fingerprint_digest", "kind_of_machine", "obtain_solver", "stage_solver"]

KIND = "solver"
# A build takes seconds; who waits longer than this for another's build makes its own.
PATIENCE = 300.0


def spec_digest(spec: SolverSpec) -> str:
    """Digest of a specification, and of the version that writes the equations."""
    return hashlib.blake2b(f"{__version__} {spec!r}".encode(), digest_size=10).hexdigest()


def stage_solver(folder: Path, spec: SolverSpec) -> tuple[StagedFile, bool]:
    """Stage the compiled solver for this kind of machine, or find the one that is staged already.

    Returns
    -------
    StagedFile, bool
        The solver, and whether it had to be built.
    """
    found = _find(folder, spec, fingerprint())
    if found is not None:
        return found, False
    try:
        return _build(folder, spec), True
    except StagingError:
        raise
    except Exception as error:
        raise RunError(f"the solver cannot be built: {type(error).__name__}: {error}\n  {_advice()}") from error


def obtain_solver(staged: StagedFile, spec: SolverSpec) -> tuple[Propagator, dict[str, Any]]:
    """Unpickle the staged solver, or one built for this kind of machine where the staged one does not fit.

    Returns
    -------
    Propagator, dict
        The solver, and facts for the event log: ``source`` (``"staged"``, ``"rebuilt"`` or ``"found"``), ``differences``, and
        ``machine``, what the last bits of its results depend on.
    """
    path = Path(staged.path)
    header, payload = read_container(path, KIND, staged.digest)
    here = fingerprint()
    differs = differences(header.get("fingerprint", {}), here)
    if not differs:
        return unpickle(path, payload), {"source": "staged", "machine": kind_of_machine(header["fingerprint"])}
    if here["compiler"] == "none":
        raise RunError(
            f"the kernels do not fit this host, which has no compiler ({'; '.join(differs)}): let devito.target in the site "
            "file name an instruction set of both, or environment.modules a compiler"
        )
    with _one_builder(path.with_name(f"solver-{fingerprint_digest(here)}.lock")):
        found = _find(path.parent, spec, here)
        own = found or _build(path.parent, spec)
    source = "rebuilt" if found is None else "found"
    return load(own, KIND), {"source": source, "differences": differs, "machine": kind_of_machine(here)}


def _advice() -> str:
    """What to look at when kernels cannot be built."""
    wanted = target()
    if wanted is not None:
        return f'Does the compiler know devito.target = "{wanted}"? Try: gcc -march={wanted} -E -x c /dev/null'
    return "Is there a working C compiler? Try: gcc --version. DEVITO_ARCH names another one (clang, icx, ...)."


@contextmanager
def _one_builder(path: Path) -> Iterator[None]:
    """Keep others from building the same; where that cannot be, work is done twice and nothing is harmed."""
    lock = FileLock(path)
    with suppress(Timeout, OSError, NotImplementedError):
        lock.acquire(timeout=PATIENCE)
    try:
        yield
    finally:
        lock.release()


def _build(folder: Path, spec: SolverSpec) -> StagedFile:
    propagator = Propagator(spec)
    propagator.compile()
    return stage(folder, KIND, propagator, fingerprint=fingerprint(), spec=spec_digest(spec))


def _find(folder: Path, spec: SolverSpec, here: dict[str, str]) -> StagedFile | None:
    """A sound staged solver for this specification and kind of machine."""
    wanted = spec_digest(spec)
    for path in sorted(folder.glob(f"{KIND}-*.pkl")):
        header = read_header(path)
        if header is None or header.get("spec") != wanted or differences(header.get("fingerprint", {}), here):
            continue
        try:
            read_container(path, KIND)
        except StagingError:
            continue
        return StagedFile(str(path), str(header["digest"]))
    return None


@cache
def fingerprint() -> dict[str, str]:
    """Describe this machine as far as compiled kernels depend on it.

    Returns
    -------
    dict
        ``processor``, ``flags`` (digest of the instruction set), ``compiler``, ``language``, and the versions of ``python``,
        ``devito``, ``numpy`` and ``cloudpickle``. For a named instruction set (:mod:`hpcfwi.solver.devito_internals`) that
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
