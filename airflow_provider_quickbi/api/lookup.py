"""Finding mail tasks by name among those that the AccessKey may see."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from airflow_provider_quickbi.api.errors import ErrorKind, PermanentError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_provider_quickbi.api.models import MailTask

_GLOB = frozenset("*?[")
_SHOWN = 20


def matches(mail_task: MailTask, subscribe_name: str) -> bool:
    """Whether a mail task has a name, or a name that a glob with ``*``, ``?`` or ``[...]`` describes."""
    if mail_task.subscribe_name == subscribe_name:
        return True
    return bool(_GLOB & set(subscribe_name)) and fnmatchcase(mail_task.subscribe_name, subscribe_name)


def find_by_name(mail_tasks: Iterable[MailTask], subscribe_name: str, owner: str | None = None) -> MailTask:
    """Return the one mail task with exactly this name.

    :param mail_tasks: all that the AccessKey may see.
    :param subscribe_name: its name; names need not be unique.
    :param owner: nickname or user id of its owner, where several have the name.
    :raises PermanentError: if there is none, or more than one; the message lists the candidates.
    """
    named: list[MailTask] = []
    seen = 0
    for mail_task in mail_tasks:
        seen += 1
        if mail_task.subscribe_name == subscribe_name.strip():
            named.append(mail_task)
    whose = f" of {owner!r}" if owner else ""
    fitting = [task for task in named if not owner or owner in (task.biz_owner_name, task.biz_owner_user_id)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise _failure(
            f"{len(fitting)} mail tasks{whose} are named {subscribe_name!r}: {_listed(fitting)}",
            "Give mail_id, or mail_owner as well",
        )
    if named:
        raise _failure(
            f"no mail task named {subscribe_name!r} is{whose}; there is {_listed(named)}", "Check mail_owner"
        )
    raise _failure(
        f"none of the {seen} mail tasks that this AccessKey may see is named {subscribe_name!r}",
        "Check the name; a mail task may also exist and not be visible to this AccessKey",
    )


def _listed(mail_tasks: list[MailTask]) -> str:
    shown = [
        f"MailId {task.mail_id} of {task.biz_owner_name or task.biz_owner_user_id or 'an unnamed owner'}"
        for task in mail_tasks[:_SHOWN]
    ]
    if len(mail_tasks) > _SHOWN:
        shown.append(f"{len(mail_tasks) - _SHOWN} more")
    return ", ".join(shown)


def _failure(message: str, hint: str) -> PermanentError:
    return PermanentError(message, action="GetMailTaskList", kind=ErrorKind.NOT_FOUND, hint=hint)
