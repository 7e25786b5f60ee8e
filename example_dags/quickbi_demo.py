"""The DAG of ``make demo``: one branch waits for a scheduled report, the other sends one and loses its worker."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_quickbi.operators.quickbi import QuickBIListMailTasksOperator, QuickBIRunMailTaskOperator
from airflow_provider_quickbi.sensors.quickbi import QuickBIMailTaskSensor

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context


class DiesOnceAfterSending(QuickBIRunMailTaskOperator):
    """A worker that is lost in its first try, just after Quick BI took the mail."""

    _first_try = False

    def execute(self, context: Context) -> Any:
        """Remember which try this is."""
        self._first_try = context["ti"].try_number == 1
        return super().execute(context)

    def defer(self, **kwargs: Any) -> None:
        """Die instead of waiting, the first time."""
        if self._first_try:
            raise RuntimeError("the worker is lost: the mail is on its way, and nobody waits for it")
        super().defer(**kwargs)


with DAG(
    dag_id="quickbi_demo",
    description="Waits for a scheduled report, and sends another one at most once",
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    params={"since": "2026-01-01T00:00:00+00:00"},
):
    list_mail_tasks = QuickBIListMailTasksOperator(task_id="list_mail_tasks")

    wait_for_report = QuickBIMailTaskSensor(
        task_id="wait_for_report",
        mail_id="daily-sales",
        executed_after="{{ params.since }}",
        poke_interval=1,
        timeout=timedelta(minutes=5).total_seconds(),
        deferrable=True,
    )

    @task
    def archive_report(run: dict[str, str]) -> str:
        """Stand for what must not begin before the report is out."""
        print(f"archive_report goes on: run {run['task_id']} is {run['status']}.")
        return run["task_id"]

    @task
    def refresh_data() -> None:
        """Stand for the ETL that decides when the board's report may be sent."""
        print("refresh_data: the data is fresh.")

    send_board_report = DiesOnceAfterSending(
        task_id="send_board_report",
        mail_id="board-report",
        poll_interval=1,
        retries=1,
        retry_delay=timedelta(seconds=1),
        deferrable=True,
    )

    @task
    def notify_board(run: dict[str, str]) -> str:
        """Stand for what follows the board's report."""
        print(f"notify_board goes on: run {run['task_id']} is {run['status']}.")
        return run["task_id"]

    list_mail_tasks >> wait_for_report
    archive_report(wait_for_report.output)
    refresh_data() >> send_board_report
    notify_board(send_board_report.output)
