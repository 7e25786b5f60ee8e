"""Mail tasks and their runs as frozen typed values read from the service's JSON."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from datetime import timezone as fixed_offset
from enum import StrEnum
from typing import Any, NamedTuple
from unicodedata import category

#: How the service writes a TaskId: an int64, never more than 20 digits.
_TASK_ID = re.compile(r"[0-9]{1,20}")
#: How it writes ``execTime``.
_EXEC_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}")


class MalformedResponse(ValueError):
    """Part of a response lacks a documented field, or the field is not as documented."""


class MailTaskStatus(StrEnum):
    """The documented statuses of a run; any other one means that the run has not finished."""

    SENT = "SENT"
    FAILED = "FAILED"
    PROCESSING = "PROCESSING"


#: The statuses of a mail task's run that has finished; the one definition.
TERMINAL_STATUSES = frozenset({MailTaskStatus.SENT, MailTaskStatus.FAILED})


def fold_keys(item: Any, what: str) -> dict[str, Any]:
    """Return a JSON object with its keys in lower case, because the service mixes PascalCase and lowerCamel.

    :param item: the decoded JSON.
    :param what: what the object is, for the error.
    :raises MalformedResponse: if it is not a JSON object.
    """
    if not isinstance(item, Mapping):
        raise MalformedResponse(f"{what} should be a JSON object, not {_shown(item)}")
    return {str(key).lower(): value for key, value in item.items()}


def read_text(item: Mapping[str, Any], name: str, what: str) -> str:
    """Return a required field, a string or an integer, as stripped text.

    :param item: an object with folded keys, see :func:`fold_keys`.
    :param name: the field's documented name.
    :param what: what the object is, for the error.
    :raises MalformedResponse: if the field is missing, empty, or of another type; a float would have lost digits.
    """
    value = item.get(name.lower())
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, str) and value.strip():
        return printable(value.strip())
    raise MalformedResponse(f"{what} should have {name} as a string or an integer, not {_shown(value)}")


def _read_flag(item: Mapping[str, Any], name: str, what: str) -> bool:
    value = item.get(name.lower())
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in ("true", "false"):
        return value.strip().lower() == "true"
    raise MalformedResponse(f"{what} should have {name} as true or false, not {_shown(value)}")


def _read_optional_text(item: Mapping[str, Any], name: str) -> str:
    value = item.get(name.lower())
    return printable(str(value).strip()) if isinstance(value, (str, int)) and not isinstance(value, bool) else ""


def printable(text: str) -> str:
    """Replace control characters and unpaired surrogates, which logs and databases reject, by U+FFFD.

    :param text: from the service.
    """
    if text.isprintable():
        return text
    return "".join("\ufffd" if category(character) in ("Cc", "Cs", "Zl", "Zp") else character for character in text)


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except RecursionError:
        return "deeply nested JSON"
    return text if len(text) <= 80 else f"{text[:77]}..."


@dataclass(frozen=True, slots=True)
class MailTask:
    """A subscription ("mail task") as ``GetMailTaskList`` describes it.

    :param mail_id: the subscription's id (``MailId``).
    :param subscribe_name: its name; names need not be unique; empty if the service did not say.
    :param paused: whether its schedule is paused.
    :param biz_owner_user_id: the owner's Quick BI user id; empty if the service did not say.
    :param biz_owner_name: the owner's nickname; empty if the service did not say.
    """

    mail_id: str
    subscribe_name: str
    paused: bool
    biz_owner_user_id: str = ""
    biz_owner_name: str = ""

    @classmethod
    def from_json(cls, item: Any) -> MailTask:
        """Read one element of ``Result.Data``.

        :raises MalformedResponse: if ``MailId`` or ``Paused`` is missing or of another type.
        """
        what = "a mail task"
        folded = fold_keys(item, what)
        return cls(
            mail_id=read_text(folded, "MailId", what),
            subscribe_name=_read_optional_text(folded, "SubscribeName"),
            paused=_read_flag(folded, "Paused", what),
            biz_owner_user_id=_read_optional_text(folded, "BizOwnerUserId"),
            biz_owner_name=_read_optional_text(folded, "BizOwnerName"),
        )

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON for an XCom."""
        return {
            "mail_id": self.mail_id,
            "subscribe_name": self.subscribe_name,
            "paused": self.paused,
            "biz_owner_user_id": self.biz_owner_user_id,
            "biz_owner_name": self.biz_owner_name,
        }


@dataclass(frozen=True, slots=True)
class MailTaskRun:
    """One execution of a mail task as ``GetMailTaskStatus`` describes it.

    :param mail_id: the subscription that ran.
    :param task_id: the run's id (``TaskId``), an int64 above 2^53 kept as text so that no digit is lost.
    :param status: upper-case status; see :class:`MailTaskStatus` for the documented ones.
    :param exec_time: when the run started, in whole seconds, with its offset.
    """

    mail_id: str
    task_id: str
    status: str
    exec_time: datetime

    @classmethod
    def from_json(cls, item: Any, *, mail_id: str, timezone: tzinfo, now: datetime | None = None) -> MailTaskRun:
        """Read one element of the status list.

        :param item: the decoded JSON object.
        :param mail_id: the requested mail task, used where the response omits it or writes it in another case.
        :param timezone: the zone in which the service writes ``execTime``.
        :param now: the current time, which resolves an hour that occurs twice when the zone's clocks are set back;
            default the machine's clock.
        :raises MalformedResponse: if ``taskId``, ``status`` or ``execTime`` is missing or cannot be read.
        """
        what = "a run of a mail task"
        folded = fold_keys(item, what)
        task_id = read_text(folded, "taskId", what)
        if not _TASK_ID.fullmatch(task_id):
            raise MalformedResponse(f"{what} should have taskId as an integer, not {_shown(task_id)}")
        written = read_text(folded, "execTime", what)
        try:
            if not _EXEC_TIME.fullmatch(written):
                raise ValueError(written)
            exec_time = _in_zone(datetime.fromisoformat(written), timezone, now or datetime.now(UTC))
        except (ValueError, OverflowError):
            raise MalformedResponse(
                f"{what} should have execTime as yyyy-MM-dd HH:mm:ss, not {_shown(written)}"
            ) from None
        returned_id = read_text(folded, "mailId", what) if folded.get("mailid") is not None else mail_id
        return cls(
            mail_id=mail_id if returned_id.casefold() == mail_id.casefold() else returned_id,
            task_id=task_id,
            status=read_text(folded, "status", what).upper(),
            exec_time=exec_time,
        )

    @property
    def is_terminal(self) -> bool:
        """Whether the run has finished; a status that is not documented means that it has not."""
        return self.status in TERMINAL_STATUSES

    @property
    def succeeded(self) -> bool:
        """Whether the report was sent."""
        return self.status == MailTaskStatus.SENT

    @property
    def failed(self) -> bool:
        """Whether the run finished without sending the report."""
        return self.status == MailTaskStatus.FAILED

    @property
    def age_order(self) -> tuple[datetime, int]:
        """Sort key: oldest run first, runs of the same second by TaskId."""
        return self.exec_time, int(self.task_id)

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON for an XCom, an event or an asset extra; ``exec_time`` is ISO 8601 with its offset."""
        return {
            "mail_id": self.mail_id,
            "task_id": self.task_id,
            "status": self.status,
            "exec_time": self.exec_time.isoformat(),
        }

    @classmethod
    def from_dict(cls, item: Mapping[str, Any]) -> MailTaskRun:
        """Read back what :meth:`as_dict` wrote."""
        return cls(
            mail_id=item["mail_id"],
            task_id=item["task_id"],
            status=item["status"],
            exec_time=datetime.fromisoformat(item["exec_time"]),
        )


def _in_zone(written: datetime, zone: tzinfo, now: datetime) -> datetime:
    """Return a local time with its UTC offset, which unlike a zone is unambiguous when clocks are set back.

    A local time that occurs twice is taken for the second occurrence, unless that is in the future.

    :raises OverflowError: on the first and the last day of the calendar, which not every zone has.
    """
    first, second = (written.replace(tzinfo=zone, fold=fold) for fold in (0, 1))
    repeated = first.astimezone(UTC) < second.astimezone(UTC)
    chosen = second if repeated and second.astimezone(UTC) <= now else first
    return written.replace(tzinfo=fixed_offset(chosen.utcoffset() or timedelta(0)))


class StatusQuery(NamedTuple):
    """What a ``GetMailTaskStatus`` request asks for.

    :param mail_id: the mail task.
    :param task_id: the run; ``None`` for the latest one.
    """

    mail_id: str
    task_id: str | None
