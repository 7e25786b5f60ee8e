"""Whatever Quick BI responds in whatever order: nothing counts that does not match the selector, and nothing breaks."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_quickbi._wait.codec import (
    decode_evaluation,
    decode_group,
    decode_wait,
    encode_evaluation,
    encode_group,
    encode_wait,
)
from airflow_provider_quickbi._wait.evaluate import evaluate, evaluate_group
from airflow_provider_quickbi._wait.messages import describe
from airflow_provider_quickbi._wait.selector import RunSelector
from airflow_provider_quickbi._wait.state import Evaluation, OnFailed, Outcome, WaitGroup, WaitState
from airflow_provider_quickbi._wait.subject import DatasetSubject, MailTaskSubject, Subject
from airflow_provider_quickbi.api.datasets import DatasetRefreshJob
from airflow_provider_quickbi.api.errors import (
    AlreadyRunningError,
    ErrorKind,
    NotStartedError,
    PermanentError,
    ThrottledError,
    TransientError,
)
from airflow_provider_quickbi.api.models import MailTaskRun, Run

BEGIN = datetime(2026, 7, 1, tzinfo=UTC)
NOW = BEGIN.timestamp()
IDS = ("m-1", "m-2")
KINDS: tuple[type[Subject], ...] = (MailTaskSubject, DatasetSubject)
#: Success, failures, and what has not finished; TODO is the service's name for a refresh that is queued.
STATUSES = {
    MailTaskSubject: ("SENT", "FAILED", "PROCESSING", "QUEUED"),
    DatasetSubject: ("SUCCESS", "FAILURE", "CANCELED", "RUNNING", "TODO", "WARN"),
}
ZONES = (UTC, timezone(timedelta(hours=8)), timezone(timedelta(hours=-5, minutes=-30)))

zones = st.sampled_from(ZONES)
minutes = st.integers(-30, 30)


@st.composite
def runs(draw: st.DrawFn, kind: type[Subject]) -> Run:
    """A run. Its id stands for its subject and its start, as with the service."""
    number = draw(st.integers(0, 9))
    began = (BEGIN + timedelta(minutes=(number * 7) % 13 - 6, seconds=number % 3)).astimezone(draw(zones))
    status = draw(st.sampled_from(STATUSES[kind]))
    if kind is MailTaskSubject:
        return MailTaskRun(IDS[number % 2], str(number), status, began)
    ended = began + timedelta(minutes=1) if status in ("SUCCESS", "FAILURE", "CANCELED") else None
    return DatasetRefreshJob(IDS[number % 2], str(number), status, began, ended)


errors = st.sampled_from(
    [
        ThrottledError("slow", action="A", kind=ErrorKind.THROTTLED, code="Throttling", retry_after=3.0),
        TransientError("broke", action="A", kind=ErrorKind.TRANSIENT),
        TransientError("refused", action="A", kind=ErrorKind.TRANSIENT, may_have_arrived=False),
        NotStartedError("later", action="A", kind=ErrorKind.NOT_STARTED),
        AlreadyRunningError("busy", action="A", kind=ErrorKind.CONFLICT),
        PermanentError("no", action="A", kind=ErrorKind.DENIED, code="Forbidden.RAM"),
        PermanentError("new", kind=ErrorKind.UNKNOWN),
        TransientError("of no kind"),
    ]
)


def responses(kind: type[Subject]) -> st.SearchStrategy[Any]:
    return st.lists(runs(kind), max_size=3 if kind is MailTaskSubject else 1) | errors | st.none()


selectors = st.builds(
    RunSelector,
    run_id=st.none() | st.integers(0, 9).map(str),
    executed_after=st.none()
    | st.builds(lambda late, zone: (BEGIN + timedelta(minutes=late)).astimezone(zone), minutes, zones),
    other_than=st.lists(st.integers(0, 9).map(str), max_size=3, unique=True).map(tuple),
)
limits = st.none() | st.integers(0, 5000).map(float)


@st.composite
def waits(draw: st.DrawFn, kind: type[Subject], subject_id: str | None = None) -> WaitState:
    """A wait of which nothing is known yet."""
    finish = draw(limits)
    return WaitState(
        subject=kind(subject_id or draw(st.sampled_from(IDS))),
        selector=draw(selectors),
        since=NOW + draw(st.integers(-1000, 1000)),
        on_failed=draw(st.sampled_from(OnFailed)),
        start_timeout=draw(limits),
        finish_by=None if finish is None else NOW + finish,
        unreachable_timeout=draw(st.integers(0, 3000).map(float)),
        until_seen=draw(st.booleans()),
    )


State = list[tuple[Any, int]]


@st.composite
def cases(draw: st.DrawFn) -> tuple[WaitState, State]:
    """A wait of either kind, and its responses, seconds apart."""
    kind = draw(st.sampled_from(KINDS))
    state = st.lists(st.tuples(responses(kind), st.integers(0, 600)), min_size=1, max_size=8)
    return draw(waits(kind)), draw(state)


def followed(wait: WaitState, state: list[tuple[Any, int]]) -> list[tuple[WaitState, Evaluation, Any, float]]:
    """Evaluate responses until the wait is finished; return what was known after each."""
    now, after = NOW, []
    for response, pause in state:
        now += pause
        wait, evaluation = evaluate(wait, response, now)
        after.append((wait, evaluation, response, now))
        if evaluation.outcome.final:
            break
    return after


@given(case=cases())
@settings(max_examples=100, deadline=None)
def test_a_run_that_does_not_match_the_selector_is_never_accepted(case: tuple[WaitState, State]):
    wait, state = case
    for after, evaluation, _, _ in followed(wait, state):
        shown_only = evaluation.outcome in (Outcome.WRONG_TIMEZONE, Outcome.MISSED)
        for run in (after.run, None if shown_only else evaluation.run):
            if run is not None:
                assert wait.selector.matches(run)
                assert run.subject_id == wait.subject.id


@given(case=cases())
@settings(max_examples=100, deadline=None)
def test_nothing_but_a_sent_run_that_matches_gives_success(case: tuple[WaitState, State]):
    wait, state = case
    for _, evaluation, response, _ in followed(wait, state):
        if evaluation.outcome is Outcome.SUCCEEDED:
            assert evaluation.run in response
            assert evaluation.run is not None
            assert evaluation.run.status in ("SENT", "SUCCESS")
            assert evaluation.run.subject_id == wait.subject.id
            assert wait.selector.matches(evaluation.run)
        if evaluation.outcome is Outcome.FAILED:
            assert wait.on_failed is OnFailed.FAIL or wait.selector.run_id is not None
            assert evaluation.run in response
            assert evaluation.run is not None
            assert evaluation.run.status in ("FAILED", "FAILURE", "CANCELED")


@given(case=cases())
@settings(max_examples=100, deadline=None)
def test_once_seen_only_that_run_decides_unless_a_failed_one_is_waited_out(case: tuple[WaitState, State]):
    wait, state = case
    pinned: Run | None = None
    for after, evaluation, response, _ in followed(wait, state):
        decided = evaluation.run or after.run
        if pinned is not None and decided is not None and decided.run_id != pinned.run_id:
            assert not wait.subject.shows_earlier_runs, f"{decided} after {pinned}"
            assert decided.age_order > pinned.age_order
            assert evaluation.outcome in (Outcome.MISSED, Outcome.WRONG_TIMEZONE) or wait.selector.matches(decided)
        pinned = after.run
        if (
            pinned is None
            and isinstance(response, list)
            and wait.on_failed is OnFailed.FAIL
            and not evaluation.outcome.final
        ):
            assert after.selector == wait.selector


@given(case=cases())
@settings(max_examples=100, deadline=None)
def test_an_end_without_a_response_or_by_timeout_has_its_reason(case: tuple[WaitState, State]):
    wait, state = case
    for after, evaluation, response, now in followed(wait, state):
        if evaluation.outcome is Outcome.REFUSED:
            assert isinstance(response, PermanentError)
        if evaluation.outcome is Outcome.UNAVAILABLE:
            assert after.error is not None
            since = after.unreachable_since if isinstance(after.error, TransientError) else None
            assert (since is not None and now - since >= wait.unreachable_timeout) or (
                wait.finish_by is not None and now >= wait.finish_by
            )
        if evaluation.outcome is Outcome.TIMED_OUT:
            assert after.error is None
            assert wait.finish_by is not None
            assert now >= wait.finish_by
        if evaluation.outcome is Outcome.NOT_STARTED:
            assert wait.start_timeout is not None
            assert after.run is None
            assert now >= max(wait.since, NOW) + wait.start_timeout or now - wait.since >= wait.start_timeout
        if evaluation.outcome is Outcome.SEEN:
            assert wait.until_seen


@given(case=cases())
@settings(max_examples=100, deadline=None)
def test_what_is_kept_goes_on_as_if_it_had_never_been_kept(case: tuple[WaitState, State]):
    wait, state = case
    kept = wait
    now = NOW
    for response, pause in state:
        now += pause
        wait, evaluation = evaluate(wait, response, now)
        kept, kept_evaluation = evaluate(decode_wait(json.loads(json.dumps(encode_wait(kept)))), response, now)
        assert encode_wait(kept) == encode_wait(wait)
        assert encode_evaluation(kept_evaluation) == encode_evaluation(evaluation)
        assert encode_evaluation(
            decode_evaluation(json.loads(json.dumps(encode_evaluation(evaluation))), wait.subject)
        ) == encode_evaluation(evaluation)
        assert kept.status_query(now) == wait.status_query(now)
        assert kept.gives_up_at == wait.gives_up_at


@given(case=cases())
@settings(max_examples=100, deadline=None)
def test_a_wait_says_something_and_ends_by_itself_when_it_says_it_will(case: tuple[WaitState, State]):
    wait, state = case
    for after, evaluation, _, now in followed(wait, state):
        assert evaluation.message.startswith(f"{wait.subject.words.subject.capitalize()} {wait.subject.id}: ")
        assert describe(after, now)
        if not evaluation.outcome.final and after.gives_up_at is not None:
            assert evaluate(after, None, max(now, after.gives_up_at))[1].outcome.final


@given(
    data=st.data(),
    kind=st.sampled_from(KINDS),
    required=st.integers(1, 2),
    late_at=limits,
)
@settings(max_examples=100, deadline=None)
def test_a_delivery_is_sent_only_if_enough_mails_are(
    data: st.DataObject, kind: type[Subject], required: int, late_at: float | None
):
    state = data.draw(st.lists(st.tuples(st.integers(0, 1), responses(kind), st.integers(0, 600)), max_size=8))
    starts = [data.draw(waits(kind, subject_id)) for subject_id in IDS]
    starts = [decode_wait({**encode_wait(wait), "until_seen": False}) for wait in starts]
    group, now = WaitGroup.of(starts, required=required, late_at=late_at), NOW
    for position, response, pause in state:
        now += pause
        if position in group.unfinished():
            group = evaluate_group(group, position, response, now)
        copy = decode_group(json.loads(json.dumps(encode_group(group))))
        assert encode_group(copy) == encode_group(group)
        assert encode_evaluation(copy.evaluation) == encode_evaluation(group.evaluation)
        assert copy.results() == group.results()
    sent = [
        (start, evaluation.run)
        for start, evaluation in zip(starts, group.evaluations, strict=True)
        if evaluation.outcome is Outcome.SUCCEEDED
    ]
    for start, run in sent:
        assert run is not None
        assert run.status in ("SENT", "SUCCESS")
        assert start.selector.matches(run)
    assert (group.evaluation.outcome is Outcome.SUCCEEDED) is (len(sent) >= required)
    lost = sum(evaluation.outcome.final for evaluation in group.evaluations) - len(sent)
    assert group.evaluation.outcome.final is (len(sent) >= required or len(IDS) - lost < required)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(
    item=anything
    | st.fixed_dictionaries(
        {}, optional={"waits": anything, "evaluations": anything, "required": anything, "late_at": anything}
    )
    | st.fixed_dictionaries(
        {
            "waits": st.just([encode_wait(WaitState(subject=MailTaskSubject("m"), selector=RunSelector(), since=NOW))]),
            "evaluations": st.lists(
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
        group = decode_group(item)
    except ValueError:
        return
    assert len(group.waits) == len(group.evaluations) >= group.required >= 1
