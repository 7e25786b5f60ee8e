"""What is counted in Airflow's own statistics (StatsD or OpenTelemetry), named as Airflow names its metrics.

========================================  =======  ================================================================
name                                      kind     what it counts
========================================  =======  ================================================================
``quickbi.calls``                         counter  calls, by ``action`` and ``result`` (``answered`` or a kind of error)
``quickbi.calls.throttled``               counter  calls that the service throttled
``quickbi.calls.unreachable``             counter  calls that got no usable answer
``quickbi.waits``                         counter  mail tasks whose wait ended, by ``outcome``
``quickbi.deliveries``                    counter  mail tasks that were seen ``SENT``
``quickbi.mails_started``                 counter  mails that the run operator started
``quickbi.detection_delay``               timer    milliseconds between the last look that did not see the end and the
                                                   one that did: the end is known at most this late; not in
                                                   ``reschedule`` mode, in which each look is a process of its own
========================================  =======  ================================================================
"""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.common.compat.sdk import Stats

from airflow_provider_quickbi._wait.evaluate import Outcome, WaitGroup


def count_call(action: str, result: str) -> None:
    """Count one call.

    :param action: the operation.
    :param result: ``answered``, or the kind of the error.
    """
    Stats.incr("quickbi.calls", tags={"action": action, "result": result})
    if result == "throttled":
        Stats.incr("quickbi.calls.throttled", tags={"action": action})
    elif result == "transient":
        Stats.incr("quickbi.calls.unreachable", tags={"action": action})


def count_outcome(group: WaitGroup) -> None:
    """Count the ends of a delivery's waits.

    :param delivery: that is settled.
    """
    for evaluation in group.evaluations:
        if evaluation.outcome.final:
            Stats.incr("quickbi.waits", tags={"outcome": evaluation.outcome.value})
        if evaluation.outcome is Outcome.SENT:
            Stats.incr("quickbi.deliveries")


def count_start() -> None:
    """Count a mail that was started."""
    Stats.incr("quickbi.mails_started")


class Detection:
    """Records how late the ends of a delivery's runs can have been seen, as far as one process looks at them."""

    __slots__ = ("_unseen_at",)

    def __init__(self) -> None:
        self._unseen_at: dict[int, float] = {}

    def polls(self, group: WaitGroup, position: int, now: float) -> None:
        """Take note of a look.

        :param delivery: after the look.
        :param position: of the wait that was looked at.
        :param now: seconds since the epoch.
        """
        if group.evaluations[position].outcome in (Outcome.SENT, Outcome.FAILED):
            if (unseen_at := self._unseen_at.pop(position, None)) is not None:
                Stats.timing("quickbi.detection_delay", timedelta(seconds=now - unseen_at))
        elif group.waits[position].error is None:
            self._unseen_at[position] = now
