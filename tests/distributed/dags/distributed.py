"""Wait for many mail tasks in the triggerers, and send some; each is a mapped task."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_quickbi.operators.quickbi import QuickBIListMailTasksOperator, QuickBIRunMailTaskOperator
from airflow_provider_quickbi.sensors.quickbi import QuickBIMailTaskSensor

with DAG(dag_id="distributed_waits", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC), catchup=False):
    listed = QuickBIListMailTasksOperator(task_id="list", subscribe_name="Waited for *")
    # No retries: whatever fails once is seen.
    QuickBIMailTaskSensor.partial(
        task_id="wait",
        executed_after="{{ dag_run.conf['since'] }}",
        poke_interval=5,
        timeout=3600,
        deferrable=True,
        retries=0,
    ).expand(mail_id=listed.output.map(lambda mail_task: mail_task["mail_id"]))

with DAG(dag_id="distributed_sends", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC), catchup=False):
    QuickBIRunMailTaskOperator.partial(
        task_id="send", poll_interval=2, timeout=3600, retries=3, retry_delay=timedelta(seconds=1)
    ).expand_kwargs([{"mail_id": f"sent-{number}", "deferrable": number % 2 == 0} for number in range(6)])
