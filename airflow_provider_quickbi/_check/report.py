"""What a check found: one line for each thing that was checked. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_provider_quickbi._check.behaviour import Behaviour
    from airflow_provider_quickbi._check.exchange import Exchange


class Level(StrEnum):
    """How a line is to be taken."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


#: Every line of a report in its order: what can be wrong before the first DAG, then what the vendor does not document.
NAMES = (
    "connection",
    "proxy",
    "dns",
    "tcp",
    "tls",
    "service",
    "clock",
    "credentials",
    "region",
    "GetMailTaskList",
    "GetMailTaskStatus",
    "ManualRunMailTask",
    "rate",
    "timezone",
    "response fields",
    "runs per response",
    "task that never ran",
    "unknown TaskId",
    "start delay",
    "final status",
    "retention",
    "start limit",
    "paused task",
    "rate scope",
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of a report.

    :param name: what was checked, one of :data:`NAMES`.
    :param level: how it is to be taken.
    :param seen: what was seen; without ids, names and secrets.
    :param remedy: what to do; empty if there is nothing to do.
    :param detail: what only ``--verbose`` shows, such as a RequestId; never a secret.
    """

    name: str
    level: Level
    seen: str
    remedy: str = ""
    detail: str = ""

    def as_dict(self, *, verbose: bool = False) -> dict[str, str]:
        """Return plain JSON."""
        shown = {"check": self.name, "level": self.level.value, "seen": self.seen, "remedy": self.remedy}
        return {**shown, "detail": self.detail} if verbose else shown


def ok(name: str, seen: str, remedy: str = "", *, detail: str = "") -> Finding:
    """Return a line that is as it should be."""
    return Finding(name, Level.OK, seen, remedy, detail)


def warning(name: str, seen: str, remedy: str, *, detail: str = "") -> Finding:
    """Return a line that needs attention but does not stop a DAG."""
    return Finding(name, Level.WARNING, seen, remedy, detail)


def failed(name: str, seen: str, remedy: str, *, detail: str = "") -> Finding:
    """Return a line without whose remedy a DAG does not work."""
    return Finding(name, Level.FAILED, seen, remedy, detail)


def skipped(name: str, seen: str, remedy: str = "") -> Finding:
    """Return a line that was not checked."""
    return Finding(name, Level.SKIPPED, seen, remedy)


@dataclass(slots=True)
class Report:
    """The lines of one check, and what was learnt on the way.

    :param behaviour: what the account's responses show about undocumented behaviour.
    :param exchanges: every request and response, for a recording.
    """

    behaviour: Behaviour
    exchanges: list[Exchange] = field(default_factory=list)
    _findings: dict[str, Finding] = field(default_factory=dict)

    def add(self, finding: Finding) -> Finding:
        """Add a line; of two lines about the same thing the worse one stays."""
        known = self._findings.get(finding.name)
        if known is None or _WORST_FIRST.index(finding.level) <= _WORST_FIRST.index(known.level):
            self._findings[finding.name] = finding
        return finding

    def has(self, name: str) -> bool:
        """Whether there is a line about something."""
        return name in self._findings

    @property
    def findings(self) -> list[Finding]:
        """The lines in their order; what was not reached is skipped."""
        failures = {name for name, finding in self._findings.items() if finding.level is Level.FAILED}
        broken = next((name for name in NAMES if name in failures), "")
        reason = f"not reached: {broken} failed" if broken else "not reached"
        always = [self._findings.get(name) or skipped(name, reason) for name in NAMES]
        return always + [finding for name, finding in self._findings.items() if name not in NAMES]

    @property
    def worst(self) -> Level:
        """``failed`` if a line failed, else ``warning`` if there is one, else ``ok``."""
        levels = {finding.level for finding in self._findings.values()}
        return next((level for level in (Level.FAILED, Level.WARNING) if level in levels), Level.OK)

    def as_dict(self, *, verbose: bool = False) -> dict[str, Any]:
        """Return plain JSON."""
        return {
            "result": self.worst.value,
            "checks": [finding.as_dict(verbose=verbose) for finding in self.findings],
        }


_WORST_FIRST = (Level.FAILED, Level.WARNING, Level.OK, Level.SKIPPED)
