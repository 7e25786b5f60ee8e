"""What happens between a question and its answer: credentials, pacing, signing, and which failures are tried again.

The steps are given out one by one and carried out by a client, blocking or not, so that the rules stand here once.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_quickbi.api.errors import ErrorKind, QuickBIError, ThrottledError, TransientError
from airflow_provider_quickbi.api.models import MalformedAnswer
from airflow_provider_quickbi.api.protocol import SignedRequest, encode_parameters, malformed, read_answer, sign

if TYPE_CHECKING:
    from collections.abc import Generator

    from airflow_provider_quickbi.api.credentials import Credentials
    from airflow_provider_quickbi.api.operations import Operation
    from airflow_provider_quickbi.api.pacing import Allowance
    from airflow_provider_quickbi.api.settings import Endpoint

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Retries:
    """How often and how patiently a read is tried again after throttling or a transient error.

    :param attempts: calls in all, at least 1.
    :param first_delay: seconds before the second attempt; each further delay doubles, with jitter.
    :param max_delay: seconds between two attempts at the most, unless the service asks for more.
    """

    attempts: int = 5
    first_delay: float = 0.5
    max_delay: float = 8.0

    def delay(self, attempt: int, asked_for: float | None) -> float:
        """Return the seconds to wait after an attempt, numbered from 1."""
        backoff = min(self.max_delay, self.first_delay * 2.0 ** (attempt - 1))
        jittered = backoff * random.uniform(0.5, 1.0)  # noqa: S311 - spreads calls, protects nothing
        return max(jittered, asked_for or 0.0)


ONE_ATTEMPT = Retries(attempts=1)

#: Characters of a secret that already tell something.
_TELLING = 8


@dataclass(frozen=True, slots=True)
class GetCredentials:
    """Give the current credentials.

    :param refused: credentials that the service has refused as expired, to be renewed.
    """

    refused: Credentials | None = None


@dataclass(frozen=True, slots=True)
class TakeTurn:
    """Wait until the allowance has a call."""

    allowance: Allowance


@dataclass(frozen=True, slots=True)
class Send:
    """Send a request and give status, headers and body.

    :param reuse_connection: ``False`` where a kept connection that the server has closed meanwhile would leave it
        unknown whether the request arrived.
    """

    action: str
    request: SignedRequest
    reuse_connection: bool


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Report:
    """Tell who counts calls how one ended: ``answered`` or the kind of the error."""

    action: str
    result: str


Step = GetCredentials | TakeTurn | Send | Pause | Report


def steps_of(
    operation: Operation[T], endpoint: Endpoint, allowance: Allowance, retries: Retries
) -> Generator[Step, Any, T]:
    """Give out the steps of one call; each is answered with its result, or its ``QuickBIError`` is thrown in.

    Only repeatable operations are tried again, and only after throttling or a transient error.

    :param operation: what to call.
    :param endpoint: where.
    :param allowance: how fast.
    :param retries: how often.
    :returns: the operation's typed result.
    :raises QuickBIError: of the last attempt.
    """
    parameters = encode_parameters(operation.action, operation.parameters)
    renewed = False
    attempt = 0
    while True:
        attempt += 1
        credentials: Credentials | None = None
        try:
            credentials = yield GetCredentials()
            yield TakeTurn(allowance)
            request = sign(operation.action, parameters, endpoint=endpoint, credentials=credentials)
            status, headers, body = yield Send(operation.action, request, operation.repeatable)
            result = operation.read(read_answer(operation.action, status, headers, body))
        except MalformedAnswer as error:
            failure: QuickBIError = malformed(operation.action, error)
        except QuickBIError as error:
            failure = error
        else:
            allowance.answered()
            yield Report(operation.action, "answered")
            return result
        # What it came from holds the request, with its signature and whole answers, for as long as somebody keeps it.
        failure.__traceback__ = failure.__context__ = None
        _hide_secrets(failure, credentials)
        yield Report(operation.action, failure.kind.value)
        if isinstance(failure, ThrottledError):
            allowance.throttled(failure.retry_after)
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
                del failure  # its traceback holds this frame, and this frame would hold it
        yield Pause(retries.delay(attempt, failure.retry_after))


def _expired(failure: QuickBIError) -> bool:
    """Whether the service refused temporary credentials, which carries out nothing and may be over once renewed."""
    return failure.kind is ErrorKind.CREDENTIALS and failure.code.startswith(("InvalidSecurityToken", "InvalidBearer"))


def _hide_secrets(failure: QuickBIError, credentials: Credentials | None) -> None:
    """Take out what the service quotes of the request; its message goes into logs."""
    if credentials is None:
        return
    for secret in (credentials.access_key_secret, credentials.security_token, credentials.bearer_token):
        if secret:
            failure.message, failure.code, failure.request_id = (
                _without(text, secret) for text in (failure.message, failure.code, failure.request_id)
            )
    failure.args = (failure.message,)


def _without(text: str, secret: str) -> str:
    """Return a text without a secret and without telling parts of it: what is quoted may have been cut off."""
    text = text.replace(secret, "***")
    begin = 0
    while (end := begin + _TELLING) <= len(text):
        if text[begin:end] not in secret:
            begin += 1
            continue
        while end < len(text) and text[begin : end + 1] in secret:
            end += 1
        text = f"{text[:begin]}***{text[end:]}"
        begin += 3
    return text
