"""A Quick BI that runs on this machine, to test DAGs without an account.

::

    from airflow_provider_quickbi.testing import Fault, LocalQuickBI

    with LocalQuickBI() as quickbi:
        mail_id = quickbi.add_mail_task("Daily sales", owner="Wang Fang")
        quickbi.add_run(mail_id, exec_time="2026-07-01T08:00:00", status="SENT")  # a run of the past
        quickbi.set_manual_start(mail_id, duration=60, outcome="SENT")  # how runs started through the API go
        quickbi.fail("ManualRunMailTask", Fault.answer_lost())  # the mail starts, the client sees a reset
        os.environ["AIRFLOW_CONN_QUICKBI_DEFAULT"] = quickbi.connection_json()
        ...  # run an operator, a sensor, a whole DAG
        quickbi.clock.advance(60)  # nobody waits
        assert quickbi.starts(mail_id) == 1

It verifies signatures, responds with the documented shapes and errors, optionally enforces the documented limits, and
can break every call in the ways networks and services do. ``python -m airflow_provider_quickbi.testing`` runs it by
itself; :class:`RemoteQuickBI` controls it from another process; ``airflow_provider_quickbi.testing.fixtures`` holds a
pytest fixture. It imports neither Airflow nor the provider's client.
"""

from airflow_provider_quickbi.testing.calls import Call
from airflow_provider_quickbi.testing.clock import Clock
from airflow_provider_quickbi.testing.errors import Refusal
from airflow_provider_quickbi.testing.faults import Fault
from airflow_provider_quickbi.testing.limits import DOCUMENTED_CALLS_PER_SECOND
from airflow_provider_quickbi.testing.remote import RemoteQuickBI
from airflow_provider_quickbi.testing.server import LocalQuickBI
from airflow_provider_quickbi.testing.simulator import QuickBISimulator

__all__ = [
    "DOCUMENTED_CALLS_PER_SECOND",
    "Call",
    "Clock",
    "Fault",
    "LocalQuickBI",
    "QuickBISimulator",
    "Refusal",
    "RemoteQuickBI",
]
