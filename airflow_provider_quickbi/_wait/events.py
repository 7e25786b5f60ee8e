"""The events from a trigger to its task: their kinds, their encoding, and what each does to the task."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NoReturn

from airflow.providers.common.compat.sdk import AirflowTaskTimeout

from airflow_provider_quickbi._wait.codec import STATE_VERSION, check_version, decode_group, encode_group
from airflow_provider_quickbi._wait.state import Outcome, WaitGroup
from airflow_provider_quickbi.exceptions import QuickBIConnectionError


class EventKind(StrEnum):
    """What an event says."""

    #: The wait is finished, one way or the other.
    FINISHED = "finished"
    #: The report is late; the wait goes on.
    LATE = "late"
    #: ``execution_timeout`` is over.
    EXECUTION_TIMEOUT = "execution_timeout"
    #: The Airflow connection is wrong.
    CONNECTION = "connection"
    #: A pause before a start is over.
    RESUME = "resume"
    #: The wait could not start in the triggerer: start it on a worker, which says what is wrong.
    START = "start"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What a trigger says to its task.

    :param kind: see :class:`EventKind`.
    :param group: what was waited for; ``None`` before a start.
    :param message: one sentence for a person.
    :param carry: plain JSON that the task gave its trigger.
    """

    kind: EventKind
    group: WaitGroup | None = None
    message: str = ""
    carry: Mapping[str, Any] = field(default_factory=dict)

    def encode(self) -> dict[str, Any]:
        """Return plain JSON; it holds nothing secret."""
        encoded: dict[str, Any] = {"version": STATE_VERSION, "kind": self.kind.value, "carry": dict(self.carry)}
        if self.group is not None:
            encoded |= {"group": encode_group(self.group), "message": self.message}
        return encoded

    @classmethod
    def decode(cls, event: Any) -> Event:
        """Read an event.

        :raises RuntimeError: if it is something else, so that nothing unknown is ever a success; Airflow's ``retries``
            apply.
        """
        with wrap_event_errors():
            if not isinstance(event, Mapping):
                raise ValueError(f"it is {type(event).__name__}")
            check_version(event.get("version", STATE_VERSION))
            if event["kind"] not in list(EventKind):
                raise ValueError(f"unknown event kind {event['kind']!r:.40}; not treated as success")
            carry = event.get("carry", {})
            if not isinstance(carry, Mapping):
                raise ValueError("it carries nothing")
            kind = EventKind(event["kind"])
            group = None if kind in (EventKind.RESUME, EventKind.START) else decode_group(event["group"])
            for wait, found in zip(group.waits, group.evaluations, strict=True) if group else ():
                run = found.run
                if found.outcome is Outcome.SUCCEEDED and (
                    run is None or not run.succeeded or run.subject_id != wait.subject.id
                ):
                    raise ValueError("it claims success without a run that has succeeded")
            return cls(
                kind=kind,
                group=group,
                message=str(event.get("message", "")),
                carry=dict(carry),
            )


@contextmanager
def wrap_event_errors() -> Iterator[None]:
    """Let a task fail in a way that Airflow retries if an event, or what it carries, is not what it should be.

    :raises RuntimeError: in place of the error that was raised while it was read.
    """
    try:
        yield
    except (KeyError, ValueError) as error:
        raise RuntimeError(f"Cannot read the trigger's event, not treated as success: {error}") from None


def finished_group(
    event: Event,
    *,
    notify_late: Callable[[WaitGroup], WaitGroup],
    defer_again: Callable[[WaitGroup, Event], NoReturn],
) -> WaitGroup:
    """Do to the task what an event says, and return the group of a wait that is finished.

    :param notify_late: notifies that the report is late, and returns the group as notified.
    :param defer_again: hands a wait that goes on back to the triggerer.
    :raises QuickBIConnectionError: if the Airflow connection is wrong.
    :raises AirflowTaskTimeout: if ``execution_timeout`` is over.
    :raises RuntimeError: if the event is not about a wait.
    """
    group = event.group
    if group is None:
        raise RuntimeError("unexpected pause event: this task is waiting for a run")
    if event.kind is EventKind.CONNECTION:
        raise QuickBIConnectionError(event.message)
    if event.kind is EventKind.EXECUTION_TIMEOUT:
        raise AirflowTaskTimeout(f"execution_timeout is over. {event.message}")
    if not group.evaluation.outcome.final and event.kind is EventKind.LATE:
        defer_again(notify_late(group), event)
    return group
