"""Start a mail task of Quick BI when a task fails, for example a report about what is missing.

To see it, trigger the DAG with the parameter `fail`. The callback starts the mail at most once per DAG run and waits
for nothing; the log of the failed task says so in one line, under *Post Execute*.
"""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

from airflow.providers.common.compat.sdk import DAG, Param, task

from airflow_provider_quickbi.notifications.quickbi import QuickBISendMailNotifier

with DAG(
    dag_id="quickbi_notify_on_failure",
    description="Starts a mail task when a task fails",
    doc_md=__doc__,
    tags=["quickbi", "example"],
    schedule="0 5 * * *",  # in the time zone of start_date
    start_date=datetime(2026, 1, 1, tzinfo=ZoneInfo("Asia/Shanghai")),
    catchup=False,
    default_args={"on_failure_callback": QuickBISendMailNotifier(mail_id="load-failed")},
    params={"fail": Param(False, type="boolean", description="Let the task fail.")},
):

    @task
    def load(params: dict[str, bool] | None = None) -> None:
        """Stand for work that may fail."""
        if params and params["fail"]:
            raise ValueError("The load failed, because the parameter `fail` says so.")
        print("The load succeeded: no mail.")

    load()
