"""Airflow in this process, a Quick BI, and sensors in each mode."""

from __future__ import annotations

import functools
import itertools
import os
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from tests.datasets import ACTIONS, Datasets

from .dags import AIRFLOW, CASE, MODES, WAIT_LIMIT, Airflow, do_nothing, fix_dag_test, hasten_api_server
from .ran import Expect, Ran

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_quickbi.testing import LocalQuickBI


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let only warnings about this project's modules be errors here, where the whole of Airflow runs in the process."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("default", "error:::airflow_provider_quickbi"))


@pytest.fixture(scope="session")
def airflow_session() -> Airflow:
    """A migrated database and an empty DAGs folder, for all tests."""
    home = Path(os.environ["AIRFLOW_HOME"])
    assert home.name.startswith("airflow-provider-quickbi-tests-")
    from airflow.utils import db
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    event.listen(Engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous=OFF").close())
    db.initdb()
    sys.modules[CASE.__name__] = CASE
    if AIRFLOW >= (3,):
        fix_dag_test()
    airflow = Airflow(home / "dags")
    airflow.run(do_nothing)  # what is slow the first time should not be part of a test
    if AIRFLOW >= (3,):
        hasten_api_server()  # once it is made: that changes what was analysed
    return airflow


@pytest.fixture
def airflow(airflow_session: Airflow, capfd: pytest.CaptureFixture[str]) -> Airflow:
    """Airflow, to run a DAG in."""
    airflow_session.printed = lambda: capfd.readouterr().out
    return airflow_session


@pytest.fixture
def kind(request: pytest.FixtureRequest) -> str:
    """What is waited for: ``mail``, or for tests marked with ``both`` also ``dataset``."""
    return str(getattr(request, "param", "mail"))


@pytest.fixture
def quickbi(quickbi: LocalQuickBI, kind: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A Quick BI for each test, without the documented pace."""
    monkeypatch.setenv(
        "AIRFLOW_CONN_QUICKBI_DEFAULT", quickbi.connection_json(status_calls_per_second=1000, read_timeout=5)
    )
    return quickbi if kind == "mail" else Datasets(quickbi)


@pytest.fixture(autouse=True)
def _impatience(impatient: None) -> None:
    """Wait for nothing here that is not what a test is about."""


@pytest.fixture
def airflow_version() -> tuple[int, ...]:
    """Major and minor number."""
    return AIRFLOW


@pytest.fixture
def remembers(mode: str) -> bool:
    """Whether a wait knows what it has learnt at its next look: a rescheduled one needs Airflow 3.3."""
    return mode != "reschedule" or AIRFLOW >= (3, 3)


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    """Each way to wait."""
    return request.param


@pytest.fixture
def at_poll(quickbi: LocalQuickBI) -> Callable[[str, int, Callable[[], Any]], None]:
    """Do something when a mail task is polled for the nth time, before the response is written."""

    def arrange(mail_id: str, nth: int, do: Callable[[], Any]) -> None:
        poll_count = itertools.count(1)

        def record(call: Any) -> None:
            if mail_id in (call.mail_id, call.params.get("CubeId")) and next(poll_count) == nth:
                do()

        quickbi.when_called("GetMailTaskStatus", record)

    return arrange


@pytest.fixture
def poll_count(quickbi: LocalQuickBI) -> Callable[[str], list[Any]]:
    """Return the polls of a mail task or a dataset."""
    actions = ("GetMailTaskStatus", ACTIONS["GetMailTaskStatus"])
    return lambda mail_id: [
        call
        for call in quickbi.calls
        if call.action in actions and mail_id in (call.mail_id, call.params.get("CubeId"))
    ]


@pytest.fixture
def run_of(quickbi: Any, kind: str) -> Callable[[str], dict[str, str]]:
    """Return the XCom that the newest run should give."""

    def describe(mail_id: str, position: int = -1) -> dict[str, str]:
        if kind == "dataset":
            return dict(quickbi.xcom(mail_id, position))
        run = quickbi.runs(mail_id)[position]
        return {"mail_id": mail_id, **{key: run[key] for key in ("task_id", "status", "exec_time")}}

    return describe


@pytest.fixture
def wait(airflow: Airflow, quickbi: LocalQuickBI, sensor: Callable[..., Any]) -> Callable[..., Ran]:
    """Run a DAG with two sensors that wait alike: ``hard``, and ``soft`` with ``soft_fail``, which may be left out."""

    def run(
        prepare: Callable[[str], Any] = lambda mail_id: None, *, mails: bool = True, soft: bool = True, **arguments: Any
    ) -> Ran:
        task_ids = ("hard", "soft") if soft else ("hard",)
        for task_id in task_ids:
            if mails:
                quickbi.add_mail_task(f"Report {task_id}", mail_id=task_id)
            prepare(task_id)

        def make() -> None:
            for task_id in task_ids:
                sensor(task_id, soft_fail=task_id == "soft", **arguments)

        return airflow.run(make)

    return run


@pytest.fixture
def sensor_of(kind: str) -> Callable[..., Any]:
    """Make a sensor in a mode; by default it waits for what its task id names."""

    def make(mode: str, task_id: str, **arguments: Any) -> Any:
        from airflow_provider_quickbi.sensors.quickbi import QuickBIDatasetRefreshSensor, QuickBIMailTaskSensor

        given = {"poke_interval": 0.05, "timeout": WAIT_LIMIT, **MODES[mode], **arguments}
        if kind == "dataset":
            return QuickBIDatasetRefreshSensor(task_id=task_id, dataset_id=given.pop("mail_id", task_id), **given)
        if "subscribe_name" not in arguments:
            given.setdefault("mail_id", task_id)
        return QuickBIMailTaskSensor(task_id=task_id, **given)

    return make


@pytest.fixture
def sensor(sensor_of: Callable[..., Any], mode: str) -> Callable[..., Any]:
    """Make a sensor in the mode of the test."""
    return functools.partial(sensor_of, mode)


@pytest.fixture
def expect() -> type[Expect]:
    return Expect


@pytest.fixture
def ago() -> SimpleNamespace:
    """Instants around now, in whole seconds, as Quick BI writes them."""
    now = datetime.now(UTC).replace(microsecond=0)
    return SimpleNamespace(now=now, hour=now - timedelta(hours=1), day=now - timedelta(days=1))


@pytest.fixture
def trigger():
    """Make a trigger that waits for mail tasks."""

    def make(*mail_ids, poke_interval=0.05, late_at=None, execute_by=None, required=None, **of_each_wait):
        from airflow_provider_quickbi._wait.codec import encode_group
        from airflow_provider_quickbi._wait.selector import RunSelector
        from airflow_provider_quickbi._wait.state import WaitGroup, WaitState
        from airflow_provider_quickbi._wait.subject import MailTaskSubject
        from airflow_provider_quickbi.triggers.quickbi import QuickBIMailTaskTrigger

        now = time.time()
        given = {"selector": RunSelector(), "since": now, "finish_by": now + 120, **of_each_wait}
        waits = [WaitState(subject=MailTaskSubject(mail_id), **given) for mail_id in mail_ids]
        return QuickBIMailTaskTrigger(
            quickbi_conn_id="quickbi_default",
            group=encode_group(WaitGroup.of(waits, required=required, late_at=late_at)),
            poke_interval=poke_interval,
            execute_by=execute_by,
            carry={"execute_by": execute_by},
        )

    return make


@pytest.fixture
def report(quickbi):
    """A mail task with a run that has not finished."""
    quickbi.add_mail_task("report", mail_id="report")
    return quickbi.add_run("report", status="PROCESSING")
