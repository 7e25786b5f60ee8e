"""One client per account and event loop, and one call for equal status queries, however many waits there are."""

from __future__ import annotations

import asyncio
import math
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakKeyDictionary

from airflow_provider_quickbi.api.client import AsyncQuickBIClient
from airflow_provider_quickbi.api.clock import CLOCK, Clock
from airflow_provider_quickbi.api.errors import QuickBIError
from airflow_provider_quickbi.api.retry import NO_RETRY, RetryPolicy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from airflow_provider_quickbi.api.models import Run
    from airflow_provider_quickbi.api.operations import RunQuery
    from airflow_provider_quickbi.api.settings import ClientSettings

#: Seconds for which a response is kept after its last subscriber has left; others may want it a little later.
KEPT_SECONDS = 60.0


class StatusResponse(NamedTuple):
    """A response to a status query.

    :param received_at: monotonic seconds.
    :param outcome: the runs, oldest first, or the error.
    """

    received_at: float
    outcome: tuple[Run, ...] | QuickBIError


@dataclass(slots=True)
class _Topic:
    subscriptions: int = 0
    waiting: int = 0
    call: asyncio.Task[StatusResponse] | None = None
    latest: StatusResponse | None = None


class StatusPoller:
    """Polls each status query once for all its subscribers.

    :param client: makes the calls; all queries of an account share its connections and its clock.
    """

    def __init__(self, client: AsyncQuickBIClient) -> None:
        self.client = client
        self._topics: dict[RunQuery, _Topic] = {}
        self._left_at: dict[RunQuery, float] = {}

    def subscribe(self) -> Subscription:
        """Return the subscription of one wait; close it when the wait ends."""
        return Subscription(self)

    def enter(self, status_query: RunQuery) -> None:
        """Keep the responses to a query for one more subscription."""
        self._topics.setdefault(status_query, _Topic()).subscriptions += 1
        self._left_at.pop(status_query, None)

    def leave(self, status_query: RunQuery) -> None:
        """Release the responses to a query; they are dropped some time after the last subscription has left."""
        topic = self._topics[status_query]
        topic.subscriptions -= 1
        now = self.client.clock.monotonic()
        if topic.subscriptions == 0:
            self._left_at[status_query] = now
        for left, left_at in list(islice(self._left_at.items(), 2)):  # the oldest two keep up with the arrivals
            if now - left_at >= KEPT_SECONDS:
                del self._topics[left], self._left_at[left]

    async def poll_once(self, status_query: RunQuery, newer_than: float, retries: RetryPolicy) -> StatusResponse:
        """Make a call, or share the one in progress, unless there is a response newer than ``newer_than``."""
        topic = self._topics[status_query]
        if topic.latest is not None and topic.latest.received_at > newer_than:
            return topic.latest
        if topic.call is None:
            topic.call = asyncio.create_task(self._call(status_query, topic, retries))
        call = topic.call
        topic.waiting += 1
        try:
            return await asyncio.shield(call)
        finally:
            topic.waiting -= 1
            if topic.waiting == 0 and not call.done():
                call.cancel()
                topic.call = None

    async def _call(self, status_query: RunQuery, topic: _Topic, retries: RetryPolicy) -> StatusResponse:
        try:
            outcome = await self.client.do(status_query.operation(self.client.settings.zone), retries=retries)
        except QuickBIError as error:
            return StatusResponse(self.client.clock.monotonic(), error.with_traceback(None))
        finally:
            if topic.call is asyncio.current_task():
                topic.call = None
        topic.latest = StatusResponse(self.client.clock.monotonic(), outcome)
        return topic.latest


class Subscription:
    """One wait's use of a :class:`StatusPoller`."""

    __slots__ = ("_known_at", "_poller", "_query")

    def __init__(self, poller: StatusPoller) -> None:
        self._poller = poller
        self._query: RunQuery | None = None
        self._known_at = -math.inf

    async def poll_once(
        self, status_query: RunQuery, *, max_age: float = 0.0, retries: RetryPolicy = NO_RETRY
    ) -> StatusResponse:
        """Return a response newer than the last one, shared with other subscriptions where possible.

        :param status_query: what to poll; it may change from poll to poll.
        :param max_age: seconds; a younger response of another subscription is taken instead of a call. Errors are
            not kept. Default 0.
        :param retries: for the call, if this poll makes one; default none.
        """
        if status_query != self._query:
            self._poller.enter(status_query)
            self.close()
            self._query = status_query
        oldest = self._poller.client.clock.monotonic() - max_age
        response = await self._poller.poll_once(status_query, max(self._known_at, oldest), retries)
        if not isinstance(response.outcome, QuickBIError):
            self._known_at = response.received_at
        return response

    def close(self) -> None:
        """Release what is kept for this wait."""
        if self._query is not None:
            self._poller.leave(self._query)
            self._query = None


@dataclass(slots=True)
class _Shared:
    poller: StatusPoller
    users: int = 0


_pollers: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[ClientSettings, _Shared]] = WeakKeyDictionary()


@asynccontextmanager
async def shared_poller(
    settings: ClientSettings, on_call: Callable[[str, str], None] | None = None, *, clock: Clock = CLOCK
) -> AsyncIterator[StatusPoller]:
    """Yield the running event loop's poller for an account; its connections are closed when the last user leaves.

    :param settings: the account; a connection with another secret is another account.
    :param on_call: see :class:`airflow_provider_quickbi.api.client.AsyncQuickBIClient`; the first user's counts.
    :param clock: the time, and how to sleep; the first user's counts; default the machine's.
    """
    pollers = _pollers.setdefault(asyncio.get_running_loop(), {})
    if (shared := pollers.get(settings)) is None:
        shared = pollers[settings] = _Shared(StatusPoller(AsyncQuickBIClient(settings, on_call=on_call, clock=clock)))
    shared.users += 1
    try:
        yield shared.poller
    finally:
        shared.users -= 1
        if shared.users == 0:
            if pollers.get(settings) is shared:
                del pollers[settings]
            await shared.poller.client.close()
