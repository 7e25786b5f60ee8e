"""What is kept of a wait, and read back whatever it is."""

from __future__ import annotations

import json
from dataclasses import replace
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
from airflow_provider_quickbi._wait.selector import RunSelector
from airflow_provider_quickbi._wait.state import (
    Evaluation,
    OnFailed,
    Outcome,
    WaitState,
)
from airflow_provider_quickbi.api.models import MailTaskRun
from airflow_provider_quickbi.api.operations import StatusQuery

from .cases import BROKEN, DENIED, EIGHT, NOW, THROTTLED, M, poll_once, run, several, wait

STATES = {
    "new": wait(),
    "named run": wait(selector=RunSelector(run_id="7218865303929605212")),
    "in a window": wait(selector=RunSelector(executed_after=EIGHT), start_timeout=60.0, finish_by=NOW + 600),
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
        after_copy, evaluation_copy = evaluate(copy, response, NOW + 90)
        assert (encode_wait(after), encode_evaluation(evaluation)) == (
            encode_wait(after_copy),
            encode_evaluation(evaluation_copy),
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
def test_what_is_no_object_at_all_is_no_delivery_and_no_success(item: Any):
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
