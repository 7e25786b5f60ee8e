"""Refresh the data, send the report at most once, wait until it is sent, and announce it.

Use this where Airflow, not Quick BI's schedule, decides when the report goes out: pause the schedule of the mail task.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_quickbi.operators.quickbi import QuickBIRunMailTaskOperator

with DAG(
    dag_id="quickbi_send_report",
    description="Refreshes the data, sends a report at most once and announces it",
    doc_md=__doc__,
    tags=["quickbi", "example"],
    schedule="0 6 * * *",  # in the time zone of start_date
    start_date=datetime(2026, 1, 1, tzinfo=ZoneInfo("Asia/Shanghai")),
    catchup=False,
    max_active_runs=1,  # two DAG runs would send the report twice
):

    @task
    def refresh() -> None:
        """Stand for the ETL that must finish before the report is sent."""
        print("The data is up to date.")

    send_report = QuickBIRunMailTaskOperator(
        task_id="send_report",
        mail_id="weekly-review",
        retries=2,  # a retry looks for the run of the first try before it sends anything
        retry_delay=timedelta(minutes=1),
        deferrable=True,
    )

    @task
    def announce(run: dict[str, str]) -> None:
        """Stand for work that follows the report."""
        print(f"Run {run['task_id']} of {run['exec_time']} is {run['status']}.")

    refresh() >> send_report
    announce(send_report.output)
