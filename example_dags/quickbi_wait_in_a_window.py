"""Say which run counts, where the sensor's default does not fit.

| argument | a run counts if it started |
|---|---|
| `window="day"` | on the calendar day, in the connection's time zone, on which this DAG run was due |
| `window="schedule"` | between the due times of this DAG run and the next one |
| `window="latest"` | at any time: the latest run |
| `executed_after`, `executed_before` | at or after the first, before the second |

`data_interval_end` does not exist in a DAG run that an asset or an API call without a logical date started, so the
template falls back to `dag_run.run_after`.

When you unpause this DAG, Airflow starts its last scheduled run. If the day of that run is over in Shanghai, its report
can no longer be seen, and `sales_of_the_day` fails with `QuickBIRunMissed`: the report of another day must not count.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_quickbi.sensors.quickbi import QuickBIMailTaskSensor

DUE = "data_interval_end | default(dag_run.run_after, true)"

with DAG(
    dag_id="quickbi_wait_in_a_window",
    description="Waits for reports that started within a given window",
    doc_md=__doc__,
    tags=["quickbi", "example"],
    schedule="0 9 * * *",  # in the time zone of start_date
    start_date=datetime(2026, 1, 1, tzinfo=ZoneInfo("Asia/Shanghai")),
    catchup=False,
):
    sales_of_the_day = QuickBIMailTaskSensor(
        task_id="sales_of_the_day",
        mail_id="daily-sales",
        window="day",  # also if it went out before 09:00
        timeout=timedelta(hours=2),
        deferrable=True,
    )

    stock_after_nine = QuickBIMailTaskSensor(
        task_id="stock_after_nine",
        mail_id="daily-stock",
        executed_after=f"{{{{ {DUE} }}}}",
        executed_before=f"{{{{ ({DUE}) + macros.timedelta(hours=6) }}}}",
        on_missed="skip",  # a later run hides the one of the window, as in a backfill
        timeout=timedelta(hours=7),
        deferrable=True,
    )

    @task
    def compare(sales: dict[str, str], stock: dict[str, str]) -> None:
        """Stand for work that needs both reports."""
        print(f"Comparing run {sales['task_id']} with run {stock['task_id']}.")

    compare(sales_of_the_day.output, stock_after_nine.output)
