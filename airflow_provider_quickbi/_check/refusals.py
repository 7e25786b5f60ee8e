"""Which line of a report an error of the service belongs to. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_quickbi._check.report import failed, warning
from airflow_provider_quickbi.api.errors import ErrorKind, QuickBIError, ThrottledError, TransientError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_quickbi._check.exchange import Exchange
    from airflow_provider_quickbi._check.report import Finding

#: RAM actions of the operations that have one.
_RAM_ACTIONS = {
    "GetMailTaskStatus": "quickbi-public:GetMailTaskStatus",
    "ManualRunMailTask": "quickbi-public:ManualRunMailTask",
    "AllotDatasetAccelerationTask": "quickbi-public:AllotDatasetAccelerationTask",
}
_OPEN_PLATFORM = (
    "Have the AccessKey's owner log on to Quick BI once, and make them an organisation administrator or grant them the "
    "operation in Open Platform > access control; a new grant takes up to 5 minutes"
)
_OTHER_REGION = "Also check region: an AccessKey is valid only for organisations in its own region"


def finding_for(error: QuickBIError, action: str, exchanges: Sequence[Exchange]) -> Finding:
    """Return the line that an error belongs to.

    :param exchanges: up to and with that call.
    """
    last = exchanges[-1] if exchanges else None
    detail = str(error)
    seen = f"{action}: Code {error.code}" if error.code else f"{action}: {_plain(error, last)}"
    if isinstance(error, ThrottledError):
        return warning(
            "rate", seen, "Another program uses up the rate limit: stop it, or lower status_calls_per_second"
        )
    if error.action == "credentials":
        return failed("credentials", "they could not be fetched", error.hint or "Check auth_type and its fields")
    match error.kind:
        case ErrorKind.CREDENTIALS if error.code.startswith("InvalidTimeStamp"):
            return failed("clock", seen, error.hint, detail=detail)
        case ErrorKind.CREDENTIALS:
            return failed("credentials", seen, f"{error.hint}. {_OTHER_REGION}", detail=detail)
        case ErrorKind.DENIED:
            return failed(action, f"denied, Code {error.code}", _grant(error, action), detail=detail)
        case ErrorKind.NOT_FOUND:
            return failed(action, f"the mail task is not visible, Code {error.code}", error.hint, detail=detail)
        case ErrorKind.TRANSIENT:
            return _transient(seen, last, detail)
    return _refused(error, action, seen, detail)


def _refused(error: QuickBIError, action: str, seen: str, detail: str) -> Finding:
    if error.code.startswith("Instance."):
        return failed("service", seen, error.hint, detail=detail)
    if error.http_status is not None and 300 <= error.http_status < 400:
        return failed("region", "the endpoint redirects elsewhere: it is not Quick BI", error.hint, detail=detail)
    if error.kind is ErrorKind.BAD_REQUEST and "endpoint" in error.hint:
        return failed("region", f"{seen}: the endpoint is not the Quick BI OpenAPI", error.hint, detail=detail)
    support = "Give the Code and the RequestId (--verbose) to Alibaba Cloud's support"
    return failed(action, seen, error.hint or support, detail=detail)


def _grant(error: QuickBIError, action: str) -> str:
    if error.code.startswith("Forbidden") or error.code == "NoPermission":
        needed = _RAM_ACTIONS.get(action)
        what = f"Allow {needed} on resource *" if needed else "Allow the operation"
        return f"{what} in the RAM policy of the AccessKey's owner; a new grant takes up to 5 minutes"
    if error.code == "Access.Forbidden":
        return f"The OpenAPI needs the Professional edition or above. {_OPEN_PLATFORM}"
    return _OPEN_PLATFORM


def _transient(seen: str, last: Exchange | None, detail: str) -> Finding:
    if last is None or last.status is None:
        return failed(
            "service", seen, "Check the network between here and the endpoint, and read_timeout", detail=detail
        )
    if last.status < 400 and last.envelope:
        return failed(
            "response fields",
            f"{last.action}: the response is not as documented",
            "Record this account with --record and report it, so the provider can support it",
            detail=detail,
        )
    if last.json() is None and last.status < 400:
        return failed("region", "the response is not JSON: the endpoint is not Quick BI",
                      "Check host, port and schema, and whether a proxy responds instead", detail=detail)  # fmt: skip
    return failed("service", seen, "Quick BI or a proxy in between is failing: try again later", detail=detail)


def _plain(error: QuickBIError, last: Exchange | None) -> str:
    if last is not None and last.status is not None:
        return f"HTTP {last.status} without a Code"
    return "no response" if isinstance(error, TransientError) else "refused"
