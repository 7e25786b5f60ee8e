"""DAGs that deliveries schedule: a mail task is watched by its id, another by its name, a third by two assets."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from airflow.sdk import DAG, Asset, AssetWatcher, task

from airflow_provider_quickbi.triggers.quickbi import QuickBIMailTaskEventTrigger


def report(uri: str, **watched: str) -> Asset:
    """Return an asset with a watcher."""
    trigger = QuickBIMailTaskEventTrigger(**watched, poll_interval=2)
    return Asset(uri, watchers=[AssetWatcher(name="sent", trigger=trigger)])


for dag_id, assets in {
    "live_event_by_id": [report("quickbi://cn-hangzhou/mail-task/watched-by-id", mail_id="watched-by-id")],
    "live_event_by_name": [report("quickbi://cn-hangzhou/mail-task/watched-by-name", subscribe_name="Watched by name")],
    "live_event_by_two_assets": [report(name, mail_id="watched-by-two", name=name) for name in ("north", "south")],
}.items():
    with DAG(dag_id=dag_id, schedule=assets, start_date=datetime(2026, 1, 1, tzinfo=UTC), is_paused_upon_creation=True):

        @task
        def notify(triggering_asset_events: Any = None) -> list[dict[str, Any]]:
            """Return what the events say that caused this run."""
            return [event.extra for events in triggering_asset_events.values() for event in events]

        notify()
