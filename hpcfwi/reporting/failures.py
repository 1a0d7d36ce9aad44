"""What went wrong on the way: told when it happens, and once more at the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

__all__ = ["Failures"]

# Kinds that are told at the end.
MOST = 10


class Failures:
    """Counts failures, which are lines of text.

    Parameters
    ----------
    say
        Takes a line for the user.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say
        self._times: Counter[str] = Counter()

    def add(self, what: str) -> None:
        """Tell of one."""
        self._times[what] += 1
        self.say(what)

    def sum_up(self) -> None:
        """Tell of all, the most frequent first; nothing where there were none."""
        if not self._times:
            return
        self.say(f"failures on the way ({self._times.total()}; events.jsonl has all):")
        for what, times in self._times.most_common(MOST):
            self.say(f"  {what}{f' ({times} times)' if times > 1 else ''}")
        if len(self._times) > MOST:
            self.say(f"  and {len(self._times) - MOST} more")
