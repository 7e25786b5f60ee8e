"""A mail task's runs, waits for them, and Quick BI's responses."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

from airflow_provider_quickbi._wait.evaluate import evaluate, evaluate_group
from airflow_provider_quickbi._wait.selector import RunSelector
from airflow_provider_quickbi._wait.state import (
    Evaluation,
    WaitGroup,
    WaitState,
)
from airflow_provider_quickbi._wait.subject import MailTaskSubject
from airflow_provider_quickbi.api.errors import (
    ErrorKind,
    PermanentError,
    ThrottledError,
    TransientError,
)
from airflow_provider_quickbi.api.models import MailTaskRun

M = MailTaskSubject("m")

SHANGHAI = timezone(timedelta(hours=8))

EIGHT = datetime(2026, 7, 1, 8, 0, tzinfo=SHANGHAI)

NOW = EIGHT.timestamp()

THROTTLED = ThrottledError("slow", action="GetMailTaskStatus", kind=ErrorKind.THROTTLED, code="Throttling.User")

BROKEN = TransientError("reset", action="GetMailTaskStatus", kind=ErrorKind.TRANSIENT)

DENIED = PermanentError(
    "no", action="GetMailTaskStatus", kind=ErrorKind.DENIED, code="Access.Forbidden", request_id="R-1", hint="Ask"
)


def run(status: str = "SENT", minutes: float = 0, task_id: str = "10", mail_id: str = "m") -> MailTaskRun:
    """A run that started so many minutes after eight."""
    return MailTaskRun(mail_id, task_id, status, EIGHT + timedelta(minutes=minutes))


def wait(**changes: Any) -> WaitState:
    """A wait that started at eight."""
    return WaitState(**{"subject": M, "selector": RunSelector(), "since": NOW, "clock_skew": 86400.0, **changes})


def poll_once(waiting: WaitState, *responses: Any, every: float = 60.0) -> tuple[WaitState, Evaluation]:
    """Evaluate one response after the other, a minute apart, the first one at eight."""
    evaluation = None
    for number, response in enumerate(responses):
        waiting, evaluation = evaluate(waiting, response, NOW + number * every)
    assert evaluation is not None
    return waiting, evaluation


def several(*outcomes: Any, required: int | None = None) -> WaitGroup:
    """A wait group with one mail task for each response, each evaluated once."""
    waits = [wait(subject=MailTaskSubject(f"m-{number}")) for number in range(len(outcomes))]
    group = WaitGroup.of(waits, required=required)
    for number, response in enumerate(outcomes):
        if isinstance(response, str):
            response = [run(response, mail_id=f"m-{number}")]  # noqa: PLW2901 - a status stands for a run in that state
        group = evaluate_group(group, number, response, NOW + 60)
    return group
