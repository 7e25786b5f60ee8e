"""Tasks that start something, in a time of their own, and a Quick BI for each test."""

from __future__ import annotations

import asyncio
import itertools
import logging
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_quickbi.api import rate_limit
from airflow_provider_quickbi.operators import starting
from tests.airflow_run.tries import BEGIN, Crash, Store, Task, World, first_event, revived
from tests.datasets import ACTIONS, Datasets

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_quickbi.testing import LocalQuickBI


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
def world(quickbi: LocalQuickBI, monkeypatch: pytest.MonkeyPatch) -> World:
    """The time of the test."""
    world = World(quickbi)
    world.rule(monkeypatch)
    return world


@pytest.fixture
def mail_id(quickbi: LocalQuickBI, world: World) -> str:
    """A mail task that ran yesterday, and whose runs take four minutes."""
    mail_id = quickbi.add_mail_task("Daily sales", mail_id="daily-sales", owner="Wang Fang", run_duration=240)
    quickbi.add_run(mail_id, exec_time=BEGIN - timedelta(days=1))
    return mail_id


@pytest.fixture(params=[True, False], ids=["noted", "unnoted"])
def store(request: pytest.FixtureRequest) -> Store | None:
    """Where notes survive a retry (Airflow 3.3), and nothing (before)."""
    return Store() if request.param else None


@pytest.fixture(params=[True, False], ids=["deferred", "held"])
def deferrable(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def make_task(world: World, mail_id: str, kind: str) -> Callable[..., Task]:
    """Make a task that sends the mail or refreshes the dataset; without a store it is one of an Airflow below 3.3."""

    def make(*, store: Store | None = None, retries: int = 3, **arguments: Any) -> Task:
        if not arguments.keys() & {"subscribe_name", "dataset_name"}:
            arguments.setdefault("mail_id" if kind == "mail" else "dataset_id", mail_id)
        return Task(world, {"poll_interval": 60, **arguments}, store, retries=retries, kind=kind)

    return make


@pytest.fixture
def task(make_task: Callable[..., Task], store: Store | None, deferrable: bool) -> Task:
    """A task with the default arguments, on each Airflow and in each mode."""
    return make_task(store=store, deferrable=deferrable)


@pytest.fixture
def starts(quickbi: LocalQuickBI, mail_id: str) -> Callable[[], int]:
    """Count the mails that were started through the API."""
    return lambda: quickbi.starts(mail_id)


@pytest.fixture
def newest(quickbi: Any, mail_id: str, kind: str) -> Callable[[], dict[str, str]]:
    """Return the XCom that the newest run should give."""

    def describe() -> dict[str, str]:
        if kind == "dataset":
            return dict(quickbi.xcom(mail_id))
        run = quickbi.runs(mail_id)[-1]
        return {"mail_id": mail_id, **{key: run[key] for key in ("task_id", "status", "exec_time")}}

    return describe


@pytest.fixture
def run_id(kind: str) -> Callable[[dict[str, str]], str]:
    """Return the id that an XCom names, as the simulator knows it."""
    return lambda xcom: xcom["task_id"] if kind == "mail" else xcom["job_id"]


@pytest.fixture
def crash() -> type[Crash]:
    return Crash


@pytest.fixture
def new_store() -> type[Store]:
    return Store


@pytest.fixture
def revive() -> Callable[[str, dict[str, Any]], Any]:
    return revived


@pytest.fixture
def event_of() -> Callable[[Any], Any]:
    """Run a trigger in a loop of its own and return its event."""
    return lambda trigger: asyncio.run(first_event(trigger))


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    """What the task logged, from INFO on."""
    monkeypatch.setattr(starting.StartOperator, "log", logging.getLogger("send"))
    caplog.set_level(logging.INFO, "send")
    return caplog


@pytest.fixture
def die_at(monkeypatch: pytest.MonkeyPatch, kind: str) -> Callable[..., None]:
    """Let the process die at the nth call of a method, or of a client's operation, before or after it has done it."""

    def arm(owner: Any, name: str, nth: int = 1, *, after: bool = False, of: type[BaseException] = Crash) -> None:
        name = ACTIONS.get(name, name) if kind == "dataset" else name
        method = name if hasattr(owner, name) else "do"
        real = getattr(owner, method)
        calls = itertools.count(1)

        def call(*args: Any, **kwargs: Any) -> Any:
            if method != name and args[1].action != name:
                return real(*args, **kwargs)
            this = next(calls)
            if this == nth and not after:
                raise of(f"before {name}")
            result = real(*args, **kwargs)
            if this == nth:
                raise of(f"after {name}")
            return result

        monkeypatch.setattr(owner, method, call)

    return arm


@pytest.fixture
def new_world() -> type[World]:
    return World


@pytest.fixture
def task_type() -> type[Task]:
    return Task
