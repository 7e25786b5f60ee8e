"""The table of outcomes, row by row: what each answer of Quick BI means for those who wait."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from airflow_provider_quickbi._wait.codec import (
    decode_evaluation,
    decode_group,
    decode_wait,
    encode_evaluation,
    encode_group,
    encode_wait,
)
from airflow_provider_quickbi._wait.evaluate import evaluate, evaluate_group
from airflow_provider_quickbi._wait.messages import describe, selection
from airflow_provider_quickbi._wait.selector import KNOWN_RUNS, RunSelector
from airflow_provider_quickbi._wait.state import (
    DEFAULT_UNREACHABLE_TIMEOUT,
    Evaluation,
    OnFailed,
    Outcome,
    WaitGroup,
    WaitState,
)
from airflow_provider_quickbi._wait.subject import MailTaskSubject
from airflow_provider_quickbi.api.errors import (
    AlreadyRunningError,
    ErrorKind,
    NotStartedError,
    PermanentError,
    QuickBIError,
    ThrottledError,
    TransientError,
)
from airflow_provider_quickbi.api.models import MailTaskRun
from airflow_provider_quickbi.api.operations import StatusQuery

M = MailTaskSubject("m")

SHANGHAI = timezone(timedelta(hours=8))
EIGHT = datetime(2026, 7, 1, 8, 0, tzinfo=SHANGHAI)
NOW = EIGHT.timestamp()

THROTTLED = ThrottledError("slow", action="GetMailTaskStatus", kind=ErrorKind.THROTTLED, code="Throttling.User")
BROKEN = TransientError("reset", action="GetMailTaskStatus", kind=ErrorKind.TRANSIENT)
DENIED = PermanentError(
    "no", action="GetMailTaskStatus", kind=ErrorKind.DENIED, code="Access.Forbidden", request_id="R-1", hint="Ask"
)


def run(status: str = "SENT", minutes: float = 0, task_id: str = "10", mail_id: str = "m") -> MailTaskRun:
    """A run that began so many minutes after eight."""
    return MailTaskRun(mail_id, task_id, status, EIGHT + timedelta(minutes=minutes))


def wait(**changes: Any) -> WaitState:
    """A wait that began at eight."""
    return WaitState(**{"subject": M, "selector": RunSelector(), "since": NOW, "clock_skew": 86400.0, **changes})


def poll_once(waiting: WaitState, *responses: Any, every: float = 60.0) -> tuple[WaitState, Evaluation]:
    """Judge one answer after the other, a minute apart, the first one at eight."""
    evaluation = None
    for number, response in enumerate(responses):
        waiting, evaluation = evaluate(waiting, response, NOW + number * every)
    assert evaluation is not None
    return waiting, evaluation


# What happened -> outcome


def test_a_run_that_is_sent_is_the_success():
    _, evaluation = poll_once(wait(), [run("SENT")])
    assert (evaluation.outcome, evaluation.run) == (Outcome.SUCCEEDED, run("SENT"))
    assert evaluation.message == "Mail task m: run 10 of 2026-07-01T08:00:00+08:00 is SENT."


def test_an_answer_with_runs_of_other_mail_tasks_only_is_told():
    waiting, evaluation = poll_once(wait(), [run("SENT", mail_id="0815")])
    assert evaluation.outcome is Outcome.WAITING
    assert "Quick BI returned runs of other mail tasks, such as '0815'" in evaluation.message
    assert "No run" not in evaluation.message
    _, evaluation = poll_once(waiting, [])
    assert "No run yet." in evaluation.message
    _, evaluation = poll_once(wait(start_timeout=60), [run(mail_id="x")], [run(mail_id="x")])
    assert evaluation.outcome is Outcome.NOT_STARTED
    assert "Quick BI returned runs of other mail tasks" in evaluation.message
    _, evaluation = poll_once(wait(), [run("PROCESSING")], [run(mail_id="x")])
    assert "Run 10 of 2026-07-01T08:00:00+08:00 is PROCESSING." in evaluation.message


def test_a_run_that_failed_ends_the_wait():
    _, evaluation = poll_once(wait(), [run("FAILED")])
    assert (evaluation.outcome, evaluation.run) == (Outcome.FAILED, run("FAILED"))
    assert "run 10 of 2026-07-01T08:00:00+08:00 is FAILED: Quick BI did not send the report." in evaluation.message


@pytest.mark.parametrize("status", ["PROCESSING", "QUEUED", "SENDING", "???"])
def test_a_run_that_is_not_over_is_waited_for(status: str):
    waiting, evaluation = poll_once(wait(), [run(status)])
    assert (evaluation.outcome, evaluation.run) == (Outcome.WAITING, run(status))
    assert waiting.run == run(status)
    documented = status == "PROCESSING"
    assert ("an undocumented status, treated as unfinished" in evaluation.message) is not documented


def test_no_run_is_waited_for():
    _, evaluation = poll_once(wait(), [])
    assert (evaluation.outcome, evaluation.run) == (Outcome.WAITING, None)
    assert evaluation.message == "Mail task m: No run yet."


def test_nothing_asked_is_nothing_learnt():
    before = wait(run=run("PROCESSING"), start_timeout=60.0)
    after, evaluation = evaluate(before, None, NOW + 10)
    assert (after, evaluation.outcome) == (before, Outcome.WAITING)


@pytest.mark.parametrize(
    "error",
    [
        DENIED,
        PermanentError("x", kind=ErrorKind.CREDENTIALS, code="SignatureDoesNotMatch"),
        PermanentError("x", kind=ErrorKind.NOT_FOUND, code="Mail.Not.Found"),
        PermanentError("x", kind=ErrorKind.BAD_REQUEST, code="Invalid.Parameter"),
        PermanentError("x", kind=ErrorKind.UNKNOWN, code="Brand.New"),
    ],
)
def test_a_refusal_ends_the_wait_and_is_passed_on(error: QuickBIError):
    _, evaluation = poll_once(wait(run=run("PROCESSING")), error)
    assert (evaluation.outcome, evaluation.error, evaluation.run) == (Outcome.REFUSED, error, run("PROCESSING"))
    assert str(error) in evaluation.message


@pytest.mark.parametrize(
    "error", [THROTTLED, BROKEN, NotStartedError("x"), AlreadyRunningError("x")], ids=lambda error: type(error).__name__
)
def test_what_may_be_over_later_is_waited_for(error: QuickBIError):
    _, evaluation = poll_once(wait(), error)
    assert (evaluation.outcome, evaluation.error) == (Outcome.WAITING, error)


def test_throttling_is_never_a_failure():
    _, evaluation = poll_once(wait(), *[THROTTLED] * 10_000)
    assert evaluation.outcome is Outcome.WAITING
    assert evaluation.message == "Mail task m: Rate limited; backing off."


# Quick BI cannot be asked


def test_nothing_but_failed_attempts_to_ask_ends_the_wait_after_unreachable_timeout():
    waiting = wait(unreachable_timeout=180.0)
    waiting, evaluation = poll_once(waiting, BROKEN, BROKEN, BROKEN)
    assert evaluation.outcome is Outcome.WAITING
    assert waiting.gives_up_at == NOW + 180
    _, evaluation = evaluate(waiting, BROKEN, NOW + 180)
    assert (evaluation.outcome, evaluation.error) == (Outcome.UNAVAILABLE, BROKEN)
    assert "was unreachable for 180 s (unreachable_timeout). This says nothing about the report." in evaluation.message


def test_it_is_counted_from_the_first_failed_attempt_and_not_from_the_begin_of_the_wait():
    waiting, _ = poll_once(wait(unreachable_timeout=180.0), *[[]] * 10, BROKEN, BROKEN)
    assert waiting.unreachable_since == NOW + 600


@pytest.mark.parametrize("response", [[], [run("PROCESSING")], [run(mail_id="other")], THROTTLED])
def test_any_answer_begins_to_count_anew(response: Any):
    waiting, evaluation = poll_once(
        wait(unreachable_timeout=120.0), BROKEN, response, BROKEN, response, BROKEN, response
    )
    assert evaluation.outcome is Outcome.WAITING
    assert waiting.unreachable_since is None
    waiting, evaluation = evaluate(waiting, BROKEN, NOW + 1000)
    assert (evaluation.outcome, waiting.unreachable_since) == (Outcome.WAITING, NOW + 1000)


def test_no_patience_at_all_means_the_first_failed_attempt():
    assert poll_once(wait(unreachable_timeout=0.0), BROKEN)[1].outcome is Outcome.UNAVAILABLE


def test_half_an_hour_is_the_default():
    assert wait().unreachable_timeout == DEFAULT_UNREACHABLE_TIMEOUT == 1800.0


# The two clocks


def test_no_run_within_start_timeout_ends_the_wait():
    waiting = wait(start_timeout=300.0)
    assert waiting.start_by == waiting.gives_up_at == NOW + 300
    assert evaluate(waiting, [], NOW + 299)[1].outcome is Outcome.WAITING
    _, evaluation = evaluate(waiting, [], NOW + 300)
    assert evaluation.outcome is Outcome.NOT_STARTED
    assert evaluation.message == (
        "Mail task m: waited for the latest run, whatever its age, and none started within start_timeout (300 s). "
        "No run yet."
    )


def test_a_run_that_does_not_count_does_not_stop_that_clock_and_is_named():
    selector = RunSelector(executed_after=EIGHT)
    _, evaluation = evaluate(wait(selector=selector, start_timeout=300.0), [run("SENT", minutes=-60)], NOW + 300)
    assert evaluation.outcome is Outcome.NOT_STARTED
    assert "the latest is 10 of 2026-07-01T07:00:00+08:00, SENT" in evaluation.message
    assert evaluation.run is None


def test_the_start_is_counted_from_executed_after_where_that_is_later():
    waiting = wait(selector=RunSelector(executed_after=EIGHT + timedelta(hours=1)), start_timeout=300.0)
    assert waiting.polls_from == NOW + 3600
    assert waiting.start_by == NOW + 3900
    earlier = wait(selector=RunSelector(executed_after=EIGHT - timedelta(hours=1)), start_timeout=300.0)
    assert earlier.start_by == NOW + 300


def test_a_run_that_was_seen_stops_the_clock_of_the_start_for_good():
    waiting, _ = poll_once(wait(start_timeout=300.0), [run("PROCESSING")])
    assert waiting.start_by is None
    assert evaluate(waiting, [], NOW + 10_000)[1].outcome is Outcome.WAITING


def test_what_could_not_be_asked_is_not_known_not_to_have_started():
    waiting, evaluation = poll_once(wait(start_timeout=300.0), *[BROKEN] * 10)
    assert evaluation.outcome is Outcome.WAITING
    assert evaluate(waiting, [run("SENT")], NOW + 3600)[1].outcome is Outcome.SUCCEEDED
    assert evaluate(waiting, [], NOW + 3600)[1].outcome is Outcome.NOT_STARTED


@pytest.mark.parametrize(
    ("response", "said"),
    [
        ([run("PROCESSING")], "Run 10 of 2026-07-01T08:00:00+08:00 is PROCESSING."),
        ([], "No run yet."),
        (None, "No run yet."),
    ],
)
def test_a_timeout_says_what_the_run_was_doing(response: Any, said: str):
    waiting = wait(finish_by=NOW + 600, unreachable_timeout=1e6)
    assert evaluate(waiting, response, NOW + 599)[1].outcome is Outcome.WAITING
    _, evaluation = evaluate(waiting, response, NOW + 600)
    assert evaluation.outcome is Outcome.TIMED_OUT
    assert evaluation.message.startswith("Mail task m: timed out after 600 s. ")
    assert said in evaluation.message


@pytest.mark.parametrize("error", [BROKEN, THROTTLED])
def test_a_timeout_says_nothing_about_a_report_that_could_not_be_asked_for(error: Any):
    waiting, _ = poll_once(wait(finish_by=NOW + 600, unreachable_timeout=1e6), [run("PROCESSING")])
    assert evaluate(waiting, error, NOW + 599)[1].outcome is Outcome.WAITING
    _, evaluation = evaluate(waiting, error, NOW + 600)
    assert evaluation.outcome is Outcome.UNAVAILABLE
    assert evaluation.message.startswith("Mail task m: timed out after 600 s, and the last poll failed")
    assert "This says nothing about the report." in evaluation.message
    assert str(error) in evaluation.message
    assert evaluate(waiting, [run("PROCESSING")], NOW + 600)[1].outcome is Outcome.TIMED_OUT


def test_a_clock_that_is_set_back_does_not_keep_a_wait_from_asking():
    before = NOW - 3600
    assert wait().status_query(before) is not None
    fenced = wait(selector=RunSelector(executed_after=datetime.fromtimestamp(NOW - 60, UTC)))
    assert fenced.status_query(before) is None
    pinned, _ = poll_once(fenced, [run("PROCESSING")])
    assert pinned.status_query(before) is not None


@pytest.mark.parametrize(
    "limits", [{"finish_by": NOW + 60}, {"start_timeout": 60.0}, {"unreachable_timeout": 0.0}, {"finish_by": NOW - 60}]
)
@pytest.mark.parametrize(("status", "outcome"), [("SENT", Outcome.SUCCEEDED), ("FAILED", Outcome.FAILED)])
def test_the_state_is_looked_at_before_any_deadline(limits: dict[str, Any], status: str, outcome: Outcome):
    waiting, _ = evaluate(wait(**limits), None, NOW)
    assert evaluate(waiting, [run(status)], NOW + 100_000)[1].outcome is outcome


def test_a_wait_without_limits_never_gives_up():
    assert wait().gives_up_at is None
    assert poll_once(wait(), *[[]] * 1000, every=86_400)[1].outcome is Outcome.WAITING


def test_the_next_instant_at_which_it_ends_is_that_of_the_first_limit():
    waiting = wait(start_timeout=300.0, finish_by=NOW + 600)
    assert waiting.gives_up_at == NOW + 300
    broken, _ = poll_once(replace(waiting, unreachable_timeout=120.0), BROKEN)
    assert broken.gives_up_at == NOW + 120
    seen, _ = poll_once(waiting, [run("PROCESSING")])
    assert seen.gives_up_at == NOW + 600


# Which run counts


def test_without_a_fence_the_latest_run_counts_whatever_its_age():
    _, evaluation = poll_once(wait(), [run("SENT", -1440, "9"), run("FAILED", -60, "10")])
    assert (evaluation.outcome, evaluation.run.run_id if evaluation.run else None) == (Outcome.FAILED, "10")


def test_of_several_runs_in_the_window_the_latest_matches_as_the_service_shows_it():
    selector = RunSelector(executed_after=EIGHT)
    response = [run("SENT", 30, "12"), run("FAILED", 20, "11"), run("SENT", -1, "9")]
    _, evaluation = poll_once(wait(selector=selector), response)
    assert (evaluation.outcome, evaluation.run.run_id if evaluation.run else None) == (Outcome.SUCCEEDED, "12")


def test_of_several_runs_after_a_baseline_the_first_matches():
    response = [run("SENT", 30, "12"), run("FAILED", 20, "11"), run("SENT", -1, "9")]
    _, evaluation = poll_once(wait(selector=RunSelector(other_than=("9",))), response)
    assert (evaluation.outcome, evaluation.run.run_id if evaluation.run else None) == (Outcome.FAILED, "11")


@pytest.mark.parametrize(
    ("exec_time", "counts"),
    [
        (EIGHT, True),
        (EIGHT - timedelta(seconds=1), False),
        (EIGHT + timedelta(seconds=1), True),
        (datetime(2026, 7, 1, 0, 0, tzinfo=UTC), True),
        (datetime(2026, 6, 30, 23, 59, 59, tzinfo=UTC), False),
        (datetime(2026, 7, 1, 0, 0, tzinfo=timezone(timedelta(hours=9))), False),
        (datetime(2026, 6, 30, 20, 0, tzinfo=timezone(timedelta(hours=-4))), True),
    ],
)
@pytest.mark.parametrize("fence_zone", [SHANGHAI, UTC, timezone(timedelta(hours=-7))])
def test_the_fence_is_an_instant_whatever_the_zones(exec_time: datetime, counts: bool, fence_zone: timezone):
    selector = RunSelector(executed_after=EIGHT.astimezone(fence_zone))
    _, evaluation = poll_once(wait(selector=selector), [MailTaskRun("m", "10", "SENT", exec_time)])
    assert (evaluation.outcome is Outcome.SUCCEEDED) is counts


def test_exactly_the_run_that_is_named_counts():
    waiting = wait(selector=RunSelector(run_id="9"))
    assert waiting.status_query(NOW) == StatusQuery("m", "9")
    waiting, evaluation = poll_once(waiting, [run("SENT", 0, "10")])
    assert (evaluation.outcome, waiting.ignored_run) == (Outcome.WAITING, run("SENT", 0, "10"))
    assert "No matching run yet; the latest is 10" in evaluation.message
    assert evaluate(waiting, [run("SENT", 0, "10"), run("FAILED", 0, "9")], NOW)[1].outcome is Outcome.FAILED


def test_a_run_that_was_there_before_does_not_count():
    selector = RunSelector(other_than=("9", "10"))
    waiting, evaluation = poll_once(wait(selector=selector), [run("SENT", 0, "10")])
    assert evaluation.outcome is Outcome.WAITING
    assert "No matching run yet" in evaluation.message
    assert evaluate(waiting, [run("SENT", 1, "11"), run("SENT", 0, "10")], NOW)[1].outcome is Outcome.SUCCEEDED


def test_a_run_of_another_mail_task_never_counts():
    waiting, evaluation = poll_once(wait(), [run("SENT", mail_id="other")])
    assert (evaluation.outcome, waiting.run, waiting.ignored_run) == (Outcome.WAITING, None, None)


def test_there_is_nothing_to_ask_before_the_fence():
    waiting = wait(selector=RunSelector(executed_after=EIGHT + timedelta(hours=1)))
    assert waiting.status_query(NOW) is None
    assert waiting.status_query(NOW + 3599.9) is None
    assert waiting.status_query(NOW + 3600) == StatusQuery("m", None)
    assert describe(waiting, NOW) == "Mail task m: No poll before executed_after, 2026-07-01T01:00:00+00:00."


def test_once_seen_the_wait_is_pinned_to_the_run():
    waiting, _ = poll_once(wait(), [run("PROCESSING", 0, "10")])
    assert waiting.status_query(NOW) == StatusQuery("m", "10")
    waiting, evaluation = evaluate(waiting, [run("SENT", 5, "11")], NOW + 60)
    assert (evaluation.outcome, waiting.run) == (Outcome.WAITING, run("PROCESSING", 0, "10"))
    waiting, evaluation = evaluate(waiting, [], NOW + 120)
    assert (evaluation.outcome, waiting.run) == (Outcome.WAITING, run("PROCESSING", 0, "10"))
    assert evaluate(waiting, [run("SENT", 0, "10")], NOW + 180)[1].outcome is Outcome.SUCCEEDED


def test_a_wait_that_only_wants_to_see_a_run_is_over_then_whatever_its_state():
    for status in ("PROCESSING", "SENT", "FAILED", "QUEUED"):
        _, evaluation = poll_once(
            wait(until_seen=True, selector=RunSelector(other_than=("9",))), [run("SENT", -1, "9"), run(status)]
        )
        assert (evaluation.outcome, evaluation.run) == (Outcome.SEEN, run(status))
    assert poll_once(wait(until_seen=True), [])[1].outcome is Outcome.WAITING


# A run that failed, if a later one is waited for


def test_a_later_run_is_waited_for():
    waiting, evaluation = poll_once(wait(on_failed=OnFailed.WAIT), [run("FAILED", 0, "10")])
    assert evaluation.outcome is Outcome.WAITING
    assert (waiting.run, waiting.ignored_run) == (None, run("FAILED", 0, "10"))
    assert waiting.status_query(NOW + 60) == StatusQuery("m", None)
    assert "No matching run yet; the latest is 10 of 2026-07-01T08:00:00+08:00, FAILED" in evaluation.message
    waiting, evaluation = evaluate(waiting, [run("FAILED", 0, "10")], NOW + 60)
    assert evaluation.outcome is Outcome.WAITING
    waiting, evaluation = evaluate(waiting, [run("SENT", 10, "11")], NOW + 700)
    assert evaluation.outcome is Outcome.SUCCEEDED


def test_there_is_no_later_run_than_the_one_that_is_named():
    _, evaluation = poll_once(
        wait(selector=RunSelector(run_id="10"), on_failed=OnFailed.WAIT), [run("FAILED", 0, "10")]
    )
    assert evaluation.outcome is Outcome.FAILED


def test_an_earlier_run_is_not_taken_for_a_later_one():
    waiting, _ = poll_once(wait(on_failed=OnFailed.WAIT), [run("FAILED", 0, "10")])
    _, evaluation = evaluate(waiting, [run("SENT", -10, "9"), run("FAILED", 0, "10")], NOW + 60)
    assert evaluation.outcome is Outcome.WAITING


def test_the_fence_still_holds_for_the_later_run():
    selector = RunSelector(executed_after=EIGHT + timedelta(minutes=5))
    waiting, _ = evaluate(wait(selector=selector, on_failed=OnFailed.WAIT), [run("FAILED", 6, "10")], NOW + 400)
    assert waiting.selector.executed_after == EIGHT + timedelta(minutes=6)
    assert waiting.selector.other_than == ("10",)


def test_the_later_run_has_the_whole_start_timeout():
    waiting = wait(on_failed=OnFailed.WAIT, start_timeout=300.0)
    waiting, _ = evaluate(waiting, [run("FAILED", 0, "10")], NOW + 1000)
    assert waiting.start_by == NOW + 1300
    assert evaluate(waiting, [run("FAILED", 0, "10")], NOW + 1299)[1].outcome is Outcome.WAITING
    assert evaluate(waiting, [run("FAILED", 0, "10")], NOW + 1300)[1].outcome is Outcome.NOT_STARTED


def test_one_failed_run_after_the_other_is_waited_out_until_the_timeout():
    waiting = wait(on_failed=OnFailed.WAIT, finish_by=NOW + 100_000)
    for number in range(100):
        waiting, evaluation = evaluate(waiting, [run("FAILED", number, str(10 + number))], NOW + 60 * number)
        assert evaluation.outcome is Outcome.WAITING
    assert len(waiting.selector.other_than) == KNOWN_RUNS
    assert evaluate(waiting, [run("SENT", 200, "500")], NOW + 20_000)[1].outcome is Outcome.SUCCEEDED


# What is said


def test_the_sentence_changes_only_when_something_has_changed():
    def sentences(responses: list[Any]) -> set[str]:
        waiting, said = wait(), set()
        for number, response in enumerate(responses):
            waiting, evaluation = evaluate(waiting, response, NOW + 60 * number)
            said.add(evaluation.message)
        return said

    again = [
        TransientError("oops", kind=ErrorKind.TRANSIENT, code="InternalError", request_id=f"R-{number}")
        for number in range(5)
    ]
    assert len(sentences([[]] * 5)) == 1
    assert len(sentences([[run("PROCESSING")]] * 5)) == 1
    assert len(sentences([BROKEN] * 5)) == 1
    assert len(sentences(again)) == 1
    assert len(sentences([[], [run("PROCESSING")], [run("SENT")]])) == 3


@pytest.mark.parametrize(
    ("selector", "said"),
    [
        (RunSelector(), "the latest run, whatever its age"),
        (RunSelector(run_id="7"), "the run with TaskId 7"),
        (RunSelector(executed_after=EIGHT), "a run started at or after 2026-07-01T08:00:00+08:00"),
        (RunSelector(other_than=("1",)), "a run other than 1"),
        (RunSelector(other_than=("1", "2", "3", "4")), "a run other than 1, 2, 3, ..."),
        (
            RunSelector(executed_after=EIGHT, other_than=("1",)),
            "a run started at or after 2026-07-01T08:00:00+08:00 other than 1",
        ),
    ],
)
def test_a_fence_says_which_runs_count(selector: RunSelector, said: str):
    assert selection(wait(selector=selector)) == said


# Several mail tasks


def several(*outcomes: Any, required: int | None = None) -> WaitGroup:
    """A delivery of one mail task for each answer, each judged once."""
    waits = [wait(subject=MailTaskSubject(f"m-{number}")) for number in range(len(outcomes))]
    group = WaitGroup.of(waits, required=required)
    for number, response in enumerate(outcomes):
        if isinstance(response, str):
            response = [run(response, mail_id=f"m-{number}")]  # noqa: PLW2901 - a status stands for a run in that state
        group = evaluate_group(group, number, response, NOW + 60)
    return group


@pytest.mark.parametrize(
    ("responses", "required", "outcome"),
    [
        (["SENT", "SENT", "SENT"], None, Outcome.SUCCEEDED),
        (["SENT", "SENT", "PROCESSING"], None, Outcome.WAITING),
        (["SENT", "FAILED", "PROCESSING"], None, Outcome.FAILED),
        (["SENT", "SENT", "PROCESSING"], 2, Outcome.SUCCEEDED),
        (["SENT", "FAILED", "PROCESSING"], 2, Outcome.WAITING),
        (["FAILED", "FAILED", "PROCESSING"], 2, Outcome.FAILED),
        (["PROCESSING", "SENT", "FAILED"], 1, Outcome.SUCCEEDED),
        (["FAILED", "FAILED", "PROCESSING"], 1, Outcome.WAITING),
        (["FAILED", "FAILED", "FAILED"], 1, Outcome.FAILED),
        (["FAILED", DENIED, "FAILED"], 1, Outcome.REFUSED),
        ([BROKEN, "SENT", THROTTLED], None, Outcome.WAITING),
    ],
)
def test_several_mail_tasks_are_sent_once_enough_are_and_lost_once_enough_cannot_be(
    responses: list[Any], required: int | None, outcome: Outcome
):
    group = several(*responses, required=required)
    assert group.evaluation.outcome is outcome
    assert f"{responses.count('SENT')} of 3 mail tasks are SENT, {required or 3} required." in group.evaluation.message


@pytest.mark.parametrize(
    ("ends", "worst"),
    [
        ([DENIED, "FAILED"], Outcome.REFUSED),
        (["FAILED", DENIED], Outcome.REFUSED),
    ],
)
def test_of_several_reasons_the_one_that_needs_a_person_most_decides(ends: list[Any], worst: Outcome):
    group = several(*ends)
    assert group.evaluation.outcome is worst
    assert all(evaluation.message in group.evaluation.message for evaluation in group.evaluations)


def test_the_order_of_reasons_is_refused_failed_not_started_timed_out_unavailable():
    order = [Outcome.REFUSED, Outcome.FAILED, Outcome.NOT_STARTED, Outcome.TIMED_OUT, Outcome.UNAVAILABLE]
    for first in range(len(order)):
        for second in range(first, len(order)):
            for pair in ((order[first], order[second]), (order[second], order[first])):
                evaluations = tuple(Evaluation(outcome, outcome.value) for outcome in pair)
                group = WaitGroup(
                    waits=(wait(), wait(subject=MailTaskSubject("n"))), evaluations=evaluations, required=2
                )
                assert group.evaluation.outcome is order[first]


def test_only_what_is_not_settled_is_looked_at_again():
    assert several("SENT", "PROCESSING", "FAILED", BROKEN, DENIED, required=1).unfinished() == [1, 3]


def test_one_mail_task_speaks_for_itself():
    group = several("PROCESSING")
    assert group.evaluation is group.evaluations[0]


def test_the_results_are_in_the_order_of_the_mail_tasks_and_have_no_gaps():
    assert several("SENT", [], "PROCESSING", required=1).results() == [
        {"mail_id": "m-0", "task_id": "10", "status": "SENT", "exec_time": "2026-07-01T08:00:00+08:00"},
        {"mail_id": "m-1", "task_id": None, "status": None, "exec_time": None},
        {"mail_id": "m-2", "task_id": "10", "status": "PROCESSING", "exec_time": "2026-07-01T08:00:00+08:00"},
    ]


def test_a_delivery_is_late_once_and_only_while_it_is_waited_for():
    group = WaitGroup.of([wait()], late_at=NOW + 600)
    assert not group.is_late(NOW + 599)
    assert group.is_late(NOW + 600)
    assert not group.notified().is_late(NOW + 600)
    assert not evaluate_group(group, 0, [run("SENT")], NOW + 600).is_late(NOW + 700)
    assert not WaitGroup.of([wait()]).is_late(NOW + 1e9)


# What is kept


STATES = {
    "new": wait(),
    "named run": wait(selector=RunSelector(run_id="7218865303929605212")),
    "after the fence": wait(selector=RunSelector(executed_after=EIGHT), start_timeout=60.0, finish_by=NOW + 600),
    "pinned": poll_once(wait(), [run("PROCESSING")])[0],
    "odd status": poll_once(wait(), [run("QUEUED")])[0],
    "ignored_run": poll_once(wait(selector=RunSelector(executed_after=EIGHT)), [run("SENT", -5)])[0],
    "waits for a later one": poll_once(wait(on_failed=OnFailed.WAIT), [run("FAILED")])[0],
    "unreachable": poll_once(wait(unreachable_timeout=60.0), BROKEN)[0],
    "throttled": poll_once(wait(), THROTTLED)[0],
    "until seen": wait(until_seen=True, selector=RunSelector(other_than=("1", "2"))),
}


@pytest.mark.parametrize("waiting", STATES.values(), ids=STATES)
def test_every_state_of_a_wait_survives_json(waiting: WaitState):
    copy = decode_wait(json.loads(json.dumps(encode_wait(waiting))))
    assert encode_wait(copy) == encode_wait(waiting)
    assert replace(copy, error=None) == replace(waiting, error=None)
    for response in ([], [run("SENT", 10, "99")], BROKEN, THROTTLED, None):
        after, evaluation = evaluate(waiting, response, NOW + 90)
        after_copy, verdict_copy = evaluate(copy, response, NOW + 90)
        assert (encode_wait(after), encode_evaluation(evaluation)) == (
            encode_wait(after_copy),
            encode_evaluation(verdict_copy),
        )


@pytest.mark.parametrize(
    "responses", [["SENT", DENIED], [BROKEN, THROTTLED], ["FAILED", []], ["PROCESSING", "QUEUED"], [None, None]]
)
def test_every_state_of_a_delivery_survives_json(responses: list[Any]):
    group = replace(several(*responses, required=1), late_at=NOW + 5.5)
    copy = decode_group(json.loads(json.dumps(encode_group(group))))
    assert encode_group(copy) == encode_group(group)
    assert encode_evaluation(copy.evaluation) == encode_evaluation(group.evaluation)


#: Kept by version 1 in trigger arguments and in the task's state; later releases must be able to go on from here.
VERSION_1: dict[str, Any] = {
    "waits": [
        {
            "subject": {"kind": "mail-task", "id": "m", "name": "", "scope": ""},
            "run_id": None,
            "executed_after": "2026-07-01T00:00:00+00:00",
            "other_than": ["9"],
            "since": 1782864000.0,
            "on_failed": "wait",
            "start_timeout": 300.0,
            "finish_by": 1782950400.0,
            "unreachable_timeout": 1800.0,
            "until_seen": False,
            "run": {
                "mail_id": "m",
                "task_id": "7218865303929605212",
                "status": "PROCESSING",
                "exec_time": "2026-07-01T08:00:00+08:00",
            },
            "ignored_run": None,
            "start_by_since": None,
            "unreachable_since": 1782864100.0,
            "error": {
                "message": "reset",
                "action": "GetMailTaskStatus",
                "kind": "transient",
                "code": "",
                "request_id": "",
                "http_status": None,
                "retry_after": None,
                "hint": "",
                "may_have_arrived": True,
            },
        }
    ],
    "evaluations": [{"outcome": "waiting", "message": "waiting", "run": None, "error": None}],
    "required": 1,
    "late_at": None,
}


def test_what_version_1_has_kept_is_read_and_goes_on():
    group = decode_group(json.loads(json.dumps(VERSION_1)))
    again = encode_group(group)
    assert again == again | {"required": VERSION_1["required"], "late_at": VERSION_1["late_at"]}
    assert again["waits"][0] == again["waits"][0] | VERSION_1["waits"][0]
    [waiting] = group.waits
    assert isinstance(waiting.run, MailTaskRun)
    assert waiting.status_query(NOW + 1000) == StatusQuery("m", "7218865303929605212")
    sent = evaluate_group(group, 0, [replace(waiting.run, status="SENT")], NOW + 1000)
    assert sent.evaluation.outcome is Outcome.SUCCEEDED


def test_what_an_earlier_version_did_not_keep_has_its_default():
    least = {"subject": {"kind": "mail-task", "id": "m"}, "since": NOW}
    assert decode_wait(least) == wait(clock_skew=60.0)


@pytest.mark.parametrize(
    "change",
    [
        {"waits": []},
        {"waits": None},
        {"waits": [None]},
        {"waits": [{}]},
        {"waits": [{**VERSION_1["waits"][0], "on_failed": "explode"}]},
        {"waits": [{**VERSION_1["waits"][0], "executed_after": "yesterday"}]},
        {"waits": [{**VERSION_1["waits"][0], "run": {"mail_id": "m"}}]},
        {"evaluations": []},
        {"evaluations": None},
        {"evaluations": [None]},
        {"evaluations": [{"outcome": "delivered", "message": ""}]},
        {"evaluations": [{"outcome": "SENT", "message": ""}]},
        {"evaluations": [{"message": ""}]},
        {"evaluations": [{"outcome": "waiting", "message": "", "error": {"kind": "odd"}}]},
        {"required": 0},
        {"required": 2},
        {"required": None},
        {"required": "many"},
    ],
    ids=str,
)
def test_what_is_no_delivery_is_never_taken_for_one(change: dict[str, Any]):
    with pytest.raises(ValueError):  # noqa: PT011 - which one does not matter: the caller refuses the event
        decode_group({**VERSION_1, **change})


@pytest.mark.parametrize("item", [{}, [], None, "SENT", 7])
def test_what_is_no_object_at_all_is_no_delivery_and_no_verdict(item: Any):
    with pytest.raises(ValueError, match="not a wait group"):
        decode_group(item)
    with pytest.raises(ValueError, match="not the evaluation"):
        decode_evaluation(item, M)


@pytest.mark.parametrize("outcome", Outcome)
def test_only_waiting_is_not_the_end(outcome: Outcome):
    assert outcome.final is (outcome is not Outcome.WAITING)
    evaluation = Evaluation(outcome, "said", run(), DENIED)
    assert encode_evaluation(
        decode_evaluation(json.loads(json.dumps(encode_evaluation(evaluation))), M)
    ) == encode_evaluation(evaluation)
