"""What a rescheduled sensor has learnt, kept from poll to poll where Airflow can (3.3 and later)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_quickbi._airflow import task_state_store
from airflow_provider_quickbi._wait.codec import decode_group, encode_group

if TYPE_CHECKING:
    from airflow_provider_quickbi._wait.state import WaitGroup

#: Key in Airflow's ``task_state_store``.
STATE_KEY = "quickbi_wait"


def restore(context: Any) -> WaitGroup | None:
    """Return what this try learnt before it was rescheduled; ``None`` if nothing of it is kept."""
    store = task_state_store(context)
    kept = None if store is None else store.get(STATE_KEY)
    if not isinstance(kept, dict) or kept.get("try_number") != context["ti"].try_number:
        return None
    try:
        return decode_group(kept["group"])
    except (KeyError, ValueError):
        return None


def remember(group: WaitGroup, context: Any) -> None:
    """Keep what was learnt."""
    if (store := task_state_store(context)) is not None:
        store.set(STATE_KEY, {"try_number": context["ti"].try_number, "group": encode_group(group)})


def forget(context: Any) -> None:
    """Forget what was learnt."""
    if (store := task_state_store(context)) is not None:
        store.delete(STATE_KEY)
