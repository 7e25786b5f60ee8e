"""Deferrable sensors that end in the triggerer, or must not."""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.providers.common.compat.sdk import DAG, Asset

from airflow_provider_quickbi.sensors.quickbi import QuickBIMailTaskSensor

KINDS = {
    "plain": {},
    "fails": {"retries": 3},
    "outlet": {"outlets": [Asset("live_ending")]},
    "off": {"end_in_triggerer": False},
}

with DAG(dag_id="live_ending", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC), catchup=False):
    for kind, arguments in KINDS.items():
        QuickBIMailTaskSensor(
            task_id=kind,
            mail_id=f"live-ending-{kind}",
            executed_after="{{ dag_run.conf['executed_after'] }}",
            timeout=180,
            deferrable=True,
            poke_interval=2,
            **arguments,
        )
