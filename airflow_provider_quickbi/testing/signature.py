"""Verifies ACS3-HMAC-SHA256 signatures the way Alibaba Cloud's gateway does.

Specification: https://help.aliyun.com/zh/sdk/product-overview/v3-request-structure-and-signature
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl, quote, unquote

from airflow_provider_quickbi.testing.errors import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from airflow_provider_quickbi.testing.accounts import Account

ALGORITHM: Final = "ACS3-HMAC-SHA256"
DATE_TOLERANCE: Final = 15 * 60.0
"""How many seconds the date of a signature may be off; the gateway documents 15 minutes."""

_EMPTY_BODY_SHA256: Final = hashlib.sha256(b"").hexdigest()
_AUTHORIZATION: Final = re.compile(
    r"ACS3-HMAC-SHA256 +Credential=(?P<key>[^,\s]+) *, *"
    r"SignedHeaders=(?P<headers>[^,\s]+) *, *Signature=(?P<mac>[0-9a-fA-F]{64})"
)
_DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z")
_ALWAYS_PRESENT: Final = ("host", "x-acs-content-sha256", "x-acs-date", "x-acs-signature-nonce")


@dataclass(frozen=True, slots=True)
class SignedRequest:
    """The parts of an HTTP request that a signature covers."""

    method: str
    path: str
    raw_query: str
    headers: Mapping[str, str]
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Authorization:
    """The ``Authorization`` header, taken apart."""

    access_key_id: str
    signed_headers: tuple[str, ...]
    signature: str


def collect_headers(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Bring headers into the form in which they are signed."""
    collected: dict[str, str] = {}
    repeated: dict[str, list[str]] = {}
    for sent_name, value in pairs:
        name = sent_name.lower()
        if name in collected:
            repeated.setdefault(name, [collected[name]]).append(value.strip())
        else:
            collected[name] = value.strip()
    return collected | {name: ",".join(sorted(values)) for name, values in repeated.items()}


def parse_query(raw_query: str) -> list[tuple[str, str]]:
    """Decode a query into its parameters, in the order in which they were sent."""
    if "%" in raw_query or "+" in raw_query:
        return parse_qsl(raw_query, keep_blank_values=True)
    pairs = (pair.partition("=") for pair in raw_query.split("&") if pair)
    return [(name, value) for name, _, value in pairs]


@lru_cache(maxsize=4096)
def percent_encode(text: str) -> str:
    """Encode text as RFC 3986 and the specification ask for: everything but letters, digits and ``-_.~``."""
    return quote(text, safe="~")


def canonical_query(raw_query: str) -> str:
    """Decode a query, encode it again and sort it by name."""
    encoded = sorted([(percent_encode(name), percent_encode(value)) for name, value in parse_query(raw_query)])
    return "&".join([f"{name}={value}" for name, value in encoded])


def canonical_headers(headers: Mapping[str, str], names: Iterable[str]) -> str:
    """Write the signed headers in canonical form."""
    return "".join([f"{name}:{headers.get(name, '')}\n" for name in sorted(names)])


def canonical_request(request: SignedRequest, signed_headers: Iterable[str], body_sha256: str) -> str:
    """Rebuild the canonical request that a client has to sign."""
    names = sorted(name.lower() for name in signed_headers)
    path = "/" if request.path in ("", "/") else quote(unquote(request.path), safe="/~")
    return (
        f"{request.method}\n{path}\n{canonical_query(request.raw_query)}\n"
        f"{canonical_headers(request.headers, names)}\n{';'.join(names)}\n{body_sha256}"
    )


def string_to_sign(canonical: str) -> str:
    """Return the two lines that are signed: the algorithm and the hash of the canonical request."""
    return f"{ALGORITHM}\n{hashlib.sha256(canonical.encode()).hexdigest()}"


def sign(text: str, secret: str) -> str:
    """Sign text with a secret."""
    return hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()


def parse_authorization(value: str | None) -> Authorization:
    """Take an ``Authorization`` header apart."""
    if not value:
        raise _incomplete("The request has no Authorization header.")
    match = _AUTHORIZATION.fullmatch(value)
    if match is None:
        raise _incomplete(
            f"The Authorization header is not of the form '{ALGORITHM} Credential=...,SignedHeaders=...,Signature=...'."
        )
    names = tuple(name for name in match["headers"].lower().split(";") if name)
    return Authorization(match["key"], names, match["mac"].lower())


@dataclass(slots=True)
class NonceWindow:
    """Remembers the nonces of verified requests, so that a request cannot be sent twice."""

    seconds: float = DATE_TOLERANCE
    remembered: int = 100_000
    _seen: OrderedDict[str, float] = field(default_factory=OrderedDict, repr=False)

    def use(self, access_key_id: str, nonce: str, now: float) -> bool:
        """Note a nonce as used."""
        while self._seen:
            oldest = next(iter(self._seen))
            if self._seen[oldest] > now and len(self._seen) <= self.remembered:
                break
            del self._seen[oldest]
        key = f"{access_key_id} {nonce}"
        if key in self._seen:
            return False
        self._seen[key] = now + self.seconds
        return True

    def clear(self) -> None:
        """Forget every nonce."""
        self._seen.clear()


def verify(
    request: SignedRequest, *, find_key: Callable[[str], Account | None], now: float, nonces: NonceWindow
) -> str:
    """Verify the signature of a request.

    :param request: the request as it arrived.
    :param find_key: returns the AccessKey of an id, or None if there is no such key.
    :param now: the server's wall time in seconds since 1970.
    :param nonces: the nonces used so far; the request's nonce is added if the signature is right.
    :returns: the AccessKey id that signed the request.
    :raises Refusal: with the code of what is wrong, in the order in which the gateway looks: ``IncompleteSignature``,
        ``InvalidAccessKeyId.NotFound`` or ``.Inactive``, ``InvalidTimeStamp.Format`` or ``.Expired``,
        ``SignatureDoesNotMatch``, ``InvalidSecurityToken.*``, ``SignatureNonceUsed``.
    """
    authorization = parse_authorization(request.headers.get("authorization"))
    _require_signed_headers(request, authorization)
    key = find_key(authorization.access_key_id)
    if key is None:
        raise Refusal("InvalidAccessKeyId.NotFound")
    if not key.active:
        raise Refusal("InvalidAccessKeyId.Inactive")
    _check_date(request.headers.get("x-acs-date") or "", now)
    _check_signature(request, authorization, key.access_key_secret)
    _check_security_token(request, authorization.access_key_id, key, now)
    if not nonces.use(authorization.access_key_id, request.headers.get("x-acs-signature-nonce") or "", now):
        raise Refusal("SignatureNonceUsed")
    return authorization.access_key_id


def _incomplete(reason: str) -> Refusal:
    return Refusal("IncompleteSignature", f"The request signature does not conform to Aliyun standards. {reason}")


def _require_signed_headers(request: SignedRequest, authorization: Authorization) -> None:
    for name in _ALWAYS_PRESENT:
        if not request.headers.get(name):
            raise _incomplete(f"The request has no {name} header.")
    signed = authorization.signed_headers
    for name in request.headers:
        if name in signed:
            continue
        # HTTP libraries add a content-type to an empty body behind the back of whoever signs: that one is let pass.
        if name.startswith("x-acs-") or name == "host" or (name == "content-type" and request.body):
            raise _incomplete(f"The header {name} is sent but not named in SignedHeaders.")
    for name in signed:
        if name not in request.headers:
            raise _incomplete(f"The header {name} is named in SignedHeaders but not sent.")


def _check_date(value: str, now: float) -> None:
    if _DATE.fullmatch(value) is None:
        raise Refusal("InvalidTimeStamp.Format")
    try:
        signed_at = datetime.fromisoformat(value).timestamp()
    except ValueError:
        raise Refusal("InvalidTimeStamp.Format") from None
    if abs(now - signed_at) > DATE_TOLERANCE:
        raise Refusal("InvalidTimeStamp.Expired")


def _check_signature(request: SignedRequest, authorization: Authorization, secret: str) -> None:
    body_sha256 = hashlib.sha256(request.body).hexdigest() if request.body else _EMPTY_BODY_SHA256
    declared = (request.headers.get("x-acs-content-sha256") or "").lower()
    canonical = canonical_request(request, authorization.signed_headers, body_sha256)
    to_sign = string_to_sign(canonical)
    right = hmac.compare_digest(sign(to_sign, secret).encode(), authorization.signature.encode())
    same_body = hmac.compare_digest(declared.encode(), body_sha256.encode())
    if right and same_body:
        return
    token = request.headers.get("x-acs-security-token")
    shown = canonical.replace(token, "***") if token else canonical
    raise Refusal(
        "SignatureDoesNotMatch",
        "Specified signature is not matched with our calculation. "
        f"server string to sign is:{to_sign} server canonical request is:{shown}",
    )


def _check_security_token(request: SignedRequest, access_key_id: str, key: Account, now: float) -> None:
    token = request.headers.get("x-acs-security-token")
    declared_id = request.headers.get("x-acs-accesskey-id")
    if declared_id is not None and declared_id != access_key_id:
        raise Refusal("InvalidSecurityToken.MismatchWithAccessKey")
    if key.security_token is None:
        if token is not None:
            raise Refusal("InvalidSecurityToken.MismatchWithAccessKey")
        return
    if not token:
        raise Refusal(
            "InvalidSecurityToken.Malformed", "The AccessKey is a temporary one: x-acs-security-token is missing."
        )
    if not hmac.compare_digest(token.encode(), key.security_token.encode()):
        raise Refusal("InvalidSecurityToken.MismatchWithAccessKey")
    if key.security_token_expires_at is not None and now >= key.security_token_expires_at:
        raise Refusal("InvalidSecurityToken.Expired")
