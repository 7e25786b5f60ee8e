"""Looking at a delivery from a worker, once or until it is settled."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from airflow_provider_quickbi.api.errors import QuickBIError
from airflow_provider_quickbi.api.retries import Retries
from airflow_provider_quickbi.metrics import Detection
from airflow_provider_quickbi.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_quickbi.api.client import QuickBIClient
    from airflow_provider_quickbi.delivery import Delivery


def look(
    delivery: Delivery, client: Callable[[], QuickBIClient], retries: Retries, detection: Detection | None = None
) -> Delivery:
    """Ask once for every mail task that is not settled and may have something to tell.

    :param delivery: what is waited for.
    :param client: gives the client; not called if there is nothing to ask.
    :param retries: for each question.
    :param detection: of this process, where it looks more than once.
    :returns: the delivery with what was learnt.
    """
    for position in delivery.unsettled():
        question = delivery.waits[position].question(time.time())
        answer: Any = None
        if question is not None:
            try:
                answer = client().get_mail_task_status(*question, retries=retries)
            except QuickBIError as error:
                answer = error.with_traceback(None)  # kept for as long as the wait, so without the call's frames
        delivery = delivery.judged(position, answer, time.time())
        if detection is not None and question is not None:
            detection.looked(delivery, position, time.time())
        if delivery.verdict.outcome.final:
            break
    return delivery


def seconds_until_next_look(delivery: Delivery, interval: float, now: float) -> float:
    """Return how long to sleep: not past a limit, and not before there is something to ask.

    :param delivery: what is waited for.
    :param interval: seconds between two looks.
    :param now: seconds since the epoch.
    """
    waits = [delivery.waits[position] for position in delivery.unsettled()]
    idle = min((wait.asks_from for wait in waits), default=now) - now
    due = [limit for wait in waits if (limit := wait.gives_up_at) is not None]
    due += [] if delivery.late_at is None else [delivery.late_at]
    return max(0.0, min([max(interval, idle), *(instant - now for instant in due)]))


def settle(
    delivery: Delivery,
    client: Callable[[], QuickBIClient],
    *,
    interval: float,
    log: Any,
    on_late: Callable[[Delivery], Delivery],
) -> Delivery:
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
        delivery = look(delivery, client, Retries(), detection)
        now = time.time()
        if delivery.verdict.outcome.final:
            return delivery
        if delivery.is_late(now):
            delivery = on_late(delivery)
        progress.report(delivery.verdict.message, now)
        time.sleep(seconds_until_next_look(delivery, interval, now))
