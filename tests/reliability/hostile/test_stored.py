"""Whatever Airflow's database gives back: it is understood or refused in words."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from airflow_provider_quickbi._send.record import StartRecord
from airflow_provider_quickbi._send.state import AttemptState
from airflow_provider_quickbi._wait import events
from airflow_provider_quickbi._wait.codec import encode_group
from airflow_provider_quickbi._wait.selector import RunSelector
from airflow_provider_quickbi._wait.state import Outcome, WaitGroup, WaitState
from airflow_provider_quickbi._watch.tracker import RunTracker
from airflow_provider_quickbi.api.models import MailTaskRun
from airflow_provider_quickbi.triggers.quickbi import QuickBIMailTaskTrigger

from .inputs import JSON, M, given_much

# Airflow and its dependencies warn about each other when a connection is read first.
pytestmark = pytest.mark.filterwarnings("default", "error:::airflow_provider_quickbi")


def valid_delivery(**evaluation: Any) -> dict[str, Any]:
    wait = WaitState(subject=M, selector=RunSelector(executed_after=datetime(2026, 7, 1, tzinfo=UTC)), since=0.0)
    kept = encode_group(WaitGroup.of([wait]))
    kept["evaluations"][0] |= evaluation
    return kept


def run_dict(**changes: Any) -> dict[str, Any]:
    return {"mail_id": "m", "task_id": "1", "status": "SENT", "exec_time": "2026-07-01T08:00:00+08:00"} | changes


@st.composite
def spoilt(draw: st.DrawFn, whole: dict[str, Any]) -> Any:
    """Draw something that was valid until one value of it was replaced."""
    copy = json.loads(json.dumps(whole))
    place: Any = copy
    while True:
        keys = list(range(len(place))) if isinstance(place, list) else list(place)
        key = draw(st.sampled_from(keys))
        if isinstance(place[key], (dict, list)) and place[key] and draw(st.booleans()):
            place = place[key]
            continue
        place[key] = draw(JSON)
        return copy


EVENT = {
    "version": 1,
    "kind": "finished",
    "group": valid_delivery(outcome="succeeded", run=run_dict()),
    "message": "sent",
    "carry": {},
}

COURSE = AttemptState(
    finish_by=2e9,
    subject=M,
    record=StartRecord(subject=M, recorded_at=1.0, known=("1",)),
    run=MailTaskRun.from_dict(run_dict()),
).as_dict()


@given_much
@given(event=st.one_of(JSON, spoilt(EVENT)))
@example(event={**EVENT, "group": valid_delivery(outcome="succeeded")})
@example(event={**EVENT, "group": valid_delivery(outcome="succeeded", run=run_dict(status="FAILED"))})
@example(event={**EVENT, "group": valid_delivery(outcome="succeeded", run=run_dict(mail_id="another"))})
@example(event={**EVENT, "group": valid_delivery(outcome="brilliant", run=run_dict())})
def test_an_event_counts_as_a_delivery_only_with_a_sent_run_of_that_mail_task(tried: Counter[str], event: Any) -> None:
    tried["events read"] += 1
    try:
        group = events.Event.decode(event).group
    except RuntimeError:
        return
    if group is not None and group.evaluation.outcome is Outcome.SUCCEEDED:
        run = group.evaluations[0].run
        assert run is not None
        assert (run.status, run.subject_id) == ("SENT", group.waits[0].subject.id)


@given_much
@given(kept=st.one_of(JSON, spoilt(valid_delivery())))
def test_a_trigger_is_made_of_what_was_kept_or_not_at_all(tried: Counter[str], kept: Any) -> None:
    tried["trigger arguments read"] += 1
    with contextlib.suppress(TypeError):  # any other error ends the triggerer
        QuickBIMailTaskTrigger(quickbi_conn_id="c", group=kept, poke_interval=1.0)


@given_much
@given(kept=JSON)
def test_a_record_and_what_a_watcher_has_seen_are_recovered_or_ignored(tried: Counter[str], kept: Any) -> None:
    tried["start records read"] += 2
    record = StartRecord.from_dict(kept)
    assert record is None or isinstance(record.subject.kind, str)
    tracker = RunTracker(M, frozenset({"SENT"}))
    tracker.restore(kept)
    assert all(isinstance(task_id, str) for task_id in tracker.seen)


@given_much
@given(kept=st.one_of(JSON, spoilt(COURSE)))
def test_a_try_goes_on_with_what_was_kept_or_not_at_all(tried: Counter[str], kept: Any) -> None:
    tried["courses read"] += 1
    with contextlib.suppress(ValueError):
        assert isinstance(AttemptState.from_dict(kept), AttemptState)
