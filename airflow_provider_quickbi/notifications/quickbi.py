"""The notifier: start a mail from a callback."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException, BaseNotifier

from airflow_provider_quickbi import _options, _templates, connection
from airflow_provider_quickbi._options import Arguments, OptionError
from airflow_provider_quickbi._send.notice import Notice
from airflow_provider_quickbi._send.options import read_mail_task
from airflow_provider_quickbi._wait.subject import MailTaskSubject
from airflow_provider_quickbi.api.errors import QuickBIError
from airflow_provider_quickbi.api.lookup import find_by_name
from airflow_provider_quickbi.exceptions import argument_errors
from airflow_provider_quickbi.hooks.quickbi import LOOKUP_PAGE_SIZE, QuickBIHook

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Sequence

    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_quickbi.api.models import MailTask


class QuickBISendMailNotifier(BaseNotifier):
    """Start a Quick BI mail task from a callback, at most once per DAG run, and wait for nothing.

    For ``on_failure_callback``, ``on_success_callback`` and the other callbacks of tasks and DAGs, for
    ``on_late_callback`` of this package, and, from Airflow 3.1 on, for a ``DeadlineAlert``. A failure never changes the
    state of the task or DAG run; one log line says what was done, or why nothing was.

    Nothing is started if a run of the mail task has started since the DAG run did, or is active. On Airflow 3.3 and
    later, callbacks that run on a worker also record the start before they make it.

    Sources: operations ``ManualRunMailTask`` and ``GetMailTaskStatus`` of product ``quickbi-public``, version
    ``2022-01-01``.

    :param mail_id: the mail task. (templated)
    :param subscribe_name: instead of ``mail_id``: its exact name. (templated)
    :param mail_owner: nickname or user id of its owner in Quick BI, where several have the name. (templated)
    :param quickbi_conn_id: id of the connection; default ``quickbi_default``. (templated)
    """

    template_fields: Sequence[str] = ("mail_id", "subscribe_name", "mail_owner", "quickbi_conn_id")

    def __init__(
        self,
        *,
        mail_id: str | None = None,
        subscribe_name: str | None = None,
        mail_owner: str | None = None,
        quickbi_conn_id: str = connection.DEFAULT_CONN_ID,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.mail_id = mail_id
        self.subscribe_name = subscribe_name
        self.mail_owner = mail_owner
        self.quickbi_conn_id = quickbi_conn_id
        with argument_errors():
            _options.need_one_of(self, "mail_id", "subscribe_name")
            read_mail_task(Arguments(self, parsing=True))

    def __call__(self, *args: Any) -> None:
        """Render the arguments and notify, as Airflow does.

        :param args: the context.
        """
        with self._logging_errors():
            super().__call__(*args)

    def __await__(self) -> Generator[Any, Any, None]:
        """Render the arguments and notify, in a triggerer."""
        with self._logging_errors():
            yield from super().__await__()

    def render_template(self, content: Any, context: Any, jinja_env: Any = None, seen_oids: Any = None) -> Any:
        """Render a template; on an undefined variable, raise an error that names it.

        :param content: the value of an argument.
        :param context: of the callback.
        :param jinja_env: Jinja's environment.
        :param seen_oids: what is rendered already.
        """
        jinja_env = jinja_env or self.get_template_env()
        return _templates.render(self, super().render_template, content, context, jinja_env, seen_oids)

    def notify(self, context: Context) -> None:
        """Start the mail.

        :param context: of the callback.
        """
        with self._logging_errors(), QuickBIHook(self.quickbi_conn_id) as hook:
            subject, client = read_mail_task(Arguments(self)), hook.get_conn()
            if not subject.id:
                subject = _found(subject, client.iter_mail_tasks(page_size=LOOKUP_PAGE_SIZE))
            notice = Notice(subject, context, self.log)
            if notice.may_start(client.get_mail_task_status(subject.id)):
                with notice.starting():
                    client.manual_run_mail_task(subject.id)

    async def async_notify(self, context: Context) -> None:
        """Start the mail from a triggerer, where Airflow 3.1 and later runs the callback of a ``DeadlineAlert``.

        :param context: of the callback.
        """
        with self._logging_errors():
            subject = read_mail_task(Arguments(self))
            async with QuickBIHook(self.quickbi_conn_id).get_async_conn() as client:
                if not subject.id:
                    visible = [task async for task in client.iter_mail_tasks(page_size=LOOKUP_PAGE_SIZE)]
                    subject = _found(subject, visible)
                notice = Notice(subject, context, self.log)
                if notice.may_start(await client.get_mail_task_status(subject.id)):
                    with notice.starting():
                        await client.manual_run_mail_task(subject.id)

    @contextmanager
    def _logging_errors(self) -> Iterator[None]:
        """Log what keeps the mail from being started: the callback of a task has nobody to raise it to."""
        try:
            yield
        except (QuickBIError, AirflowFailException, OptionError) as error:
            mail_task = self.mail_id or repr(self.subscribe_name)
            self.log.error("Mail task %s: nothing was started: %s", mail_task, error)  # noqa: TRY400


def _found(wanted: MailTaskSubject, visible: Iterable[MailTask]) -> MailTaskSubject:
    mail_task = find_by_name(visible, wanted.name, wanted.scope or None)
    return MailTaskSubject(mail_task.mail_id, wanted.name)
