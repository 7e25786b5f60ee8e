"""The arguments of a sensor as typed values."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Self

from airflow_provider_quickbi import _options
from airflow_provider_quickbi._options import Arguments, OptionError
from airflow_provider_quickbi._wait.state import DEFAULT_CLOCK_SKEW, DEFAULT_UNREACHABLE_TIMEOUT, OnFailed, OnMissed
from airflow_provider_quickbi._wait.window import Window

if TYPE_CHECKING:
    from datetime import datetime, tzinfo


@dataclass(frozen=True, slots=True, kw_only=True)
class SensorOptions:
    """What a sensor was told, see ``QuickBIMailTaskSensor`` for the meaning of each."""

    mail_ids: tuple[str, ...]
    subscribe_names: tuple[str, ...]
    mail_owner: str | None
    quickbi_task_id: str | None
    executed_after: datetime | None
    executed_before: datetime | None
    window: Window
    on_failed: OnFailed
    on_missed: OnMissed
    start_timeout: float | None
    unreachable_timeout: float | None
    clock_skew: float
    require: str | int

    @classmethod
    def read(cls, arguments: Arguments, zone: tzinfo, rendered: frozenset[str] = frozenset()) -> Self:
        """Read and check the arguments of a sensor.

        :param arguments: of the sensor.
        :param zone: of instants that name none.
        :param rendered: the arguments that a template gave.
        :raises OptionError: for the first one that is wrong.
        """
        read = arguments.read
        instant = partial(_options.instant, zone=zone)
        options = cls(
            mail_ids=read("mail_id", partial(_options.texts, rendered="mail_id" in rendered), ()),
            subscribe_names=read("subscribe_name", partial(_options.texts, rendered="subscribe_name" in rendered), ()),
            mail_owner=read("mail_owner", _options.text, None),
            quickbi_task_id=read("quickbi_task_id", _options.run_id, None),
            executed_after=read("executed_after", instant, None),
            executed_before=read("executed_before", instant, None),
            window=read("window", partial(_options.choice, choices=Window), Window.AUTO),
            on_failed=read("on_failed", partial(_options.choice, choices=OnFailed), OnFailed.FAIL),
            on_missed=read("on_missed", partial(_options.choice, choices=OnMissed), OnMissed.FAIL),
            start_timeout=read("start_timeout", _options.seconds, None),
            unreachable_timeout=read("unreachable_timeout", _options.seconds, DEFAULT_UNREACHABLE_TIMEOUT),
            clock_skew=read("clock_skew", _options.seconds, DEFAULT_CLOCK_SKEW) or 0.0,
            require=read("require", _options.requirement, "all"),
        )
        options.check(arguments)
        return options

    def check(self, arguments: Arguments) -> None:
        """Refuse arguments that contradict each other.

        :param arguments: that they were read from.
        :raises OptionError: saying which ones.
        """
        if not arguments.parsing and not self.mail_ids and not self.subscribe_names:
            raise OptionError("both mail_id and subscribe_name rendered empty")
        windowed = arguments.given("executed_after") or arguments.given("executed_before")
        if arguments.given("quickbi_task_id") and windowed:
            raise OptionError("quickbi_task_id names the run: leave executed_after and executed_before out")
        if self.quickbi_task_id is not None and self.on_failed is OnFailed.WAIT:
            raise OptionError('on_failed="wait" waits for a later run: leave it out with quickbi_task_id')
        if self.quickbi_task_id is not None and len(self.mail_ids or self.subscribe_names) > 1:
            raise OptionError("quickbi_task_id names one run: give one mail task with it, not several")
        if (
            self.executed_after is not None
            and self.executed_before is not None
            and self.executed_after >= self.executed_before
        ):
            raise OptionError(
                f"executed_before ({self.executed_before.isoformat()}) must be later than executed_after "
                f"({self.executed_after.isoformat()})"
            )
        if self.mail_ids and self.mail_owner is not None:
            raise OptionError("mail_owner tells mail tasks of one name apart: leave it out with mail_id")
        if given := self.mail_ids or self.subscribe_names:
            _options.required_of(self.require, len(given))
