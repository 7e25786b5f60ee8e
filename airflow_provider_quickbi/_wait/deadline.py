"""Notifying once that a report is late."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_quickbi._airflow import task_state_store

if TYPE_CHECKING:
    from airflow_provider_quickbi._wait.state import WaitGroup

#: Key of the deadline that was notified, in Airflow's ``task_state_store`` (3.3 and later).
NOTIFIED_KEY = "quickbi_late"


def pending(late_at: float | None, context: Any) -> float | None:
    """Return when somebody is to be notified that the report is late, ``None`` if an earlier try has done so.

    Airflow 3.3 and later keep what was notified; before, each try notifies.

    :param late_at: when the report becomes late, seconds since the epoch.
    """
    store = task_state_store(context)
    return None if late_at is None or (store is not None and store.get(NOTIFIED_KEY) == late_at) else late_at


def notify(callbacks: Any, context: Any, group: WaitGroup, log: Any) -> None:
    """Say that a report is late, in the log and to the callbacks; a failing callback ends nothing.

    :param callbacks: a callable, a notifier, a list of them, or ``None``.
    :param context: of the task; the callbacks find the sentence in it as ``quickbi_late``.
    """
    if group.late_at is not None and (store := task_state_store(context)) is not None:
        store.set(NOTIFIED_KEY, group.late_at)
    message = f"Late: {group.evaluation.message}"
    log.warning("%s Still waiting.", message)
    if callbacks is None:
        return
    context["quickbi_late"] = message
    for callback in [callbacks] if callable(callbacks) else callbacks:
        try:
            callback(context)
        except Exception:
            log.exception("on_late_callback %r failed; still waiting", callback)
