"""How a task hands its wait to the triggerer, and the limits around that."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from airflow_provider_quickbi._wait.codec import encode_group
from airflow_provider_quickbi._wait.placement import Ending
from airflow_provider_quickbi.api.clock import CLOCK

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_quickbi._wait.state import WaitGroup

#: Stands in for "no limit" where a number is needed, in seconds; about 300 years.
FOREVER = 1e10
#: Longest deferral in seconds, five years: MySQL stores no time after January 2038.
LONGEST_SECONDS = 5 * 365 * 86400.0
#: Seconds that the framework's own limit of a deferral comes after the trigger's, which polls once more before.
BACKSTOP_SECONDS = 900.0
#: No event comes sooner after its trigger started: Airflow 3 may need 5 seconds to notice that a task has deferred
#: itself, and below 3.3 it fails one that is to go on earlier.
FIRST_EVENT_SECONDS = 6.0
_METHOD = "execute_complete"


@dataclass(frozen=True, slots=True, kw_only=True)
class PollOptions:
    """How a trigger polls.

    :param quickbi_conn_id: id of the connection.
    :param poke_interval: seconds between two polls.
    :param exponential_backoff: whether the interval grows from poll to poll, as Airflow's sensors do it.
    :param max_wait: seconds between two polls at most; ``None`` for no limit.
    :param execute_by: when ``execution_timeout`` is over, in seconds since the epoch; ``None`` for never.
    :param carry: plain JSON that comes back with the event; ``dag.test()`` loses what ``defer(kwargs=...)`` is given.
    :param ending: how a success ends the task, see :class:`airflow_provider_quickbi._wait.placement.Ending`.
    :param started_here: whether the wait started in the triggerer, so that its task already is deferred.
    """

    quickbi_conn_id: str
    poke_interval: float
    exponential_backoff: bool = False
    max_wait: float | None = None
    execute_by: float | None = None
    carry: Mapping[str, Any] = field(default_factory=dict)
    ending: Ending = Ending.WORKER
    started_here: bool = False

    def as_arguments(self) -> dict[str, Any]:
        """Return them as arguments of the trigger that a task defers itself with: plain JSON."""
        return {
            "quickbi_conn_id": self.quickbi_conn_id,
            "poke_interval": self.poke_interval,
            "exponential_backoff": self.exponential_backoff,
            "max_wait": self.max_wait,
            "execute_by": self.execute_by,
            "carry": dict(self.carry),
            "ending": self.ending.value,
        }


def defer_wait(task: Any, group: WaitGroup, options: PollOptions) -> NoReturn:
    """Hand a wait to the triggerer."""
    from airflow_provider_quickbi.triggers.quickbi import QuickBIMailTaskTrigger

    finish_by = max(FOREVER if wait.finish_by is None else wait.finish_by for wait in group.waits)
    _defer(task, QuickBIMailTaskTrigger(group=encode_group(group), **options.as_arguments()), finish_by)


def defer_pause(task: Any, until: float, carry: Mapping[str, Any]) -> NoReturn:
    """Wait for an instant in the triggerer.

    :param until: seconds since the epoch.
    :param carry: plain JSON that comes back with the event.
    """
    from airflow_provider_quickbi.triggers.quickbi import QuickBIPauseTrigger

    _defer(task, QuickBIPauseTrigger(until=until, carry=dict(carry)), until)


def _defer(task: Any, trigger: Any, until: float) -> NoReturn:
    timeout = min(max(0.0, until - CLOCK.time()), LONGEST_SECONDS) + BACKSTOP_SECONDS
    task.defer(trigger=trigger, method_name=_METHOD, timeout=timedelta(seconds=timeout))
    raise AssertionError("defer() does not return")
