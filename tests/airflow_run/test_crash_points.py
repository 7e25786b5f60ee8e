"""A worker or a triggerer dies at every point of a try: the mail goes out once, and its run is the one found."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_quickbi._send import attempt, monitor
from airflow_provider_quickbi.api.client import QuickBIClient
from tests.datasets import both

from .tries import Case, Crash, deferred, held, recorded

pytestmark = both

#: Where a worker dies: what is called then, the how manieth time, whether it is done first, and whether only an Airflow
#: that keeps start records comes by.
WORKER_DIES: dict[str, tuple[tuple[Any, str, int], dict[str, bool], bool]] = {
    "before anything": ((QuickBIClient, "GetMailTaskStatus", 1), {}, False),
    "after the poll, before recording": ((QuickBIClient, "GetMailTaskStatus", 1), {"after": True}, False),
    "while recording": (("store", "set", 1), {}, True),
    "after recording": (("store", "set", 1), {"after": True}, True),
    "before the call": ((QuickBIClient, "ManualRunMailTask", 1), {}, False),
    "after the call": ((QuickBIClient, "ManualRunMailTask", 1), {"after": True}, False),
    "while recording that it was accepted": (("store", "set", 2), {}, True),
    "after recording that it was accepted": (("store", "set", 2), {"after": True}, True),
    "before polling for the run": ((QuickBIClient, "GetMailTaskStatus", 2), {}, False),
    "after seeing the run": ((QuickBIClient, "GetMailTaskStatus", 2), {"after": True}, False),
    "while recording the run": (("store", "set", 3), {}, True),
    "after recording the run": (("store", "set", 3), {"after": True}, True),
    "while counting the end": ((attempt, "count_outcome", 1), {}, False),
    "while recording the end": (("store", "set", 4), {}, True),
    "after recording the end": (("store", "set", 4), {"after": True}, True),
}
#: Seconds that the run takes: it is finished at the retry, or not.
DURATIONS = {"a short run": 5, "a long run": 240}
CASES = [
    pytest.param(point, kept, id=f"{point}-{'recorded' if kept else 'unrecorded'}")
    for point, (_, _, needs_store) in WORKER_DIES.items()
    for kept in ([True] if needs_store else [True, False])
]


@pytest.mark.parametrize("duration", DURATIONS.values(), ids=DURATIONS)
@pytest.mark.parametrize(("point", "keeps_records"), CASES)
def test_a_worker_may_die_anywhere_and_the_retry_sends_no_second_mail(point: str, duration: float, case: Case) -> None:
    case.start_with(duration=duration)
    (owner, method, nth), how, _ = WORKER_DIES[point]
    case.die_at(case.store if owner == "store" else owner, method, nth, **how)
    task = case.task()
    result = task.run()
    assert [type(error) for error in task.errors] == [Crash]
    assert case.starts() == 1
    assert result == case.newest()
    assert result["status"] == case.succeeded
    assert not task.has_unfinished_record


@held
@pytest.mark.parametrize("nth", [1, 3])
def test_a_worker_that_dies_while_it_waits_attaches_to_the_same_run(nth: int, case: Case) -> None:
    case.die_at(case.world, "advance", nth)
    task = case.task()
    result = task.run()
    assert [type(error) for error in task.errors] == [Crash]
    assert (case.starts(), result) == (1, case.newest())


@deferred
@pytest.mark.parametrize("nth", [1, 2, 4])
@pytest.mark.parametrize("appears_after", [0, 100])
def test_a_triggerer_may_be_restarted_while_it_waits(nth: int, appears_after: float, case: Case) -> None:
    case.start_with(appears_after=appears_after)
    sleeps = iter(range(1, 10_000))

    def die_once() -> None:
        if next(sleeps) == nth:
            raise Crash("in the triggerer")

    case.world.in_triggerer = die_once
    task = case.task()
    result = task.run()
    assert (task.restarts, task.errors) == (1, [])
    assert (case.starts(), result) == (1, case.newest())


@deferred
def test_a_worker_that_dies_when_the_trigger_has_its_event_attaches_to_the_run(case: Case) -> None:
    task = case.task()

    def die() -> None:
        task.before_resuming = lambda: None
        raise Crash("before resuming")

    task.before_resuming = die
    result = task.run()
    assert [type(error) for error in task.errors] == [Crash]
    assert (case.starts(), result) == (1, case.newest())
    assert not task.has_unfinished_record


@deferred
@recorded
def test_a_deferral_that_is_resumed_twice_starts_one_mail(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scheduler that takes a task for an orphan may run the same resumption again."""
    case.quickbi.limit_manual_starts(case.mail_id, calls=1, announced_minutes=3)
    case.start_with(appears_after=45)
    task = case.task()
    resumed: list[Any] = []
    make = task.operator

    def operator() -> Any:
        made = make()
        resume = made.execute_complete

        def resume_twice(context: Any, event: Any = None) -> Any:
            if not resumed:
                resumed.append(event)
                case.die_at(QuickBIClient, "ManualRunMailTask", after=True)
                with pytest.raises(Crash):
                    resume(context, event=event)
            return resume(context, event=event)

        object.__setattr__(made, "execute_complete", resume_twice)
        return made

    monkeypatch.setattr(task, "operator", operator)
    result = task.run()
    assert resumed
    assert (case.starts(), result) == (1, case.newest())
    assert not task.has_unfinished_record


@recorded
def test_a_retry_attaches_again_to_another_run_after_a_crash(case: Case) -> None:
    other = case.quickbi.add_run(case.mail_id, status="PROCESSING")
    case.world.after(110, lambda: case.quickbi.finish_run(other, "SENT"))
    task = case.task(on_running="attach")
    case.die_at(task, "wait_in_the_triggerer") if case.deferrable else case.die_at(monitor, "wait_until_finished")
    task.retry_delay = 300
    result = task.run()
    assert [type(error) for error in task.errors] == [Crash]
    assert (case.starts(), case.run_id(result)) == (0, other)


@recorded
def test_an_accepted_start_stays_accepted_for_a_retry(case: Case) -> None:
    from airflow.providers.common.compat.sdk import AirflowSensorTimeout

    case.start_with(appears_after=1e9)
    case.die_at(QuickBIClient, "GetMailTaskStatus", 2)
    task = case.task()
    with pytest.raises(AirflowSensorTimeout):
        task.run()
    assert len(task.errors) == 2
    assert case.starts() == 1
