"""The trigger that waits for deliveries in the triggerer; it asks, and starts nothing."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_quickbi.api.attempts import ONE_ATTEMPT, Retries
from airflow_provider_quickbi.api.errors import ErrorKind, QuickBIError, ThrottledError
from airflow_provider_quickbi.delivery import Delivery, Wait
from airflow_provider_quickbi.exceptions import QuickBIConnectionError
from airflow_provider_quickbi.hooks.quickbi import QuickBIHook
from airflow_provider_quickbi.progress import Progress, poke_delay

if TYPE_CHECKING:
    from airflow_provider_quickbi.api.sharing import StatusBoard

#: Version of the trigger's arguments; a release reads those of all earlier ones, so that waits survive an upgrade.
ARGUMENTS_VERSION = 1

#: First looks of waits that begin together are spread over this many seconds at the most.
MAX_SPREAD_SECONDS = 30.0
#: An answer that others got this many seconds ago is still new.
FRESH_SECONDS = 0.5


class EventKind:
    """What an event of a trigger says."""

    SETTLED = "settled"
    LATE = "late"
    EXECUTION_TIMEOUT = "execution_timeout"
    CONNECTION = "connection"
    OVER = "over"


class QuickBIMailTaskTrigger(BaseTrigger):
    """Wait until a delivery is settled, asking Quick BI no more often than it allows.

    It gives one event, a dict of plain JSON: ``{"version", "kind", "delivery", "message"}``.

    :param quickbi_conn_id: id of the connection; it is read in the triggerer, nothing secret is an argument.
    :param delivery: :meth:`airflow_provider_quickbi.delivery.Delivery.as_dict` of what is waited for.
    :param poke_interval: seconds between two looks.
    :param exponential_backoff: whether the interval grows from look to look, as Airflow's sensors do it.
    :param max_wait: seconds between two looks at the most; ``None`` for no limit.
    :param execute_by: when ``execution_timeout`` is over, in seconds since the epoch; ``None`` for never.
    :param version: of these arguments.
    """

    def __init__(
        self,
        *,
        quickbi_conn_id: str,
        delivery: dict[str, Any],
        poke_interval: float,
        exponential_backoff: bool = False,
        max_wait: float | None = None,
        execute_by: float | None = None,
        version: int = ARGUMENTS_VERSION,
    ) -> None:
        super().__init__()
        self.quickbi_conn_id = quickbi_conn_id
        self.delivery = Delivery.from_dict(delivery)
        self.poke_interval = poke_interval
        self.exponential_backoff = exponential_backoff
        self.max_wait = max_wait
        self.execute_by = execute_by
        self.version = version

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the arguments, with what has been learnt meanwhile."""
        return (
            "airflow_provider_quickbi.triggers.quickbi.QuickBIMailTaskTrigger",
            {
                "version": ARGUMENTS_VERSION,
                "quickbi_conn_id": self.quickbi_conn_id,
                "delivery": self.delivery.as_dict(),
                "poke_interval": self.poke_interval,
                "exponential_backoff": self.exponential_backoff,
                "max_wait": self.max_wait,
                "execute_by": self.execute_by,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, and give the one event."""
        try:
            async with _Account(self.quickbi_conn_id) as account:
                kind = await self._settle(account)
        except QuickBIConnectionError as error:
            yield TriggerEvent(self._event(EventKind.CONNECTION, str(error)))
        else:
            yield TriggerEvent(self._event(kind, self.delivery.verdict.message))

    async def on_kill(self) -> None:
        """Say that a person ended the wait; a mail that was started cannot be called back."""
        self.log.info("The wait was ended. Nothing is called back: a mail that is under way goes out.")

    def _event(self, kind: str, message: str) -> dict[str, Any]:
        return {
            "version": ARGUMENTS_VERSION,
            "kind": kind,
            "delivery": self.delivery.as_dict(),
            "message": message,
        }

    async def _settle(self, account: _Account) -> str:
        """Wait for all mail tasks at once until the delivery is settled, late, or out of time."""
        positions = self.delivery.unsettled()
        if len(positions) == 1:
            return await self._settle_one(account, positions[0])
        tasks = {asyncio.create_task(self._settle_one(account, position)) for position in positions}
        try:
            while tasks:
                done, tasks = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                kinds = {task.result() for task in done}
                if ended := sorted(kinds - {EventKind.SETTLED}):
                    return ended[0]
                if self.delivery.verdict.outcome.final:
                    break
            return EventKind.SETTLED
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _settle_one(self, account: _Account, position: int) -> str:
        """Wait for one mail task until its verdict is final, or the delivery is late or out of time."""
        progress = Progress(self.log)
        watch = account.watch()
        try:
            looks = 1
            wait = self.delivery.waits[position]
            look_at = max(time.time(), wait.asks_from) + random.uniform(  # noqa: S311 - spreads calls
                0, min(self.poke_interval, MAX_SPREAD_SECONDS)
            )
            max_age = self.poke_interval
            while True:
                now = await self._sleep_until(look_at, position)
                wait = self.delivery.waits[position]
                age = 0.0
                if now >= look_at or self._out_of_time(wait, now):
                    last = wait.finish_by is not None and now >= wait.finish_by
                    age = await self._look(account, watch, position, max_age, Retries() if last else ONE_ATTEMPT)
                    looks += 1
                    max_age = FRESH_SECONDS
                now = time.time()
                self.delivery = self.delivery.judged(position, None, now) if self._open(position) else self.delivery
                wait = self.delivery.waits[position]
                progress.report(self.delivery.verdicts[position].message, now)
                if not self._open(position) or self.delivery.verdict.outcome.final:
                    return EventKind.SETTLED
                if self.execute_by is not None and now >= self.execute_by:
                    return EventKind.EXECUTION_TIMEOUT
                if self.delivery.is_late(now):
                    return EventKind.LATE
                look_at = max(now - age + self._delay(wait, looks), wait.asks_from)
        finally:
            watch.close()

    def _open(self, position: int) -> bool:
        return not self.delivery.verdicts[position].outcome.final

    async def _look(
        self, account: _Account, watch: _AccountWatch, position: int, max_age: float, retries: Retries
    ) -> float:
        """Ask once, learn from the answer, and return the answer's age in seconds."""
        question = self.delivery.waits[position].question(time.time())
        if question is None:
            return 0.0
        answer = await watch.look(question, max_age=max_age, retries=retries)
        if isinstance(answer.outcome, QuickBIError) and answer.outcome.kind is ErrorKind.CREDENTIALS:
            if await account.changed(watch):
                return 0.0
        self.delivery = self.delivery.judged(position, answer.outcome, time.time())
        return max(0.0, time.monotonic() - answer.asked_at)

    def _delay(self, wait: Wait, looks: int) -> float:
        """Seconds until the next look; after a look without an answer it is sooner, and pacing says how soon."""
        delay = poke_delay(self.poke_interval, looks, self.exponential_backoff, self.max_wait)
        if isinstance(wait.error, ThrottledError):
            return 0.0
        return delay if wait.error is None else min(delay, MAX_SPREAD_SECONDS)

    def _out_of_time(self, wait: Wait, now: float) -> bool:
        return wait.gives_up_at is not None and now >= wait.gives_up_at

    async def _sleep_until(self, look_at: float, position: int) -> float:
        """Sleep until the next look, or until something else is due, and return the time."""
        due = [look_at, self.delivery.waits[position].gives_up_at, self.delivery.late_at, self.execute_by]
        await asyncio.sleep(max(0.0, min(instant for instant in due if instant is not None) - time.time()))
        return time.time()


class QuickBIPauseTrigger(BaseTrigger):
    """Wait until an instant, without a worker slot and without a call.

    :param until: seconds since the epoch.
    :param version: of these arguments.
    """

    def __init__(self, *, until: float, version: int = ARGUMENTS_VERSION) -> None:
        super().__init__()
        self.until = until
        self.version = version

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the arguments."""
        return (
            "airflow_provider_quickbi.triggers.quickbi.QuickBIPauseTrigger",
            {"version": ARGUMENTS_VERSION, "until": self.until},
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, and give the one event."""
        await asyncio.sleep(max(0.0, self.until - time.time()))
        yield TriggerEvent({"version": ARGUMENTS_VERSION, "kind": EventKind.OVER})


class _Account:
    """The account of a connection, taken anew when the connection's secret has changed."""

    def __init__(self, quickbi_conn_id: str) -> None:
        self._hook = QuickBIHook(quickbi_conn_id)
        self._stack = AsyncExitStack()
        self.board: StatusBoard

    async def __aenter__(self) -> _Account:
        self.board = await self._stack.enter_async_context(self._hook.status_board())
        return self

    async def __aexit__(self, *exc_info: Any) -> None:
        await self._stack.aclose()

    def watch(self) -> _AccountWatch:
        return _AccountWatch(self)

    async def changed(self, watch: _AccountWatch) -> bool:
        """After refused credentials: whether the connection now holds other ones, which are taken from here on."""
        if watch.board is not self.board:
            return True
        settings = (await self._hook.read_connection_async()).settings
        if settings == self.board.client.settings:
            return False
        self.board = await self._stack.enter_async_context(self._hook.status_board())
        return True


class _AccountWatch:
    """One wait's view of the account's current board."""

    def __init__(self, account: _Account) -> None:
        self._account = account
        self.board = account.board
        self._watch = self.board.watch()

    async def look(self, question: Any, *, max_age: float, retries: Retries) -> Any:
        if self.board is not self._account.board:
            self.close()
            self.board = self._account.board
            self._watch = self.board.watch()
        return await self._watch.look(question, max_age=max_age, retries=retries)

    def close(self) -> None:
        self._watch.close()
