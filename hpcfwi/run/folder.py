"""The run folder: the paths of a run's files, and the problem that they belong to."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
from numpy.typing import NDArray

from hpcfwi.batch.registry import current_batch_system, current_start
from hpcfwi.config.run import RunConfig
from hpcfwi.errors import InputError, RunError
from hpcfwi.events.lease import Lease
from hpcfwi.events.log import read_state
from hpcfwi.inversion.history import GRADIENT_FILE, model_file
from hpcfwi.io import (
    make_private,
    parse_json,
    remove_unfinished,
    require_regular_file,
    shortened,
    write_atomic,
    write_json,
)
from hpcfwi.model.arrays import read_array
from hpcfwi.version import __version__


def fresh_folder(path: Path) -> Path:
    """The folder for a fresh run: ``path``, or the first of ``path-2``, ``path-3``, ... that does not exist.

    A restarted batch job continues in the folder in which it began.
    """
    batch, restarted = current_batch_system(), current_start()[1] > 0
    jobs = {batch.job_id, batch.variable("predecessor")} if batch is not None and restarted else set()
    candidate, number = path, 1
    with suppress(OSError):  # RunFolder reports what is wrong with the path
        while candidate.exists():
            start = read_state(candidate / "events.jsonl").start
            if start is not None and start.job in jobs:
                break
            number += 1
            candidate = path.with_name(f"{path.name}-{number}")
    return candidate


# Without these two files, the content of the folder cannot be trusted.
PROBLEM, DATA = "problem.json", "data.json"
# The key in problem.json of the versions that began and continued the run.
VERSIONS = "versions"
# The key in problem.json that says whether a program has opened the objective, in place of a run.
OPENED = "open objective"
MAX_DIFFERENCES = 40
# Files that a driver may leave before it has claimed the folder.
FIRST_FILES = ("staged", "journal", "models", "logs", "tls", ".lock", "driver.json", "events.jsonl")
# Paths that a run writes to; a link in their place would lead out of the folder.
WRITTEN = ("staged", "staged/shots", "journal", "models", "figures", "data", "logs", "tls", "events.jsonl", ".lock")


class RunFolder:
    """The paths and small files of a run; a context manager that keeps other drivers out.

    If the folder does not exist, it is created with access for the owner only. Raises InputError if it cannot be used.
    ``print_line`` prints why the driver has to wait for the folder.
    """

    def __init__(self, path: Path, print_line: Callable[[str], None] = lambda _: None) -> None:
        _check_usable(path)
        self.path = make_private(path.absolute())
        self.staged = make_private(self.path / "staged")
        self.shots = make_private(self.staged / "shots")
        self.journal = make_private(self.path / "journal")
        self.models = make_private(self.path / "models")
        self.figures = self.path / "figures"
        self.history = self.path / "history.csv"
        self.events = self.path / "events.jsonl"
        self.model = self.path / "model.npy"
        self.image = self.path / "model.vti"
        self.wavelet = self.path / "wavelet.csv"
        self.current_model = self.path / "model-current.npy"
        self.result = self.path / "result.json"
        self.lease = Lease(self.path / "driver.json", print_line, *current_start())

    def __enter__(self) -> RunFolder:
        self.lease.acquire()
        remove_unfinished(self.path)
        return self

    def __exit__(self, *_: object) -> None:
        self.lease.release()

    def claim(self, identity: dict[str, Any], config: RunConfig, accept_versions: bool = False) -> bool:
        """Make this the folder of a problem, and return whether it was so before.

        ``identity`` is everything that the results depend on. Raises InputError if the folder holds a run of another problem,
        with the keys that differ, or, without ``accept_versions``, a run that other versions of hpcfwi or Devito began.
        """
        path = self.path / PROBLEM
        identity = json.loads(json.dumps(identity, default=str))
        # an open objective has no command line
        option, fresh, accept = "--run-dir", "start over with --fresh, ", "--accept-versions"
        if identity.get(OPENED):
            option, fresh, accept = "run_dir", "", "accept_versions=True"
        known = self.read_json(path)
        here = {"hpcfwi": __version__, "devito": version("devito")}  # the bytes of a result may depend on them
        if known is None and (any(self.journal.glob("*.bin")) or self.history.exists() or self.result.exists()):
            raise InputError(
                f"{path}: is missing, so the problem that {self.path} belongs to is unknown; choose another folder with "
                f"{option}, or remove this one"
            )
        versions: Any = {"began": here, "accepted": [here]} if known is None else known.pop(VERSIONS, None)
        if known is not None and bool(known.get(OPENED)) != bool(identity.get(OPENED)):
            holds, wanted = "an inversion (hpcfwi run)", "an open objective (hpcfwi.open_objective)"
            if known.get(OPENED):
                holds, wanted = wanted, holds
            raise InputError(
                f"{self.path}: is the folder of {holds}; {wanted} needs another one: choose it with {option}"
            )
        if known is not None and known != identity:
            differ = "\n".join(f"  {line}" for line in _differences(known, identity)[:MAX_DIFFERENCES])
            raise InputError(
                f"{self.path}: holds a run of another problem:\n{differ}\n"
                f"  Choose another folder with {option}, {fresh}or remove this one."
            )
        if not isinstance(versions, dict) or not isinstance(versions.get("accepted"), list):
            versions = {"began": None, "accepted": []}  # malformed
        if here not in versions["accepted"]:
            if not accept_versions:
                raise InputError(
                    f"{self.path}: this run began with {_listed(versions.get('began'))}, but this is {_listed(here)}; the same "
                    f"bytes can no longer be promised.\n  Continue anyway with {accept}, {fresh}or choose another folder with "
                    f"{option}."
                )
            versions["accepted"].append(here)
        text = tomli_w.dumps(config.model_dump(mode="json", exclude_none=True))  # TOML has no null
        write_atomic(self.path / "config.toml", lambda file: file.write(text.encode()))
        # part of the keys of the journal's entries
        self.began_with = json.dumps(versions.get("began"), sort_keys=True)
        self.other_versions = len(versions["accepted"]) > 1
        if known is None or accept_versions:
            self.write_json(path, {**identity, VERSIONS: versions})
        return known is not None

    def claim_data(self, digests: dict[str, str]) -> None:
        """Record the digests of the observed data, by shot; raises InputError if they differ from the first start's."""
        path = self.path / DATA
        known = self.read_json(path) or {}
        changed = [name for name, digest in digests.items() if known.get(name, digest) != digest]
        if changed:
            more = f" (and of {len(changed) - 1} more)" if len(changed) > 1 else ""
            raise InputError(
                f"data.file: the record of shot {changed[0]}{more} has changed since the run in {self.path} began; "
                "choose another folder with --run-dir, or remove this one"
            )
        # a shot that was excluded before may be used again
        if not known.keys() >= digests.keys():
            self.write_json(path, known | digests)

    def reopen(self) -> None:
        """Reopen a finished run that continues: its final model becomes the current one."""
        self.result.unlink(missing_ok=True)
        if self.model.exists():
            try:
                self.model.replace(self.current_model)
            except OSError as error:
                raise InputError(
                    f"{self.model}: cannot be renamed ({error.strerror}); remove it and type the same command again"
                ) from None

    def verify(self) -> None:
        """Raise RunError if another driver has taken the folder, or it was moved or removed.

        Call it before this driver writes anything that others rely on.
        """
        self.lease.verify()
        if not (self.path / PROBLEM).exists():
            raise RunError(
                f"{self.path}: the run folder was moved or removed while it was in use; continue the run with --run-dir and "
                "its new path"
            )

    def discard_iterations(self) -> None:
        """Remove the files about iterations; staged files and the journal stay."""
        for path in (self.history, self.current_model):
            path.unlink(missing_ok=True)
        self.cut_models(-1)

    def write_json(self, path: Path, content: dict[str, Any]) -> None:
        """Write a small JSON file."""
        write_json(path, content)

    def progress(self) -> tuple[int, int, int]:
        """Numbers of staged shots, journal entries and sums kept of the current evaluation; they grow with progress."""
        return (
            sum(1 for _ in self.shots.rglob("*.pkl")),
            sum(1 for _ in self.journal.glob("*.bin")),
            sum(1 for _ in self.journal.glob("partial-*/*.bin")),
        )

    def write_array(self, path: Path, array: NDArray) -> None:
        """Write an array as .npy."""
        write_atomic(path, lambda file: np.save(file, array))

    def write_model(self, iteration: int, velocity: NDArray) -> None:
        """Write the model after an iteration, km/s, which is the current one."""
        model = velocity.astype(np.float32)
        self.write_array(self.path / model_file(iteration), model)
        self.write_array(self.current_model, model)

    def write_gradient(self, gradient: NDArray) -> None:
        """Write the gradient at the initial model."""
        self.write_array(self.path / GRADIENT_FILE, gradient.astype(np.float32))

    def read_gradient(self) -> NDArray | None:
        """The gradient at the initial model; None if its file is missing, as after a kill while it was written."""
        path = self.path / GRADIENT_FILE
        return read_array(path, "the first gradient") if path.exists() else None

    def cut_models(self, iterations: int) -> None:
        """Remove the models of an earlier start that made more iterations."""
        kept = {(self.path / model_file(number)).name for number in range(iterations + 1)}
        for path in self.models.iterdir():
            if path.name not in kept:
                path.unlink(missing_ok=True)

    def write_bytes(self, path: Path, content: bytes) -> None:
        """Write a file with this content."""
        write_atomic(path, lambda file: file.write(content))

    def read_json(self, path: Path) -> dict[str, Any] | None:
        """The content of a small JSON file; None if it does not exist. Raises InputError if it is damaged."""
        try:
            content = parse_json(require_regular_file(path).read_bytes())
            if not isinstance(content, dict):
                raise ValueError("it is not a JSON object")
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            advice = (
                "the run in this folder cannot be continued; choose another one with --run-dir"
                if path.name in (PROBLEM, DATA)
                else "remove it and type the same command again"
            )
            raise InputError(f"{path}: cannot be read ({reason}); {advice}") from None
        return content


def _listed(versions: Any) -> str:
    if not isinstance(versions, dict):
        return "unknown versions"
    return " and ".join(shortened(f"{name} {number}") for name, number in list(versions.items())[:5])


def _check_usable(path: Path) -> None:
    """Refuse a folder with other content, which must not be made private and filled with files."""
    try:
        known = (path / PROBLEM).is_file() or (path / "staged").is_dir()
        if path.is_dir() and not known and {entry.name for entry in path.iterdir()}.difference(FIRST_FILES):
            raise InputError(f"{path}: is neither empty nor a run folder; choose another folder with --run-dir")
        if path.exists() and not path.is_dir():
            raise InputError(f"{path}: is a file; choose a folder with --run-dir")
        link = next((path / name for name in WRITTEN if (path / name).is_symlink()), None)
        if link is not None:
            raise InputError(
                f"{link}: is a link, but a run writes only to its own folder; remove it, or choose another folder with "
                "--run-dir"
            )
    except OSError as error:
        raise InputError(f"{path}: cannot be used ({error.strerror}); choose another folder with --run-dir") from None


def _differences(known: Any, wanted: Any, name: str = "") -> list[str]:
    """One line for each key that differs."""
    if isinstance(known, dict) and isinstance(wanted, dict):
        lines = []
        for key in dict.fromkeys([*wanted, *known]):
            lines += _differences(known.get(key), wanted.get(key), f"{name}.{key}".lstrip("."))
        return lines
    if isinstance(known, list) and isinstance(wanted, list) and any(isinstance(item, dict) for item in known + wanted):
        pairs = enumerate(zip_longest(known, wanted), 1)
        return [line for number, pair in pairs for line in _differences(*pair, f"{name}[{number}]")]
    same = known == wanted
    return [] if same else [f"{shortened(name)}: {shortened(str(known))} there, {shortened(str(wanted))} now"]
