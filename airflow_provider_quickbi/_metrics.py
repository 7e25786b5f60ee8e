"""What is counted in Airflow's own metrics (StatsD or OpenTelemetry), named as Airflow names its metrics.

========================================  =======  ================================================================
name                                      kind     what it counts
========================================  =======  ================================================================
``quickbi.calls``                         counter  calls, by ``action`` and ``result`` (``ok`` or a kind of error)
``quickbi.calls.throttled``               counter  calls that the service throttled
``quickbi.calls.unreachable``             counter  calls without a usable response
``quickbi.waits``                         counter  waits that finished, by ``outcome``
``quickbi.deliveries``                    counter  mail tasks that were seen ``SENT``
``quickbi.refreshes``                     counter  datasets whose refresh was seen ``SUCCESS``
``quickbi.mails_started``                 counter  mails that the run operator started
``quickbi.refreshes_started``             counter  refreshes that the refresh operator started
``quickbi.detection_delay``               timer    milliseconds between the last poll that saw the run unfinished and
                                                   the one that saw it finished: an upper bound of the delay; not in
                                                   ``reschedule`` mode, in which each poll is a process of its own
========================================  =======  ================================================================
"""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.common.compat.sdk import Stats

from airflow_provider_quickbi._wait.state import Outcome, WaitGroup
from airflow_provider_quickbi._wait.subject import DatasetSubject, MailTaskSubject, Subject

_SUCCESSES = {MailTaskSubject.kind: "quickbi.deliveries", DatasetSubject.kind: "quickbi.refreshes"}
_STARTS = {MailTaskSubject.kind: "quickbi.mails_started", DatasetSubject.kind: "quickbi.refreshes_started"}


def count_call(action: str, result: str) -> None:
    """Count one call.

    :param result: ``ok``, or the kind of the error.
    """
    Stats.incr("quickbi.calls", tags={"action": action, "result": result})
    if result == "throttled":
        Stats.incr("quickbi.calls.throttled", tags={"action": action})
    elif result == "transient":
        Stats.incr("quickbi.calls.unreachable", tags={"action": action})


def count_outcome(group: WaitGroup) -> None:
    """Count the outcomes of a group's waits."""
    for wait, evaluation in zip(group.waits, group.evaluations, strict=True):
        if evaluation.outcome.final:
            Stats.incr("quickbi.waits", tags={"outcome": evaluation.outcome.value})
        if evaluation.outcome is Outcome.SUCCEEDED:
            Stats.incr(_SUCCESSES[wait.subject.kind])


def count_start(subject: Subject) -> None:
    """Count a start."""
    Stats.incr(_STARTS[subject.kind])


class DetectionDelay:
    """Records how late finished runs of a wait group can have been seen, as far as one process polls them."""

    __slots__ = ("_unfinished_at",)

    def __init__(self) -> None:
        self._unfinished_at: dict[int, float] = {}

    def polled(self, group: WaitGroup, position: int, now: float) -> None:
        """Record a poll.

        :param now: seconds since the epoch.
        """
        if group.evaluations[position].outcome in (Outcome.SUCCEEDED, Outcome.FAILED):
            if (unfinished_at := self._unfinished_at.pop(position, None)) is not None:
                Stats.timing("quickbi.detection_delay", timedelta(seconds=now - unfinished_at))
        elif group.waits[position].error is None:
            self._unfinished_at[position] = now
