"""One poll loop for all watchers of a connection that watch the same kind of thing."""

from __future__ import annotations

import logging
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_quickbi._wait.logging import WaitLog
from airflow_provider_quickbi._wait.schedule import PendingPoll
from airflow_provider_quickbi._wait.shared_client import SharedClient
from airflow_provider_quickbi._wait.subject import MailTaskSubject
from airflow_provider_quickbi.api.clock import CLOCK
from airflow_provider_quickbi.api.errors import QuickBIError
from airflow_provider_quickbi.api.lookup import find_by_name
from airflow_provider_quickbi.api.rate_limit import CALLER
from airflow_provider_quickbi.exceptions import QuickBIConnectionError, QuickBIConnectionUnreadable

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from airflow_provider_quickbi._wait.subject import Subject
    from airflow_provider_quickbi._watch.tracker import RunTracker
    from airflow_provider_quickbi.api.models import Run

log = logging.getLogger(__name__)

#: Seconds after which a new watcher is noticed at the latest.
_IDLE_SECONDS = 1.0
#: Seconds after which a connection that cannot be used is read again.
_RECONNECT_SECONDS = 60.0
#: Responses to the same query that are at most this many seconds old are shared.
_FRESH_SECONDS = 0.5


class Found(NamedTuple):
    """A response of the poll loop.

    :param subject: that was queried; ``None`` if a name was looked up.
    :param runs: what it holds.
    """

    subject: Subject | None
    runs: tuple[Run, ...]


@dataclass(slots=True)
class _Watcher:
    poll_interval: float
    due: float
    subject: Subject
    tracker: RunTracker | None = None
    polled_at: float = 0.0


@dataclass(slots=True)
class WatcherRegistry:
    """What the watchers of a poll loop want to know."""

    _by_watcher: dict[int, _Watcher] = field(default_factory=dict)

    def enter(self, watcher: object, subject: Subject, poll_interval: float, tracker: RunTracker | None = None) -> None:
        """Poll a subject from now on, or look its name up.

        :param poll_interval: seconds between two polls, or two attempts to look the name up.
        :param tracker: says what to query; ``None`` to look a mail task's name up.
        """
        self._by_watcher[id(watcher)] = _Watcher(poll_interval, CLOCK.monotonic(), subject, tracker)

    def found(self, watcher: object) -> Subject | None:
        """Return the subject of a name that was looked up, ``None`` as long as it is not known."""
        watcher = self._by_watcher.get(id(watcher))
        return watcher.subject if watcher and watcher.subject.id else None

    def leave(self, watcher: object) -> None:
        """Unsubscribe the watcher."""
        self._by_watcher.pop(id(watcher), None)

    def due(self, now: float) -> list[_Watcher]:
        """Return what to query now."""
        return [watcher for watcher in self._by_watcher.values() if watcher.due <= now]

    def idle(self, now: float) -> float:
        """Return the seconds until something is to be queried."""
        return min((max(0.0, watcher.due - now) for watcher in self._by_watcher.values()), default=_IDLE_SECONDS)


_registries: dict[tuple[str, str], WatcherRegistry] = {}


def registry_of(quickbi_conn_id: str, kind: str) -> WatcherRegistry:
    """Return this process's registry of a connection's watchers."""
    return _registries.setdefault((quickbi_conn_id, kind), WatcherRegistry())


async def responses(quickbi_conn_id: str, registry: WatcherRegistry) -> AsyncGenerator[Found, None]:
    """Poll for the watchers forever; no error ends the loop.

    :param registry: what to query; they may come and go.
    """
    wait_log = WaitLog(log)
    while True:
        try:
            async with SharedClient(quickbi_conn_id) as client, aclosing(_poll(client, registry, wait_log)) as stream:
                async for found in stream:
                    yield found
        except (QuickBIConnectionError, QuickBIConnectionUnreadable) as error:
            wait_log.report(f"{error} Reading it again in {_RECONNECT_SECONDS:.0f} s.", CLOCK.time())
            await CLOCK.sleep_async(_RECONNECT_SECONDS)


async def _poll(client: SharedClient, registry: WatcherRegistry, wait_log: WaitLog) -> AsyncGenerator[Found, None]:
    while True:
        for watcher in registry.due(CLOCK.monotonic()):
            await client.poller()  # one that cannot be read is one line in the log, and not one for each watcher
            watcher.due = CLOCK.monotonic() + max(watcher.poll_interval, _FRESH_SECONDS)  # earlier, nothing is new
            if watcher.tracker is None:
                if not watcher.subject.id:
                    await _look_up(client, watcher, wait_log)
                if watcher.subject.id:
                    yield Found(None, ())
                continue
            for query in watcher.tracker.status_queries():
                subscription = client.subscribe()
                # A watcher waits in line as a wait does whose run has not been seen yet.
                polled_at = watcher.polled_at
                CALLER.set(PendingPoll(None, polled_at, polled_at) if polled_at else None)
                try:
                    response = await subscription.poll(query, max_age=_FRESH_SECONDS)
                    if isinstance(response.outcome, QuickBIError):
                        await client.renew_after(response.outcome, subscription)
                finally:
                    subscription.close()
                if isinstance(response.outcome, QuickBIError):
                    wait_log.report(
                        f"{watcher.subject.title} poll failed, still watching: {response.outcome}", CLOCK.time()
                    )
                else:
                    watcher.polled_at = CLOCK.time()
                    yield Found(watcher.subject, response.outcome)
        await CLOCK.sleep_async(min(_IDLE_SECONDS, registry.idle(CLOCK.monotonic())))


async def _look_up(shared: SharedClient, watcher: _Watcher, wait_log: WaitLog) -> None:
    wanted = watcher.subject
    try:
        client = (await shared.poller()).client
        visible = [mail_task async for mail_task in client.iter_mail_tasks(page_size=100)]
        found = find_by_name(visible, wanted.name, wanted.scope or None)
        watcher.subject = MailTaskSubject(found.mail_id, wanted.name, wanted.scope)
    except QuickBIError as error:
        wait_log.report(f"{wanted.title} name lookup failed, retrying: {error}", CLOCK.time())
