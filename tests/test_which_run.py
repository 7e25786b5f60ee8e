"""Which run a wait is for: windows from due times, and waits against a model that knows the true history."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import combinations_with_replacement, product
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_quickbi._wait.evaluate import evaluate
from airflow_provider_quickbi._wait.selector import RunSelector
from airflow_provider_quickbi._wait.state import Evaluation, OnFailed, Outcome, WaitState
from airflow_provider_quickbi._wait.subject import MailTaskSubject
from airflow_provider_quickbi._wait.window import Cause, DueTime, Window, resolve_auto, select_window
from airflow_provider_quickbi.api.models import MailTaskRun
from airflow_provider_quickbi.api.operations import StatusQuery

M = MailTaskSubject("m")
OUTCOMES = {"SENT": Outcome.SUCCEEDED, "FAILED": Outcome.FAILED}

SHANGHAI = ZoneInfo("Asia/Shanghai")
BERLIN = ZoneInfo("Europe/Berlin")
SKEW = timedelta(seconds=60)
DUE = datetime(2026, 7, 1, 0, 30, tzinfo=UTC)  # half past eight in Shanghai
NEXT_DAY = DUE + timedelta(days=1)


def selected(window: Window, due: DueTime, zone: ZoneInfo = SHANGHAI) -> RunSelector:
    return select_window(window, due, timezone=zone, clock_skew=SKEW, now=DUE)[0]


# From a DAG run to its window


def test_a_day_is_the_calendar_day_in_the_connections_zone_on_which_the_dag_run_was_due():
    selector = selected(Window.DAY, DueTime(Cause.SCHEDULE, DUE, (NEXT_DAY,)))
    assert selector == RunSelector(
        executed_after=datetime(2026, 7, 1, tzinfo=SHANGHAI), executed_before=datetime(2026, 7, 2, tzinfo=SHANGHAI)
    )


def test_the_day_may_be_another_one_than_in_utc():
    late = datetime(2026, 6, 30, 23, 0, tzinfo=UTC)
    selector = selected(Window.DAY, DueTime(Cause.SCHEDULE, late))
    assert selector.executed_after == datetime(2026, 7, 1, tzinfo=SHANGHAI)


@pytest.mark.parametrize(("day", "hours"), [(29, 23), (30, 24)])
def test_a_day_on_which_the_clocks_change_is_a_whole_day(day: int, hours: int):
    due = datetime(2026, 3, day, 12, tzinfo=UTC)
    selector = selected(Window.DAY, DueTime(Cause.SCHEDULE, due), BERLIN)
    assert selector.executed_after is not None
    assert selector.executed_before is not None
    length = selector.executed_before.astimezone(UTC) - selector.executed_after.astimezone(UTC)
    assert length == timedelta(hours=hours)


def test_a_schedule_window_goes_from_when_the_dag_run_was_due_to_when_the_next_one_is():
    hourly = DueTime(Cause.SCHEDULE, DUE, (DUE + timedelta(hours=1), DUE + timedelta(hours=2)))
    assert selected(Window.SCHEDULE, hourly) == RunSelector(
        executed_after=DUE - SKEW, executed_before=DUE + timedelta(hours=1)
    )


def test_a_schedule_window_has_no_end_where_the_schedule_has_none():
    assert selected(Window.SCHEDULE, DueTime(Cause.SCHEDULE, DUE)) == RunSelector(executed_after=DUE - SKEW)


def hours(*after: float) -> tuple[datetime, ...]:
    return tuple(DUE + timedelta(hours=count) for count in after)


@pytest.mark.parametrize(
    ("due", "meant"),
    [
        (DueTime(Cause.SCHEDULE, DUE, hours(1, 2)), Window.SCHEDULE),
        (DueTime(Cause.SCHEDULE, DUE, hours(24, 48)), Window.DAY),
        (DueTime(Cause.SCHEDULE, DUE, hours(23, 47)), Window.DAY),
        (DueTime(Cause.SCHEDULE, DUE, hours(23, 24)), Window.SCHEDULE),
        (DueTime(Cause.SCHEDULE, DUE, hours(168, 336)), Window.DAY),
        (DueTime(Cause.SCHEDULE, DUE), Window.DAY),
        (DueTime(Cause.ASSET, DUE), Window.DAY),
        (DueTime(Cause.ASSET, DUE, hours(1, 2)), Window.DAY),
        (DueTime(Cause.PERSON, DUE, hours(1, 2)), Window.LATEST),
        (DueTime(Cause.UNKNOWN), Window.LATEST),
    ],
    ids=[
        "hourly",
        "daily",
        "clocks go forward",
        "two a day",
        "weekly",
        "once",
        "asset",
        "asset and time",
        "hand",
        "none",
    ],
)
def test_auto_is_right_in_production_in_a_backfill_and_by_hand(due: DueTime, meant: Window):
    assert resolve_auto(due) is meant
    assert selected(Window.AUTO, due) == selected(meant, due)


def test_the_reason_names_the_window_the_due_time_and_the_arguments_that_change_it():
    due = DueTime(Cause.SCHEDULE, DUE, (NEXT_DAY,))
    _, reason = select_window(Window.AUTO, due, timezone=SHANGHAI, clock_skew=SKEW, now=DUE)
    assert 'window="auto" means "day" here: scheduled DAG run due 2026-07-01T08:30:00+08:00' in reason
    assert "executed_after" in reason


# A wait against the true history

START, END = datetime(2026, 7, 1, tzinfo=SHANGHAI), datetime(2026, 7, 2, tzinfo=SHANGHAI)
SELECTORS = {
    "day": selected(Window.DAY, DueTime(Cause.SCHEDULE, DUE, (NEXT_DAY,))),
    "schedule": RunSelector(executed_after=START, executed_before=END),
    "latest": RunSelector(),
    "explicit, no end": RunSelector(executed_after=START),
    "explicit, no start": RunSelector(executed_before=END),
}
POSITIONS = {
    "before": START - timedelta(hours=6),
    "inside": START + timedelta(hours=9),
    "after": END + timedelta(hours=5),
}
BEGINS = {
    "before": START - timedelta(hours=8),
    "during": START + timedelta(hours=10),
    "after": END + timedelta(hours=12),
}
LASTS = timedelta(minutes=40)
ENDS = ("SENT", "FAILED")


@dataclass(frozen=True)
class TrueRun:
    """A run as it really is: when it starts, whether it takes its time, and how it ends."""

    task_id: str
    started: datetime
    slow: bool
    end: str

    def seen(self, now: datetime) -> MailTaskRun:
        over = not self.slow or now >= self.started + LASTS
        return MailTaskRun("m", self.task_id, self.end if over else "PROCESSING", self.started)


class History:
    """What the service shows at a time: the latest run, or the requested one."""

    def __init__(self, runs: list[TrueRun]) -> None:
        self.runs = runs

    def show(self, now: datetime, task_id: str | None) -> list[MailTaskRun]:
        begun = [run for run in self.runs if run.started <= now and task_id in (None, run.task_id)]
        return [begun[-1].seen(now)] if begun else []


def histories() -> list[History]:
    found = []
    for count in range(4):
        for places in combinations_with_replacement(POSITIONS, count):
            for kinds in product(product((False, True), ENDS), repeat=count):
                runs = [
                    TrueRun(str(10 + number), POSITIONS[place] + number * timedelta(hours=1), slow, end)
                    for number, (place, (slow, end)) in enumerate(zip(places, kinds, strict=True))
                ]
                found.append(History(runs))
    return found


HISTORIES = histories()


def wait_through(wait: WaitState, history: History, begin: datetime, every: timedelta) -> Evaluation:
    now = begin
    evaluation = Evaluation(Outcome.WAITING, "")
    while not evaluation.outcome.final:
        query = wait.status_query(now.timestamp())
        assert query is None or isinstance(query, StatusQuery)
        response = None if query is None else history.show(now, query.task_id)
        wait, evaluation = evaluate(wait, response, now.timestamp())
        now += every
    return evaluation


@pytest.mark.parametrize("on_failed", OnFailed)
@pytest.mark.parametrize("begin", BEGINS)
@pytest.mark.parametrize("kind", SELECTORS)
def test_for_every_history_the_outcome_is_what_the_true_history_allows(kind: str, begin: str, on_failed: OnFailed):
    selector, start = SELECTORS[kind], BEGINS[begin]
    last = END + timedelta(days=1)
    assert len(HISTORIES) == 1 + 3 * 4 + 6 * 16 + 10 * 64
    for history in HISTORIES:
        wait = WaitState(
            subject=M,
            selector=selector,
            since=start.timestamp(),
            finish_by=last.timestamp(),
            on_failed=on_failed,
        )
        evaluation = wait_through(wait, history, start, timedelta(minutes=75))
        inside = [run for run in history.runs if selector.matches(run.seen(last))]
        past = [run for run in history.runs if selector.is_past(run.seen(last))]
        about = (history.runs, evaluation)
        assert evaluation.outcome is not Outcome.WRONG_TIMEZONE, about
        if evaluation.outcome is Outcome.SUCCEEDED:
            assert evaluation.run is not None, about
            assert any(run.task_id == evaluation.run.run_id and run.end == "SENT" for run in inside), about
        if evaluation.outcome is Outcome.FAILED:
            assert on_failed is OnFailed.FAIL, about
            assert any(run.end == "FAILED" for run in inside), about
        if evaluation.outcome is Outcome.MISSED:
            assert past, about
        if evaluation.outcome is Outcome.WINDOW_OVER:
            assert selector.executed_before is not None, about
            assert not past or past[0].started > selector.executed_before + SKEW, about
        # A run inside that is the latest when the wait starts must not be lost.
        visible = history.show(max(start, selector.executed_after or start), None)
        if on_failed is OnFailed.FAIL and visible and selector.matches(visible[0]):
            expected = next(run.end for run in history.runs if run.task_id == visible[0].task_id)
            assert evaluation.outcome is OUTCOMES[expected], about


def test_a_backfill_of_past_days_does_not_turn_green_on_todays_run():
    now = datetime(2026, 7, 4, 9, tzinfo=SHANGHAI)
    today = MailTaskRun("m", "99", "SENT", now - timedelta(minutes=30))
    outcomes = []
    for day in (1, 2, 3, 4):
        due = DueTime(Cause.SCHEDULE, datetime(2026, 7, day, 0, 30, tzinfo=UTC), ())
        selector = selected(Window.AUTO, due)
        wait = WaitState(subject=M, selector=selector, since=now.timestamp(), finish_by=now.timestamp() + 3600)
        outcomes.append(evaluate(wait, [today], now.timestamp())[1].outcome)
    assert outcomes == [Outcome.MISSED, Outcome.MISSED, Outcome.MISSED, Outcome.SUCCEEDED]


def test_a_missed_run_says_the_window_the_latest_run_and_what_helps():
    now = END + timedelta(hours=6)
    wait = WaitState(subject=M, selector=SELECTORS["day"], since=now.timestamp(), window_reason='window="day": x')
    late = MailTaskRun("m", "99", "SENT", END + timedelta(hours=5))
    message = evaluate(wait, [late], now.timestamp())[1].message
    for part in (START.isoformat(), END.isoformat(), "99", "only the latest run", 'window="latest"', "quickbi_task_id"):
        assert part in message


def test_a_pinned_run_is_monitored_past_the_end_of_the_window():
    now = END.timestamp() - 60
    wait = WaitState(subject=M, selector=SELECTORS["day"], since=now, finish_by=now + 86400)
    active = MailTaskRun("m", "10", "PROCESSING", END - timedelta(minutes=5))
    wait, evaluation = evaluate(wait, [active], now)
    wait, evaluation = evaluate(wait, [active], now + 7200)
    assert evaluation.outcome is Outcome.WAITING
    assert wait.status_query(now + 7200) == StatusQuery("m", "10")
    sent = MailTaskRun("m", "10", "SENT", active.exec_time)
    assert evaluate(wait, [sent], now + 7300)[1].outcome is Outcome.SUCCEEDED


def test_a_window_that_ends_without_a_run_ends_the_wait_at_once_and_not_on_an_outage():
    after = END.timestamp() + 60
    wait = WaitState(subject=M, selector=SELECTORS["day"], since=END.timestamp() - 600, finish_by=after + 86400)
    assert wait.gives_up_at == after
    assert evaluate(wait, [], after - 1)[1].outcome is Outcome.WAITING
    assert evaluate(wait, None, after + 1)[1].outcome is Outcome.WAITING
    assert evaluate(wait, [], after)[1].outcome is Outcome.WINDOW_OVER


# Runs in the future


def test_a_run_seven_hours_in_the_future_is_a_wrong_timezone_and_the_zone_that_fits_is_named():
    now = datetime(2026, 7, 1, 1, 0, tzinfo=UTC)
    run = MailTaskRun("m", "10", "SENT", datetime(2026, 7, 1, 8, 0, tzinfo=UTC))
    evaluation = evaluate(WaitState(subject=M, selector=RunSelector(), since=0.0), [run], now.timestamp())[1]
    assert evaluation.outcome is Outcome.WRONG_TIMEZONE
    for part in ("7.0 h in the future", "timezone (UTC+00:00)", "Set timezone to Asia/Shanghai"):
        assert part in evaluation.message


@pytest.mark.parametrize(("seconds", "outcome"), [(120, Outcome.SUCCEEDED), (121, Outcome.WRONG_TIMEZONE)])
def test_clocks_may_differ_by_clock_skew_and_a_minute(seconds: int, outcome: Outcome):
    now = DUE.timestamp()
    run = MailTaskRun("m", "10", "SENT", DUE + timedelta(seconds=seconds))
    assert evaluate(WaitState(subject=M, selector=RunSelector(), since=now), [run], now)[1].outcome is outcome


def test_a_new_run_dated_hours_before_its_start_is_this_tasks_run_in_another_zone():
    now = DUE.timestamp()
    selector = RunSelector(other_than=("9",), executed_after=DUE - SKEW)
    wait = WaitState(subject=M, selector=selector, since=now, until_seen=True, start_requested_at=now)
    new = MailTaskRun("m", "10", "SENT", DUE - timedelta(hours=8, seconds=-5))
    evaluation = evaluate(wait, [new], now + 10)[1]
    assert evaluation.outcome is Outcome.WRONG_TIMEZONE
    assert "timezone" in evaluation.message
    known = MailTaskRun("m", "9", "SENT", DUE - timedelta(hours=8))
    assert evaluate(wait, [known], now + 10)[1].outcome is Outcome.WAITING
    odd = MailTaskRun("m", "10", "SENT", DUE - timedelta(hours=8, minutes=13))
    assert evaluate(wait, [odd], now + 10)[1].outcome is Outcome.WAITING


# Whatever the history and whenever the poll

instants = st.integers(-72, 72).map(lambda quarter: START + timedelta(minutes=15 * quarter))


@st.composite
def any_history(draw: st.DrawFn) -> History:
    times = sorted(draw(st.lists(instants, max_size=4)))
    return History(
        [
            TrueRun(str(10 + number), at + timedelta(seconds=number), draw(st.booleans()), draw(st.sampled_from(ENDS)))
            for number, at in enumerate(times)
        ]
    )


@given(
    history=any_history(),
    begin=instants,
    every=st.integers(5, 240),
    kind=st.sampled_from(sorted(SELECTORS)),
    on_failed=st.sampled_from(OnFailed),
    zone_error=st.sampled_from((0, 0, 7, 8)),
)
@settings(max_examples=150, deadline=None)
def test_no_success_outside_the_window_none_in_the_future_and_a_missed_run_is_never_green(
    history: History, begin: datetime, every: int, kind: str, on_failed: OnFailed, zone_error: int
):
    selector = SELECTORS[kind]
    wait: Any = WaitState(
        subject=M,
        selector=selector,
        since=begin.timestamp(),
        on_failed=on_failed,
        finish_by=(END + timedelta(days=1)).timestamp(),
    )
    now = begin
    for _ in range(2000):
        query = wait.status_query(now.timestamp())
        response = None
        if query is not None:
            shown = history.show(now, query.task_id)
            response = [
                MailTaskRun(run.mail_id, run.task_id, run.status, run.exec_time + timedelta(hours=zone_error))
                for run in shown
            ]
        wait, evaluation = evaluate(wait, response, now.timestamp())
        if evaluation.outcome.final:
            break
        now += timedelta(minutes=every)
    assert evaluation.outcome.final
    if evaluation.outcome is Outcome.SUCCEEDED:
        assert evaluation.run is not None
        assert selector.matches(evaluation.run)
        assert evaluation.run.started_at <= now + 2 * SKEW
    if evaluation.outcome is Outcome.MISSED:
        assert evaluation.run is not None
        assert selector.is_past(evaluation.run)
