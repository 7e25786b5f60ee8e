"""The triggers, which wait in the triggerer: they poll, and start nothing."""

from __future__ import annotations

import asyncio
import hashlib
import time
from abc import abstractmethod
from contextlib import aclosing, contextmanager
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_quickbi import _options
from airflow_provider_quickbi._wait import aio
from airflow_provider_quickbi._wait.aio import TriggererWait
from airflow_provider_quickbi._wait.codec import STATE_VERSION, check_version, decode_group, encode_group
from airflow_provider_quickbi._wait.deferral import PollOptions
from airflow_provider_quickbi._wait.evaluate import misdated_run
from airflow_provider_quickbi._wait.events import Event, EventKind
from airflow_provider_quickbi._wait.logging import WaitLog
from airflow_provider_quickbi._wait.messages import wrong_timezone
from airflow_provider_quickbi._wait.selector import RunSelector
from airflow_provider_quickbi._wait.shared_client import SharedClient
from airflow_provider_quickbi._wait.state import WaitState
from airflow_provider_quickbi._wait.subject import MailTaskSubject
from airflow_provider_quickbi._watch.stream import WatcherRegistry, registry_of, responses
from airflow_provider_quickbi._watch.tracker import RunTracker, parse_statuses
from airflow_provider_quickbi.api.retry import RetryPolicy
from airflow_provider_quickbi.exceptions import QuickBIConnectionError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Hashable, Iterator, Sequence

    from airflow_provider_quickbi._wait.subject import Subject
    from airflow_provider_quickbi.api.models import Run

try:
    from airflow.triggers.base import BaseEventTrigger
except ImportError:  # Airflow 2.11 has no event-driven scheduling; the class can be imported and never runs there
    BaseEventTrigger = BaseTrigger  # type: ignore[misc, assignment]  # the stand-in of an older Airflow

#: Seconds in which Airflow takes an event over; what is killed before loses it. A watcher stores only then what it
#: has emitted.
HAND_OVER_SECONDS = 3.0
_STORING = RetryPolicy(attempts=3)


@contextmanager
def _readable(trigger: BaseTrigger) -> Iterator[None]:
    """Turn an error about stored arguments into the one that a triggerer survives."""
    try:
        yield
    except ValueError as error:
        raise TypeError(f"Cannot read the arguments of {type(trigger).__name__}: {error}") from None


class _DeferralTrigger(BaseTrigger):
    """Emits one event, and not before Airflow has noticed that the task has deferred itself."""

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, and emit the one event."""
        started = time.monotonic()
        event = await self._wait()
        await asyncio.sleep(max(0.0, started + aio.FIRST_POLL_SECONDS - time.monotonic()))
        yield TriggerEvent(event.encode())

    @abstractmethod
    async def _wait(self) -> Event:
        """Wait, and return what the event says."""


class QuickBIMailTaskTrigger(_DeferralTrigger):
    """Wait until the runs of a wait group are finished, polling Quick BI no more often than it allows.

    The runs are those of mail tasks, or refreshes of datasets.

    It emits one event, see :class:`airflow_provider_quickbi._wait.events.Event`.

    :param quickbi_conn_id: id of the connection; it is read in the triggerer, nothing secret is an argument.
    :param group: what is waited for, as :func:`airflow_provider_quickbi._wait.codec.encode_group` writes it.
    :param poke_interval: seconds between two polls.
    :param exponential_backoff: whether the interval grows from poll to poll, as Airflow's sensors do it.
    :param max_wait: seconds between two polls at most; ``None`` for no limit.
    :param execute_by: when ``execution_timeout`` is over, in seconds since the epoch; ``None`` for never.
    :param carry: plain JSON that comes back with the event.
    :param polls: of a wait that goes on after an event, for each subject: how many polls there were, and when the
        last one succeeded, in seconds since the epoch; ``None`` for one that starts.
    :param version: of these arguments.
    :param _later: what a later release has added; it is ignored.
    :raises TypeError: if they cannot be read. A triggerer fails one task for it; any other error would end it.
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
        self.options = PollOptions(
            quickbi_conn_id=quickbi_conn_id,
            poke_interval=poke_interval,
            exponential_backoff=exponential_backoff,
            max_wait=max_wait,
            execute_by=execute_by,
            carry=carry or {},
        )
        with _readable(self):
            check_version(version)
            self.wait = TriggererWait(decode_group(group), self.options, polls, self.log)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the arguments, with what has been learnt meanwhile."""
        return (
            "airflow_provider_quickbi.triggers.quickbi.QuickBIMailTaskTrigger",
            {
                "version": STATE_VERSION,
                "quickbi_conn_id": self.options.quickbi_conn_id,
                "group": encode_group(self.wait.group),
                "poke_interval": self.options.poke_interval,
                "exponential_backoff": self.options.exponential_backoff,
                "max_wait": self.options.max_wait,
                "execute_by": self.options.execute_by,
                "carry": dict(self.options.carry),
                "polls": self.wait.polls,
            },
        )

    async def _wait(self) -> Event:
        try:
            async with SharedClient(self.options.quickbi_conn_id) as client:
                kind = await self.wait.run(client)
        except QuickBIConnectionError as error:
            kind, message = EventKind.CONNECTION, str(error)
        else:
            message = self.wait.group.evaluation.message
        return Event(
            kind=kind,
            group=self.wait.group,
            message=message,
            carry=self.options.carry,
            polls=self.wait.polls if kind is EventKind.PINNED else None,
        )

    async def on_kill(self) -> None:
        """Log that a person ended the wait."""
        self.log.info("Wait cancelled; a report in progress is still sent.")


class QuickBIPauseTrigger(_DeferralTrigger):
    """Wait until an instant, without a worker slot and without a call.

    :param until: seconds since the epoch.
    :param carry: plain JSON that comes back with the event.
    :param version: of these arguments.
    :param _later: what a later release has added; it is ignored.
    :raises TypeError: if they cannot be read. A triggerer fails one task for it; any other error would end it.
    """

    def __init__(
        self, *, until: float, carry: dict[str, Any] | None = None, version: int = STATE_VERSION, **_later: Any
    ) -> None:
        super().__init__()
        with _readable(self):
            check_version(version)
        self.until = until
        self.carry = carry or {}

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the arguments."""
        return (
            "airflow_provider_quickbi.triggers.quickbi.QuickBIPauseTrigger",
            {"version": STATE_VERSION, "until": self.until, "carry": self.carry},
        )

    async def _wait(self) -> Event:
        while (seconds := self.until - time.time()) > 0:  # noqa: ASYNC110 - until a known time, not for an event
            await asyncio.sleep(min(seconds, aio.CLOCK_SECONDS))
        return Event(kind=EventKind.RESUME, carry=self.carry)


class QuickBIMailTaskEventTrigger(BaseEventTrigger):
    """Emit one event for each run of a mail task that reaches ``SENT``; for an ``AssetWatcher`` (Airflow 3.0+).

    Its events are dicts ``{mail_id, subscribe_name?, task_id, status, exec_time}``; a DAG scheduled by the asset finds
    one as ``triggering_asset_events[asset][i].extra["payload"]``. Each run is emitted once, by its TaskId. Airflow 3.3
    and later keep with the asset what was seen, some seconds after it was emitted: a run that finishes while the
    triggerer restarts is not missed, and only what could not be kept before is emitted again. Below 3.3, a run that was
    finished when the watcher started is not emitted.

    All watchers of a connection share one poll loop on Airflow 3.3 and later. A failed poll does not stop it.

    :param mail_id: the mail task.
    :param subscribe_name: instead of ``mail_id``: its exact name.
    :param mail_owner: nickname or user id of its owner in Quick BI, where several have the name.
    :param statuses: the statuses to emit; default only ``SENT``.
    :param poll_interval: seconds between two polls; default 60. It must be shorter than the time between two runs.
    :param quickbi_conn_id: id of the connection; default ``quickbi_default``.
    :param name: tells watchers apart that are otherwise equal. Airflow makes one watcher of equal ones and keeps
        nothing for it, so give each a name where several assets watch the same mail task.
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
        name: str | None = None,
        version: int = STATE_VERSION,
    ) -> None:
        super().__init__()
        with _readable(self):
            check_version(version)
        self.mail_id = _options.text("mail_id", mail_id)
        self.subscribe_name = _options.text("subscribe_name", subscribe_name)
        self.mail_owner = _options.text("mail_owner", mail_owner)
        _options.need_one_of(self, "mail_id", "subscribe_name")
        self.statuses = parse_statuses(statuses)
        self.poll_interval = _options.seconds("poll_interval", poll_interval) or 60.0
        self.quickbi_conn_id = quickbi_conn_id
        self.name = _options.text("name", name)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the arguments, which are also the trigger's identity."""
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
                "name": self.name,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Emit runs from a poll loop of its own, on Airflow below 3.3."""
        registry = WatcherRegistry()
        async with aclosing(responses(self.quickbi_conn_id, registry)) as stream:
            async for event in self._watch(stream, registry):
                yield event

    def shared_stream_key(self) -> Hashable | None:
        """Share one poll loop among all watchers of a connection."""
        return ("quickbi", self.quickbi_conn_id)

    @classmethod
    async def open_shared_stream(cls, kwargs: dict[str, Any]) -> AsyncIterator[Any]:
        """Yield the responses of the connection's one poll loop."""
        conn_id = kwargs["quickbi_conn_id"]
        async with aclosing(responses(conn_id, registry_of(conn_id))) as stream:
            async for found in stream:
                yield found

    async def filter_shared_stream(self, shared_stream: AsyncIterator[Any]) -> AsyncIterator[TriggerEvent]:
        """Emit runs from the shared responses."""
        async for event in self._watch(shared_stream, registry_of(self.quickbi_conn_id)):
            yield event

    async def _watch(self, stream: AsyncIterator[Any], registry: WatcherRegistry) -> AsyncIterator[TriggerEvent]:
        tracker: RunTracker | None = None
        kept: dict[str, Any] | None = None
        wait_log = WaitLog(self.log)
        try:
            if (subject := self._subject()).id:
                tracker = await self._start_tracking(subject, registry)
            else:
                registry.seek(self, subject, self.poll_interval)
            async for found in stream:
                if tracker is None:
                    if (looked_up := registry.found(self)) is None:
                        continue
                    subject = looked_up
                    tracker = await self._start_tracking(subject, registry)
                if not found.concerns(tracker.subject):
                    continue
                now = time.time()
                state = WaitState(subject=tracker.subject, selector=RunSelector(), since=now)
                if (misdated := misdated_run(state, found.runs, now)) is not None:
                    wait_log.report(f"{wrong_timezone(state, misdated, now)} No event is emitted.", now)
                    continue
                news = tracker.feed(found.runs)
                for run in news:
                    self.log.info("%s: %s %s is %s.", subject.title, subject.words.run, run.run_id, run.status)
                    yield TriggerEvent(self._payload(run))
                if tracker.as_dict() != kept and await self._store(tracker, HAND_OVER_SECONDS if news else 0.0):
                    kept = tracker.as_dict()
        finally:
            registry.leave(self)

    async def _start_tracking(self, subject: Subject, registry: WatcherRegistry) -> RunTracker:
        tracker = RunTracker(subject, frozenset(self.statuses))
        store = getattr(self, "asset_state_store", None)
        wait_log = WaitLog(self.log)
        while store is not None:
            try:
                tracker.restore(await store.aget(self._state_key()))
            except ValueError:
                self.log.warning(
                    "%s: several assets have equal watchers, so a triggerer restart may miss or repeat events. Give "
                    "each %s a name of its own.",
                    subject.title,
                    type(self).__name__,
                )
            except Exception as error:  # noqa: BLE001 - whatever Airflow's API raises; to begin without it loses events
                wait_log.report(
                    f"{subject.title}: cannot load watcher state; retrying ({type(error).__name__}).",
                    time.time(),
                )
                await asyncio.sleep(min(self.poll_interval, aio.MAX_SPREAD_SECONDS))
                continue
            break
        registry.follow(self, tracker, self.poll_interval)
        return tracker

    async def _store(self, tracker: RunTracker, delay: float) -> bool:
        """Store what was seen, and return whether that is done; a failure is repeated with the next response.

        :param tracker: what was seen.
        :param delay: seconds until then, in which Airflow takes the events over.
        """
        if (store := getattr(self, "asset_state_store", None)) is None:
            return True
        await asyncio.sleep(delay)
        for attempt in range(1, _STORING.attempts + 1):
            try:
                await store.aset(self._state_key(), tracker.as_dict())
            except ValueError:  # several assets share this watcher, as it has logged at its start
                return True
            except Exception as error:  # noqa: BLE001 - whatever Airflow's API raises ends no watcher
                failed = type(error).__name__
            else:
                return True
            if attempt < _STORING.attempts:
                await asyncio.sleep(_STORING.delay(attempt, None))
        self.log.warning(
            "%s: cannot store watcher state (%s); retrying with the next poll. A triggerer restart may emit "
            "duplicates.",
            tracker.subject.title,
            failed,
        )
        return False

    def _state_key(self) -> str:
        """Return the key of what was seen; the same in every release, so that an upgrade forgets nothing."""
        watched = (self.quickbi_conn_id, self.mail_id, self.subscribe_name, self.mail_owner, *self.statuses)
        return "quickbi_" + hashlib.sha256(repr(watched).encode()).hexdigest()[:16]

    def _subject(self) -> Subject:
        return MailTaskSubject(self.mail_id or "", self.subscribe_name or "", self.mail_owner or "")

    def _payload(self, run: Run) -> dict[str, Any]:
        payload = run.as_dict()
        return payload if self.subscribe_name is None else {**payload, "subscribe_name": self.subscribe_name}
