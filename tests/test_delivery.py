"""The table of outcomes, row by row: what each answer of Quick BI means for those who wait."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from airflow_provider_quickbi.api.errors import (
    AlreadyRunningError,
    ErrorKind,
    NotStartedError,
    PermanentError,
    QuickBIError,
    ThrottledError,
    TransientError,
)
from airflow_provider_quickbi.api.models import MailTaskRun, Question
from airflow_provider_quickbi.delivery import (
    DEFAULT_UNREACHABLE_TIMEOUT,
    KNOWN_RUNS,
    Delivery,
    Fence,
    OnFailed,
    Outcome,
    Verdict,
    Wait,
    describe,
    judge,
)

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


def wait(**changes: Any) -> Wait:
    """A wait that began at eight."""
    return Wait(**{"mail_id": "m", "fence": Fence(), "since": NOW, **changes})


def look(waiting: Wait, *answers: Any, every: float = 60.0) -> tuple[Wait, Verdict]:
    """Judge one answer after the other, a minute apart, the first one at eight."""
    verdict = None
    for number, answer in enumerate(answers):
        waiting, verdict = judge(waiting, answer, NOW + number * every)
    assert verdict is not None
    return waiting, verdict


# What happened -> outcome


def test_a_run_that_is_sent_is_the_success():
    _, verdict = look(wait(), [run("SENT")])
    assert (verdict.outcome, verdict.run) == (Outcome.SENT, run("SENT"))
    assert verdict.message == "Mail task m: run 10 of 2026-07-01T08:00:00+08:00 is SENT."


def test_an_answer_with_runs_of_other_mail_tasks_only_is_told():
    waiting, verdict = look(wait(), [run("SENT", mail_id="0815")])
    assert verdict.outcome is Outcome.WAITING
    assert "Quick BI answered with runs of other mail tasks, such as '0815'" in verdict.message
    assert "No run" not in verdict.message
    _, verdict = look(waiting, [])
    assert "No run at all yet." in verdict.message
    _, verdict = look(wait(start_timeout=60), [run(mail_id="x")], [run(mail_id="x")])
    assert verdict.outcome is Outcome.NOT_STARTED
    assert "Quick BI answered with runs of other mail tasks" in verdict.message
    _, verdict = look(wait(), [run("PROCESSING")], [run(mail_id="x")])
    assert "Run 10 of 2026-07-01T08:00:00+08:00 is PROCESSING." in verdict.message


def test_a_run_that_failed_ends_the_wait():
    _, verdict = look(wait(), [run("FAILED")])
    assert (verdict.outcome, verdict.run) == (Outcome.FAILED, run("FAILED"))
    assert "run 10 of 2026-07-01T08:00:00+08:00 FAILED: Quick BI did not send the report." in verdict.message


@pytest.mark.parametrize("status", ["PROCESSING", "QUEUED", "SENDING", "???"])
def test_a_run_that_is_not_over_is_waited_for(status: str):
    waiting, verdict = look(wait(), [run(status)])
    assert (verdict.outcome, verdict.run) == (Outcome.WAITING, run(status))
    assert waiting.run == run(status)
    documented = status == "PROCESSING"
    assert ("not documented and counts as unfinished" in verdict.message) is not documented


def test_no_run_is_waited_for():
    _, verdict = look(wait(), [])
    assert (verdict.outcome, verdict.run) == (Outcome.WAITING, None)
    assert verdict.message == "Mail task m: No run at all yet."


def test_nothing_asked_is_nothing_learnt():
    before = wait(run=run("PROCESSING"), start_timeout=60.0)
    after, verdict = judge(before, None, NOW + 10)
    assert (after, verdict.outcome) == (before, Outcome.WAITING)


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
    _, verdict = look(wait(run=run("PROCESSING")), error)
    assert (verdict.outcome, verdict.error, verdict.run) == (Outcome.REFUSED, error, run("PROCESSING"))
    assert str(error) in verdict.message


@pytest.mark.parametrize(
    "error", [THROTTLED, BROKEN, NotStartedError("x"), AlreadyRunningError("x")], ids=lambda error: type(error).__name__
)
def test_what_may_be_over_later_is_waited_for(error: QuickBIError):
    _, verdict = look(wait(), error)
    assert (verdict.outcome, verdict.error) == (Outcome.WAITING, error)


def test_throttling_is_never_a_failure():
    _, verdict = look(wait(), *[THROTTLED] * 10_000)
    assert verdict.outcome is Outcome.WAITING
    assert verdict.message == "Mail task m: Quick BI throttled the question; asking again, slower."


# Quick BI cannot be asked


def test_nothing_but_failed_attempts_to_ask_ends_the_wait_after_unreachable_timeout():
    waiting = wait(unreachable_timeout=180.0)
    waiting, verdict = look(waiting, BROKEN, BROKEN, BROKEN)
    assert verdict.outcome is Outcome.WAITING
    assert waiting.gives_up_at == NOW + 180
    _, verdict = judge(waiting, BROKEN, NOW + 180)
    assert (verdict.outcome, verdict.error) == (Outcome.UNAVAILABLE, BROKEN)
    assert "could not be asked for 180 s (unreachable_timeout). This says nothing about the report." in verdict.message


def test_it_is_counted_from_the_first_failed_attempt_and_not_from_the_begin_of_the_wait():
    waiting, _ = look(wait(unreachable_timeout=180.0), *[[]] * 10, BROKEN, BROKEN)
    assert waiting.unreachable_since == NOW + 600


@pytest.mark.parametrize("answer", [[], [run("PROCESSING")], [run(mail_id="other")], THROTTLED])
def test_any_answer_begins_to_count_anew(answer: Any):
    waiting, verdict = look(wait(unreachable_timeout=120.0), BROKEN, answer, BROKEN, answer, BROKEN, answer)
    assert verdict.outcome is Outcome.WAITING
    assert waiting.unreachable_since is None
    waiting, verdict = judge(waiting, BROKEN, NOW + 1000)
    assert (verdict.outcome, waiting.unreachable_since) == (Outcome.WAITING, NOW + 1000)


def test_no_patience_at_all_means_the_first_failed_attempt():
    assert look(wait(unreachable_timeout=0.0), BROKEN)[1].outcome is Outcome.UNAVAILABLE


def test_half_an_hour_is_the_default():
    assert wait().unreachable_timeout == DEFAULT_UNREACHABLE_TIMEOUT == 1800.0


# The two clocks


def test_no_run_within_start_timeout_ends_the_wait():
    waiting = wait(start_timeout=300.0)
    assert waiting.start_by == waiting.gives_up_at == NOW + 300
    assert judge(waiting, [], NOW + 299)[1].outcome is Outcome.WAITING
    _, verdict = judge(waiting, [], NOW + 300)
    assert verdict.outcome is Outcome.NOT_STARTED
    assert verdict.message == ("Mail task m: no run at all started within start_timeout (300 s). No run at all yet.")


def test_a_run_that_does_not_count_does_not_stop_that_clock_and_is_named():
    fence = Fence(executed_after=EIGHT)
    _, verdict = judge(wait(fence=fence, start_timeout=300.0), [run("SENT", minutes=-60)], NOW + 300)
    assert verdict.outcome is Outcome.NOT_STARTED
    assert "the latest is 10 of 2026-07-01T07:00:00+08:00, SENT" in verdict.message
    assert verdict.run is None


def test_the_start_is_counted_from_executed_after_where_that_is_later():
    waiting = wait(fence=Fence(executed_after=EIGHT + timedelta(hours=1)), start_timeout=300.0)
    assert waiting.asks_from == NOW + 3600
    assert waiting.start_by == NOW + 3900
    earlier = wait(fence=Fence(executed_after=EIGHT - timedelta(hours=1)), start_timeout=300.0)
    assert earlier.start_by == NOW + 300


def test_a_run_that_was_seen_stops_the_clock_of_the_start_for_good():
    waiting, _ = look(wait(start_timeout=300.0), [run("PROCESSING")])
    assert waiting.start_by is None
    assert judge(waiting, [], NOW + 10_000)[1].outcome is Outcome.WAITING


def test_what_could_not_be_asked_is_not_known_not_to_have_started():
    waiting, verdict = look(wait(start_timeout=300.0), *[BROKEN] * 10)
    assert verdict.outcome is Outcome.WAITING
    assert judge(waiting, [run("SENT")], NOW + 3600)[1].outcome is Outcome.SENT
    assert judge(waiting, [], NOW + 3600)[1].outcome is Outcome.NOT_STARTED


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ([run("PROCESSING")], "Run 10 of 2026-07-01T08:00:00+08:00 is PROCESSING."),
        ([], "No run at all yet."),
        (None, "No run at all yet."),
    ],
)
def test_a_timeout_says_what_the_run_was_doing(answer: Any, said: str):
    waiting = wait(finish_by=NOW + 600, unreachable_timeout=1e6)
    assert judge(waiting, answer, NOW + 599)[1].outcome is Outcome.WAITING
    _, verdict = judge(waiting, answer, NOW + 600)
    assert verdict.outcome is Outcome.TIMED_OUT
    assert verdict.message.startswith("Mail task m: the timeout (600 s) is over. ")
    assert said in verdict.message


@pytest.mark.parametrize("error", [BROKEN, THROTTLED])
def test_a_timeout_says_nothing_about_a_report_that_could_not_be_asked_for(error: Any):
    waiting, _ = look(wait(finish_by=NOW + 600, unreachable_timeout=1e6), [run("PROCESSING")])
    assert judge(waiting, error, NOW + 599)[1].outcome is Outcome.WAITING
    _, verdict = judge(waiting, error, NOW + 600)
    assert verdict.outcome is Outcome.UNAVAILABLE
    assert verdict.message.startswith("Mail task m: the timeout (600 s) is over, and Quick BI could not be asked")
    assert "This says nothing about the report." in verdict.message
    assert str(error) in verdict.message
    assert judge(waiting, [run("PROCESSING")], NOW + 600)[1].outcome is Outcome.TIMED_OUT


def test_a_clock_that_is_set_back_does_not_keep_a_wait_from_asking():
    before = NOW - 3600
    assert wait().question(before) is not None
    fenced = wait(fence=Fence(executed_after=datetime.fromtimestamp(NOW - 60, UTC)))
    assert fenced.question(before) is None
    pinned, _ = look(fenced, [run("PROCESSING")])
    assert pinned.question(before) is not None


@pytest.mark.parametrize(
    "limits", [{"finish_by": NOW + 60}, {"start_timeout": 60.0}, {"unreachable_timeout": 0.0}, {"finish_by": NOW - 60}]
)
@pytest.mark.parametrize(("status", "outcome"), [("SENT", Outcome.SENT), ("FAILED", Outcome.FAILED)])
def test_the_state_is_looked_at_before_any_deadline(limits: dict[str, Any], status: str, outcome: Outcome):
    waiting, _ = judge(wait(**limits), None, NOW)
    assert judge(waiting, [run(status)], NOW + 100_000)[1].outcome is outcome


def test_a_wait_without_limits_never_gives_up():
    assert wait().gives_up_at is None
    assert look(wait(), *[[]] * 1000, every=86_400)[1].outcome is Outcome.WAITING


def test_the_next_instant_at_which_it_ends_is_that_of_the_first_limit():
    waiting = wait(start_timeout=300.0, finish_by=NOW + 600)
    assert waiting.gives_up_at == NOW + 300
    broken, _ = look(replace(waiting, unreachable_timeout=120.0), BROKEN)
    assert broken.gives_up_at == NOW + 120
    seen, _ = look(waiting, [run("PROCESSING")])
    assert seen.gives_up_at == NOW + 600


# Which run counts


def test_without_a_fence_the_latest_run_counts_whatever_its_age():
    _, verdict = look(wait(), [run("SENT", -1440, "9"), run("FAILED", -60, "10")])
    assert (verdict.outcome, verdict.run.task_id if verdict.run else None) == (Outcome.FAILED, "10")


def test_after_the_fence_the_first_run_counts():
    fence = Fence(executed_after=EIGHT)
    answer = [run("SENT", 30, "12"), run("FAILED", 20, "11"), run("SENT", -1, "9")]
    _, verdict = look(wait(fence=fence), answer)
    assert (verdict.outcome, verdict.run.task_id if verdict.run else None) == (Outcome.FAILED, "11")


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
    fence = Fence(executed_after=EIGHT.astimezone(fence_zone))
    _, verdict = look(wait(fence=fence), [MailTaskRun("m", "10", "SENT", exec_time)])
    assert (verdict.outcome is Outcome.SENT) is counts


def test_exactly_the_run_that_is_named_counts():
    waiting = wait(fence=Fence(task_id="9"))
    assert waiting.question(NOW) == Question("m", "9")
    waiting, verdict = look(waiting, [run("SENT", 0, "10")])
    assert (verdict.outcome, waiting.overlooked) == (Outcome.WAITING, run("SENT", 0, "10"))
    assert "No run with TaskId 9 yet; the latest is 10" in verdict.message
    assert judge(waiting, [run("SENT", 0, "10"), run("FAILED", 0, "9")], NOW)[1].outcome is Outcome.FAILED


def test_a_run_that_was_there_before_does_not_count():
    fence = Fence(other_than=("9", "10"))
    waiting, verdict = look(wait(fence=fence), [run("SENT", 0, "10")])
    assert verdict.outcome is Outcome.WAITING
    assert "No run other than 9, 10 yet" in verdict.message
    assert judge(waiting, [run("SENT", 1, "11"), run("SENT", 0, "10")], NOW)[1].outcome is Outcome.SENT


def test_a_run_of_another_mail_task_never_counts():
    waiting, verdict = look(wait(), [run("SENT", mail_id="other")])
    assert (verdict.outcome, waiting.run, waiting.overlooked) == (Outcome.WAITING, None, None)


def test_there_is_nothing_to_ask_before_the_fence():
    waiting = wait(fence=Fence(executed_after=EIGHT + timedelta(hours=1)))
    assert waiting.question(NOW) is None
    assert waiting.question(NOW + 3599.9) is None
    assert waiting.question(NOW + 3600) == Question("m", None)
    assert describe(waiting, NOW) == "Mail task m: Nothing to ask before executed_after, 2026-07-01T01:00:00+00:00."


def test_once_seen_the_wait_is_pinned_to_the_run():
    waiting, _ = look(wait(), [run("PROCESSING", 0, "10")])
    assert waiting.question(NOW) == Question("m", "10")
    waiting, verdict = judge(waiting, [run("SENT", 5, "11")], NOW + 60)
    assert (verdict.outcome, waiting.run) == (Outcome.WAITING, run("PROCESSING", 0, "10"))
    waiting, verdict = judge(waiting, [], NOW + 120)
    assert (verdict.outcome, waiting.run) == (Outcome.WAITING, run("PROCESSING", 0, "10"))
    assert judge(waiting, [run("SENT", 0, "10")], NOW + 180)[1].outcome is Outcome.SENT


def test_a_wait_that_only_wants_to_see_a_run_is_over_then_whatever_its_state():
    for status in ("PROCESSING", "SENT", "FAILED", "QUEUED"):
        _, verdict = look(wait(until_seen=True, fence=Fence(other_than=("9",))), [run("SENT", -1, "9"), run(status)])
        assert (verdict.outcome, verdict.run) == (Outcome.SEEN, run(status))
    assert look(wait(until_seen=True), [])[1].outcome is Outcome.WAITING


# A run that failed, if a later one is waited for


def test_a_later_run_is_waited_for():
    waiting, verdict = look(wait(on_failed=OnFailed.WAIT), [run("FAILED", 0, "10")])
    assert verdict.outcome is Outcome.WAITING
    assert (waiting.run, waiting.overlooked) == (None, run("FAILED", 0, "10"))
    assert waiting.question(NOW + 60) == Question("m", None)
    assert "other than 10 yet; the latest is 10 of 2026-07-01T08:00:00+08:00, FAILED" in verdict.message
    waiting, verdict = judge(waiting, [run("FAILED", 0, "10")], NOW + 60)
    assert verdict.outcome is Outcome.WAITING
    waiting, verdict = judge(waiting, [run("SENT", 10, "11")], NOW + 700)
    assert verdict.outcome is Outcome.SENT


def test_there_is_no_later_run_than_the_one_that_is_named():
    _, verdict = look(wait(fence=Fence(task_id="10"), on_failed=OnFailed.WAIT), [run("FAILED", 0, "10")])
    assert verdict.outcome is Outcome.FAILED


def test_an_earlier_run_is_not_taken_for_a_later_one():
    waiting, _ = look(wait(on_failed=OnFailed.WAIT), [run("FAILED", 0, "10")])
    _, verdict = judge(waiting, [run("SENT", -10, "9"), run("FAILED", 0, "10")], NOW + 60)
    assert verdict.outcome is Outcome.WAITING


def test_the_fence_still_holds_for_the_later_run():
    fence = Fence(executed_after=EIGHT + timedelta(minutes=5))
    waiting, _ = judge(wait(fence=fence, on_failed=OnFailed.WAIT), [run("FAILED", 6, "10")], NOW + 400)
    assert waiting.fence.executed_after == EIGHT + timedelta(minutes=6)
    assert waiting.fence.other_than == ("10",)


def test_the_later_run_has_the_whole_start_timeout():
    waiting = wait(on_failed=OnFailed.WAIT, start_timeout=300.0)
    waiting, _ = judge(waiting, [run("FAILED", 0, "10")], NOW + 1000)
    assert waiting.start_by == NOW + 1300
    assert judge(waiting, [run("FAILED", 0, "10")], NOW + 1299)[1].outcome is Outcome.WAITING
    assert judge(waiting, [run("FAILED", 0, "10")], NOW + 1300)[1].outcome is Outcome.NOT_STARTED


def test_one_failed_run_after_the_other_is_waited_out_until_the_timeout():
    waiting = wait(on_failed=OnFailed.WAIT, finish_by=NOW + 100_000)
    for number in range(100):
        waiting, verdict = judge(waiting, [run("FAILED", number, str(10 + number))], NOW + 60 * number)
        assert verdict.outcome is Outcome.WAITING
    assert len(waiting.fence.other_than) == KNOWN_RUNS
    assert judge(waiting, [run("SENT", 200, "500")], NOW + 20_000)[1].outcome is Outcome.SENT


# What is said


def test_the_sentence_changes_only_when_something_has_changed():
    def sentences(answers: list[Any]) -> set[str]:
        waiting, said = wait(), set()
        for number, answer in enumerate(answers):
            waiting, verdict = judge(waiting, answer, NOW + 60 * number)
            said.add(verdict.message)
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
    ("fence", "said"),
    [
        (Fence(), "at all"),
        (Fence(task_id="7"), "with TaskId 7"),
        (Fence(executed_after=EIGHT), "that began at or after 2026-07-01T08:00:00+08:00"),
        (Fence(other_than=("1",)), "other than 1"),
        (Fence(other_than=("1", "2", "3", "4")), "other than 1, 2, 3, ..."),
        (
            Fence(executed_after=EIGHT, other_than=("1",)),
            "that began at or after 2026-07-01T08:00:00+08:00 and other than 1",
        ),
    ],
)
def test_a_fence_says_which_runs_count(fence: Fence, said: str):
    assert str(fence) == said


# Several mail tasks


def several(*outcomes: Any, required: int | None = None) -> Delivery:
    """A delivery of one mail task for each answer, each judged once."""
    waits = [wait(mail_id=f"m-{number}") for number in range(len(outcomes))]
    delivery = Delivery.of(waits, required=required)
    for number, answer in enumerate(outcomes):
        if isinstance(answer, str):
            answer = [run(answer, mail_id=f"m-{number}")]  # noqa: PLW2901 - a status stands for a run in that state
        delivery = delivery.judged(number, answer, NOW + 60)
    return delivery


@pytest.mark.parametrize(
    ("answers", "required", "outcome"),
    [
        (["SENT", "SENT", "SENT"], None, Outcome.SENT),
        (["SENT", "SENT", "PROCESSING"], None, Outcome.WAITING),
        (["SENT", "FAILED", "PROCESSING"], None, Outcome.FAILED),
        (["SENT", "SENT", "PROCESSING"], 2, Outcome.SENT),
        (["SENT", "FAILED", "PROCESSING"], 2, Outcome.WAITING),
        (["FAILED", "FAILED", "PROCESSING"], 2, Outcome.FAILED),
        (["PROCESSING", "SENT", "FAILED"], 1, Outcome.SENT),
        (["FAILED", "FAILED", "PROCESSING"], 1, Outcome.WAITING),
        (["FAILED", "FAILED", "FAILED"], 1, Outcome.FAILED),
        (["FAILED", DENIED, "FAILED"], 1, Outcome.REFUSED),
        ([BROKEN, "SENT", THROTTLED], None, Outcome.WAITING),
    ],
)
def test_several_mail_tasks_are_sent_once_enough_are_and_lost_once_enough_cannot_be(
    answers: list[Any], required: int | None, outcome: Outcome
):
    delivery = several(*answers, required=required)
    assert delivery.verdict.outcome is outcome
    assert f"{answers.count('SENT')} of 3 mail tasks are SENT, {required or 3} required." in delivery.verdict.message


@pytest.mark.parametrize(
    ("ends", "worst"),
    [
        ([DENIED, "FAILED"], Outcome.REFUSED),
        (["FAILED", DENIED], Outcome.REFUSED),
    ],
)
def test_of_several_reasons_the_one_that_needs_a_person_most_decides(ends: list[Any], worst: Outcome):
    delivery = several(*ends)
    assert delivery.verdict.outcome is worst
    assert all(verdict.message in delivery.verdict.message for verdict in delivery.verdicts)


def test_the_order_of_reasons_is_refused_failed_not_started_timed_out_unavailable():
    order = [Outcome.REFUSED, Outcome.FAILED, Outcome.NOT_STARTED, Outcome.TIMED_OUT, Outcome.UNAVAILABLE]
    for first in range(len(order)):
        for second in range(first, len(order)):
            for pair in ((order[first], order[second]), (order[second], order[first])):
                verdicts = tuple(Verdict(outcome, outcome.value) for outcome in pair)
                delivery = Delivery(waits=(wait(), wait(mail_id="n")), verdicts=verdicts, required=2)
                assert delivery.verdict.outcome is order[first]


def test_only_what_is_not_settled_is_looked_at_again():
    assert several("SENT", "PROCESSING", "FAILED", BROKEN, DENIED, required=1).unsettled() == [1, 3]


def test_one_mail_task_speaks_for_itself():
    delivery = several("PROCESSING")
    assert delivery.verdict is delivery.verdicts[0]


def test_the_results_are_in_the_order_of_the_mail_tasks_and_have_no_gaps():
    assert several("SENT", [], "PROCESSING", required=1).results() == [
        {"mail_id": "m-0", "task_id": "10", "status": "SENT", "exec_time": "2026-07-01T08:00:00+08:00"},
        {"mail_id": "m-1", "task_id": None, "status": None, "exec_time": None},
        {"mail_id": "m-2", "task_id": "10", "status": "PROCESSING", "exec_time": "2026-07-01T08:00:00+08:00"},
    ]


def test_a_delivery_is_late_once_and_only_while_it_is_waited_for():
    delivery = Delivery.of([wait()], late_at=NOW + 600)
    assert not delivery.is_late(NOW + 599)
    assert delivery.is_late(NOW + 600)
    assert not delivery.told().is_late(NOW + 600)
    assert not delivery.judged(0, [run("SENT")], NOW + 600).is_late(NOW + 700)
    assert not Delivery.of([wait()]).is_late(NOW + 1e9)


# What is kept


STATES = {
    "new": wait(),
    "named run": wait(fence=Fence(task_id="7218865303929605212")),
    "after the fence": wait(fence=Fence(executed_after=EIGHT), start_timeout=60.0, finish_by=NOW + 600),
    "pinned": look(wait(), [run("PROCESSING")])[0],
    "odd status": look(wait(), [run("QUEUED")])[0],
    "overlooked": look(wait(fence=Fence(executed_after=EIGHT)), [run("SENT", -5)])[0],
    "waits for a later one": look(wait(on_failed=OnFailed.WAIT), [run("FAILED")])[0],
    "unreachable": look(wait(unreachable_timeout=60.0), BROKEN)[0],
    "throttled": look(wait(), THROTTLED)[0],
    "until seen": wait(until_seen=True, fence=Fence(other_than=("1", "2"))),
}


@pytest.mark.parametrize("waiting", STATES.values(), ids=STATES)
def test_every_state_of_a_wait_survives_json(waiting: Wait):
    copy = Wait.from_dict(json.loads(json.dumps(waiting.as_dict())))
    assert copy.as_dict() == waiting.as_dict()
    assert replace(copy, error=None) == replace(waiting, error=None)
    for answer in ([], [run("SENT", 10, "99")], BROKEN, THROTTLED, None):
        after, verdict = judge(waiting, answer, NOW + 90)
        after_copy, verdict_copy = judge(copy, answer, NOW + 90)
        assert (after.as_dict(), verdict.as_dict()) == (after_copy.as_dict(), verdict_copy.as_dict())


@pytest.mark.parametrize(
    "answers", [["SENT", DENIED], [BROKEN, THROTTLED], ["FAILED", []], ["PROCESSING", "QUEUED"], [None, None]]
)
def test_every_state_of_a_delivery_survives_json(answers: list[Any]):
    delivery = replace(several(*answers, required=1), late_at=NOW + 5.5)
    copy = Delivery.from_dict(json.loads(json.dumps(delivery.as_dict())))
    assert copy.as_dict() == delivery.as_dict()
    assert copy.verdict.as_dict() == delivery.verdict.as_dict()


#: Kept by version 1 in trigger arguments and in the task's state; later releases must be able to go on from here.
VERSION_1 = {
    "waits": [
        {
            "mail_id": "m",
            "task_id": None,
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
            "overlooked": None,
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
                "reached": True,
            },
        }
    ],
    "verdicts": [{"outcome": "waiting", "message": "waiting", "run": None, "error": None}],
    "required": 1,
    "late_at": None,
}


def test_what_version_1_has_kept_is_read_and_goes_on():
    delivery = Delivery.from_dict(json.loads(json.dumps(VERSION_1)))
    assert delivery.as_dict() == VERSION_1
    [waiting] = delivery.waits
    assert waiting.question(NOW + 1000) == Question("m", "7218865303929605212")
    sent = delivery.judged(0, [replace(waiting.run, status="SENT")], NOW + 1000)
    assert sent.verdict.outcome is Outcome.SENT


def test_what_an_earlier_version_did_not_keep_has_its_default():
    least = {"mail_id": "m", "since": NOW}
    assert Wait.from_dict(least) == wait()


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
        {"verdicts": []},
        {"verdicts": None},
        {"verdicts": [None]},
        {"verdicts": [{"outcome": "delivered", "message": ""}]},
        {"verdicts": [{"outcome": "SENT", "message": ""}]},
        {"verdicts": [{"message": ""}]},
        {"verdicts": [{"outcome": "waiting", "message": "", "error": {"kind": "odd"}}]},
        {"required": 0},
        {"required": 2},
        {"required": None},
        {"required": "many"},
    ],
    ids=str,
)
def test_what_is_no_delivery_is_never_taken_for_one(change: dict[str, Any]):
    with pytest.raises(ValueError):  # noqa: PT011 - which one does not matter: the caller refuses the event
        Delivery.from_dict({**VERSION_1, **change})


@pytest.mark.parametrize("item", [{}, [], None, "SENT", 7])
def test_what_is_no_object_at_all_is_no_delivery_and_no_verdict(item: Any):
    with pytest.raises(ValueError, match="not a delivery"):
        Delivery.from_dict(item)
    with pytest.raises(ValueError, match="not the verdict"):
        Verdict.from_dict(item)


@pytest.mark.parametrize("outcome", Outcome)
def test_only_waiting_is_not_the_end(outcome: Outcome):
    assert outcome.final is (outcome is not Outcome.WAITING)
    verdict = Verdict(outcome, "said", run(), DENIED)
    assert Verdict.from_dict(json.loads(json.dumps(verdict.as_dict()))).as_dict() == verdict.as_dict()
