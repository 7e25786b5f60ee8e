"""A worker or a triggerer dies at every point of a try: the mail goes out once, and its run is the one found."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSensorTimeout

from airflow_provider_quickbi._send import attempt
from airflow_provider_quickbi.api.client import QuickBIClient
from airflow_provider_quickbi.testing import Fault

if TYPE_CHECKING:
    from collections.abc import Callable

#: Where a worker dies: what is called then, the how manieth time, whether it is done first, and whether only an Airflow
#: that keeps notes comes by.
WORKER_DIES = {
    "before anything": ((QuickBIClient, "GetMailTaskStatus", 1), {}, False),
    "after the look, before the note": ((QuickBIClient, "GetMailTaskStatus", 1), {"after": True}, False),
    "while noting": (("store", "set", 1), {}, True),
    "after the note": (("store", "set", 1), {"after": True}, True),
    "before the call": ((QuickBIClient, "ManualRunMailTask", 1), {}, False),
    "after the call": ((QuickBIClient, "ManualRunMailTask", 1), {"after": True}, False),
    "while noting that it was accepted": (("store", "set", 2), {}, True),
    "after noting that it was accepted": (("store", "set", 2), {"after": True}, True),
    "before looking for the run": ((QuickBIClient, "GetMailTaskStatus", 2), {}, False),
    "after seeing the run": ((QuickBIClient, "GetMailTaskStatus", 2), {"after": True}, False),
    "while noting the run": (("store", "set", 3), {}, True),
    "after noting the run": (("store", "set", 3), {"after": True}, True),
    "while counting the end": ((attempt, "count_outcome", 1), {}, False),
    "while noting the end": (("store", "set", 4), {}, True),
    "after noting the end": (("store", "set", 4), {"after": True}, True),
}
#: Seconds that the run takes: it is over at the retry, or not.
DURATIONS = {"a short run": 5, "a long run": 240}
CASES = [
    pytest.param(point, kept, id=f"{point}-{'noted' if kept else 'unnoted'}")
    for point, (_, _, needs_store) in WORKER_DIES.items()
    for kept in ([True] if needs_store else [True, False])
]


@pytest.mark.parametrize("duration", DURATIONS.values(), ids=DURATIONS)
@pytest.mark.parametrize(("point", "kept"), CASES)
def test_a_worker_may_die_anywhere_and_the_retry_sends_no_second_mail(
    point: str,
    kept: bool,
    duration: float,
    deferrable: bool,
    make_task: Any,
    new_store: Any,
    die_at: Any,
    quickbi: Any,
    mail_id: str,
    starts: Callable[[], int],
    newest: Callable[[], Any],
    crash: Any,
) -> None:
    quickbi.set_manual_start(mail_id, duration=duration)
    store = new_store() if kept else None
    (owner, method, nth), how, _ = WORKER_DIES[point]
    die_at(store if owner == "store" else owner, method, nth, **how)
    task = make_task(store=store, deferrable=deferrable)
    result = task.run()
    assert [type(error) for error in task.errors] == [crash]
    assert starts() == 1
    assert result == newest()
    assert result["status"] == "SENT"
    assert not task.noted


@pytest.mark.parametrize("wait_for_completion", [True, False])
def test_an_end_that_is_not_recorded_is_come_to_again(
    wait_for_completion: bool, make_task: Any, store: Any, deferrable: bool, starts: Any, newest: Any, crash: Any
) -> None:
    """The worker is killed, or a hook of the author's fails, when the operator has returned its result."""
    task = make_task(store=store, deferrable=deferrable, wait_for_completion=wait_for_completion)

    def die() -> None:
        task.before_recording = lambda: None
        raise crash("before Airflow has recorded the end")

    task.before_recording = die
    result = task.run()
    assert [type(error) for error in task.errors] == [crash]
    assert starts() == 1
    assert (result["task_id"], result["status"]) == (newest()["task_id"], newest()["status"])
    task.clear()
    assert task.run()["task_id"] != result["task_id"]
    assert starts() == 2


@pytest.mark.parametrize("end", ["failed", "timeout", "none appeared"])
def test_a_failure_that_is_not_recorded_is_come_to_again(
    end: str, make_task: Any, new_store: Any, deferrable: bool, quickbi: Any, mail_id: str, starts: Any, crash: Any
) -> None:
    shapes: dict[str, dict[str, Any]] = {
        "failed": {"outcome": "FAILED"},
        "timeout": {"duration": math.inf},
        "none appeared": {"appears_after": 10**6},
    }
    quickbi.set_manual_start(mail_id, **shapes[end])
    task = make_task(store=new_store(), deferrable=deferrable, timeout=600)

    def die() -> None:
        task.before_recording = lambda: None
        raise crash("before Airflow has recorded the end")

    task.before_recording = die
    with pytest.raises((AirflowFailException, AirflowSensorTimeout)):
        task.run()
    assert [type(error) for error in task.errors][:1] == [crash]
    assert len(task.errors) == 2
    assert starts() == 1


@pytest.mark.parametrize("nth", [1, 3])
def test_a_worker_that_dies_while_it_waits_joins_the_same_run(
    nth: int, store: Any, make_task: Any, die_at: Any, world: Any, starts: Any, newest: Any, crash: Any
) -> None:
    die_at(world, "advance", nth)
    task = make_task(store=store, deferrable=False)
    result = task.run()
    assert [type(error) for error in task.errors] == [crash]
    assert (starts(), result) == (1, newest())


@pytest.mark.parametrize("nth", [1, 2, 4])
@pytest.mark.parametrize("appears_after", [0, 100])
def test_a_triggerer_may_be_restarted_while_it_waits(
    nth: int,
    appears_after: float,
    store: Any,
    make_task: Any,
    world: Any,
    quickbi: Any,
    mail_id: str,
    newest: Any,
    starts: Any,
    crash: Any,
) -> None:
    quickbi.set_manual_start(mail_id, appears_after=appears_after)
    sleeps = iter(range(1, 10_000))

    def die_once() -> None:
        if next(sleeps) == nth:
            raise crash("in the triggerer")

    world.in_triggerer = die_once
    task = make_task(store=store, deferrable=True)
    result = task.run()
    assert (task.restarts, task.errors) == (1, [])
    assert (starts(), result) == (1, newest())


def test_a_worker_that_dies_when_the_trigger_has_its_event_joins_the_run(
    store: Any, make_task: Any, starts: Any, newest: Any, crash: Any
) -> None:
    task = make_task(store=store, deferrable=True)

    def die() -> None:
        task.before_resuming = lambda: None
        raise crash("before resuming")

    task.before_resuming = die
    result = task.run()
    assert [type(error) for error in task.errors] == [crash]
    assert (starts(), result) == (1, newest())
    assert not task.noted


def test_a_deferral_that_is_resumed_twice_starts_one_mail(
    make_task: Any, new_store: Any, die_at: Any, quickbi: Any, mail_id: str, starts: Any, newest: Any, crash: Any
) -> None:
    """A scheduler that takes a task for an orphan may run the same resumption again."""
    quickbi.limit_manual_starts(mail_id, calls=1, announced_minutes=3)
    quickbi.set_manual_start(mail_id, appears_after=45)
    task = make_task(store=new_store(), deferrable=True)
    resumed: list[Any] = []
    make = task.operator

    def operator() -> Any:
        made = make()
        resume = made.execute_complete

        def resume_twice(context: Any, event: Any = None) -> Any:
            if not resumed:
                resumed.append(event)
                die_at(QuickBIClient, "ManualRunMailTask", after=True)
                with pytest.raises(crash):
                    resume(context, event=event)
            return resume(context, event=event)

        object.__setattr__(made, "execute_complete", resume_twice)
        return made

    task.operator = operator
    result = task.run()
    assert resumed
    assert (starts(), result) == (1, newest())
    assert not task.noted


LOST = {
    "reset": Fault.answer_lost("reset"),
    "hang": Fault.answer_lost("hang"),
    "503": Fault.answer_lost("unavailable"),
    "half of the body": Fault.half_body(),
    "half of the JSON": Fault.half_json(),
    "wrong types": Fault.wrong_types(),
    "no Success": Fault.custom(200, {"RequestId": "1", "Result": True}, processed=True),
    "Success without Result": Fault.custom(200, {"RequestId": "1", "Success": True}, processed=True),
    "an internal error": Fault.custom(400, {"RequestId": "1", "Code": "Internal.System.Error"}, processed=True),
}


@pytest.mark.parametrize(
    ("fault", "appears_after"),
    [pytest.param(fault, 0, id=name) for name, fault in LOST.items()]
    + [pytest.param(LOST["reset"], 200, id="reset, and the run appears late")],
)
def test_a_lost_answer_is_resolved_by_looking_and_nothing_is_sent_again(
    fault: Fault, appears_after: float, task: Any, quickbi: Any, mail_id: str, starts: Any, newest: Any, log: Any
) -> None:
    quickbi.set_manual_start(mail_id, appears_after=appears_after)
    quickbi.fail("ManualRunMailTask", fault)
    result = task.run()
    assert task.errors == []
    assert (starts(), result) == (1, newest())
    assert quickbi.count("ManualRunMailTask") == 1
    assert "Mail task daily-sales: it is not known whether it was started" in log.text
    assert not task.noted


@pytest.mark.parametrize(("how", "appears_after"), [("reset", 0), ("hang", 0), ("unavailable", 200)])
def test_a_worker_that_dies_after_a_lost_answer_joins_the_run(
    how: Any,
    appears_after: float,
    task: Any,
    die_at: Any,
    quickbi: Any,
    mail_id: str,
    starts: Any,
    newest: Any,
    crash: Any,
) -> None:
    quickbi.set_manual_start(mail_id, appears_after=appears_after)
    quickbi.fail("ManualRunMailTask", Fault.answer_lost(how))
    die_at(QuickBIClient, "GetMailTaskStatus", 2)
    result = task.run()
    assert [type(error) for error in task.errors] == [crash]
    assert (starts(), result) == (1, newest())
