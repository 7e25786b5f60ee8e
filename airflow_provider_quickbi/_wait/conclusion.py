"""What a finished wait does to a sensor's task: its XCom and asset events, or what the outcome raises or skips."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
)

from airflow_provider_quickbi import _airflow
from airflow_provider_quickbi._metrics import count_outcome
from airflow_provider_quickbi._wait.outlets import publish
from airflow_provider_quickbi._wait.reasons import explained
from airflow_provider_quickbi._wait.state import OnMissed, Outcome
from airflow_provider_quickbi.exceptions import outcome_error
from airflow_provider_quickbi.hooks.quickbi import QuickBIHook

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_quickbi._wait.state import WaitGroup


def conclude(sensor: Any, group: WaitGroup, context: Any, *, several: bool) -> Any:
    """Return the XCom of runs that have succeeded.

    :param several: whether the XCom is a list.
    :raises Exception: what an outcome other than ``SUCCEEDED`` means, see :mod:`airflow_provider_quickbi.exceptions`.
    """
    evaluation = group.evaluation
    count_outcome(group)
    if len(group.waits) == 1:
        with QuickBIHook(sensor.quickbi_conn_id) as hook:
            evaluation = explained(evaluation, group.waits[0].subject, hook.get_conn, sensor.log)
    if evaluation.outcome is Outcome.UNAVAILABLE and sensor.silent_fail:
        raise AirflowSensorTimeout(evaluation.message)
    if evaluation.outcome is Outcome.MISSED and sensor.on_missed == OnMissed.SKIP:
        raise AirflowSkipException(evaluation.message)
    if evaluation.outcome is not Outcome.SUCCEEDED:
        raise outcome_error(evaluation)
    sensor.log.info("%s", evaluation.message)
    _warn_about_old_runs(sensor, group, context)
    publish(context, sensor, group)
    results = group.results()
    return results if several else results[0]


def _warn_about_old_runs(sensor: Any, group: WaitGroup, context: Any) -> None:
    """Warn that the latest run is of an earlier day, where nothing says which run is waited for."""
    started = _airflow.run_started(context)
    for wait, evaluation in zip(group.waits, group.evaluations, strict=True):
        run = evaluation.run
        if not wait.selector.is_open or started is None or run is None:
            continue
        if run.started_at.date() < started.astimezone(run.started_at.tzinfo).date():
            words = wait.subject.words
            sensor.log.warning(
                "%s %s of %s %s started at %s, before this DAG run (%s). To wait for a later one, set executed_after.",
                words.run.capitalize(),
                run.run_id,
                words.subject,
                wait.subject.id,
                run.started_at.isoformat(),
                started.isoformat(),
            )


@contextmanager
def softened(sensor: Any) -> Iterator[None]:
    """Skip where ``soft_fail`` or ``never_fail`` asks for it, in all modes alike, and say why in the log."""
    try:
        yield
    except (AirflowFailException, AirflowSensorTimeout, AirflowTaskTimeout, RuntimeError) as error:
        if not (sensor.never_fail or (sensor.soft_fail and not isinstance(error, RuntimeError))):
            raise
        reason = f"{type(error).__name__}: {error}"
        sensor.log.warning("%s Skipping (soft_fail or never_fail).", reason)
        raise AirflowSkipException(reason) from error
