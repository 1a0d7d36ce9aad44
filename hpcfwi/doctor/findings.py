"""What the doctor finds, and how it is told: a table with a verdict and, where it is not well, what to do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from rich.table import Table
from rich.text import Text

__all__ = ["Finding", "Section", "bad", "findings_table", "problem", "warning"]

Verdict = Literal["ok", "warning", "problem"]
STYLES: dict[Verdict, str] = {"ok": "green", "warning": "yellow", "problem": "bold red"}


@dataclass(frozen=True)
class Finding:
    """One row.

    Parameters
    ----------
    name
        What was looked at.
    found
        What is there.
    verdict
        ``"ok"``, ``"warning"`` (a run will do, but not as it should) or ``"problem"`` (it will not).
    advice
        What to do; empty where all is well.
    """

    name: str
    found: str
    verdict: Verdict = "ok"
    advice: str = ""


@dataclass(frozen=True)
class Section:
    """What was found at one place."""

    place: str
    findings: tuple[Finding, ...]


def warning(name: str, found: str, advice: str) -> Finding:
    return Finding(name, found, "warning", advice)


def problem(name: str, found: str, advice: str) -> Finding:
    return Finding(name, found, "problem", advice)


def bad(sections: Iterable[Section]) -> bool:
    """Whether there is any problem."""
    return any(finding.verdict == "problem" for section in sections for finding in section.findings)


def findings_table(section: Section) -> Table:
    """The table of one place, under its name."""
    table = Table(box=None, pad_edge=False, title=f"{section.place}:", title_justify="left", title_style="bold")
    table.add_column("check", no_wrap=True)
    table.add_column("found", overflow="fold")
    table.add_column("verdict", no_wrap=True)
    table.add_column("what to do", overflow="fold")
    for finding in section.findings:
        verdict = Text(finding.verdict, STYLES[finding.verdict])
        table.add_row(finding.name, Text(finding.found), verdict, Text(finding.advice))
    return table
