"""The notifier: start a mail from a callback."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException, BaseNotifier

from airflow_provider_quickbi import _options, connection
from airflow_provider_quickbi._options import Arguments, OptionError
from airflow_provider_quickbi._send.notice import Notice
from airflow_provider_quickbi._wait.subject import MailTaskSubject
from airflow_provider_quickbi.api.errors import QuickBIError
from airflow_provider_quickbi.api.lookup import find_by_name
from airflow_provider_quickbi.exceptions import QuickBIArgumentError
from airflow_provider_quickbi.hooks.quickbi import LOOKUP_PAGE_SIZE, QuickBIHook

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from airflow.providers.common.compat.sdk import Context


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
        try:
            _options.need_one_of(self, "mail_id", "subscribe_name")
            self._read(parsing=True)
        except OptionError as error:
            raise QuickBIArgumentError(str(error)) from None

    def notify(self, context: Context) -> None:
        """Start the mail.

        :param context: of the callback.
        """
        with self._logging_errors(), QuickBIHook(self.quickbi_conn_id) as hook:
            mail_id, name, owner = self._read()
            client = hook.get_conn()
            if mail_id is None:
                mail_id = find_by_name(client.iter_mail_tasks(page_size=LOOKUP_PAGE_SIZE), name, owner).mail_id
            notice = Notice(MailTaskSubject(mail_id, name), context, self.log)
            if notice.may_start(client.get_mail_task_status(mail_id)):
                with notice.starting():
                    client.manual_run_mail_task(mail_id)

    async def async_notify(self, context: Context) -> None:
        """Start the mail from a triggerer, where Airflow 3.1 and later runs the callback of a ``DeadlineAlert``.

        :param context: of the callback.
        """
        with self._logging_errors():
            mail_id, name, owner = self._read()
            async with QuickBIHook(self.quickbi_conn_id).get_async_conn() as client:
                if mail_id is None:
                    visible = [task async for task in client.iter_mail_tasks(page_size=LOOKUP_PAGE_SIZE)]
                    mail_id = find_by_name(visible, name, owner).mail_id
                notice = Notice(MailTaskSubject(mail_id, name), context, self.log)
                if notice.may_start(await client.get_mail_task_status(mail_id)):
                    with notice.starting():
                        await client.manual_run_mail_task(mail_id)

    def _read(self, *, parsing: bool = False) -> tuple[str | None, str, str | None]:
        """Return MailId, name and owner.

        :raises OptionError: if one is wrong.
        """
        read = Arguments(self, parsing=parsing).read
        mail_id, name = read("mail_id", _options.text, None), read("subscribe_name", _options.text, None)
        owner = read("mail_owner", _options.text, None)
        _options.refuse_owner_of_id(mail_id, owner)
        return mail_id, name or "", owner

    @contextmanager
    def _logging_errors(self) -> Iterator[None]:
        """Log what keeps the mail from being started: the callback of a task has nobody to raise it to."""
        try:
            yield
        except (QuickBIError, AirflowFailException, OptionError) as error:
            mail_task = self.mail_id or repr(self.subscribe_name)
            self.log.error("Mail task %s: nothing was started: %s", mail_task, error)  # noqa: TRY400
