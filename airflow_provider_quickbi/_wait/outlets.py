"""Asset events of a task's outlets: only for mail tasks that were sent, each with its own run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow_provider_quickbi.api.models import MailTaskStatus
from airflow_provider_quickbi.assets.quickbi import is_mail_task, mail_task_asset

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def unrelated_outlets(outlets: Iterable[Any], mail_ids: Sequence[str]) -> list[str]:
    """Return the URIs of ``quickbi://`` outlets that belong to none of the mail tasks.

    :param outlets: of a task.
    :param mail_ids: that the task sends or waits for.
    """
    return [outlet.uri for outlet in outlets if is_mail_task(outlet) and not any(_is_of(outlet, m) for m in mail_ids)]


def publish(context: Any, outlets: list[Any], runs: list[dict[str, Any]]) -> None:
    """Put the runs into the asset events of a task's outlets, and drop the outlets of what was not sent.

    An outlet ``quickbi://.../<mail id>`` gets the run of that mail task; every other asset gets the only run, or all of
    them as ``runs``. An alias gets an event for the asset of each mail task that was sent.

    :param context: of the task.
    :param outlets: of the task; those of mail tasks that were not sent are removed, so that Airflow emits no event.
    :param runs: that were sent, as for the XCom.
    """
    for outlet in [outlet for outlet in outlets if is_mail_task(outlet)]:
        if not any(_is_of(outlet, run["mail_id"]) for run in runs):
            outlets.remove(outlet)
    events = context.get("outlet_events") if outlets else None
    if events is None:
        return
    for outlet in outlets:
        kind = type(outlet).__name__
        if kind.endswith("Alias"):
            for run in runs:
                if run["status"] == MailTaskStatus.SENT:
                    events[outlet].add(mail_task_asset(run["mail_id"]), extra=run)
        elif hasattr(outlet, "uri") or kind.endswith("Ref"):
            own = [run for run in runs if _is_of(outlet, run["mail_id"])]
            payload = own[0] if own else runs[0] if len(runs) == 1 else {"runs": runs}
            events[outlet].extra.update(payload)


def _is_of(outlet: Any, mail_id: str) -> bool:
    return str(getattr(outlet, "uri", "")).rstrip("/").endswith("/" + quote(mail_id, safe="~"))
