"""The triggers, which wait in the triggerer: they ask, and start nothing."""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
from contextlib import aclosing, contextmanager, suppress
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_quickbi import arguments
from airflow_provider_quickbi.api.errors import QuickBIError, ThrottledError
from airflow_provider_quickbi.api.retries import ONE_ATTEMPT, Retries
from airflow_provider_quickbi.delivery import KEPT_VERSION, Delivery, Wait, check_version
from airflow_provider_quickbi.exceptions import QuickBIConnectionError
from airflow_provider_quickbi.metrics import Detection
from airflow_provider_quickbi.progress import Progress, poke_delay
from airflow_provider_quickbi.triggers.account import Account, AccountWatch
from airflow_provider_quickbi.triggers.stream import Interests, answers, interests_of
from airflow_provider_quickbi.watching import Edges, read_statuses

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Hashable, Iterator, Sequence

    from airflow_provider_quickbi.api.models import MailTaskRun

try:
    from airflow.triggers.base import BaseEventTrigger
except ImportError:  # Airflow 2.11 has no event-driven scheduling; the class can be imported and never runs there
    BaseEventTrigger = BaseTrigger  # type: ignore[misc, assignment]  # the stand-in of an older Airflow

#: First looks of waits that begin together are spread over this many seconds at the most.
MAX_SPREAD_SECONDS = 30.0
#: Where the interval allows it, the first look is not before that many seconds: Airflow 3 may need 5 to notice that a
#: task has deferred itself, and it fails one that is to go on earlier.
FIRST_LOOK_SECONDS = 6.0
#: An answer that others got this many seconds ago is still new.
FRESH_SECONDS = 0.5
#: Seconds for which the last look may wait for its turn after ``timeout`` is over.
LAST_LOOK_SECONDS = 600.0
#: So long the look may take that comes before somebody is told that a delivery is late.
LATE_LOOK_SECONDS = 30.0


class EventKind:
    """What an event of a trigger says."""

    SETTLED = "settled"
    LATE = "late"
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


class QuickBIMailTaskTrigger(BaseTrigger):
    """Wait until a delivery is settled, asking Quick BI no more often than it allows.

    It gives one event, a dict of plain JSON: ``{"version", "kind", "delivery", "message", "carry"}``.

    :param quickbi_conn_id: id of the connection; it is read in the triggerer, nothing secret is an argument.
    :param delivery: :meth:`airflow_provider_quickbi.delivery.Delivery.as_dict` of what is waited for.
    :param poke_interval: seconds between two looks.
    :param exponential_backoff: whether the interval grows from look to look, as Airflow's sensors do it.
    :param max_wait: seconds between two looks at the most; ``None`` for no limit.
    :param execute_by: when ``execution_timeout`` is over, in seconds since the epoch; ``None`` for never.
    :param carry: plain JSON that comes back with the event; ``dag.test()`` loses what ``defer(kwargs=...)`` is given.
    :param version: of these arguments.
    :param _later: what a later release has added; it is ignored.
    :raises TypeError: if they are not understood. A triggerer fails one task for it; any other error would end it.
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
        carry: dict[str, Any] | None = None,
        version: int = KEPT_VERSION,
        **_later: Any,
    ) -> None:
        super().__init__()
        with _inflated(self):
            check_version(version)
            self.delivery = Delivery.from_dict(delivery)
        self.quickbi_conn_id = quickbi_conn_id
        self.carry = carry or {}
        self.poke_interval = poke_interval
        self.exponential_backoff = exponential_backoff
        self.max_wait = max_wait
        self.execute_by = execute_by
        self._detection = Detection()

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the arguments, with what has been learnt meanwhile."""
        return (
            "airflow_provider_quickbi.triggers.quickbi.QuickBIMailTaskTrigger",
            {
                "version": KEPT_VERSION,
                "quickbi_conn_id": self.quickbi_conn_id,
                "delivery": self.delivery.as_dict(),
                "poke_interval": self.poke_interval,
                "exponential_backoff": self.exponential_backoff,
                "max_wait": self.max_wait,
                "execute_by": self.execute_by,
                "carry": self.carry,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, and give the one event."""
        try:
            async with Account(self.quickbi_conn_id) as account:
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
            "version": KEPT_VERSION,
            "kind": kind,
            "delivery": self.delivery.as_dict(),
            "message": message,
            "carry": self.carry,
        }

    async def _settle(self, account: Account) -> str:
        """Wait for all mail tasks at once until the delivery is settled, late, or out of time."""
        positions = self.delivery.unsettled()
        if len(positions) == 1:
            return await self._settle_one(account, positions[0])
        tasks = {asyncio.create_task(self._settle_one(account, position)) for position in positions}
        ended: set[str] = set()
        try:
            while tasks:
                done, tasks = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                ended |= {task.result() for task in done}
                if self.delivery.verdict.outcome.final:
                    return EventKind.SETTLED
                if EventKind.EXECUTION_TIMEOUT in ended:
                    return EventKind.EXECUTION_TIMEOUT
            return EventKind.LATE if EventKind.LATE in ended else EventKind.SETTLED
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _settle_one(self, account: Account, position: int) -> str:
        """Wait for one mail task until its verdict is final, or the delivery is late or out of time."""
        progress = Progress(self.log)
        watch = account.watch()
        try:
            looks = 1
            wait = self.delivery.waits[position]
            spread = min(self.poke_interval, MAX_SPREAD_SECONDS)
            soonest = min(spread, FIRST_LOOK_SECONDS)
            look_at = max(time.time(), wait.asks_from) + random.uniform(  # noqa: S311 - spreads calls
                soonest, max(spread, 1.5 * soonest)
            )
            max_age = self.poke_interval
            while True:
                now = await self._sleep_until(look_at, position)
                wait = self.delivery.waits[position]
                age = 0.0
                urgent = self._out_of_time(wait, now) or self.delivery.is_late(now)
                if urgent or now >= look_at:
                    last = wait.finish_by is not None and now >= wait.finish_by
                    age = await self._look(
                        account,
                        watch,
                        position,
                        FRESH_SECONDS if urgent else max_age,
                        Retries() if last else ONE_ATTEMPT,
                    )
                    looks += 1
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
        self, account: Account, watch: AccountWatch, position: int, max_age: float, retries: Retries
    ) -> float:
        """Ask once, learn from the answer, and return the answer's age in seconds.

        The turn to ask may be long in coming; what is due meanwhile is not late for it.
        """
        now = time.time()
        wait = self.delivery.waits[position]
        question = wait.question(now)
        if question is None:
            return 0.0
        late_at = self.delivery.late_at
        due = [
            now + LATE_LOOK_SECONDS if late_at is not None and now >= late_at else late_at,
            self.execute_by,
            wait.finish_by and wait.finish_by + LAST_LOOK_SECONDS,
        ]
        patience = min((instant - now for instant in due if instant is not None and instant > now), default=None)
        try:
            async with asyncio.timeout(patience):
                answer = await watch.look(question, max_age=max_age, retries=retries)
                if isinstance(answer.outcome, QuickBIError) and await account.renew_after(answer.outcome, watch):
                    answer = await watch.look(question, max_age=0.0, retries=retries)
        except TimeoutError:
            return 0.0
        self.delivery = self.delivery.judged(position, answer.outcome, time.time())
        self._detection.looked(self.delivery, position, time.time())
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
    :param carry: plain JSON that comes back with the event.
    :param version: of these arguments.
    :param _later: what a later release has added; it is ignored.
    :raises TypeError: if they are not understood. A triggerer fails one task for it; any other error would end it.
    """

    def __init__(
        self, *, until: float, carry: dict[str, Any] | None = None, version: int = KEPT_VERSION, **_later: Any
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
            {"version": KEPT_VERSION, "until": self.until, "carry": self.carry},
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, and give the one event."""
        await asyncio.sleep(max(0.0, self.until - time.time()))
        yield TriggerEvent({"version": KEPT_VERSION, "kind": EventKind.OVER, "carry": self.carry})


class QuickBIMailTaskEventTrigger(BaseEventTrigger):
    """Tell once of each run of a mail task that reaches ``SENT``; for the ``AssetWatcher`` of an asset (Airflow 3.0+).

    Its events are dicts ``{mail_id, subscribe_name?, task_id, status, exec_time}``; a DAG scheduled by the asset finds
    one as ``triggering_asset_events[asset][i].extra["payload"]``. A run counts once, by its TaskId. On Airflow 3.3 and
    later what was seen is kept with the asset, so that after a restart of the triggerer no run is told of again and one
    that ended meanwhile is not missed; before, a run that was over when the watcher began is not told of.

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
        version: int = KEPT_VERSION,
    ) -> None:
        super().__init__()
        with _inflated(self):
            check_version(version)
        self.mail_id = arguments.text("mail_id", mail_id)
        self.subscribe_name = arguments.text("subscribe_name", subscribe_name)
        self.mail_owner = arguments.text("mail_owner", mail_owner)
        if (self.mail_id is None) == (self.subscribe_name is None):
            raise ValueError(f"{type(self).__name__} needs either mail_id or subscribe_name")
        self.statuses = read_statuses(statuses)
        self.poll_interval = arguments.seconds("poll_interval", poll_interval) or 60.0
        self.quickbi_conn_id = quickbi_conn_id

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the arguments, which are also what the trigger is known by."""
        return (
            "airflow_provider_quickbi.triggers.quickbi.QuickBIMailTaskEventTrigger",
            {
                "version": KEPT_VERSION,
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
        interests = Interests()
        async with aclosing(answers(self.quickbi_conn_id, interests)) as stream:
            async for event in self._follow(stream, interests):
                yield event

    def shared_stream_key(self) -> Hashable | None:
        """Share one poll loop among all watchers of a connection."""
        return ("quickbi", self.quickbi_conn_id)

    @classmethod
    async def open_shared_stream(cls, kwargs: dict[str, Any]) -> AsyncIterator[Any]:
        """Give the answers of the connection's one poll loop."""
        conn_id = kwargs["quickbi_conn_id"]
        async with aclosing(answers(conn_id, interests_of(conn_id))) as stream:
            async for answer in stream:
                yield answer

    async def filter_shared_stream(self, shared_stream: AsyncIterator[Any]) -> AsyncIterator[TriggerEvent]:
        """Tell of runs from the shared answers."""
        async for event in self._follow(shared_stream, interests_of(self.quickbi_conn_id)):
            yield event

    async def _follow(self, stream: AsyncIterator[Any], interests: Interests) -> AsyncIterator[TriggerEvent]:
        edges: Edges | None = None
        try:
            if self.mail_id is not None:
                edges = await self._begin(self.mail_id, interests)
            else:
                interests.seek(self, self.subscribe_name, self.mail_owner, self.poll_interval)
            async for found in stream:
                if edges is None:
                    if (mail_id := interests.found(self)) is None:
                        continue
                    edges = await self._begin(mail_id, interests)
                before = edges.as_dict()
                news = edges.feed(found.runs_of(edges.mail_id)) if found.concerns(edges.mail_id) else []
                for run in news:
                    self.log.info("Run %s of mail task %s is %s.", run.task_id, run.mail_id, run.status)
                    yield TriggerEvent(self._payload(run))
                if edges.as_dict() != before:
                    await self._keep(edges)
        finally:
            interests.leave(self)

    async def _begin(self, mail_id: str, interests: Interests) -> Edges:
        edges = Edges(mail_id, frozenset(self.statuses))
        if (store := getattr(self, "asset_state_store", None)) is not None:
            try:
                edges.restore(await store.aget(self._state_key()))
            except ValueError:
                self.log.warning("Several assets share this watcher, so what it has seen is not kept over a restart.")
        interests.follow(self, edges, self.poll_interval)
        return edges

    async def _keep(self, edges: Edges) -> None:
        if (store := getattr(self, "asset_state_store", None)) is not None:
            with suppress(ValueError):
                await store.aset(self._state_key(), edges.as_dict())

    def _state_key(self) -> str:
        """Name what this watcher has seen; the same in every release, so that an upgrade forgets nothing."""
        watched = (self.quickbi_conn_id, self.mail_id, self.subscribe_name, self.mail_owner, *self.statuses)
        return "quickbi_" + hashlib.sha256(repr(watched).encode()).hexdigest()[:16]

    def _payload(self, run: MailTaskRun) -> dict[str, Any]:
        payload = run.as_dict()
        return payload if self.subscribe_name is None else {**payload, "subscribe_name": self.subscribe_name}
