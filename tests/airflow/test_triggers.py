"""How a trigger waits: what it is made of, several at once, limits, clocks, restarts, and what it stores."""

from __future__ import annotations

import asyncio
import json
import time
from types import SimpleNamespace

import pytest

from airflow_provider_quickbi._wait import aio, trigger_memory
from airflow_provider_quickbi._wait.deferral import BACKSTOP_SECONDS
from airflow_provider_quickbi._wait.selector import RunSelector
from airflow_provider_quickbi.api.clock import Clock, use
from airflow_provider_quickbi.testing import Fault
from tests.xcoms import XComs, task_instance

from .dags import AIRFLOW
from .triggering import _event, _events, _restarted

# What it is made of


def test_a_trigger_survives_being_stored(trigger, airflow):
    waiting = trigger(
        "a", "b", late_at=5.0, execute_by=7.5, required=1, start_timeout=3.0, selector=RunSelector(run_id="1")
    )

    assert _restarted(waiting).serialize() == waiting.serialize()
    assert json.loads(json.dumps(waiting.serialize()[1])) == waiting.serialize()[1]


def test_a_trigger_holds_nothing_of_the_connection_but_its_id(trigger, quickbi, report):
    waiting = trigger("report", finish_by=time.time() + 0.3)
    (event,) = _events(waiting)

    for text in (json.dumps(waiting.serialize()), json.dumps(event), repr(waiting)):
        for secret in (quickbi.access_key_secret, quickbi.access_key_id, str(quickbi.port)):
            assert secret not in text
    assert waiting.serialize()[1]["quickbi_conn_id"] == "quickbi_default"


def test_arguments_of_the_first_release_are_understood(quickbi, report):
    """Waits in flight survive an upgrade: these are literal on purpose."""
    from airflow_provider_quickbi.triggers.quickbi import QuickBIMailTaskTrigger

    waiting = QuickBIMailTaskTrigger(
        version=1,
        quickbi_conn_id="quickbi_default",
        group={
            "waits": [{"subject": {"kind": "mail-task", "id": "report"}, "since": 1.0, "finish_by": 4102444800.0}],
            "evaluations": [{"outcome": "waiting", "message": ""}],
            "required": 1,
        },
        poke_interval=0.05,
    )
    quickbi.finish_run(report)

    assert _events(waiting)[0]["kind"] == "finished"


# How it waits


def test_many_waits_for_one_mail_task_share_polls(trigger, quickbi, report, at_poll, poll_count):
    at_poll("report", 5, lambda: quickbi.finish_run(report))

    events = _events(*[trigger("report", poke_interval=0.2) for _ in range(30)])

    assert {event["kind"] for event in events} == {"finished"}
    assert all(event["group"]["evaluations"][0]["run"]["task_id"] == report for event in events)
    assert len(poll_count("report")) < 60
    assert quickbi.connections_opened < 10


def test_a_wait_is_not_answered_with_a_response_from_before_it_started(trigger, quickbi, report, poll_count):
    """Another wait has polled the same mail task, and then a report was sent for which this wait was started."""

    async def run():
        earlier = asyncio.ensure_future(_event(trigger("report", poke_interval=60)))
        await _until(lambda: poll_count("report"))
        await asyncio.sleep(0.1)
        quickbi.finish_run(report)
        sent = quickbi.add_run("report", status="SENT")
        async with asyncio.timeout(60):
            event = await _event(trigger("report", poke_interval=60))
        earlier.cancel()
        await asyncio.gather(earlier, return_exceptions=True)
        return sent, event["group"]["evaluations"][0]["run"]["task_id"]

    sent, found = asyncio.run(run())
    assert found == sent


def test_waits_for_several_mail_tasks_do_not_wait_for_each_other(trigger, quickbi, at_poll):
    for number in range(5):
        quickbi.add_mail_task(str(number), mail_id=str(number))
        task_id = quickbi.add_run(str(number), status="PROCESSING")
        at_poll(str(number), number + 1, lambda task_id=task_id: quickbi.finish_run(task_id))
    quickbi.add_mail_task("slow", mail_id="slow")
    quickbi.add_run("slow", status="PROCESSING")

    *events, slow = _events(
        *[trigger(str(number)) for number in range(5)], trigger("slow", finish_by=time.time() + 1.5)
    )

    assert [event["group"]["evaluations"][0]["outcome"] for event in events] == ["succeeded"] * 5
    assert slow["group"]["evaluations"][0]["outcome"] == "timed_out"


def test_one_trigger_waits_for_several_mail_tasks(trigger, quickbi, at_poll):
    for mail_id in ("a", "b", "c"):
        quickbi.add_mail_task(mail_id, mail_id=mail_id)
        quickbi.add_run(mail_id, status="PROCESSING")
    at_poll("b", 3, lambda: quickbi.finish_run(quickbi.runs("b")[0]["task_id"]))
    at_poll("c", 5, lambda: quickbi.finish_run(quickbi.runs("c")[0]["task_id"]))

    (event,) = _events(trigger("a", "b", "c", required=2))

    assert event["kind"] == "finished"
    ends = [evaluation["outcome"] for evaluation in event["group"]["evaluations"]]
    assert ends == ["waiting", "succeeded", "succeeded"]


def test_a_trigger_that_is_moved_goes_on_where_it_was(trigger, quickbi, report, at_poll, poll_count):
    """A triggerer that is stopped cancels its triggers; another one makes them anew."""
    waiting = trigger("report")

    async def stopped():
        task = asyncio.create_task(_event(waiting))
        async with asyncio.timeout(120):
            while len(poll_count("report")) < 3:
                await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(stopped())
    moved = _restarted(waiting)
    assert moved.serialize() == waiting.serialize()
    assert moved.wait.group.waits[0].run.task_id == report

    later = quickbi.add_run("report", status="SENT")
    quickbi.finish_run(report, "FAILED")
    (event,) = _events(moved)

    assert event["group"]["evaluations"][0]["outcome"] == "failed"
    assert event["group"]["evaluations"][0]["run"]["task_id"] == report != later


def test_a_trigger_that_is_moved_before_it_learnt_anything_reaches_the_same_end(trigger, quickbi, report):
    stored = _restarted(trigger("report"))
    quickbi.finish_run(report)

    assert [event["group"]["evaluations"][0]["outcome"] for event in _events(stored, _restarted(stored))] == [
        "succeeded"
    ] * 2


def test_a_deadline_and_execution_timeout_are_events_of_their_own(trigger, quickbi, report):
    soon = time.time() + 0.3

    late, out_of_time = _events(
        trigger("report", poke_interval=100, late_at=soon), trigger("report", poke_interval=100, execute_by=soon)
    )

    assert late["kind"] == "late"
    assert out_of_time["kind"] == "execution_timeout"
    assert out_of_time["carry"] == {"execute_by": soon}


@pytest.mark.parametrize("limit", ["late_at", "finish_by", "start_timeout", "unreachable_timeout"])
def test_there_is_a_new_poll_before_a_limit_counts(limit, trigger, quickbi, at_poll, poll_count, monkeypatch):
    """The next look would be long after it, and what the one before said is old."""

    monkeypatch.setattr(aio, "MAX_SPREAD_SECONDS", 0.0)
    quickbi.add_mail_task("report", mail_id="report")
    if limit == "unreachable_timeout":
        monkeypatch.setattr(aio, "MAX_SPREAD_SECONDS", 50.0)
        monkeypatch.setattr("random.uniform", lambda low, high: low)
        quickbi.fail("GetMailTaskStatus", Fault.reset())
    at_poll("report", 2, lambda: quickbi.add_run("report"))
    limits = {"late_at": time.time() + 2, "finish_by": time.time() + 2, "start_timeout": 2, "unreachable_timeout": 2}

    (event,) = _events(trigger("report", poke_interval=100, **{limit: limits[limit]}))

    assert event["kind"] == "finished"
    assert event["group"]["evaluations"][0]["outcome"] == "succeeded"
    assert len(poll_count("report")) == 2


def test_a_timeout_is_none_for_those_that_could_not_poll_once_more(trigger, quickbi, monkeypatch):
    """Many reports go out just before a timeout that all share, and not all waits get a call slot for it."""

    monkeypatch.setenv("AIRFLOW_CONN_QUICKBI_DEFAULT", quickbi.connection_json(status_calls_per_second=20))
    monkeypatch.setattr(aio, "LAST_POLL_SECONDS", 1.0)
    monkeypatch.setattr(aio, "LATE_POLL_SECONDS", 1.0)
    for number in range(60):
        quickbi.add_mail_task(str(number), mail_id=str(number))
        quickbi.add_run(str(number), status="SENT")

    waits = [trigger(str(number), finish_by=time.time(), poke_interval=300) for number in range(60)]
    ends = [event["group"]["evaluations"][0] for event in _events(*waits)]

    assert {end["outcome"] for end in ends} == {"succeeded", "unavailable"}
    (notified,) = {end["message"].partition(": ")[2] for end in ends if end["outcome"] == "unavailable"}
    assert notified.startswith("timed out after ")
    assert "no call slot within 1 s" in notified


def test_the_last_poll_ends_before_airflow_gives_the_deferral_up():
    assert BACKSTOP_SECONDS > aio.LAST_POLL_SECONDS + aio.LATE_POLL_SECONDS + aio.FIRST_POLL_SECONDS


def test_a_poll_that_fails_at_the_timeout_is_not_the_last_one(trigger, quickbi, report, at_poll):
    """It was in progress when the timeout ended, with one attempt only."""
    finish_by = time.time() + 1.0
    quickbi.fail("GetMailTaskStatus", Fault.reset(), times=1)
    at_poll("report", 1, lambda: time.sleep(max(0.0, finish_by + 0.2 - time.time())))
    at_poll("report", 2, lambda: quickbi.finish_run(report))

    (event,) = _events(trigger("report", finish_by=finish_by))

    assert event["group"]["evaluations"][0]["outcome"] == "succeeded"


@pytest.mark.parametrize("due", ["sent", "late_at", "execute_by", "finish_by", "connection", "pause"])
def test_no_event_comes_before_airflow_has_noticed_the_deferral(due, trigger, quickbi, report, monkeypatch):
    from airflow_provider_quickbi.triggers import quickbi as triggers

    monkeypatch.setattr(aio, "FIRST_POLL_SECONDS", 1.0)
    monkeypatch.setattr(aio, "MAX_SPREAD_SECONDS", 0.0)
    now = time.time()
    if due == "sent":
        quickbi.finish_run(report)
        waiting = trigger("report")
    elif due == "pause":
        waiting = triggers.QuickBIPauseTrigger(until=now)
    elif due == "connection":
        monkeypatch.setenv("AIRFLOW_CONN_QUICKBI_DEFAULT", json.dumps({"conn_type": "quickbi", "host": "http://["}))
        waiting = trigger("report")
    else:
        waiting = trigger("report", **{due: now})

    begun = time.monotonic()
    _events(waiting)

    assert time.monotonic() - begun >= 1.0


@pytest.fixture
def change_clock(quickbi, monkeypatch):
    """Move the wall clock by some seconds, and that by which Quick BI takes requests for too old."""
    ahead = 0.0
    monkeypatch.setattr(aio, "CLOCK_SECONDS", 0.05)

    def change(seconds):
        nonlocal ahead
        ahead += seconds
        quickbi.clock.skew = ahead

    with use(Clock(time=lambda: time.time() + ahead)):
        yield change


def test_a_clock_that_is_set_back_delays_no_poll(trigger, quickbi, report, at_poll, change_clock):
    at_poll("report", 2, lambda: change_clock(-100))
    at_poll("report", 5, lambda: quickbi.finish_run(report))

    (event,) = _events(trigger("report"), limit=60)

    assert event["group"]["evaluations"][0]["outcome"] == "succeeded"


@pytest.mark.parametrize("due", ["finish_by", "late_at", "execute_by", "pause"])
def test_a_clock_that_is_set_forward_is_noticed_soon(due, trigger, quickbi, report, change_clock, monkeypatch):
    from airflow_provider_quickbi.triggers import quickbi as triggers

    monkeypatch.setattr(aio, "MAX_SPREAD_SECONDS", 3600.0)
    monkeypatch.setattr("random.uniform", lambda low, high: high)
    later = time.time() + 3600

    async def main():
        waiting = (
            triggers.QuickBIPauseTrigger(until=later)
            if due == "pause"
            else trigger("report", poke_interval=3600, **{"finish_by": later + 3600, due: later})
        )
        asyncio.get_running_loop().call_later(0.5, change_clock, 3700)
        async with asyncio.timeout(60):
            return await _event(waiting)

    kinds = {"finish_by": "finished", "late_at": "late", "execute_by": "execution_timeout", "pause": "resume"}
    assert asyncio.run(main())["kind"] == kinds[due]


@pytest.fixture
def xcoms(monkeypatch):
    return XComs(monkeypatch)


async def _until(condition):
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


def _killed(trigger, condition):
    """Run a trigger until something is so, kill the triggerer, and return the trigger that the next one makes."""
    stored = trigger.serialize()[1]

    async def run():
        running = asyncio.ensure_future(_event(trigger))
        await _until(condition)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(run())
    recreated = _restarted(type(trigger)(**stored))
    recreated.task_instance = trigger.task_instance
    return recreated


def test_a_run_that_is_first_seen_in_the_triggerer_is_kept(trigger, quickbi, report, xcoms):
    """It fails while the triggerer is restarted, and somebody sends the report anew."""
    waiting = trigger("report")
    waiting.task_instance = task_instance("r")

    recreated = _killed(waiting, lambda: xcoms.of("r"))
    quickbi.finish_run(report, "FAILED")
    quickbi.add_run("report", status="SENT")
    (event,) = _events(recreated)

    assert event["kind"] == "finished"
    assert event["group"]["evaluations"][0]["outcome"] == "failed"
    assert event["group"]["evaluations"][0]["run"]["task_id"] == report


def test_a_wait_stores_the_run_that_it_is_pinned_to_once(trigger, quickbi, report, xcoms, at_poll, poll_count):
    at_poll("report", 4, lambda: quickbi.finish_run(report))
    waiting = trigger("report")
    waiting.task_instance = task_instance("r")

    (event,) = _events(waiting)

    assert event["kind"] == "finished"
    assert len(poll_count("report")) == 4
    assert xcoms.count == 1


def test_somebody_is_notified_once_of_a_report_that_was_seen_before_it_became_late(
    trigger, quickbi, report, xcoms, at_poll, poll_count
):
    waiting = trigger("report", late_at=time.time() + 1)
    waiting.task_instance = task_instance("r")
    (late,) = _events(waiting)
    assert late["kind"] == "late"
    assert xcoms.count == 1

    arguments = waiting.serialize()[1]
    notified = type(waiting)(**arguments | {"group": late["group"] | {"late_at": None}})
    notified.task_instance = waiting.task_instance
    at_poll("report", len(poll_count("report")) + 3, lambda: quickbi.finish_run(report))
    (event,) = _events(notified)

    assert event["kind"] == "finished"


def test_a_wait_for_a_given_run_stores_nothing(trigger, quickbi, report, xcoms, at_poll):
    at_poll("report", 4, lambda: quickbi.finish_run(report))
    waiting = trigger("report", selector=RunSelector(run_id=report))
    waiting.task_instance = task_instance("r")

    (event,) = _events(waiting)

    assert event["kind"] == "finished"
    assert xcoms.count == 0


def test_a_run_that_could_not_be_stored_is_stored_after_the_next_poll(
    trigger, quickbi, report, xcoms, monkeypatch, at_poll
):
    at_poll("report", 6, lambda: quickbi.finish_run(report))
    tries = []

    async def fail_twice(ti, key, value):
        tries.append(key)
        if len(tries) < 3:
            raise RuntimeError("the API server is away")
        await xcoms._set(ti, key, value)

    monkeypatch.setattr(trigger_memory, "_set", fail_twice)
    waiting = trigger("report")
    waiting.task_instance = task_instance("r")

    (event,) = _events(waiting)

    assert event["kind"] == "finished"
    assert len(tries) == 3
    assert xcoms.of("r")["evaluations"][0]["run"]["task_id"] == report


def test_what_is_learnt_of_several_mail_tasks_is_stored_together(trigger, quickbi, xcoms, monkeypatch):
    monkeypatch.setattr(aio, "STORE_SECONDS", 1.5)
    runs = {}
    for mail_id in ("a", "b", "c"):
        quickbi.add_mail_task(mail_id, mail_id=mail_id)
        runs[mail_id] = quickbi.add_run(mail_id, status="SENT" if mail_id == "c" else "PROCESSING")
    waiting = trigger("a", "b", "c", poke_interval=0.5)
    waiting.task_instance = task_instance("r")

    _killed(waiting, lambda: xcoms.of("r"))

    evaluations = xcoms.of("r")["evaluations"]
    assert [evaluation["run"]["task_id"] for evaluation in evaluations] == list(runs.values())
    assert [evaluation["outcome"] for evaluation in evaluations] == ["waiting", "waiting", "succeeded"]


@pytest.mark.skipif(AIRFLOW >= (3,), reason="later versions store XComs through the supervisor")
def test_airflow_2_stores_what_is_learnt_in_its_database(trigger, airflow, quickbi, report):
    from airflow.models import TaskInstance
    from airflow.utils.session import create_session

    with create_session() as session:
        row = session.query(TaskInstance).first()
        assert row is not None
        ti = SimpleNamespace(dag_id=row.dag_id, run_id=row.run_id, task_id=row.task_id, map_index=row.map_index)
    group = trigger("report").wait.group

    async def store_and_recall():
        assert await trigger_memory.recall(ti) is None
        assert await trigger_memory.remember(ti, group)
        return await trigger_memory.recall(ti)

    assert asyncio.run(store_and_recall()) == group


def test_each_of_several_mail_tasks_is_polled_before_somebody_is_notified(trigger, quickbi):
    for mail_id in ("a", "b", "c"):
        quickbi.add_mail_task(mail_id, mail_id=mail_id)
        quickbi.add_run(mail_id)

    (event,) = _events(trigger("a", "b", "c", poke_interval=100, late_at=time.time() - 60))

    assert event["kind"] == "finished"
    assert [evaluation["outcome"] for evaluation in event["group"]["evaluations"]] == ["succeeded"] * 3


def test_a_secret_that_is_changed_while_waiting_is_taken(
    airflow, quickbi, report, sensor, at_poll, monkeypatch, run_of
):
    """First the connection gets the new secret, then the old one is switched off."""

    def change_connection():
        new = quickbi.connection(status_calls_per_second=1000) | {"password": "the-new-secret"}
        monkeypatch.setenv("AIRFLOW_CONN_QUICKBI_DEFAULT", json.dumps(new))

    at_poll("report", 2, change_connection)
    at_poll("report", 3, lambda: quickbi.change_account(quickbi.access_key_id, access_key_secret="the-new-secret"))
    at_poll("report", 6, lambda: quickbi.finish_run(report))

    ran = airflow.run(lambda: sensor("report"))

    assert ran.states == {"report": "success"}
    assert ran.xcoms() == {"report": run_of("report")}
    assert "the-new-secret" not in ran.log


def test_a_trigger_takes_the_right_secret_after_a_wrong_one(trigger, quickbi, report, at_poll, monkeypatch):
    right = quickbi.connection_json(status_calls_per_second=1000)
    wrong = quickbi.connection(status_calls_per_second=1000) | {"password": "a-wrong-secret"}
    monkeypatch.setenv("AIRFLOW_CONN_QUICKBI_DEFAULT", json.dumps(wrong))
    at_poll("report", 1, lambda: monkeypatch.setenv("AIRFLOW_CONN_QUICKBI_DEFAULT", right))
    quickbi.finish_run(report)

    (event,) = _events(trigger("report"))

    assert event["group"]["evaluations"][0]["outcome"] == "succeeded"
    assert quickbi.count(code="SignatureDoesNotMatch") == 1


def test_a_trigger_gives_a_wrong_secret_up(trigger, quickbi, report, monkeypatch):
    wrong = quickbi.connection(status_calls_per_second=1000) | {"password": "a-wrong-secret"}
    monkeypatch.setenv("AIRFLOW_CONN_QUICKBI_DEFAULT", json.dumps(wrong))

    (event,) = _events(trigger("report"))

    assert event["group"]["evaluations"][0]["outcome"] == "refused"
    assert quickbi.count() == 1
    assert "a-wrong-secret" not in json.dumps(event)
