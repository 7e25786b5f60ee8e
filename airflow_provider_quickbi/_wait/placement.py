"""Where a deferred wait starts and where it ends: in the triggerer, or on a worker."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any

from airflow_provider_quickbi._wait import rendering

if TYPE_CHECKING:
    from airflow_provider_quickbi._wait.state import WaitGroup


class Ending(StrEnum):
    """What a trigger does when the run has succeeded; everything else always goes back to a worker."""

    #: Hand the result to a worker, which ends the task.
    WORKER = "worker"
    #: End the task with the run as its XCom.
    TRIGGERER = "triggerer"
    #: End the task with a list of runs as its XCom.
    TRIGGERER_WITH_LIST = "triggerer, list"
    #: End the task without an XCom.
    TRIGGERER_WITHOUT_XCOM = "triggerer, no XCom"


def ending_of(task: Any, *, supported: bool) -> Ending:
    """Decide where a task ends, as far as that is known while its DAG is parsed; the table is in ``docs/sensor.md``.

    :param supported: see :func:`airflow_provider_quickbi._airflow.triggers_end_tasks`.
    """
    needs_worker = (
        not supported
        or not task.end_in_triggerer
        or bool(task.outlets)  # only a worker registers asset events
        or bool(task.multiple_outputs)  # and stores each output
        or bool(task.on_success_callback)
        or _overrides(task, "post_execute", "_post_execute_hook")
        or _is_subclass(task)
        or getattr(task, "returns_dag_result", False)  # which a trigger cannot mark its XCom as
    )
    if needs_worker:
        return Ending.WORKER
    return Ending.TRIGGERER if task.do_xcom_push else Ending.TRIGGERER_WITHOUT_XCOM


def settled(ending: Ending, group: WaitGroup, *, several: bool, ended_before: bool = False) -> Ending:
    """Return where a task ends once its wait group is known.

    :param ending: as :func:`ending_of` returns it.
    :param several: whether the XCom is a list.
    :param ended_before: whether an earlier try has finished and no worker has started the task since; Airflow would
        keep that try's end date.
    """
    if ended_before or any(wait.selector.is_open for wait in group.waits):  # the worker warns about an old run
        return Ending.WORKER
    return Ending.TRIGGERER_WITH_LIST if several and ending is Ending.TRIGGERER else ending


def starts_in_triggerer(task: Any, *, supported: bool) -> bool:
    """Decide while the DAG is parsed whether a task starts in the triggerer; the table is in ``docs/sensor.md``.

    :param supported: see :func:`airflow_provider_quickbi._airflow.triggers_end_tasks`.
    """
    from airflow.providers.common.compat.sdk import conf

    return not (
        not supported
        or not (task.deferrable and task.start_in_triggerer)
        or _is_subclass(task)
        or task.get_closest_mapped_task_group() is not None  # Airflow does not support it
        or task.execution_timeout is not None  # Airflow would cancel the trigger before its last poll
        or task.deadline is not None  # a retry looks up in the task's state whether a late report was notified
        or bool(task.on_execute_callback)
        or _overrides(task, "pre_execute", "_pre_execute_hook")
        or _limits_concurrency(task)
        or conf.getboolean(
            "triggerer", "queues_enabled", fallback=False
        )  # Airflow assigns no queue to a trigger that starts a task
        or _has_params(task)  # invalid ones would stop Airflow's triggerer
        or bool(task.inlets)  # Airflow looks them up before it starts a trigger
        or rendering.has_own_environment(task)
        or any(rendering.needs_worker(getattr(task, name), task) for name in task.template_fields)
    )


def _is_subclass(task: Any) -> bool:
    """Whether the task is of a user's class, whose methods only a worker runs."""
    return not type(task).__module__.startswith("airflow_provider_quickbi.")


def _limits_concurrency(task: Any) -> bool:
    """Whether the task takes part in a limit that Airflow applies only to tasks that go through a worker."""
    return (
        task.pool != "default_pool"
        or task.max_active_tis_per_dag is not None
        or task.max_active_tis_per_dagrun is not None
    )


def _has_params(task: Any) -> bool:
    return bool(task.params) or (task.has_dag() and bool(task.dag.params))


def _overrides(task: Any, method: str, hook: str) -> bool:
    defined = [cls for cls in type(task).__mro__ if method in vars(cls)]
    return len(defined) > 1 or getattr(task, hook, None) is not None
