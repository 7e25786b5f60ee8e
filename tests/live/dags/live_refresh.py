"""Refresh a dataset, send the report on it, wait until it is sent, and go on; held by a worker, or deferred."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_quickbi.operators.quickbi import QuickBIRefreshDatasetOperator, QuickBIRunMailTaskOperator
from airflow_provider_quickbi.sensors.quickbi import QuickBIDatasetRefreshSensor, QuickBIMailTaskSensor

for mode, deferrable in {"held": False, "deferred": True}.items():
    with DAG(
        dag_id=f"live_refresh_{mode}",
        schedule=None,
        start_date=datetime(2026, 1, 1, tzinfo=UTC),
        catchup=False,
        default_args={"retries": 2, "retry_delay": timedelta(seconds=1), "deferrable": deferrable},
    ):
        refresh = QuickBIRefreshDatasetOperator(
            task_id="refresh",
            dataset_id="{{ dag_run.conf['dataset_id'] }}",
            poll_interval=2,
            start_timeout=10,
            timeout=120,
        )
        refreshed = QuickBIDatasetRefreshSensor(
            task_id="refreshed",
            dataset_id="{{ dag_run.conf['dataset_id'] }}",
            executed_after="{{ dag_run.conf['since'] }}",
            poke_interval=2,
            timeout=120,
        )
        send = QuickBIRunMailTaskOperator(
            task_id="send",
            mail_id="{{ dag_run.conf['mail_id'] }}",
            wait_for_completion=False,
            poll_interval=2,
            timeout=120,
        )
        sent = QuickBIMailTaskSensor(
            task_id="sent",
            mail_id="{{ dag_run.conf['mail_id'] }}",
            quickbi_task_id="{{ ti.xcom_pull(task_ids='send')['task_id'] }}",
            poke_interval=2,
            timeout=120,
        )

        @task
        def announce(job: dict[str, str], run: dict[str, str]) -> list[str]:
            """Stand for work that follows the report."""
            return [job["status"], run["status"]]

        refresh >> refreshed >> send >> sent
        announce(refresh.output, sent.output)
