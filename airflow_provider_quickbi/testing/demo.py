"""Sample mail tasks and a dataset, with the ids of the documentation and of the example DAGs."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_provider_quickbi.testing.simulator import QuickBISimulator

_WANG, _LI, _CHEN = ("王芳", "204100000000000001"), ("Li Wei", "204100000000000002"), ("Chen Jie", "204100000000000003")

SCHEDULE_SECONDS = 180.0
"""How often the mail task ``frequent-sales`` runs by itself."""


def add_demo_data(quickbi: QuickBISimulator) -> None:
    """Add eight mail tasks, of each kind that a DAG encounters, and a dataset.

    Two ran an hour ago, three never ran, one is paused, one runs by itself every three minutes, and one fails every
    other time.

    :param quickbi: where to add them; their fixed ids must not be taken.
    """
    for mail_id, name, (owner, owner_id), ran in (
        ("daily-sales", "Daily sales", _WANG, True),
        ("daily-stock", "Daily stock levels", _LI, True),
        ("weekly-review", "Weekly review", _LI, False),
        ("board-report", "董事会月报", _WANG, False),
        ("load-failed", "A load failed", _LI, False),
        ("frequent-sales", "Sales, every three minutes", _CHEN, False),
    ):
        quickbi.add_mail_task(name, mail_id=mail_id, owner=owner, owner_id=owner_id)
        if ran:
            quickbi.add_run(mail_id, exec_time=quickbi.clock.now() - timedelta(hours=1))
    quickbi.add_mail_task("库存预警 - 已暂停", mail_id="stock-alert", owner=_WANG[0], owner_id=_WANG[1], paused=True)
    quickbi.add_mail_task(
        "Report that fails every other time",
        mail_id="flaky-report",
        owner=_CHEN[0],
        owner_id=_CHEN[1],
    )
    quickbi.set_manual_start("flaky-report", outcome=["FAILED", "SENT"] * 500)
    quickbi.add_schedule("frequent-sales", every=SCHEDULE_SECONDS)
    quickbi.datasets.add("Sales", dataset_id="sales-cube")
