"""What an HTTP library's exception means: whether the request may have arrived; the request is never quoted."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

from airflow_provider_quickbi.api.errors import ErrorKind, PermanentError, QuickBIError, TransientError
from airflow_provider_quickbi.api.responses import MAX_RESPONSE_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_quickbi.api.settings import ClientSettings

_CONNECT_TIMEOUTS = {"ConnectTimeout", "ConnectTimeoutError", "ConnectionTimeoutError"}
_READ_TIMEOUTS = {"ReadTimeout", "ReadTimeoutError", "SocketTimeoutError", "ServerTimeoutError", "TimeoutError"}
_NOT_CONNECTED = _CONNECT_TIMEOUTS | {
    "NewConnectionError",
    "NameResolutionError",
    "ConnectionRefusedError",
    "gaierror",
    "ClientConnectorError",
    "ClientConnectorDNSError",
    "ProxyError",
    "ClientProxyConnectionError",
    "ClientHttpProxyError",
}


def no_response(
    action: str, settings: ClientSettings, error: BaseException, handled: BaseException | None
) -> TransientError:
    """Return the error for a request without a response.

    :param handled: what the caller was handling when it called: part of the error's context, but none of its causes.
    """
    names = {type(cause).__name__ for cause in _causes(error, handled)}
    host = settings.endpoint.host_header
    connected = not names & _NOT_CONNECTED
    if names & _CONNECT_TIMEOUTS:
        message = f"no connection to {host} within {settings.connect_timeout:g} s"
    elif not connected:
        message = f"no connection to {host}: {_describe(error, handled)}"
    elif names & _READ_TIMEOUTS:
        message = f"no response from {host} within {settings.read_timeout:g} s"
    else:
        message = f"connection to {host} lost: {_describe(error, handled)}"
    return TransientError(message, may_have_arrived=connected, action=action)


def tls_failure(
    action: str, settings: ClientSettings, error: BaseException, handled: BaseException | None
) -> QuickBIError:
    """Return the error for a TLS failure; unless it concerns the certificate, the request may have arrived.

    :param handled: see :func:`no_response`.
    """
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in _causes(error, handled)):
        return PermanentError(
            "the endpoint's TLS certificate is not trusted",
            action=action,
            kind=ErrorKind.BAD_REQUEST,
            hint="Set verify to the file of the CA that issued it, or check the endpoint's host",
        )
    return TransientError(
        f"TLS connection to {settings.endpoint.host_header} failed: {_describe(error, handled)}",
        action=action,
        hint="If this persists, check port and schema",
    )


def response_too_large(action: str) -> TransientError:
    """Return the error for a response that exceeds :data:`.responses.MAX_RESPONSE_BYTES`."""
    return TransientError(f"the response is larger than {MAX_RESPONSE_BYTES:,} bytes", action=action)


def _causes(error: BaseException, handled: BaseException | None) -> Iterator[BaseException]:
    """Yield an exception, its causes, and what urllib3 and aiohttp wrap in it, but nothing from before the call."""
    pending: list[Any] = [error]
    seen: set[int] = {id(handled)}
    while pending:
        current = pending.pop()
        if not isinstance(current, BaseException) or id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        pending += [current.__cause__, current.__context__, getattr(current, "reason", None)]
        pending += [getattr(current, "os_error", None), *current.args]


def _describe(error: BaseException, handled: BaseException | None) -> str:
    """Name an error without its text, which may contain the URL with its whole query."""
    causes = list(_causes(error, handled))
    system = next((cause for cause in causes if isinstance(cause, OSError) and cause.strerror), None)
    return f"{type(error).__name__}, {system.strerror}" if isinstance(system, OSError) else type(error).__name__
