"""One client for one account in an event loop, and one call for equal questions, however many waits there are."""

from __future__ import annotations

import asyncio
import math
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakKeyDictionary

from airflow_provider_quickbi.api.client import AsyncQuickBIClient
from airflow_provider_quickbi.api.errors import QuickBIError
from airflow_provider_quickbi.api.retry import NO_RETRY, RetryPolicy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from airflow_provider_quickbi.api.models import MailTaskRun, StatusQuery
    from airflow_provider_quickbi.api.settings import ClientSettings


#: An answer is kept for so many seconds after the last wait that wanted it has left; others may want it a little later.
KEPT_SECONDS = 60.0


class StatusResponse(NamedTuple):
    """What came back.

    :param asked_at: monotonic seconds at which it came.
    :param outcome: the runs, oldest first, or the error.
    """

    received_at: float
    outcome: tuple[MailTaskRun, ...] | QuickBIError


@dataclass(slots=True)
class _Topic:
    watches: int = 0
    waiting: int = 0
    call: asyncio.Task[StatusResponse] | None = None
    latest: StatusResponse | None = None


class StatusPoller:
    """Asks each question once for all who want to know.

    :param client: asks; all questions of one account share its connections.
    """

    def __init__(self, client: AsyncQuickBIClient) -> None:
        self.client = client
        self._topics: dict[StatusQuery, _Topic] = {}
        self._left_at: dict[StatusQuery, float] = {}

    def watch(self) -> Subscription:
        """Return the view of one wait; close it when the wait ends."""
        return Subscription(self)

    def enter(self, status_query: StatusQuery) -> None:
        """Keep what is answered to a question, for one watch more."""
        self._topics.setdefault(status_query, _Topic()).watches += 1
        self._left_at.pop(status_query, None)

    def leave(self, status_query: StatusQuery) -> None:
        """Forget what was answered to a question some time after the last watch has left."""
        topic = self._topics[status_query]
        topic.watches -= 1
        now = time.monotonic()
        if topic.watches == 0:
            self._left_at[status_query] = now
        for left, left_at in list(islice(self._left_at.items(), 2)):  # the oldest; so there never are many
            if now - left_at >= KEPT_SECONDS:
                del self._topics[left], self._left_at[left]

    async def poll_once(self, status_query: StatusQuery, newer_than: float, retries: RetryPolicy) -> StatusResponse:
        """Ask, or join the call that is under way, unless there is an answer that is newer than an instant."""
        topic = self._topics[status_query]
        if topic.latest is not None and topic.latest.received_at > newer_than:
            return topic.latest
        if topic.call is None:
            topic.call = asyncio.create_task(self._ask(status_query, topic, retries))
        call = topic.call
        topic.waiting += 1
        try:
            return await asyncio.shield(call)
        finally:
            topic.waiting -= 1
            if topic.waiting == 0 and not call.done():
                call.cancel()
                topic.call = None

    async def _ask(self, status_query: StatusQuery, topic: _Topic, retries: RetryPolicy) -> StatusResponse:
        try:
            outcome = await self.client.get_mail_task_status(
                status_query.mail_id, status_query.task_id, retries=retries
            )
        except QuickBIError as error:
            return StatusResponse(time.monotonic(), error.with_traceback(None))
        finally:
            if topic.call is asyncio.current_task():
                topic.call = None
        topic.latest = StatusResponse(time.monotonic(), outcome)
        return topic.latest


class Subscription:
    """One wait's view of a :class:`StatusPoller`.

    :param board: where it looks.
    """

    __slots__ = ("_known_at", "_poller", "_question")

    def __init__(self, poller: StatusPoller) -> None:
        self._poller = poller
        self._question: StatusQuery | None = None
        self._known_at = -math.inf

    async def poll_once(
        self, status_query: StatusQuery, *, max_age: float = 0.0, retries: RetryPolicy = NO_RETRY
    ) -> StatusResponse:
        """Ask, unless others have asked since this wait looked last, or join a call that is under way.

        :param question: what to ask; it may change from look to look.
        :param max_age: seconds; an answer that others got is taken if it is younger. Errors are not kept.
        :param retries: for a call that this look makes.
        """
        if status_query != self._question:
            self._poller.enter(status_query)
            self.close()
            self._question = status_query
        response = await self._poller.poll_once(status_query, max(self._known_at, time.monotonic() - max_age), retries)
        if not isinstance(response.outcome, QuickBIError):
            self._known_at = response.received_at
        return response

    def close(self) -> None:
        """Let go of what was kept for this wait."""
        if self._question is not None:
            self._poller.leave(self._question)
            self._question = None


@dataclass(slots=True)
class _Shared:
    poller: StatusPoller
    users: int = 0


_pollers: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[ClientSettings, _Shared]] = WeakKeyDictionary()


@asynccontextmanager
async def shared_poller(
    settings: ClientSettings, on_call: Callable[[str, str], None] | None = None
) -> AsyncIterator[StatusPoller]:
    """Give the running event loop's board for an account; its connections are closed when the last user leaves.

    :param settings: the account; a connection with another secret is another account.
    :param on_call: told the operation and how each call ended; that of the first user counts.
    """
    pollers = _pollers.setdefault(asyncio.get_running_loop(), {})
    if (shared := pollers.get(settings)) is None:
        shared = pollers[settings] = _Shared(StatusPoller(AsyncQuickBIClient(settings, on_call=on_call)))
    shared.users += 1
    try:
        yield shared.poller
    finally:
        shared.users -= 1
        if shared.users == 0:
            if pollers.get(settings) is shared:
                del pollers[settings]
            await shared.poller.client.close()
