"""Requests of the OpenAPI without I/O: an operation's parameters become one signed request.

Sources: "V3 request structure and signature" of Alibaba Cloud's SDK documentation; the OpenAPI of product
``quickbi-public``, version ``2022-01-01``.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow_provider_quickbi import __version__
from airflow_provider_quickbi.api import vendor
from airflow_provider_quickbi.api.clock import CLOCK
from airflow_provider_quickbi.api.errors import ErrorKind, PermanentError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_quickbi.api.credentials import Credentials
    from airflow_provider_quickbi.api.settings import Endpoint

VERSION = "2022-01-01"
ALGORITHM = "ACS3-HMAC-SHA256"
USER_AGENT = f"airflow-provider-quickbi/{__version__}"

#: Longest query string that is sent, in bytes; common gateways refuse longer ones.
MAX_QUERY_BYTES = 8 * 1024

_EMPTY_BODY_HASH = hashlib.sha256(b"").hexdigest()
_ACTION = re.compile(r"[A-Za-z][A-Za-z0-9]{0,99}")
_PARAMETER = re.compile(r"[A-Za-z][A-Za-z0-9_.]{0,99}")


@dataclass(frozen=True, slots=True)
class SignedRequest:
    """A request that can be sent once.

    :param url: the full URL; its query must be sent byte for byte.
    :param headers: all headers including the signature; not shown by ``repr``.
    :param method: always ``POST``, with an empty body.
    """

    url: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    method: str = "POST"


def encode_parameters(action: str, parameters: Mapping[str, Any]) -> dict[str, str]:
    """Convert parameters to text as the service expects it: booleans as ``true``/``false``; ``None`` is omitted.

    :param parameters: names and values; a value is a string, an integer or a boolean.
    :raises PermanentError: if a name or value cannot be sent.
    """
    if not _ACTION.fullmatch(action):
        raise PermanentError(f"{action[:100]!r} is not a valid operation name", kind=ErrorKind.BAD_REQUEST)
    encoded: dict[str, str] = {}
    for name, value in parameters.items():
        if not isinstance(name, str) or not _PARAMETER.fullmatch(name):
            raise _refused(action, f"{str(name)[:100]!r} is not a valid parameter name")
        if value is None:
            continue
        if isinstance(value, bool):
            encoded[name] = "true" if value else "false"
        elif isinstance(value, (str, int)):
            encoded[name] = str(value)
        else:
            raise _refused(
                action, f"parameter {name} must be a string, an integer or a boolean, not {type(value).__name__}"
            )
        if len(encoded[name]) > MAX_QUERY_BYTES:
            raise _refused(action, f"parameter {name} is too long: {len(encoded[name]):,} characters")
        try:
            encoded[name].encode()
        except UnicodeEncodeError:
            raise _refused(action, f"parameter {name} is not valid Unicode") from None
    return encoded


def _refused(action: str, why: str) -> PermanentError:
    return PermanentError(why, action=action, kind=ErrorKind.BAD_REQUEST, hint="No request was sent")


def sign(
    action: str,
    parameters: Mapping[str, str],
    *,
    endpoint: Endpoint,
    credentials: Credentials,
    now: datetime | None = None,
    nonce: str | None = None,
) -> SignedRequest:
    """Build a signed request; each attempt needs a new one, because nonce and date are part of the signature.

    :param parameters: from :func:`encode_parameters`.
    :param now: the time of the request; default the current time.
    :param nonce: a value that was never used before; default random.
    :raises PermanentError: if the query is too long, or the credentials contain characters that a header cannot carry.
    """
    if not _can_be_sent(credentials):
        raise PermanentError(
            "the credentials contain characters that cannot be sent",
            action=action,
            kind=ErrorKind.CREDENTIALS,
            hint="No request was sent. Check the AccessKey and the token: they are printable ASCII",
        )
    query = dict(parameters)
    headers = {
        "host": endpoint.host_header,
        "accept": "application/json",
        "x-acs-action": action,
        "x-acs-version": VERSION,
        "x-acs-content-sha256": _EMPTY_BODY_HASH,
        "x-acs-date": (now.astimezone(UTC) if now else CLOCK.now()).isoformat(timespec="seconds")[:19] + "Z",
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
    headers["accept-encoding"] = "identity"  # bounds the size of the response while it is read
    query_string = "&".join(f"{name}={quote(query[name], safe='~')}" for name in sorted(query))
    if len(query_string) > MAX_QUERY_BYTES:
        raise _refused(action, f"the query is too long: {len(query_string):,} bytes, at most {MAX_QUERY_BYTES:,}")
    return SignedRequest(f"{endpoint.url}?{query_string}" if query_string else endpoint.url, headers)


def _can_be_sent(credentials: Credentials) -> bool:
    """Whether a header can carry the credentials; a function of its own keeps them out of tracebacks with locals."""
    secrets = f"{credentials.access_key_secret}{credentials.security_token}{credentials.bearer_token}"
    everything = f"{credentials.access_key_id}{secrets}"
    return everything.isascii() and everything.isprintable()
