"""The refusals of Quick BI: the error codes that the simulator responds with, their HTTP status and their message.

It is written from the documentation of the service, not from the provider's client: a test can notice a difference.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Codes of the gateway, which have an HTTP status of their own.
GATEWAY: Final[Mapping[str, tuple[int, str]]] = {
    "IncompleteSignature": (400, "The request signature does not conform to Aliyun standards."),
    "InternalError": (500, "The request processing has failed due to some unknown error."),
    "InvalidAccessKeyId.Inactive": (400, "Specified access key is disabled."),
    "InvalidAccessKeyId.NotFound": (404, "Specified access key is not found."),
    "InvalidAction.NotFound": (404, "Specified api is not found, please check your url and method."),
    "InvalidApi.NotFound": (404, "Specified api is not found, please check your url and method."),
    "InvalidProduct.NotFound": (404, "Cannot find product according to your specified domain."),
    "InvalidSecurityToken.Expired": (400, "Specified SecurityToken is expired."),
    "InvalidSecurityToken.Malformed": (400, "Specified SecurityToken is malformed."),
    "InvalidSecurityToken.MismatchWithAccessKey": (400, "Specified SecurityToken mismatch with the AccessKey."),
    "InvalidTimeStamp.Expired": (400, "Specified time stamp or date value is expired."),
    "InvalidTimeStamp.Format": (400, "Specified time stamp or date value is not well formatted."),
    "InvalidVersion": (400, "Specified parameter Version is not valid."),
    "NoPermission": (403, "You are not authorized to do this action."),
    "Forbidden.RAM": (403, "User not authorized to operate on the specified resource, or it doesn't support RAM."),
    "ServiceUnavailable": (503, "The request has failed due to a temporary failure of the server."),
    "SignatureNonceUsed": (400, "Specified signature nonce was used already."),
    "Throttling": (400, "Request was denied due to request throttling."),
    "Throttling.Api": (400, "Request was denied due to api flow control."),
    "Throttling.User": (400, "Request was denied due to user flow control."),
    "UnsupportedHTTPMethod": (405, "This http method is not supported."),
}

#: Codes of Quick BI: HTTP 400 throughout. The message of a code that is not here is the code.
QUICKBI: Final[Mapping[str, str]] = {
    "Access.Forbidden": "The current user is not allowed to call this API: it needs the Professional Edition and an "
    "organization administrator, or a grant in Open Platform > access control.",
    "Cube.Not.Exist": "The dataset does not exist.",
    "Internal.System.Error": "An internal system error occurred.",
    "Last.Job.Failed": "Last job status is warn or failure, please check.",
    "Mail.Forbidden.Access": "You do not have permission to access the mail task.",
    "Mail.Not.Found": "The mail task does not exist.",
    "MailApi.Beyond.ScheduleLimit": "The Mail Task Requests Are Frequent. Please Try Again In %s Minutes.",
    "MailId.Is.Null": "The MailId cannot be empty.",
    "MailTask.Already.Running": "The mail task is already running.",
    "Repeat.Running.Job": "The acceleration job is running already.",
    "Timer.Schedule.Task": "The mail task is waiting for its schedule.",
}

SCHEDULE_LIMIT_MESSAGES: Final[Mapping[str, str]] = {
    "en": QUICKBI["MailApi.Beyond.ScheduleLimit"],
    "zh": "邮件任务请求频繁，请%s分钟后重试。",  # noqa: RUF001 - Chinese punctuation
}


class Refusal(Exception):
    """A call that the service refuses: becomes the documented error body.

    Raise it in a handler that is given to ``register`` to respond with any code.

    :param code: the ``Code`` of the response, such as ``"Mail.Not.Found"``.
    :param message: the ``Message``; by default the usual one of the code.
    :param http_status: the HTTP status; by default the usual one of the code, 400 for one that is not known.
    :param headers: further headers of the response, such as ``x-acs-retry-after``.
    """

    def __init__(
        self,
        code: str,
        message: str | None = None,
        *,
        http_status: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        usual = 403 if code.startswith("Forbidden.") else 400
        known_status, known_message = GATEWAY.get(code, (usual, QUICKBI.get(code, code)))
        self.code = code
        self.message = known_message if message is None else message
        self.http_status = known_status if http_status is None else http_status
        self.headers = dict(headers or {})
        super().__init__(f"{code}: {self.message}")
