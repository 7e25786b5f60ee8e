"""The DAG of the screenshots: send the daily report and go on once it is out."""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_quickbi.operators.quickbi import QuickBIListMailTasksOperator, QuickBIRunMailTaskOperator
from airflow_provider_quickbi.sensors.quickbi import QuickBIMailTaskSensor

with DAG(dag_id="daily_report", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC), catchup=False):
    listed = QuickBIListMailTasksOperator(task_id="list_mail_tasks")
    sent = QuickBIRunMailTaskOperator(task_id="send_report", mail_id="daily-report", poll_interval=2, deferrable=True)
    seen = QuickBIMailTaskSensor(
        task_id="report_sent",
        mail_id="daily-report",
        quickbi_task_id="{{ ti.xcom_pull('send_report')['task_id'] }}",
        poke_interval=2,
        timeout=180,
    )

    @task
    def archive(run: dict[str, str]) -> str:
        """Go on, knowing which run went out."""
        return run["task_id"]

    listed >> sent >> seen
    archive(seen.output)
