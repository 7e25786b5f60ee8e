"""The arguments of an operator that starts something, as typed values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, Self

from airflow_provider_quickbi import _options
from airflow_provider_quickbi._options import OptionError
from airflow_provider_quickbi._wait.deferral import FOREVER
from airflow_provider_quickbi._wait.state import DEFAULT_CLOCK_SKEW, DEFAULT_UNREACHABLE_TIMEOUT
from airflow_provider_quickbi._wait.subject import MailTaskSubject

if TYPE_CHECKING:
    from airflow_provider_quickbi._options import Arguments
    from airflow_provider_quickbi._wait.subject import Subject

DEFAULT_POLL_INTERVAL = 30.0
DEFAULT_START_TIMEOUT = 300.0
DEFAULT_TIMEOUT = 3 * 3600.0


class OnRunning(StrEnum):
    """What to do if a run is active already."""

    WAIT = "wait"
    ATTACH = "attach"
    SKIP = "skip"
    FAIL = "fail"


class OnScheduleLimit(StrEnum):
    """What to do if the service wants no further start for some minutes."""

    WAIT = "wait"
    FAIL = "fail"


class OnRunFailed(StrEnum):
    """What to do if this task's run failed."""

    FAIL = "fail"
    RETRY = "retry"


class RunTask(Protocol):
    """What a start attempt needs of its operator."""

    deferrable: bool
    wait_for_completion: bool
    quickbi_conn_id: str
    on_late_callback: Any
    outlets: list[Any]

    @property
    def log(self) -> Any:
        """Airflow's logger of the task."""

    def check_found(self, subject: Subject) -> None:
        """Refuse what is wrong with a subject whose name was looked up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """The operator's arguments, see ``QuickBIRunMailTaskOperator`` for the meaning of each."""

    poll_interval: float
    on_running: OnRunning
    on_schedule_limit: OnScheduleLimit
    on_failed: OnRunFailed
    start_timeout: float | None
    timeout: float
    unreachable_timeout: float
    clock_skew: float

    @classmethod
    def read(cls, arguments: Arguments) -> Self:
        """Read and check the arguments that say how to start and how long to wait.

        :raises OptionError: for the first one that is wrong.
        """
        read = arguments.read
        poll_interval = read("poll_interval", _options.seconds, None)
        return cls(
            poll_interval=DEFAULT_POLL_INTERVAL if poll_interval is None else poll_interval,
            on_running=read("on_running", partial(_options.choice, choices=OnRunning), OnRunning.WAIT),
            on_schedule_limit=read(
                "on_schedule_limit", partial(_options.choice, choices=OnScheduleLimit), OnScheduleLimit.WAIT
            ),
            on_failed=read("on_failed", partial(_options.choice, choices=OnRunFailed), OnRunFailed.FAIL),
            start_timeout=read("start_timeout", _options.seconds, DEFAULT_START_TIMEOUT),
            timeout=_limit(read("timeout", _options.seconds, DEFAULT_TIMEOUT)),
            unreachable_timeout=_limit(read("unreachable_timeout", _options.seconds, DEFAULT_UNREACHABLE_TIMEOUT)),
            clock_skew=read("clock_skew", _options.seconds, DEFAULT_CLOCK_SKEW) or 0.0,
        )


def read_mail_task(arguments: Arguments) -> MailTaskSubject:
    """Return the mail task that is started, without id and name as long as templates are not rendered.

    :raises OptionError: for the first argument that is wrong.
    """
    read = partial(arguments.read, parse=_options.text, unknown=None)
    mail_id, name, owner = read("mail_id"), read("subscribe_name"), read("mail_owner")
    _options.refuse_owner_of_id(arguments.given("mail_id"), arguments.given("mail_owner"))
    if mail_id is None and name is None and not arguments.parsing:
        raise OptionError("both mail_id and subscribe_name rendered empty")
    return MailTaskSubject(mail_id or "", name or "", owner or "")


def _limit(seconds: float | None) -> float:
    return FOREVER if seconds is None else seconds
