"""The operations of the OpenAPI: parameters, how the response is read, and whether the call may be repeated.

Source: product ``quickbi-public``, version ``2022-01-01``: GetMailTaskList, GetMailTaskStatus, ManualRunMailTask.
Those on datasets are in ``dataset_operations``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from airflow_provider_quickbi.api.errors import TransientError
from airflow_provider_quickbi.api.models import MailTask, MailTaskRun, MalformedResponse, fold_keys
from airflow_provider_quickbi.api.paging import DEFAULT_PAGE_SIZE, MailTaskPage, Page

if TYPE_CHECKING:
    from datetime import tzinfo

    from airflow_provider_quickbi.api.models import Run

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Operation(Generic[T_co]):
    """One operation with its parameters.

    :param action: its name.
    :param parameters: as :func:`airflow_provider_quickbi.api.signing.encode_parameters` takes them.
    :param read: turns ``Result`` into the typed result; raises ``MalformedResponse`` if it is not as documented.
    :param repeatable: whether calling twice has no more effect than calling once; default ``True``.
    """

    action: str
    parameters: Mapping[str, Any]
    read: Callable[[Any], T_co]
    repeatable: bool = True


class RunQuery(Protocol):
    """What a request for runs queries, for any kind of subject; equal queries have equal responses."""

    def operation(self, timezone: tzinfo) -> Operation[tuple[Run, ...]]:
        """Return the operation that answers it.

        :param timezone: the zone in which the service writes times.
        """

    def __hash__(self) -> int: ...


def get_mail_task_list(
    page_num: int = 1,
    page_size: int = DEFAULT_PAGE_SIZE,
    user_nick: str | None = None,
    paused: bool | None = None,
) -> Operation[MailTaskPage]:
    """Return the operation that reads one page of the mail tasks visible to the AccessKey.

    :param page_num: from 1; default 1.
    :param page_size: mail tasks per page; default 25; the service documents no maximum.
    :param user_nick: only mail tasks of the owner with this nickname.
    :param paused: only paused mail tasks (``True``) or only active ones (``False``); default all.
    """

    def read(result: Any) -> MailTaskPage:
        page = read_page(result, MailTask.from_json, "the list of mail tasks", page_num, page_size)
        return MailTaskPage(page.items, page.page_num, page.page_size, page.total_num)

    return Operation(
        "GetMailTaskList",
        {"PageNum": page_num, "PageSize": page_size, "UserNick": user_nick or None, "Paused": paused},
        read,
    )


def get_mail_task_status(
    mail_id: str, task_id: str | int | None, timezone: tzinfo
) -> Operation[tuple[MailTaskRun, ...]]:
    """Return the operation that reads the status of one run, or of the latest one.

    :param task_id: the run; ``None`` for the latest one.
    :param timezone: the zone in which the service writes ``execTime``.
    """

    def read(result: Any) -> tuple[MailTaskRun, ...]:
        items = [result] if isinstance(result, Mapping) else result
        if items is None:
            return ()
        if not isinstance(items, list):
            raise MalformedResponse("the status of a mail task should be a list of runs")
        runs = [MailTaskRun.from_json(item, mail_id=mail_id, timezone=timezone) for item in items]
        if len(runs) > 1:
            runs.sort(key=lambda run: run.age_order)
        return tuple(runs)

    return Operation(
        "GetMailTaskStatus", {"MailId": mail_id, "TaskId": None if task_id is None else str(task_id)}, read
    )


@dataclass(frozen=True, slots=True)
class StatusQuery:
    """What a ``GetMailTaskStatus`` request queries.

    :param mail_id: the mail task.
    :param task_id: the run; ``None`` for the latest one.
    """

    mail_id: str
    task_id: str | None

    def operation(self, timezone: tzinfo) -> Operation[tuple[MailTaskRun, ...]]:
        """Return the operation, see :func:`get_mail_task_status`."""
        return get_mail_task_status(self.mail_id, self.task_id, timezone)


def manual_run_mail_task(mail_id: str) -> Operation[bool]:
    """Return the operation that starts a run now. It is never repeated: the service has no idempotency key."""
    action = "ManualRunMailTask"
    return Operation(action, {"MailId": mail_id}, lambda result: read_started(result, action), repeatable=False)


def any_operation(action: str, parameters: Mapping[str, Any], *, repeatable: bool) -> Operation[Any]:
    """Return any other operation of ``quickbi-public``; its ``Result`` is returned unchanged.

    :param action: its name, such as ``QueryUserInfoByAccount``.
    :param parameters: names and values as the service documents them.
    :param repeatable: whether it may be called again after a call whose effect is unknown.
    """
    return Operation(action, dict(parameters), lambda result: result, repeatable)


def read_started(result: Any, action: str) -> bool:
    """Read the ``Result`` of an operation that starts something.

    :returns: ``True``.
    :raises TransientError: if the result is not true: it is unknown whether anything was started.
    """
    if result is True or (isinstance(result, str) and result.strip().lower() == "true"):
        return True
    raise TransientError(
        f"the service returned Success: true with Result {str(result)[:40]!r}, so the run may not have started",
        action=action,
    )


def read_page(
    result: Any, read_item: Callable[[Any], T], what: str, requested_page: int, requested_size: int
) -> Page[T]:
    """Read a ``Result`` that is a page of a list.

    :param read_item: reads an element of ``Data``.
    :param what: what the list is, for the error.
    :param requested_page: the requested page, in case the service does not say which one it is.
    :param requested_size: the requested items per page, likewise.
    :raises MalformedResponse: if it is not a page.
    """
    page = fold_keys(result, what)
    data = page.get("data")
    if data is None and page.get("totalnum") == 0:
        data = []
    if not isinstance(data, list):
        raise MalformedResponse(f"{what} should have Data as a list")
    return Page(
        items=tuple(read_item(item) for item in data),
        page_num=_count(page.get("pagenum")) or requested_page,
        page_size=_count(page.get("pagesize")) or requested_size,
        total_num=_count(page.get("totalnum")),
    )


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
