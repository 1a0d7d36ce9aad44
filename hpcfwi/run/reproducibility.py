"""Whether another run of the same problem would give the same bytes, and if not, all reasons."""

from collections.abc import Callable
from threading import Lock
from typing import Any, Literal

from hpcfwi.run.folder import RunFolder

FILE = "reproducibility.json"
Role = Literal["drivers", "workers"]


class Reproducibility:
    """Records in ``reproducibility.json``, over all starts of a run, why its result may differ in the last bits.

    Runs of a problem give the same bytes if each shot is computed by one thread, all drivers are machines of one kind, and so
    are all workers: processors, compilers and libraries round differently.
    """

    def __init__(self, folder: RunFolder, warn: Callable[[str], None] = lambda _: None) -> None:
        self.folder, self.path, self.warn = folder, folder.path / FILE, warn
        known = folder.read_json(self.path)
        content = known or {}
        reasons = content.get("reasons")
        self._reasons = [str(reason) for reason in reasons] if isinstance(reasons, list) else []
        # description of each kind of machine, by digest
        self._machines = {role: _texts(content.get(role)) for role in ("drivers", "workers")}
        self._lock = Lock()  # workers report in another thread
        if known is None and folder.progress()[1]:
            self.add_reason(f"{FILE}, the record of earlier starts, is missing")

    @property
    def reasons(self) -> str:
        """Why the last bits may differ, in words; empty if the bytes are the same."""
        return "; ".join(self._reasons)

    def add_reason(self, reason: str, warning: str = "") -> None:
        """Record a reason; if it is new, show the ``warning``, if any."""
        with self._lock:
            if reason in self._reasons:
                return
            self._reasons.append(reason)
            self._write()
        if warning:
            self.warn(f"the same bytes can no longer be promised: {warning}")

    def add_machine(self, role: Role, description: dict[str, str]) -> None:
        """Record the kind of machine of a driver or worker, and warn if it is the second kind.

        The description comes from :func:`~hpcfwi.solver.operators.result_fingerprint`.
        """
        # imports Devito, which then reads its settings; the site must have set them before
        from hpcfwi.solver.operators import fingerprint_digest

        with self._lock:
            known, kind = self._machines[role], fingerprint_digest(description)
            if kind in known:
                return
            shown = [(name, text) for name, text in description.items() if text and name != "flags"]
            known[kind] = ", ".join(f"{name} {text}" if text[:1].isdigit() else text for name, text in shown)
            self._write()
        reason = f"its {role} were machines of several kinds"
        if len(known) > 1:
            self.add_reason(reason, f"{reason} ({'; '.join(dict.fromkeys(known.values()))})")

    def _write(self) -> None:
        self.folder.write_json(self.path, {"reasons": self._reasons, **self._machines})


def _texts(content: Any) -> dict[str, str]:
    return {name: str(text) for name, text in content.items()} if isinstance(content, dict) else {}
