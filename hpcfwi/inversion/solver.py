"""The one solver: built, compiled and staged by the driver, unpickled by each worker, rebuilt where machines differ."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from hpcfwi.data.staging import StagedFile, load, read_container, read_header, stage, unpickle
from hpcfwi.errors import RunError, StagingError
from hpcfwi.physics.fingerprint import differences, fingerprint, fingerprint_digest, kind_of_machine
from hpcfwi.physics.propagator import Propagator
from hpcfwi.physics.spec import PropagatorSpec
from hpcfwi.physics.target import target
from hpcfwi.version import __version__

__all__ = ["obtain_solver", "stage_solver"]

KIND = "solver"
# A build takes seconds; who waits longer than this for another's build makes its own.
PATIENCE = 300.0


def spec_digest(spec: PropagatorSpec) -> str:
    """Digest of a specification, and of the version that writes the equations."""
    return hashlib.blake2b(f"{__version__} {spec!r}".encode(), digest_size=10).hexdigest()


def stage_solver(folder: Path, spec: PropagatorSpec) -> tuple[StagedFile, bool]:
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


def obtain_solver(staged: StagedFile, spec: PropagatorSpec) -> tuple[Propagator, dict[str, Any]]:
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


def _build(folder: Path, spec: PropagatorSpec) -> StagedFile:
    propagator = Propagator(spec)
    propagator.compile()
    return stage(folder, KIND, propagator, fingerprint=fingerprint(), spec=spec_digest(spec))


def _find(folder: Path, spec: PropagatorSpec, here: dict[str, str]) -> StagedFile | None:
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
