"""The arguments of a sensor as typed values."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Self

from airflow_provider_quickbi import _instants, _options
from airflow_provider_quickbi._options import Arguments, OptionError
from airflow_provider_quickbi._wait.state import DEFAULT_CLOCK_SKEW, DEFAULT_UNREACHABLE_TIMEOUT, OnFailed, OnMissed
from airflow_provider_quickbi._wait.subject import DatasetSubject, MailTaskSubject
from airflow_provider_quickbi._wait.window import Window

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime, tzinfo

    from airflow_provider_quickbi._wait.subject import Subject

#: Arguments that name mail tasks, as one text or several.
MAIL_TASK_NAMES = ("mail_id", "subscribe_name")

#: A task's own argument on the left wins over ``default_args`` on the right.
WINDOW_OVERRIDES = ((("window",), ("executed_after", "executed_before")),)
MAIL_TASK_OVERRIDES = (
    (("mail_id",), ("subscribe_name",)),
    (("mail_id",), ("mail_owner",)),
    (("subscribe_name", "mail_owner"), ("mail_id",)),
)


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

        :param zone: of instants that name none.
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


def read_mail_task_options(arguments: Arguments, zone: tzinfo) -> SensorOptions:
    """Read and check the arguments of a ``QuickBIMailTaskSensor``.

    :param zone: of instants that name none.
    :raises OptionError: for the first one that is wrong.
    """
    read = arguments.read
    ids, names = (
        read(name, partial(_options.texts, rendered=name in arguments.rendered), ()) for name in MAIL_TASK_NAMES
    )
    owner = read("mail_owner", _options.text, None)
    task_id = read("quickbi_task_id", _options.run_id, None)
    require = read("require", _options.requirement, "all")
    options = SensorOptions.read(
        arguments,
        zone,
        subjects=tuple(map(MailTaskSubject, ids)) or tuple(MailTaskSubject("", name, owner or "") for name in names),
        run_id=task_id,
        require=require,
    )
    if not arguments.parsing and not options.subjects:
        raise OptionError("both mail_id and subscribe_name rendered empty")
    windowed = arguments.given("executed_after") or arguments.given("executed_before")
    if arguments.given("quickbi_task_id") and windowed:
        raise OptionError("quickbi_task_id selects the run: omit executed_after and executed_before")
    if task_id is not None and options.on_failed is OnFailed.WAIT:
        raise OptionError('on_failed="wait" waits for a later run: omit it with quickbi_task_id')
    if task_id is not None and len(options.subjects) > 1:
        raise OptionError("quickbi_task_id selects one run: set one mail task, not several")
    _options.refuse_owner_of_id(arguments.given("mail_id"), arguments.given("mail_owner"))
    if options.subjects:
        _options.required_of(require, len(options.subjects))
    return options


def read_dataset_options(arguments: Arguments, zone: tzinfo) -> SensorOptions:
    """Read and check the arguments of a ``QuickBIDatasetRefreshSensor``.

    :param zone: of instants that name none.
    :raises OptionError: for the first one that is wrong.
    """
    dataset_id = arguments.read("dataset_id", _options.text, None)
    if dataset_id is None and not (arguments.parsing and _options.is_template(arguments.task.dataset_id)):
        raise OptionError("dataset_id is missing")
    return SensorOptions.read(arguments, zone, subjects=() if dataset_id is None else (DatasetSubject(dataset_id),))


#: Reads the options of a sensor, by the kind of its subject.
READERS: dict[str, Callable[[Arguments, tzinfo], SensorOptions]] = {
    MailTaskSubject.kind: read_mail_task_options,
    DatasetSubject.kind: read_dataset_options,
}
