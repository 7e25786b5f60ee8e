"""The errors of a call: one class per reaction of a caller, and the one table that maps each ``Code`` to a kind."""

from __future__ import annotations

import re
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


class ErrorKind(StrEnum):
    """What an error means for the caller."""

    THROTTLED = "throttled"
    TRANSIENT = "transient"
    NOT_STARTED = "not_started"
    CONFLICT = "conflict"
    NOT_FOUND = "not_found"
    DENIED = "denied"
    CREDENTIALS = "credentials"
    BAD_REQUEST = "bad_request"
    UNKNOWN = "unknown"


class QuickBIError(Exception):
    """A call to Quick BI failed.

    :param message: the service's ``Message``, or what happened instead of a response.
    :param action: the operation that was called, such as ``GetMailTaskStatus``.
    :param kind: what the error means for the caller; default the kind of its class.
    :param code: the service's ``Code``; empty if there was no readable response.
    :param request_id: the service's ``RequestId``, which Alibaba Cloud's support asks for; may be empty.
    :param http_status: HTTP status; ``None`` if there was no response.
    :param retry_after: seconds to wait before the next call, if the service said so.
    :param hint: what to do about it.
    """

    usual_kind = ErrorKind.UNKNOWN

    def __init__(
        self,
        message: str,
        *,
        action: str = "",
        kind: ErrorKind | None = None,
        code: str = "",
        request_id: str = "",
        http_status: int | None = None,
        retry_after: float | None = None,
        hint: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.action = action
        self.kind = self.usual_kind if kind is None else kind
        self.code = code
        self.request_id = request_id
        self.http_status = http_status
        self.retry_after = retry_after
        self.hint = hint

    def __str__(self) -> str:
        facts = [
            f"{label} {value}"
            for label, value in (
                ("Code", self.code),
                ("RequestId", self.request_id),
                ("HTTP", self.http_status if not self.code else ""),
            )
            if value
        ]
        text = f"{self.action}: {self.message}" if self.action else self.message
        if facts:
            text += f" ({', '.join(facts)})"
        return f"{text}. {self.hint}" if self.hint else text

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.as_dict())

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON that :func:`error_from_dict` reads back; it contains no secrets."""
        return {
            "message": self.message,
            "action": self.action,
            "kind": self.kind.value,
            "code": self.code,
            "request_id": self.request_id,
            "http_status": self.http_status,
            "retry_after": self.retry_after,
            "hint": self.hint,
        }


class ThrottledError(QuickBIError):
    """Rate limited: call again later, more slowly."""

    usual_kind = ErrorKind.THROTTLED


class TransientError(QuickBIError):
    """No response, or none that is usable, for now; a read may be repeated.

    After a start it is ambiguous: the run may have been started.

    :param may_have_arrived: ``False`` if the request certainly never reached the service; default ``True``.
    """

    usual_kind = ErrorKind.TRANSIENT

    def __init__(self, message: str, *, may_have_arrived: bool = True, **kwargs: Any) -> None:
        super().__init__(message, **kwargs)
        self.may_have_arrived = may_have_arrived

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON that :func:`error_from_dict` reads back; it contains no secrets."""
        return {**super().as_dict(), "may_have_arrived": self.may_have_arrived}


class NotStartedError(QuickBIError):
    """Nothing was started; another attempt may succeed after :attr:`retry_after` seconds."""

    usual_kind = ErrorKind.NOT_STARTED


class AlreadyRunningError(QuickBIError):
    """A run is in progress, so none was started."""

    usual_kind = ErrorKind.CONFLICT


class PermanentError(QuickBIError):
    """Repeating the call will not help until somebody changes something."""


_CLASSES: dict[ErrorKind, type[QuickBIError]] = {
    ErrorKind.THROTTLED: ThrottledError,
    ErrorKind.TRANSIENT: TransientError,
    ErrorKind.NOT_STARTED: NotStartedError,
    ErrorKind.CONFLICT: AlreadyRunningError,
}

_GRANT = (
    "Check that the AccessKey's owner has logged on to Quick BI once and is an organisation administrator, or was "
    "granted the operation in Open Platform > access control; a new grant may take 5 minutes to become effective"
)
_RAM = (
    "Check the RAM policy: it needs quickbi-public:GetMailTaskStatus, quickbi-public:ManualRunMailTask and, to refresh "
    "datasets, quickbi-public:AllotDatasetAccelerationTask on resource *; a new grant may take 5 minutes to become "
    "effective"
)
_SECRET = "Check the AccessKey Secret (the connection's password) and that no proxy rewrites the request"  # noqa: S105 - a hint
_CLOCK = "Check this machine's clock (NTP): it must be within 15 minutes of the service's"
_TOKEN = "Check security_token: it is wrong, belongs to another AccessKey, or has expired"  # noqa: S105 - a hint
_LAST_REFRESH = (
    "The last refresh ended with a warning or failure. Read literally, the documentation says that this blocks every "
    "start through the API: repair the dataset's extraction and run it once in the Quick BI console"
)
_ENDPOINT = "Check region, network and endpoint: this is not an endpoint of the Quick BI OpenAPI"

#: The one table: pattern of ``Code``, what it means, what to do. The first matching pattern counts.
#: Source: error codes of the Quick BI OpenAPI (Alibaba Cloud, product quickbi-public, version 2022-01-01).
CODES: tuple[tuple[str, ErrorKind, str], ...] = (
    ("Throttling", ErrorKind.THROTTLED, ""),
    ("Throttling.*", ErrorKind.THROTTLED, ""),
    ("ServiceUnavailable", ErrorKind.TRANSIENT, ""),
    ("ServiceUnavailable.*", ErrorKind.TRANSIENT, ""),
    ("InternalError", ErrorKind.TRANSIENT, ""),
    ("InternalError.*", ErrorKind.TRANSIENT, ""),
    ("Internal.System.Error", ErrorKind.TRANSIENT, ""),
    ("SignatureNonceUsed", ErrorKind.TRANSIENT, ""),
    ("MailApi.Beyond.ScheduleLimit", ErrorKind.NOT_STARTED, ""),
    ("Timer.Schedule.Task", ErrorKind.NOT_STARTED, ""),
    ("MailTask.Already.Running", ErrorKind.CONFLICT, ""),
    (
        "Mail.Not.Found",
        ErrorKind.NOT_FOUND,
        "Check mail_id: there is no such mail task, or it is not visible to this AccessKey",
    ),
    ("Repeat.Running.Job", ErrorKind.CONFLICT, ""),
    (
        "Cube.Not.Exist",
        ErrorKind.NOT_FOUND,
        "Check dataset_id: there is no such dataset, or it is not visible to this AccessKey",
    ),
    (
        "Quick.Job.NotExist",
        ErrorKind.NOT_FOUND,
        "Check dataset_id: the dataset has no extraction into the Quick engine; enable it in the Quick BI console",
    ),
    ("Last.Job.Failed", ErrorKind.BAD_REQUEST, _LAST_REFRESH),
    ("Access.Forbidden", ErrorKind.DENIED, f"The OpenAPI needs the Professional edition or above. {_GRANT}"),
    ("Mail.Forbidden.Access", ErrorKind.DENIED, _GRANT),
    ("UserRoleConfig.NotContain.Function", ErrorKind.DENIED, _GRANT),
    ("User.OperationPermission.Error", ErrorKind.DENIED, _GRANT),
    ("User.Not.In.Organization", ErrorKind.DENIED, _GRANT),
    ("Invalid.Organization", ErrorKind.DENIED, _GRANT),
    ("OrgAdminOrPermissionAdmin.CannotChangeTo.Viewer", ErrorKind.DENIED, _GRANT),
    ("Forbidden", ErrorKind.DENIED, _RAM),
    ("Forbidden.*", ErrorKind.DENIED, _RAM),
    ("NoPermission", ErrorKind.DENIED, _RAM),
    (
        "InvalidAccessKeyId.Inactive",
        ErrorKind.CREDENTIALS,
        "The AccessKey is disabled: enable it in the RAM console or use another one",
    ),
    (
        "InvalidAccessKeyId*",
        ErrorKind.CREDENTIALS,
        "Check the AccessKey ID (the connection's login): it does not exist",
    ),
    ("SignatureDoesNotMatch", ErrorKind.CREDENTIALS, _SECRET),
    ("IncompleteSignature", ErrorKind.CREDENTIALS, _SECRET),
    ("InvalidTimeStamp.*", ErrorKind.CREDENTIALS, _CLOCK),
    ("InvalidSecurityToken*", ErrorKind.CREDENTIALS, _TOKEN),
    ("MissingSecurityToken", ErrorKind.CREDENTIALS, _TOKEN),
    ("InvalidBearerToken*", ErrorKind.CREDENTIALS, "Check bearer_token: it is wrong or has expired"),
    ("InvalidApi.NotFound", ErrorKind.BAD_REQUEST, _ENDPOINT),
    ("InvalidAction.NotFound", ErrorKind.BAD_REQUEST, _ENDPOINT),
    ("InvalidProduct.NotFound", ErrorKind.BAD_REQUEST, _ENDPOINT),
    ("InvalidVersion", ErrorKind.BAD_REQUEST, _ENDPOINT),
    ("Invalid.Parameter*", ErrorKind.BAD_REQUEST, "Check the operation's parameters"),
    ("Invalid.Param.Error", ErrorKind.BAD_REQUEST, "Check the operation's parameters"),
    ("MailId.Is.Null", ErrorKind.BAD_REQUEST, "Set mail_id"),
    ("Missing*", ErrorKind.BAD_REQUEST, "Check the operation's parameters"),
    ("Mail.Subject.Error", ErrorKind.BAD_REQUEST, "Check the subject of the mail task in Quick BI"),
    ("Instance.Expired", ErrorKind.BAD_REQUEST, "The Quick BI instance has expired: renew it"),
    ("Instance.Not.Exist", ErrorKind.BAD_REQUEST, "The Quick BI instance does not exist: check the account"),
)

_MINUTES = (
    re.compile(r"try\s+again\s+in\s+(\d{1,6})\s*minute", re.IGNORECASE),
    re.compile(r"请\s*(\d{1,6})\s*分钟后重试"),
)


def classify(code: str) -> tuple[ErrorKind, str]:
    """Return what a ``Code`` means and what to do about it.

    :param code: the service's ``Code``.
    :returns: kind and hint; for an unknown code :attr:`ErrorKind.UNKNOWN`, which is permanent.
    """
    for pattern, kind, hint in CODES:
        if fnmatchcase(code, pattern):
            return kind, hint
    return ErrorKind.UNKNOWN, ""


def minutes_to_wait(message: str) -> int | None:
    """Return the N of "Please Try Again In N Minutes" / "请N分钟后重试", or ``None`` if there is none."""
    for pattern in _MINUTES:
        if found := pattern.search(message):
            return int(found.group(1))
    return None


def error_for(
    code: str,
    message: str,
    *,
    action: str,
    request_id: str = "",
    http_status: int | None = None,
    retry_after: float | None = None,
) -> QuickBIError:
    """Build the exception for an error response.

    :param code: ``Code``.
    :param message: ``Message``.
    :param action: the operation that was called.
    :param request_id: ``RequestId``.
    :param http_status: HTTP status of the response.
    :param retry_after: seconds of ``x-acs-retry-after``, if present.
    """
    kind, hint = classify(code)
    if kind is ErrorKind.UNKNOWN and http_status is not None and (http_status >= 500 or http_status == 429):
        kind = ErrorKind.TRANSIENT
    if kind is ErrorKind.NOT_STARTED and retry_after is None:
        minutes = minutes_to_wait(message)
        retry_after = None if minutes is None else minutes * 60.0
    return _CLASSES.get(kind, PermanentError)(
        message.partition("server string to sign")[0].strip().rstrip(".") or code,  # the rest is of no use to a person
        action=action,
        kind=kind,
        code=code,
        request_id=request_id,
        http_status=http_status,
        retry_after=retry_after,
        hint=hint,
    )


def error_from_dict(item: Mapping[str, Any]) -> QuickBIError:
    """Read back what :meth:`QuickBIError.as_dict` wrote; fields of a later release are ignored."""
    kind = ErrorKind(item.get("kind", ErrorKind.UNKNOWN))
    cls = _CLASSES.get(kind, PermanentError)
    known = cls("").as_dict().keys() - {"message"}
    return cls(item.get("message", ""), **{key: item[key] for key in known if key in item} | {"kind": kind})


def _rebuild(cls: type[QuickBIError], fields: dict[str, Any]) -> QuickBIError:
    message = fields.pop("message")
    return cls(message, **{**fields, "kind": ErrorKind(fields["kind"])})
