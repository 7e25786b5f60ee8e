"""The trigger of a sensor that starts in the triggerer (Airflow 3.3 and later)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_quickbi._wait.aio import TriggererWait
from airflow_provider_quickbi._wait.codec import STATE_VERSION, check_version
from airflow_provider_quickbi._wait.deferral import PollOptions
from airflow_provider_quickbi._wait.events import Event, EventKind
from airflow_provider_quickbi._wait.placement import Ending
from airflow_provider_quickbi._wait.triggerer_start import (
    NameLookupTimeoutError,
    Start,
    restore,
    start_in_triggerer,
    store,
)
from airflow_provider_quickbi.api.clock import CLOCK
from airflow_provider_quickbi.triggers.polling import PollingTrigger
from airflow_provider_quickbi.triggers.watching import readable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from airflow_provider_quickbi._wait.state import WaitGroup


class QuickBISensorTrigger(PollingTrigger):
    """Start a sensor's wait, and poll Quick BI until it is finished.

    It emits one event, see :class:`airflow_provider_quickbi._wait.events.Event`. If the wait cannot start here for any
    reason, the event makes the task start it on a worker, which reports the reason.

    :param kind: of what is waited for, see :class:`airflow_provider_quickbi._wait.subject.Subject`.
    :param arguments: the sensor's template fields, not rendered; the connection is read in the triggerer.
    :param rendered: names of those that may be rendered to a list.
    :param timeout: of the sensor, in seconds.
    :param backstop: seconds from the start of the wait to when Airflow ends the trigger.
    :param silent_fail: whether only ``timeout`` ends an outage.
    :param poke_interval: seconds between two polls.
    :param exponential_backoff: whether the interval grows from poll to poll, as Airflow's sensors do it.
    :param max_wait: seconds between two polls at most; ``None`` for no limit.
    :param ending: where the task ends when the run has succeeded, see
        :class:`airflow_provider_quickbi._wait.placement.Ending`.
    :param version: of these arguments.
    :param _later: what a later release has added; it is ignored.
    :raises TypeError: if they cannot be read. The triggerer then fails this task; any other error would stop the
        triggerer.
    """

    started_here = True
    #: When Airflow ends the trigger; the triggerer sets it.
    timeout_after: datetime | None = None

    def __init__(
        self,
        *,
        kind: str,
        arguments: dict[str, Any],
        rendered: Sequence[str] = (),
        timeout: float,
        backstop: float,
        silent_fail: bool = False,
        poke_interval: float,
        exponential_backoff: bool = False,
        max_wait: float | None = None,
        ending: str = Ending.WORKER.value,
        version: int = STATE_VERSION,
        **_later: Any,
    ) -> None:
        super().__init__()
        with readable(self):
            check_version(version)
        self.start = Start(
            kind=kind,
            arguments=arguments,
            rendered=tuple(rendered),
            timeout=timeout,
            silent_fail=silent_fail,
            poll=PollOptions(
                quickbi_conn_id="",
                poke_interval=poke_interval,
                exponential_backoff=exponential_backoff,
                max_wait=max_wait,
                carry={"execute_by": None},
                ending=Ending(ending) if ending in list(Ending) else Ending.WORKER,
                started_here=True,
            ),
        )
        self.backstop = backstop

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the arguments."""
        poll = self.start.poll
        return (
            "airflow_provider_quickbi.triggers.starting.QuickBISensorTrigger",
            {
                "version": STATE_VERSION,
                "kind": self.start.kind,
                "arguments": dict(self.start.arguments),
                "rendered": list(self.start.rendered),
                "timeout": self.start.timeout,
                "backstop": self.backstop,
                "silent_fail": self.start.silent_fail,
                "poke_interval": poll.poke_interval,
                "exponential_backoff": poll.exponential_backoff,
                "max_wait": poll.max_wait,
                "ending": poll.ending.value,
            },
        )

    @property
    def since(self) -> float:
        """When the wait started, in seconds since the epoch, however often its trigger was recreated."""
        return CLOCK.time() if self.timeout_after is None else self.timeout_after.timestamp() - self.backstop

    async def _wait(self) -> Event:
        since, ti = self.since, self.task_instance
        try:
            found = await restore(self.start, since, ti) or await start_in_triggerer(self.start, since, ti, self.log)
        except Exception as error:  # noqa: BLE001 - a worker raises it again, and Airflow acts on it
            self.log.info("Starting on a worker (%s).", type(error).__name__)
            carry = {"since": since}
            if isinstance(error, NameLookupTimeoutError):
                carry["lookup_since"] = error.since
            return Event(kind=EventKind.START, carry=carry)
        group, self.options = found
        self.wait = TriggererWait(group, self.options, self.log, self.store)
        return await super()._wait()

    async def store(self, group: WaitGroup) -> bool:
        """Store what was learnt without a worker; return whether it is stored."""
        return await store(self.task_instance, group, self.options)

    async def _restore(self) -> None:
        """Do nothing: the whole wait was restored."""
