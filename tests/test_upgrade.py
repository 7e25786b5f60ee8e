"""What an earlier release has stored, this one finishes: waits, events, start records and what watchers have seen."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Callable
from contextlib import aclosing
from datetime import UTC, datetime
from functools import partial
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowTaskTimeout, TaskDeferred

from airflow_provider_quickbi._send.record import StartRecord
from airflow_provider_quickbi._send.state import AttemptState
from airflow_provider_quickbi._send.store import RECORD_KEY
from airflow_provider_quickbi._wait import aio
from airflow_provider_quickbi._wait.codec import STATE_VERSION, decode_group, encode_group
from airflow_provider_quickbi._wait.memory import STATE_KEY
from airflow_provider_quickbi._watch import stream
from airflow_provider_quickbi.operators.quickbi import QuickBIRefreshDatasetOperator, QuickBIRunMailTaskOperator
from airflow_provider_quickbi.sensors.quickbi import QuickBIDatasetRefreshSensor, QuickBIMailTaskSensor
from airflow_provider_quickbi.testing import LocalQuickBI
from airflow_provider_quickbi.triggers import quickbi as triggers

# Airflow and its dependencies warn about each other when a connection is read first.
pytestmark = pytest.mark.filterwarnings("default", "error:::airflow_provider_quickbi")

STORED = Path(__file__).parent / "stored"
SAMPLES = {str(file.relative_to(STORED).with_suffix("")): file for file in sorted(STORED.glob("*/*.json"))}
#: TaskIds in the samples: of the run that is waited for, and of one before it.
RUN, EARLIER = "7218865303929605212", "7218865303929605211"
#: JobHistoryId of the refresh that is waited for.
REFRESH = "0000000000000000642e8fbf2a1dcc5c"
BOUND = 60.0
#: What a release after this one may have added.
ADDED = {"added_later": {"x": [1, None, "y"]}}


def stored(name: str) -> dict[str, Any]:
    return json.loads(SAMPLES[name].read_text(encoding="utf-8"))


def samples(*kinds: str, but: tuple[str, ...] = ()) -> pytest.MarkDecorator:
    names = [name for name in SAMPLES if stored(name)["kind"] in kinds and stored(name)["task"] not in but]
    assert names
    return pytest.mark.parametrize("name", names)


def with_more(value: Any) -> Any:
    """Return something with a further key in every object, but for the one that holds TaskIds."""
    if isinstance(value, list):
        return [with_more(item) for item in value]
    if isinstance(value, dict):
        return {key: item if key == "seen" else with_more(item) for key, item in value.items()} | ADDED
    return value


def fits(found: Any, sample: Any) -> bool:
    """Whether two things have the same keys; what is ``None`` in one of them fits everything."""
    if found is None or sample is None:
        return True
    if isinstance(found, dict) and isinstance(sample, dict):
        return found.keys() == sample.keys() and all(fits(found[key], sample[key]) for key in found)
    if isinstance(found, list) and isinstance(sample, list):
        return not (found and sample) or fits(found[0], sample[0])
    return isinstance(found, (dict, list)) == isinstance(sample, (dict, list))


class Store(dict[str, Any]):
    """``task_state_store`` and ``asset_state_store``, which hold JSON."""

    def set(self, key: str, value: Any) -> None:
        self[key] = json.loads(json.dumps(value))

    def delete(self, key: str) -> None:
        self.pop(key, None)

    async def aget(self, key: str) -> Any:
        return self.get(key)

    async def aset(self, key: str, value: Any) -> None:
        self.set(key, value)


class World:
    """A Quick BI that knows the runs of the samples, under TaskIds of its own.

    :param quickbi: the service.
    """

    def __init__(self, quickbi: LocalQuickBI) -> None:
        self.quickbi = quickbi
        self.cubes = quickbi.datasets
        self.run = self.earlier = self.refresh = ""

    def prepare(self, sample: dict[str, Any]) -> dict[str, Any]:
        """Let the runs of a sample finish, and return the sample with the right TaskIds."""
        self.quickbi.add_mail_task("Daily sales", mail_id="daily-sales", owner="Wang Fang")
        self.quickbi.add_mail_task("Stock", mail_id="stock")
        self.quickbi.add_run("stock", exec_time="2026-07-01T08:01:00")
        self.earlier = self.quickbi.add_run("daily-sales", exec_time="2026-06-30T08:05:00")
        status = "FAILED" if sample["ends"] in ("FAILED", "QuickBIMailTaskFailed") else "SENT"
        self.run = self.quickbi.add_run("daily-sales", exec_time="2026-07-01T08:05:00", status=status)
        self.cubes.add("Sales", dataset_id="sales-cube")
        self.refresh = self.cubes.add_run("sales-cube", exec_time="2026-07-01T08:05:00")
        written = json.dumps(sample).replace(RUN, self.run).replace(EARLIER, self.earlier)
        return json.loads(written.replace(REFRESH, self.refresh))


@pytest.fixture
def world(quickbi: LocalQuickBI, impatient: None, monkeypatch: pytest.MonkeyPatch) -> World:
    """A Quick BI for each test; nobody waits long before the first poll."""
    monkeypatch.setenv("AIRFLOW_CONN_QUICKBI_DEFAULT", quickbi.connection_json(status_calls_per_second=1000))
    monkeypatch.setattr(aio, "MAX_SPREAD_SECONDS", 0.01)
    monkeypatch.setattr(stream, "_IDLE_SECONDS", 0.01)
    return World(quickbi)


def task_of(sample: dict[str, Any]) -> Any:
    """Return the task that a sample belongs to, as its DAG file makes it today."""
    sensor: dict[str, Any] = {"task_id": "t", "deferrable": True, "poke_interval": 0.01}
    send: dict[str, Any] = {"task_id": "t", "deferrable": True, "poll_interval": 0.01, "start_timeout": 30}
    several = len(sample["kept"].get("kwargs", {}).get("group", {}).get("waits", ())) > 1
    return {
        "sensor": lambda: QuickBIMailTaskSensor(
            mail_id=["daily-sales", "stock"] if several else "daily-sales", **sensor
        ),
        "rescheduled sensor": lambda: QuickBIMailTaskSensor(
            mail_id="daily-sales", **sensor | {"deferrable": False, "mode": "reschedule"}
        ),
        "send": lambda: QuickBIRunMailTaskOperator(mail_id="daily-sales", **send),
        "send by name": lambda: QuickBIRunMailTaskOperator(subscribe_name="Daily sales", **send),
        "refresh": lambda: QuickBIRefreshDatasetOperator(dataset_id="sales-cube", **send),
        "refresh sensor": lambda: QuickBIDatasetRefreshSensor(dataset_id="sales-cube", **sensor),
    }[sample["task"]]()


def inflated(kept: dict[str, Any]) -> Any:
    """Return the trigger that a triggerer makes of what is in the database."""
    module, _, name = kept["classpath"].rpartition(".")
    return getattr(import_module(module), name)(**kept["kwargs"])


async def first_event(trigger: Any) -> Any:
    async with asyncio.timeout(BOUND), aclosing(trigger.run()) as events:
        return json.loads(json.dumps((await anext(events)).payload))


def context_of(store: Store | None = None, try_number: int = 1) -> dict[str, Any]:
    instance = SimpleNamespace(
        try_number=try_number,
        max_tries=0,
        start_date=datetime.now(UTC),
        get_first_reschedule_date=lambda context: None,
        xcom_push=lambda **_: None,
    )
    began = SimpleNamespace(start_date=datetime(2026, 7, 1, tzinfo=UTC))
    return {"ti": instance, "dag_run": began} | ({} if store is None else {"task_state_store": store})


def ended(call: Callable[[], Any], sample: dict[str, Any], context: dict[str, Any]) -> Any:
    """Return what a task gives in the end, or the error that it raises, whatever waits there are on the way."""
    while True:
        try:
            return call()
        except TaskDeferred as deferred:
            path, kwargs = deferred.trigger.serialize()
            event = asyncio.run(first_event(inflated({"classpath": path, "kwargs": json.loads(json.dumps(kwargs))})))
            method = getattr(task_of(sample), deferred.method_name)
            call = partial(method, context, event=event)
        except (Exception, AirflowTaskTimeout) as error:  # noqa: BLE001 - whatever a task raises
            return error


def assert_right(found: Any, sample: dict[str, Any], world: World) -> None:
    """Assert that a task ended as its sample demands, and that no mail was sent unless that was still to be done."""
    if isinstance(found, BaseException):
        names = [cls.__name__ for cls in type(found).__mro__]
        assert sample["ends"] in names or (sample["ends"], names[0]) == ("FAILED", "QuickBIMailTaskFailed"), found
        return
    carry = sample["kept"].get("carry") or sample["kept"].get("kwargs", {}).get("carry") or {}
    if sample["task"].startswith("refresh"):
        assert (found["status"], found["job_id"]) == (sample["ends"], world.refresh)
        assert world.cubes.starts("sales-cube") == 0
        return
    starts = int(carry.get("phase") in ("preparing", "starting", "awaiting_other_run"))
    assert world.quickbi.starts("daily-sales") == starts
    results = found if isinstance(found, list) else [found]
    assert [result["status"] for result in results] == [sample["ends"]] * len(results)
    newest = world.quickbi.runs("daily-sales")[-1]["task_id"]
    assert results[0]["task_id"] == (newest if starts else world.run)


# Waits that an earlier release has deferred


@pytest.mark.parametrize("change", [lambda kept: kept, with_more], ids=["as stored", "with what comes later"])
@samples("trigger", but=("watcher", "dataset watcher", "start"))
def test_a_wait_that_was_deferred_is_finished(world: World, name: str, change: Callable[[Any], Any]) -> None:
    sample = world.prepare(stored(name))
    kept = sample["kept"] | {"kwargs": change(sample["kept"]["kwargs"])}
    event = asyncio.run(first_event(inflated(kept)))
    context = context_of()
    found = ended(lambda: task_of(sample).execute_complete(context, event=event), sample, context)
    assert_right(found, sample, world)


@pytest.mark.parametrize("change", [lambda kept: kept, with_more], ids=["as stored", "with what comes later"])
def test_a_start_that_was_stored_is_made_or_left_to_a_worker(change: Callable[[Any], Any]) -> None:
    kept = stored("1.0/sensor-start")["kept"]
    trigger = inflated(kept | {"kwargs": change(kept["kwargs"])})
    assert trigger.start.timeout == 604800.0
    event = asyncio.run(first_event(trigger))  # this is no triggerer: it has no task instance
    assert event["kind"] == "start"


@pytest.mark.parametrize("change", [lambda kept: kept, with_more], ids=["as stored", "with what comes later"])
@samples("event")
def test_an_event_that_was_stored_is_understood(world: World, name: str, change: Callable[[Any], Any]) -> None:
    sample = world.prepare(stored(name))
    context = context_of()
    found = ended(lambda: task_of(sample).execute_complete(context, event=change(sample["kept"])), sample, context)
    assert_right(found, sample, world)


@pytest.mark.parametrize("change", [lambda kept: kept, with_more], ids=["as stored", "with what comes later"])
@samples("task")
def test_a_try_goes_on_with_what_was_stored_for_it(world: World, name: str, change: Callable[[Any], Any]) -> None:
    sample = world.prepare(stored(name))
    store = Store(change(sample["kept"]))
    context = context_of(store)
    task = task_of(sample)
    if sample["task"] == "rescheduled sensor":
        found = task.poke(context).xcom_value
        assert [call.params.get("TaskId") for call in world.quickbi.calls] == [world.run]
    else:
        context = context_of(store, try_number=2)
        found = ended(lambda: inspect.unwrap(type(task).execute)(task, context), sample, context)
    assert_right(found, sample, world)
    assert STATE_KEY not in store
    assert RECORD_KEY not in store or store[RECORD_KEY]["finished"]


@pytest.mark.parametrize("change", [lambda kept: kept, with_more], ids=["as stored", "with what comes later"])
@samples("trigger", but=("sensor", "send", "send by name", "refresh", "refresh sensor", "dataset watcher", "start"))
def test_a_watcher_goes_on_where_it_was(world: World, name: str, change: Callable[[Any], Any]) -> None:
    sample = world.prepare(stored(name))
    state = json.loads(json.dumps(stored("1.0/state-watcher")["kept"]).replace(RUN, world.run))
    trigger = inflated(sample["kept"])
    if sample["kept"]["kwargs"]["subscribe_name"] is not None:
        state = {trigger._state_key(): one for one in state.values()}
    trigger.asset_state_store = Store(change(state))
    payload = asyncio.run(first_event(trigger))
    assert (payload["task_id"], payload["status"]) == (world.run, "SENT")


@pytest.mark.parametrize("change", [lambda kept: kept, with_more], ids=["as stored", "with what comes later"])
def test_a_watcher_of_a_dataset_goes_on_where_it_was(world: World, change: Callable[[Any], Any]) -> None:
    sample = world.prepare(stored("1.0/dataset-watcher"))
    state = world.cubes.runs("sales-cube") and stored("1.0/state-dataset-watcher")["kept"]
    trigger = inflated(sample["kept"])
    trigger.asset_state_store = Store(change(json.loads(json.dumps(state).replace(REFRESH, world.refresh))))
    payload = asyncio.run(first_event(trigger))
    assert (payload["job_id"], payload["status"]) == (world.refresh, "SUCCESS")


# What a later release has stored and this one would misunderstand


@samples("trigger")
def test_a_trigger_of_a_version_that_is_not_known_is_refused_in_words(name: str) -> None:
    kept = stored(name)["kept"]
    kept["kwargs"]["version"] = STATE_VERSION + 1
    with pytest.raises(TypeError, match=r"reads version 1\. Install the same release on scheduler, workers"):
        inflated(kept)


@samples("event")
def test_an_event_of_a_version_that_is_not_known_is_refused_in_words(name: str) -> None:
    sample = stored(name)
    with pytest.raises(RuntimeError, match="not treated as success: it has version 2, and this release of"):
        task_of(sample).execute_complete(context_of(), event=sample["kept"] | {"version": STATE_VERSION + 1})


# That nothing is stored in another form unnoticed


@samples("trigger")
def test_a_trigger_is_stored_as_it_was(name: str) -> None:
    kept = stored(name)["kept"]
    path, arguments = inflated(kept).serialize()
    assert {"classpath": path, "kwargs": json.loads(json.dumps(arguments))} == kept


def test_what_is_carried_and_kept_is_stored_as_it_was() -> None:
    seen = set()
    for name in SAMPLES:
        kept = stored(name)["kept"]
        carry = kept.get("carry") or kept.get("kwargs", {}).get("carry") or {}
        if "phase" in carry:
            assert json.loads(json.dumps(AttemptState.from_dict(carry).as_dict())) == carry
            seen.add(carry["phase"])
        if "group" in kept:
            assert encode_group(decode_group(kept["group"])) == kept["group"]
        if RECORD_KEY in kept:
            record = StartRecord.from_dict(kept[RECORD_KEY])
            assert record is not None
            assert record.as_dict() == kept[RECORD_KEY]
    assert seen == {"preparing", "starting", "awaiting_other_run", "locating_run", "monitoring"}


def test_todays_tasks_and_triggers_store_what_the_samples_hold(world: World) -> None:
    """The samples were made once; this is what makes them worth something."""
    world.prepare({"ends": "SENT"})
    world.quickbi.set_manual_start("daily-sales", duration=3600)
    is_active = world.quickbi.add_run("daily-sales", status="PROCESSING")

    def deferred(task: Any, store: Store | None = None) -> Any:
        with pytest.raises(TaskDeferred) as caught:
            inspect.unwrap(type(task).execute)(task, context_of(store))
        path, arguments = caught.value.trigger.serialize()
        return {"classpath": path, "kwargs": json.loads(json.dumps(arguments))}

    sensor = deferred(task_of({"task": "sensor", "kept": {}}))
    assert fits(sensor, stored("1.0/sensor-pinned-and-unreachable")["kept"])
    store = Store()
    outwaiting = deferred(task_of({"task": "send", "kept": {}}), store)
    assert fits(outwaiting, stored("1.0/send-awaiting-other-run")["kept"])
    world.quickbi.finish_run(is_active)
    following = deferred(task_of({"task": "send", "kept": {}}), store)
    assert fits(following, stored("1.0/send-monitoring")["kept"])
    assert fits(dict(store), stored("1.0/state-record-attached")["kept"])

    rescheduled, store = task_of({"task": "rescheduled sensor", "kept": {}}), Store()
    assert rescheduled.poke(context_of(store)) is False
    assert fits(dict(store), stored("1.0/state-rescheduled")["kept"])

    world.quickbi.finish_run(world.quickbi.runs("daily-sales")[-1]["task_id"])
    event = asyncio.run(first_event(inflated(following)))
    assert fits(event, stored("1.0/event-sent-to-send")["kept"])
    world.cubes.set_start("sales-cube", duration=3600)
    store = Store()
    refreshing = deferred(task_of({"task": "refresh", "kept": {}}), store)
    assert fits(refreshing, stored("1.0/refresh-monitoring")["kept"])
    assert fits(dict(store), stored("1.0/state-record-refresh")["kept"])
    refreshed = deferred(task_of({"task": "refresh sensor", "kept": {}}))
    assert fits(refreshed, stored("1.0/refresh-sensor")["kept"])
    world.cubes.finish_run(world.cubes.runs("sales-cube")[-1]["job_id"] or "")
    assert fits(asyncio.run(first_event(inflated(refreshing))), stored("1.0/event-refreshed")["kept"])

    pause = triggers.QuickBIPauseTrigger(until=0.0, carry=following["kwargs"]["carry"])
    assert fits(asyncio.run(first_event(pause)), stored("1.0/event-resume")["kept"])
