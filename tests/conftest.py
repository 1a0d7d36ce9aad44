"""The option --slow, and a summary that does not let what was left out go unnoticed."""

from __future__ import annotations

import pytest

NOT_ASKED_FOR = "slow, and --slow was not given"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the tests marked slow, too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--slow"):
        return
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.skip(reason=NOT_ASKED_FOR))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = terminalreporter.stats.get("skipped", [])
    slow = sum(NOT_ASKED_FOR in str(report.longrepr) for report in skipped)
    if slow:
        terminalreporter.write_line(f"{slow} slow tests were left out: --slow runs them", yellow=True)
    if len(skipped) > slow:
        terminalreporter.write_line(
            f"{len(skipped) - slow} tests were skipped for want of something on this machine; the reasons are above",
            yellow=True,
        )
