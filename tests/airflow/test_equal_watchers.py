"""Assets whose watchers are equal, in Airflow's own triggerer: what the runbook says to do about them, done."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_quickbi._watch import stream
from airflow_provider_quickbi.triggers import watching

from .dags import AIRFLOW

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

pytestmark = pytest.mark.skipif(AIRFLOW < (3, 3), reason="Airflow keeps state with an asset since 3.3")

DAG_FILE = """
from datetime import datetime, timezone
from airflow.sdk import DAG, Asset, AssetWatcher
from airflow_provider_quickbi.triggers.quickbi import QuickBIMailTaskEventTrigger

def watched(asset, name):
    trigger = QuickBIMailTaskEventTrigger(mail_id="report", poll_interval=0.01, name=name)
    return Asset(asset, watchers=[AssetWatcher(name="sent", trigger=trigger)])

dag = DAG(
    "equal_watchers",
    schedule=[watched("north", {north!r}), watched("south", {south!r})],
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    is_paused_upon_creation=False,
)
"""
ASSETS = ("north", "south")
LIMIT_SECONDS = 60


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "_IDLE_SECONDS", 0.01)
    monkeypatch.setattr(stream, "_FRESH_SECONDS", 0.0)
    monkeypatch.setattr(watching, "HAND_OVER_SECONDS", 0.0)


class ExecutionAPI:
    """What the triggerer's supervisor does with a message: call Airflow's Execution API, in this process."""

    def __init__(self) -> None:
        from airflow.jobs import triggerer_job_runner
        from airflow.sdk.execution_time import supervisor

        own: Any = triggerer_job_runner.TriggerRunnerSupervisor
        with pytest.MonkeyPatch.context() as patch:  # one server for all tests: it takes seconds to start
            patch.setattr(triggerer_job_runner, "in_process_api_server", supervisor.in_process_api_server)
            self._client = own.make_client(None)
        self._handle = own._handle_request

    def send(self, message: Any) -> Any:
        responses: list[Any] = []
        supervisor = SimpleNamespace(client=self._client, send_msg=lambda response, **_: responses.append(response))
        self._handle(supervisor, message, None, 0)
        return responses[0]

    async def asend(self, message: Any) -> Any:
        return await asyncio.to_thread(self.send, message)


def triggers(session: Any) -> list[Any]:
    """Return the triggers of these assets; other tests have left theirs."""
    from airflow.models.trigger import Trigger

    return [trigger for trigger in session.query(Trigger) if {asset.name for asset in trigger.assets} & {*ASSETS}]


@pytest.fixture
def watch(airflow: Any, quickbi: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Parse and store a DAG with two watched assets; return the assets of each trigger that Airflow has made."""
    from airflow.dag_processing.dagbag import sync_bag_to_db
    from airflow.models.asset import AssetEvent, AssetModel, AssetWatcherModel
    from airflow.models.asset_state_store import AssetStateStoreModel
    from airflow.models.trigger import Trigger
    from airflow.sdk.execution_time import task_runner
    from airflow.utils.session import create_session

    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", ExecutionAPI(), raising=False)

    def store(**names: str | None) -> list[set[str]]:
        airflow.parse_source(DAG_FILE.format(**names))
        sync_bag_to_db(airflow.bag(airflow.dags_folder), "dags-folder", None)
        with create_session() as session:
            return [{asset.name for asset in trigger.assets} for trigger in triggers(session)]

    with pytest.MonkeyPatch.context() as patch:
        # Found before the Execution API is called, which in this process would call itself without end.
        patch.setenv("AIRFLOW_CONN_QUICKBI_DEFAULT", quickbi.connection_json(status_calls_per_second=1000))
        yield store
    with create_session() as session:
        made = [trigger.id for trigger in triggers(session)]
        own = [asset.id for asset in session.query(AssetModel).filter(AssetModel.name.in_(ASSETS))]
        for model in (AssetStateStoreModel, AssetEvent, AssetWatcherModel):
            session.query(model).filter(model.asset_id.in_(own)).delete()
        session.query(Trigger).filter(Trigger.id.in_(made)).delete()


@asynccontextmanager
async def triggerer() -> AsyncIterator[None]:
    """Run the stored triggers in Airflow's runner, and hand events to the assets."""
    from airflow.jobs.triggerer_job_runner import TriggerRunner, TriggerRunnerSupervisor
    from airflow.models.trigger import Trigger
    from airflow.utils.session import create_session

    runner = TriggerRunner()
    workload_of: Any = TriggerRunnerSupervisor._create_workload
    with create_session() as session:
        for trigger in triggers(session):
            runner.to_create.append(workload_of(None, trigger, None, None, session))

    async def hand_over() -> None:
        while True:
            while runner.events:
                entry = runner.events.popleft()
                Trigger.submit_event(entry.trigger_id, entry.event)
            await asyncio.sleep(0.01)

    handing_over = asyncio.create_task(hand_over())
    try:
        await runner.create_triggers()
        yield
    finally:
        tasks = [handing_over, *(trigger["task"] for trigger in runner.triggers.values())]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await runner._shared_streams.stop_all()


def events() -> dict[str, list[str]]:
    """Return the TaskIds of each asset's events."""
    from airflow.models.asset import AssetEvent
    from airflow.utils.session import create_session

    found: dict[str, list[str]] = {name: [] for name in ASSETS}
    with create_session() as session:
        for event in session.query(AssetEvent).order_by(AssetEvent.id):
            if event.asset.name in found:
                found[event.asset.name].append(event.extra["payload"]["task_id"])
    return found


def stored(text: str) -> int:
    """Return with how many assets Airflow keeps something that holds a text."""
    from airflow.models.asset_state_store import AssetStateStoreModel
    from airflow.utils.session import create_session

    with create_session() as session:
        return sum(text in str(state.value) for state in session.query(AssetStateStoreModel))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(LIMIT_SECONDS):
        while not condition():
            await asyncio.sleep(0.01)


async def polls(quickbi: Any, times: int = 4) -> None:
    enough = quickbi.count("GetMailTaskStatus") + times
    await until(lambda: quickbi.count("GetMailTaskStatus") >= enough)


def test_with_a_name_each_no_asset_misses_a_delivery_over_a_restart_and_none_gets_one_twice(quickbi, watch):
    quickbi.add_mail_task("Report", mail_id="report")
    assert sorted(watch(north="north", south="south"), key=str) == [{"north"}, {"south"}]

    async def scenario() -> None:
        async with triggerer():
            await polls(quickbi)
            first = quickbi.add_run("report", status="SENT")
            await until(lambda: stored(first) == 2)
        second = quickbi.add_run("report", status="SENT")  # while no triggerer runs
        async with triggerer():
            await until(lambda: stored(second) == 2)
            await polls(quickbi)
        assert events() == {"north": [first, second], "south": [first, second]}

    asyncio.run(scenario())


def test_without_names_airflow_merges_them_and_the_log_says_what_to_do(quickbi, watch, capfd, caplog):
    quickbi.add_mail_task("Report", mail_id="report")
    assert watch(north=None, south=None) == [{"north", "south"}]

    async def scenario() -> None:
        async with triggerer():
            await polls(quickbi)
            sent = quickbi.add_run("report", status="SENT")
            await until(lambda: all(events().values()))
            await polls(quickbi)
        assert (events(), stored(sent)) == ({"north": [sent], "south": [sent]}, 0)

    asyncio.run(scenario())
    said = caplog.text + "".join(capfd.readouterr())
    assert said.count("Give each QuickBIMailTaskEventTrigger a name of its own") == 1
