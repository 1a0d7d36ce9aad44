"""The one solver of a run: the driver compiles and stages it, workers load it, or compile it again if their machine differs."""

import hashlib
import json
import os
import platform
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache, cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

from devito import configuration, switchconfig

from hpcfwi.artifacts import StagedFile, load, read_container, stage, unpickle
from hpcfwi.errors import RunError, StagingError
from hpcfwi.io import file_lock
from hpcfwi.solver.checkpoints import CheckpointedStorage
from hpcfwi.solver.codec import CompressedStorage
from hpcfwi.solver.devito_internals import Kernel, compiler_command, instruction_set
from hpcfwi.solver.disk import DiskStorage
from hpcfwi.solver.equations import EQUATIONS, WaveEquation
from hpcfwi.solver.spec import SolverSpec
from hpcfwi.solver.storage import SnapshotStorage, WavefieldStorage
from hpcfwi.version import __version__

# By the name in a specification.
STORAGES: dict[str, Callable[[Any, SolverSpec], WavefieldStorage]] = {
    "snapshots": SnapshotStorage,
    "compressed": CompressedStorage,
    "checkpointed": CheckpointedStorage,
    "disk": DiskStorage,
}
KIND = "solver"
# A build takes seconds; after this long a worker stops waiting for another's build and makes its own.
BUILD_LOCK_TIMEOUT_S = 300.0


class Propagator:
    """The operators of one wave equation with one wavefield storage, built when they are first used.

    The driver pickles them with their kernels.
    """

    def __init__(self, spec: SolverSpec) -> None:
        self.spec = spec
        self.equation: WaveEquation = EQUATIONS[spec.equation](spec)
        self.storage: WavefieldStorage = STORAGES[spec.storage](self.equation.kept, spec)

    @cached_property
    def forward(self) -> Kernel:
        """Models a record and keeps its wavefield."""
        return Kernel(self.equation.forward(self.storage))

    @cached_property
    def gradient(self) -> Kernel:
        """Propagates an adjoint source backwards."""
        return Kernel(self.equation.gradient(self.storage))

    @cached_property
    def born(self) -> Kernel:
        """Models the derivative of a record."""
        return Kernel(self.equation.born())


@contextmanager
def quiet_devito() -> Iterator[None]:
    """Let Devito log errors only, or what the variable ``DEVITO_LOGGING`` says; also decorates functions."""
    with switchconfig(log_level=os.environ.get("DEVITO_LOGGING", "ERROR")):
        yield


def stage_solver(folder: Path, spec: SolverSpec) -> tuple[StagedFile, bool]:
    """Stage the compiled solver for this kind of machine; returns it, and whether it was built now.

    If it cannot be built, a RunError says what to try.
    """
    found = _find(folder, spec, fingerprint())
    return (_build(folder, spec), True) if found is None else (found, False)


def obtain_solver(staged: StagedFile, spec: SolverSpec) -> tuple[Propagator, dict[str, Any]]:
    """Load the driver's solver, or build one if its kernels do not fit this machine.

    Returns it and facts for the event log: ``source`` (``"staged"``, ``"rebuilt"``, or ``"found"`` if another worker has built
    it), ``differences`` of the machines, and ``machine`` (:func:`result_fingerprint`). Raises StagingError if the staged file
    is missing or damaged, and RunError if its kernels do not fit and new ones cannot be built here.
    """
    path = Path(staged.path)
    header, payload = read_container(path, KIND, staged.digest)
    here = fingerprint()
    differences = fingerprint_differences(header.get("fingerprint", {}), here)
    if not differences:
        return unpickle(path, payload), {"source": "staged", "machine": result_fingerprint(header["fingerprint"])}
    if here["compiler"] == "none":
        raise RunError(
            f"the kernels do not fit this host, which has no compiler ({'; '.join(differences)}): in the site file, set "
            "devito.target to an instruction set that both machines have, or load a compiler with environment.modules"
        )
    # one worker per kind of machine builds
    with file_lock(path.with_name(f"solver-{fingerprint_digest(here)}.lock"), BUILD_LOCK_TIMEOUT_S):
        found = _find(path.parent, spec, here)
        fitting = found or _build(path.parent, spec)
    facts = {"source": "rebuilt" if found is None else "found", "differences": differences}
    return load(fitting, KIND), {**facts, "machine": result_fingerprint(here)}


def spec_digest(spec: SolverSpec) -> str:
    """Digest of a specification and of the version that writes the equations."""
    return hashlib.blake2b(f"{__version__} {spec!r}".encode(), digest_size=10).hexdigest()


def _build(folder: Path, spec: SolverSpec) -> StagedFile:
    try:
        propagator = Propagator(spec)
        born = (propagator.born,) if spec.born else ()
        for kernel in (propagator.forward, propagator.gradient, *born, *propagator.storage.kernels):
            kernel.compile()
    except Exception as error:
        advice = "Is there a working C compiler? Try: gcc --version. DEVITO_ARCH names another one (clang, icx, ...)."
        if (wanted := instruction_set()) is not None:
            advice = f'Does the compiler know devito.target = "{wanted}"? Try: gcc -march={wanted} -E -x c /dev/null'
        raise RunError(f"the solver cannot be built: {type(error).__name__}: {error}\n  {advice}") from error
    return stage(folder, KIND, propagator, fingerprint=fingerprint(), spec=spec_digest(spec))


def _find(folder: Path, spec: SolverSpec, here: dict[str, str]) -> StagedFile | None:
    """An undamaged staged solver for this specification and kind of machine."""
    wanted = spec_digest(spec)
    for path in sorted(folder.glob(f"{KIND}-*.pkl")):
        with suppress(StagingError):  # damaged, or being replaced
            header, _ = read_container(path, KIND)
            if header.get("spec") == wanted and not fingerprint_differences(header.get("fingerprint", {}), here):
                return StagedFile(str(path), str(header["digest"]))
    return None


@cache
def fingerprint() -> dict[str, str]:
    """Describe what compiled kernels depend on, for this machine; ``flags`` is a digest of its instruction set.

    A named instruction set (:func:`~hpcfwi.solver.devito_internals.instruction_set`) takes the place of the processor.
    """
    wanted = instruction_set()
    model, flags = _processor() if wanted is None else (f"any with {wanted}", wanted)
    return {
        "processor": model,
        "flags": _flags_digest(flags),
        "compiler": _compiler_version(),
        "language": f"{configuration['language']}, {configuration['platform']}",
        "python": platform.python_version(),
        "devito": version("devito"),
        "numpy": version("numpy"),
        "cloudpickle": version("cloudpickle"),
    }


def result_fingerprint(kernels: dict[str, str] | None = None) -> dict[str, str]:
    """Describe what the last bits of results depend on: processor, libraries, and the fingerprint of the ``kernels``."""
    model, flags = _processor()
    found = {"processor": model, "flags": _flags_digest(flags), "numpy": version("numpy"), "scipy": version("scipy")}
    return found | {name: str((kernels or {}).get(name)) for name in ("compiler", "language", "devito") if kernels}


def fingerprint_differences(built: Any, here: dict[str, str]) -> list[str]:
    """List why kernels of the fingerprint ``built`` do not run ``here``; a missing compiler does not count."""
    if not isinstance(built, dict):  # a damaged header
        built = {}
    return [
        f"{name}: {built.get(name)}, here {value}"
        for name, value in here.items()
        if built.get(name) != value and not (name == "compiler" and value == "none")
    ]


def fingerprint_digest(described: dict[str, str]) -> str:
    """A short name for a kind of machine."""
    return hashlib.blake2b(json.dumps(described, sort_keys=True).encode(), digest_size=6).hexdigest()


def _flags_digest(flags: str) -> str:
    return hashlib.blake2b(" ".join(sorted(flags.split())).encode(), digest_size=6).hexdigest()


def _processor() -> tuple[str, str]:
    """Name and instruction set extensions of the processor."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine(), platform.machine()
    model = re.search(r"^model name\s*:\s*(.*)$", text, re.M)
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.*)$", text, re.M)
    return model[1] if model else platform.machine(), flags[1] if flags else platform.machine()


def _compiler_version() -> str:
    """First line of the compiler's version; ``"none"`` without a compiler."""
    try:
        answer = subprocess.run(
            [compiler_command(), "--version"], capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return "none"
    return answer.stdout.partition("\n")[0].strip()
