"""A connection's account in the triggerer, taken anew when the connection's secret has changed."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Self

from airflow_provider_quickbi.api.errors import ErrorKind
from airflow_provider_quickbi.api.retries import ONE_ATTEMPT, Retries
from airflow_provider_quickbi.hooks.quickbi import QuickBIHook

if TYPE_CHECKING:
    from airflow_provider_quickbi.api.errors import QuickBIError
    from airflow_provider_quickbi.api.models import Question
    from airflow_provider_quickbi.api.sharing import Answer, StatusBoard


class Account:
    """The account of a connection, taken anew when the connection's secret has changed."""

    def __init__(self, quickbi_conn_id: str) -> None:
        self._hook = QuickBIHook(quickbi_conn_id)
        self._stack = AsyncExitStack()
        self.board: StatusBoard

    async def __aenter__(self) -> Self:
        self.board = await self._stack.enter_async_context(self._hook.status_board())
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stack.aclose()

    def watch(self) -> AccountWatch:
        """Return the view of one wait; close it when the wait ends."""
        return AccountWatch(self)

    async def renew_after(self, error: QuickBIError, watch: AccountWatch) -> bool:
        """After an error: whether it was about credentials that the connection has replaced meanwhile.

        :param error: what the service said.
        :param watch: who asked.
        :raises QuickBIConnectionError: if the connection cannot be used any more.
        """
        return error.kind is ErrorKind.CREDENTIALS and await self._changed(watch)

    async def _changed(self, watch: AccountWatch) -> bool:
        """Whether the connection now holds other credentials, which are taken from here on."""
        if watch.board is not self.board:
            return True
        settings = (await self._hook.read_connection_async()).settings
        if settings == self.board.client.settings:
            return False
        self.board = await self._stack.enter_async_context(self._hook.status_board())
        return True


class AccountWatch:
    """One wait's view of the account's current board."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self.board = account.board
        self._watch = self.board.watch()

    async def look(self, question: Question, *, max_age: float = 0.0, retries: Retries = ONE_ATTEMPT) -> Answer:
        """Ask on the current board, see :meth:`airflow_provider_quickbi.api.sharing.Watch.look`."""
        if self.board is not self._account.board:
            self.close()
            self.board = self._account.board
            self._watch = self.board.watch()
        return await self._watch.look(question, max_age=max_age, retries=retries)

    def close(self) -> None:
        """Let go of what was kept for this wait."""
        self._watch.close()
