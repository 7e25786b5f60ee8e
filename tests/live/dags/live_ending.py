"""Deferrable sensors that start and end in the triggerer, or must not."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from airflow.providers.common.compat.sdk import DAG, Asset, task

from airflow_provider_quickbi.sensors.quickbi import QuickBIMailTaskSensor

STARTED = "{{ dag_run.conf['executed_after'] }}"
#: Arguments of the sensor for one mail task of each kind; ``mail_id`` is made of the kind where there is none.
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "named": {"mail_id": None, "subscribe_name": "live-ending-named"},
    "two": {"mail_id": ["live-ending-two", "live-ending-plain"]},
    "fails": {"retries": 3},
    "outlet": {"outlets": [Asset("live_ending")]},
    "inlet": {"inlets": [Asset("live_ending")]},
    "from_worker": {"start_in_triggerer": False},
    "pulled": {"executed_after": "{{ ti.xcom_pull('begin') }}"},
    "refused": {"executed_after": "{{ dag_run.conf['nothing'] }}", "retries": 3},
    "off": {"start_in_triggerer": False, "end_in_triggerer": False},
}

with DAG(dag_id="live_ending", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC), catchup=False) as dag:

    @task
    def begin(dag_run: Any = None) -> str:
        """Return when the runs start."""
        return str(dag_run.conf["executed_after"])

    @task
    def use(run: Any) -> str:
        """Use the XCom as users do."""
        return f"run {(run[0] if isinstance(run, list) else run)['task_id']}"

    began = begin()
    for kind, arguments in KINDS.items():
        sent = QuickBIMailTaskSensor(
            task_id=kind,
            timeout=180,
            deferrable=True,
            poke_interval=2,
            **{"mail_id": f"live-ending-{kind}", "executed_after": STARTED, **arguments},
        )
        began >> sent
        use.override(task_id=f"use_{kind}")(sent.output)

    # Mapped over a list that the triggerer stored.
    use.override(task_id="use_each").expand(run=dag.get_task("two").output)
