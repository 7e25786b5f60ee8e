"""List the mail tasks of a name and wait for each in a mapped task of its own."""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_quickbi.operators.quickbi import QuickBIListMailTasksOperator
from airflow_provider_quickbi.sensors.quickbi import QuickBIMailTaskSensor

with DAG(dag_id="live_list", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC), catchup=False):
    listed = QuickBIListMailTasksOperator(task_id="list", subscribe_name="Listed*", paused=False)
    QuickBIMailTaskSensor.partial(
        task_id="wait", quickbi_conn_id="quickbi_from_api", poke_interval=2, timeout=180, deferrable=True
    ).expand(mail_id=listed.output.map(lambda mail_task: mail_task["mail_id"]))
