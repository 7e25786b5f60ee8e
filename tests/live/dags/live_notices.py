"""DAG runs that call the notifier: where a worker, the DAG processor and a triggerer run callbacks."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.sdk import DAG, AsyncCallback, DeadlineAlert, DeadlineReference, task  # type: ignore[attr-defined]

from airflow_provider_quickbi.notifications.quickbi import QuickBISendMailNotifier
from airflow_provider_quickbi.sensors.quickbi import QuickBIMailTaskSensor

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)

with DAG(
    dag_id="live_failure_notices",
    schedule=None,
    start_date=BEGIN,
    on_failure_callback=QuickBISendMailNotifier(mail_id="live-notice-of-dag"),
):

    @task(on_failure_callback=QuickBISendMailNotifier(mail_id="live-notice-of-task"))
    def fail() -> None:
        """Fail."""
        raise ValueError("on purpose")

    fail()

with DAG(
    dag_id="live_deadline_notice",
    schedule=None,
    start_date=BEGIN,
    deadline=DeadlineAlert(
        reference=DeadlineReference.DAGRUN_QUEUED_AT,
        interval=timedelta(seconds=1),
        callback=AsyncCallback(QuickBISendMailNotifier, kwargs={"mail_id": "live-notice-of-deadline"}),
    ),
):
    QuickBIMailTaskSensor(task_id="wait", mail_id="live-missed", window="latest", deferrable=True, timeout=180)
