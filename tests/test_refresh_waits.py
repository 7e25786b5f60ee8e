"""A wait for a dataset's refresh is that for a mail, but that Quick BI shows only the latest refresh: the pure part."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from airflow_provider_quickbi._send.record import StartRecord
from airflow_provider_quickbi._send.state import AttemptState, Phase
from airflow_provider_quickbi._wait.codec import decode_group, encode_group
from airflow_provider_quickbi._wait.evaluate import evaluate, evaluate_group
from airflow_provider_quickbi._wait.selector import RunSelector
from airflow_provider_quickbi._wait.state import Evaluation, OnFailed, Outcome, WaitGroup, WaitState
from airflow_provider_quickbi._wait.subject import DatasetSubject, MailTaskSubject, Subject, read_subject
from airflow_provider_quickbi._watch.tracker import RunTracker
from airflow_provider_quickbi.api.dataset_operations import RefreshQuery
from airflow_provider_quickbi.api.datasets import DatasetRefreshJob
from airflow_provider_quickbi.exceptions import QuickBIDatasetRefreshFailed, outcome_error

SIX = datetime(2026, 7, 1, 6, tzinfo=UTC)
NOW = SIX.timestamp()
CUBE = DatasetSubject("cube-1", "Sales")


def refresh(job: int, status: str = "RUNNING", minutes: int = 0, dataset_id: str = "cube-1") -> DatasetRefreshJob:
    """A refresh that started so many minutes after six."""
    started = SIX + timedelta(minutes=minutes)
    ended = started + timedelta(minutes=1) if status in ("SUCCESS", "FAILURE", "CANCELED") else None
    return DatasetRefreshJob(dataset_id, f"job-{job}", status, started, ended)


def wait(**changes: Any) -> WaitState:
    return WaitState(**{"subject": CUBE, "selector": RunSelector(), "since": NOW, "finish_by": NOW + 3600, **changes})


def after(state: WaitState, *latest: DatasetRefreshJob) -> tuple[WaitState, Evaluation]:
    """Show one refresh after the other, five minutes apart."""
    now, found = NOW + 1200, None
    for shown in latest:
        state, found = evaluate(state, [shown], now)
        now += 300
    assert found is not None
    return state, found


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        ("SUCCESS", Outcome.SUCCEEDED),
        ("FAILURE", Outcome.FAILED),
        ("CANCELED", Outcome.FAILED),
        # TODO is the service's name for a refresh that is queued.
        *((status, Outcome.WAITING) for status in ("TODO", "RUNNING", "CHECK_DEPENDENCY", "WARN", "SENT", "FAILED")),
    ],
)
def test_only_the_final_statuses_of_a_refresh_end_the_wait(status: str, outcome: Outcome):
    _, found = after(wait(), refresh(1, status))
    assert found.outcome is outcome
    odd = status in ("WARN", "SENT", "FAILED")
    assert ("an undocumented status, treated as unfinished" in found.message) is odd
    assert found.message.startswith("Dataset cube-1 (Sales): ")


def test_a_failed_refresh_says_where_to_look_and_is_no_failed_mail():
    _, found = after(wait(), refresh(1, "CANCELED"))
    error = outcome_error(found)
    assert type(error) is QuickBIDatasetRefreshFailed
    assert "refresh job-1 of 2026-07-01T06:00:00+00:00 is CANCELED: Quick BI did not refresh the data" in str(error)


def test_a_wait_polls_the_latest_refresh_because_no_other_can_be_requested():
    pinned, _ = after(wait(), refresh(1))
    assert pinned.run == refresh(1)
    assert pinned.status_query(NOW) == RefreshQuery("cube-1")


def test_a_later_refresh_in_the_window_takes_the_place_of_the_one_it_hides():
    state, found = after(wait(selector=RunSelector(executed_after=SIX)), refresh(1), refresh(2, minutes=10))
    assert (found.outcome, state.run) == (Outcome.WAITING, refresh(2, minutes=10))
    _, found = after(state, refresh(2, "SUCCESS", 10))
    assert (found.outcome, found.run) == (Outcome.SUCCEEDED, refresh(2, "SUCCESS", 10))


def test_a_refresh_hidden_by_one_after_the_window_is_missed_and_not_a_success():
    selector = RunSelector(executed_after=SIX, executed_before=SIX + timedelta(minutes=5))
    _, found = after(wait(selector=selector), refresh(1), refresh(2, "SUCCESS", 10))
    assert found.outcome is Outcome.MISSED
    assert "refresh job-1 of 2026-07-01T06:00:00+00:00 was RUNNING when last seen, and job-2" in found.message
    assert "Quick BI shows only the latest refresh" in found.message


def test_the_refresh_that_was_named_is_missed_once_another_hides_it():
    named = wait(selector=RunSelector(run_id="job-1", other_than=("job-0",)))
    _, found = after(named, refresh(0, "SUCCESS", -60))
    assert found.outcome is Outcome.WAITING  # a response older than what was seen before
    _, found = after(named, refresh(2, "SUCCESS", 10))
    assert found.outcome is Outcome.MISSED


def test_an_older_refresh_shown_again_does_not_hide_the_one_that_was_seen():
    state, found = after(wait(selector=RunSelector(executed_after=SIX)), refresh(2, minutes=10), refresh(1, "SUCCESS"))
    assert (found.outcome, state.run) == (Outcome.WAITING, refresh(2, minutes=10))


def test_with_on_failed_wait_a_later_refresh_in_the_window_decides():
    selector = RunSelector(executed_after=SIX)
    state, found = after(wait(selector=selector, on_failed=OnFailed.WAIT), refresh(1, "FAILURE"))
    assert found.outcome is Outcome.WAITING
    _, found = after(state, refresh(1, "FAILURE"), refresh(2, "SUCCESS", 10))
    assert (found.outcome, found.run) == (Outcome.SUCCEEDED, refresh(2, "SUCCESS", 10))


def test_a_refresh_dated_in_the_future_names_the_time_zone():
    _, found = evaluate(wait(), [refresh(1, "SUCCESS", 8 * 60)], NOW)
    assert found.outcome is Outcome.WRONG_TIMEZONE
    assert "8.0 h in the future. Quick BI writes GmtCreate in another time zone" in found.message
    assert "Set timezone to Asia/Shanghai" in found.message


def test_refreshes_of_another_dataset_do_not_count():
    _, found = after(wait(), refresh(1, "SUCCESS", dataset_id="cube-2"))
    assert found.outcome is Outcome.WAITING
    assert "refreshes of other datasets, such as 'cube-2'" in found.message


def test_what_is_kept_of_a_wait_for_a_dataset_goes_on():
    group = evaluate_group(WaitGroup.of([wait()]), 0, [refresh(1)], NOW + 1200)
    kept = json.loads(json.dumps(encode_group(group)))
    assert kept["waits"][0]["subject"]["kind"] == "dataset"
    again = evaluate_group(decode_group(kept), 0, [refresh(1, "SUCCESS")], NOW + 1500)
    assert again.results() == [
        {
            "dataset_id": "cube-1",
            "dataset_name": "Sales",
            "job_id": "job-1",
            "status": "SUCCESS",
            "started_at": "2026-07-01T06:00:00+00:00",
            "ended_at": "2026-07-01T06:01:00+00:00",
        }
    ]


@pytest.mark.parametrize("subject", [None, "cube-1", {}, {"kind": "dashboard", "id": "1"}, {"kind": "dataset"}])
def test_a_subject_that_nobody_knows_is_no_wait_at_all(subject: Any):
    kept = encode_group(WaitGroup.of([wait()]))
    kept["waits"][0]["subject"] = subject
    with pytest.raises(ValueError, match="not a wait group"):
        decode_group(kept)


def test_the_record_and_the_try_of_a_refresh_survive_json():
    record = StartRecord.of(CUBE, [refresh(1, "SUCCESS")], NOW)
    assert StartRecord.from_dict(json.loads(json.dumps(record.as_dict()))) == record
    state = AttemptState(subject=CUBE, finish_by=NOW, phase=Phase.MONITORING, record=record, run=refresh(2))
    assert AttemptState.from_dict(json.loads(json.dumps(state.as_dict()))) == state
    assert state.final("Timed out.") == (
        "Timed out. This try started nothing; it is not known whether an earlier one did. Check the Quick BI console "
        "before you clear this task: clearing starts the refresh again."
    )


def test_a_dataset_and_a_mail_task_of_one_id_are_two_subjects():
    mail: Subject = MailTaskSubject("1")
    cube: Subject = DatasetSubject("1")
    assert mail != cube
    assert read_subject(mail.as_dict()) == mail
    assert read_subject(cube.as_dict()) == replace(cube, name="a name identifies nothing")


def test_a_watcher_emits_each_refresh_once_and_polls_the_latest_only():
    tracker = RunTracker(CUBE, frozenset({"SUCCESS"}))
    assert tracker.feed([refresh(1, "SUCCESS")]) == []
    assert tracker.feed([refresh(2, minutes=10)]) == []
    assert tracker.feed([refresh(3, minutes=20)]) == []
    assert tracker.status_queries() == [RefreshQuery("cube-1")]
    again = RunTracker(CUBE, frozenset({"SUCCESS"}))
    again.restore(json.loads(json.dumps(tracker.as_dict())))
    news = [again.feed([refresh(3, status, 20)]) for status in ("RUNNING", "SUCCESS", "RUNNING", "SUCCESS")]
    assert news == [[], [refresh(3, "SUCCESS", 20)], [], []]
