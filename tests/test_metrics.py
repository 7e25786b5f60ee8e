"""What is counted in Airflow's statistics, and that the runbook says so."""

from __future__ import annotations

import asyncio
import inspect
import re
import time
from collections import Counter
from collections.abc import Callable
from contextlib import aclosing, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred

from airflow_provider_quickbi import _metrics
from airflow_provider_quickbi._wait import aio
from airflow_provider_quickbi._wait.state import Outcome
from airflow_provider_quickbi.api.errors import ErrorKind
from airflow_provider_quickbi.exceptions import QuickBIMailTaskFailed
from airflow_provider_quickbi.operators.quickbi import QuickBIRefreshDatasetOperator, QuickBIRunMailTaskOperator
from airflow_provider_quickbi.sensors.quickbi import QuickBIMailTaskSensor
from airflow_provider_quickbi.testing import Fault, LocalQuickBI
from tests.datasets import Datasets

# Airflow and its dependencies warn about each other when a connection is read first.
pytestmark = pytest.mark.filterwarnings("default", "error:::airflow_provider_quickbi")

RUNBOOK = Path(__file__).resolve().parent.parent / "docs" / "runbook.md"
BOUND = 60.0


class Recorded:
    """Stands in for Airflow's ``Stats``."""

    def __init__(self) -> None:
        self.counted: Counter[tuple[str, tuple[tuple[str, str], ...]]] = Counter()
        self.timed: dict[str, list[timedelta]] = {}
        self.tags: dict[str, set[str]] = {}

    def incr(self, stat: str, *, tags: dict[str, str] | None = None) -> None:
        """Count."""
        self.counted[stat, tuple(sorted((tags or {}).items()))] += 1
        self.tags.setdefault(stat, set()).update(tags or {})

    def timing(self, stat: str, dt: timedelta) -> None:
        """Time."""
        self.timed.setdefault(stat, []).append(dt)
        self.tags.setdefault(stat, set())

    def count(self, stat: str, **tags: str) -> int:
        """Return how often something was counted with at least these tags."""
        return sum(number for (name, has), number in self.counted.items() if name == stat and tags.items() <= set(has))


@pytest.fixture
def stats(quickbi: LocalQuickBI, impatient: None, monkeypatch: pytest.MonkeyPatch) -> Recorded:
    """What was counted."""
    connection = quickbi.connection_json(status_calls_per_second=1000, read_timeout=5)
    monkeypatch.setenv("AIRFLOW_CONN_QUICKBI_DEFAULT", connection)
    monkeypatch.setattr(aio, "MAX_SPREAD_SECONDS", 0.01)
    recorded = Recorded()
    monkeypatch.setattr(_metrics, "Stats", recorded)
    return recorded


def context() -> dict[str, Any]:
    """Return the context of a task."""
    instance = SimpleNamespace(try_number=1, max_tries=0, xcom_push=lambda **_: None, start_date=datetime.now(UTC))
    return {"ti": instance, "dag_run": SimpleNamespace(start_date=datetime.now(UTC))}


def run(task: Any) -> Any:
    """Run a task to its end, with its deferrals."""
    given = context()
    call = partial(inspect.unwrap(type(task).execute), task, given)
    while True:
        try:
            return call()
        except TaskDeferred as deferred:
            event = asyncio.run(_event(deferred.trigger))
            call = partial(task.execute_complete, given, event=event)


async def _event(trigger: Any) -> Any:
    async with asyncio.timeout(BOUND), aclosing(trigger.run()) as events:
        return (await anext(events)).payload


def sensor(deferrable: bool, mail_id: str = "report", **arguments: Any) -> Any:
    """Return a sensor that polls often."""
    given = {"poke_interval": 0.02, "timeout": BOUND, "deferrable": deferrable, **arguments}
    return QuickBIMailTaskSensor(task_id="t", mail_id=mail_id, **given)


@pytest.fixture
def ends_at_poll(quickbi: LocalQuickBI) -> Callable[..., None]:
    """Let a run end when it is polled for the nth time."""

    def arrange(nth: int, status: str = "SENT") -> None:
        quickbi.add_mail_task("Report", mail_id="report")
        is_active = quickbi.add_run("report", status="PROCESSING")
        quickbi.when_called("GetMailTaskStatus", lambda call: quickbi.finish_run(is_active, status), nth=nth)

    return arrange


@pytest.mark.parametrize("deferrable", [False, True], ids=["poke", "deferred"])
@pytest.mark.parametrize("status", ["SENT", "FAILED"])
def test_a_wait_counts_its_calls_its_end_and_how_late_that_was_seen(
    quickbi: LocalQuickBI, stats: Recorded, ends_at_poll: Any, deferrable: bool, status: str
) -> None:
    ends_at_poll(4, status)
    began = time.monotonic()
    with suppress(QuickBIMailTaskFailed):
        run(sensor(deferrable))
    calls = quickbi.count("GetMailTaskStatus")
    assert stats.count("quickbi.calls", action="GetMailTaskStatus", result="ok") == calls >= 4
    assert (
        stats.count("quickbi.waits", outcome="succeeded" if status == "SENT" else "failed")
        == stats.count("quickbi.waits")
        == 1
    )
    assert stats.count("quickbi.deliveries") == (status == "SENT")
    (delay,) = stats.timed["quickbi.detection_delay"]
    assert timedelta(0) < delay <= timedelta(seconds=time.monotonic() - began)


def test_an_end_that_the_first_poll_sees_says_nothing_about_how_late_it_is_seen(
    quickbi: LocalQuickBI, stats: Recorded
) -> None:
    quickbi.add_mail_task("Report", mail_id="report")
    quickbi.add_run("report")
    run(sensor(False))
    assert stats.timed == {}
    assert stats.count("quickbi.deliveries") == 1


@pytest.mark.parametrize("deferrable", [False, True], ids=["held", "deferred"])
def test_a_mail_that_is_started_is_counted(quickbi: LocalQuickBI, stats: Recorded, deferrable: bool) -> None:
    quickbi.add_mail_task("Report", mail_id="report", run_duration=0.1)
    run(QuickBIRunMailTaskOperator(task_id="t", mail_id="report", deferrable=deferrable, poll_interval=0.02))
    assert stats.count("quickbi.mails_started") == quickbi.starts("report") == 1
    assert stats.count("quickbi.deliveries") == 1


@pytest.mark.parametrize("deferrable", [False, True], ids=["held", "deferred"])
def test_a_refresh_that_is_started_is_counted_and_is_no_mail(
    quickbi: LocalQuickBI, stats: Recorded, deferrable: bool
) -> None:
    cubes = Datasets(quickbi)
    cubes.add_mail_task("Sales", mail_id="cube", run_duration=0.1)
    run(QuickBIRefreshDatasetOperator(task_id="r", dataset_id="cube", deferrable=deferrable, poll_interval=0.02))
    assert stats.count("quickbi.refreshes_started") == cubes.starts("cube") == 1
    assert stats.count("quickbi.refreshes") == stats.count("quickbi.waits", outcome="succeeded") == 1
    assert stats.count("quickbi.mails_started") == stats.count("quickbi.deliveries") == 0


@pytest.mark.parametrize(
    ("fault", "name", "result"),
    [
        (Fault.throttled(), "quickbi.calls.throttled", "throttled"),
        (Fault.reset(), "quickbi.calls.unreachable", "transient"),
        (Fault.html_503(), "quickbi.calls.unreachable", "transient"),
    ],
    ids=["throttled", "reset", "503"],
)
def test_a_call_without_a_response_is_counted_by_its_reason(
    quickbi: LocalQuickBI, stats: Recorded, fault: Fault, name: str, result: str
) -> None:
    quickbi.add_mail_task("Report", mail_id="report")
    quickbi.add_run("report")
    quickbi.fail("GetMailTaskStatus", fault, times=2)
    run(sensor(False))
    assert stats.count(name, action="GetMailTaskStatus") == 2
    assert stats.count("quickbi.calls", result=result) == 2
    assert stats.count("quickbi.calls", result="ok") == 1


def test_the_runbook_names_what_comes_out_and_nothing_else(
    quickbi: LocalQuickBI, stats: Recorded, ends_at_poll: Any
) -> None:
    ends_at_poll(6)
    quickbi.fail("GetMailTaskStatus", Fault.throttled(), Fault.reset())
    run(sensor(False))
    run(QuickBIRunMailTaskOperator(task_id="t", mail_id="report", poll_interval=0.02))
    Datasets(quickbi).add_mail_task("Sales", mail_id="cube")
    run(QuickBIRefreshDatasetOperator(task_id="r", dataset_id="cube", poll_interval=0.02))
    text = RUNBOOK.read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(quickbi\.\w[\w.]*)` \| (\w+) \|([^|]*)\|", text, re.MULTILINE)
    documented = {name: set(re.findall(r"`(\w+)`", tags)) for name, _, tags in rows}
    assert documented == stats.tags
    assert {name for name, kind, _ in rows if kind == "timer"} == set(stats.timed)
    assert [kind.value for kind in ErrorKind if f"`{kind.value}`" not in text] == []
    assert [outcome.value for outcome in Outcome if outcome.final and f"`{outcome.value}`" not in text] == []
    assert set(re.findall(r"``(quickbi\.[\w.]+)``", _metrics.__doc__ or "")) == set(documented)
