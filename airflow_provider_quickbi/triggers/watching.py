"""What the triggers have in common that emit an event for each finished run, for asset watchers."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from contextlib import aclosing, contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_quickbi import _options
from airflow_provider_quickbi._wait import aio
from airflow_provider_quickbi._wait.codec import STATE_VERSION, check_version
from airflow_provider_quickbi._wait.evaluate import misdated_run
from airflow_provider_quickbi._wait.logging import WaitLog
from airflow_provider_quickbi._wait.messages import wrong_timezone
from airflow_provider_quickbi._wait.selector import RunSelector
from airflow_provider_quickbi._wait.state import WaitState
from airflow_provider_quickbi._watch.stream import WatcherRegistry, registry_of, responses
from airflow_provider_quickbi._watch.tracker import RunTracker, parse_statuses, refuse_impossible
from airflow_provider_quickbi.api.clock import CLOCK
from airflow_provider_quickbi.api.retry import RetryPolicy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Hashable, Iterator, Sequence
    from datetime import timedelta

    from airflow_provider_quickbi._wait.subject import Subject
    from airflow_provider_quickbi.api.models import Run

try:
    from airflow.triggers.base import BaseEventTrigger
except ImportError:  # Airflow 2.11 has no event-driven scheduling; the class can be imported and never runs there
    BaseEventTrigger = BaseTrigger  # type: ignore[misc, assignment]  # the stand-in of an older Airflow

#: Seconds within which Airflow takes over an event; a watcher that is killed earlier loses it, so it stores what it
#: has emitted only afterwards.
HAND_OVER_SECONDS = 3.0
DEFAULT_POLL_INTERVAL = 60.0
_STORING = RetryPolicy(attempts=3)


@contextmanager
def readable(trigger: BaseTrigger) -> Iterator[None]:
    """Turn an error about stored arguments into the one that a triggerer survives."""
    try:
        yield
    except ValueError as error:
        raise TypeError(f"Cannot read the arguments of {type(trigger).__name__}: {error}") from None


class WatchTrigger(BaseEventTrigger):
    """Emit one event for each run of a subject that reaches one of the wanted statuses.

    :param poll_interval: seconds between two polls.
    :param name: distinguishes watchers that are otherwise equal.
    :param version: of stored arguments; ``None`` for those of a DAG author, which are checked more strictly, as an
        error about stored ones would stop the triggerer.
    """

    #: What is watched.
    subject_type: ClassVar[type[Subject]]

    def __init__(
        self,
        statuses: Sequence[str] | str,
        poll_interval: float | timedelta,
        quickbi_conn_id: str,
        name: str | None,
        version: int | None,
    ) -> None:
        super().__init__()
        with readable(self):
            check_version(STATE_VERSION if version is None else version)
        self.stored = version is not None
        self.statuses = parse_statuses(statuses)
        if not self.stored:
            refuse_impossible(self.statuses, self.subject_type)
        seconds = _options.seconds("poll_interval", poll_interval)
        self.poll_interval = DEFAULT_POLL_INTERVAL if seconds is None else seconds
        self.quickbi_conn_id = quickbi_conn_id if self.stored else self._text("quickbi_conn_id", quickbi_conn_id)
        self.name = self._text("name", name)

    def _text(self, name: str, value: Any) -> Any:
        """Return an argument as stripped text, ``None`` if it is not given.

        :param name: of the argument.
        :param value: of it.
        :raises OptionError: if it is wrong, or a template.
        """
        if not self.stored:
            _options.refuse_template(name, value)
        return _options.text(name, value)

    @abstractmethod
    def _subject(self) -> Subject:
        """Return what is watched, without an id if it must be looked up."""

    def _payload(self, run: Run) -> dict[str, Any]:
        """Return an event."""
        return run.as_dict()

    @abstractmethod
    def _identity(self) -> tuple[Any, ...]:
        """Return what identifies this watcher's stored state; the same in every release."""

    def _common_arguments(self) -> dict[str, Any]:
        return {
            "statuses": self.statuses,
            "poll_interval": self.poll_interval,
            "quickbi_conn_id": self.quickbi_conn_id,
            "name": self.name,
            "version": STATE_VERSION,
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Emit runs from a poll loop of its own, on Airflow below 3.3."""
        registry = WatcherRegistry()
        async with aclosing(responses(self.quickbi_conn_id, registry)) as stream:
            async for event in self._watch(stream, registry):
                yield event

    def shared_stream_key(self) -> Hashable | None:
        """Share one poll loop among all watchers of a connection that watch the same kind of thing.

        Status queries of mail tasks wait long for a call slot; those of datasets are not.
        """
        return ("quickbi", self.subject_type.kind, self.quickbi_conn_id)

    @classmethod
    async def open_shared_stream(cls, kwargs: dict[str, Any]) -> AsyncIterator[Any]:
        """Yield the responses of the connection's one poll loop."""
        conn_id = kwargs["quickbi_conn_id"]
        async with aclosing(responses(conn_id, registry_of(conn_id, cls.subject_type.kind))) as stream:
            async for found in stream:
                yield found

    async def filter_shared_stream(self, shared_stream: AsyncIterator[Any]) -> AsyncIterator[TriggerEvent]:
        """Emit runs from the shared responses."""
        async for event in self._watch(shared_stream, registry_of(self.quickbi_conn_id, self.subject_type.kind)):
            yield event

    async def _watch(self, stream: AsyncIterator[Any], registry: WatcherRegistry) -> AsyncIterator[TriggerEvent]:
        tracker: RunTracker | None = None
        kept: dict[str, Any] | None = None
        wait_log = WaitLog(self.log)
        try:
            if (subject := self._subject()).id:
                tracker = await self._start_tracking(subject, registry)
            else:
                registry.enter(self, subject, self.poll_interval)
            async for found in stream:
                if tracker is None:
                    if (looked_up := registry.found(self)) is None:
                        continue
                    subject = looked_up
                    tracker = await self._start_tracking(subject, registry)
                if found.subject != tracker.subject:
                    continue
                now = CLOCK.time()
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
        if undocumented := [status for status in self.statuses if status not in subject.run_type.DOCUMENTED]:
            self.log.warning(
                "%s: undocumented in statuses: %s. No event is emitted unless a %s reaches it.",
                subject.title,
                ", ".join(undocumented),
                subject.words.run,
            )
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
            except Exception as error:  # noqa: BLE001 - whatever Airflow's API raises; to start without it loses events
                wait_log.report(
                    f"{subject.title}: cannot load watcher state; retrying ({type(error).__name__}).",
                    CLOCK.time(),
                )
                await CLOCK.sleep_async(min(self.poll_interval, aio.MAX_SPREAD_SECONDS))
                continue
            break
        registry.enter(self, subject, self.poll_interval, tracker)
        return tracker

    async def _store(self, tracker: RunTracker, delay: float) -> bool:
        """Store what was seen, and return whether that succeeded; a failure is retried with the next response.

        :param delay: seconds until then, in which Airflow takes the events over.
        """
        if (store := getattr(self, "asset_state_store", None)) is None:
            return True
        await CLOCK.sleep_async(delay)
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
                await CLOCK.sleep_async(_STORING.delay(attempt, None))
        self.log.warning(
            "%s: cannot store watcher state (%s); retrying with the next poll. A triggerer restart may emit "
            "duplicates.",
            tracker.subject.title,
            failed,
        )
        return False

    def _state_key(self) -> str:
        """Return the key of what was seen; the same in every release, so that an upgrade forgets nothing."""
        return "quickbi_" + hashlib.sha256(repr(self._identity()).encode()).hexdigest()[:16]
