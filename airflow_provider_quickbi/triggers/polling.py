"""What the triggers of a deferred task have in common: they wait until the task needs an event."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_quickbi._metrics import count_outcome
from airflow_provider_quickbi._wait import aio, trigger_memory
from airflow_provider_quickbi._wait.events import Event, EventKind
from airflow_provider_quickbi._wait.placement import Ending
from airflow_provider_quickbi._wait.shared_client import SharedClient
from airflow_provider_quickbi._wait.state import Outcome
from airflow_provider_quickbi.api.clock import CLOCK
from airflow_provider_quickbi.exceptions import QuickBIConnectionError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from airflow_provider_quickbi._wait.aio import TriggererWait
    from airflow_provider_quickbi._wait.deferral import PollOptions
    from airflow_provider_quickbi._wait.state import WaitGroup


class DeferralTrigger(BaseTrigger):
    """Emits one event, once Airflow has noticed that the task has deferred itself."""

    #: Whether the task is deferred before the trigger exists, because no worker started it.
    started_here = False

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, and emit the one event."""
        started = CLOCK.monotonic()
        event = await self._wait()
        if not self.started_here:
            await CLOCK.sleep_async(max(0.0, started + aio.FIRST_POLL_SECONDS - CLOCK.monotonic()))
        yield await self._airflow_event(event)

    async def _airflow_event(self, event: Event) -> TriggerEvent:
        """Return what Airflow is given."""
        return TriggerEvent(event.encode())

    @abstractmethod
    async def _wait(self) -> Event:
        """Wait, and return what the event says."""


class PollingTrigger(DeferralTrigger):
    """Polls a wait, and ends the task where no worker is needed for that."""

    wait: TriggererWait
    options: PollOptions

    async def _wait(self) -> Event:
        await self._restore()
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
        )

    async def _airflow_event(self, event: Event) -> TriggerEvent:
        """End the task if its run has succeeded and no worker is needed for that, else resume it."""
        if event.kind is not EventKind.FINISHED or self.options.ending is Ending.WORKER:
            return await super()._airflow_event(event)
        group = self.wait.group
        if group.evaluation.outcome is not Outcome.SUCCEEDED:
            return await super()._airflow_event(event)
        if self.options.ending is not Ending.TRIGGERER_WITHOUT_XCOM:
            # Not as an XCom of the event: Airflow encodes those twice, and the next task gets a text.
            results = group.results()
            result: Any = results if self.options.ending is Ending.TRIGGERER_WITH_LIST else results[0]
            if not await trigger_memory.push(self.task_instance, trigger_memory.RESULT_KEY, result):
                return await super()._airflow_event(event)
        from airflow.triggers.base import TaskSuccessEvent

        count_outcome(group)
        self.log.info("%s", group.evaluation.message)
        ending = TaskSuccessEvent()
        ending.payload = event.encode()  # for dag.test(), which resumes the task with it
        return ending

    async def store(self, group: WaitGroup) -> bool:
        """Store what was learnt without a worker; return whether Airflow can do that."""
        return await trigger_memory.remember(self.task_instance, group)

    async def _restore(self) -> None:
        """Resume from what was stored before this trigger was recreated."""
        self.wait.restore(await trigger_memory.recall(self.task_instance))

    async def on_kill(self) -> None:
        """Log that a user cancelled the wait."""
        self.log.info("Wait cancelled; a report in progress is still sent.")
