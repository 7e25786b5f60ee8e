"""The arguments of a sensor as typed values."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Self

from airflow_provider_quickbi import _instants, _options
from airflow_provider_quickbi._options import Arguments, OptionError
from airflow_provider_quickbi._wait.state import DEFAULT_CLOCK_SKEW, DEFAULT_UNREACHABLE_TIMEOUT, OnFailed, OnMissed
from airflow_provider_quickbi._wait.window import Window

if TYPE_CHECKING:
    from datetime import datetime, tzinfo

    from airflow_provider_quickbi._wait.subject import Subject


@dataclass(frozen=True, slots=True, kw_only=True)
class SensorOptions:
    """The options of a sensor, see ``QuickBIMailTaskSensor`` for the meaning of each.

    :param subjects: what is waited for; empty as long as templates are not rendered, without ids where names were
        given.
    :param run_id: the run, where it was named.
    """

    subjects: tuple[Subject, ...]
    run_id: str | None
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
    def read(
        cls,
        arguments: Arguments,
        zone: tzinfo,
        *,
        subjects: tuple[Subject, ...],
        run_id: str | None = None,
        require: str | int = "all",
    ) -> Self:
        """Read and check the arguments that say which run is waited for and how long.

        :param arguments: of the sensor.
        :param zone: of instants that name none.
        :param subjects: what is waited for.
        :param run_id: the run, where it was named.
        :param require: how many of several must succeed.
        :raises OptionError: for the first one that is wrong.
        """
        read = arguments.read
        instant = partial(_instants.instant, zone=zone)
        options = cls(
            subjects=subjects,
            run_id=run_id,
            executed_after=read("executed_after", instant, None),
            executed_before=read("executed_before", instant, None),
            window=read("window", partial(_options.choice, choices=Window), Window.AUTO),
            on_failed=read("on_failed", partial(_options.choice, choices=OnFailed), OnFailed.FAIL),
            on_missed=read("on_missed", partial(_options.choice, choices=OnMissed), OnMissed.FAIL),
            start_timeout=read("start_timeout", _options.seconds, None),
            unreachable_timeout=read("unreachable_timeout", _options.seconds, DEFAULT_UNREACHABLE_TIMEOUT),
            clock_skew=read("clock_skew", _options.seconds, DEFAULT_CLOCK_SKEW) or 0.0,
            require=require,
        )
        after, before = options.executed_after, options.executed_before
        if after is not None and before is not None and after >= before:
            raise OptionError(
                f"executed_before ({before.isoformat()}) must be later than executed_after ({after.isoformat()})"
            )
        return options
