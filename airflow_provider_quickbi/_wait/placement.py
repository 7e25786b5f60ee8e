"""Where a deferred task ends when its run has succeeded: in the triggerer, or on a worker."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_provider_quickbi._wait.state import WaitGroup


class Ending(StrEnum):
    """What a trigger does when the run has succeeded; everything else always goes back to a worker."""

    #: Hand the result to a worker, which ends the task.
    WORKER = "worker"
    #: End the task with the run as its XCom.
    TRIGGERER = "triggerer"
    #: End the task without an XCom.
    TRIGGERER_WITHOUT_XCOM = "triggerer, no XCom"


def ending_of(task: Any, group: WaitGroup, *, supported: bool, several: bool) -> Ending:
    """Decide where a task ends; the table is in ``docs/where-a-wait-runs.md``.

    :param task: the sensor.
    :param group: what it waits for.
    :param supported: whether Airflow lets a trigger end a task and store XComs (3.3 and later, without listeners).
    :param several: whether the XCom is a list: another task may be mapped over it, which needs its length.
    """
    needs_worker = (
        not supported
        or not task.end_in_triggerer
        or several
        or bool(task.outlets)  # only a worker registers asset events
        or bool(task.on_success_callback)
        or _has_post_execute(task)
        or any(wait.selector.is_open for wait in group.waits)  # the worker warns about an old run
    )
    if needs_worker:
        return Ending.WORKER
    return Ending.TRIGGERER if task.do_xcom_push else Ending.TRIGGERER_WITHOUT_XCOM


def _has_post_execute(task: Any) -> bool:
    defined = [cls for cls in type(task).__mro__ if "post_execute" in vars(cls)]
    return len(defined) > 1 or getattr(task, "_post_execute_hook", None) is not None
