"""Two DAGs that deliveries schedule: one mail task is watched by its id, the other by its name."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from airflow.sdk import DAG, Asset, AssetWatcher, task

from airflow_provider_quickbi.triggers.quickbi import QuickBIMailTaskEventTrigger

for name, mail_id, mail_task in (
    ("live_event_by_id", "watched-by-id", {"mail_id": "watched-by-id"}),
    ("live_event_by_name", "watched-by-name", {"subscribe_name": "Watched by name"}),
):
    report = Asset(
        f"quickbi://cn-hangzhou/mail-task/{mail_id}",
        watchers=[AssetWatcher(name="sent", trigger=QuickBIMailTaskEventTrigger(**mail_task, poll_interval=2))],
    )
    with DAG(dag_id=name, schedule=[report], start_date=datetime(2026, 1, 1, tzinfo=UTC), is_paused_upon_creation=True):

        @task
        def notify(triggering_asset_events: Any = None) -> list[dict[str, Any]]:
            """Return what the events say that caused this run."""
            return [event.extra for events in triggering_asset_events.values() for event in events]

        notify()
