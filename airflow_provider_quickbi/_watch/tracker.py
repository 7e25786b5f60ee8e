"""Noticing each finished run once: pure, for DAGs that are scheduled by deliveries and refreshes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from airflow_provider_quickbi._options import OptionError, refuse_template
from airflow_provider_quickbi._wait.subject import SUBJECT_TYPES, read_subject

if TYPE_CHECKING:
    from airflow_provider_quickbi._wait.subject import Subject
    from airflow_provider_quickbi.api.models import Run
    from airflow_provider_quickbi.api.operations import RunQuery

#: Runs that are remembered; older ones are never the latest again.
_REMEMBERED = 50
#: How many unfinished runs, the newest, are polled by TaskId; one in an unknown status may never finish.
_FOLLOWED = 5


@dataclass(slots=True)
class RunTracker:
    """What has been seen of one subject's runs.

    A run is emitted once, when it is first seen in one of the wanted statuses. What was finished before the first poll,
    and not emitted by an earlier watcher, is not news.

    :param subject: the mail task or the dataset.
    :param statuses: the wanted statuses.
    :param seen: id and status of the runs seen so far, the oldest first; empty before the first poll.
    :param primed: whether a poll has succeeded.
    """

    subject: Subject
    statuses: frozenset[str]
    seen: dict[str, str] = field(default_factory=dict)
    primed: bool = False

    def status_queries(self) -> list[RunQuery]:
        """Return what to query: the latest run, and the newest ones that were unfinished when a later one started."""
        terminal = self.subject.run_type.TERMINAL
        unfinished = [run_id for run_id, status in self.seen.items() if status not in terminal]
        earlier = unfinished[-_FOLLOWED:] if self.subject.shows_earlier_runs else []
        return [self.subject.query(run_id) for run_id in (None, *earlier)]

    def feed(self, runs: Iterable[Run]) -> list[Run]:
        """Take a response.

        :returns: the runs that have just reached a wanted status.
        """
        news: list[Run] = []
        for run in sorted((run for run in runs if run.subject_id == self.subject.id), key=lambda run: run.age_order):
            known = self.seen.get(run.run_id)
            if known in run.TERMINAL and not run.is_terminal:
                continue  # a response that is older than the one before it
            changed = known != run.status
            self.seen[run.run_id] = run.status
            if changed and run.status in self.statuses and (self.primed or not run.is_terminal):
                news.append(run)
        self.primed = True
        for run_id in list(self.seen)[:-_REMEMBERED]:
            del self.seen[run_id]
        return news

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON to be kept over a restart."""
        return {"subject": self.subject.as_dict(), "seen": dict(self.seen)}

    def restore(self, kept: Any) -> None:
        """Go on where an earlier watcher stopped; anything that :meth:`as_dict` did not write is ignored."""
        try:
            if read_subject(kept["subject"]) != self.subject:
                return
        except (KeyError, TypeError):
            return
        seen = kept.get("seen")
        if isinstance(seen, Mapping):
            self.seen = {str(run_id): str(status) for run_id, status in seen.items()}
            self.primed = True


def parse_statuses(statuses: Sequence[str] | str) -> list[str]:
    """Return wanted statuses in upper case, each once.

    :param statuses: one or several.
    :raises ValueError: if there is none.
    """
    given = [statuses] if isinstance(statuses, str) else list(statuses)
    wanted = list(dict.fromkeys(str(status).strip().upper() for status in given))
    if not wanted or not all(wanted):
        raise ValueError("statuses must name at least one status of a run, such as SENT or SUCCESS")
    return wanted


def refuse_impossible(statuses: Iterable[str], subject_type: type[Subject]) -> None:
    """Refuse a status that is another one misspelt, or one of something else: no event would ever follow.

    Any other status is accepted, since Quick BI may have undocumented ones; a run is emitted in these as well.

    :param statuses: as :func:`parse_statuses` returns them.
    :param subject_type: what is watched.
    :raises OptionError: naming the statuses of runs that have finished.
    """
    own = sorted(subject_type.run_type.DOCUMENTED)
    of_others = {status for other in SUBJECT_TYPES for status in other.run_type.DOCUMENTED}
    for status in statuses:
        refuse_template("statuses", status)
        if status not in own and (status in of_others or get_close_matches(status, own, 1)):
            words = subject_type.words
            raise OptionError(
                f"statuses contains {status[:60]!r}, which is not a status of a {words.subject}'s {words.run}; write "
                f"{' or '.join(sorted(subject_type.run_type.TERMINAL))}"
            )
