"""Counts what these tests have tried, so that the figures in docs/reliability.md can be measured again."""

from __future__ import annotations

from collections import Counter

import pytest

_TRIED: Counter[str] = Counter()


@pytest.fixture(scope="session")
def tried() -> Counter[str]:
    """What was tried so far, by kind; it is printed at the end."""
    return _TRIED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _TRIED:
        terminalreporter.section("reliability")
        for what, number in sorted(_TRIED.items()):
            terminalreporter.write_line(f"{what}: {number:,}")
