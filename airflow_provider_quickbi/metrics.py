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
                                                   one that did: the end is known at most this late
========================================  =======  ================================================================
"""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.common.compat.sdk import Stats

from airflow_provider_quickbi.delivery import Delivery, Outcome


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


def count_outcome(delivery: Delivery) -> None:
    """Count the ends of a delivery's waits.

    :param delivery: that is settled.
    """
    for verdict in delivery.verdicts:
        if verdict.outcome.final:
            Stats.incr("quickbi.waits", tags={"outcome": verdict.outcome.value})
        if verdict.outcome is Outcome.SENT:
            Stats.incr("quickbi.deliveries")


def count_start() -> None:
    """Count a mail that was started."""
    Stats.incr("quickbi.mails_started")


def time_detection(seconds: float) -> None:
    """Record how late the end of a run can have been seen.

    :param seconds: between the last look that did not see the end and the one that did.
    """
    Stats.timing("quickbi.detection_delay", timedelta(seconds=seconds))
