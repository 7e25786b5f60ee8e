"""The two clients side by side: blocking and asyncio, with the same methods; every rule is in :mod:`.flow`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from airflow_provider_quickbi.api import dataset_operations, operations
from airflow_provider_quickbi.api.aiohttp_transport import AiohttpTransport
from airflow_provider_quickbi.api.clock import CLOCK, Clock
from airflow_provider_quickbi.api.credentials import CredentialSource
from airflow_provider_quickbi.api.dataset_operations import DEFAULT_DATASET_PAGE_SIZE
from airflow_provider_quickbi.api.errors import QuickBIError
from airflow_provider_quickbi.api.flow import AcquireSlot, GetCredentials, Pause, Report, Send, Step, call_flow
from airflow_provider_quickbi.api.paging import DEFAULT_PAGE_SIZE, Pager
from airflow_provider_quickbi.api.rate_limit import rate_limiter
from airflow_provider_quickbi.api.requests_transport import RequestsTransport
from airflow_provider_quickbi.api.retry import RetryPolicy
from airflow_provider_quickbi.api.tls import warn_if_insecure

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping
    from datetime import datetime

    from airflow_provider_quickbi.api.datasets import Dataset, DatasetRefreshJob, RefreshLog
    from airflow_provider_quickbi.api.models import MailTask, MailTaskRun
    from airflow_provider_quickbi.api.operations import Operation
    from airflow_provider_quickbi.api.paging import MailTaskPage, Page
    from airflow_provider_quickbi.api.rate_limit import RateLimiter
    from airflow_provider_quickbi.api.settings import ClientSettings

T = TypeVar("T")
Transport = TypeVar("Transport")


class _Client(ABC, Generic[Transport]):
    """What both clients have in common."""

    def __init__(
        self,
        settings: ClientSettings,
        retries: RetryPolicy | None = None,
        on_call: Callable[[str, str], None] | None = None,
        *,
        clock: Clock = CLOCK,
    ) -> None:
        self.settings = settings
        self.retries = retries or RetryPolicy()
        self.clock = clock
        self._on_call = on_call
        self._rate_limiters: dict[str, RateLimiter] = {}
        self._credentials = CredentialSource(settings.credentials, clock)
        self._transport = self._connect()
        warn_if_insecure(settings)

    @abstractmethod
    def _connect(self) -> Transport:
        """Return what sends requests."""

    def _flow(self, operation: Operation[T], retries: RetryPolicy | None) -> Generator[Step, Any, T]:
        limiter = self.rate_limiter(operation.action)
        return call_flow(operation, self.settings.endpoint, limiter, retries or self.retries)

    def rate_limiter(self, action: str) -> RateLimiter:
        """Return the rate limiter that all clients of the account in this process share for an operation."""
        if (limiter := self._rate_limiters.get(action)) is None:
            settings = self.settings
            limiter = self._rate_limiters[action] = rate_limiter(
                settings.account, action, settings.status_calls_per_second, settings.pacing, self.clock
            )
        return limiter

    def _report(self, action: str, result: str) -> None:
        if self._on_call is not None:
            self._on_call(action, result)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.settings.endpoint.url} as {self.settings.credentials.auth_type}>"


class QuickBIClient(_Client[RequestsTransport]):
    """A blocking client. Close it, or use it in a ``with`` statement.

    :param settings: the account and how to reach it.
    :param retries: how often reads are retried; default 5 attempts within about 8 seconds.
    :param on_call: called after each call with the operation and its result: ``ok`` or a kind of error.
    :param clock: the time, and how to sleep; default the machine's.
    """

    def _connect(self) -> RequestsTransport:
        return RequestsTransport(self.settings, self.clock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; the client opens new ones if it is used again."""
        self._transport.close()

    def get_mail_task_list(
        self,
        page_num: int = 1,
        page_size: int = DEFAULT_PAGE_SIZE,
        user_nick: str | None = None,
        paused: bool | None = None,
    ) -> MailTaskPage:
        """Return one page of mail tasks, see :func:`.operations.get_mail_task_list`.

        :raises QuickBIError: if the call fails, after the retries.
        """
        return self.do(operations.get_mail_task_list(page_num, page_size, user_nick, paused))

    def iter_mail_tasks(
        self, user_nick: str | None = None, paused: bool | None = None, page_size: int = DEFAULT_PAGE_SIZE
    ) -> Iterator[MailTask]:
        """Yield all mail tasks, each once; further pages are requested only when needed.

        :param user_nick: only mail tasks of the owner with this nickname.
        :param paused: only paused mail tasks (``True``) or only active ones (``False``); default all.
        :param page_size: mail tasks per page; default 25.
        :raises QuickBIError: if a page cannot be read, after the retries.
        """
        pager: Pager[MailTask] = Pager(attrgetter("mail_id"))
        while (page_num := pager.page_num) is not None:
            yield from pager.feed(self.get_mail_task_list(page_num, page_size, user_nick, paused))

    def get_mail_task_status(
        self, mail_id: str, task_id: str | int | None = None, *, retries: RetryPolicy | None = None
    ) -> tuple[MailTaskRun, ...]:
        """Return a run, or the latest one; oldest first if there are several, empty if there is no such run.

        :param mail_id: the mail task.
        :param task_id: the run; ``None`` for the latest one.
        :param retries: overrides the client's retries.
        :raises QuickBIError: if the call fails, after the retries.
        """
        return self.do(operations.get_mail_task_status(mail_id, task_id, self.settings.zone), retries=retries)

    def manual_run_mail_task(self, mail_id: str) -> bool:
        """Start a run now; the call is never retried.

        :param mail_id: the mail task.
        :returns: ``True``; the service returns no TaskId.
        :raises NotStartedError: if nothing was started and a later attempt may succeed.
        :raises AlreadyRunningError: if a run is in progress.
        :raises TransientError: if a run may have been started, unless ``may_have_arrived`` is ``False``.
        :raises QuickBIError: for every other refusal.
        """
        return self.do(operations.manual_run_mail_task(mail_id))

    def allot_dataset_acceleration_task(self, dataset_id: str) -> bool:
        """Start a refresh of a dataset; the call is never retried.

        :param dataset_id: the dataset.
        :returns: ``True``; the service returns no id of the refresh.
        :raises AlreadyRunningError: if a refresh is in progress.
        :raises TransientError: if a refresh may have been started, unless ``may_have_arrived`` is ``False``.
        :raises QuickBIError: for every other refusal.
        """
        return self.do(dataset_operations.allot_dataset_acceleration_task(dataset_id))

    def query_last_acceleration_engine_job(
        self, dataset_id: str, *, retries: RetryPolicy | None = None
    ) -> tuple[DatasetRefreshJob, ...]:
        """Return the latest refresh of a dataset; empty if there is none.

        :param dataset_id: the dataset.
        :param retries: overrides the client's retries.
        :raises QuickBIError: if the call fails, after the retries.
        """
        operation = dataset_operations.query_last_acceleration_engine_job(dataset_id, self.settings.zone)
        return self.do(operation, retries=retries)

    def query_acceleration_log_by_cube_id(
        self, dataset_id: str, started_from: datetime, started_to: datetime, page_no: int = 1, page_size: int = 10
    ) -> Page[RefreshLog]:
        """Return one page of logs, see :func:`.dataset_operations.query_acceleration_log_by_cube_id`.

        :raises QuickBIError: if the call fails, after the retries.
        """
        return self.do(
            dataset_operations.query_acceleration_log_by_cube_id(
                dataset_id, started_from, started_to, page_no, page_size
            )
        )

    def query_dataset_list(
        self,
        workspace_id: str,
        keyword: str | None = None,
        page_num: int = 1,
        page_size: int = DEFAULT_DATASET_PAGE_SIZE,
    ) -> Page[Dataset]:
        """Return one page of datasets, see :func:`.dataset_operations.query_dataset_list`.

        :raises QuickBIError: if the call fails, after the retries.
        """
        return self.do(dataset_operations.query_dataset_list(workspace_id, keyword, page_num, page_size))

    def iter_datasets(
        self, workspace_id: str, keyword: str | None = None, page_size: int = DEFAULT_DATASET_PAGE_SIZE
    ) -> Iterator[Dataset]:
        """Yield all datasets of a workspace, each once; further pages are requested only when needed.

        :param workspace_id: the workspace.
        :param keyword: only datasets whose names contain it.
        :param page_size: datasets per page, at most 1,000; default 100.
        :raises QuickBIError: if a page cannot be read, after the retries.
        """
        pager: Pager[Dataset] = Pager(attrgetter("dataset_id"))
        while (page_num := pager.page_num) is not None:
            yield from pager.feed(self.query_dataset_list(workspace_id, keyword, page_num, page_size))

    def call(self, action: str, parameters: Mapping[str, Any] | None = None, *, repeatable: bool = False) -> Any:
        """Call any operation of ``quickbi-public`` and return its ``Result``.

        :param action: its name.
        :param parameters: names and values as the service documents them.
        :param repeatable: whether it may be retried after throttling and transient errors; default ``False``.
        :raises QuickBIError: if the call fails.
        """
        return self.do(operations.any_operation(action, parameters or {}, repeatable=repeatable))

    def do(self, operation: Operation[T], *, retries: RetryPolicy | None = None) -> T:
        """Call an operation and return its typed result.

        :param operation: from :mod:`.operations`.
        :param retries: overrides the client's retries.
        :raises QuickBIError: if the call fails, after the retries.
        """
        self._transport.open()
        flow = self._flow(operation, retries)
        try:
            step = next(flow)
            while True:
                try:
                    outcome = self._carry_out(step)
                except QuickBIError as error:
                    step = flow.throw(error)
                else:
                    step = flow.send(outcome)
        except StopIteration as end:
            result: T = end.value
            return result

    def _carry_out(self, step: Step) -> Any:
        match step:
            case GetCredentials(refused):
                if refused is not None:
                    self._credentials.forget(refused)
                return self._credentials.get()
            case AcquireSlot(limiter):
                return limiter.acquire_blocking(self.clock.sleep)
            case Send(action, request, reuse_connection):
                return self._transport.send(action, request, reuse_connection=reuse_connection)
            case Pause(seconds):
                return self.clock.sleep(seconds)
            case Report(action, result):
                return self._report(action, result)


class AsyncQuickBIClient(_Client[AiohttpTransport]):
    """A client for asyncio. Use it in an ``async with`` statement, in one event loop.

    :param settings: the account and how to reach it.
    :param retries: how often reads are retried; default 5 attempts within about 8 seconds.
    :param on_call: called after each call with the operation and its result: ``ok`` or a kind of error; must
        not block.
    :param clock: the time, and how to sleep; default the machine's.
    """

    def _connect(self) -> AiohttpTransport:
        return AiohttpTransport(self.settings)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections; the client opens new ones if it is used again."""
        await self._transport.close()

    async def get_mail_task_list(
        self,
        page_num: int = 1,
        page_size: int = DEFAULT_PAGE_SIZE,
        user_nick: str | None = None,
        paused: bool | None = None,
    ) -> MailTaskPage:
        """See :meth:`QuickBIClient.get_mail_task_list`."""
        return await self.do(operations.get_mail_task_list(page_num, page_size, user_nick, paused))

    async def iter_mail_tasks(
        self, user_nick: str | None = None, paused: bool | None = None, page_size: int = DEFAULT_PAGE_SIZE
    ) -> AsyncIterator[MailTask]:
        """See :meth:`QuickBIClient.iter_mail_tasks`."""
        pager: Pager[MailTask] = Pager(attrgetter("mail_id"))
        while (page_num := pager.page_num) is not None:
            for mail_task in pager.feed(await self.get_mail_task_list(page_num, page_size, user_nick, paused)):
                yield mail_task

    async def get_mail_task_status(
        self, mail_id: str, task_id: str | int | None = None, *, retries: RetryPolicy | None = None
    ) -> tuple[MailTaskRun, ...]:
        """See :meth:`QuickBIClient.get_mail_task_status`."""
        return await self.do(operations.get_mail_task_status(mail_id, task_id, self.settings.zone), retries=retries)

    async def manual_run_mail_task(self, mail_id: str) -> bool:
        """See :meth:`QuickBIClient.manual_run_mail_task`."""
        return await self.do(operations.manual_run_mail_task(mail_id))

    async def allot_dataset_acceleration_task(self, dataset_id: str) -> bool:
        """See :meth:`QuickBIClient.allot_dataset_acceleration_task`."""
        return await self.do(dataset_operations.allot_dataset_acceleration_task(dataset_id))

    async def query_last_acceleration_engine_job(
        self, dataset_id: str, *, retries: RetryPolicy | None = None
    ) -> tuple[DatasetRefreshJob, ...]:
        """See :meth:`QuickBIClient.query_last_acceleration_engine_job`."""
        operation = dataset_operations.query_last_acceleration_engine_job(dataset_id, self.settings.zone)
        return await self.do(operation, retries=retries)

    async def query_acceleration_log_by_cube_id(
        self, dataset_id: str, started_from: datetime, started_to: datetime, page_no: int = 1, page_size: int = 10
    ) -> Page[RefreshLog]:
        """See :meth:`QuickBIClient.query_acceleration_log_by_cube_id`."""
        return await self.do(
            dataset_operations.query_acceleration_log_by_cube_id(
                dataset_id, started_from, started_to, page_no, page_size
            )
        )

    async def query_dataset_list(
        self,
        workspace_id: str,
        keyword: str | None = None,
        page_num: int = 1,
        page_size: int = DEFAULT_DATASET_PAGE_SIZE,
    ) -> Page[Dataset]:
        """See :meth:`QuickBIClient.query_dataset_list`."""
        return await self.do(dataset_operations.query_dataset_list(workspace_id, keyword, page_num, page_size))

    async def iter_datasets(
        self, workspace_id: str, keyword: str | None = None, page_size: int = DEFAULT_DATASET_PAGE_SIZE
    ) -> AsyncIterator[Dataset]:
        """See :meth:`QuickBIClient.iter_datasets`."""
        pager: Pager[Dataset] = Pager(attrgetter("dataset_id"))
        while (page_num := pager.page_num) is not None:
            for dataset in pager.feed(await self.query_dataset_list(workspace_id, keyword, page_num, page_size)):
                yield dataset

    async def call(self, action: str, parameters: Mapping[str, Any] | None = None, *, repeatable: bool = False) -> Any:
        """See :meth:`QuickBIClient.call`."""
        return await self.do(operations.any_operation(action, parameters or {}, repeatable=repeatable))

    async def do(self, operation: Operation[T], *, retries: RetryPolicy | None = None) -> T:
        """See :meth:`QuickBIClient.do`."""
        await self._transport.open()
        flow = self._flow(operation, retries)
        try:
            step = next(flow)
            while True:
                try:
                    outcome = await self._carry_out(step)
                except QuickBIError as error:
                    step = flow.throw(error)
                else:
                    step = flow.send(outcome)
        except StopIteration as end:
            result: T = end.value
            return result

    async def _carry_out(self, step: Step) -> Any:
        match step:
            case GetCredentials(refused):
                if refused is not None:
                    self._credentials.forget(refused)
                return await self._credentials.get_async()
            case AcquireSlot(limiter):
                return await limiter.acquire()
            case Send(action, request, reuse_connection):
                return await self._transport.send(action, request, reuse_connection=reuse_connection)
            case Pause(seconds):
                return await self.clock.sleep_async(seconds)
            case Report(action, result):
                return self._report(action, result)
