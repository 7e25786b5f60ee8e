"""A connection's account in the triggerer, taken anew when the connection's secret has changed."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING, Self

from airflow_provider_quickbi.api.errors import ErrorKind
from airflow_provider_quickbi.api.retry import NO_RETRY, RetryPolicy
from airflow_provider_quickbi.exceptions import QuickBIConnectionUnreadable
from airflow_provider_quickbi.hooks.quickbi import QuickBIHook

if TYPE_CHECKING:
    from airflow_provider_quickbi.api.errors import QuickBIError
    from airflow_provider_quickbi.api.models import StatusQuery
    from airflow_provider_quickbi.api.status_poller import StatusPoller, StatusResponse, Subscription


class SharedClient:
    """The account of a connection, taken anew when the connection's secret has changed.

    A connection that cannot be read for now is read again when somebody asks.
    """

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
        """Return the board on which the account asks.

        :raises QuickBIConnectionError: if the connection is wrong.
        :raises QuickBIUnavailable: if it could not be read yet, and still cannot.
        """
        async with self._reading:
            if self._poller is None:
                self._poller = await self._stack.enter_async_context(self._hook.status_poller())
            return self._poller

    def watch(self) -> SharedSubscription:
        """Return the view of one wait; close it when the wait ends."""
        return SharedSubscription(self)

    async def renew_after(self, error: QuickBIError, watch: SharedSubscription) -> bool:
        """After an error: whether it was about credentials that the connection has, or may have, replaced meanwhile.

        :param error: what the service said.
        :param watch: who asked.
        :raises QuickBIConnectionError: if the connection is wrong by now.
        """
        return error.kind is ErrorKind.CREDENTIALS and await self._changed(watch)

    async def _changed(self, watch: SharedSubscription) -> bool:
        """Whether the connection now holds other credentials, which are taken from here on.

        If it cannot be read, nobody knows: the next look reads it again before it asks.
        """
        refused = watch.poller
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
    """One wait's view of the account's current board."""

    def __init__(self, account: SharedClient) -> None:
        self._account = account
        self.poller: StatusPoller | None = None
        self._watch: Subscription | None = None

    async def poll_once(
        self, status_query: StatusQuery, *, max_age: float = 0.0, retries: RetryPolicy = NO_RETRY
    ) -> StatusResponse:
        """Ask on the current board, see :meth:`airflow_provider_quickbi.api.status_poller.Subscription.poll_once`.

        A connection that cannot be read is an answer that did not come.
        """
        try:
            poller = await self._account.poller()
        except QuickBIConnectionUnreadable as error:
            from airflow_provider_quickbi.api.status_poller import (
                StatusResponse,  # needs the client, which no DAG file need load
            )

            return StatusResponse(time.monotonic(), error.with_traceback(None))
        if self._watch is None or self.poller is not poller:
            self.close()
            self.poller = poller
            self._watch = poller.subscribe()
        return await self._watch.poll_once(status_query, max_age=max_age, retries=retries)

    def close(self) -> None:
        """Let go of what was kept for this wait."""
        if self._watch is not None:
            self._watch.close()
