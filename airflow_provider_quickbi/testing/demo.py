"""Sample mail tasks for trying things out: what a small organisation might have."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_provider_quickbi.testing.simulator import QuickBISimulator

DAILY_SALES = "11111111-0000-4000-8000-000000000001"
MONTHLY_FINANCE = "11111111-0000-4000-8000-000000000002"
INVENTORY = "11111111-0000-4000-8000-000000000003"
FREQUENT = "11111111-0000-4000-8000-000000000004"
FLAKY = "11111111-0000-4000-8000-000000000005"

SCHEDULE_SECONDS = 180.0
"""How often the scheduled sample starts."""


def add_demo_data(quickbi: QuickBISimulator) -> None:
    """Add five mail tasks, one of each kind that a DAG meets.

    One ran yesterday, one never ran, one is paused, one is started by its schedule every three minutes, and one
    fails every other time.

    :param quickbi: where to add them; their fixed ids must not be taken.
    """
    quickbi.add_mail_task("每日销售日报", mail_id=DAILY_SALES, owner="王芳", owner_id="204100000000000001")
    yesterday = quickbi.clock.now() - timedelta(days=1)
    quickbi.add_run(DAILY_SALES, exec_time=yesterday.replace(minute=0, second=0, microsecond=0))
    quickbi.add_mail_task(
        "Monthly finance review", mail_id=MONTHLY_FINANCE, owner="Li Wei", owner_id="204100000000000002"
    )
    quickbi.add_mail_task(
        "库存预警 - 已暂停", mail_id=INVENTORY, owner="王芳", owner_id="204100000000000001", paused=True
    )
    quickbi.add_mail_task(
        "Sales, every three minutes", mail_id=FREQUENT, owner="Chen Jie", owner_id="204100000000000003"
    )
    quickbi.add_schedule(FREQUENT, every=SCHEDULE_SECONDS)
    quickbi.add_mail_task(
        "Report that fails every other time",
        mail_id=FLAKY,
        owner="Chen Jie",
        owner_id="204100000000000003",
        run_outcome=["FAILED", "SENT"] * 500,
    )
