"""Wait for the report that Quick BI's own schedule sends today, then archive it.

The sensor needs no template. By default (`window="auto"`) it accepts a run of the calendar day on which this DAG run
was due, in the connection's time zone. In a DAG run that is started by hand, it accepts the latest run.

When you unpause this DAG, Airflow starts its last scheduled run. If the day of that run is over in Shanghai, its report
can no longer be seen, and the sensor fails with `QuickBIRunMissed`: the report of another day must not count.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_quickbi.sensors.quickbi import QuickBIMailTaskSensor

with DAG(
    dag_id="quickbi_wait_for_scheduled_report",
    description="Waits for today's scheduled report and archives it",
    doc_md=__doc__,
    tags=["quickbi", "example"],
    schedule="0 9 * * *",  # in the time zone of start_date
    start_date=datetime(2026, 1, 1, tzinfo=ZoneInfo("Asia/Shanghai")),
    catchup=False,
):
    report_sent = QuickBIMailTaskSensor(
        task_id="report_sent",
        mail_id="daily-sales",
        start_timeout=timedelta(minutes=30),  # by then its schedule should have started it
        timeout=timedelta(hours=2),
        deferrable=True,
    )

    @task
    def archive(run: dict[str, str]) -> None:
        """Stand for work that needs the report."""
        print(f"Archiving run {run['task_id']} of {run['exec_time']}, which is {run['status']}.")

    archive(report_sent.output)
