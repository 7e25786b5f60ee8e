"""Which run a wait selects, and which later one after a failed run."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from airflow_provider_quickbi._wait.evaluate import evaluate
from airflow_provider_quickbi._wait.messages import describe
from airflow_provider_quickbi._wait.selector import KNOWN_RUNS, RunSelector
from airflow_provider_quickbi._wait.state import (
    OnFailed,
    Outcome,
)
from airflow_provider_quickbi.api.models import MailTaskRun
from airflow_provider_quickbi.api.operations import StatusQuery

from .cases import EIGHT, NOW, SHANGHAI, poll_once, run, wait

# Which run counts


def test_without_a_window_the_latest_run_matches_whatever_its_age():
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
def test_executed_after_is_an_instant_whatever_the_zones(exec_time: datetime, counts: bool, fence_zone: timezone):
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


def test_there_is_nothing_to_poll_before_executed_after():
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


def test_a_wait_that_only_wants_to_see_a_run_is_finished_then_whatever_its_state():
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


def test_the_window_still_holds_for_the_later_run():
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
