"""Finding a mail task or a dataset by name among those visible to the AccessKey."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from airflow_provider_quickbi.api.errors import ErrorKind, PermanentError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_provider_quickbi.api.datasets import Dataset
    from airflow_provider_quickbi.api.models import MailTask

_GLOB = frozenset("*?[")
_SHOWN = 20


def matches(mail_task: MailTask, subscribe_name: str) -> bool:
    """Whether a mail task has this name, or matches it as a glob with ``*``, ``?`` or ``[...]``."""
    if mail_task.subscribe_name == subscribe_name:
        return True
    return bool(_GLOB & set(subscribe_name)) and fnmatchcase(mail_task.subscribe_name, subscribe_name)


def find_by_name(mail_tasks: Iterable[MailTask], subscribe_name: str, owner: str | None = None) -> MailTask:
    """Return the one mail task with exactly this name.

    :param mail_tasks: all that are visible to the AccessKey.
    :param subscribe_name: its name; names need not be unique.
    :param owner: nickname or user id of its owner, needed where several mail tasks share the name.
    :raises PermanentError: if there is none, or more than one; the message lists the candidates.
    """
    named: list[MailTask] = []
    seen = 0
    for mail_task in mail_tasks:
        seen += 1
        if mail_task.subscribe_name == subscribe_name.strip():
            named.append(mail_task)
    of_owner = f" of {owner!r}" if owner else ""
    candidates = [task for task in named if not owner or owner in (task.biz_owner_name, task.biz_owner_user_id)]
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        raise _failure(
            f"{len(candidates)} mail tasks{of_owner} are named {subscribe_name!r}: {_listed(candidates)}",
            "Set mail_id, or mail_owner as well",
        )
    if named:
        raise _failure(
            f"no mail task{of_owner} is named {subscribe_name!r}; found {_listed(named)}", "Check mail_owner"
        )
    raise _failure(
        f"none of the {seen} mail tasks visible to this AccessKey is named {subscribe_name!r}",
        "Check the name; the mail task may also exist and not be visible to this AccessKey",
    )


def find_dataset(datasets: Iterable[Dataset], dataset_name: str, workspace_id: str) -> Dataset:
    """Return the one dataset with exactly this name.

    :param datasets: of the workspace whose names contain it.
    :param dataset_name: its name; names need not be unique.
    :param workspace_id: the workspace, for the error.
    :raises PermanentError: if there is none, or more than one; the message lists the candidates.
    """
    visible = list(datasets)
    named = [dataset for dataset in visible if dataset.dataset_name == dataset_name.strip()]
    if len(named) == 1:
        return named[0]
    if named:
        ids = ", ".join(dataset.dataset_id for dataset in named[:_SHOWN])
        raise _failure(
            f"{len(named)} datasets of workspace {workspace_id!r} are named {dataset_name!r}: {ids}",
            "Set dataset_id",
            "QueryDatasetList",
        )
    similar = ", ".join(repr(dataset.dataset_name) for dataset in visible[:_SHOWN])
    raise _failure(
        f"no dataset of workspace {workspace_id!r} is named {dataset_name!r}"
        + (f"; found {similar}" if similar else ""),
        "Check dataset_name and workspace_id; the dataset may also exist and not be visible to this AccessKey",
        "QueryDatasetList",
    )


def _listed(mail_tasks: list[MailTask]) -> str:
    shown = [
        f"MailId {task.mail_id} of {task.biz_owner_name or task.biz_owner_user_id or 'an unnamed owner'}"
        for task in mail_tasks[:_SHOWN]
    ]
    if len(mail_tasks) > _SHOWN:
        shown.append(f"{len(mail_tasks) - _SHOWN} more")
    return ", ".join(shown)


def _failure(message: str, hint: str, action: str = "GetMailTaskList") -> PermanentError:
    return PermanentError(message, action=action, kind=ErrorKind.NOT_FOUND, hint=hint)
