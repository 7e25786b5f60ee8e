"""Noticing each finished run of a mail task once: pure, for DAGs that are scheduled by deliveries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_quickbi.api.models import TERMINAL_STATUSES, MailTaskRun, StatusQuery

#: Runs that are remembered; older ones are never the latest again.
_REMEMBERED = 50
#: How many unfinished runs, the newest, are polled by TaskId; one in an unknown status may never finish.
_FOLLOWED = 5


@dataclass(slots=True)
class RunTracker:
    """What has been seen of one mail task's runs.

    A run is emitted once, when it is first seen in one of the wanted statuses. What was finished before the first poll,
    and not emitted by an earlier watcher, is not news.

    :param mail_id: the mail task.
    :param statuses: the wanted statuses.
    :param seen: TaskId and status of the runs seen so far, the oldest first; empty before the first poll.
    :param primed: whether a poll has succeeded.
    """

    mail_id: str
    statuses: frozenset[str]
    seen: dict[str, str] = field(default_factory=dict)
    primed: bool = False

    def status_queries(self) -> list[StatusQuery]:
        """Return what to ask: the latest run, and the newest ones that were unfinished when a later one started."""
        unfinished = [task_id for task_id, status in self.seen.items() if status not in TERMINAL_STATUSES]
        return [
            StatusQuery(self.mail_id, None),
            *(StatusQuery(self.mail_id, task_id) for task_id in unfinished[-_FOLLOWED:]),
        ]

    def feed(self, runs: Iterable[MailTaskRun]) -> list[MailTaskRun]:
        """Take a response.

        :param runs: of any mail task.
        :returns: the runs that have just reached a wanted status.
        """
        news: list[MailTaskRun] = []
        for run in sorted((run for run in runs if run.mail_id == self.mail_id), key=lambda run: run.age_order):
            known = self.seen.get(run.task_id)
            if known in TERMINAL_STATUSES and run.status not in TERMINAL_STATUSES:
                continue  # a response that is older than the one before it
            changed = known != run.status
            self.seen[run.task_id] = run.status
            if changed and run.status in self.statuses and (self.primed or run.status not in TERMINAL_STATUSES):
                news.append(run)
        self.primed = True
        for task_id in list(self.seen)[:-_REMEMBERED]:
            del self.seen[task_id]
        return news

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON to be kept over a restart."""
        return {"mail_id": self.mail_id, "seen": dict(self.seen)}

    def restore(self, kept: Any) -> None:
        """Go on where an earlier watcher stopped; anything that :meth:`as_dict` did not write is ignored."""
        if not isinstance(kept, Mapping) or kept.get("mail_id") != self.mail_id:
            return
        seen = kept.get("seen")
        if isinstance(seen, Mapping):
            self.seen = {str(task_id): str(status) for task_id, status in seen.items()}
            self.primed = True


def parse_statuses(statuses: Sequence[str] | str) -> list[str]:
    """Return wanted statuses in upper case, each once.

    :param statuses: one or several.
    :raises ValueError: if there is none.
    """
    given = [statuses] if isinstance(statuses, str) else list(statuses)
    wanted = list(dict.fromkeys(str(status).strip().upper() for status in given))
    if not wanted or not all(wanted):
        raise ValueError("statuses must name at least one status of a run, such as SENT")
    return wanted
