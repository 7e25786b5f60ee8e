"""Whatever happens on the way, each start sends one mail, and the result is its run: a table of what may happen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest

from airflow_provider_quickbi.api.client import QuickBIClient
from airflow_provider_quickbi.api.errors import ErrorKind, TransientError
from airflow_provider_quickbi.exceptions import QuickBIRunFailed, QuickBIStartUnknown, QuickBIUnavailable
from airflow_provider_quickbi.testing import Fault

from .tries import Case, Crash

START, STATUS = "ManualRunMailTask", "GetMailTaskStatus"
INF = float("inf")


@dataclass(frozen=True, slots=True)
class Send:
    """What happens while a mail is sent, and what becomes of it.

    :param arrange: lets it happen.
    :param arguments: of the task.
    :param errors: what its failed tries raise; a set if it does not matter how many they are.
    :param starts: mails that are sent.
    :param calls: requests that start a mail; ``None`` if their number does not matter.
    :param seconds: how long all of it takes, from and to.
    :param recorded: whether this needs start records that survive a retry.
    :param mail_only: whether a refresh knows nothing like it.
    """

    arrange: Callable[[Case], Any]
    arguments: dict[str, Any] = field(default_factory=dict)
    errors: Sequence[type[BaseException]] | frozenset[type[BaseException]] = ()
    starts: int = 1
    calls: int | None = None
    seconds: tuple[float, float] = (0, INF)
    recorded: bool = False
    mail_only: bool = False


def all_of(*steps: Callable[[Case], Any]) -> Callable[[Case], None]:
    """Arrange several things."""

    def arrange(case: Case) -> None:
        for step in steps:
            step(case)

    return arrange


def starts_with(**arguments: Any) -> Callable[[Case], None]:
    """Set how runs that are started behave."""
    return lambda case: case.start_with(**arguments)


def fails(action: str, *faults: Fault, times: int | None = 1) -> Callable[[Case], None]:
    """Let Quick BI fail at an operation."""
    return lambda case: case.fail(action, *faults, times=times)


def clock_moved(seconds: float) -> Callable[[Case], Any]:
    """Set Quick BI's clock ahead, or behind."""
    return lambda case: case.quickbi.clock.set(case.quickbi.clock.now() + timedelta(seconds=seconds))


def ran_before(seconds: float, **arguments: Any) -> Callable[[Case], Any]:
    """Add a run that started some seconds ago."""
    return lambda case: case.quickbi.add_run(
        case.mail_id, exec_time=case.quickbi.clock.now() - timedelta(seconds=seconds), **arguments
    )


def scheduled(**arguments: Any) -> Callable[[Case], Any]:
    """Let Quick BI's own schedule start runs, too."""
    return lambda case: case.quickbi.add_schedule(case.mail_id, **arguments)


def scheduled_in(seconds: float) -> Callable[[Case], Any]:
    """Let Quick BI's own schedule start a run once, after some seconds."""
    return lambda case: scheduled(times=[case.quickbi.clock.now() + timedelta(seconds=seconds)], duration=1)(case)


def shows(runs: Any) -> Callable[[Case], None]:
    """Let Quick BI show so many runs, or only the latest."""
    return lambda case: setattr(case.quickbi, "status_list", runs)


def lists(number: int) -> Callable[[Case], None]:
    """Let Quick BI list several runs, in any order."""

    def arrange(case: Case) -> None:
        case.quickbi.status_list = number
        case.quickbi.shuffle_status_list = True
        for _ in range(3):
            case.quickbi.add_run(case.mail_id)

    return arrange


def another_runs(status: str, ends: str, *, after: float, visible_after: float = 0) -> Callable[[Case], None]:
    """Let a run of the mail task have started ten seconds ago."""

    def arrange(case: Case) -> None:
        other = case.quickbi.add_run(case.mail_id, status=status, appears_after=visible_after)
        case.world.advance(10)
        case.world.after(after, lambda: case.quickbi.finish_run(other, ends))

    return arrange


def status_outage_after_start(seconds: float) -> Callable[[Case], None]:
    """Let no status be had once the mail was started."""

    def arrange(case: Case) -> None:
        def begin(call: Any) -> None:
            case.fail(STATUS, Fault.html_503(), times=None)
            case.world.after(seconds, case.quickbi.clear_faults)

        case.quickbi.when_called(START, begin, nth=1)

    return arrange


def unreachable_for(seconds: float) -> Callable[[Case], None]:
    """Let Quick BI be out of reach from now on."""

    def arrange(case: Case) -> None:
        case.quickbi.stop()
        case.world.after(seconds, case.quickbi.start)

    return arrange


def names_unavailable_for(seconds: float) -> Callable[[Case], None]:
    """Let names not be found from now on."""

    def arrange(case: Case) -> None:
        case.fail("GetMailTaskList", Fault.html_503(), times=None)
        case.world.after(seconds, case.quickbi.clear_faults)

    return arrange


def limited_at_second_start(case: Case) -> None:
    """Refuse the second start because of Quick BI's limit."""
    case.quickbi.when_called(
        START, lambda call: case.quickbi.limit_manual_starts(case.mail_id, calls=1, announced_minutes=10), nth=2
    )


def first_starts_never_arrive(case: Case) -> None:
    """Refuse the connection for the first three starts."""
    case.refuse_starts(3, TransientError("no connection", kind=ErrorKind.TRANSIENT, may_have_arrived=False))


def dies_after_start(case: Case) -> None:
    """Let the worker die before it polls for the run."""
    case.die_at(QuickBIClient, STATUS, 2)


lost = fails(START, Fault.answer_lost())
STRANGER = {"mailId": "stranger", "taskId": 1, "status": "PROCESSING", "execTime": "2026-03-02 09:00:00"}
OF_A_STRANGER = Fault.custom(200, {"RequestId": "1", "Success": True, "Result": [STRANGER]})
#: Responses to a start that was carried out which do not say so.
LOST: dict[str, Fault] = {
    "reset": Fault.answer_lost("reset"),
    "hang": Fault.answer_lost("hang"),
    "503": Fault.answer_lost("unavailable"),
    "half of the body": Fault.half_body(),
    "half of the JSON": Fault.half_json(),
    "wrong types": Fault.wrong_types(),
    "no Success": Fault.custom(200, {"RequestId": "1", "Result": True}, processed=True),
    "Success without Result": Fault.custom(200, {"RequestId": "1", "Success": True}, processed=True),
    "an internal error": Fault.custom(400, {"RequestId": "1", "Code": "Internal.System.Error"}, processed=True),
}

SENDS = {
    # Which run is this task's
    "the run finishes before the first poll": Send(starts_with(duration=0), seconds=(0, 1)),
    **{f"the run appears after {seconds} s": Send(starts_with(appears_after=seconds)) for seconds in (1, 120, 299)},
    "the run appears within a longer start_timeout": Send(
        starts_with(appears_after=800), {"start_timeout": timedelta(minutes=15)}
    ),
    "the run appears between two tries": Send(
        all_of(starts_with(appears_after=330), lost), errors=[QuickBIStartUnknown]
    ),
    "scheduled runs start later": Send(scheduled(every=90, duration=5), mail_only=True),
    "a run started an hour before": Send(all_of(ran_before(3600), starts_with(appears_after=90))),
    "an older run shows up later": Send(
        all_of(ran_before(120, status="SENT", appears_after=140), starts_with(appears_after=100))
    ),
    "a scheduled run starts before the retry": Send(
        all_of(
            starts_with(appears_after=70, duration=900),
            scheduled_in(300),
            lambda case: case.in_an_outage(200, 700, Fault.html_503()),
        ),
        {"unreachable_timeout": 100, "retries": 9},
        errors=frozenset({QuickBIUnavailable}),
        recorded=True,
        mail_only=True,
    ),
    **{f"Quick BI's clock is {seconds} s ahead": Send(clock_moved(seconds)) for seconds in (-59, -1, 100)},
    **{f"Quick BI lists {number} runs": Send(lists(number)) for number in (2, 5)},
    "a response holds another mail task's run": Send(fails(STATUS, OF_A_STRANGER, OF_A_STRANGER), mail_only=True),
    "the mail task is given by name": Send(lambda case: None, {"subscribe_name": "Daily sales"}, mail_only=True),
    "the name cannot be looked up for a while": Send(
        names_unavailable_for(300), {"subscribe_name": "Daily sales"}, mail_only=True
    ),
    # What becomes of a start
    **{
        f"the response to the start is lost: {name}": Send(fails(START, fault), calls=1) for name, fault in LOST.items()
    },
    "the response is lost and the run appears late": Send(all_of(lost, starts_with(appears_after=200)), calls=1),
    **{
        f"the worker dies after a lost response: {how}, {appears} s": Send(
            all_of(starts_with(appears_after=appears), fails(START, LOST[how]), dies_after_start), errors=[Crash]
        )
        for how, appears in (("reset", 0), ("hang", 0), ("503", 200))
    },
    "an ambiguous start whose run never appears is repeated by the retry": Send(
        fails(START, Fault.reset()), errors=[QuickBIStartUnknown], seconds=(830, 970)
    ),
    "the first starts never arrive": Send(first_starts_never_arrive),
    "Quick BI is unreachable at first": Send(unreachable_for(400)),
    "no status for 400 s after an ambiguous start": Send(
        all_of(lost, status_outage_after_start(400)), {"unreachable_timeout": 900}, recorded=True
    ),
    "no status for 2000 s after an ambiguous start": Send(
        all_of(lost, status_outage_after_start(2000)),
        {"unreachable_timeout": 900},
        errors=[QuickBIUnavailable] * 2,
        recorded=True,
    ),
    "a schedule limit lasts 25 minutes": Send(
        lambda case: case.quickbi.limit_manual_starts(case.mail_id, minutes=25),
        calls=2,
        seconds=(1500, INF),
        mail_only=True,
    ),
    "a scheduled start is refused for a minute": Send(
        lambda case: case.quickbi.refuse_manual_start(case.mail_id, "Timer.Schedule.Task"),
        seconds=(300, 330),
        mail_only=True,
    ),
    # Another run is active
    **{
        f"another run that is {shown} ends {ends}": Send(
            another_runs("PROCESSING", ends, after=105, visible_after=visible_after), seconds=(345, INF)
        )
        for ends in ("SENT", "FAILED")
        for shown, visible_after in (("seen by its status", 0), ("known only by the refusal", 60))
    },
    "another run has an unknown status": Send(another_runs("QUEUED", "FAILED", after=90), seconds=(340, INF)),
    "the active run to attach to never appears": Send(
        lambda case: case.quickbi.refuse_manual_start(case.mail_id, "MailTask.Already.Running"),
        {"on_running": "attach"},
    ),
    "the attached run fails and the retry sends": Send(
        another_runs("PROCESSING", "FAILED", after=90),
        {"on_running": "attach", "on_failed": "retry"},
        errors=[QuickBIRunFailed],
    ),
    **{
        f"the run of an earlier try is the active one, on_running={on_running}": Send(
            all_of(starts_with(appears_after=800), lost),
            {"on_running": on_running},
            errors=[QuickBIStartUnknown],
            calls=2,
            recorded=True,
        )
        for on_running in ("skip", "fail", "attach", "wait")
    },
    **{
        f"the run of an earlier try appears during a schedule limit, refused while active: {refused}": Send(
            all_of(starts_with(appears_after=800, refuse_while_running=refused), lost, limited_at_second_start),
            errors=[QuickBIStartUnknown],
            calls=2,
            recorded=True,
        )
        for refused in (True, False)
    },
    # The end
    **{
        f"on_failed=retry sends with each retry, {duration} s": Send(
            starts_with(outcome=["FAILED", "FAILED", "SENT"], duration=duration),
            {"on_failed": "retry"},
            errors=[QuickBIRunFailed] * 2,
            starts=3,
        )
        for duration in (0, 240)
    },
    **{
        f"on_failed=retry and a retry crashes after its start, Quick BI lists {listed}": Send(
            all_of(
                shows(listed),
                starts_with(outcome=["FAILED", "SENT"]),
                lambda case: case.die_at(QuickBIClient, START, 2, after=True),
            ),
            {"on_failed": "retry"},
            errors=[QuickBIRunFailed, Crash],
            starts=2,
        )
        for listed in (1, 5)
    },
    "no status for a while": Send(
        all_of(starts_with(duration=900), lambda case: case.in_an_outage(100, 800, Fault.reset())),
        {"unreachable_timeout": 300},
        errors=frozenset({QuickBIUnavailable}),
        recorded=True,
    ),
    "the run is found finished by the last poll": Send(
        starts_with(duration=100), {"timeout": 100, "poll_interval": 90}
    ),
}
CASES = [
    pytest.param(send, kept, kind, id=f"{name}-{'recorded' if kept else 'unrecorded'}-{kind}")
    for name, send in SENDS.items()
    for kept in ([True] if send.recorded else [True, False])
    for kind in (["mail"] if send.mail_only else ["mail", "dataset"])
]


@pytest.mark.parametrize(("send", "keeps_records", "kind"), CASES)
def test_each_start_sends_one_mail_and_its_run_is_the_result(send: Send, case: Case) -> None:
    send.arrange(case)
    task = case.task(**send.arguments)

    result = task.run()

    named = {name: value for name, value in send.arguments.items() if name == "subscribe_name"}
    assert (case.starts(), result) == (send.starts, case.newest("manual") | named)
    assert result["status"] == case.succeeded
    errors = [type(error) for error in task.errors]
    assert set(errors) == send.errors if isinstance(send.errors, frozenset) else errors == list(send.errors)
    assert send.calls in (None, case.quickbi.count("ManualRunMailTask"))
    assert send.seconds[0] <= case.world.elapsed() <= send.seconds[1]
    assert not task.has_unfinished_record
