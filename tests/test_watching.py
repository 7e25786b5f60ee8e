"""Each run of a mail task is emitted once: the pure part of DAGs that are scheduled by deliveries."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_quickbi._wait.subject import MailTaskSubject
from airflow_provider_quickbi._watch.tracker import RunTracker, parse_statuses
from airflow_provider_quickbi.api.models import MailTaskRun
from airflow_provider_quickbi.api.operations import StatusQuery

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def run(number: int, status: str, mail_id: str = "m") -> MailTaskRun:
    return MailTaskRun(mail_id, str(7_000_000_000_000_000_000 + number), status, BEGIN + timedelta(hours=number))


def sent() -> RunTracker:
    return RunTracker(MailTaskSubject("m"), frozenset({"SENT"}))


def test_a_run_that_finished_before_the_first_poll_is_no_news() -> None:
    tracker = sent()
    assert tracker.feed([run(1, "SENT")]) == []
    assert tracker.feed([run(1, "SENT")]) == []


def test_a_run_is_notified_once_when_it_reaches_the_wanted_state() -> None:
    tracker = sent()
    assert tracker.feed([run(1, "PROCESSING")]) == []
    assert tracker.feed([run(1, "SENT")]) == [run(1, "SENT")]
    assert tracker.feed([run(1, "SENT")]) == []


def test_a_response_that_is_older_than_the_one_before_it_changes_nothing() -> None:
    tracker = sent()
    notified = [tracker.feed([run(1, status)]) for status in ("PROCESSING", "SENT", "PROCESSING", "SENT", "SENT")]
    assert notified == [[], [run(1, "SENT")], [], [], []]


def test_a_run_that_failed_is_emitted_only_if_statuses_name_it() -> None:
    tracker, both = sent(), RunTracker(MailTaskSubject("m"), frozenset({"SENT", "FAILED"}))
    for watcher in (tracker, both):
        watcher.feed([])
    assert tracker.feed([run(1, "FAILED")]) == []
    assert both.feed([run(1, "FAILED")]) == [run(1, "FAILED")]


def test_a_run_left_active_by_a_later_one_is_queried_by_its_task_id() -> None:
    tracker = sent()
    tracker.feed([run(1, "PROCESSING")])
    tracker.feed([run(2, "SENT")])
    assert tracker.status_queries() == [StatusQuery("m", None), StatusQuery("m", run(1, "").task_id)]
    assert tracker.feed([run(1, "SENT")]) == [run(1, "SENT")]
    assert tracker.status_queries() == [StatusQuery("m", None)]


def test_runs_of_another_mail_task_do_not_count() -> None:
    tracker = sent()
    tracker.feed([])
    assert tracker.feed([run(1, "SENT", mail_id="other")]) == []


def test_after_a_restart_nothing_is_notified_twice_and_nothing_that_ended_meanwhile_is_missed() -> None:
    tracker = sent()
    tracker.feed([run(1, "SENT")])
    tracker.feed([run(2, "SENT")])
    again = sent()
    again.restore(tracker.as_dict())
    assert again.feed([run(2, "SENT")]) == []
    assert again.feed([run(3, "SENT")]) == [run(3, "SENT")]


@pytest.mark.parametrize("kept", [None, 7, "x", [], {}, {"mail_id": "other", "seen": {"1": "SENT"}}, {"mail_id": "m"}])
def test_what_another_program_kept_is_ignored(kept: object) -> None:
    tracker = sent()
    tracker.restore(kept)
    assert tracker.feed([run(1, "SENT")]) == []


@given(st.lists(st.tuples(st.integers(1, 6), st.sampled_from(["PROCESSING", "SENT", "FAILED", "ODD"])), max_size=40))
def test_whatever_the_responses_a_final_state_is_emitted_at_most_once(responses: list[tuple[int, str]]) -> None:
    tracker = sent()
    over: dict[int, str] = {}
    notified: list[str] = []
    for number, status in responses:
        state = over.setdefault(number, status) if status in ("SENT", "FAILED") else over.get(number, status)
        notified += [news.run_id for news in tracker.feed([run(number, state)])]
    assert len(notified) == len(set(notified))


def test_only_the_newest_runs_are_remembered() -> None:
    tracker = sent()
    for number in range(500):
        tracker.feed([run(number, "SENT")])
    assert len(tracker.seen) <= 50


def test_runs_in_a_state_that_nobody_knows_cost_a_few_calls_at_the_most() -> None:
    tracker = sent()
    for number in range(80):
        tracker.feed([run(number, "CANCELLED")])
    newest = [run(number, "").task_id for number in range(75, 80)]
    assert tracker.status_queries() == [StatusQuery("m", task_id) for task_id in (None, *newest)]


def test_a_mail_task_without_a_run_counts_as_polled_after_a_restart() -> None:
    tracker, again = sent(), sent()
    tracker.feed([])
    again.restore(tracker.as_dict())
    assert again.feed([run(1, "SENT")]) == [run(1, "SENT")]


def test_statuses_are_read_in_any_case_and_one_is_needed() -> None:
    assert parse_statuses("sent") == ["SENT"]
    assert parse_statuses(["Sent", " FAILED ", "SENT"]) == ["SENT", "FAILED"]
    for wrong in ([], "", [" "]):
        with pytest.raises(ValueError, match="statuses must name at least one"):
            parse_statuses(wrong)
