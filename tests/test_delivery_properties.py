"""Whatever Quick BI answers in whatever order: nothing counts that does not satisfy the fence, and nothing breaks."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_quickbi.api.errors import (
    AlreadyRunningError,
    ErrorKind,
    NotStartedError,
    PermanentError,
    ThrottledError,
    TransientError,
)
from airflow_provider_quickbi.api.models import MailTaskRun
from airflow_provider_quickbi.delivery import Delivery, Fence, OnFailed, Outcome, Verdict, Wait, describe, judge

BEGIN = datetime(2026, 7, 1, tzinfo=UTC)
NOW = BEGIN.timestamp()
MAILS = ("m-1", "m-2")
STATUSES = ("SENT", "FAILED", "PROCESSING", "QUEUED")
ZONES = (UTC, timezone(timedelta(hours=8)), timezone(timedelta(hours=-5, minutes=-30)))

zones = st.sampled_from(ZONES)
minutes = st.integers(-30, 30)


@st.composite
def runs(draw: st.DrawFn) -> MailTaskRun:
    """A run. Its TaskId stands for its mail task and the time at which it began, as with the service."""
    number = draw(st.integers(0, 9))
    exec_time = (BEGIN + timedelta(minutes=(number * 7) % 13 - 6, seconds=number % 3)).astimezone(draw(zones))
    return MailTaskRun(MAILS[number % 2], str(number), draw(st.sampled_from(STATUSES)), exec_time)


errors = st.sampled_from(
    [
        ThrottledError("slow", action="A", kind=ErrorKind.THROTTLED, code="Throttling", retry_after=3.0),
        TransientError("broke", action="A", kind=ErrorKind.TRANSIENT),
        TransientError("refused", action="A", kind=ErrorKind.TRANSIENT, reached=False),
        NotStartedError("later", action="A", kind=ErrorKind.NOT_STARTED),
        AlreadyRunningError("busy", action="A", kind=ErrorKind.CONFLICT),
        PermanentError("no", action="A", kind=ErrorKind.DENIED, code="Forbidden.RAM"),
        PermanentError("new", kind=ErrorKind.UNKNOWN),
        TransientError("of no kind"),
    ]
)
answers = st.lists(runs(), max_size=3) | errors | st.none()
fences = st.builds(
    Fence,
    task_id=st.none() | st.integers(0, 9).map(str),
    executed_after=st.none()
    | st.builds(lambda late, zone: (BEGIN + timedelta(minutes=late)).astimezone(zone), minutes, zones),
    other_than=st.lists(st.integers(0, 9).map(str), max_size=3, unique=True).map(tuple),
)
limits = st.none() | st.integers(0, 5000).map(float)


@st.composite
def waits(draw: st.DrawFn, mail_id: str | None = None) -> Wait:
    """A wait of which nothing is known yet."""
    finish = draw(limits)
    return Wait(
        mail_id=mail_id or draw(st.sampled_from(MAILS)),
        fence=draw(fences),
        since=NOW + draw(st.integers(-1000, 1000)),
        on_failed=draw(st.sampled_from(OnFailed)),
        start_timeout=draw(limits),
        finish_by=None if finish is None else NOW + finish,
        unreachable_timeout=draw(st.integers(0, 3000).map(float)),
        until_seen=draw(st.booleans()),
    )


courses = st.lists(st.tuples(answers, st.integers(0, 600)), min_size=1, max_size=8)


def followed(wait: Wait, course: list[tuple[Any, int]]) -> list[tuple[Wait, Verdict, Any, float]]:
    """Judge answers until the wait is over; return what was known after each."""
    now, after = NOW, []
    for answer, pause in course:
        now += pause
        wait, verdict = judge(wait, answer, now)
        after.append((wait, verdict, answer, now))
        if verdict.outcome.final:
            break
    return after


@given(wait=waits(), course=courses)
@settings(max_examples=100, deadline=None)
def test_a_run_that_does_not_satisfy_the_fence_is_never_accepted(wait: Wait, course: list[tuple[Any, int]]):
    for after, verdict, _, _ in followed(wait, course):
        for run in (after.run, verdict.run):
            if run is not None:
                assert wait.fence.admits(run)
                assert run.mail_id == wait.mail_id


@given(wait=waits(), course=courses)
@settings(max_examples=100, deadline=None)
def test_nothing_but_a_sent_run_that_satisfies_the_fence_gives_sent(wait: Wait, course: list[tuple[Any, int]]):
    for _, verdict, answer, _ in followed(wait, course):
        if verdict.outcome is Outcome.SENT:
            assert verdict.run in answer
            assert verdict.run is not None
            assert verdict.run.status == "SENT"
            assert verdict.run.mail_id == wait.mail_id
            assert wait.fence.admits(verdict.run)
        if verdict.outcome is Outcome.FAILED:
            assert wait.on_failed is OnFailed.FAIL or wait.fence.task_id is not None
            assert verdict.run in answer
            assert verdict.run is not None
            assert verdict.run.status == "FAILED"


@given(wait=waits(), course=courses)
@settings(max_examples=100, deadline=None)
def test_once_seen_only_that_run_decides_unless_a_failed_one_is_waited_out(wait: Wait, course: list[tuple[Any, int]]):
    pinned: MailTaskRun | None = None
    for after, verdict, answer, _ in followed(wait, course):
        decided = verdict.run or after.run
        if pinned is not None and decided is not None and decided.task_id != pinned.task_id:
            raise AssertionError(f"{decided} after {pinned}")
        pinned = after.run
        if (
            pinned is None
            and isinstance(answer, list)
            and wait.on_failed is OnFailed.FAIL
            and not verdict.outcome.final
        ):
            assert after.fence == wait.fence


@given(wait=waits(), course=courses)
@settings(max_examples=100, deadline=None)
def test_an_end_for_want_of_an_answer_or_of_time_has_its_reason(wait: Wait, course: list[tuple[Any, int]]):
    for after, verdict, answer, now in followed(wait, course):
        if verdict.outcome is Outcome.REFUSED:
            assert isinstance(answer, PermanentError)
        if verdict.outcome is Outcome.UNAVAILABLE:
            assert after.error is not None
            silent = isinstance(after.error, TransientError) and after.unreachable_since is not None
            assert (silent and now - after.unreachable_since >= wait.unreachable_timeout) or (
                wait.finish_by is not None and now >= wait.finish_by
            )
        if verdict.outcome is Outcome.TIMED_OUT:
            assert after.error is None
            assert wait.finish_by is not None
            assert now >= wait.finish_by
        if verdict.outcome is Outcome.NOT_STARTED:
            assert wait.start_timeout is not None
            assert after.run is None
            assert now >= max(wait.since, NOW) + wait.start_timeout or now - wait.since >= wait.start_timeout
        if verdict.outcome is Outcome.SEEN:
            assert wait.until_seen


@given(wait=waits(), course=courses)
@settings(max_examples=100, deadline=None)
def test_what_is_kept_goes_on_as_if_it_had_never_been_kept(wait: Wait, course: list[tuple[Any, int]]):
    kept = wait
    now = NOW
    for answer, pause in course:
        now += pause
        wait, verdict = judge(wait, answer, now)
        kept, kept_verdict = judge(Wait.from_dict(json.loads(json.dumps(kept.as_dict()))), answer, now)
        assert kept.as_dict() == wait.as_dict()
        assert kept_verdict.as_dict() == verdict.as_dict()
        assert Verdict.from_dict(json.loads(json.dumps(verdict.as_dict()))).as_dict() == verdict.as_dict()
        assert kept.question(now) == wait.question(now)
        assert kept.gives_up_at == wait.gives_up_at


@given(wait=waits(), course=courses)
@settings(max_examples=100, deadline=None)
def test_a_wait_says_something_and_ends_by_itself_when_it_says_it_will(wait: Wait, course: list[tuple[Any, int]]):
    for after, verdict, _, now in followed(wait, course):
        assert verdict.message.startswith(f"Mail task {wait.mail_id}: ")
        assert describe(after, now)
        if not verdict.outcome.final and after.gives_up_at is not None:
            assert judge(after, None, max(now, after.gives_up_at))[1].outcome.final


@given(
    data=st.data(),
    required=st.integers(1, 2),
    course=st.lists(st.tuples(st.integers(0, 1), answers, st.integers(0, 600)), max_size=8),
    late_at=limits,
)
@settings(max_examples=100, deadline=None)
def test_a_delivery_is_sent_only_if_enough_mails_are(
    data: st.DataObject, required: int, course: list[tuple[int, Any, int]], late_at: float | None
):
    starts = [data.draw(waits(mail_id)) for mail_id in MAILS]
    starts = [Wait.from_dict({**wait.as_dict(), "until_seen": False}) for wait in starts]
    delivery, now = Delivery.of(starts, required=required, late_at=late_at), NOW
    for position, answer, pause in course:
        now += pause
        if position in delivery.unsettled():
            delivery = delivery.judged(position, answer, now)
        copy = Delivery.from_dict(json.loads(json.dumps(delivery.as_dict())))
        assert copy.as_dict() == delivery.as_dict()
        assert copy.verdict.as_dict() == delivery.verdict.as_dict()
        assert copy.results() == delivery.results()
    sent = [
        (start, verdict.run)
        for start, verdict in zip(starts, delivery.verdicts, strict=True)
        if verdict.outcome is Outcome.SENT
    ]
    for start, run in sent:
        assert run is not None
        assert run.status == "SENT"
        assert start.fence.admits(run)
    assert (delivery.verdict.outcome is Outcome.SENT) is (len(sent) >= required)
    lost = sum(verdict.outcome.final for verdict in delivery.verdicts) - len(sent)
    assert delivery.verdict.outcome.final is (len(sent) >= required or len(MAILS) - lost < required)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(
    item=anything
    | st.fixed_dictionaries(
        {}, optional={"waits": anything, "verdicts": anything, "required": anything, "late_at": anything}
    )
    | st.fixed_dictionaries(
        {
            "waits": st.just([Wait(mail_id="m", fence=Fence(), since=NOW).as_dict()]),
            "verdicts": st.lists(
                st.fixed_dictionaries(
                    {"outcome": st.sampled_from([*Outcome, "sent!", None]), "message": anything},
                    optional={"run": anything, "error": anything},
                ),
                max_size=2,
            ),
            "required": st.integers(-1, 2) | st.floats(),
        }
    )
)
@settings(max_examples=100, deadline=None)
def test_whatever_an_event_holds_it_is_a_delivery_or_a_value_error(item: Any):
    try:
        delivery = Delivery.from_dict(item)
    except ValueError:
        return
    assert len(delivery.waits) == len(delivery.verdicts) >= delivery.required >= 1
