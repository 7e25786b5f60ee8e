"""Deferrable sensors that end in the triggerer, or must not."""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.providers.common.compat.sdk import DAG, Asset, task

from airflow_provider_quickbi.sensors.quickbi import QuickBIMailTaskSensor

KINDS = {
    "plain": {},
    "fails": {"retries": 3},
    "outlet": {"outlets": [Asset("live_ending")]},
    "off": {"end_in_triggerer": False},
}

with DAG(dag_id="live_ending", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC), catchup=False):

    @task
    def use(run: dict[str, str]) -> str:
        """Use the XCom as users do."""
        return f"run {run['task_id']}"

    for kind, arguments in KINDS.items():
        sent = QuickBIMailTaskSensor(
            task_id=kind,
            mail_id=f"live-ending-{kind}",
            executed_after="{{ dag_run.conf['executed_after'] }}",
            timeout=180,
            deferrable=True,
            poke_interval=2,
            **arguments,
        )
        use.override(task_id=f"use_{kind}")(sent.output)
