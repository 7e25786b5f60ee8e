"""DAG runs that call the notifier: where a worker, the DAG processor and a triggerer run callbacks."""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.sdk import DAG, task

from airflow_provider_quickbi.notifications.quickbi import QuickBISendMailNotifier

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
