"""One client for all waits of a connection in the triggerer, replaced when the connection's secret has changed."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING, Self

from airflow_provider_quickbi._wait.schedule import Durations, PollSchedule
from airflow_provider_quickbi.api.clock import CLOCK
from airflow_provider_quickbi.api.errors import ErrorKind
from airflow_provider_quickbi.api.retry import NO_RETRY, RetryPolicy
from airflow_provider_quickbi.exceptions import QuickBIConnectionUnreadable
from airflow_provider_quickbi.hooks.quickbi import QuickBIHook

if TYPE_CHECKING:
    from airflow_provider_quickbi.api.errors import QuickBIError
    from airflow_provider_quickbi.api.operations import RunQuery
    from airflow_provider_quickbi.api.status_poller import StatusPoller, StatusResponse, Subscription


#: How long past runs took, of all connections: ids are unique across accounts.
DURATIONS = Durations()
#: The operation whose calls are few enough to matter who gets the next one.
_SCHEDULED_ACTION = "GetMailTaskStatus"


class SharedClient:
    """The client of a connection; a connection that cannot be read for now is read again with the next poll."""

    def __init__(self, quickbi_conn_id: str) -> None:
        self._hook = QuickBIHook(quickbi_conn_id)
        self._stack = AsyncExitStack()
        self._poller: StatusPoller | None = None
        self._reading = asyncio.Lock()

    async def __aenter__(self) -> Self:
        with suppress(QuickBIConnectionUnreadable):
            await self.poller()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stack.aclose()

    async def poller(self) -> StatusPoller:
        """Return the poller that all waits of the connection share.

        :raises QuickBIConnectionError: if the connection is wrong.
        :raises QuickBIUnavailable: if it could not be read yet, and still cannot.
        """
        async with self._reading:
            if self._poller is None:
                self._poller = await self._stack.enter_async_context(self._hook.status_poller())
                client = self._poller.client
                limiter = client.rate_limiter(_SCHEDULED_ACTION)
                if limiter.choose is None:
                    limiter.choose = PollSchedule(DURATIONS, client.clock.time).choose
            return self._poller

    def subscribe(self) -> SharedSubscription:
        """Return the view of one wait; close it when the wait ends."""
        return SharedSubscription(self)

    async def renew_after(self, error: QuickBIError, subscription: SharedSubscription) -> bool:
        """After an error: whether it was about credentials that the connection has, or may have, replaced meanwhile.

        Other credentials are used from here on. If the connection cannot be read, the next poll reads it again before
        it queries.

        :raises QuickBIConnectionError: if the connection is wrong by now.
        """
        if error.kind is not ErrorKind.CREDENTIALS:
            return False
        refused = subscription.poller
        if refused is not self._poller:
            return True
        try:
            settings = (await self._hook.read_connection_async()).settings
        except QuickBIConnectionUnreadable:
            changed = True
        else:
            changed = refused is None or settings != refused.client.settings
        if changed and refused is self._poller:
            self._poller = None
        return changed


class SharedSubscription:
    """One wait's view of the connection's current poller."""

    def __init__(self, client: SharedClient) -> None:
        self._client = client
        self.poller: StatusPoller | None = None
        self._subscription: Subscription | None = None

    async def poll(self, query: RunQuery, *, max_age: float = 0.0, retries: RetryPolicy = NO_RETRY) -> StatusResponse:
        """Poll, see :meth:`airflow_provider_quickbi.api.status_poller.Subscription.poll`.

        A connection that cannot be read counts as a failed poll.
        """
        try:
            poller = await self._client.poller()
        except QuickBIConnectionUnreadable as error:
            from airflow_provider_quickbi.api.status_poller import StatusResponse  # loads the client: not at parse time

            return StatusResponse(CLOCK.monotonic(), error.with_traceback(None))
        if self._subscription is None or self.poller is not poller:
            self.close()
            self.poller = poller
            self._subscription = poller.subscribe()
        return await self._subscription.poll_once(query, max_age=max_age, retries=retries)

    def close(self) -> None:
        """Let go of what was kept for this wait."""
        if self._subscription is not None:
            self._subscription.close()
