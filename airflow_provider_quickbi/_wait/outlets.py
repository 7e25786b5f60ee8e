"""Asset events of a task's outlets: only for what has succeeded, each with its own run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_quickbi._wait.state import Outcome
from airflow_provider_quickbi.assets.quickbi import is_of, is_quickbi, subject_asset

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from airflow_provider_quickbi._wait.state import WaitGroup
    from airflow_provider_quickbi._wait.subject import Subject


def unrelated_outlets(outlets: Iterable[Any], subjects: Sequence[Subject]) -> list[str]:
    """Return the URIs of ``quickbi://`` outlets that belong to none of the subjects.

    :param subjects: that the task starts or waits for.
    """
    return [outlet.uri for outlet in outlets if is_quickbi(outlet) and not any(_is_of(outlet, one) for one in subjects)]


def publish(context: Any, outlets: list[Any], group: WaitGroup) -> None:
    """Put the runs into the asset events of a task's outlets, and drop the outlets of what has not succeeded.

    An outlet ``quickbi://.../<id>`` gets the run of that mail task or dataset; every other asset gets the only run, or
    all of them as ``runs``. An alias gets an event for the asset of each one that has succeeded.

    :param outlets: of the task; those of what has not succeeded are removed, so that Airflow emits no event.
    """
    seen = [
        (wait.subject, found.run, result)
        for wait, found, result in zip(group.waits, group.evaluations, group.results(), strict=True)
        if found.outcome in (Outcome.SUCCEEDED, Outcome.SEEN) and found.run is not None
    ]
    for outlet in [outlet for outlet in outlets if is_quickbi(outlet)]:
        if not any(_is_of(outlet, subject) for subject, _, _ in seen):
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
                    events[outlet].add(subject_asset(subject.kind, subject.id), extra=result)
        elif hasattr(outlet, "uri") or kind.endswith("Ref"):
            own = [result for subject, _, result in seen if _is_of(outlet, subject)]
            payload = own[0] if own else results[0] if len(results) == 1 else {"runs": results}
            events[outlet].extra.update(payload)


def _is_of(outlet: Any, subject: Subject) -> bool:
    return is_of(outlet, subject.kind, subject.id)
