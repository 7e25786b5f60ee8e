"""What fails for good, how many mails it has sent by then, and what it says about them: a table."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSensorTimeout, AirflowSkipException

from airflow_provider_quickbi.api.errors import ErrorKind, TransientError
from airflow_provider_quickbi.exceptions import (
    QuickBIMailTaskFailed,
    QuickBIRequestError,
    QuickBIRunFailed,
    QuickBIUnavailable,
)
from airflow_provider_quickbi.testing import Fault

from .tries import Case

START, STATUS = "ManualRunMailTask", "GetMailTaskStatus"
INF = float("inf")


@dataclass(frozen=True, slots=True)
class Failure:
    """A task that cannot succeed.

    :param arrange: lets it fail.
    :param error: what it raises.
    :param arguments: of the task.
    :param starts: mails that are sent.
    :param tries: how many raise the error.
    :param says: what the error says, as a pattern; ``None`` where another test shows it.
    :param seconds: how long it takes, from and to.
    :param mail_only: whether a refresh knows nothing like it.
    """

    arrange: Callable[[Case], Any]
    error: type[Exception]
    arguments: dict[str, Any] = field(default_factory=dict)
    starts: int = 0
    tries: int = 1
    says: str | None = None
    seconds: tuple[float, float] = (0, INF)
    mail_only: bool = False


def starts_with(**arguments: Any) -> Callable[[Case], None]:
    """Set how runs that are started behave."""
    return lambda case: case.start_with(**arguments)


def refused_with(code: str, *, times: int | None = 1) -> Callable[[Case], Any]:
    """Refuse starts."""
    return lambda case: case.quickbi.refuse_manual_start(case.mail_id, code, times=times)


def limited_for(minutes: float) -> Callable[[Case], Any]:
    """Refuse starts because of Quick BI's limit."""
    return lambda case: case.quickbi.limit_manual_starts(case.mail_id, minutes=minutes)


def other_run(visible_after: float = 0, **arguments: Any) -> Callable[[Case], None]:
    """Let a run of the mail task be active."""

    def arrange(case: Case) -> None:
        case.quickbi.add_run(case.mail_id, status="PROCESSING", appears_after=visible_after, **arguments)
        case.world.advance(10)

    return arrange


def fails(action: str, fault: Fault) -> Callable[[Case], None]:
    """Let Quick BI fail once at an operation."""
    return lambda case: case.fail(action, fault)


def nothing_arrives(case: Case) -> None:
    """Refuse the connection for every start."""
    case.refuse_starts(math.inf, TransientError("no connection", kind=ErrorKind.TRANSIENT, may_have_arrived=False))


REFUSALS = (
    "Mail.Not.Found",
    "Mail.Forbidden.Access",
    "Forbidden.RAM",
    "Access.Forbidden",
    "SignatureDoesNotMatch",
    "Never.Heard.Of",
)
FAILURES = {
    # Started
    "the run fails": Failure(starts_with(outcome="FAILED"), QuickBIMailTaskFailed, starts=1, mail_only=True),
    "the run fails in every try": Failure(
        starts_with(outcome="FAILED"), QuickBIRunFailed, {"on_failed": "retry", "retries": 1}, starts=2, tries=2
    ),
    "the run never finishes": Failure(
        starts_with(duration=math.inf),
        AirflowSensorTimeout,
        {"timeout": timedelta(minutes=30)},
        starts=1,
        says=r"is (PROCESSING|RUNNING)\. The (mail|refresh) was started\..*again",
        seconds=(1799, 1801),
    ),
    "the accepted run appears too late": Failure(
        starts_with(appears_after=301), AirflowSensorTimeout, starts=1, seconds=(300, 301)
    ),
    "the accepted run never appears": Failure(
        starts_with(appears_after=1e9),
        AirflowSensorTimeout,
        starts=1,
        says=r"The (mail|refresh) was started.*again",
    ),
    # Perhaps started
    "it is not known whether the mail was started": Failure(
        fails(START, Fault.reset()),
        AirflowSensorTimeout,
        {"timeout": 120},
        says=r"not known whether Quick BI accepted the start\. Check the",
    ),
    # Not started
    "no start arrives": Failure(nothing_arrives, QuickBIUnavailable, {"retries": 0}, says="Nothing was (sent|started)"),
    "Quick BI stays out of reach": Failure(
        lambda case: case.quickbi.stop(),
        QuickBIUnavailable,
        {"unreachable_timeout": 900, "retries": 1},
        tries=2,
        says=r"was unreachable for 9\d\d s",
        seconds=(1820, 1900),
    ),
    "a schedule limit outlasts the timeout": Failure(
        limited_for(60),
        AirflowSensorTimeout,
        {"timeout": 1200},
        says=r"could be started\. Nothing was (sent|started)",
        seconds=(1199, 1201),
        mail_only=True,
    ),
    "every start is refused because of an active run": Failure(
        refused_with("MailTask.Already.Running", times=None),
        AirflowSensorTimeout,
        {"timeout": 600},
        seconds=(599, 601),
    ),
    "another run never finishes": Failure(
        other_run(duration=math.inf),
        AirflowSensorTimeout,
        {"timeout": 600},
        says=r"is (PROCESSING|RUNNING)\. Nothing was (sent|started)\.",
    ),
    **{
        f"{code} with on_schedule_limit=fail": Failure(
            refused_with(code),
            AirflowFailException,
            {"on_schedule_limit": "fail"},
            says=r'on_schedule_limit="fail"\)\. Nothing was sent',
            mail_only=True,
        )
        for code in ("MailApi.Beyond.ScheduleLimit", "Timer.Schedule.Task")
    },
    **{
        f"another run that is {shown} with on_running={on_running}": Failure(
            other_run(visible_after=visible_after),
            error,
            {"on_running": on_running},
            says=rf'nothing was started \(on_running="{on_running}"\)',
        )
        for on_running, error in (("skip", AirflowSkipException), ("fail", AirflowFailException))
        for shown, visible_after in (("seen by its status", 0), ("known only by the refusal", 60))
    },
    "there is no such mail task": Failure(
        lambda case: None, QuickBIRequestError, {"mail_id": "nobody"}, mail_only=True
    ),
    "nothing has the name": Failure(
        lambda case: None,
        QuickBIRequestError,
        {"subscribe_name": "Daily sail"},
        says="Daily sail",
        mail_only=True,
    ),
    **{
        f"{action} is refused with {code}": Failure(fails(action, Fault.error(code)), QuickBIRequestError, says=code)
        for action in (START, STATUS)
        for code in REFUSALS
    },
}


CASES = [
    pytest.param(failure, kind, id=f"{name}-{kind}")
    for name, failure in FAILURES.items()
    for kind in (["mail"] if failure.mail_only else ["mail", "dataset"])
]


@pytest.mark.parametrize(("failure", "kind"), CASES)
def test_a_task_that_cannot_succeed_fails_once_and_leaves_nothing_unfinished(failure: Failure, case: Case) -> None:
    failure.arrange(case)
    task = case.task(**failure.arguments)

    with pytest.raises(failure.error, match=failure.says):
        task.run()

    assert [type(error) for error in task.errors] == [failure.error] * failure.tries
    assert failure.seconds[0] <= case.world.elapsed() <= failure.seconds[1]
    if not case.quickbi.running:
        case.quickbi.start()
    assert case.starts() == failure.starts
    assert not task.has_unfinished_record
