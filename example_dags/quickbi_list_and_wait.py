"""List the mail tasks whose name begins with "Daily" and wait for today's run of each, one mapped task for each."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_quickbi.operators.quickbi import QuickBIListMailTasksOperator
from airflow_provider_quickbi.sensors.quickbi import QuickBIMailTaskSensor

with DAG(
    dag_id="quickbi_list_and_wait",
    schedule="0 9 * * *",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
):
    mail_tasks = QuickBIListMailTasksOperator(task_id="list_mail_tasks", subscribe_name="Daily*", paused=False)

    QuickBIMailTaskSensor.partial(
        task_id="report_sent",
        executed_after="{{ data_interval_end }}",
        timeout=timedelta(hours=2).total_seconds(),
        deferrable=True,
    ).expand(mail_id=mail_tasks.output.map(lambda mail_task: mail_task["mail_id"]))
