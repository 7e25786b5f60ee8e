"""What a settled delivery does to a task: the result for the XCom, or the exception; one table for every mode."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn
from urllib.parse import quote

from airflow.providers.common.compat.sdk import AirflowSensorTimeout

from airflow_provider_quickbi._wait.evaluate import STATE_VERSION, Evaluation, Outcome, WaitGroup, check_version
from airflow_provider_quickbi.api.models import MailTaskStatus
from airflow_provider_quickbi.exceptions import (
    QuickBIMailTaskFailed,
    QuickBIRequestError,
    QuickBIUnavailable,
)


def raise_for(evaluation: Evaluation) -> NoReturn:
    """Raise what a final verdict other than ``SENT`` means for a task.

    :param verdict: of a delivery.
    :raises QuickBIMailTaskFailed: if the report did not go out.
    :raises AirflowSensorTimeout: if it did not start, or did not go out in time.
    :raises QuickBIUnavailable: if Quick BI could not be asked.
    :raises QuickBIRequestError: if Quick BI refused.
    """
    if evaluation.outcome is Outcome.FAILED:
        raise QuickBIMailTaskFailed(evaluation.message, evaluation.run)
    if evaluation.outcome in (Outcome.NOT_STARTED, Outcome.TIMED_OUT):
        raise AirflowSensorTimeout(evaluation.message)
    if evaluation.outcome is Outcome.REFUSED:
        error = evaluation.error
        raise QuickBIRequestError(
            evaluation.message, code=error.code if error else "", request_id=error.request_id if error else ""
        )
    if evaluation.outcome is Outcome.UNAVAILABLE:
        raise QuickBIUnavailable(evaluation.message)
    raise RuntimeError(f"the delivery is {evaluation.outcome.value}, which is no end: {evaluation.message}")


def read_event(event: Any) -> tuple[str, WaitGroup, str]:
    """Return kind, delivery and message of a trigger's event.

    :param event: what Airflow hands over.
    :raises RuntimeError: if it is not such an event, so that nothing unknown ever counts as a success.
    """
    with wrap_event_errors():
        fields = _fields_of(event)
        group = WaitGroup.from_dict(fields["group"])
        for wait, evaluation in zip(group.waits, group.evaluations, strict=True):
            if evaluation.outcome is Outcome.SENT and (
                evaluation.run is None
                or evaluation.run.status != MailTaskStatus.SENT
                or evaluation.run.mail_id != wait.mail_id
            ):
                raise ValueError("it claims a delivery without a run that is SENT")
        return str(fields["kind"]), group, str(fields.get("message", ""))


def carried(event: Any) -> dict[str, Any]:
    """Return what a task gave its trigger to carry over the deferral.

    :param event: what Airflow hands over.
    :raises RuntimeError: if it is not an event of our triggers.
    """
    with wrap_event_errors():
        carry = _fields_of(event).get("carry")
        if not isinstance(carry, Mapping):
            raise ValueError("it carries nothing")
        return dict(carry)


@contextmanager
def wrap_event_errors() -> Iterator[None]:
    """Let a task fail in a way that Airflow retries if an event, or what it carries, is not what it should be.

    :raises RuntimeError: in place of the error that was raised while it was read.
    """
    try:
        yield
    except (KeyError, ValueError) as error:
        raise RuntimeError(f"The trigger's event is not understood and counts as no delivery: {error}") from None


def _fields_of(event: Any) -> Mapping[str, Any]:
    if not isinstance(event, Mapping):
        raise ValueError(f"it is {type(event).__name__}")
    check_version(event.get("version", STATE_VERSION))
    return event


def publish(context: Any, outlets: Any, runs: list[dict[str, Any]]) -> None:
    """Put the runs into the asset events of a task's outlets.

    An outlet of ``quickbi://.../<mail id>`` gets the run of that mail task; every other asset gets the only run, or all
    of them as ``runs``. An alias gets an event for the asset of each mail task that was delivered.

    :param context: of the task.
    :param outlets: of the task.
    :param runs: as for the XCom.
    """
    events = context.get("outlet_events") if outlets else None
    if events is None:
        return
    for outlet in outlets:
        kind = type(outlet).__name__
        if kind.endswith("Alias"):
            from airflow_provider_quickbi.assets.quickbi import mail_task_asset

            for run in runs:
                if run["status"] == MailTaskStatus.SENT:
                    events[outlet].add(mail_task_asset(run["mail_id"]), extra=run)
            continue
        uri = getattr(outlet, "uri", None)
        if uri is None and not kind.endswith("Ref"):
            continue
        own = [run for run in runs if str(uri).rstrip("/").endswith("/" + quote(run["mail_id"], safe="~"))]
        payload = own[0] if own else runs[0] if len(runs) == 1 else {"runs": runs}
        events[outlet].extra.update(payload)
