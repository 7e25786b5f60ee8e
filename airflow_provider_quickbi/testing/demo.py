"""Sample mail tasks and a dataset, with the ids of the documentation and of the example DAGs."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_provider_quickbi.testing.simulator import QuickBISimulator


def add_demo_data(quickbi: QuickBISimulator) -> None:
    """Add eight mail tasks, of each kind that a DAG encounters, and a dataset.

    Two ran an hour ago, four never ran, one of them is paused, one runs by itself every three minutes, and one fails
    every other time.

    :param quickbi: where to add them; their fixed ids must not be taken.
    """
    for mail_id, name, owner in (
        ("daily-sales", "Daily sales", "王芳"),
        ("daily-stock", "Daily stock levels", "Li Wei"),
        ("weekly-review", "Weekly review", "Li Wei"),
        ("board-report", "董事会月报", "王芳"),
        ("load-failed", "A load failed", "Li Wei"),
        ("frequent-sales", "Sales, every three minutes", "Chen Jie"),
        ("stock-alert", "库存预警 - 已暂停", "王芳"),
        ("flaky-report", "Report that fails every other time", "Chen Jie"),
    ):
        quickbi.add_mail_task(name, mail_id=mail_id, owner=owner, paused=mail_id == "stock-alert")
    for mail_id in ("daily-sales", "daily-stock"):
        quickbi.add_run(mail_id, exec_time=quickbi.clock.now() - timedelta(hours=1))
    quickbi.set_manual_start("flaky-report", outcome=["FAILED", "SENT"] * 500)
    quickbi.add_schedule("frequent-sales", every=180)
    quickbi.datasets.add("Sales", dataset_id="sales-cube")
