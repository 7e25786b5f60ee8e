"""The Quick BI OpenAPI without I/O: parameters become a signed request; status, headers and body become a result.

Sources: "V3 request structure and signature" of Alibaba Cloud's SDK documentation; the OpenAPI of product
``quickbi-public``, version ``2022-01-01``.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from airflow_provider_quickbi import __version__
from airflow_provider_quickbi.api import vendor
from airflow_provider_quickbi.api.errors import (
    ErrorKind,
    PermanentError,
    QuickBIError,
    ThrottledError,
    TransientError,
    error_for,
)
from airflow_provider_quickbi.api.models import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_quickbi.api.credentials import Credentials
    from airflow_provider_quickbi.api.models import MalformedResponse
    from airflow_provider_quickbi.api.settings import Endpoint

VERSION = "2022-01-01"
ALGORITHM = "ACS3-HMAC-SHA256"
USER_AGENT = f"airflow-provider-quickbi/{__version__}"

#: Bytes of an answer that are read at the most; a page of mail tasks is some kilobytes.
MAX_ANSWER_BYTES = 8 * 1024 * 1024
#: Bytes of a query string that are sent at the most; longer ones are refused by common gateways.
MAX_QUERY_BYTES = 8 * 1024
#: Seconds of ``x-acs-retry-after`` that are believed at the most.
MAX_RETRY_AFTER = 3600.0

_EMPTY_BODY_HASH = hashlib.sha256(b"").hexdigest()
_ACTION = re.compile(r"[A-Za-z][A-Za-z0-9]{0,99}")
_PARAMETER = re.compile(r"[A-Za-z][A-Za-z0-9_.]{0,99}")


@dataclass(frozen=True, slots=True)
class SignedRequest:
    """A request that is ready to be sent, once.

    :param url: the whole address; its query is sent exactly as it stands.
    :param headers: all headers, the signature among them; not shown by ``repr``.
    :param method: always ``POST``, with an empty body.
    """

    url: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    method: str = "POST"


def encode_parameters(action: str, parameters: Mapping[str, Any]) -> dict[str, str]:
    """Write parameters as the service reads them: booleans as ``true``/``false``; ``None`` is left out.

    :param action: the operation, for the error.
    :param parameters: names and values; a value is text, a whole number or a boolean.
    :raises PermanentError: if something cannot be sent; nothing has been sent then.
    """

    def refuse(why: str) -> PermanentError:
        return PermanentError(why, action=action, kind=ErrorKind.BAD_REQUEST, hint="Nothing was sent")

    if not _ACTION.fullmatch(action):
        raise PermanentError(f"{action[:100]!r} is not the name of an operation", kind=ErrorKind.BAD_REQUEST)
    written: dict[str, str] = {}
    for name, value in parameters.items():
        if not isinstance(name, str) or not _PARAMETER.fullmatch(name):
            raise refuse(f"{str(name)[:100]!r} is not the name of a parameter")
        if value is None:
            continue
        if isinstance(value, bool):
            written[name] = "true" if value else "false"
        elif isinstance(value, (str, int)):
            written[name] = str(value)
        else:
            raise refuse(f"parameter {name} must be text, a whole number or a boolean, not {type(value).__name__}")
        if len(written[name]) > MAX_QUERY_BYTES:
            raise refuse(f"parameter {name} has {len(written[name]):,} characters, more than can be sent")
        try:
            written[name].encode()
        except UnicodeEncodeError:
            raise refuse(f"parameter {name} is not valid Unicode text") from None
    return written


def sign(
    action: str,
    parameters: Mapping[str, str],
    *,
    endpoint: Endpoint,
    credentials: Credentials,
    now: datetime | None = None,
    nonce: str | None = None,
) -> SignedRequest:
    """Build one request; every attempt needs one of its own, since nonce and date are part of the signature.

    :param action: the operation.
    :param parameters: from :func:`encode_parameters`.
    :param endpoint: where it goes.
    :param credentials: who asks.
    :param now: when it is sent; the default is the current time.
    :param nonce: a value never used before; the default is random.
    :raises PermanentError: if the query is too long, or the credentials have characters that no header can hold.
    """
    if not _can_be_sent(credentials):
        raise PermanentError(
            "the credentials have characters that cannot be sent",
            action=action,
            kind=ErrorKind.CREDENTIALS,
            hint="Nothing was sent. Check the AccessKey and the token: they are plain ASCII",
        )
    query = dict(parameters)
    headers = {
        "host": endpoint.host_header,
        "accept": "application/json",
        "x-acs-action": action,
        "x-acs-version": VERSION,
        "x-acs-content-sha256": _EMPTY_BODY_HASH,
        "x-acs-date": (now.astimezone(UTC) if now else datetime.now(UTC)).isoformat(timespec="seconds")[:19] + "Z",
        "x-acs-signature-nonce": nonce or os.urandom(16).hex(),
    }
    if credentials.bearer_token:
        headers["x-acs-bearer-token"] = credentials.bearer_token
        query["SignatureType"] = "BEARERTOKEN"
    else:
        if credentials.security_token:
            headers["x-acs-accesskey-id"] = credentials.access_key_id
            headers["x-acs-security-token"] = credentials.security_token
        headers["authorization"] = vendor.signing().Utils.get_authorization(
            SimpleNamespace(method="POST", pathname="/", query=query, headers=headers),
            ALGORITHM,
            _EMPTY_BODY_HASH,
            credentials.access_key_id,
            credentials.access_key_secret,
        )
    headers["user-agent"] = USER_AGENT
    headers["accept-encoding"] = "identity"  # so that the size of an answer is known while it is read
    encoded = "&".join(f"{name}={quote(query[name], safe='~')}" for name in sorted(query))
    if len(encoded) > MAX_QUERY_BYTES:
        raise PermanentError(
            f"the parameters make a query of {len(encoded):,} bytes, more than {MAX_QUERY_BYTES:,}",
            action=action,
            kind=ErrorKind.BAD_REQUEST,
            hint="Nothing was sent",
        )
    return SignedRequest(f"{endpoint.url}?{encoded}" if encoded else endpoint.url, headers)


def _can_be_sent(credentials: Credentials) -> bool:
    """Whether a header can hold the credentials; apart, so that no traceback with local variables shows them."""
    secrets = f"{credentials.access_key_secret}{credentials.security_token}{credentials.bearer_token}"
    everything = f"{credentials.access_key_id}{secrets}"
    return everything.isascii() and everything.isprintable()


def read_response(action: str, status: int, headers: Mapping[str, str], body: bytes) -> Any:
    """Return the ``Result`` of an answer.

    :param action: the operation that was called.
    :param status: HTTP status.
    :param headers: of the answer; names in any case.
    :param body: of the answer.
    :raises ThrottledError: if there were too many calls.
    :raises TransientError: if the answer says that the service is in trouble, or cannot be understood.
    :raises NotStartedError: if nothing was started and it may be tried later.
    :raises AlreadyRunningError: if a run is under way.
    :raises PermanentError: for every other error, unknown codes included.
    """
    if 300 <= status < 400:
        raise PermanentError(
            f"the endpoint redirects to {_redirect_target(headers)}, which is not followed",
            action=action,
            kind=ErrorKind.BAD_REQUEST,
            http_status=status,
            hint="Check the endpoint's host, port and schema, and the proxy",
        )
    try:
        response = json.loads(body)
    except (ValueError, RecursionError):
        response = None
    if not isinstance(response, dict):
        raise TransientError(
            f"the answer is not the documented JSON but {_describe(body)}",
            action=action,
            kind=ErrorKind.TRANSIENT,
            http_status=status,
        )
    folded = {str(name).lower(): value for name, value in response.items()}
    code, request_id = _text(folded.get("code")), _text(folded.get("requestid"))
    succeeded = folded.get("success")
    if status < 400 and succeeded is True:
        return folded.get("result")
    message = _text(folded.get("message"))
    if code and (status >= 400 or succeeded is not None or "result" not in folded):
        return _raise_for_code(action, status, headers, code, message, request_id)
    # Without a Code it is not the service's refusal, whatever the status: something on the way may have made it up.
    raise TransientError(
        message or ("the answer says neither Success: true nor a Code" if status < 500 else "the service failed"),
        action=action,
        kind=ErrorKind.TRANSIENT,
        request_id=request_id,
        http_status=status,
    )


def _raise_for_code(
    action: str, status: int, headers: Mapping[str, str], code: str, message: str, request_id: str
) -> Any:
    error = error_for(
        code,
        message or "the service gave no message",
        action=action,
        request_id=request_id,
        http_status=status,
    )
    if isinstance(error, ThrottledError):
        error.retry_after = _retry_after(headers)
    if error.kind is ErrorKind.UNKNOWN and (status >= 500 or status == 429):
        error = TransientError(
            error.message,
            action=action,
            kind=ErrorKind.TRANSIENT,
            code=code,
            request_id=request_id,
            http_status=status,
        )
    raise error


def _redirect_target(headers: Mapping[str, str]) -> str:
    """Return scheme and host of ``Location``; the rest may hold secrets."""
    location = next((value for name, value in headers.items() if name.lower() == "location"), "")
    try:
        target = urlsplit(location)
    except ValueError:
        return "what is no address"
    return _text(f"{target.scheme}://{target.hostname}") if target.hostname else "an address without a host"


def malformed(action: str, error: MalformedResponse) -> QuickBIError:
    """Say that an answer was understood as JSON but not as what the documentation promises."""
    return TransientError(f"the answer is not as documented: {error}", action=action, kind=ErrorKind.TRANSIENT)


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Read ``x-acs-retry-after`` (milliseconds) as seconds; what is no positive number counts as absent."""
    value = next((value for name, value in headers.items() if name.lower() == "x-acs-retry-after"), "")
    if not value.strip().isascii() or not value.strip().isdigit() or len(value) > 12:
        return None
    seconds = int(value) / 1000
    return min(seconds, MAX_RETRY_AFTER) if seconds > 0 else None


def _text(value: Any) -> str:
    """Return one line of at most 1,000 characters; what the service sends ends up in logs."""
    if not isinstance(value, (str, int)) or isinstance(value, bool):
        return ""
    return printable(" ".join(str(value)[:1000].split()))


def _describe(body: bytes) -> str:
    if not body:
        return "empty"
    start = " ".join(body[:60].decode("utf-8", "replace").split())
    return f"{len(body):,} bytes that begin with {start!r}"
