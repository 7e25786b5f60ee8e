"""Wait for the report that Quick BI's own schedule sends after this data interval, then go on."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_quickbi.sensors.quickbi import QuickBIMailTaskSensor

with DAG(
    dag_id="quickbi_wait_for_scheduled_report",
    schedule="0 9 * * *",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
):
    report_sent = QuickBIMailTaskSensor(
        task_id="report_sent",
        mail_id="daily-sales",
        executed_after="{{ data_interval_end }}",  # yesterday's run does not count
        start_timeout=timedelta(minutes=30),  # the schedule should have started it by then
        timeout=timedelta(hours=2),
        deferrable=True,
    )

    @task
    def archive(run: dict[str, str]) -> None:
        """Go on, knowing which run went out."""
        print(f"Run {run['task_id']} of {run['exec_time']} is {run['status']}.")

    archive(report_sent.output)
