"""Takes the events of an executor for tests."""

from __future__ import annotations

from collections.abc import Callable

from hpcfwi.events.types import Event, ShotRetried, SumsFound


def note_events(
    retries: list[tuple[str, str, str]],
    sums: list[tuple[int, int]] | None = None,
    others: list[Event] | None = None,
) -> Callable[[Event], None]:
    """A ``log_event`` that appends (shot, worker, reason) of retries, numbers of sums that were found, and other events."""

    def note(event: Event) -> None:
        match event:
            case ShotRetried():
                retries.append((event.shot, event.worker, event.reason))
            case SumsFound() if sums is not None:
                sums.append((event.shots, event.shots_total))
            case _ if others is not None:
                others.append(event)

    return note
