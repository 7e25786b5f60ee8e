"""One sensor in each mode, each waiting for a mail task of its own."""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_quickbi.sensors.quickbi import QuickBIMailTaskSensor

with DAG(dag_id="live_modes", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC), catchup=False):
    for name, arguments in {
        "poke": {"mode": "poke", "poke_interval": 2},
        # Airflow fails a task that is due again before its scheduler has noticed that it was rescheduled.
        "reschedule": {"mode": "reschedule", "poke_interval": 10},
        "deferrable": {"deferrable": True, "poke_interval": 2},
    }.items():
        QuickBIMailTaskSensor(
            task_id=name,
            mail_id=f"live-{name}",
            executed_after="{{ dag_run.conf['executed_after'] }}",
            timeout=180,
            **arguments,
        )
