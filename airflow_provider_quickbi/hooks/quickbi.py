"""QuickBIHook: Quick BI through an Airflow connection."""

from __future__ import annotations

from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, Self

from airflow.providers.common.compat.sdk import BaseHook

from airflow_provider_quickbi import connection
from airflow_provider_quickbi._metrics import count_call
from airflow_provider_quickbi.api.errors import ErrorKind, PermanentError, QuickBIError
from airflow_provider_quickbi.api.lookup import find_by_name
from airflow_provider_quickbi.api.paging import DEFAULT_PAGE_SIZE
from airflow_provider_quickbi.api.retry import RetryPolicy
from airflow_provider_quickbi.connection import QuickBIConnection, RawConnection
from airflow_provider_quickbi.exceptions import (
    QuickBIConnectionError,
    QuickBIConnectionUnreadable,
    QuickBIRequestError,
    task_error,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping, Sequence

    from airflow_provider_quickbi.api.client import QuickBIClient
    from airflow_provider_quickbi.api.models import MailTask, MailTaskRun
    from airflow_provider_quickbi.api.paging import MailTaskPage
    from airflow_provider_quickbi.api.status_poller import StatusPoller

#: Mail tasks a page when a name is looked up, so that few pages are enough.
_LOOKUP_PAGE_SIZE = 100
#: While a connection is tested somebody is waiting.
_TEST_RETRIES = RetryPolicy(attempts=2)


class QuickBIHook(BaseHook):
    """Ask Quick BI with the AccessKey of an Airflow connection.

    Nothing happens when it is made; the connection is read when it is first needed.

    :param quickbi_conn_id: id of a connection of type ``quickbi`` or ``alibaba_cloud``; default ``quickbi_default``.
    """

    conn_name_attr = "quickbi_conn_id"
    default_conn_name = connection.DEFAULT_CONN_ID
    conn_type = connection.CONN_TYPE
    hook_name = connection.HOOK_NAME

    def __init__(self, quickbi_conn_id: str = connection.DEFAULT_CONN_ID, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.quickbi_conn_id = quickbi_conn_id
        self._connection: QuickBIConnection | None = None
        self._client: QuickBIClient | None = None

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return how the connection form treats the standard fields, for Airflow below 3.2."""
        return connection.form_behaviour()

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Return the connection form's further fields, for Airflow below 3.2."""
        from airflow_provider_quickbi.connection.form import build_widget

        return connection.form_widgets(build_widget)

    @property
    def quickbi_connection(self) -> QuickBIConnection:
        """What the connection says.

        :raises QuickBIConnectionError: if a field is wrong or missing.
        :raises QuickBIUnavailable: if it does not exist or cannot be read for now.
        """
        if self._connection is None:
            with self._explained():
                self._connection = self._read_connection()
        return self._connection

    def _read_connection(self) -> QuickBIConnection:
        with self._looked_up():
            found = self.get_connection(self.quickbi_conn_id)
        connection.check_extra(self.quickbi_conn_id, found.extra)
        raw = self._raw(found, found.extra_dejson)
        _mask(connection.secrets_of(raw))
        return connection.read_connection(raw)

    async def read_connection_async(self) -> QuickBIConnection:
        """Read the connection anew without blocking the event loop.

        :raises QuickBIConnectionError: if a field is wrong or missing.
        :raises QuickBIUnavailable: if it does not exist or cannot be read for now.
        """
        with self._explained():
            return await self._read_connection_async()

    async def _read_connection_async(self) -> QuickBIConnection:
        from airflow.providers.common.compat.connection import get_async_connection, get_async_extra_dejson
        from asgiref.sync import sync_to_async

        with self._looked_up():
            found = await get_async_connection(self.quickbi_conn_id)
        connection.check_extra(self.quickbi_conn_id, found.extra)
        raw = self._raw(found, await get_async_extra_dejson(found))
        # Masking tells the triggerer's supervisor and waits for it: on the event loop Airflow 3.0 fails, and others
        # leave the supervisor, which writes the log, without the mask.
        await sync_to_async(_mask)(connection.secrets_of(raw))
        return connection.read_connection(raw)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Say in words what is wrong, in an error whose traceback ends before the frames that hold the connection."""
        try:
            yield
        except connection.ConnectionFieldError as error:
            error.__traceback__ = error.__context__ = None
            raise QuickBIConnectionError(str(error)) from None

    @contextmanager
    def _looked_up(self) -> Iterator[None]:
        """Say in words that the connection was not found.

        Airflow says the same of one that nobody has made and of one that a secrets backend, or its API server, could
        not give for a moment. What else is raised may quote the connection, so its class is all that is told.
        """
        try:
            yield
        except Exception as error:  # noqa: BLE001 - each backend and release has its own
            raise QuickBIConnectionUnreadable(
                f"Connection {self.quickbi_conn_id!r} does not exist, or Airflow cannot read it and its log says why "
                f"({type(error).__name__}). Add one of type {connection.CONN_TYPE!r}, in the environment as "
                f"AIRFLOW_CONN_{self.quickbi_conn_id.upper()} or under Admin > Connections.",
                may_have_arrived=False,
            ) from None

    def _raw(self, found: Any, extra: Any) -> RawConnection:
        return RawConnection(
            conn_id=self.quickbi_conn_id,
            conn_type=found.conn_type,
            login=found.login,
            password=found.password,
            host=found.host,
            port=found.port,
            schema=found.schema,
            extra=extra,
        )

    def get_conn(self) -> QuickBIClient:
        """Return the client for the connection; it keeps its connections open until :meth:`close`.

        :raises QuickBIConnectionError: if the connection is wrong.
        :raises QuickBIUnavailable: if it does not exist or cannot be read for now.
        """
        if self._client is None:
            from airflow_provider_quickbi.api.client import QuickBIClient

            self._client = QuickBIClient(self.quickbi_connection.settings, on_call=count_call)
        return self._client

    def close(self) -> None:
        """Close the client's connections."""
        if self._client is not None:
            self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @asynccontextmanager
    async def status_poller(self) -> AsyncIterator[StatusPoller]:
        """Give the board on which all waits of the connection's account in this event loop ask together.

        :raises QuickBIConnectionError: if the connection is wrong.
        :raises QuickBIUnavailable: if it does not exist or cannot be read for now.
        """
        from airflow_provider_quickbi.api.status_poller import shared_poller

        settings = (await self.read_connection_async()).settings
        async with shared_poller(settings, count_call) as poller:
            yield poller

    def get_mail_task_list(
        self,
        page_num: int = 1,
        page_size: int = DEFAULT_PAGE_SIZE,
        user_nick: str | None = None,
        paused: bool | None = None,
    ) -> MailTaskPage:
        """Return one page of the mail tasks that the AccessKey may see (``GetMailTaskList``).

        :param page_num: from 1; default 1.
        :param page_size: mail tasks a page; default 25.
        :param user_nick: only mail tasks of the owner with this nickname.
        :param paused: only paused mail tasks (``True``) or only those that are not (``False``).
        :raises QuickBIRequestError: if Quick BI refuses.
        :raises QuickBIError: if it cannot be asked.
        """
        with refusals():
            return self.get_conn().get_mail_task_list(page_num, page_size, user_nick, paused)

    def iter_mail_tasks(
        self, user_nick: str | None = None, paused: bool | None = None, page_size: int = DEFAULT_PAGE_SIZE
    ) -> Iterator[MailTask]:
        """Give all mail tasks that the AccessKey may see, each once, page by page as they are asked for.

        :param user_nick: only mail tasks of the owner with this nickname.
        :param paused: only paused mail tasks (``True``) or only those that are not (``False``).
        :param page_size: mail tasks a page; default 25.
        :raises QuickBIRequestError: if Quick BI refuses.
        :raises QuickBIError: if it cannot be asked.
        """
        with refusals():
            yield from self.get_conn().iter_mail_tasks(user_nick, paused, page_size)

    def find_mail_tasks(self, subscribe_names: Sequence[str], owner: str | None = None) -> list[MailTask]:
        """Return the mail tasks with exactly these names, one for each name in the same order.

        :param subscribe_names: names; they need not be unique in Quick BI, but must be among the owner's.
        :param owner: nickname or user id of the owner, where several mail tasks have a name.
        :raises QuickBIRequestError: if a name fits none or several, with the candidates' MailIds and owners, or if
            Quick BI refuses.
        :raises QuickBIUnavailable: if Quick BI cannot be asked.
        """
        try:
            visible = list(self.get_conn().iter_mail_tasks(page_size=_LOOKUP_PAGE_SIZE))
            found = [find_by_name(visible, name, owner) for name in subscribe_names]
        except QuickBIError as error:
            raise task_error(error) from None
        for mail_task in found:
            self.log.info("Mail task %r is MailId %s.", mail_task.subscribe_name, mail_task.mail_id)
            if mail_task.paused:
                self.log.warning(
                    "Mail task %r (MailId %s) is paused: its schedule starts no run.",
                    mail_task.subscribe_name,
                    mail_task.mail_id,
                )
        return found

    def get_mail_task_status(self, mail_id: str, task_id: str | int | None = None) -> list[MailTaskRun]:
        """Return a run of a mail task, or its latest one (``GetMailTaskStatus``).

        :param mail_id: the mail task.
        :param task_id: the run; ``None`` for the latest one, which may be yesterday's.
        :returns: oldest first should the service answer with several; empty if there is no such run.
        :raises QuickBIRequestError: if Quick BI refuses.
        :raises QuickBIError: if it cannot be asked.
        """
        with refusals():
            return list(self.get_conn().get_mail_task_status(mail_id, task_id))

    def manual_run_mail_task(self, mail_id: str) -> bool:
        """Start a run of a mail task now (``ManualRunMailTask``). It is called once, never again on its own.

        To send a mail from a DAG take ``QuickBIRunMailTaskOperator``, which sends at most once across retries.

        :param mail_id: the mail task.
        :returns: ``True``. The service does not say which run it started.
        :raises QuickBIRequestError: if Quick BI refuses for good.
        :raises QuickBIError: if nothing was started for now, or it is not known whether a run was started.
        """
        with refusals():
            return self.get_conn().manual_run_mail_task(mail_id)

    def call(self, action: str, parameters: Mapping[str, Any] | None = None, *, repeatable: bool = False) -> Any:
        """Call any operation of ``quickbi-public`` (version ``2022-01-01``) and return its ``Result``.

        :param action: its name.
        :param parameters: names and values as the service documents them; booleans are sent as ``true``/``false``.
        :param repeatable: whether it may be tried again after throttling and transient errors; default ``False``.
        :raises QuickBIRequestError: if Quick BI refuses.
        :raises QuickBIError: if it cannot be asked.
        """
        with refusals():
            return self.get_conn().call(action, parameters, repeatable=repeatable)

    def test_connection(self) -> tuple[bool, str]:
        """Ask for one mail task and say in a sentence what was reached as whom, or what is wrong and what to do."""
        from airflow_provider_quickbi.api.operations import get_mail_task_list

        try:
            settings = self.quickbi_connection.settings
        except Exception as error:  # noqa: BLE001 - the form shows whatever is wrong with the connection
            return False, str(error)
        try:
            who = f"{settings.endpoint.host_header} as {_shown_identity(settings.credentials.identity)}"
            with self:
                page = self.get_conn().do(get_mail_task_list(page_size=1), retries=_TEST_RETRIES)
        except PermanentError as error:
            region = ""
            skewed = (error.code or "").startswith("InvalidTimeStamp")  # which no other region would mend
            if error.kind in (ErrorKind.DENIED, ErrorKind.CREDENTIALS) and not skewed:
                region = " An AccessKey is known in its own region's organisation only: check the region, too."
            return False, f"Quick BI at {who} refuses: {error}.{region}".replace("..", ".")
        except QuickBIError as error:
            return False, (
                f"Quick BI at {who} cannot be asked: {error}. Check region, network, endpoint and proxies, and that "
                "there is a route from here."
            ).replace("..", ".")
        except Exception as error:  # noqa: BLE001 - the form shows whatever is wrong with the connection
            return False, str(error)
        number = "unknown" if page.total_num is None else page.total_num
        return True, f"Reached Quick BI at {who}; mail tasks visible: {number}."


def _mask(secrets: Sequence[str]) -> None:
    from airflow.providers.common.compat.sdk import mask_secret

    for secret in secrets:
        mask_secret(secret)


@contextmanager
def refusals() -> Iterator[None]:
    """Turn Quick BI's permanent errors into ``QuickBIRequestError``, which fails a task without a retry."""
    try:
        yield
    except PermanentError as error:
        raise QuickBIRequestError(str(error), code=error.code, request_id=error.request_id) from None


def _shown_identity(identity: str) -> str:
    """Return who asks with most of an AccessKey ID left out."""
    auth_type, _, who = identity.partition(":")
    if who.startswith("access_key_id="):
        key = who.removeprefix("access_key_id=")
        return f"{auth_type} {key[:4]}***{key[-4:]}" if len(key) > 10 else f"{auth_type} {key[:2]}***"
    return f"{auth_type} {who}" if who.startswith("role_") else auth_type
