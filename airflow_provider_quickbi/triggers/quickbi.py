"""The triggers, which wait in the triggerer: they ask, and start nothing."""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
from abc import abstractmethod
from contextlib import aclosing, contextmanager
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_quickbi import _options
from airflow_provider_quickbi._metrics import Detection
from airflow_provider_quickbi._wait.evaluate import STATE_VERSION, WaitGroup, check_version
from airflow_provider_quickbi._wait.logging import FIRST_EVENT_SECONDS, Progress, poke_delay
from airflow_provider_quickbi._wait.shared_client import SharedClient, SharedSubscription
from airflow_provider_quickbi._watch.stream import WatcherRegistry, registry_of, responses
from airflow_provider_quickbi._watch.tracker import RunTracker, parse_statuses
from airflow_provider_quickbi.api.errors import ErrorKind, QuickBIError, ThrottledError, TransientError
from airflow_provider_quickbi.api.retry import NO_RETRY, RetryPolicy
from airflow_provider_quickbi.exceptions import QuickBIConnectionError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Hashable, Iterator, Sequence

    from airflow_provider_quickbi.api.models import MailTaskRun

try:
    from airflow.triggers.base import BaseEventTrigger
except ImportError:  # Airflow 2.11 has no event-driven scheduling; the class can be imported and never runs there
    BaseEventTrigger = BaseTrigger  # type: ignore[misc, assignment]  # the stand-in of an older Airflow

#: First looks of waits that begin together are spread over this many seconds at the most.
MAX_SPREAD_SECONDS = 30.0
#: A wait does not look sooner, and tells nothing sooner whatever is due.
FIRST_LOOK_SECONDS = FIRST_EVENT_SECONDS
#: An answer that others got this many seconds ago is still new.
FRESH_SECONDS = 0.5
#: Seconds for which the last look may wait for its turn after ``timeout`` is over; less than ``BACKSTOP_SECONDS``.
LAST_LOOK_SECONDS = 840.0
#: A sleep is cut into pieces of so many seconds, so that a wall clock that was set is noticed.
CLOCK_SECONDS = 60.0
#: What a trigger has learnt of several mail tasks is stored no more often.
STORE_SECONDS = 60.0
#: So long the look may take that comes before somebody is told that a delivery is late.
LATE_LOOK_SECONDS = 30.0
#: Seconds in which Airflow takes an event over; what is killed before loses it. A watcher notes only then that it told.
HAND_OVER_SECONDS = 3.0
_KEEPING = RetryPolicy(attempts=3)


class EventKind:
    """What an event of a trigger says."""

    SETTLED = "settled"
    LATE = "late"
    LEARNT = "learnt"
    EXECUTION_TIMEOUT = "execution_timeout"
    CONNECTION = "connection"
    OVER = "over"


@contextmanager
def _inflated(trigger: BaseTrigger) -> Iterator[None]:
    """Turn the error about what was kept into the one that a triggerer survives."""
    try:
        yield
    except ValueError as error:
        raise TypeError(f"The arguments of {type(trigger).__name__} are not understood: {error}") from None


class _DeferralTrigger(BaseTrigger):
    """Gives one event, and not before Airflow has noticed that the task has deferred itself."""

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, and give the one event."""
        begun = time.monotonic()
        payload = await self._wait()
        await asyncio.sleep(max(0.0, begun + FIRST_LOOK_SECONDS - time.monotonic()))
        yield TriggerEvent(payload)

    @abstractmethod
    async def _wait(self) -> dict[str, Any]:
        """Wait, and return what the event says."""


class QuickBIMailTaskTrigger(_DeferralTrigger):
    """Wait until a delivery is settled, asking Quick BI no more often than it allows.

    It gives one event, a dict of plain JSON: ``{"version", "kind", "delivery", "message", "carry"}``. Airflow stores
    what a trigger was made with and nothing else. So there is an event of kind ``learnt`` when a run that counts is
    first seen and is not over: its task makes another trigger, with ``delivery`` and ``looked`` of the event, which is
    pinned to the run wherever it goes on.

    :param quickbi_conn_id: id of the connection; it is read in the triggerer, nothing secret is an argument.
    :param delivery: :meth:`airflow_provider_quickbi._wait.evaluate.WaitGroup.as_dict` of what is waited for.
    :param poke_interval: seconds between two looks.
    :param exponential_backoff: whether the interval grows from look to look, as Airflow's sensors do it.
    :param max_wait: seconds between two looks at the most; ``None`` for no limit.
    :param execute_by: when ``execution_timeout`` is over, in seconds since the epoch; ``None`` for never.
    :param carry: plain JSON that comes back with the event; ``dag.test()`` loses what ``defer(kwargs=...)`` is given.
    :param looked: of a wait that goes on after an event, for each mail task: how many looks there were, and when the
        last one was answered, in seconds since the epoch; ``None`` for one that begins.
    :param version: of these arguments.
    :param _later: what a later release has added; it is ignored.
    :raises TypeError: if they are not understood. A triggerer fails one task for it; any other error would end it.
    """

    def __init__(
        self,
        *,
        quickbi_conn_id: str,
        group: dict[str, Any],
        poke_interval: float,
        exponential_backoff: bool = False,
        max_wait: float | None = None,
        execute_by: float | None = None,
        carry: dict[str, Any] | None = None,
        polls: list[list[float]] | None = None,
        version: int = STATE_VERSION,
        **_later: Any,
    ) -> None:
        super().__init__()
        with _inflated(self):
            check_version(version)
            self.group = WaitGroup.from_dict(group)
            self.polls = polls or [[1, 0.0] for _ in self.group.waits]
            if len(self.polls) != len(self.group.waits):
                raise ValueError("what was looked at does not fit the delivery")
        self.quickbi_conn_id = quickbi_conn_id
        self.carry = carry or {}
        self.poke_interval = poke_interval
        self.exponential_backoff = exponential_backoff
        self.max_wait = max_wait
        self.execute_by = execute_by
        self._detection = Detection()
        self._stored = self._known()
        self._stores_from = 0.0
        self._stores = False
        self._asleep: set[asyncio.Task[Any] | None] = set()

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the arguments, with what has been learnt meanwhile."""
        return (
            "airflow_provider_quickbi.triggers.quickbi.QuickBIMailTaskTrigger",
            {
                "version": STATE_VERSION,
                "quickbi_conn_id": self.quickbi_conn_id,
                "group": self.group.as_dict(),
                "poke_interval": self.poke_interval,
                "exponential_backoff": self.exponential_backoff,
                "max_wait": self.max_wait,
                "execute_by": self.execute_by,
                "carry": self.carry,
                "polls": self.polls,
            },
        )

    async def _wait(self) -> dict[str, Any]:
        try:
            async with SharedClient(self.quickbi_conn_id) as account:
                kind = await self._wait_until_finished(account)
        except QuickBIConnectionError as error:
            return self._event(EventKind.CONNECTION, str(error))
        event = self._event(kind, self.group.evaluation.message)
        return event | {"polls": self.polls} if kind == EventKind.LEARNT else event

    async def on_kill(self) -> None:
        """Say that a person ended the wait; a mail that was started cannot be called back."""
        self.log.info("The wait was ended. Nothing is called back: a mail that is under way goes out.")

    def _event(self, kind: str, message: str) -> dict[str, Any]:
        return {
            "version": STATE_VERSION,
            "kind": kind,
            "group": self.group.as_dict(),
            "message": message,
            "carry": self.carry,
        }

    async def _wait_until_finished(self, account: SharedClient) -> str:
        """Wait for all mail tasks at once until the delivery is settled, late, or out of time."""
        positions = self.group.unfinished()
        self._stores_from = time.monotonic()
        if len(self.group.waits) > 1:
            self._stores_from += max(STORE_SECONDS, self.poke_interval)
        for position, (_, polled_at) in enumerate(self.polls):
            if polled_at:
                self._detection.polls(self.group, position, polled_at)
        if len(positions) == 1:
            return await self._settle_one(account, positions[0])
        return await self._settle_all(account, positions)

    async def _settle_all(self, account: SharedClient, positions: Sequence[int]) -> str:
        tasks = {asyncio.create_task(self._settle_one(account, position)) for position in positions}
        ended: set[str] = set()
        try:
            while tasks:
                done, tasks = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                ended |= {task.result() for task in done if not task.cancelled()}
                if self.group.evaluation.outcome.final:
                    return EventKind.SETTLED
                if EventKind.EXECUTION_TIMEOUT in ended:
                    return EventKind.EXECUTION_TIMEOUT
                if EventKind.LEARNT in ended:
                    for task in tasks & self._asleep:  # a look that is under way keeps its place in line
                        task.cancel()
            return next((kind for kind in (EventKind.LATE, EventKind.LEARNT) if kind in ended), EventKind.SETTLED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _settle_one(self, account: SharedClient, position: int) -> str:
        """Wait for one mail task until its verdict is final, or the delivery is late or out of time."""
        progress = Progress(self.log)
        watch = account.watch()
        try:
            await self._sleep_until(time.monotonic(), position)  # there may be nothing to ask yet
            poll_at = time.monotonic() + self._first_delay(position)
            while True:
                await self._sleep_until(poll_at, position)
                if self._stores:
                    return EventKind.LEARNT
                now = time.time()
                urgent = self._out_of_time(position, now) or self.group.is_late(now)
                if urgent or self._seconds_until_look(poll_at, position, now) <= 0:
                    age = await self._poll_once(
                        account, watch, position, FRESH_SECONDS if urgent else self.poke_interval
                    )
                    self.polls[position] = [self.polls[position][0] + 1, time.time() - age]
                    poll_at = time.monotonic() - age + self._delay(position)
                now = time.time()
                progress.report(self.group.evaluations[position].message, now)
                if not self._open(position) or self.group.evaluation.outcome.final:
                    return EventKind.SETTLED
                if self.execute_by is not None and now >= self.execute_by:
                    return EventKind.EXECUTION_TIMEOUT
                if self.group.is_late(now):
                    return EventKind.LATE
                if self._has_learnt() and time.monotonic() >= self._stores_from:
                    self._stores = True
                    return EventKind.LEARNT
        finally:
            watch.close()

    def _open(self, position: int) -> bool:
        return not self.group.evaluations[position].outcome.final

    def _known(self) -> list[tuple[str | None, bool]]:
        """Return, for each mail task, what must not be forgotten: the run it is pinned to, and whether it is over."""
        return [
            (wait.run.task_id if wait.run and wait.selector.task_id is None else None, evaluation.outcome.final)
            for wait, evaluation in zip(self.group.waits, self.group.evaluations, strict=True)
        ]

    def _has_learnt(self) -> bool:
        """Whether something is known that a triggerer which makes this trigger anew would not know."""
        return any(
            known not in (stored, (None, False)) for known, stored in zip(self._known(), self._stored, strict=True)
        )

    async def _poll_once(
        self, account: SharedClient, watch: SharedSubscription, position: int, max_age: float
    ) -> float:
        """Ask once, learn from the answer, and return the answer's age in seconds.

        The turn to ask may be long in coming; what is due meanwhile is not late for it.
        """
        now = time.time()
        wait = self.group.waits[position]
        status_query = wait.status_query(now)
        if status_query is None:
            self.group = self.group.evaluated(position, None, now)
            return 0.0
        late_at, last = self.group.late_at, wait.finish_by
        retries = RetryPolicy() if last is not None and now >= last else NO_RETRY
        given_up = None if last is None else max(last + LAST_LOOK_SECONDS, now + LATE_LOOK_SECONDS)
        due = [
            now + LATE_LOOK_SECONDS if late_at is not None and now >= late_at else late_at,
            self.execute_by,
            given_up,
        ]
        until = min((instant for instant in due if instant is not None and instant > now), default=None)
        try:
            async with asyncio.timeout(None if until is None else until - now):
                response = await watch.poll_once(status_query, max_age=max_age, retries=retries)
                if isinstance(response.outcome, QuickBIError) and await account.renew_after(response.outcome, watch):
                    response = await watch.poll_once(status_query, max_age=0.0, retries=retries)
                if isinstance(response.outcome, QuickBIError) and last is not None and now < last <= time.time():
                    response = await watch.poll_once(status_query, max_age=0.0, retries=RetryPolicy())
        except TimeoutError:
            if last is not None and until == given_up:
                unasked = TransientError(
                    f"no turn to ask came within {LAST_LOOK_SECONDS:.0f} s", kind=ErrorKind.TRANSIENT
                )
                self.group = self.group.evaluated(position, unasked, max(last, time.time()))
            return 0.0
        self.group = self.group.evaluated(position, response.outcome, time.time())
        self._detection.polls(self.group, position, time.time())
        return max(0.0, time.monotonic() - response.received_at)

    def _first_delay(self, position: int) -> float:
        """Seconds until the first look: spread, or what is left of the interval in a wait that goes on."""
        spread = min(self.poke_interval, MAX_SPREAD_SECONDS)
        delay = random.uniform(  # noqa: S311 - spreads calls
            FIRST_LOOK_SECONDS, max(spread, 1.5 * FIRST_LOOK_SECONDS)
        )
        interval, (_, polled_at) = self._delay(position), self.polls[position]
        return max(delay, min(polled_at + interval - time.time(), interval))

    def _delay(self, position: int) -> float:
        """Seconds until the next look; after a look without an answer it is sooner, and pacing says how soon."""
        error = self.group.waits[position].error
        poll_count = int(self.polls[position][0])
        delay = poke_delay(self.poke_interval, poll_count, self.exponential_backoff, self.max_wait)
        if isinstance(error, ThrottledError):
            return 0.0
        return delay if error is None else min(delay, MAX_SPREAD_SECONDS)

    def _out_of_time(self, position: int, now: float) -> bool:
        gives_up_at = self.group.waits[position].gives_up_at
        return gives_up_at is not None and now >= gives_up_at

    async def _sleep_until(self, poll_at: float, position: int) -> None:
        """Sleep until the next look, or until something else is due.

        :param look_at: on the monotonic clock; the wall clock, which may be set, decides only what has an instant.
        """
        task = asyncio.current_task()
        self._asleep.add(task)
        try:
            while (seconds := self._seconds_left(poll_at, position)) > 0:  # noqa: ASYNC110 - until known times
                await asyncio.sleep(min(seconds, CLOCK_SECONDS))
        finally:
            self._asleep.discard(task)

    def _seconds_left(self, poll_at: float, position: int) -> float:
        now = time.time()
        due = [self.group.waits[position].gives_up_at, self.group.late_at, self.execute_by]
        until_look = self._seconds_until_look(poll_at, position, now)
        return min([until_look, *(instant - now for instant in due if instant is not None)])

    def _seconds_until_look(self, poll_at: float, position: int, now: float) -> float:
        return max(poll_at - time.monotonic(), self.group.waits[position].polls_from - now)


class QuickBIPauseTrigger(_DeferralTrigger):
    """Wait until an instant, without a worker slot and without a call.

    :param until: seconds since the epoch.
    :param carry: plain JSON that comes back with the event.
    :param version: of these arguments.
    :param _later: what a later release has added; it is ignored.
    :raises TypeError: if they are not understood. A triggerer fails one task for it; any other error would end it.
    """

    def __init__(
        self, *, until: float, carry: dict[str, Any] | None = None, version: int = STATE_VERSION, **_later: Any
    ) -> None:
        super().__init__()
        with _inflated(self):
            check_version(version)
        self.until = until
        self.carry = carry or {}

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the arguments."""
        return (
            "airflow_provider_quickbi.triggers.quickbi.QuickBIPauseTrigger",
            {"version": STATE_VERSION, "until": self.until, "carry": self.carry},
        )

    async def _wait(self) -> dict[str, Any]:
        while (seconds := self.until - time.time()) > 0:  # noqa: ASYNC110 - until a known time, not for an event
            await asyncio.sleep(min(seconds, CLOCK_SECONDS))
        return {"version": STATE_VERSION, "kind": EventKind.OVER, "carry": self.carry}


class QuickBIMailTaskEventTrigger(BaseEventTrigger):
    """Tell once of each run of a mail task that reaches ``SENT``; for the ``AssetWatcher`` of an asset (Airflow 3.0+).

    Its events are dicts ``{mail_id, subscribe_name?, task_id, status, exec_time}``; a DAG scheduled by the asset finds
    one as ``triggering_asset_events[asset][i].extra["payload"]``. A run counts once, by its TaskId. On Airflow 3.3 and
    later what was seen is kept with the asset some seconds after it was told, so that after a restart of the triggerer
    one that ended meanwhile is not missed; told again is only what could not be kept before the restart. Below 3.3, a
    run that was over when the watcher began is not told of.

    All watchers of a connection share one poll loop on Airflow 3.3 and later. A failed poll does not stop it.

    :param mail_id: the mail task.
    :param subscribe_name: instead of ``mail_id``: its exact name.
    :param mail_owner: nickname or user id of its owner in Quick BI, where several have the name.
    :param statuses: the states to tell of; default only ``SENT``.
    :param poll_interval: seconds between two looks; default 60. It must be shorter than the time between two runs.
    :param quickbi_conn_id: id of the connection; default ``quickbi_default``.
    :param version: of these arguments.
    """

    def __init__(
        self,
        *,
        mail_id: str | None = None,
        subscribe_name: str | None = None,
        mail_owner: str | None = None,
        statuses: Sequence[str] | str = ("SENT",),
        poll_interval: float = 60.0,
        quickbi_conn_id: str = "quickbi_default",
        version: int = STATE_VERSION,
    ) -> None:
        super().__init__()
        with _inflated(self):
            check_version(version)
        self.mail_id = _options.text("mail_id", mail_id)
        self.subscribe_name = _options.text("subscribe_name", subscribe_name)
        self.mail_owner = _options.text("mail_owner", mail_owner)
        if (self.mail_id is None) == (self.subscribe_name is None):
            raise ValueError(f"{type(self).__name__} needs either mail_id or subscribe_name")
        self.statuses = parse_statuses(statuses)
        self.poll_interval = _options.seconds("poll_interval", poll_interval) or 60.0
        self.quickbi_conn_id = quickbi_conn_id

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the arguments, which are also what the trigger is known by."""
        return (
            "airflow_provider_quickbi.triggers.quickbi.QuickBIMailTaskEventTrigger",
            {
                "version": STATE_VERSION,
                "mail_id": self.mail_id,
                "subscribe_name": self.subscribe_name,
                "mail_owner": self.mail_owner,
                "statuses": self.statuses,
                "poll_interval": self.poll_interval,
                "quickbi_conn_id": self.quickbi_conn_id,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Tell of runs with a poll loop of its own, on Airflow below 3.3."""
        registry = WatcherRegistry()
        async with aclosing(responses(self.quickbi_conn_id, registry)) as stream:
            async for event in self._follow(stream, registry):
                yield event

    def shared_stream_key(self) -> Hashable | None:
        """Share one poll loop among all watchers of a connection."""
        return ("quickbi", self.quickbi_conn_id)

    @classmethod
    async def open_shared_stream(cls, kwargs: dict[str, Any]) -> AsyncIterator[Any]:
        """Give the answers of the connection's one poll loop."""
        conn_id = kwargs["quickbi_conn_id"]
        async with aclosing(responses(conn_id, registry_of(conn_id))) as stream:
            async for response in stream:
                yield response

    async def filter_shared_stream(self, shared_stream: AsyncIterator[Any]) -> AsyncIterator[TriggerEvent]:
        """Tell of runs from the shared answers."""
        async for event in self._follow(shared_stream, registry_of(self.quickbi_conn_id)):
            yield event

    async def _follow(self, stream: AsyncIterator[Any], registry: WatcherRegistry) -> AsyncIterator[TriggerEvent]:
        tracker: RunTracker | None = None
        kept: dict[str, Any] | None = None
        try:
            if self.mail_id is not None:
                tracker = await self._start_wait(self.mail_id, registry)
            else:
                registry.seek(self, self.subscribe_name, self.mail_owner, self.poll_interval)
            async for found in stream:
                if tracker is None:
                    if (mail_id := registry.found(self)) is None:
                        continue
                    tracker = await self._start_wait(mail_id, registry)
                if not found.concerns(tracker.mail_id):
                    continue
                news = tracker.feed(found.runs)
                for run in news:
                    self.log.info("Run %s of mail task %s is %s.", run.task_id, run.mail_id, run.status)
                    yield TriggerEvent(self._payload(run))
                if tracker.as_dict() != kept and await self._keep(tracker, HAND_OVER_SECONDS if news else 0.0):
                    kept = tracker.as_dict()
        finally:
            registry.leave(self)

    async def _start_wait(self, mail_id: str, registry: WatcherRegistry) -> RunTracker:
        tracker = RunTracker(mail_id, frozenset(self.statuses))
        store = getattr(self, "asset_state_store", None)
        progress = Progress(self.log)
        while store is not None:
            try:
                tracker.restore(await store.aget(self._state_key()))
            except ValueError:
                self.log.warning("Several assets share this watcher, so what it has seen is not kept over a restart.")
            except Exception as error:  # noqa: BLE001 - whatever Airflow's API raises; to begin without it loses events
                progress.report(
                    f"What was seen of mail task {mail_id} cannot be read and is tried again: {type(error).__name__}.",
                    time.time(),
                )
                await asyncio.sleep(min(self.poll_interval, MAX_SPREAD_SECONDS))
                continue
            break
        registry.follow(self, tracker, self.poll_interval)
        return tracker

    async def _keep(self, tracker: RunTracker, delay: float) -> bool:
        """Keep what was seen, and return whether that is done; what fails is done with the next answer.

        :param edges: what was seen.
        :param delay: seconds until then, in which Airflow takes the events over.
        """
        if (store := getattr(self, "asset_state_store", None)) is None:
            return True
        await asyncio.sleep(delay)
        for attempt in range(1, _KEEPING.attempts + 1):
            try:
                await store.aset(self._state_key(), tracker.as_dict())
            except ValueError:  # several assets share this watcher, as it has said when it began
                return True
            except Exception as error:  # noqa: BLE001 - whatever Airflow's API raises ends no watcher
                failed = type(error).__name__
            else:
                return True
            if attempt < _KEEPING.attempts:
                await asyncio.sleep(_KEEPING.delay(attempt, None))
        self.log.warning(
            "What was seen of mail task %s could not be kept (%s) and is tried again with the next look. Until then, a "
            "restart of the triggerer tells of it again.",
            tracker.mail_id,
            failed,
        )
        return False

    def _state_key(self) -> str:
        """Name what this watcher has seen; the same in every release, so that an upgrade forgets nothing."""
        watched = (self.quickbi_conn_id, self.mail_id, self.subscribe_name, self.mail_owner, *self.statuses)
        return "quickbi_" + hashlib.sha256(repr(watched).encode()).hexdigest()[:16]

    def _payload(self, run: MailTaskRun) -> dict[str, Any]:
        payload = run.as_dict()
        return payload if self.subscribe_name is None else {**payload, "subscribe_name": self.subscribe_name}
