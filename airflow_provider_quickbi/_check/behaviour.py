"""How one account behaves where the vendor documents nothing: frozen values, to and from JSON. Pure.

The format is documented in ``docs/command-line.md``.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

#: What a response without runs looks like: ``{"result": [] | None | "latest" | "null fields"}`` or ``{"code": "..."}``.
EmptyResponse = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """What is known of an account; ``None`` is not known, and the simulator then does as documented.

    :param timezone: of ``execTime``: an IANA name, or an offset such as ``+08:00``.
    :param runs_per_response: most runs in one response of ``GetMailTaskStatus`` without a TaskId.
    :param order: of those runs: ``newest_first``, ``oldest_first`` or ``unordered``.
    :param task_id_type: ``integer`` or ``string``.
    :param status_keys: the keys of a run, as the service writes them.
    :param status_padding: blanks after a status.
    :param never_ran: the response for a mail task that never ran.
    :param unknown_task_id: the response for a TaskId that does not exist.
    :param start_delay: seconds from ``ManualRunMailTask`` until its run appears.
    :param run_duration: seconds from there until it is finished.
    :param outcome: the status with which it finishes.
    :param status_changes: terminal statuses that changed: ``from``, ``to`` and ``after`` in seconds.
    :param resent_after: seconds after which a new run follows one that ``FAILED``.
    :param keeps_runs: whether runs other than the latest can be read by their TaskId.
    :param start_limit_minutes: the N of ``MailApi.Beyond.ScheduleLimit``; 0 if the message names none.
    :param paused_start: starting a paused task: ``runs``, ``never_runs`` or a ``Code``.
    :param status_calls_per_second: the rate of ``GetMailTaskStatus`` that is allowed.
    """

    timezone: str | None = None
    runs_per_response: int | None = None
    order: str | None = None
    task_id_type: str | None = None
    status_keys: tuple[str, ...] | None = None
    status_padding: str | None = None
    never_ran: EmptyResponse | None = None
    unknown_task_id: EmptyResponse | None = None
    start_delay: float | None = None
    run_duration: float | None = None
    outcome: str | None = None
    status_changes: tuple[dict[str, Any], ...] | None = None
    resent_after: float | None = None
    keeps_runs: bool | None = None
    start_limit_minutes: int | None = None
    paused_start: str | None = None
    status_calls_per_second: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON with what is known."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
            if value is not None
        }

    @classmethod
    def from_dict(cls, item: Mapping[str, Any]) -> Behaviour:
        """Read back what :meth:`as_dict` wrote.

        :raises ValueError: if it has a key that is not known.
        """
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(item) - known):
            raise ValueError(f"{unknown[0]!r} is not part of a behaviour; it takes {', '.join(sorted(known))}")
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in item.items()
        }
        return cls(**values)
