"""What a response means for a wait: every outcome, outages, and the two clocks."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from airflow_provider_quickbi._wait.evaluate import evaluate
from airflow_provider_quickbi._wait.selector import RunSelector
from airflow_provider_quickbi._wait.state import (
    DEFAULT_UNREACHABLE_TIMEOUT,
    Outcome,
)
from airflow_provider_quickbi.api.errors import (
    AlreadyRunningError,
    ErrorKind,
    NotStartedError,
    PermanentError,
    QuickBIError,
)

from .cases import BROKEN, DENIED, EIGHT, NOW, THROTTLED, poll_once, run, wait

# What happened -> outcome


def test_a_run_that_is_sent_is_the_success():
    _, evaluation = poll_once(wait(), [run("SENT")])
    assert (evaluation.outcome, evaluation.run) == (Outcome.SUCCEEDED, run("SENT"))
    assert evaluation.message == "Mail task m: run 10 of 2026-07-01T08:00:00+08:00 is SENT."


def test_a_response_with_runs_of_other_mail_tasks_only_is_logged():
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
def test_a_run_that_has_not_finished_is_waited_for(status: str):
    waiting, evaluation = poll_once(wait(), [run(status)])
    assert (evaluation.outcome, evaluation.run) == (Outcome.WAITING, run(status))
    assert waiting.run == run(status)
    documented = status == "PROCESSING"
    assert ("an undocumented status, treated as unfinished" in evaluation.message) is not documented


def test_no_run_is_waited_for():
    _, evaluation = poll_once(wait(), [])
    assert (evaluation.outcome, evaluation.run) == (Outcome.WAITING, None)
    assert evaluation.message == "Mail task m: No run yet."


def test_without_a_response_nothing_is_learnt():
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
def test_what_may_finish_later_is_waited_for(error: QuickBIError):
    _, evaluation = poll_once(wait(), error)
    assert (evaluation.outcome, evaluation.error) == (Outcome.WAITING, error)


def test_throttling_is_never_a_failure():
    _, evaluation = poll_once(wait(), *[THROTTLED] * 10_000)
    assert evaluation.outcome is Outcome.WAITING
    assert evaluation.message == "Mail task m: Rate limited; backing off."


# Quick BI cannot be reached


def test_a_continuous_outage_ends_the_wait_after_unreachable_timeout():
    waiting = wait(unreachable_timeout=180.0)
    waiting, evaluation = poll_once(waiting, BROKEN, BROKEN, BROKEN)
    assert evaluation.outcome is Outcome.WAITING
    assert waiting.gives_up_at == NOW + 180
    _, evaluation = evaluate(waiting, BROKEN, NOW + 180)
    assert (evaluation.outcome, evaluation.error) == (Outcome.UNAVAILABLE, BROKEN)
    assert "was unreachable for 180 s (unreachable_timeout). This says nothing about the report." in evaluation.message


def test_it_is_counted_from_the_first_failed_attempt_and_not_from_the_start_of_the_wait():
    waiting, _ = poll_once(wait(unreachable_timeout=180.0), *[[]] * 10, BROKEN, BROKEN)
    assert waiting.unreachable_since == NOW + 600


@pytest.mark.parametrize("response", [[], [run("PROCESSING")], [run(mail_id="other")], THROTTLED])
def test_any_response_restarts_the_count(response: Any):
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


def test_what_could_not_be_polled_is_not_known_not_to_have_started():
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
def test_a_timeout_says_nothing_about_a_report_that_could_not_be_polled(error: Any):
    waiting, _ = poll_once(wait(finish_by=NOW + 600, unreachable_timeout=1e6), [run("PROCESSING")])
    assert evaluate(waiting, error, NOW + 599)[1].outcome is Outcome.WAITING
    _, evaluation = evaluate(waiting, error, NOW + 600)
    assert evaluation.outcome is Outcome.UNAVAILABLE
    assert evaluation.message.startswith("Mail task m: timed out after 600 s, and the last poll failed")
    assert "This says nothing about the report." in evaluation.message
    assert str(error) in evaluation.message
    assert evaluate(waiting, [run("PROCESSING")], NOW + 600)[1].outcome is Outcome.TIMED_OUT


def test_a_clock_that_is_set_back_does_not_keep_a_wait_from_polling():
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
def test_the_state_is_evaluated_before_any_deadline(limits: dict[str, Any], status: str, outcome: Outcome):
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
