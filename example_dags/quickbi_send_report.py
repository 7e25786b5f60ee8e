"""Refresh the data, send the report at most once, wait until it is out, and go on."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_quickbi.operators.quickbi import QuickBIRunMailTaskOperator

with DAG(
    dag_id="quickbi_send_report",
    schedule="0 6 * * *",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
):

    @task
    def refresh() -> None:
        """Stand for the ETL that decides when the report may be sent."""
        print("The data is fresh.")

    send_report = QuickBIRunMailTaskOperator(
        task_id="send_report",
        mail_id="daily-sales",
        retries=2,
        retry_delay=timedelta(minutes=1),
        deferrable=True,
    )

    @task
    def notify(run: dict[str, str]) -> None:
        """Go on, knowing which run went out."""
        print(f"Run {run['task_id']} of {run['exec_time']} is {run['status']}.")

    refresh() >> send_report
    notify(send_report.output)
