"""What differs between Airflow versions: when a DAG run started and was due, retries, and what survives a try."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from airflow_provider_quickbi._wait.window import Cause, DueTime

if TYPE_CHECKING:
    from datetime import tzinfo

#: Number of upcoming DAG runs to compute; two distinguish a daily schedule from a more frequent one.
_NEXT_RUNS = 2


def triggers_start_tasks() -> bool:
    """Whether a trigger that starts a task is given its context: in Airflow 3.3 and later."""
    from airflow.triggers.base import BaseTrigger

    return hasattr(BaseTrigger, "on_kill")  # came with the same version


def triggers_end_tasks() -> bool:
    """Whether a trigger may also end its task and store its XComs.

    Not where there are listeners, which would miss the task, or a custom XCom backend, which only workers call.
    """
    if not triggers_start_tasks():
        return False
    from airflow.sdk.bases.xcom import BaseXCom
    from airflow.sdk.execution_time import xcom
    from airflow.sdk.listener import get_listener_manager

    return xcom.XCom is BaseXCom and not get_listener_manager().has_listeners


def run_started(context: Any) -> datetime | None:
    """Return when the DAG run started, ``None`` where the context does not say.

    :param context: of the task, or of a callback; that of a ``DeadlineAlert`` describes the DAG run as JSON.
    """
    dag_run = context.get("dag_run")
    if isinstance(dag_run, dict):
        started = dag_run.get("start_date")
        return datetime.fromisoformat(started) if started else None
    return _instant(getattr(dag_run, "start_date", None))


def due_time(context: Any, dag: Any) -> DueTime:
    """Return when this DAG run was due, and when the next ones are.

    :param dag: of the task; its schedule says when the next runs are due.
    """
    dag_run = context.get("dag_run")
    if dag_run is None:
        return DueTime(Cause.UNKNOWN)
    names = ("data_interval_end", "run_after", "start_date")
    due = next((found for name in names if (found := _instant(getattr(dag_run, name, None))) is not None), None)
    if due is None:
        return DueTime(Cause.UNKNOWN)
    return DueTime(_cause(dag_run), due, _next_due(dag, dag_run, due))


def _cause(dag_run: Any) -> Cause:
    run_type = getattr(dag_run, "run_type", "")
    match str(getattr(run_type, "value", run_type)):
        case "scheduled" | "backfill":
            return Cause.SCHEDULE
        case "asset_triggered" | "dataset_triggered":
            return Cause.ASSET
        case _:
            return Cause.PERSON


def _next_due(dag: Any, dag_run: Any, due: datetime) -> tuple[datetime, ...]:
    """Return when the next DAG runs are due by the DAG's own timetable."""
    from airflow.timetables.base import DataInterval, TimeRestriction
    from pendulum import instance

    timetable = _core_timetable(dag)
    if timetable is None:
        return ()
    start = _instant(getattr(dag_run, "data_interval_start", None)) or due
    interval = DataInterval(instance(start), instance(due))
    if _cause(dag_run) is not Cause.SCHEDULE:
        # Its interval, if any, is not one of the schedule's: go on from the schedule's own before the due time.
        interval = timetable.infer_manual_data_interval(run_after=instance(due))
    anytime = TimeRestriction(earliest=None, latest=None, catchup=True)
    found: list[datetime] = []
    for _ in range(_NEXT_RUNS + 2):
        upcoming = timetable.next_dagrun_info(last_automated_data_interval=interval, restriction=anytime)
        if upcoming is None or upcoming.data_interval is None or len(found) == _NEXT_RUNS:
            break
        if upcoming.run_after > due:
            found.append(upcoming.run_after)
        interval = upcoming.data_interval
    return tuple(found)


def _core_timetable(dag: Any) -> Any:
    """Return the DAG's timetable as the scheduler knows it, ``None`` if it runs on no schedule of time."""
    timetable = getattr(dag, "timetable", None)
    if timetable is None:
        return None
    if not hasattr(timetable, "next_dagrun_info"):  # Airflow 3.2 and later describe it in the Task SDK
        from airflow.serialization.encoders import coerce_to_core_timetable

        timetable = coerce_to_core_timetable(timetable)
    periodic = getattr(timetable, "periodic", True) and getattr(timetable, "can_be_scheduled", True)
    return timetable if periodic else None


def default_timezone() -> tzinfo:
    """Return the zone in which Airflow reads datetimes that have none (``[core] default_timezone``)."""
    from airflow.providers.common.compat.sdk import conf
    from pendulum.tz.local_timezone import get_local_timezone

    name = str(conf.get("core", "default_timezone", fallback="utc"))
    if name.lower() == "utc":
        return UTC
    return get_local_timezone() if name == "system" else ZoneInfo(name)


def first_reschedule_date(sensor: Any, context: Any) -> datetime | None:
    """Return when a rescheduled sensor first polled, as ``BaseSensorOperator`` counts its ``timeout``."""
    task_instance = context.get("ti")
    if task_instance is None:
        return None
    if hasattr(task_instance, "get_first_reschedule_date"):
        return _instant(task_instance.get_first_reschedule_date(context))
    from airflow.sensors.base import _orig_start_date  # Airflow 2.11

    return _instant(
        _orig_start_date(
            dag_id=task_instance.dag_id,
            task_id=task_instance.task_id,
            run_id=task_instance.run_id,
            map_index=task_instance.map_index,
            try_number=(task_instance.max_tries or 0) - (sensor.retries or 0) + 1,
        )
    )


def is_retry(task: Any, context: Any) -> bool:
    """Whether this is a further try of a task that failed, and not the first one after it was cleared."""
    task_instance = context.get("ti")
    if task_instance is None:
        return False
    first_try = (task_instance.max_tries or 0) - (task.retries or 0) + 1
    return bool(task_instance.try_number > first_try)


def task_state_store(context: Any) -> Any:
    """Return what keeps a task's state from one try to the next, ``None`` below Airflow 3.3."""
    return context.get("task_state_store")


def callback_state_store(context: Any) -> Any:
    """Return the ``task_state_store`` of a callback that runs on a worker, else ``None``.

    The DAG processor runs the callbacks of DAGs, and of tasks whose worker is gone. There, the context has a store that
    never responds, and the task instance has no ``start_date``.
    """
    on_worker = getattr(context.get("ti"), "start_date", None) is not None
    return task_state_store(context) if on_worker else None


def seconds_of(duration: Any) -> float | None:
    """Return a duration of Airflow's own arguments as seconds; ``None`` stays ``None``.

    :param duration: seconds or a timedelta.
    """
    if duration is None:
        return None
    return float(duration.total_seconds() if isinstance(duration, timedelta) else duration)


def _instant(value: Any) -> datetime | None:
    return value if isinstance(value, datetime) else None
