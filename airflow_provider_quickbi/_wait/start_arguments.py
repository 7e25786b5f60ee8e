"""What Airflow reads from a sensor while its DAG is parsed: whether it starts in the triggerer, and with what."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_quickbi import _airflow
from airflow_provider_quickbi._wait.deferral import BACKSTOP_SECONDS, LONGEST_SECONDS
from airflow_provider_quickbi._wait.placement import ending_of, starts_in_triggerer
from airflow_provider_quickbi._wait.rendering import written

if TYPE_CHECKING:
    from airflow.triggers.base import StartTriggerArgs


class StartsInTriggerer:
    """A sensor's ``start_from_trigger``; ``False`` for its class, which Airflow reads for a mapped sensor.

    It is evaluated on each access, so changes by a cluster policy count. Airflow first reads it while the task is still
    being constructed.
    """

    def __get__(self, task: Any, owner: type) -> bool:
        made = task is not None and task.made
        return made and starts_in_triggerer(task, supported=_airflow.triggers_end_tasks())


class StartArguments:
    """A sensor's ``start_trigger_args``, ``None`` if it starts on a worker."""

    def __get__(self, task: Any, owner: type) -> StartTriggerArgs | None:
        if task is None or not task.start_from_trigger:
            return None
        from airflow.triggers.base import StartTriggerArgs

        timeout = _airflow.seconds_of(task.timeout) or 0.0
        backstop = min(timeout, LONGEST_SECONDS) + BACKSTOP_SECONDS
        return StartTriggerArgs(
            trigger_cls="airflow_provider_quickbi.triggers.starting.QuickBISensorTrigger",
            next_method="execute_complete",
            timeout=timedelta(seconds=backstop),
            trigger_kwargs={
                "kind": task.subject_kind,
                "arguments": {name: written(getattr(task, name)) for name in task.template_fields},
                "rendered": sorted(task.rendered),
                "timeout": timeout,
                "backstop": backstop,
                "silent_fail": bool(task.silent_fail),
                "poke_interval": task.poke_interval,
                "exponential_backoff": bool(task.exponential_backoff),
                "max_wait": _airflow.seconds_of(task.max_wait),
                "ending": ending_of(task, supported=_airflow.triggers_end_tasks()).value,
            },
        )
