"""Wait for one mail task in the triggerer, or send one; which one, the DAG run's configuration says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_quickbi.operators.quickbi import QuickBIRunMailTaskOperator
from airflow_provider_quickbi.sensors.quickbi import QuickBIMailTaskSensor

with DAG(dag_id="live_wait", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC), catchup=False):
    QuickBIMailTaskSensor(
        task_id="wait", mail_id="{{ dag_run.conf['mail_id'] }}", poke_interval=2, timeout=240, deferrable=True
    )

with DAG(dag_id="live_send", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC), catchup=False):
    QuickBIRunMailTaskOperator(
        task_id="send",
        mail_id="{{ dag_run.conf['mail_id'] }}",
        poll_interval=2,
        timeout=240,
        retries=1,
        retry_delay=timedelta(seconds=1),
        deferrable=True,
    )
