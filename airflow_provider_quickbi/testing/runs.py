"""What runs at Quick BI: mail tasks and datasets, their runs, and how starts through the API go."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

Origin = Literal["manual", "schedule", "added"]
"""What started a run: the API, a schedule, or the test itself."""


@dataclass(slots=True)
class Run:
    """A run that appears at ``appears_at`` and reads as ``running_status`` until ``ends_at``, then as ``outcome``.

    All times are seconds since 1970 of the simulator's clock.
    """

    run_id: int
    subject_id: str
    started_at: float
    appears_at: float
    ends_at: float
    outcome: str
    origin: Origin
    running_status: str

    def status_at(self, now: float) -> str:
        """Return the status at a time."""
        return self.outcome if now >= self.ends_at else self.running_status

    def sort_key(self) -> tuple[float, int]:
        """Order runs by execution time, then by id."""
        return (math.floor(self.started_at), self.run_id)


@dataclass(slots=True)
class StartRules:
    """How the runs go that are started through the API, and which starts are refused."""

    duration: float
    appears_after: float
    outcomes: list[str]
    refuse_while_running: bool = True
    refuse_after_failure: bool = False
    refusals: list[tuple[str, float]] = field(default_factory=list)
    accepted: int = 0


@dataclass(slots=True, kw_only=True)
class Subject:
    """A mail task or a dataset."""

    id: str
    name: str
    rules: StartRules
    paused: bool = False
    runs: list[Run] = field(default_factory=list)


def read_outcomes(outcome: str | Sequence[str]) -> list[str]:
    """Return the statuses that runs end with in turn.

    :raises ValueError: there is none.
    """
    outcomes = [outcome] if isinstance(outcome, str) else list(outcome)
    if not outcomes:
        raise ValueError("outcome must name at least one status.")
    return outcomes


def next_outcome(outcomes: list[str]) -> str:
    """Return the status of the next run; the last one stays."""
    return outcomes.pop(0) if len(outcomes) > 1 else outcomes[0]
