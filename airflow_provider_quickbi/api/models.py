"""Mail tasks and their runs as frozen typed values read from the service's JSON."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from datetime import timezone as fixed_offset
from enum import StrEnum
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Self
from unicodedata import category

#: How the service writes a TaskId: an int64, never more than 20 digits.
_INTEGER_ID = re.compile(r"[0-9]{1,20}")
#: How it writes a time.
_LOCAL_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}")


class MalformedResponse(ValueError):
    """Part of a response lacks a documented field, or the field is not as documented."""


#: How the kind of a mail task is stored, and written in asset URIs.
MAIL_TASK = "mail-task"


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


def read_flag(item: Mapping[str, Any], name: str, what: str) -> bool:
    """Return a required boolean field.

    :param item: an object with folded keys, see :func:`fold_keys`.
    :param name: the field's documented name.
    :param what: what the object is, for the error.
    :raises MalformedResponse: if the field is missing or of another type.
    """
    value = item.get(name.lower())
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in ("true", "false"):
        return value.strip().lower() == "true"
    raise MalformedResponse(f"{what} should have {name} as true or false, not {_shown(value)}")


def read_optional_text(item: Mapping[str, Any], name: str) -> str:
    """Return a field as stripped text; empty if it is missing or of another type.

    :param item: an object with folded keys, see :func:`fold_keys`.
    :param name: the field's documented name.
    """
    value = item.get(name.lower())
    return printable(str(value).strip()) if isinstance(value, (str, int)) and not isinstance(value, bool) else ""


def read_time(
    item: Mapping[str, Any], name: str, what: str, *, timezone: tzinfo, now: datetime | None = None
) -> datetime:
    """Return a required local time, written as ``yyyy-MM-dd HH:mm:ss``, with its UTC offset.

    :param item: an object with folded keys, see :func:`fold_keys`.
    :param name: the field's documented name.
    :param what: what the object is, for the error.
    :param timezone: the zone in which the service writes times.
    :param now: the current time, which resolves an hour that occurs twice when the zone's clocks are set back; default
        the machine's clock.
    :raises MalformedResponse: if the field is missing or cannot be read.
    """
    written = read_text(item, name, what)
    try:
        first, second = _possible_times(written, timezone)
        return second if second is not first and second <= (now or datetime.now(UTC)) else first
    except (ValueError, OverflowError):
        raise MalformedResponse(f"{what} should have {name} as yyyy-MM-dd HH:mm:ss, not {_shown(written)}") from None


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
            subscribe_name=read_optional_text(folded, "SubscribeName"),
            paused=read_flag(folded, "Paused", what),
            biz_owner_user_id=read_optional_text(folded, "BizOwnerUserId"),
            biz_owner_name=read_optional_text(folded, "BizOwnerName"),
        )

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON for an XCom."""
        return asdict(self)


class Run:
    """One execution at Quick BI, of a mail task or of a dataset's refresh: what waiting for it needs."""

    __slots__ = ()

    #: The documented statuses.
    DOCUMENTED: ClassVar[frozenset[str]]
    #: The statuses of a run that has finished; any other one, documented or not, means that it has not.
    TERMINAL: ClassVar[frozenset[str]]
    #: The one of them that means success.
    SUCCESS: ClassVar[str]

    if TYPE_CHECKING:  # a field of a dataclass must not find a property of its name here

        @property
        def subject_id(self) -> str:
            """The id of what was executed: a mail task or a dataset."""

        @property
        def run_id(self) -> str:
            """The id of this execution."""

        @property
        def status(self) -> str:
            """The status in upper case."""

        @property
        def started_at(self) -> datetime:
            """When it started, in whole seconds, with its offset."""

        def as_dict(self) -> dict[str, Any]:
            """Return plain JSON for an XCom, an event or an asset extra."""

        @classmethod
        def from_dict(cls, item: Mapping[str, Any]) -> Self:
            """Read back what :meth:`as_dict` wrote."""

    @property
    def is_terminal(self) -> bool:
        """Whether it has finished."""
        return self.status in self.TERMINAL

    @property
    def succeeded(self) -> bool:
        """Whether it has finished with success."""
        return self.status == self.SUCCESS

    @property
    def failed(self) -> bool:
        """Whether it has finished without success."""
        return self.is_terminal and not self.succeeded

    @property
    def age_order(self) -> tuple[datetime, int]:
        """Sort key: oldest run first, runs of the same second by id."""
        return self.started_at, int(self.run_id) if _INTEGER_ID.fullmatch(self.run_id) else 0


@dataclass(frozen=True, slots=True)
class MailTaskRun(Run):
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

    DOCUMENTED: ClassVar = frozenset(MailTaskStatus)
    TERMINAL: ClassVar = TERMINAL_STATUSES
    SUCCESS: ClassVar = MailTaskStatus.SENT

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
        if not _INTEGER_ID.fullmatch(task_id):
            raise MalformedResponse(f"{what} should have taskId as an integer, not {_shown(task_id)}")
        exec_time = read_time(folded, "execTime", what, timezone=timezone, now=now)
        returned_id = read_text(folded, "mailId", what) if folded.get("mailid") is not None else mail_id
        return cls(
            mail_id=mail_id if returned_id.casefold() == mail_id.casefold() else returned_id,
            task_id=task_id,
            status=read_text(folded, "status", what).upper(),
            exec_time=exec_time,
        )

    @property
    def subject_id(self) -> str:
        """The mail task's id."""
        return self.mail_id

    @property
    def run_id(self) -> str:
        """The TaskId."""
        return self.task_id

    @property
    def started_at(self) -> datetime:
        """:attr:`exec_time`."""
        return self.exec_time

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


@lru_cache(maxsize=4096)  # a run that is polled again and again has always the same
def _possible_times(written: str, zone: tzinfo) -> tuple[datetime, datetime]:
    """Return a local time with its UTC offset, which unlike a zone is unambiguous when clocks are set back.

    A local time that occurs twice gives both occurrences, any other one the same object twice.

    :raises ValueError: if it is written in another way.
    :raises OverflowError: on the first and the last day of the calendar, which not every zone has.
    """
    if not _LOCAL_TIME.fullmatch(written):
        raise ValueError(written)
    local = datetime.fromisoformat(written)
    first, second = (local.replace(tzinfo=zone, fold=fold) for fold in (0, 1))
    repeated = first.astimezone(UTC) < second.astimezone(UTC)
    found = local.replace(tzinfo=fixed_offset(first.utcoffset() or timedelta(0)))
    return found, local.replace(tzinfo=fixed_offset(second.utcoffset() or timedelta(0))) if repeated else found
