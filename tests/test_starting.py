"""Starting at most once: what is noted, which run is ours, and what each answer to the starting call means."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
from airflow_provider_quickbi.delivery import KNOWN_RUNS, Fence
from airflow_provider_quickbi.starting import DEFAULT_CLOCK_SKEW, Note, StartAnswer, latest, meaning_of, under_way

BEGIN = datetime(2026, 7, 1, tzinfo=UTC)
NOTED_AT = BEGIN.timestamp() + 0.75


def run(task_id: str, seconds: float = 0, status: str = "SENT") -> MailTaskRun:
    """A run that began so many seconds after the note was made, in whole seconds as the service has them."""
    return MailTaskRun("m", task_id, status, BEGIN + timedelta(seconds=seconds))


def noted(*runs: MailTaskRun, **changes: Any) -> Note:
    note = Note.of("m", runs, NOTED_AT)
    return Note(**{**{name: getattr(note, name) for name in Note.__dataclass_fields__}, **changes})


# The note


def test_the_latest_runs_are_noted_the_latest_first():
    note = noted(run("8", -20), run("10", -5), run("9", -5))
    assert note.known == ("10", "9", "8")
    assert (note.mail_id, note.noted_at, note.accepted, note.joined) == ("m", NOTED_AT, False, None)


def test_of_very_many_runs_only_the_latest_are_noted():
    note = noted(*(run(str(number), number - 1000) for number in range(100, 200)))
    assert len(note.known) == KNOWN_RUNS
    assert note.known[0] == "199"


def test_no_run_at_all_is_noted_too():
    assert noted().known == ()


@pytest.mark.parametrize(
    ("candidate", "ours"),
    [
        (run("11", 0), True),
        (run("11", 3600), True),
        (run("11", -DEFAULT_CLOCK_SKEW), True),
        (run("11", -DEFAULT_CLOCK_SKEW - 1), False),
        (run("10", 5), False),
        (run("9", 5), False),
    ],
)
def test_ours_is_another_run_that_began_after_the_note_but_for_the_clocks_difference(
    candidate: MailTaskRun, ours: bool
):
    fence = noted(run("10", -5), run("9", -65)).fence()
    assert fence.admits(candidate) is ours


def test_how_far_the_clocks_may_differ_can_be_said():
    fence = noted().fence(clock_skew=600)
    assert fence.admits(run("11", -600))
    assert not fence.admits(run("11", -601))
    assert not noted().fence(clock_skew=0).admits(run("11", -1))
    assert noted().fence(clock_skew=0).admits(run("11", 0))


def test_of_several_new_runs_the_first_is_ours():
    chosen = noted(run("10", -5)).fence().choose([run("12", 30), run("11", 2), run("10", -5)])
    assert chosen is not None
    assert chosen.task_id == "11"


def test_once_joined_only_that_run_is_ours():
    assert noted(run("10", -5), joined="11").fence() == Fence(task_id="11")


@pytest.mark.parametrize(
    "note",
    [
        noted(),
        noted(run("7218865303929605212", -5)),
        noted(run("10", -5), accepted=True, joined="11"),
        noted(guessed=True),
    ],
)
def test_a_note_survives_json(note: Note):
    assert Note.from_dict(json.loads(json.dumps(note.as_dict()))) == note


def test_a_note_of_version_1_is_read():
    kept = {
        "mail_id": "m",
        "noted_at": 1782864000.75,
        "known": ["7218865303929605212"],
        "accepted": True,
        "joined": "7218865303929605213",
        "guessed": False,
        "over": False,
    }
    note = Note.from_dict(kept)
    assert note is not None
    assert note.as_dict() == kept
    assert note.fence() == Fence(task_id="7218865303929605213")
    assert Note.from_dict({"mail_id": "m", "noted_at": 1782864000.0}) == Note(mail_id="m", noted_at=1782864000.0)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(
    item=anything
    | st.fixed_dictionaries(
        {}, optional=dict.fromkeys(("mail_id", "noted_at", "known", "accepted", "joined"), anything)
    )
)
def test_whatever_somebody_else_has_kept_there_is_a_note_or_none(item: Any):
    note = Note.from_dict(item)
    assert note is None or isinstance(note, Note)


@pytest.mark.parametrize(
    "item", [None, "m", [], {}, {"mail_id": "m"}, {"noted_at": 1.0}, {"mail_id": "m", "noted_at": "x"}]
)
def test_what_is_no_note_is_none(item: Any):
    assert Note.from_dict(item) is None


# Runs


def test_the_latest_run_is_the_one_that_began_last_and_has_the_greater_number():
    assert latest([run("9", 0), run("10", 0), run("8", -5)]) == run("10", 0)
    assert latest([]) is None


@pytest.mark.parametrize(
    ("status", "expected"), [("SENT", False), ("FAILED", False), ("PROCESSING", True), ("QUEUED", True)]
)
def test_a_run_is_under_way_until_it_is_sent_or_failed(status: str, expected: bool):
    assert under_way(run("10", 0, status)) is expected


def test_no_run_is_not_under_way():
    assert not under_way(None)


# The answer


@pytest.mark.parametrize(
    ("answer", "meaning"),
    [
        (True, StartAnswer.ACCEPTED),
        (NotStartedError("Try again in 5 minutes", retry_after=300.0), StartAnswer.LATER),
        (AlreadyRunningError("busy"), StartAnswer.RUNNING),
        (ThrottledError("slow"), StartAnswer.NOT_TAKEN),
        (TransientError("connection refused", reached=False), StartAnswer.NOT_TAKEN),
        (TransientError("reset"), StartAnswer.UNKNOWN),
        (TransientError("no answer", reached=True), StartAnswer.UNKNOWN),
        (TransientError("oops", code="Internal.System.Error", http_status=400), StartAnswer.UNKNOWN),
        (PermanentError("no", kind=ErrorKind.DENIED), StartAnswer.REFUSED),
        (PermanentError("new", kind=ErrorKind.UNKNOWN), StartAnswer.REFUSED),
        (QuickBIError("what is this?"), StartAnswer.UNKNOWN),
    ],
    ids=str,
)
def test_each_answer_to_the_starting_call_has_its_meaning(answer: bool | QuickBIError, meaning: StartAnswer):
    assert meaning_of(answer) is meaning
