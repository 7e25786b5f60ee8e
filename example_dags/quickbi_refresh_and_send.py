"""Refresh a dataset, send the report on it, wait until it is sent, and go on.

Use this for reports on extracted data: without the refresh the report goes out with the figures of the last extraction.
Pause the schedules of the dataset and of the mail task in Quick BI, so that only this DAG starts them.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_quickbi.operators.quickbi import QuickBIRefreshDatasetOperator, QuickBIRunMailTaskOperator
from airflow_provider_quickbi.sensors.quickbi import QuickBIMailTaskSensor

with DAG(
    dag_id="quickbi_refresh_and_send",
    description="Refreshes a dataset, sends the report on it and waits until it is sent",
    doc_md=__doc__,
    tags=["quickbi", "example"],
    schedule="0 6 * * *",  # in the time zone of start_date
    start_date=datetime(2026, 1, 1, tzinfo=ZoneInfo("Asia/Shanghai")),
    catchup=False,
    max_active_runs=1,  # two DAG runs would send the report twice
    default_args={"retries": 2, "retry_delay": timedelta(minutes=1)},
):
    refresh = QuickBIRefreshDatasetOperator(
        task_id="refresh",
        dataset_id="sales-cube",
        deferrable=True,  # a retry looks for the refresh of the first try before it starts anything
    )

    send = QuickBIRunMailTaskOperator(
        task_id="send",
        mail_id="weekly-review",
        wait_for_completion=False,  # only until the run is seen: the sensor waits for it
        deferrable=True,
    )

    sent = QuickBIMailTaskSensor(
        task_id="sent",
        mail_id="weekly-review",
        quickbi_task_id="{{ ti.xcom_pull(task_ids='send')['task_id'] }}",
        timeout=timedelta(hours=2).total_seconds(),
        deferrable=True,
    )

    @task
    def announce(job: dict[str, str], run: dict[str, str]) -> None:
        """Stand for work that follows the report."""
        print(f"Run {run['task_id']} is {run['status']}, with the data of {job['ended_at']}.")

    refresh >> send >> sent
    announce(refresh.output, sent.output)
