"""QuickBIHook: Quick BI through an Airflow connection."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Self

from airflow_provider_quickbi import connection
from airflow_provider_quickbi._metrics import count_call
from airflow_provider_quickbi.api.errors import ErrorKind, PermanentError, QuickBIError
from airflow_provider_quickbi.api.paging import DEFAULT_PAGE_SIZE
from airflow_provider_quickbi.api.retry import RetryPolicy
from airflow_provider_quickbi.exceptions import task_error, task_errors
from airflow_provider_quickbi.hooks import lookup
from airflow_provider_quickbi.hooks.datasets import DatasetMethods

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping, Sequence

    from airflow_provider_quickbi.api.client import AsyncQuickBIClient, QuickBIClient
    from airflow_provider_quickbi.api.models import MailTask, MailTaskRun
    from airflow_provider_quickbi.api.paging import MailTaskPage
    from airflow_provider_quickbi.api.status_poller import StatusPoller
    from airflow_provider_quickbi.connection import QuickBIConnection

#: Mail tasks per page when a name is looked up, to need few requests.
LOOKUP_PAGE_SIZE = 100
#: Few, because a user waits for the result of the connection test.
_TEST_RETRIES = RetryPolicy(attempts=2)


class QuickBIHook(DatasetMethods):
    """Call Quick BI with the credentials of an Airflow connection.

    The connection is read on first use. A subclass may override ``get_connection``; the asynchronous methods use it as
    well.

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
        """Return the additional fields of the connection form, for Airflow below 3.2."""
        return connection.form_widgets()

    @property
    def quickbi_connection(self) -> QuickBIConnection:
        """The parsed connection.

        :raises QuickBIConnectionError: if a field is invalid or missing.
        :raises QuickBIUnavailable: if the connection does not exist or cannot be read now.
        """
        if self._connection is None:
            self._connection = lookup.read_connection(self, self.quickbi_conn_id)
        return self._connection

    async def read_connection_async(self) -> QuickBIConnection:
        """Read and parse the connection again, without blocking the event loop.

        :raises QuickBIConnectionError: if a field is invalid or missing.
        :raises QuickBIUnavailable: if the connection does not exist or cannot be read now.
        """
        return await lookup.read_connection_async(self, self.quickbi_conn_id)

    def get_conn(self) -> QuickBIClient:
        """Return the client for the connection; it keeps network connections open until :meth:`close`.

        :raises QuickBIConnectionError: if a field of the connection is invalid or missing.
        :raises QuickBIUnavailable: if the connection does not exist or cannot be read now.
        """
        if self._client is None:
            from airflow_provider_quickbi.api.client import QuickBIClient

            self._client = QuickBIClient(self.quickbi_connection.settings, on_call=count_call)
        return self._client

    @asynccontextmanager
    async def get_async_conn(self) -> AsyncIterator[AsyncQuickBIClient]:
        """Open an asynchronous client for the connection, for ``async`` tasks.

        .. code-block:: python

            async with QuickBIHook().get_async_conn() as client:
                runs = await client.get_mail_task_status(mail_id)

        :raises QuickBIConnectionError: if a field of the connection is invalid or missing.
        :raises QuickBIUnavailable: if the connection does not exist or cannot be read now.
        :raises QuickBIRequestError: if Quick BI rejects a request inside the block.
        """
        from airflow_provider_quickbi.api.client import AsyncQuickBIClient

        settings = (await self.read_connection_async()).settings
        with task_errors():
            async with AsyncQuickBIClient(settings, on_call=count_call) as client:
                yield client

    def close(self) -> None:
        """Close the client's network connections."""
        if self._client is not None:
            self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @asynccontextmanager
    async def status_poller(self) -> AsyncIterator[StatusPoller]:
        """Open the status poller that all waits with equal settings share in this event loop.

        :raises QuickBIConnectionError: if a field of the connection is invalid or missing.
        :raises QuickBIUnavailable: if the connection does not exist or cannot be read now.
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
        """Return one page of the mail tasks visible to the AccessKey (``GetMailTaskList``).

        :param page_num: page number from 1; default 1.
        :param page_size: mail tasks per page; default 25.
        :param user_nick: only mail tasks of the owner with this nickname.
        :param paused: only paused mail tasks (``True``) or only active ones (``False``).
        :raises QuickBIRequestError: if Quick BI rejects the request.
        :raises QuickBIError: if there is no valid response.
        """
        with task_errors():
            return self.get_conn().get_mail_task_list(page_num, page_size, user_nick, paused)

    def iter_mail_tasks(
        self, user_nick: str | None = None, paused: bool | None = None, page_size: int = DEFAULT_PAGE_SIZE
    ) -> Iterator[MailTask]:
        """Iterate over all mail tasks visible to the AccessKey, each once; pages are requested as needed.

        :param user_nick: only mail tasks of the owner with this nickname.
        :param paused: only paused mail tasks (``True``) or only active ones (``False``).
        :param page_size: mail tasks per page; default 25.
        :raises QuickBIRequestError: if Quick BI rejects the request.
        :raises QuickBIError: if there is no valid response.
        """
        with task_errors():
            yield from self.get_conn().iter_mail_tasks(user_nick, paused, page_size)

    def find_mail_task(self, subscribe_name: str, owner: str | None = None) -> tuple[str, str]:
        """Return MailId and name of the one mail task with exactly this name, see :meth:`find_mail_tasks`."""
        (found,) = self.find_mail_tasks([subscribe_name], owner)
        return found.mail_id, found.subscribe_name

    def find_mail_tasks(self, subscribe_names: Sequence[str], owner: str | None = None) -> list[MailTask]:
        """Return the mail tasks with exactly these names, one per name, in the same order.

        :param subscribe_names: names; not necessarily unique in Quick BI, but unique for the owner.
        :param owner: nickname or user id of the owner, for names that several mail tasks share.
        :raises QuickBIRequestError: if no or more than one mail task has a name (the message lists the candidates), or
            if Quick BI rejects the request.
        :raises QuickBIUnavailable: if there is no valid response.
        """
        try:
            visible = list(self.get_conn().iter_mail_tasks(page_size=LOOKUP_PAGE_SIZE))
            return lookup.find_all(visible, subscribe_names, owner, self.log)
        except QuickBIError as error:
            raise task_error(error) from None

    def get_mail_task_status(self, mail_id: str, task_id: str | int | None = None) -> list[MailTaskRun]:
        """Return one run of a mail task: the given or the latest one (``GetMailTaskStatus``).

        :param mail_id: the mail task.
        :param task_id: the run; ``None`` for the latest one, which may be yesterday's.
        :returns: empty if there is no such run; oldest first if the service returns several.
        :raises QuickBIRequestError: if Quick BI rejects the request.
        :raises QuickBIError: if there is no valid response.
        """
        with task_errors():
            return list(self.get_conn().get_mail_task_status(mail_id, task_id))

    def manual_run_mail_task(self, mail_id: str) -> bool:
        """Start a run of a mail task now (``ManualRunMailTask``). The request is never repeated.

        In a DAG, use ``QuickBIRunMailTaskOperator``: it starts at most one run across retries.

        :param mail_id: the mail task.
        :returns: ``True``. The service does not say which run it started.
        :raises QuickBIRequestError: if Quick BI rejects the request.
        :raises QuickBIError: if no run was started for now, or if that is unknown.
        """
        with task_errors():
            return self.get_conn().manual_run_mail_task(mail_id)

    def call(self, action: str, parameters: Mapping[str, Any] | None = None, *, repeatable: bool = False) -> Any:
        """Call any operation of ``quickbi-public`` (version ``2022-01-01``) and return its ``Result``.

        :param action: its name.
        :param parameters: names and values as the service documents them; booleans are sent as ``true``/``false``.
        :param repeatable: whether to retry after rate limiting and transient errors; default ``False``.
        :raises QuickBIRequestError: if Quick BI rejects the request.
        :raises QuickBIError: if there is no valid response.
        """
        with task_errors():
            return self.get_conn().call(action, parameters, repeatable=repeatable)

    def test_connection(self) -> tuple[bool, str]:
        """List one mail task; return whether that worked, and what was reached as whom or what to fix."""
        from airflow_provider_quickbi.api.operations import get_mail_task_list

        try:
            settings = self.quickbi_connection.settings
        except Exception as error:  # noqa: BLE001 - the form shows whatever is wrong with the connection
            return False, str(error)
        who = f"{settings.endpoint.host_header} as {settings.credentials.shown}"
        try:
            with self:
                page = self.get_conn().do(get_mail_task_list(page_size=1), retries=_TEST_RETRIES)
        except PermanentError as error:
            message = f"Quick BI at {who} rejected the request: {error}."
            skewed = (error.code or "").startswith("InvalidTimeStamp")  # not a matter of the region
            if error.kind in (ErrorKind.DENIED, ErrorKind.CREDENTIALS) and not skewed:
                message += " Also check the region: an AccessKey is valid only for organisations in its own region."
        except QuickBIError as error:
            message = (
                f"Quick BI at {who} cannot be reached: {error}. Check region, network, endpoint, proxies and the route "
                "from this machine."
            )
        except Exception as error:  # noqa: BLE001 - the form shows whatever is wrong with the connection
            message = str(error)
        else:
            number = "unknown" if page.total_num is None else page.total_num
            return True, f"Reached Quick BI at {who}; mail tasks visible: {number}."
        return False, message.replace("..", ".")
