"""The poll loop in the triggerer: it runs until the task needs an event."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

from airflow_provider_quickbi._metrics import DetectionDelay
from airflow_provider_quickbi._wait.deferral import FIRST_EVENT_SECONDS
from airflow_provider_quickbi._wait.evaluate import evaluate_group
from airflow_provider_quickbi._wait.events import EventKind
from airflow_provider_quickbi._wait.logging import WaitLog
from airflow_provider_quickbi._wait.schedule import Duration, PendingPoll
from airflow_provider_quickbi._wait.shared_client import DURATIONS
from airflow_provider_quickbi.api.clock import CLOCK
from airflow_provider_quickbi.api.errors import QuickBIError, ThrottledError, TransientError
from airflow_provider_quickbi.api.rate_limit import CALLER
from airflow_provider_quickbi.api.retry import NO_RETRY, RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from airflow_provider_quickbi._wait.deferral import PollOptions
    from airflow_provider_quickbi._wait.shared_client import SharedClient, SharedSubscription
    from airflow_provider_quickbi._wait.state import WaitGroup

#: First polls of waits that start together are spread over this many seconds at most.
MAX_SPREAD_SECONDS = 30.0
#: A wait does not poll sooner after it started.
FIRST_POLL_SECONDS = FIRST_EVENT_SECONDS
#: A response to another wait is reused if it is at most this many seconds old.
FRESH_SECONDS = 0.5
#: Seconds for which the last poll may wait for its slot after ``timeout`` is over; less than ``BACKSTOP_SECONDS``.
LAST_POLL_SECONDS = 840.0
#: A sleep is cut into pieces of this many seconds, so that a change of the wall clock is noticed.
CLOCK_SECONDS = 60.0
#: Minimum interval at which the progress of a wait for several subjects is stored.
STORE_SECONDS = 60.0
#: How long the poll may take that comes before somebody is notified that a report is late.
LATE_POLL_SECONDS = 30.0


class TriggererWait:
    """Polls a group, and returns the kind of event to send to its task.

    Airflow recreates a trigger from its original arguments. So when a matching run is first seen and is not finished,
    the group is stored: wherever the wait goes on, it stays pinned to that run.

    :param group: what is waited for; changes with each poll.
    :param store: stores the group and says whether it could; if not, it is called again after the next poll.
    """

    def __init__(
        self,
        group: WaitGroup,
        options: PollOptions,
        log: Any,
        store: Callable[[WaitGroup], Awaitable[bool]] | None = None,
    ) -> None:
        self.group = group
        self._polls = [1] * len(group.waits)
        self._options = options
        self._log = log
        self._store = store
        self._delay = DetectionDelay()
        self._responded_at = [0.0] * len(group.waits)
        self._stored = self._pinned()
        self._stores_from = 0.0

    async def run(self, client: SharedClient) -> EventKind:
        """Poll all subjects until the group is finished, late, or out of time."""
        positions = self.group.unfinished()
        self._stores_from = CLOCK.monotonic()
        if len(self.group.waits) > 1:
            self._stores_from += max(STORE_SECONDS, self._options.poke_interval)
        if len(positions) == 1:
            return await self._wait_for(client, positions[0])
        return await self._wait_for_all(client, positions)

    async def _wait_for_all(self, client: SharedClient, positions: Sequence[int]) -> EventKind:
        tasks = {asyncio.create_task(self._wait_for(client, position)) for position in positions}
        ended: set[EventKind] = set()
        try:
            while tasks:
                done, tasks = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                ended |= {task.result() for task in done}
                if self.group.evaluation.outcome.final:
                    return EventKind.FINISHED
                if EventKind.EXECUTION_TIMEOUT in ended:
                    return EventKind.EXECUTION_TIMEOUT
            return EventKind.LATE if EventKind.LATE in ended else EventKind.FINISHED
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _wait_for(self, client: SharedClient, position: int) -> EventKind:
        """Poll one subject until its wait is finished, or the report is late or out of time."""
        log = WaitLog(self._log)
        subscription = client.subscribe()
        execute_by = self._options.execute_by
        try:
            await self._sleep_until(CLOCK.monotonic(), position)  # there may be nothing to poll yet
            poll_at = CLOCK.monotonic() + self._first_delay()
            while True:
                await self._sleep_until(poll_at, position)
                now = CLOCK.time()
                urgent = self._out_of_time(position, now) or self.group.is_late(now)
                if urgent or self._seconds_until_poll(poll_at, position, now) <= 0:
                    before = self.group.waits[position]
                    age = await self._poll(client, subscription, position, urgent=urgent)
                    log.first_poll(before, self.group.waits[position])
                    self._polls[position] += 1
                    poll_at = CLOCK.monotonic() - age + self._next_delay(position)
                now = CLOCK.time()
                if not self.group.evaluations[position].outcome.final:  # the task logs how it ended
                    log.report(self.group.evaluations[position].message, now)
                if self.group.evaluations[position].outcome.final or self.group.evaluation.outcome.final:
                    return EventKind.FINISHED
                if execute_by is not None and now >= execute_by:
                    return EventKind.EXECUTION_TIMEOUT
                if self.group.is_late(now):
                    return EventKind.LATE
                if self._must_store() and CLOCK.monotonic() >= self._stores_from:
                    await self._store_group()
        finally:
            subscription.close()

    def _pinned(self) -> list[tuple[str | None, bool]]:
        """Return, for each subject, what must not be lost: the run it is pinned to, and whether it is finished."""
        return [
            (wait.run.run_id if wait.run and wait.selector.run_id is None else None, evaluation.outcome.final)
            for wait, evaluation in zip(self.group.waits, self.group.evaluations, strict=True)
        ]

    def restore(self, group: WaitGroup | None) -> None:
        """Resume this wait from its stored state.

        :param group: what was stored; ``None`` for nothing. It is ignored if it is another wait's, or older than this
            trigger's arguments because the task has notified somebody since that the report is late.
        """
        if group is None or [wait.since for wait in group.waits] != [wait.since for wait in self.group.waits]:
            return
        if group.late_at != self.group.late_at:
            return
        self.group = group
        self._stored = self._pinned()

    async def _store_group(self) -> None:
        pinned = self._pinned()
        if self._store is not None and await self._store(self.group):
            self._stored = pinned

    def _must_store(self) -> bool:
        """Whether there is progress that a recreated trigger would lose."""
        return self._pinned() != self._stored

    async def _poll(
        self, client: SharedClient, subscription: SharedSubscription, position: int, *, urgent: bool
    ) -> float:
        """Poll once, learn from the response, and return the response's age in seconds.

        Waiting for a call slot may take long; it does not delay what becomes due meanwhile.
        """
        now = CLOCK.time()
        wait = self.group.waits[position]
        query = wait.status_query(now)
        if query is None:
            self.group = evaluate_group(self.group, position, None, now)
            return 0.0
        late_at, last = self.group.late_at, wait.finish_by
        retries = RetryPolicy() if last is not None and now >= last else NO_RETRY
        given_up = None if last is None else max(last + LAST_POLL_SECONDS, now + LATE_POLL_SECONDS)
        due = [
            now + LATE_POLL_SECONDS if late_at is not None and now >= late_at else late_at,
            self._options.execute_by,
            given_up,
        ]
        until = min((instant for instant in due if instant is not None and instant > now), default=None)
        # A response from before the wait started may not show a run that had started by then.
        max_age = FRESH_SECONDS if urgent else min(self._options.poke_interval, max(0.0, now - wait.since))
        CALLER.set(None if urgent else self._pending_poll(position))
        try:
            async with asyncio.timeout(None if until is None else until - now):
                response = await subscription.poll(query, max_age=max_age, retries=retries)
                if isinstance(response.outcome, QuickBIError) and await client.renew_after(
                    response.outcome, subscription
                ):
                    response = await subscription.poll(query, max_age=0.0, retries=retries)
                if isinstance(response.outcome, QuickBIError) and last is not None and now < last <= CLOCK.time():
                    response = await subscription.poll(query, max_age=0.0, retries=RetryPolicy())
        except TimeoutError:
            if last is not None and until == given_up:
                no_slot = TransientError(f"no call slot within {LAST_POLL_SECONDS:.0f} s")
                self.group = evaluate_group(self.group, position, no_slot, max(last, CLOCK.time()))
            return 0.0
        age = max(0.0, CLOCK.monotonic() - response.received_at)
        self.group = evaluate_group(self.group, position, response.outcome, CLOCK.time())
        self._delay.polled(self.group, position, CLOCK.time())
        if not isinstance(response.outcome, QuickBIError):
            self._responded(position, CLOCK.time() - age)
        return age

    def _pending_poll(self, position: int) -> PendingPoll | None:
        """Return what decides when a wait gets its call; ``None`` for as soon as possible: a first poll."""
        if not (polled_at := self._responded_at[position]):
            return None
        wait = self.group.waits[position]
        if wait.run is None:
            return PendingPoll(None, max(wait.since, wait.polls_from), polled_at)
        return PendingPoll(wait.subject, wait.run.started_at.timestamp(), polled_at)

    def _responded(self, position: int, at: float) -> None:
        """Learn from a finished run how long it took, as exactly as the polls show."""
        before, self._responded_at[position] = self._responded_at[position], at
        wait = self.group.waits[position]
        if before and wait.run is not None and wait.run.succeeded:
            started_at = wait.run.started_at.timestamp()
            DURATIONS.learn(wait.subject, Duration(max(0.0, before - started_at), at - started_at))

    def _first_delay(self) -> float:
        """Seconds until the first poll, which is spread."""
        if self._options.started_here:
            return random.uniform(0.0, min(self._options.poke_interval, FIRST_POLL_SECONDS))  # noqa: S311
        earliest = FIRST_POLL_SECONDS
        spread = min(self._options.poke_interval, MAX_SPREAD_SECONDS)
        return random.uniform(earliest, max(spread, 1.5 * earliest))  # noqa: S311 - spreads calls

    def _next_delay(self, position: int) -> float:
        """Seconds until the next poll; after a failed one it is sooner, and pacing says how soon."""
        error = self.group.waits[position].error
        options = self._options
        count = self._polls[position]
        delay = poke_delay(options.poke_interval, count, options.exponential_backoff, options.max_wait)
        if isinstance(error, ThrottledError):
            return 0.0
        return delay if error is None else min(delay, MAX_SPREAD_SECONDS)

    def _out_of_time(self, position: int, now: float) -> bool:
        gives_up_at = self.group.waits[position].gives_up_at
        return gives_up_at is not None and now >= gives_up_at

    async def _sleep_until(self, poll_at: float, position: int) -> None:
        """Sleep until the next poll, or until something else is due.

        :param poll_at: on the monotonic clock; the wall clock, which may be set, decides only what has an instant.
        """
        while (seconds := self._seconds_left(poll_at, position)) > 0:
            await CLOCK.sleep_async(min(seconds, CLOCK_SECONDS))

    def _seconds_left(self, poll_at: float, position: int) -> float:
        now = CLOCK.time()
        due = [self.group.waits[position].gives_up_at, self.group.late_at, self._options.execute_by]
        until_poll = self._seconds_until_poll(poll_at, position, now)
        return min([until_poll, *(instant - now for instant in due if instant is not None)])

    def _seconds_until_poll(self, poll_at: float, position: int, now: float) -> float:
        return max(poll_at - CLOCK.monotonic(), self.group.waits[position].polls_from - now)


def poke_delay(poke_interval: float, count: int, exponential_backoff: bool, max_wait: float | None) -> float:
    """Return the seconds until the next poll, as ``BaseSensorOperator`` counts them.

    :param poke_interval: seconds.
    :param count: how many polls there were, at least 1.
    :param exponential_backoff: whether the delay doubles from poll to poll, with jitter.
    :param max_wait: seconds at most; ``None`` for no limit.
    """
    if not exponential_backoff:
        return poke_interval
    smallest = max(poke_interval * 2.0 ** min(count - 2, 40), 1.0)
    delay = smallest * random.uniform(1.0, 2.0)  # noqa: S311 - spreads calls, protects nothing
    return delay if max_wait is None else min(delay, max_wait)
