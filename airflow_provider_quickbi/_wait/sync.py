"""The loop on a worker: poll a wait group once, or until it is finished."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_quickbi._metrics import DetectionDelay
from airflow_provider_quickbi._wait.evaluate import evaluate_group
from airflow_provider_quickbi._wait.logging import WaitLog
from airflow_provider_quickbi.api.clock import CLOCK
from airflow_provider_quickbi.api.errors import QuickBIError
from airflow_provider_quickbi.api.retry import RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_quickbi._wait.state import WaitGroup
    from airflow_provider_quickbi.api.client import QuickBIClient


def poll_once(
    group: WaitGroup,
    client: Callable[[], QuickBIClient],
    retries: RetryPolicy,
    *,
    log: WaitLog | None = None,
    delay: DetectionDelay | None = None,
) -> WaitGroup:
    """Poll every subject once that is not finished and may have changed.

    :param client: gives the client; not called if there is nothing to query.
    :param log: gets the first successful poll of each wait.
    :param delay: of this process, where it polls more than once.
    :returns: the group with what was learnt.
    """
    for position in group.unfinished():
        before = group.waits[position]
        query = before.status_query(CLOCK.time())
        response: Any = None
        if query is not None:
            try:
                api = client()
                response = api.do(query.operation(api.settings.zone), retries=retries)
            except QuickBIError as error:
                response = error.with_traceback(None)  # kept for as long as the wait, so without the call's frames
        group = evaluate_group(group, position, response, CLOCK.time())
        if log is not None:
            log.first_poll(before, group.waits[position])
        if delay is not None and query is not None:
            delay.polled(group, position, CLOCK.time())
        if group.evaluation.outcome.final:
            break
    return group


def seconds_until_next_poll(group: WaitGroup, interval: float, now: float) -> float:
    """Return how long to sleep: not past a deadline, and not before there is something to query.

    :param interval: seconds between two polls.
    :param now: seconds since the epoch.
    """
    waits = [group.waits[position] for position in group.unfinished()]
    idle = min((wait.polls_from for wait in waits), default=now) - now
    due = [limit for wait in waits if (limit := wait.gives_up_at) is not None]
    due += [] if group.late_at is None else [group.late_at]
    return max(0.0, min([max(interval, idle), *(instant - now for instant in due)]))


def wait_until_finished(
    group: WaitGroup,
    client: Callable[[], QuickBIClient],
    *,
    interval: float,
    log: Any,
    on_late: Callable[[WaitGroup], WaitGroup],
) -> WaitGroup:
    """Poll until the group is finished, holding the worker.

    :param group: what is waited for; each of its waits must have a limit.
    :param interval: seconds between two polls.
    :param on_late: called once if the report is late; returns the group as notified.
    """
    wait_log = WaitLog(log)
    delay = DetectionDelay()
    while True:
        group = poll_once(group, client, RetryPolicy(), log=wait_log, delay=delay)
        now = CLOCK.time()
        if group.evaluation.outcome.final:
            return group
        if group.is_late(now):
            group = on_late(group)
        wait_log.report(group.evaluation.message, now)
        CLOCK.sleep(seconds_until_next_poll(group, interval, now))
