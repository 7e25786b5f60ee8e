"""What a sensor makes of the events of its trigger, also of wrong ones."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from airflow_provider_quickbi._wait.codec import encode_group
from airflow_provider_quickbi._wait.selector import RunSelector
from airflow_provider_quickbi._wait.state import Evaluation, Outcome, WaitGroup, WaitState
from airflow_provider_quickbi._wait.subject import MailTaskSubject


def _settled(outcome=Outcome.SUCCEEDED, status="SENT", mail_id="report", kind="finished", **changes):
    from datetime import UTC, datetime

    from airflow_provider_quickbi.api.models import MailTaskRun

    run = MailTaskRun(mail_id=mail_id, task_id="1", status=status, exec_time=datetime(2026, 1, 1, tzinfo=UTC))
    wait = WaitState(subject=MailTaskSubject("report"), selector=RunSelector(), since=1.0, finish_by=4102444800.0)
    group = replace(WaitGroup.of([wait]), evaluations=(Evaluation(outcome, "It is over.", run),))
    return {
        "version": 1,
        "kind": kind,
        "message": "It is over.",
        "carry": {},
        "group": encode_group(group),
        **changes,
    }


def _without(event, *keys):
    """Leave something out of an event, however deep it is."""
    copy = json.loads(json.dumps(event))
    inner = copy
    for key in keys[:-1]:
        inner = inner[key]
    del inner[keys[-1]]
    return copy


BAD_EVENTS = {
    "lost": None,
    "empty": {},
    "text": "SENT",
    "number": 1,
    "list": [_settled()],
    "of_another_provider": {"status": "success", "message": "Job completed", "run_id": 1},
    "of_an_unknown_kind": _settled(kind="done"),
    "without_kind": _without(_settled(), "kind"),
    "without_delivery": _without(_settled(), "group"),
    "delivery_is_text": _settled(group="SENT"),
    "without_waits": _settled(group={"waits": [], "evaluations": [], "required": 0}),
    "without_evaluations": _settled(group={**_settled()["group"], "evaluations": []}),
    "requires_nothing": _settled(group={**_settled()["group"], "required": 0}),
    "unknown_outcome": _settled(
        group={**_settled()["group"], "evaluations": [{"outcome": "success", "message": "", "run": None}]}
    ),
    "unfinished": _settled(outcome=Outcome.WAITING, status="PROCESSING"),
    "sent_without_a_run": _settled(
        group={**_settled()["group"], "evaluations": [{"outcome": "succeeded", "message": "", "run": None}]}
    ),
    "sent_with_a_run_that_failed": _settled(status="FAILED"),
    "sent_with_the_run_of_another_mail": _settled(mail_id="other"),
    "sent_with_half_a_run": _without(_settled(), "group", "evaluations", 0, "run", "exec_time"),
}


@pytest.fixture
def deceived(airflow_session):
    """Make a sensor whose trigger gives an event of the test's choice, or none at all."""
    import sys

    from airflow.triggers.base import BaseTrigger, TriggerEvent

    from airflow_provider_quickbi.sensors.quickbi import QuickBIMailTaskSensor

    module = sys.modules["quickbi_dag_of_this_test"]

    class LyingTrigger(BaseTrigger):
        def __init__(self, payload):
            super().__init__()
            self.payload = payload

        def serialize(self):
            return f"{module.__name__}.LyingTrigger", {"payload": self.payload}

        async def run(self):
            if self.payload is not None:
                yield TriggerEvent(self.payload)

    class DeceivedSensor(QuickBIMailTaskSensor):
        def __init__(self, *, payload, **kwargs):
            super().__init__(**kwargs)
            self.payload = payload

        def execute(self, context):
            self.defer(trigger=LyingTrigger(self.payload), method_name="execute_complete")

    vars(module)["LyingTrigger"] = LyingTrigger
    return DeceivedSensor


@pytest.mark.parametrize("event", BAD_EVENTS)
def test_an_event_that_is_not_understood_is_an_error(event, airflow_session):
    from airflow_provider_quickbi.sensors.quickbi import QuickBIMailTaskSensor

    sensor = QuickBIMailTaskSensor(task_id="wait", mail_id="report", deferrable=True)

    with pytest.raises(RuntimeError, match=r"trigger's event|is not a failure"):
        sensor.execute_complete({}, BAD_EVENTS[event])


def test_no_event_but_a_right_one_is_a_success(airflow, deceived):
    bad = ("lost", "of_another_provider", "of_an_unknown_kind", "unfinished", "sent_with_a_run_that_failed")

    ran = airflow.run(
        lambda: [
            deceived(task_id=name, payload=payload, mail_id="report", deferrable=True)
            for name, payload in {**{name: BAD_EVENTS[name] for name in bad}, "right": _settled()}.items()
        ]
    )

    assert ran.states == {**dict.fromkeys(bad, "up_for_retry"), "right": "success"}
    assert list(ran.xcoms()) == ["right"]
    assert {type(ran.error(name)).__name__ for name in bad} == {"RuntimeError"}


def test_never_fail_makes_no_success_of_a_wrong_event(airflow, deceived):
    ran = airflow.run(
        lambda: [
            deceived(task_id=name, payload=BAD_EVENTS[name], mail_id="report", deferrable=True, never_fail=True)
            for name in ("lost", "empty", "of_an_unknown_kind")
        ]
    )

    assert set(ran.states.values()) == {"skipped"}
