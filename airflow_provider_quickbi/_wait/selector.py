"""Which run a wait is for: by its id, by a window of time, and not one that was there before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from airflow_provider_quickbi.api.models import Run

#: How many earlier runs are remembered as not matching; older ones lie before the window.
KNOWN_RUNS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSelector:
    """Which runs match.

    :param run_id: only the run with this id.
    :param executed_after: only runs that started at or after this instant.
    :param executed_before: only runs that started before this instant.
    :param other_than: no run with one of these ids: the baseline of a start.
    """

    run_id: str | None = None
    executed_after: datetime | None = None
    executed_before: datetime | None = None
    other_than: tuple[str, ...] = ()

    def matches(self, run: Run) -> bool:
        """Whether a run matches."""
        if self.run_id is not None and run.run_id != self.run_id:
            return False
        if run.run_id in self.other_than:
            return False
        if self.executed_after is not None and run.started_at < self.executed_after:
            return False
        return not self.is_past(run)

    def is_past(self, run: Run) -> bool:
        """Whether a run started at or after the window's end."""
        return self.executed_before is not None and run.started_at >= self.executed_before

    def select(self, runs: Iterable[Run]) -> Run | None:
        """Return the matching run: the first one after a baseline, else the latest, as the service shows it."""
        matching = sorted(filter(self.matches, runs), key=lambda run: run.age_order)
        if not matching:
            return None
        return matching[0] if self.other_than else matching[-1]

    @property
    def is_open(self) -> bool:
        """Whether any run matches, whatever its age."""
        return self == RunSelector()
