"""DAGs scheduled by a delivery: the event trigger against the local Quick BI."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
from contextlib import aclosing
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_quickbi._wait.subject import MailTaskSubject
from airflow_provider_quickbi._watch import stream as streams
from airflow_provider_quickbi._watch.tracker import RunTracker
from airflow_provider_quickbi.api.retry import RetryPolicy
from airflow_provider_quickbi.testing import Fault, LocalQuickBI
from airflow_provider_quickbi.triggers import quickbi as triggers
from airflow_provider_quickbi.triggers import watching
from airflow_provider_quickbi.triggers.quickbi import QuickBIMailTaskEventTrigger

if TYPE_CHECKING:
    from collections.abc import Callable

LIMIT_SECONDS = 20


class KeptWithTheAsset:
    """What Airflow 3.3 keeps for a watcher; its place is taken because it needs a triggerer's supervisor."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.refused: dict[str, int] = {}

    async def aget(self, key: str) -> Any:
        self._refuse("aget")
        return json.loads(self.values.get(key, "null"))

    async def aset(self, key: str, value: Any) -> None:
        self._refuse("aset")
        self.values[key] = json.dumps(value)

    def refuse(self, what: str, times: int) -> None:
        """Let the next calls fail, as those of an API server that is away."""
        self.refused[what] = times

    def _refuse(self, what: str) -> None:
        if self.refused.get(what, 0) > 0:
            self.refused[what] -= 1
            raise RuntimeError("API server: 503")

    def holds(self, text: object) -> bool:
        """Whether something that was kept holds a text."""
        return str(text) in "".join(self.values.values())


@pytest.fixture
def connection(quickbi: LocalQuickBI, monkeypatch: pytest.MonkeyPatch) -> LocalQuickBI:
    monkeypatch.setenv("AIRFLOW_CONN_QUICKBI_DEFAULT", quickbi.connection_json(status_calls_per_second=500))
    monkeypatch.setattr(streams, "_IDLE_SECONDS", 0.01)
    monkeypatch.setattr(streams, "_FRESH_SECONDS", 0.0)
    monkeypatch.setattr(watching, "HAND_OVER_SECONDS", 0.0)
    monkeypatch.setattr(watching, "_STORING", RetryPolicy(attempts=2, first_delay=0.001))
    quickbi.add_mail_task("Daily sales", mail_id="m", owner="Wang Fang")
    return quickbi


def watcher(**arguments: Any) -> QuickBIMailTaskEventTrigger:
    classpath, kwargs = QuickBIMailTaskEventTrigger(**{"mail_id": "m", "poll_interval": 0.01, **arguments}).serialize()
    assert classpath.rpartition(".")[2] == "QuickBIMailTaskEventTrigger"
    return QuickBIMailTaskEventTrigger(**json.loads(json.dumps(kwargs)))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(LIMIT_SECONDS):
        while not condition():
            await asyncio.sleep(0.005)


class Watching:
    """A watcher that runs in a task, as in the triggerer."""

    def __init__(self, trigger: Any, store: KeptWithTheAsset | None = None) -> None:
        self.payloads: list[dict[str, Any]] = []
        trigger.asset_state_store = store
        self._trigger = trigger

    async def __aenter__(self) -> Watching:
        self._task = asyncio.create_task(self._collect())
        return self

    async def _collect(self) -> None:
        async with aclosing(self._trigger.run()) as events:
            async for event in events:
                self.payloads.append(event.payload)

    async def __aexit__(self, *exc_info: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


def poll_count(quickbi: LocalQuickBI) -> int:
    return quickbi.count("GetMailTaskStatus")


async def poll_again(quickbi: LocalQuickBI, times: int = 3) -> None:
    seen = poll_count(quickbi)
    await until(lambda: poll_count(quickbi) >= seen + times)


def test_a_run_fires_once_when_it_is_sent(connection: LocalQuickBI) -> None:
    async def scenario() -> None:
        connection.add_run("m", status="SENT")  # Before the watcher started: not emitted.
        async with Watching(watcher()) as watching:
            await poll_again(connection)
            task_id = connection.add_run("m", status="PROCESSING")
            await poll_again(connection)
            assert watching.payloads == []
            connection.finish_run(task_id, "SENT")
            await until(lambda: bool(watching.payloads))
            await poll_again(connection, 5)
        (payload,) = watching.payloads
        assert payload["task_id"] == str(task_id)
        assert {"mail_id": "m", "status": "SENT"}.items() <= payload.items()
        assert set(payload) == {"mail_id", "task_id", "status", "exec_time"}

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "fault", [Fault.reset(), Fault.html_503(), Fault.throttled(), Fault.unsuccessful(), Fault.half_json()], ids=repr
)
def test_a_failed_poll_does_not_stop_the_watcher(connection: LocalQuickBI, fault: Fault) -> None:
    async def scenario() -> None:
        async with Watching(watcher()) as watching:
            await poll_again(connection)
            connection.fail("GetMailTaskStatus", fault, times=3)
            await poll_again(connection, 4)
            connection.add_run("m", status="SENT")
            await until(lambda: bool(watching.payloads))

    asyncio.run(scenario())


def test_a_permanent_refusal_does_not_stop_the_watcher_either(connection: LocalQuickBI) -> None:
    async def scenario() -> None:
        connection.deny("Mail.Forbidden.Access", action="GetMailTaskStatus")
        async with Watching(watcher()) as watching:
            await poll_again(connection)
            connection.allow("GetMailTaskStatus")
            await poll_again(connection)
            connection.add_run("m", status="SENT")
            await until(lambda: bool(watching.payloads))

    asyncio.run(scenario())


def test_after_a_restart_no_run_fires_again_and_one_that_ended_meanwhile_is_not_missed(
    connection: LocalQuickBI,
) -> None:
    async def scenario() -> None:
        store = KeptWithTheAsset()
        async with Watching(watcher(), store) as before:
            await poll_again(connection)
            connection.add_run("m", status="SENT")
            await until(lambda: bool(before.payloads))
            await poll_again(connection)
        missed = connection.add_run("m", status="SENT")
        async with Watching(watcher(), store) as after:
            await until(lambda: bool(after.payloads))
            await poll_again(connection, 5)
        assert [payload["task_id"] for payload in after.payloads] == [str(missed)]

    asyncio.run(scenario())


def test_the_first_run_ever_is_not_missed_if_it_ended_during_a_restart(connection: LocalQuickBI) -> None:
    async def scenario() -> None:
        store = KeptWithTheAsset()
        async with Watching(watcher(), store) as before:
            await until(lambda: bool(store.values))
        first = connection.add_run("m", status="SENT")
        async with Watching(watcher(), store) as after:
            await until(lambda: bool(after.payloads))
        assert (before.payloads, [payload["task_id"] for payload in after.payloads]) == ([], [str(first)])

    asyncio.run(scenario())


def test_a_store_that_fails_ends_no_watcher_and_what_was_seen_is_kept_later(
    connection: LocalQuickBI, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    async def scenario() -> None:
        store = KeptWithTheAsset()
        async with Watching(watcher(), store) as before:
            await until(lambda: bool(store.values))
            store.refuse("aset", times=5)
            sent = connection.add_run("m", status="SENT")
            await until(lambda: store.holds(sent))
            later = connection.add_run("m", status="SENT")
            await until(lambda: store.holds(later))
        assert [payload["task_id"] for payload in before.payloads] == [str(sent), str(later)]
        async with Watching(watcher(), store) as after:
            await poll_again(connection)
        assert after.payloads == []

    asyncio.run(scenario())
    assert (
        "Mail task m: cannot store watcher state (RuntimeError)".lower()
        in (caplog.text + "".join(capfd.readouterr())).lower()
    )


def test_what_was_seen_is_read_again_until_it_can_be(connection: LocalQuickBI) -> None:
    async def scenario() -> None:
        store = KeptWithTheAsset()
        async with Watching(watcher(), store):
            await until(lambda: bool(store.values))
        missed = connection.add_run("m", status="SENT")
        store.refuse("aget", times=4)
        async with Watching(watcher(), store) as after:
            await until(lambda: bool(after.payloads))
        assert [payload["task_id"] for payload in after.payloads] == [str(missed)]

    asyncio.run(scenario())


def test_a_run_is_notified_again_rather_than_lost_if_the_triggerer_ends_before_airflow_has_the_event(
    connection: LocalQuickBI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "HAND_OVER_SECONDS", 3600.0)

    async def scenario() -> None:
        store = KeptWithTheAsset()
        async with Watching(watcher(), store) as before:
            await until(lambda: bool(store.values))
            sent = connection.add_run("m", status="SENT")
            await until(lambda: bool(before.payloads))
        async with Watching(watcher(), store) as after:
            await until(lambda: bool(after.payloads))
        assert [payload["task_id"] for payload in before.payloads + after.payloads] == [str(sent)] * 2

    asyncio.run(scenario())


def test_a_name_is_looked_up_and_comes_with_the_event(connection: LocalQuickBI) -> None:
    async def scenario() -> None:
        async with Watching(watcher(mail_id=None, subscribe_name="Daily sales")) as watching:
            await until(lambda: poll_count(connection) > 2)
            connection.add_run("m", status="SENT")
            await until(lambda: bool(watching.payloads))
        assert watching.payloads[0]["subscribe_name"] == "Daily sales"

    asyncio.run(scenario())


@pytest.mark.parametrize("at_first", [None, '{"conn_type": "quickbi"}'], ids=["missing", "wrong"])
@pytest.mark.filterwarnings("ignore")  # the loader of Airflow 3.0 to 3.2 warns about itself
def test_a_connection_that_is_missing_or_wrong_is_read_again(
    connection: LocalQuickBI, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, at_first: str | None
) -> None:
    good = connection.connection_json(status_calls_per_second=500)
    caplog.set_level("INFO")
    if at_first is None:
        monkeypatch.delenv("AIRFLOW_CONN_QUICKBI_DEFAULT")
    else:
        monkeypatch.setenv("AIRFLOW_CONN_QUICKBI_DEFAULT", at_first)
    monkeypatch.setattr(streams, "_RECONNECT_SECONDS", 0.02)

    async def scenario() -> None:
        async with Watching(watcher()) as watching:
            await until(lambda: "Reading it again in" in caplog.text)
            monkeypatch.setenv("AIRFLOW_CONN_QUICKBI_DEFAULT", good)
            await poll_again(connection)
            connection.add_run("m", status="SENT")
            await until(lambda: bool(watching.payloads))

    asyncio.run(scenario())


def test_all_watchers_of_a_connection_share_one_poll_loop(connection: LocalQuickBI) -> None:
    shared_stream = pytest.importorskip("airflow.triggers.shared_stream", reason="shared streams came with Airflow 3.3")
    connection.add_mail_task("Stock", mail_id="n")

    async def scenario() -> None:
        manager = shared_stream.SharedStreamManager()
        triggers = {1: watcher(), 2: watcher(), 3: watcher(mail_id="n")}
        assert len({trigger.shared_stream_key() for trigger in triggers.values()}) == 1
        notified: dict[int, list[str]] = {number: [] for number in triggers}

        async def follow(number: int, trigger: Any) -> None:
            stream = manager.subscribe(trigger_id=number, trigger=trigger, key=trigger.shared_stream_key())
            async with aclosing(trigger.filter_shared_stream(stream)) as events:
                async for event in events:
                    notified[number].append(event.payload["task_id"])

        tasks = [asyncio.create_task(follow(number, trigger)) for number, trigger in triggers.items()]
        await poll_again(connection, 12)
        first, second = connection.add_run("m", status="SENT"), connection.add_run("n", status="SENT")
        await until(lambda: all(notified.values()))
        for number, trigger in triggers.items():
            await manager.unsubscribe(number, trigger.shared_stream_key())
        await manager.stop_all()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert notified == {1: [str(first)], 2: [str(first)], 3: [str(second)]}
        assert connection.connections_opened <= 2

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mail_id": None}, "(needs|takes) either mail_id or subscribe_name"),
        ({"subscribe_name": "Daily sales"}, "(needs|takes) either mail_id or subscribe_name"),
        ({"mail_id": " "}, "mail_id is empty"),
        ({"statuses": []}, "statuses must name at least one"),
        ({"poll_interval": -1}, "poll_interval must be"),
        ({"mail_owner": "Wang Fang"}, "mail_owner applies only to subscribe_name"),
        ({"mail_id": "{{ var.value.mail }}"}, "mail_id does not support templates"),
        ({"mail_id": None, "subscribe_name": "{% if x %}"}, "subscribe_name does not support templates"),
        ({"quickbi_conn_id": "{{ var.value.conn }}"}, "quickbi_conn_id does not support templates"),
        ({"statuses": "{{ var.value.status }}"}, "statuses does not support templates"),
        ({"statuses": "SEND"}, "statuses contains 'SEND'.* mail task.*write FAILED or SENT"),
        ({"statuses": ["SENT", "failure"]}, "statuses contains 'FAILURE'"),
    ],
)
def test_wrong_arguments_are_refused_when_the_dag_is_parsed(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        QuickBIMailTaskEventTrigger(**{"mail_id": "m", **arguments})


def test_what_is_refused_in_a_dag_file_but_was_stored_before_is_read() -> None:
    stored = watcher().serialize()[1]
    kept = {"mail_owner": "o", "mail_id": "{{ x }}", "quickbi_conn_id": "{{ x }}", "statuses": ["SEND"]}
    assert QuickBIMailTaskEventTrigger(**{**stored, **kept}).serialize()[1] == {**stored, **kept}


def test_an_interval_of_zero_polls_as_often_as_quick_bi_allows_and_none_is_the_default() -> None:
    def interval(given: Any) -> float:
        return QuickBIMailTaskEventTrigger(mail_id="m", poll_interval=given).serialize()[1]["poll_interval"]

    assert [interval(given) for given in (0, timedelta(minutes=2), None)] == [0, 120, 60]


def test_an_undocumented_status_is_an_event_if_it_comes_and_the_log_says_so(
    connection: LocalQuickBI, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    async def scenario() -> None:
        async with Watching(watcher(statuses="DONE")) as watching:
            await poll_again(connection)
            connection.add_run("m", status="DONE")
            await until(lambda: bool(watching.payloads))

    asyncio.run(scenario())
    assert "undocumented in statuses: DONE" in caplog.text + "".join(capfd.readouterr())


def test_a_response_that_would_be_shared_is_not_requested_again_at_once(
    connection: LocalQuickBI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "_FRESH_SECONDS", 0.5)
    given: list[Any] = []

    async def scenario() -> None:
        registry = streams.WatcherRegistry()
        tracker = RunTracker(MailTaskSubject("m"), frozenset({"SENT"}))
        registry.enter(tracker, MailTaskSubject("m"), 0.0, tracker)
        async with aclosing(streams.responses("quickbi_default", registry)) as found:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.3):
                    while True:
                        given.append(await anext(found))

    asyncio.run(scenario())
    assert len(given) == 1


def test_equal_arguments_are_the_same_trigger_and_hold_no_secret(connection: LocalQuickBI) -> None:
    assert watcher().serialize() == watcher().serialize()
    assert connection.access_key_secret not in repr(watcher().serialize())


@pytest.mark.parametrize(
    "trigger",
    [
        functools.partial(triggers.QuickBIMailTaskEventTrigger, mail_id="m"),
        functools.partial(triggers.QuickBIDatasetRefreshEventTrigger, dataset_id="m"),
    ],
    ids=["mail task", "dataset"],
)
def test_equal_watchers_of_two_assets_are_kept_apart_by_a_name(trigger: Callable[..., Any]) -> None:
    base = pytest.importorskip("airflow.triggers.base")
    if not hasattr(base, "BaseEventTrigger"):
        pytest.skip("Airflow 2 has no watchers")

    def identity(**arguments: Any) -> int:
        return base.BaseEventTrigger.hash(*trigger(**arguments).serialize())

    assert identity() == identity()
    assert len({identity(), identity(name="north"), identity(name="south")}) == 3


def test_a_run_dated_in_the_future_emits_no_event_and_names_the_time_zone(
    connection: LocalQuickBI,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level("INFO")
    wrong = connection.connection_json(status_calls_per_second=500, timezone="UTC")
    monkeypatch.setenv("AIRFLOW_CONN_QUICKBI_DEFAULT", wrong)

    def logged() -> str:
        return caplog.text + "".join(capfd.readouterr())

    async def scenario() -> list[Any]:
        async with Watching(watcher()) as watching:
            await poll_again(connection)
            connection.add_run("m", status="SENT")
            await poll_again(connection)
            await poll_again(connection)
            return list(watching.payloads)

    assert asyncio.run(scenario()) == []
    assert "in the future" in logged()
