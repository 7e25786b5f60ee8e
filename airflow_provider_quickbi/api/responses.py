"""Responses of the OpenAPI without I/O: status, headers and body become a result or the matching error."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from airflow_provider_quickbi.api.errors import (
    ErrorKind,
    PermanentError,
    ThrottledError,
    TransientError,
    error_for,
)
from airflow_provider_quickbi.api.models import printable

#: Largest response body that is read, in bytes; a page of mail tasks takes a few kilobytes.
MAX_RESPONSE_BYTES = 8 * 1024 * 1024
#: Longest ``x-acs-retry-after`` that is honoured, in seconds.
MAX_RETRY_AFTER = 3600.0

#: HTTP status, headers (names in any case) and body.
RawResponse = tuple[int, Mapping[str, str], bytes]


def read_response(action: str, status: int, headers: Mapping[str, str], body: bytes) -> Any:
    """Return the ``Result`` of a response.

    :param headers: of the response; names in any case.
    :raises ThrottledError: if the call was rate limited.
    :raises TransientError: if the service failed, or the response cannot be parsed.
    :raises NotStartedError: if nothing was started and a later attempt may succeed.
    :raises AlreadyRunningError: if a run is in progress.
    :raises PermanentError: for every other error, including unknown codes.
    """
    if 300 <= status < 400:
        raise PermanentError(
            f"the endpoint redirects to {_redirect_target(headers)}; redirects are not followed",
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
        raise TransientError(f"the response is not a JSON object: {_describe(body)}", action=action, http_status=status)
    folded = {str(name).lower(): value for name, value in response.items()}
    succeeded = folded.get("success")
    if status < 400 and succeeded is True:
        return folded.get("result")
    code, request_id, message = (_text(folded.get(name)) for name in ("code", "requestid", "message"))
    if code and (status >= 400 or succeeded is not None or "result" not in folded):
        error = error_for(
            code,
            message or "the service gave no message",
            action=action,
            request_id=request_id,
            http_status=status,
        )
        if isinstance(error, ThrottledError):
            error.retry_after = _retry_after(headers)
        raise error
    # Without a Code the error may come from a proxy or gateway, whatever the HTTP status.
    raise TransientError(
        message or ("the response has neither Success: true nor a Code" if status < 500 else "the service failed"),
        action=action,
        request_id=request_id,
        http_status=status,
    )


def header(headers: Mapping[str, str], name: str) -> str:
    """Return a header whose name may be in any case, empty if it is missing."""
    return next((value for written, value in headers.items() if written.lower() == name), "")


def _redirect_target(headers: Mapping[str, str]) -> str:
    """Return scheme and host of ``Location``; the rest may contain secrets."""
    try:
        target = urlsplit(header(headers, "location"))
    except ValueError:
        return "an invalid URL"
    return _text(f"{target.scheme}://{target.hostname}") if target.hostname else "a URL without a host"


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Read ``x-acs-retry-after`` (milliseconds) as seconds; anything but a positive integer counts as absent."""
    value = header(headers, "x-acs-retry-after")
    if not value.strip().isascii() or not value.strip().isdigit() or len(value) > 12:
        return None
    seconds = int(value) / 1000
    return min(seconds, MAX_RETRY_AFTER) if seconds > 0 else None


def _text(value: Any) -> str:
    """Return a single line of at most 1,000 characters, because it ends up in logs."""
    if not isinstance(value, (str, int)) or isinstance(value, bool):
        return ""
    return printable(" ".join(str(value)[:1000].split()))


def _describe(body: bytes) -> str:
    if not body:
        return "empty"
    start = " ".join(body[:60].decode("utf-8", "replace").split())
    return f"{len(body):,} bytes starting with {start!r}"
