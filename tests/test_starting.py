"""Starting at most once: what is recorded, which run is this task's, and what each response to a start means."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_quickbi._send.record import StartRecord, StartResult, classify_response, latest
from airflow_provider_quickbi._wait.selector import KNOWN_RUNS, RunSelector
from airflow_provider_quickbi._wait.state import DEFAULT_CLOCK_SKEW
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

M = MailTaskSubject("m")

BEGIN = datetime(2026, 7, 1, tzinfo=UTC)
RECORDED_AT = BEGIN.timestamp() + 0.75


def run(task_id: str, seconds: float = 0, status: str = "SENT") -> MailTaskRun:
    """A run that started so many seconds after the start record, in whole seconds as the service has them."""
    return MailTaskRun("m", task_id, status, BEGIN + timedelta(seconds=seconds))


def recorded(*runs: MailTaskRun, **changes: Any) -> StartRecord:
    record = StartRecord.of(M, runs, RECORDED_AT)
    return StartRecord(**{**{name: getattr(record, name) for name in StartRecord.__dataclass_fields__}, **changes})


# The start record


def test_the_latest_runs_are_recorded_the_latest_first():
    record = recorded(run("8", -20), run("10", -5), run("9", -5))
    assert record.known == ("10", "9", "8")
    assert (record.subject.id, record.recorded_at, record.accepted, record.attached_to) == (
        "m",
        RECORDED_AT,
        False,
        None,
    )


def test_of_very_many_runs_only_the_latest_are_recorded():
    record = recorded(*(run(str(number), number - 1000) for number in range(100, 200)))
    assert len(record.known) == KNOWN_RUNS
    assert record.known[0] == "199"


def test_no_earlier_run_is_recorded_too():
    assert recorded().known == ()


@pytest.mark.parametrize(
    ("candidate", "matching"),
    [
        (run("11", 0), True),
        (run("11", 3600), True),
        (run("11", -DEFAULT_CLOCK_SKEW), True),
        (run("11", -DEFAULT_CLOCK_SKEW - 1), False),
        (run("10", 5), False),
        (run("9", 5), False),
    ],
)
def test_the_matching_run_is_another_that_started_after_the_record_but_for_the_clocks_difference(
    candidate: MailTaskRun, matching: bool
):
    selector = recorded(run("10", -5), run("9", -65)).selector()
    assert selector.matches(candidate) is matching


def test_how_far_the_clocks_may_differ_can_be_said():
    selector = recorded().selector(clock_skew=600)
    assert selector.matches(run("11", -600))
    assert not selector.matches(run("11", -601))
    assert not recorded().selector(clock_skew=0).matches(run("11", -1))
    assert recorded().selector(clock_skew=0).matches(run("11", 0))


def test_of_several_new_runs_the_first_matches():
    chosen = recorded(run("10", -5)).selector().select([run("12", 30), run("11", 2), run("10", -5)])
    assert chosen is not None
    assert chosen.run_id == "11"


def test_once_attached_only_that_run_matches():
    assert recorded(run("10", -5), attached_to="11").selector() == RunSelector(run_id="11")


@pytest.mark.parametrize(
    "record",
    [
        recorded(),
        recorded(run("7218865303929605212", -5)),
        recorded(run("10", -5), accepted=True, attached_to="11"),
        recorded(inferred=True),
    ],
)
def test_a_record_survives_json(record: StartRecord):
    assert StartRecord.from_dict(json.loads(json.dumps(record.as_dict()))) == record


def test_a_record_of_version_1_is_read():
    kept = {
        "subject": {"kind": "mail-task", "id": "m", "name": "", "scope": ""},
        "recorded_at": 1782864000.75,
        "known": ["7218865303929605212"],
        "accepted": True,
        "attached_to": "7218865303929605213",
        "inferred": False,
        "finished": False,
    }
    record = StartRecord.from_dict(kept)
    assert record is not None
    assert record.as_dict() == kept
    assert record.selector() == RunSelector(run_id="7218865303929605213")
    assert StartRecord.from_dict(
        {"subject": {"kind": "mail-task", "id": "m"}, "recorded_at": 1782864000.0}
    ) == StartRecord(subject=M, recorded_at=1782864000.0)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(
    item=anything
    | st.fixed_dictionaries(
        {}, optional=dict.fromkeys(("mail_id", "recorded_at", "known", "accepted", "attached_to"), anything)
    )
)
def test_whatever_somebody_else_has_kept_there_is_a_record_or_none(item: Any):
    record = StartRecord.from_dict(item)
    assert record is None or isinstance(record, StartRecord)


@pytest.mark.parametrize(
    "item", [None, "m", [], {}, {"mail_id": "m"}, {"recorded_at": 1.0}, {"mail_id": "m", "recorded_at": "x"}]
)
def test_what_is_no_record_is_none(item: Any):
    assert StartRecord.from_dict(item) is None


# Runs


def test_the_latest_run_is_the_one_that_started_last_and_has_the_greater_number():
    assert latest([run("9", 0), run("10", 0), run("8", -5)]) == run("10", 0)
    assert latest([]) is None


@pytest.mark.parametrize(
    ("status", "expected"), [("SENT", False), ("FAILED", False), ("PROCESSING", True), ("QUEUED", True)]
)
def test_a_run_is_active_until_it_is_sent_or_failed(status: str, expected: bool):
    assert run("10", 0, status).is_terminal is not expected


# The response


@pytest.mark.parametrize(
    ("response", "result"),
    [
        (True, StartResult.ACCEPTED),
        (NotStartedError("Try again in 5 minutes", retry_after=300.0), StartResult.TOO_EARLY),
        (AlreadyRunningError("busy"), StartResult.RUNNING),
        (ThrottledError("slow"), StartResult.NOT_PROCESSED),
        (TransientError("connection refused", may_have_arrived=False), StartResult.NOT_PROCESSED),
        (TransientError("reset"), StartResult.UNKNOWN),
        (TransientError("no response", may_have_arrived=True), StartResult.UNKNOWN),
        (TransientError("oops", code="Internal.System.Error", http_status=400), StartResult.UNKNOWN),
        (PermanentError("no", kind=ErrorKind.DENIED), StartResult.REFUSED),
        (PermanentError("new", kind=ErrorKind.UNKNOWN), StartResult.REFUSED),
        (QuickBIError("what is this?"), StartResult.UNKNOWN),
    ],
    ids=str,
)
def test_each_response_to_the_starting_call_has_its_meaning(response: bool | QuickBIError, result: StartResult):
    assert classify_response(response) is result
