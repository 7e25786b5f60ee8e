"""Whatever breaks, in whatever order: no sequence of crashes, lost responses and outages starts a second mail."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import AirflowSensorTimeout
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from airflow_provider_quickbi.api.client import QuickBIClient
from airflow_provider_quickbi.api.clock import use
from airflow_provider_quickbi.exceptions import QuickBIStartUnknown, QuickBIUnavailable
from airflow_provider_quickbi.testing import Fault

from .tries import Crash, Store, Task, World

if TYPE_CHECKING:
    from collections.abc import Callable

MAIL = "daily-sales"

#: What becomes of a start; ``None``: it gets its response.
STARTS = {
    "succeeded": None,
    "never arrives": Fault.reset(),
    "carried out, then a reset": Fault.answer_lost("reset"),
    "carried out, then a 503": Fault.answer_lost("unavailable"),
    "carried out, then half a response": Fault.half_json(),
    "no Success": Fault.unsuccessful(),
    "throttled": Fault.throttled(),
    "limited": Fault.error("MailApi.Beyond.ScheduleLimit", "Please Try Again In 3 Minutes."),
    "said to be running": Fault.error("MailTask.Already.Running"),
    "an internal error": Fault.error("Internal.System.Error"),
}
LOOKS = {
    "succeeded": None,
    "a 503": Fault.html_503(),
    "a reset": Fault.reset(),
    "throttled": Fault.throttled(),
    "half a response": Fault.half_json(),
}


@st.composite
def histories(draw: st.DrawFn) -> dict[str, Any]:
    """Everything that happens around one task."""
    return {
        "deferrable": draw(st.booleans()),
        "appears_after": draw(st.sampled_from([0, 20, 150, 280])),
        "duration": draw(st.sampled_from([0, 50, 250])),
        "every": draw(st.sampled_from([None, None, 130, 500])),
        "refuses": draw(st.booleans()),
        "listed": draw(st.sampled_from([1, 3])),
        "starts": draw(st.lists(st.sampled_from(sorted(STARTS)), max_size=4)),
        "poll_count": draw(st.lists(st.sampled_from(sorted(LOOKS)), max_size=25)),
        "crashes": draw(st.sets(st.integers(1, 60), max_size=5)),
        "retry_delay": draw(st.sampled_from([0, 60, 900])),
    }


def in_turn(faults: dict[str, Fault | None], names: list[str]) -> Callable[[Any], Fault | None]:
    """Return what chooses the faults of calls one after the other."""
    left = iter(names)
    return lambda call: faults[next(left, "succeeded")]


def break_down(history: dict[str, Any], quickbi: Any, world: Any, store: Any, patch: Any) -> None:
    """Arrange what a history says."""
    quickbi.add_mail_task("Daily sales", mail_id=MAIL)
    quickbi.add_run(MAIL, exec_time="2026-03-01T09:00:00")
    quickbi.status_list = history["listed"]
    quickbi.set_manual_start(
        MAIL,
        appears_after=history["appears_after"],
        duration=history["duration"],
        refuse_while_running=history["refuses"],
    )
    if history["every"]:
        quickbi.add_schedule(MAIL, every=history["every"], duration=20)
    quickbi.when_called("ManualRunMailTask", in_turn(STARTS, history["starts"]))
    quickbi.when_called("GetMailTaskStatus", in_turn(LOOKS, history["poll_count"]))
    instants = iter(range(1, 1_000_000))

    def live(*_: Any) -> None:
        if (instant := next(instants)) in history["crashes"]:
            raise Crash(f"at instant {instant}")

    patch.setattr(QuickBIClient, "do", between(live, QuickBIClient.do))
    store.before = live
    world.before_sleeping = world.in_triggerer = live


def between(live: Callable[[], None], real: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method before and after which the process may die."""

    def call(*args: Any, **kwargs: Any) -> Any:
        live()
        result = real(*args, **kwargs)
        live()
        return result

    return call


@settings(
    max_examples=50,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(history=histories())
def test_no_history_starts_a_second_mail(history: dict[str, Any], quickbi: Any) -> None:
    quickbi.reset()
    with pytest.MonkeyPatch.context() as patch:
        world = World(quickbi)
        store = Store()
        break_down(history, quickbi, world, store, patch)
        arguments = {"mail_id": MAIL, "poll_interval": 40, "deferrable": history["deferrable"]}
        task = Task(world, arguments, store, retries=9, retry_delay=history["retry_delay"])
        try:
            with use(world.clock()):
                result = task.run()
        except (AirflowSensorTimeout, QuickBIUnavailable, QuickBIStartUnknown, Crash) as error:
            event(f"ends with {type(error).__name__}")
            result = None
    assert quickbi.starts(MAIL) <= 1
    assert all(isinstance(error, (Crash, QuickBIUnavailable, QuickBIStartUnknown)) for error in task.errors[:-1])
    if history["every"] is None:
        assert result is not None, "nothing of this makes a task fail for good"
        assert quickbi.starts(MAIL) == 1
    if result is not None:
        event(f"{len(task.errors)} tries failed")
        run = next(run for run in quickbi.runs(MAIL) if run["task_id"] == result["task_id"])
        assert run["status"] == result["status"] == "SENT"
        assert run["origin"] != "added", "yesterday's run is not this task's"
        assert not task.has_unfinished_record


@settings(max_examples=15, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(history=histories(), kept=st.booleans())
def test_each_clear_sends_one_more_mail(history: dict[str, Any], kept: bool, quickbi: Any) -> None:
    """Without crashes, with and without records."""
    quickbi.reset()
    history = history | {"crashes": set(), "every": None, "starts": [], "poll_count": history["poll_count"][:4]}
    with pytest.MonkeyPatch.context() as patch:
        world = World(quickbi)
        break_down(history, quickbi, world, Store(), patch)
        arguments = {"mail_id": MAIL, "poll_interval": 40, "deferrable": history["deferrable"]}
        task = Task(world, arguments, Store() if kept else None, retries=9)
        for number in (1, 2, 3):
            with use(world.clock()):
                result = task.run()
            assert quickbi.starts(MAIL) == number
            assert result["task_id"] == quickbi.runs(MAIL)[-1]["task_id"]
            task.clear()
