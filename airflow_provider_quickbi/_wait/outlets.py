"""Asset events of a task's outlets: only for what has succeeded, each with its own run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_quickbi._wait.state import Outcome
from airflow_provider_quickbi.assets.quickbi import is_elsewhere, is_of, is_quickbi, subject_asset
from airflow_provider_quickbi.connection import DEFAULT_REGION
from airflow_provider_quickbi.exceptions import QuickBIConnectionError, QuickBIUnavailable
from airflow_provider_quickbi.hooks.quickbi import QuickBIHook

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from airflow_provider_quickbi._wait.state import WaitGroup
    from airflow_provider_quickbi._wait.subject import Subject


def unrelated_outlets(outlets: Iterable[Any], subjects: Sequence[Subject]) -> list[str]:
    """Return the URIs of ``quickbi://`` outlets that belong to none of the subjects.

    :param subjects: that the task starts or waits for.
    """
    return [outlet.uri for outlet in outlets if is_quickbi(outlet) and not any(_is_of(outlet, one) for one in subjects)]


def publish(context: Any, task: Any, group: WaitGroup) -> None:
    """Put the runs into the asset events of a task's outlets, and drop the outlets of what has not succeeded.

    An outlet ``quickbi://.../<id>`` gets the run of that mail task or dataset; every other asset gets the only run, or
    all of them as ``runs``. An alias gets an event for the asset of each one that has succeeded.

    :param task: that has the outlets; those of what has not succeeded, or of what the connection's region does not
        have, are removed, so that Airflow emits no event.
    """
    outlets, region = task.outlets, _region(task)
    seen = [
        (wait.subject, found.run, result)
        for wait, found, result in zip(group.waits, group.evaluations, group.results(), strict=True)
        if found.outcome in (Outcome.SUCCEEDED, Outcome.SEEN) and found.run is not None
    ]
    for outlet in [outlet for outlet in outlets if is_quickbi(outlet)]:
        if not any(_is_of(outlet, subject) for subject, _, _ in seen):
            outlets.remove(outlet)
        elif region is not None and is_elsewhere(outlet, region):
            task.log.warning(
                "Outlet %s: no asset event emitted; connection %r uses region %s.",
                outlet.uri,
                task.quickbi_conn_id,
                region,
            )
            outlets.remove(outlet)
    events = context.get("outlet_events") if outlets else None
    if events is None:
        return
    results = [result for _, _, result in seen]
    for outlet in outlets:
        kind = type(outlet).__name__
        if kind.endswith("Alias"):
            for subject, run, result in seen:
                if run.succeeded:
                    events[outlet].add(subject_asset(subject.kind, subject.id, region or DEFAULT_REGION), extra=result)
        elif hasattr(outlet, "uri") or kind.endswith("Ref"):
            own = [result for subject, _, result in seen if _is_of(outlet, subject)]
            payload = own[0] if own else results[0] if len(results) == 1 else {"runs": results}
            events[outlet].extra.update(payload)


def _region(task: Any) -> str | None:
    """Return the region of a task's connection, ``None`` if that is not needed or not known."""
    if not task.outlets:
        return None
    try:
        return QuickBIHook(task.quickbi_conn_id).quickbi_connection.settings.endpoint.region
    except (QuickBIConnectionError, QuickBIUnavailable):
        return None


def _is_of(outlet: Any, subject: Subject) -> bool:
    return is_of(outlet, subject.kind, subject.id)
