"""The one table of what can be controlled, for a simulator in this process and for one in another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from airflow_provider_quickbi.testing.accounts import AccountBook
from airflow_provider_quickbi.testing.calls import CallLog
from airflow_provider_quickbi.testing.clock import Clock
from airflow_provider_quickbi.testing.datasets import DatasetStore
from airflow_provider_quickbi.testing.faults import FaultQueue
from airflow_provider_quickbi.testing.limits import RateLimiter
from airflow_provider_quickbi.testing.mails import MailStore

#: Part of the simulator, its class, and its methods and properties that the simulator itself has, too.
CONTROLS: Final[dict[str, tuple[type, tuple[str, ...]]]] = {
    "mails": (
        MailStore,
        (
            "add_mail_task",
            "add_run",
            "add_schedule",
            "finish_run",
            "limit_manual_starts",
            "mail_tasks",
            "mails_sent",
            "refuse_manual_start",
            "remove_mail_task",
            "runs",
            "set_manual_start",
            "set_paused",
            "starts",
        ),
    ),
    "accounts": (AccountBook, ("add_account", "add_bearer_token", "allow", "change_account", "deny")),
    "faults": (FaultQueue, ("clear_faults", "fail", "stop_failing")),
    "limiter": (RateLimiter, ("calls_per_second", "limit_calls")),
    "call_log": (CallLog, ("calls", "count", "counters")),
}
#: Parts whose methods are called on the part itself, such as ``quickbi.clock.advance(60)``.
PARTS: Final[dict[str, tuple[type, tuple[str, ...]]]] = {
    "clock": (Clock, ("advance", "freeze", "frozen", "now", "set", "set_skew", "skew", "time", "unfreeze")),
    "datasets": (
        DatasetStore,
        (
            "add",
            "add_run",
            "add_schedule",
            "finish_run",
            "refuse_start",
            "remove",
            "runs",
            "set_start",
            "starts",
            "succeeded",
        ),
    ),
}
PART_OF: Final = {name: part for part, (_, names) in CONTROLS.items() for name in names}


def member(name: str) -> Any:
    """Return the method or property behind a name such as ``add_run`` or ``clock.advance``.

    :raises KeyError: there is none.
    """
    part, _, attribute = name.rpartition(".")
    if not part:
        return getattr(CONTROLS[PART_OF[name]][0], name)
    owner, names = PARTS[part]
    if attribute not in names:
        raise KeyError(name)
    return getattr(owner, attribute)


if TYPE_CHECKING:

    class Controls(MailStore, AccountBook, FaultQueue, RateLimiter, CallLog):
        """For type checkers: everything that the parts have."""

        datasets: DatasetStore

else:

    class Controls:
        """Gives a simulator the methods of its parts, see :data:`CONTROLS`."""

        def __getattr__(self, name: str) -> Any:
            """Return a method or property of the part that has it."""
            if name not in PART_OF:
                raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
            return getattr(getattr(self, PART_OF[name]), name)
