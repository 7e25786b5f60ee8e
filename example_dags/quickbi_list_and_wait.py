"""List the active mail tasks whose name starts with "Daily" and wait for each of them in a mapped task of its own.

The grid shows each mapped task under the name of its mail task instead of a number (`map_index_template`).

When you unpause this DAG, Airflow starts its last scheduled run. If the day of that run is over in Shanghai, its report
can no longer be seen, and each wait fails with `QuickBIRunMissed`: the report of another day must not count.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_quickbi.operators.quickbi import QuickBIListMailTasksOperator
from airflow_provider_quickbi.sensors.quickbi import QuickBIMailTaskSensor

with DAG(
    dag_id="quickbi_list_and_wait",
    description="Lists the daily mail tasks and waits for each of them",
    doc_md=__doc__,
    tags=["quickbi", "example"],
    schedule="0 9 * * *",  # in the time zone of start_date
    start_date=datetime(2026, 1, 1, tzinfo=ZoneInfo("Asia/Shanghai")),
    catchup=False,
):
    mail_tasks = QuickBIListMailTasksOperator(task_id="list_mail_tasks", subscribe_name="Daily*", paused=False)

    QuickBIMailTaskSensor.partial(
        task_id="report_sent",
        map_index_template="{{ ti.xcom_pull('list_mail_tasks')[ti.map_index]['subscribe_name'] }}",
        timeout=timedelta(hours=2),
        deferrable=True,
    ).expand(mail_id=mail_tasks.output.map(lambda mail_task: mail_task["mail_id"]))
