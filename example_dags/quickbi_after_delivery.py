"""Run whenever a report was sent, without a task that waits: an asset watcher starts this DAG.

Needs Airflow 3; below, this file defines no DAG. Airflow starts to watch once the DAG is unpaused.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_quickbi.assets.quickbi import mail_task_asset
from airflow_provider_quickbi.triggers.quickbi import QuickBIMailTaskEventTrigger

try:
    from airflow.sdk import AssetWatcher
except ImportError:  # Airflow 2 has no watchers
    pass
else:
    daily_sales = mail_task_asset(
        "daily-sales",
        watchers=[AssetWatcher(name="daily_sales_sent", trigger=QuickBIMailTaskEventTrigger(mail_id="daily-sales"))],
    )

    with DAG(
        dag_id="quickbi_after_delivery",
        description="Runs whenever the daily sales report was sent",
        doc_md=__doc__,
        tags=["quickbi", "example", "asset"],
        schedule=[daily_sales],
        start_date=datetime(2026, 1, 1, tzinfo=UTC),
        catchup=False,
    ):

        @task
        def archive(triggering_asset_events: Any = None) -> None:
            """Stand for work that needs the report; a DAG run started by hand has no events."""
            for events in triggering_asset_events.values():
                for event in events:
                    run = event.extra.get("payload", event.extra)  # another task's outlet has no payload
                    print(f"Archiving the report of this delivery: {run}.")

        archive()
