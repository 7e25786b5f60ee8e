"""``make airflow``: an Airflow to click around in, with a local Quick BI, a ready connection and the example DAGs."""

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

from airflow_provider_quickbi.connection import DEFAULT_CONN_ID
from airflow_provider_quickbi.testing import DOCUMENTED_CALLS_PER_SECOND, LocalQuickBI
from example_dags.standalone import Airflow, AirflowDidNotStartError, ending_on, free_port

if TYPE_CHECKING:
    from example_dags.standalone import Api

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / ".airflow"
#: The ports that are taken if they are free.
AIRFLOW_PORT, QUICKBI_PORT = 8080, 8765
#: A run of each scheduled mail task begins so often, in seconds.
EVERY = 60.0


def main() -> int:
    """Run everything until Ctrl-C; the exit status is 1 if Airflow does not start or ends by itself."""
    if (airflow_version := version("apache-airflow")).startswith("2."):
        print(f"The playground needs Airflow 3; this is {airflow_version}.", file=sys.stderr)
        return 1
    try:
        with (
            ending_on(signal.SIGINT, signal.SIGTERM, signal.SIGHUP),
            LocalQuickBI(
                port=free_port(QUICKBI_PORT),
                calls_per_second=DOCUMENTED_CALLS_PER_SECOND,
                run_duration=10,
                run_appears_after=2,
            ) as quickbi,
            Airflow(
                HOME,
                Path(__file__).parent,
                port=free_port(AIRFLOW_PORT),
                settings={"AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "True"},
            ) as own_airflow,
        ):
            _run(own_airflow, quickbi)
    except AirflowDidNotStartError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nEverything is ended.", flush=True)
    return 0


def _run(own_airflow: Airflow, quickbi: LocalQuickBI) -> None:
    add_mail_tasks(quickbi)
    print("Airflow starts; that takes half a minute or more.", flush=True)
    program = own_airflow.start("standalone")
    own_airflow.wait_until_healthy()
    add_connection(own_airflow.api(), quickbi)
    print(f"\nAirflow     {own_airflow.url}")
    print("Login       none is asked: whoever opens it on this machine is its administrator")
    print(f"Connection  {DEFAULT_CONN_ID}, under Admin > Connections, where it can be edited and tested")
    print(f"Quick BI    {quickbi.url}; a run of its mail tasks Daily ... begins every {EVERY:.0f} s and takes 10 s")
    print("DAGs        trigger one: what it waits for goes out within a minute or two")
    print(f"Logs        {HOME.relative_to(ROOT)}/")
    print("\nCtrl-C ends everything.", flush=True)
    while program.running:
        time.sleep(0.5)
    raise AirflowDidNotStartError(f"Airflow ended by itself:\n{program.log_tail()}")


def add_mail_tasks(quickbi: LocalQuickBI) -> None:
    """Add the mail tasks that the example DAGs name, and some more to be listed.

    :param quickbi: where to add them.
    """
    yesterday = quickbi.clock.now() - timedelta(days=1)
    for mail_id, name, owner in (
        ("daily-sales", "Daily sales", "Wang Fang"),
        ("daily-stock", "Daily stock levels", "Li Wei"),
    ):
        quickbi.add_mail_task(name, mail_id=mail_id, owner=owner)
        quickbi.add_run(mail_id, exec_time=yesterday)
        quickbi.add_schedule(mail_id, every=EVERY)
    quickbi.add_mail_task("董事会月报", mail_id="board-report", owner="王芳")
    quickbi.add_mail_task("Daily cash (paused)", mail_id="daily-cash", owner="Li Wei", paused=True)


def add_connection(api: Api, quickbi: LocalQuickBI) -> None:
    """Let the default connection lead to the local Quick BI, whatever it was before.

    :param api: of the Airflow.
    :param quickbi: where to lead.
    """
    body = quickbi.connection() | {
        "connection_id": DEFAULT_CONN_ID,
        "description": "The local Quick BI of this playground",
        "extra": json.dumps({"region": "cn-hangzhou"}),
    }
    try:
        api.request("PATCH", f"/connections/{DEFAULT_CONN_ID}", body)
    except requests.HTTPError as error:
        if error.response.status_code != requests.codes.not_found:
            raise
        api.post("/connections", body)


if __name__ == "__main__":
    sys.exit(main())
