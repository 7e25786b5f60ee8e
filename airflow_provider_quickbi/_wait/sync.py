"""Looking at a delivery from a worker, once or until it is settled."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from airflow_provider_quickbi._metrics import Detection
from airflow_provider_quickbi._wait.logging import Progress
from airflow_provider_quickbi.api.errors import QuickBIError
from airflow_provider_quickbi.api.retry import RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_quickbi._wait.evaluate import WaitGroup
    from airflow_provider_quickbi.api.client import QuickBIClient


def poll_once(
    group: WaitGroup, client: Callable[[], QuickBIClient], retries: RetryPolicy, detection: Detection | None = None
) -> WaitGroup:
    """Ask once for every mail task that is not settled and may have something to tell.

    :param delivery: what is waited for.
    :param client: gives the client; not called if there is nothing to ask.
    :param retries: for each question.
    :param detection: of this process, where it looks more than once.
    :returns: the delivery with what was learnt.
    """
    for position in group.unfinished():
        status_query = group.waits[position].status_query(time.time())
        response: Any = None
        if status_query is not None:
            try:
                response = client().get_mail_task_status(*status_query, retries=retries)
            except QuickBIError as error:
                response = error.with_traceback(None)  # kept for as long as the wait, so without the call's frames
        group = group.evaluated(position, response, time.time())
        if detection is not None and status_query is not None:
            detection.polls(group, position, time.time())
        if group.evaluation.outcome.final:
            break
    return group


def seconds_until_next_poll(group: WaitGroup, interval: float, now: float) -> float:
    """Return how long to sleep: not past a limit, and not before there is something to ask.

    :param delivery: what is waited for.
    :param interval: seconds between two looks.
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
    """Look until the delivery is settled, holding the worker.

    :param delivery: what is waited for; each of its waits must have a limit.
    :param client: gives the client.
    :param interval: seconds between two looks.
    :param log: of the task.
    :param on_late: called once if the delivery is late; returns it as told.
    """
    progress = Progress(log)
    detection = Detection()
    while True:
        group = poll_once(group, client, RetryPolicy(), detection)
        now = time.time()
        if group.evaluation.outcome.final:
            return group
        if group.is_late(now):
            group = on_late(group)
        progress.report(group.evaluation.message, now)
        time.sleep(seconds_until_next_poll(group, interval, now))
