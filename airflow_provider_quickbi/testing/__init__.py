"""A Quick BI that runs on this machine, to test DAGs without an account.

:class:`LocalQuickBI` verifies signatures, responds with the documented shapes and errors, optionally enforces the
documented limits, and can break every call in the ways networks and services do. ``python -m
airflow_provider_quickbi.testing`` runs it by itself; :class:`RemoteQuickBI` controls it from another process;
``airflow_provider_quickbi.testing.fixtures`` is for pytest. It imports neither Airflow nor the provider's client.
"""

from airflow_provider_quickbi.testing.calls import DOCUMENTED_CALLS_PER_SECOND, Call
from airflow_provider_quickbi.testing.clock import Clock
from airflow_provider_quickbi.testing.errors import Refusal
from airflow_provider_quickbi.testing.faults import Fault
from airflow_provider_quickbi.testing.remote import RemoteQuickBI
from airflow_provider_quickbi.testing.server import LocalQuickBI

__all__ = ["DOCUMENTED_CALLS_PER_SECOND", "Call", "Clock", "Fault", "LocalQuickBI", "Refusal", "RemoteQuickBI"]
