"""The DAG of `make demo`: one branch waits for a scheduled report, the other refreshes a dataset and sends its report.

The first try of `send_board_report` **fails on purpose**, right after Quick BI accepted the mail. The retry finds
the run that the first try started and waits for it: the board gets its mail once.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.providers.common.compat.sdk import DAG, Param, task

from airflow_provider_quickbi.operators.quickbi import (
    QuickBIListMailTasksOperator,
    QuickBIRefreshDatasetOperator,
    QuickBIRunMailTaskOperator,
)
from airflow_provider_quickbi.sensors.quickbi import QuickBIMailTaskSensor

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context


class LosesItsWorkerOnce(QuickBIRunMailTaskOperator):
    """Sends the mail, but its first try dies as soon as Quick BI has accepted it, as if the worker had been killed."""

    _first_try = False

    def execute(self, context: Context) -> Any:
        """Send the mail, and remember whether this is the first try."""
        self._first_try = context["ti"].try_number == 1
        return super().execute(context)

    def defer(self, **kwargs: Any) -> NoReturn:
        """Defer as usual, except in the first try, which dies here."""
        if self._first_try:
            raise RuntimeError(
                "Simulated worker loss, on purpose and in the first try only: the mail is sent, but nothing waits for "
                "its run. The retry attaches to that run instead of sending again."
            )
        super().defer(**kwargs)


with DAG(
    dag_id="quickbi_demo",
    description="Waits for a scheduled report; refreshes a dataset and sends its report once although a worker is lost",
    doc_md=__doc__,
    tags=["quickbi", "demo"],
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    params={
        "since": Param(
            "2026-01-01T00:00:00+00:00",
            type="string",
            format="date-time",
            description="An older run of daily-sales does not count.",
        )
    },
):
    list_mail_tasks = QuickBIListMailTasksOperator(task_id="list_mail_tasks")

    wait_for_report = QuickBIMailTaskSensor(
        task_id="wait_for_report",
        mail_id="daily-sales",
        executed_after="{{ params.since }}",
        poke_interval=2,
        timeout=timedelta(minutes=5),
        deferrable=True,
    )

    @task
    def archive_report(run: dict[str, str]) -> str:
        """Stand for work that needs the scheduled report."""
        print(f"archive_report: archived the report of {run['exec_time']}, run {run['task_id']}.")
        return run["task_id"]

    refresh_figures = QuickBIRefreshDatasetOperator(
        task_id="refresh_figures",
        dataset_id="board-figures",
        poll_interval=2,
        retries=1,
        deferrable=True,
    )

    send_board_report = LosesItsWorkerOnce(
        task_id="send_board_report",
        mail_id="board-report",
        poll_interval=2,
        retries=1,
        retry_delay=timedelta(seconds=1),
        deferrable=True,
        doc_md="""\
**The first try fails on purpose.** It raises `RuntimeError: Simulated worker loss` right after Quick BI accepted the
mail, as if the worker had been killed at the worst moment.

Airflow starts the second try one second later. It finds the start record of the first try, looks for the run that
started since then, attaches to it and sends **nothing**. Compare the logs of both tries: the mail is started in the
first one only.

Start records survive a retry on Airflow 3.3 and later.
""",
    )

    @task
    def notify_board(run: dict[str, str]) -> str:
        """Stand for work that follows the board's report."""
        print(f"notify_board: told the board that run {run['task_id']} is {run['status']}.")
        return run["task_id"]

    list_mail_tasks >> wait_for_report
    archive_report(wait_for_report.output)
    refresh_figures >> send_board_report
    notify_board(send_board_report.output)
