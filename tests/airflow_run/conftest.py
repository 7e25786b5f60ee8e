"""A time, a mail task or a dataset, and tasks that start it: on each kind of Airflow, held on a worker and deferred."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from airflow_provider_quickbi.api import rate_limit
from airflow_provider_quickbi.api.clock import use
from airflow_provider_quickbi.operators.starting import StartOperator
from airflow_provider_quickbi.testing import LocalQuickBI
from tests.datasets import Datasets

from .tries import BEGIN, DAY, Case, Store, World


@pytest.fixture
def kind(request: pytest.FixtureRequest) -> str:
    """What is started: ``mail``, or for tests marked with ``both`` also ``dataset``."""
    return str(getattr(request, "param", "mail"))


@pytest.fixture
def quickbi(quickbi: LocalQuickBI, kind: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A Quick BI for each test, without the documented pace and with a client that soon gives up."""
    connection = quickbi.connection_json(status_calls_per_second=1000, read_timeout=0.3)
    monkeypatch.setenv("AIRFLOW_CONN_QUICKBI_DEFAULT", connection)
    monkeypatch.setitem(rate_limit.CALLS_PER_SECOND, "ManualRunMailTask", 1000.0)
    return quickbi if kind == "mail" else Datasets(quickbi)


@pytest.fixture
def world(quickbi: LocalQuickBI) -> Iterator[World]:
    """The time of the test."""
    world = World(quickbi)
    with use(world.clock()):
        yield world


@pytest.fixture(params=[True, False], ids=["recorded", "unrecorded"])
def keeps_records(request: pytest.FixtureRequest) -> bool:
    """Whether start records survive a retry: Airflow 3.3, and before."""
    return bool(request.param)


@pytest.fixture(params=[True, False], ids=["deferred", "held"])
def deferrable(request: pytest.FixtureRequest) -> bool:
    """Whether tasks wait in the triggerer or hold a worker."""
    return bool(request.param)


@pytest.fixture
def case(world: World, kind: str, keeps_records: bool, deferrable: bool) -> Iterator[Case]:
    """A mail task that ran yesterday and whose runs take four minutes, to be sent on each Airflow and in each mode."""
    mail_id = world.quickbi.add_mail_task("Daily sales", mail_id="daily-sales", owner="Wang Fang", run_duration=240)
    world.quickbi.add_run(mail_id, exec_time=BEGIN - DAY)
    case = Case(world, kind, mail_id, Store() if keeps_records else None, deferrable=deferrable)
    yield case
    case.close()


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    """What the task logged, from INFO on."""
    monkeypatch.setattr(StartOperator, "log", logging.getLogger("send"))
    caplog.set_level(logging.INFO, "send")
    return caplog
