"""``make airflow``: Airflow with a local Quick BI, a ready connection and the example DAGs."""

from __future__ import annotations

import json
import signal
import sys
import time
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import requests

from airflow_provider_quickbi.hooks.quickbi import QuickBIHook
from airflow_provider_quickbi.testing import DOCUMENTED_CALLS_PER_SECOND, LocalQuickBI
from dev.standalone import Airflow, AirflowDidNotStartError, ending_on, free_port

if TYPE_CHECKING:
    from airflow_provider_quickbi.testing.datasets import DatasetStore
    from dev.standalone import Api

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / ".airflow"
#: Every folder is a DAG bundle, so that an edited example is parsed again.
DAG_FOLDERS = {"examples": ROOT / "example_dags", "playground": Path(__file__).parent / "dags"}
#: The ports to use if they are free.
AIRFLOW_PORT, QUICKBI_PORT = 8080, 8765
#: Seconds between two runs of a scheduled mail task: more than the 60 s after which a watcher polls.
EVERY = 120.0
#: Seconds that a run takes, and seconds until a run started by hand is visible.
RUN_DURATION, RUN_APPEARS_AFTER = 10.0, 2.0
#: Mail tasks with a schedule: those of the example DAGs that wait, and the ids of the documentation.
SCHEDULED = (
    ("daily-sales", "Daily sales", "Wang Fang"),
    ("daily-stock", "Daily stock levels", "Li Wei"),
)
#: Mail tasks that only a DAG starts, so that a start never meets a run of the schedule.
STARTED_BY_DAGS = (
    ("weekly-review", "Weekly review", "Li Wei"),
    ("board-report", "董事会月报", "王芳"),
    ("load-failed", "A load failed", "Li Wei"),
)
#: Datasets of the example DAGs and of the demo.
DATASETS = (("sales-cube", "Sales"), ("board-figures", "董事会数据"))
INTRODUCTION = """
Airflow     {airflow}
Login       none; every visitor from this machine is administrator
Connection  {conn_id}, under Admin > Connections, where it can be edited and tested
Quick BI    {quickbi}; each mail task "Daily ..." has a run every {every:.0f} s, which takes {duration:.0f} s
Logs        {logs}/

Trigger these DAGs by hand; each has a description. Unpausing a DAG also starts its last scheduled run. If the day of
that run is over in Shanghai, its report can no longer be seen, and it fails with QuickBIRunMissed, as it should.
  quickbi_wait_for_scheduled_report  waits for a report of Quick BI's schedule
  quickbi_wait_in_a_window           waits for the next report, up to {every:.0f} s
  quickbi_list_and_wait              lists mail tasks and waits for each of them
  quickbi_send_report                sends a report that has no schedule, and waits for it
  quickbi_refresh_and_send           refreshes a dataset first, sends the report on it, and waits for it
  quickbi_notify_on_failure          starts a mail when its task fails: trigger it with the parameter "fail"
  quickbi_demo                       loses its worker after sending: the first try fails on purpose
Unpause this one and wait:
  quickbi_after_delivery             runs after each delivery, about every {every:.0f} s

Ctrl-C stops everything."""


def main() -> int:
    """Run everything until Ctrl-C; the exit status is 1 if Airflow does not start or exits."""
    if (airflow_version := version("apache-airflow")).startswith("2."):
        print(f"The playground needs Airflow 3; this is {airflow_version}.", file=sys.stderr)
        return 1
    try:
        with (
            ending_on(signal.SIGINT, signal.SIGTERM, signal.SIGHUP),
            LocalQuickBI(
                port=free_port(QUICKBI_PORT),
                calls_per_second=DOCUMENTED_CALLS_PER_SECOND,
                run_duration=RUN_DURATION,
                run_appears_after=RUN_APPEARS_AFTER,
            ) as quickbi,
            Airflow(
                HOME,
                DAG_FOLDERS["examples"],
                port=free_port(AIRFLOW_PORT),
                settings={
                    "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "True",
                    "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(_bundles()),
                },
            ) as own_airflow,
        ):
            _run(own_airflow, quickbi)
    except AirflowDidNotStartError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nEverything is stopped.", flush=True)
    return 0


def _bundles() -> list[dict[str, object]]:
    return [
        {
            "name": name,
            "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
            "kwargs": {"path": str(folder), "refresh_interval": 5},
        }
        for name, folder in DAG_FOLDERS.items()
    ]


def _run(own_airflow: Airflow, quickbi: LocalQuickBI) -> None:
    add_mail_tasks(quickbi)
    add_datasets(quickbi)
    print("Airflow is starting, which takes half a minute or more.", flush=True)
    program = own_airflow.start("standalone")
    own_airflow.wait_until_healthy()
    add_connection(own_airflow.api(), quickbi)
    introduction = INTRODUCTION.format(
        airflow=own_airflow.url,
        conn_id=QuickBIHook.default_conn_name,
        quickbi=quickbi.url,
        every=EVERY,
        duration=RUN_DURATION,
        logs=HOME.relative_to(ROOT),
    )
    print(introduction, flush=True)
    while program.running:
        time.sleep(0.5)
    raise AirflowDidNotStartError(f"Airflow exited:\n{program.log_tail()}")


def add_mail_tasks(quickbi: LocalQuickBI) -> None:
    """Add the mail tasks of the example DAGs and of the documentation, and a paused one.

    :param quickbi: where to add them.
    """
    now = quickbi.clock.now()
    for mail_id, name, owner in SCHEDULED:
        quickbi.add_mail_task(name, mail_id=mail_id, owner=owner)
        quickbi.add_run(mail_id, exec_time=now - timedelta(days=1))
        quickbi.add_schedule(mail_id, every=EVERY, first=now)
    for mail_id, name, owner in STARTED_BY_DAGS:
        quickbi.add_mail_task(name, mail_id=mail_id, owner=owner)
    quickbi.add_mail_task("Daily cash (paused)", mail_id="daily-cash", owner="Li Wei", paused=True)


def add_datasets(quickbi: LocalQuickBI) -> DatasetStore:
    """Add the datasets of the example DAGs and of the documentation.

    :param quickbi: where to add them.
    :returns: the datasets.
    """
    datasets = quickbi.datasets
    for dataset_id, name in DATASETS:
        datasets.add(name, dataset_id=dataset_id)
        datasets.set_start(dataset_id, duration=RUN_DURATION, appears_after=RUN_APPEARS_AFTER)
    return datasets


def add_connection(api: Api, quickbi: LocalQuickBI) -> None:
    """Point the default connection at the local Quick BI, and replace it if it exists.

    :param api: of the Airflow.
    :param quickbi: the local Quick BI.
    """
    conn_id = QuickBIHook.default_conn_name
    body = quickbi.connection() | {
        "connection_id": conn_id,
        "description": "The local Quick BI of this playground",
        "extra": json.dumps({"region": "cn-hangzhou"}),
    }
    try:
        api.request("PATCH", f"/connections/{conn_id}", body)
    except requests.HTTPError as error:
        if error.response.status_code != requests.codes.not_found:
            raise
        api.post("/connections", body)


if __name__ == "__main__":
    sys.exit(main())
