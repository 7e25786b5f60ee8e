"""Waits that start together, and take no worker where Airflow can do without."""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_quickbi.sensors.quickbi import QuickBIMailTaskSensor

with DAG(dag_id="live_many", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC), catchup=False):
    for number in range(8):
        QuickBIMailTaskSensor(
            task_id=f"wait_{number}",
            mail_id=f"live-many-{number}",
            executed_after="{{ dag_run.conf['executed_after'] }}",
            poke_interval=2,
            timeout=400,
            deferrable=True,
        )
