"""A DAG run that calls the notifier because it takes too long; Airflow 3.2 and later can do that."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import DAG

from airflow_provider_quickbi.notifications.quickbi import QuickBISendMailNotifier
from airflow_provider_quickbi.sensors.quickbi import QuickBIMailTaskSensor

arguments: dict[str, Any] = {}
with suppress(ImportError):
    from airflow.sdk import AsyncCallback, DeadlineAlert, DeadlineReference  # type: ignore[attr-defined]

    arguments["deadline"] = DeadlineAlert(
        reference=DeadlineReference.DAGRUN_QUEUED_AT,
        interval=timedelta(seconds=1),
        callback=AsyncCallback(QuickBISendMailNotifier, kwargs={"mail_id": "live-notice-of-deadline"}),
    )

with DAG(dag_id="live_deadline_notice", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC), **arguments):
    QuickBIMailTaskSensor(task_id="wait", mail_id="live-missed", window="latest", deferrable=True, timeout=180)
