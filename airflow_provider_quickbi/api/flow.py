"""One call from request to result without I/O: credentials, rate limit, signature, and which failures are retried.

The steps are yielded one by one and carried out by a client, blocking or asyncio, so each rule is written once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_quickbi.api.errors import ErrorKind, QuickBIError, ThrottledError, TransientError
from airflow_provider_quickbi.api.models import MalformedResponse
from airflow_provider_quickbi.api.responses import read_response
from airflow_provider_quickbi.api.signing import SignedRequest, encode_parameters, sign

if TYPE_CHECKING:
    from collections.abc import Generator

    from airflow_provider_quickbi.api.credentials import Credentials
    from airflow_provider_quickbi.api.operations import Operation
    from airflow_provider_quickbi.api.rate_limit import RateLimiter
    from airflow_provider_quickbi.api.retry import RetryPolicy
    from airflow_provider_quickbi.api.settings import Endpoint

T = TypeVar("T")

#: Shortest part of a secret that is masked, in characters.
_MASKED_FROM = 8


@dataclass(frozen=True, slots=True)
class GetCredentials:
    """Return the current credentials.

    :param refused: credentials that the service refused as expired and that must be renewed.
    """

    refused: Credentials | None = None


@dataclass(frozen=True, slots=True)
class AcquireSlot:
    """Wait until the rate limiter allows a call."""

    rate_limiter: RateLimiter


@dataclass(frozen=True, slots=True)
class Send:
    """Send a request and return status, headers and body.

    :param reuse_connection: ``False`` for calls that must not be repeated: a pooled connection that the server has
        closed in the meantime would leave it unknown whether the request arrived.
    """

    action: str
    request: SignedRequest
    reuse_connection: bool


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait before the next attempt."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Report:
    """Report the result of a call for metrics: ``ok`` or the kind of the error."""

    action: str
    result: str


Step = GetCredentials | AcquireSlot | Send | Pause | Report


def call_flow(
    operation: Operation[T], endpoint: Endpoint, rate_limiter: RateLimiter, retries: RetryPolicy
) -> Generator[Step, Any, T]:
    """Yield the steps of one call; the client sends in each step's result, or throws in its ``QuickBIError``.

    Only repeatable operations are retried, and only after throttling or a transient error.

    :returns: the operation's typed result.
    :raises QuickBIError: of the last attempt.
    """
    parameters = encode_parameters(operation.action, operation.parameters)
    renewed = False
    attempt = 0
    while True:
        attempt += 1
        credentials: Credentials | None = None
        request: SignedRequest | None = None
        try:
            credentials = yield GetCredentials()
            yield AcquireSlot(rate_limiter)
            request = sign(operation.action, parameters, endpoint=endpoint, credentials=credentials)
            # The response gets no name here: this frame stays in the traceback, and a response may quote secrets.
            result = operation.read(
                read_response(operation.action, *(yield Send(operation.action, request, operation.repeatable)))
            )
        except MalformedResponse as error:
            failure: QuickBIError = TransientError(f"unexpected response: {error}", action=operation.action)
        except QuickBIError as error:
            failure = error
        else:
            rate_limiter.succeeded()
            yield Report(operation.action, "ok")
            return result
        # The traceback and context would keep the signed request and the whole response alive with the error.
        failure.__traceback__ = failure.__context__ = None
        _hide_secrets(failure, credentials, request)
        yield Report(operation.action, failure.kind.value)
        if isinstance(failure, ThrottledError):
            rate_limiter.throttled(failure.retry_after)
        if _expired(failure) and not renewed:
            renewed = True
            if (yield GetCredentials(refused=credentials)) != credentials:
                continue
        if (
            not operation.repeatable
            or attempt >= retries.attempts
            or not isinstance(failure, (ThrottledError, TransientError))
        ):
            try:
                raise failure
            finally:
                del failure  # its traceback refers to this frame: break the cycle
        yield Pause(retries.delay(attempt, failure.retry_after))


def _expired(failure: QuickBIError) -> bool:
    """Whether the service refused temporary credentials as expired, which renewing them may fix."""
    return failure.kind is ErrorKind.CREDENTIALS and failure.code.startswith(("InvalidSecurityToken", "InvalidBearer"))


def _hide_secrets(failure: QuickBIError, credentials: Credentials | None, request: SignedRequest | None) -> None:
    """Mask the secrets that the service may quote from the request; its message goes into logs."""
    if credentials is None:
        return
    signature = request.headers.get("authorization", "").rpartition("=")[2] if request is not None else ""
    for secret in (credentials.access_key_secret, credentials.security_token, credentials.bearer_token, signature):
        if secret:
            failure.message, failure.code, failure.request_id = (
                _without(text, secret) for text in (failure.message, failure.code, failure.request_id)
            )
    failure.args = (failure.message,)


def _without(text: str, secret: str) -> str:
    """Mask a secret and every long part of it in a text; what is quoted may be truncated."""
    text = text.replace(secret, "***")
    begin = 0
    while (end := begin + _MASKED_FROM) <= len(text):
        if text[begin:end] not in secret:
            begin += 1
            continue
        while end < len(text) and text[begin : end + 1] in secret:
            end += 1
        text = f"{text[:begin]}***{text[end:]}"
        begin += 3
    return text
