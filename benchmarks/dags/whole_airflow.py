"""Waits for many mail tasks, one DAG for each way to write them."""

from __future__ import annotations

import inspect
import os
from datetime import UTC, datetime
from typing import Any

from airflow.providers.common.compat.sdk import DAG, BaseSensorOperator

from airflow_provider_quickbi.sensors.quickbi import QuickBIMailTaskSensor
from benchmarks.peer_wait import PeerSensor
from benchmarks.server import mail_ids

STYLES: dict[str, tuple[type[BaseSensorOperator], dict[str, Any]]] = {
    "ours": (
        QuickBIMailTaskSensor,
        {"executed_after": "{{ dag_run.conf['since'] }}", "deferrable": True, "do_xcom_push": True},
    ),
    "peer": (PeerSensor, {}),
}
if "start_in_triggerer" in inspect.signature(QuickBIMailTaskSensor.__init__).parameters:
    sensor, arguments = STYLES["ours"]
    STYLES["ours_from_worker"] = (sensor, arguments | {"start_in_triggerer": False})

for style, (sensor, arguments) in STYLES.items():
    with DAG(
        dag_id=f"whole_{style}",
        schedule=None,
        start_date=datetime(2026, 1, 1, tzinfo=UTC),
        catchup=False,
        max_active_tasks=1000,
    ):
        for mail_id in mail_ids(int(os.environ["QUICKBI_BENCHMARK_WAITS"])):
            sensor(task_id=f"wait_{mail_id}", mail_id=mail_id, poke_interval=30, timeout=7200, retries=0, **arguments)
