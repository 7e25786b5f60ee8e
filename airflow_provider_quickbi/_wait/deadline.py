"""When a task and its DAG run began, and telling once that a delivery is late."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_provider_quickbi._wait.evaluate import WaitGroup


#: Key of the deadline of which somebody was told, in Airflow's ``task_state_store`` (3.3 and later).
NOTIFIED_KEY = "quickbi_late"


def run_started(context: Any) -> datetime | None:
    """Return when the DAG run began, ``None`` where the context does not say.

    :param context: of the task.
    """
    dag_run = context.get("dag_run")
    began = getattr(dag_run, "start_date", None)
    return began if isinstance(began, datetime) else None


def first_reschedule_date(sensor: Any, context: Any) -> datetime | None:
    """Return when a rescheduled sensor looked first, as ``BaseSensorOperator`` counts its ``timeout``.

    :param sensor: the task.
    :param context: of the task.
    """
    task_instance = context.get("ti")
    if task_instance is None:
        return None
    if hasattr(task_instance, "get_first_reschedule_date"):
        found = task_instance.get_first_reschedule_date(context)
    else:  # Airflow 2.11
        from airflow.sensors.base import _orig_start_date

        found = _orig_start_date(
            dag_id=task_instance.dag_id,
            task_id=task_instance.task_id,
            run_id=task_instance.run_id,
            map_index=task_instance.map_index,
            try_number=(task_instance.max_tries or 0) - (sensor.retries or 0) + 1,
        )
    return found if isinstance(found, datetime) else None


def is_retry(task: Any, context: Any) -> bool:
    """Whether this is a further try of a task that failed, and not the first one after it was cleared.

    :param task: the task.
    :param context: of the task.
    """
    task_instance = context.get("ti")
    if task_instance is None:
        return False
    first_try = (task_instance.max_tries or 0) - (task.retries or 0) + 1
    return bool(task_instance.try_number > first_try)


def pending(late_at: float | None, context: Any) -> float | None:
    """Return when somebody is to be told that the delivery is late, ``None`` if an earlier try has told it.

    Airflow keeps from 3.3 on what was told; before, each try tells.

    :param late_at: when the delivery becomes late, seconds since the epoch.
    :param context: of the task.
    """
    store = context.get("task_state_store")
    return None if late_at is None or (store is not None and store.get(NOTIFIED_KEY) == late_at) else late_at


def notify(callbacks: Any, context: Any, group: WaitGroup, log: Any) -> None:
    """Say that a delivery is late, in the log and to those who asked for it; a failing callback ends nothing.

    :param callbacks: a callable, a notifier, a list of them, or ``None``.
    :param context: of the task; the callbacks find the sentence in it as ``quickbi_late``.
    :param delivery: what is late.
    :param log: of the task.
    """
    if group.late_at is not None and (store := context.get("task_state_store")) is not None:
        store.set(NOTIFIED_KEY, group.late_at)
    message = f"Late: {group.evaluation.message}"
    log.warning("%s The wait goes on.", message)
    if callbacks is None:
        return
    context["quickbi_late"] = message
    for callback in [callbacks] if callable(callbacks) else callbacks:
        try:
            callback(context)
        except Exception:
            log.exception("on_late_callback %r failed; the wait goes on", callback)
