"""Daily DAGs over past days, to be caught up or backfilled: a sensor without a template in each mode."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_quickbi.sensors.quickbi import QuickBIMailTaskSensor

TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)

for how, catchup in {"catchup": True, "backfill": False}.items():
    for mode, arguments in {
        "poke": {"poke_interval": 2},
        "deferrable": {"deferrable": True, "poke_interval": 2},
    }.items():
        with DAG(
            dag_id=f"live_{how}_{mode}",
            schedule="0 0 * * *",
            start_date=TODAY - timedelta(days=2),
            catchup=catchup,
            is_paused_upon_creation=True,
            max_active_tasks=4,
        ):
            QuickBIMailTaskSensor(task_id="wait", mail_id="live-window", timeout=180, **arguments)
            QuickBIMailTaskSensor(task_id="skip", mail_id="live-window", on_missed="skip", timeout=180, **arguments)
