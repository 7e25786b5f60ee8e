"""What the operators have in common that start something at Quick BI at most once and wait until it is finished."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from airflow_provider_quickbi import _airflow, _instants, _options
from airflow_provider_quickbi._options import Arguments, OptionError
from airflow_provider_quickbi._send.attempt import StartAttempt
from airflow_provider_quickbi._send.options import OnRunFailed, OnScheduleLimit, RunOptions
from airflow_provider_quickbi._send.state import AttemptState
from airflow_provider_quickbi._templates import TemplatedTask
from airflow_provider_quickbi._wait import deadline as late_notice
from airflow_provider_quickbi._wait.events import Event, wrap_event_errors
from airflow_provider_quickbi._wait.outlets import unrelated_outlets
from airflow_provider_quickbi._wait.state import OnFailed
from airflow_provider_quickbi.api.clock import CLOCK
from airflow_provider_quickbi.assets.quickbi import is_quickbi
from airflow_provider_quickbi.exceptions import argument_errors
from airflow_provider_quickbi.hooks.quickbi import QuickBIHook
from airflow_provider_quickbi.links.quickbi import QuickBIConsoleLink

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_quickbi._wait.subject import Subject


class StartOperator(TemplatedTask):
    """Start a run of a subject at most once and wait for it; a subclass says of what, and has the arguments."""

    operator_extra_links = (QuickBIConsoleLink(),)
    ui_color = "#e8f1ff"

    wait_for_completion: bool
    deferrable: bool
    quickbi_conn_id: str
    deadline: datetime | str | None
    on_late_callback: Any
    #: Only mail tasks know such a limit.
    on_schedule_limit: str = OnScheduleLimit.WAIT.value

    @abstractmethod
    def _read_subject(self, arguments: Arguments) -> Subject:
        """Return what is started, without id and name as long as templates are not rendered.

        :raises OptionError: for the first one that is wrong.
        """

    def _check_arguments(
        self,
        default_args: Mapping[str, Any] | None,
        overrides: Sequence[tuple[Sequence[str], Sequence[str]]],
        one_of: tuple[str, str],
    ) -> None:
        """Check the arguments while the DAG is parsed, as far as they are known.

        :param overrides: arguments that win over others from there, see :func:`_options.settle_defaults`.
        :param one_of: the two arguments of which exactly one says what is started.
        :raises QuickBIArgumentError: for the first one that is wrong.
        """
        unset_values = {"on_failed": OnRunFailed.FAIL.value}
        _options.settle_defaults(self, default_args, overrides, unset_values, {"on_failed": OnFailed})
        with argument_errors():
            _options.need_one_of(self, *one_of)
            RunOptions.read(Arguments(self, parsing=True))
            if not _options.is_template(self.deadline):
                _instants.deadline("deadline", self.deadline, CLOCK.now(), _airflow.default_timezone())
            self._check_outlets(self._read_subject(Arguments(self, parsing=True)))

    def _check_outlets(self, subject: Subject) -> None:
        if not self.wait_for_completion and any(is_quickbi(outlet) for outlet in self.outlets):
            raise OptionError(
                "an outlet quickbi://... means that the run has succeeded, which is not known with "
                "wait_for_completion=False: put the outlet on the sensor that waits for the run"
            )
        if subject.id and (unrelated := unrelated_outlets(self.outlets, [subject])):
            words = subject.words
            raise OptionError(
                f"outlet {unrelated[0]} is not of {words.subject} {subject.id}, which this task {words.start}s"
            )

    def check_found(self, subject: Subject) -> None:
        """Refuse outlets of something else than what has the name, before anything is started.

        :param subject: whose name was looked up.
        :raises QuickBIArgumentError: naming the outlet.
        """
        with argument_errors(self.task_id):
            self._check_outlets(subject)

    def execute(self, context: Context) -> Any:
        """Start a run, unless a record says that an earlier try may have done so; then wait for it."""
        subject, options = self._read()
        day_of = _airflow.run_started(context) or CLOCK.now()
        with argument_errors(self.task_id):
            late = _instants.deadline("deadline", self.deadline, day_of, _airflow.default_timezone())
        now = CLOCK.time()
        state = AttemptState(
            subject=subject,
            finish_by=now + options.timeout,
            execute_by=None if self.execution_timeout is None else now + self.execution_timeout.total_seconds(),
            late_at=late_notice.pending(late.timestamp() if late else None, context),
        )
        with QuickBIHook(self.quickbi_conn_id) as hook:
            QuickBIConsoleLink.store(self, context, hook.quickbi_connection.console_url)
            return StartAttempt(self, options, state, hook, context).begin()

    def execute_complete(self, context: Context, event: Any = None) -> Any:
        """Resume where this try was deferred.

        :param event: of a trigger of :mod:`airflow_provider_quickbi.triggers.quickbi`.
        """
        QuickBIConsoleLink.resumed(self)
        _, options = self._read()
        decoded = Event.decode(event)
        with wrap_event_errors():
            state = AttemptState.from_dict(decoded.carry)
        with QuickBIHook(self.quickbi_conn_id) as hook:
            return StartAttempt(self, options, state, hook, context).resume(decoded)

    def _read(self) -> tuple[Subject, RunOptions]:
        arguments = Arguments(self)
        with argument_errors(self.task_id):
            subject, options = self._read_subject(arguments), RunOptions.read(arguments)
            self._check_outlets(subject)
        return subject, options
