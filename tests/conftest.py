"""What every test stands on: a throw-away Airflow home, a local Quick BI, and nothing left of the test before."""

from __future__ import annotations

import gc
import os
import shutil
import tempfile
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.conditions import CONDITIONS, ConnectionsInDatabase, set_proxies

# Airflow reads these once, when it is imported first.
_AIRFLOW_HOME = tempfile.mkdtemp(prefix="airflow-provider-quickbi-tests-")
os.environ["AIRFLOW_HOME"] = _AIRFLOW_HOME
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"

# Nothing depends on the machine's speed, nor on luck: inputs that are made up are the same each time, but for EXAMPLES.
settings.register_profile(
    "steady",
    deadline=None,
    derandomize="EXAMPLES" not in os.environ,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("steady")

pytest_plugins = ["airflow_provider_quickbi.testing.fixtures"]

#: What this machine may have set and would lead the clients elsewhere.
_PROXY_VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
_CA_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


def pytest_collection_finish() -> None:
    """Collect garbage less often: it takes an eighth of the time of tests in Airflow, which keeps a million objects."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 100)


def pytest_unconfigure() -> None:
    shutil.rmtree(_AIRFLOW_HOME, ignore_errors=True)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retry reads as often as ever, but at once, and let triggers poll at once and as often as their interval says.

    A trigger's first poll, and the next one after a failed poll, come within a twentieth of a second.
    """
    from airflow_provider_quickbi._wait import aio
    from airflow_provider_quickbi.api.retry import RetryPolicy

    attempts, *_ = RetryPolicy.__init__.__defaults__ or ()
    monkeypatch.setattr(RetryPolicy.__init__, "__defaults__", (attempts, 0.001, 0.002))
    for name in ("FIRST_POLL_SECONDS", "FRESH_SECONDS"):
        monkeypatch.setattr(aio, name, 0.0)
    monkeypatch.setattr(aio, "MAX_SPREAD_SECONDS", 0.05)


if CONDITIONS == "database":

    @pytest.fixture(scope="session")
    def _metadata_database() -> None:
        """Let Airflow find connections in its metadata database, in tasks and in its servers."""
        from airflow.utils import db

        os.environ["_AIRFLOW_PROCESS_CONTEXT"] = "server"
        db.initdb()

    @pytest.fixture
    def monkeypatch(_metadata_database: None) -> Iterator[pytest.MonkeyPatch]:
        """Change connections in the metadata database, and everything else as usual."""
        patch = ConnectionsInDatabase()
        yield patch
        patch.undo()


@pytest.fixture(autouse=True)
def _new_process(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[None]:
    """Give each test what a new process on a plain machine has: no proxies, no credentials, no calls made yet."""
    from airflow_provider_quickbi.api import rate_limit

    for name in list(os.environ):
        if name.lower() in _PROXY_VARIABLES or name in _CA_VARIABLES or name.startswith("ALIBABA_CLOUD_"):
            monkeypatch.delenv(name)
    if CONDITIONS == "proxies" and request.node.get_closest_marker("own_proxies") is None:
        set_proxies(monkeypatch)
    rate_limit.forget_rate_limiters()
    yield
    rate_limit.forget_rate_limiters()
